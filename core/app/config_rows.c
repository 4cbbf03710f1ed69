/* The keys of the configuration. API.md "Configuration" is this table for people. */
#include "app/config_rows.h"

#include "app/config.h"
#include "state/store.h"
#include <string.h>

#define ROWS(table)                                                                                \
    {                                                                                              \
        (table), sizeof(table) / sizeof((table)[0]), sizeof(struct mr_option)                      \
    }

#define F struct config_form
static const struct mr_option top[] = {
    MR_OPT_TEXT(F, listen, "listen", "unix:/run/millrace/millrace.sock", 0,
                "Where FastCGI is spoken: unix:PATH, fd:N or HOST:PORT."),
    MR_OPT_TEXT(F, listen_mode, "listen_mode", "0660", 0, "Mode of the unix socket, octal."),
    MR_OPT_BOOL(F, listen_trusted, "listen_trusted", "false", 0,
                "Allows TCP on other addresses than loopback."),
    MR_OPT_JSON(F, redis, "redis", NULL, 0, "The Redis that holds queues, state and results."),
    MR_OPT_JSON(F, pipelines, "pipelines", NULL, 0,
                "Folder of pipeline files, or an array of folders."),
    MR_OPT_JSON(F, plugins, "plugins", NULL, 0, "Folder of plugins, or an array of folders."),
    MR_OPT_INT(F, workers, "workers", NULL, 1, 64, 0,
               "Worker processes; default: the number of cores."),
    MR_OPT_CHOICE(F, role, "role", "all", "all|front|worker", 0, "What this host does."),
    MR_OPT_JSON(
        F, queues, "queues", NULL, 0,
        "Queues served here (an array; default [\"*\"]), or settings by queue with the array "
        "as \"serve\"."),
    MR_OPT_INT(F, concurrency, "concurrency", "1000", 1, 1000000, 0, "Jobs in flight per process."),
    MR_OPT_JSON(F, endpoints, "endpoints", NULL, 0, "Model providers by name."),
    MR_OPT_JSON(F, retention, "retention", NULL, 0, "How long what has ended is kept."),
    MR_OPT_DURATION(F, lease_ms, "lease", "15s", 1000, 3600000, 0,
                    "How long a worker's claim holds without renewal."),
    MR_OPT_DURATION(F, stall_ms, "stall", "10s", 1000, 3600000, 0,
                    "A loop that stands still for so long ends its process."),
    MR_OPT_INT(F, max_crashes, "max_crashes", "3", 1, 1000, 0,
               "A job that brings its process down more often is poison."),
    MR_OPT_DURATION(F, drain_ms, "drain", "30s", 0, 86400000, 0,
                    "How long running jobs may take to end at a stop."),
    MR_OPT_JSON(F, dead, "dead", NULL, 0, "Automatic reprocessing of dead letters."),
    MR_OPT_JSON(F, limits, "limits", NULL, 0, "Sizes and counts."),
    MR_OPT_JSON(F, log, "log", NULL, 0, "The log."),
    MR_OPT_JSON(F, tasks, "tasks", NULL, 0, "The simple task API."),
    MR_OPT_JSON(F, auth, "auth", NULL, 0, "Bearer tokens; without any there is no authentication."),
    MR_OPT_JSON(F, cors, "cors", NULL, 0, "Cross-origin requests."),
    MR_OPT_JSON(F, webhooks, "webhooks", NULL, 0, "Webhooks at a job's end."),
    MR_OPT_TEXT(F, id_namespace, "id_namespace", NULL, 0,
                "A UUID: the namespace of this installation's job ids."),
    MR_OPT_TEXT(F, prefix, "prefix", "", 0, "Path that the HTTP API is served under."),
    MR_OPT_PATH(F, pid_file, "pid_file", NULL, 0, "File for the master's process id."),
    MR_OPT_TEXT(F, user, "user", NULL, 0, "User to become after the socket is open."),
    MR_OPT_TEXT(F, group, "group", NULL, 0, "Group to become after the socket is open."),
};
#undef F
const struct option_rows config_rows = ROWS(top);

#define F struct config_redis
static const struct mr_option redis[] = {
    MR_OPT_TEXT(F, url, "url", "redis://127.0.0.1:6379/0", MR_SECRET,
                "redis://[user:password@]host[:port][/db], unix:/path[?db=N] or "
                "sentinel://[user:password@]host[:port],.../MASTERNAME[/db]."),
    MR_OPT_INT(F, partitions, "partitions", "1", 1, STORE_PARTITIONS_MAX, 0,
               "Hash tags that jobs are spread over."),
    MR_OPT_TEXT(F, prefix, "prefix", "mr", 0, "What all keys and channels begin with."),
    MR_OPT_TEXT(F, user, "user", NULL, 0, "User, instead of one in the url."),
    MR_OPT_TEXT(F, password, "password", NULL, MR_SECRET, "Password, instead of one in the url."),
    MR_OPT_TEXT(F, sentinel_password, "sentinel_password", NULL, MR_SECRET,
                "Password of the sentinels themselves."),
};
#undef F
const struct option_rows config_redis_rows = ROWS(redis);

#define F struct config_form_endpoint
static const struct mr_option endpoint[] = {
    MR_OPT_TEXT(F, base_url, "base_url", NULL, MR_REQUIRED,
                "The full root; /chat/completions is appended."),
    MR_OPT_TEXT(F, api_key, "api_key", NULL, MR_SECRET, "Sent as a bearer token."),
    MR_OPT_INT(F, rpm, "rpm", NULL, 1, 1000000000, 0, "Requests a minute, over all hosts."),
    MR_OPT_INT(F, tpm, "tpm", NULL, 1, 1000000000000, 0, "Tokens a minute, over all hosts."),
    MR_OPT_INT(F, burst, "burst", "1", 1, 100000, 0, "Requests that may go at once."),
    MR_OPT_INT(F, max_in_flight, "max_in_flight", NULL, 1, 1000000, 0,
               "Requests in flight, over all hosts."),
    MR_OPT_DURATION(F, timeout_ms, "timeout", NULL, 1, 86400000, 0,
                    "Longest exchange; the stage's own timeout holds as well."),
    MR_OPT_JSON(F, prices, "prices", NULL, 0,
                "What a million tokens cost: {\"input\", \"output\"}, or such objects by model."),
};
#undef F
const struct option_rows config_endpoint_rows = ROWS(endpoint);

#define F struct config_form_price
static const struct mr_option price[] = {
    MR_OPT_REAL(F, input, "input", "0", 0, 1000000000, 0, "A million tokens of input."),
    MR_OPT_REAL(F, output, "output", "0", 0, 1000000000, 0, "A million tokens of output."),
};
#undef F
const struct option_rows config_price_rows = ROWS(price);

static const struct mr_option queue[] = {
    MR_OPT_INT(struct config_form_queue, max_running, "max_running", NULL, 1, 100000000, 0,
               "Jobs running at once, over all hosts."),
};
const struct option_rows config_queue_rows = ROWS(queue);

#define F struct config_form_retention
static const struct mr_option retention[] = {
    MR_OPT_DURATION(F, status_ms, "status", "24h", 1000, 31622400000, 0,
                    "Log and outputs of completed jobs."),
    MR_OPT_DURATION(F, result_ms, "result", "7d", 1000, 31622400000, 0,
                    "Jobs and their results; failed and cancelled ones whole."),
};
#undef F
const struct option_rows config_retention_rows = ROWS(retention);

#define F struct config_form_dead
static const struct mr_option dead[] = {
    MR_OPT_JSON(F, schedule, "schedule", NULL, 0,
                "After how long a dead letter of class retry is tried again, time after time; "
                "default [\"5m\", \"30m\", \"2h\"]."),
    MR_OPT_INT(F, budget, "budget", "60", 1, 1000000, 0, "Reprocessed jobs a minute."),
    MR_OPT_INT(F, breaker, "breaker", "20", 1, 1000000, 0,
               "Equal errors in a row after which their jobs are held."),
};
#undef F
const struct option_rows config_dead_rows = ROWS(dead);

#define F struct config_limits
static const struct mr_option limits[] = {
    MR_OPT_SIZE(F, body_max, "body_max", "8MiB", 1024, 1 << 30, 0, "A request's body."),
    MR_OPT_INT(F, json_depth, "json_depth", "64", 4, 64, 0, "Nesting of JSON."),
    MR_OPT_INT(F, batch_max, "batch_max", "1000", 1, 1000, 0, "Jobs of one batch."),
    MR_OPT_DURATION(F, wait_max, "wait_max", "25s", 1, 3600000, 0,
                    "Longest `Prefer: wait`; keep it under the web server's time-out."),
    MR_OPT_INT(F, streams_max, "streams_max", "10000", 1, 1000000, 0, "Event streams a process."),
    MR_OPT_SIZE(F, prompt_max, "prompt_max", "1MiB", 1, 1 << 30, 0,
                "A prompt of the simple task API."),
    MR_OPT_INT(F, queue_max, "queue_max", "1000000", 1, 1000000000, 0,
               "Jobs in a queue above which submissions get 429."),
    MR_OPT_INT(F, fibers_max, "fibers_max", "20000", 100, 1000000, 0, "Fibers a process."),
    MR_OPT_SIZE(F, memory, "memory", "1GiB", 1 << 20, 1LL << 40, 0,
                "Documents in a process, above which nothing new is taken."),
    MR_OPT_SIZE(F, output_max, "output_max", "1MiB", 1024, 1 << 20, 0, "A stage's output."),
    MR_OPT_SIZE(F, job_max, "job_max", "16MiB", 1024, 16 << 20, 0,
                "Input and outputs of a job together."),
    MR_OPT_SIZE(F, event_max, "event_max", "16KiB", 256, 16 << 10, 0, "An event's data."),
};
#undef F
const struct option_rows config_limits_rows = ROWS(limits);

#define F struct config_form_log
static const struct mr_option logs[] = {
    MR_OPT_CHOICE(F, level, "level", "info", "debug|info|warn|error", 0,
                  "The least that is logged."),
    MR_OPT_CHOICE(F, format, "format", "auto", "auto|text|json", 0,
                  "auto: text on a terminal, JSON lines else."),
    MR_OPT_TEXT(F, file, "file", "stderr", 0, "A file, or stderr."),
};
#undef F
const struct option_rows config_log_rows = ROWS(logs);

static const struct mr_option tasks[] = {
    MR_OPT_TEXT(struct config_form_tasks, pipeline, "pipeline", "prompt", 0,
                "The pipeline that POST /api/tasks runs."),
};
const struct option_rows config_tasks_rows = ROWS(tasks);

#define F struct config_form_token
static const struct mr_option token[] = {
    MR_OPT_TEXT(F, name, "name", NULL, MR_REQUIRED, "Names the token in logs and ids."),
    MR_OPT_TEXT(F, sha256, "sha256", NULL, MR_REQUIRED | MR_SECRET,
                "SHA-256 of the token, 64 hex digits."),
    MR_OPT_JSON(F, scopes, "scopes", NULL, MR_REQUIRED, "Of submit, read, admin."),
};
#undef F
static const struct mr_option auth[] = {
    MR_OPT_LIST(struct config_form_auth, tokens, "tokens", token, struct config_form_token, 0, 1000,
                0, "Who may do what."),
};
const struct option_rows config_auth_rows = ROWS(auth);

static const struct mr_option cors[] = {
    MR_OPT_JSON(struct config_form_cors, origins, "origins", NULL, 0,
                "Origins that browsers may call from."),
};
const struct option_rows config_cors_rows = ROWS(cors);

static const struct mr_option webhooks[] = {
    MR_OPT_TEXT(struct config_form_webhooks, secret, "secret", NULL, MR_SECRET,
                "Key of the signatures (Standard Webhooks: whsec_ and base64)."),
};
const struct option_rows config_webhooks_rows = ROWS(webhooks);

static const struct {
    const char *name;
    const struct option_rows *rows;
    bool by_name;
} sections[] = {
    {"redis", &config_redis_rows, false},       {"endpoints", &config_endpoint_rows, true},
    {"queues", &config_queue_rows, true},       {"retention", &config_retention_rows, false},
    {"dead", &config_dead_rows, false},         {"limits", &config_limits_rows, false},
    {"log", &config_log_rows, false},           {"tasks", &config_tasks_rows, false},
    {"auth", &config_auth_rows, false},         {"cors", &config_cors_rows, false},
    {"webhooks", &config_webhooks_rows, false},
};

const struct option_rows *config_section(const char *name, bool *ret_by_name)
{
    for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
        if (strcmp(sections[i].name, name) != 0)
            continue;
        if (ret_by_name != NULL)
            *ret_by_name = sections[i].by_name;
        return sections[i].rows;
    }
    return NULL;
}

static enum config_kind kind_in(const struct option_rows *rows, const char *name)
{
    for (uint32_t i = 0; i < rows->count; i++) {
        if (strcmp(rows->rows[i].name, name) != 0)
            continue;
        switch (rows->rows[i].type) {
        case MR_TYPE_INT:
        case MR_TYPE_REAL:
        case MR_TYPE_BOOL:
            return CONFIG_NUMBER;
        case MR_TYPE_JSON:
        case MR_TYPE_LIST:
            return CONFIG_LIST;
        default:
            return CONFIG_TEXT;
        }
    }
    return CONFIG_UNKNOWN;
}

enum config_kind config_kind(const char *const *path)
{
    bool by_name = false;
    size_t count = 0;
    while (path[count] != NULL)
        count++;
    const struct option_rows *rows = count > 0 ? config_section(path[0], &by_name) : NULL;
    if (count == 1 && rows != NULL && strcmp(path[0], "queues") != 0)
        return CONFIG_SECTION;
    if (count == 1)
        return kind_in(&config_rows, path[0]);
    /* A list of the limits that is no row: see config.c. */
    if (count == 2 && strcmp(path[0], "limits") == 0 && strcmp(path[1], "address_allow") == 0)
        return CONFIG_LIST;
    if (rows != NULL && count == (by_name ? 3u : 2u))
        return kind_in(rows, path[count - 1]);
    return CONFIG_UNKNOWN;
}
