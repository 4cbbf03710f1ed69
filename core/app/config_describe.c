/* The configuration as people read it: what counts (secrets as ***), and what there is to set. */
#include "app/config_parts.h"

#include "base/unit.h"
#include <string.h>

static json_t *text(const char *value)
{
    return value != NULL ? json_string(value) : json_null();
}

static json_t *secret(const char *value)
{
    return value != NULL ? json_string("***") : json_null();
}

static json_t *duration(uint64_t ms)
{
    char word[32];
    unit_format_duration(ms, word);
    return json_string(word);
}

static json_t *size(uint64_t bytes)
{
    char word[32];
    unit_format_size(bytes, word);
    return json_string(word);
}

static json_t *words(const char *const *list)
{
    json_t *array = json_array();
    for (; list != NULL && *list != NULL; list++)
        json_array_append_new(array, json_string(*list));
    return array;
}

/* An address without the password in it: `redis://user:***@host`. */
static json_t *address(const char *url)
{
    const char *at = strrchr(url, '@');
    const char *from = strstr(url, "://");
    const char *colon = from != NULL && at != NULL && at > from ? strchr(from + 3, ':') : NULL;
    if (colon == NULL || colon > at)
        return json_string(url);
    mem_auto char *masked = mem_format("%.*s:***%s", (int)(colon - url), url, at);
    return json_string(masked);
}

static json_t *number_or_null(int64_t value)
{
    return value != 0 ? json_integer(value) : json_null();
}

static json_t *describe_endpoints(const struct config *config)
{
    json_t *all = json_object();
    for (size_t i = 0; i < config->endpoint_count; i++) {
        const struct config_endpoint *one = &config->endpoints[i];
        json_t *prices = json_object();
        for (size_t n = 0; n < one->price_count; n++)
            json_object_set_new(prices, one->prices[n].model != NULL ? one->prices[n].model : "*",
                                json_pack("{s:f, s:f}", "input", one->prices[n].input, "output",
                                          one->prices[n].output));
        json_object_set_new(
            all, one->endpoint.name,
            json_pack(
                "{s:s, s:o, s:o, s:o, s:I, s:o, s:o, s:o}", "base_url", one->endpoint.base_url,
                "api_key", secret(one->endpoint.api_key), "rpm", number_or_null(one->rpm), "tpm",
                number_or_null(one->tpm), "burst", (json_int_t)one->burst, "max_in_flight",
                number_or_null(one->max_in_flight), "timeout",
                one->endpoint.timeout_ms != 0 ? duration(one->endpoint.timeout_ms) : json_null(),
                "prices", prices));
    }
    return all;
}

static json_t *describe_queues(const struct config *config)
{
    json_t *all = json_pack("{s:o}", "serve", words(config->queues));
    for (size_t i = 0; i < config->queue_limit_count; i++)
        json_object_set_new(
            all, config->queue_limits[i].name,
            json_pack("{s:o}", "max_running", number_or_null(config->queue_limits[i].max_running)));
    return all;
}

static json_t *describe_dead(const struct config *config)
{
    json_t *schedule = json_array();
    for (size_t i = 0; i < config->dead_schedule_count; i++)
        json_array_append_new(schedule, duration(config->dead_schedule_ms[i]));
    return json_pack("{s:o, s:I, s:I}", "schedule", schedule, "budget",
                     (json_int_t)config->dead_budget, "breaker", (json_int_t)config->dead_breaker);
}

static json_t *describe_limits(const struct config_limits *limits)
{
    json_t *all = json_object();
    json_object_set_new(all, "body_max", size(limits->body_max));
    json_object_set_new(all, "json_depth", json_integer(limits->json_depth));
    json_object_set_new(all, "batch_max", json_integer(limits->batch_max));
    json_object_set_new(all, "wait_max", duration(limits->wait_max));
    json_object_set_new(all, "streams_max", json_integer(limits->streams_max));
    json_object_set_new(all, "prompt_max", size(limits->prompt_max));
    json_object_set_new(all, "queue_max", json_integer(limits->queue_max));
    json_object_set_new(all, "fibers_max", json_integer(limits->fibers_max));
    json_object_set_new(all, "memory", size(limits->memory));
    json_object_set_new(all, "output_max", size(limits->output_max));
    json_object_set_new(all, "job_max", size(limits->job_max));
    json_object_set_new(all, "event_max", size(limits->event_max));
    json_object_set_new(all, "address_allow", words(limits->address_allow));
    return all;
}

static json_t *describe_tokens(const struct config *config)
{
    static const char *const names[] = {"submit", "read", "admin"};
    json_t *all = json_array();
    for (size_t i = 0; i < config->token_count; i++) {
        json_t *scopes = json_array();
        for (unsigned n = 0; n < 3; n++)
            if (config->tokens[i].scopes & (1u << n))
                json_array_append_new(scopes, json_string(names[n]));
        json_array_append_new(all, json_pack("{s:s, s:s, s:o}", "name", config->tokens[i].name,
                                             "sha256", "***", "scopes", scopes));
    }
    return all;
}

json_t *config_describe(const struct config *config)
{
    static const char *const roles[] = {"all", "front", "worker"};
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    static const char *const formats[] = {"auto", "text", "json"};
    char mode[8];
    snprintf(mode, sizeof(mode), "%04o", (unsigned)config->listen_mode & 0777u);
    json_t *all = json_object();
    json_object_set_new(all, "file", text(config->file));
    json_object_set_new(all, "listen", text(config->listen));
    json_object_set_new(all, "listen_mode", json_string(mode));
    json_object_set_new(all, "listen_trusted", json_boolean(config->listen_trusted));
    json_object_set_new(
        all, "redis",
        json_pack("{s:o, s:I, s:s, s:o, s:o, s:o}", "url", address(config->redis.url), "partitions",
                  (json_int_t)config->redis.partitions, "prefix", config->redis.prefix, "user",
                  text(config->redis.user), "password", secret(config->redis.password),
                  "sentinel_password", secret(config->redis.sentinel_password)));
    json_object_set_new(all, "pipelines", words(config->pipelines));
    json_object_set_new(all, "plugins", words(config->plugins));
    json_object_set_new(all, "workers", json_integer(config->workers));
    json_object_set_new(all, "role", json_string(roles[config->role]));
    json_object_set_new(all, "queues", describe_queues(config));
    json_object_set_new(all, "concurrency", json_integer(config->concurrency));
    json_object_set_new(all, "endpoints", describe_endpoints(config));
    json_object_set_new(all, "retention",
                        json_pack("{s:o, s:o}", "status", duration(config->retention_status_ms),
                                  "result", duration(config->retention_result_ms)));
    json_object_set_new(all, "lease", duration(config->lease_ms));
    json_object_set_new(all, "stall", duration(config->stall_ms));
    json_object_set_new(all, "max_crashes", json_integer(config->max_crashes));
    json_object_set_new(all, "drain", duration(config->drain_ms));
    json_object_set_new(all, "dead", describe_dead(config));
    json_object_set_new(all, "limits", describe_limits(&config->limits));
    json_object_set_new(all, "log",
                        json_pack("{s:s, s:s, s:s}", "level", levels[config->log_level], "format",
                                  formats[config->log_format], "file",
                                  config->log_file != NULL ? config->log_file : "stderr"));
    json_object_set_new(all, "tasks", json_pack("{s:s}", "pipeline", config->tasks_pipeline));
    json_object_set_new(all, "auth", json_pack("{s:o}", "tokens", describe_tokens(config)));
    json_object_set_new(all, "cors", json_pack("{s:o}", "origins", words(config->cors_origins)));
    json_object_set_new(all, "webhooks",
                        json_pack("{s:o}", "secret", secret(config->webhooks_secret)));
    json_object_set_new(all, "id_namespace", text(config->id_namespace));
    json_object_set_new(all, "prefix", text(config->prefix));
    json_object_set_new(all, "pid_file", text(config->pid_file));
    json_object_set_new(all, "user", text(config->user));
    json_object_set_new(all, "group", text(config->group));
    return all;
}

bool config_describe_keys(struct buf *buf)
{
    option_describe_text(&config_rows, buf);
    for (uint32_t i = 0; i < config_rows.count; i++) {
        bool by_name = false;
        const char *name = config_rows.rows[i].name;
        const struct option_rows *rows = config_section(name, &by_name);
        if (rows == NULL)
            continue;
        buf_format(buf, "\n%s%s\n", name, by_name ? ".NAME" : "");
        option_describe_text(rows, buf);
    }
    return !buf->failed;
}
