/* The configuration: `millrace.json` to one typed, read-only struct (API.md "Configuration").
 *
 * A load reads the file and what it includes, expands `${…}` in strings, lays the environment
 * (MILLRACE_SECTION__KEY) over it and checks everything against the same kind of option rows as
 * plugins have. Every error is reported at once. All memory belongs to the struct; nothing changes
 * after the load; a reload makes another one. Secrets are in the struct but in no message and no
 * dump. */
#pragma once

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "run/runner.h"

enum config_role { CONFIG_ALL, CONFIG_FRONT, CONFIG_WORKER };
enum config_scope { CONFIG_SUBMIT = 1 << 0, CONFIG_READ = 1 << 1, CONFIG_ADMIN = 1 << 2 };

struct config_redis {
    const char *url;
    int64_t partitions;
    const char *prefix;
    const char *user;              /* NULL: none, or in the url */
    const char *password;          /* secret; NULL: none, or in the url */
    const char *sentinel_password; /* secret; NULL: the sentinels want none */
};

/* What a million tokens cost, for `usage.cost`. */
struct config_price {
    const char *model; /* NULL: every model that has no row of its own */
    double input, output;
};

struct config_endpoint {
    struct endpoint endpoint; /* name, base URL (no slash at its end), key, time-out: what the
                                 runner asks for */
    int64_t rpm, tpm;         /* 0: no limit */
    int64_t burst;            /* requests that may go at once; 1 */
    int64_t max_in_flight;    /* over all hosts; 0: no limit */
    const struct config_price *prices;
    size_t price_count;
};

struct config_queue {
    const char *name;
    int64_t max_running; /* over all hosts; 0: no limit */
};

struct config_token {
    const char *name;
    const char *sha256; /* 64 lower-case hex digits */
    uint32_t scopes;    /* enum config_scope; admin does not imply the others here: test with
                           config_token_may */
};

struct config_limits {
    uint64_t body_max;                /* bytes */
    int64_t json_depth;               /* levels */
    int64_t batch_max;                /* items */
    uint64_t wait_max;                /* ms */
    int64_t streams_max;              /* per process */
    uint64_t prompt_max;              /* bytes */
    int64_t queue_max;                /* entries */
    int64_t fibers_max;               /* per process */
    uint64_t memory;                  /* bytes of documents, per process */
    uint64_t output_max;              /* bytes of a stage's output */
    uint64_t job_max;                 /* bytes of a job */
    uint64_t event_max;               /* bytes of an event */
    const char *const *address_allow; /* NULL-ended CIDR list, never NULL */
};

struct config {
    const char *file; /* absolute; NULL: none, all defaults */
    const char *dir;  /* what paths are relative to: the file's folder, else the current one */

    const char *listen;     /* "unix:/PATH" (absolute), "fd:N" or "HOST:PORT" */
    uint32_t listen_mode;   /* of a unix socket: 0660 */
    int32_t listen_trusted; /* TCP other than loopback is allowed */
    struct config_redis redis;
    const char *const *pipelines; /* NULL-ended, absolute folders, searched in order */
    const char *const *plugins;   /* the same, ready for plugin_registry_new */
    int64_t workers;              /* child processes; the number of cores unless given */
    int32_t role;                 /* enum config_role */
    const char *const *queues;    /* NULL-ended; "*" is all */
    const struct config_queue *queue_limits;
    size_t queue_limit_count;
    int64_t concurrency; /* jobs in flight per process */
    const struct config_endpoint *endpoints;
    size_t endpoint_count;
    const char *const *endpoint_names; /* the same, NULL-ended */
    uint64_t retention_status_ms, retention_result_ms;
    uint64_t lease_ms, stall_ms, drain_ms;
    int64_t max_crashes;
    const uint64_t *dead_schedule_ms; /* delays of the automatic reprocessing, in order */
    size_t dead_schedule_count;
    int64_t dead_budget;  /* a minute */
    int64_t dead_breaker; /* in a row */
    struct config_limits limits;
    enum log_level log_level;
    enum log_format log_format;
    const char *log_file; /* NULL: stderr */
    const char *tasks_pipeline;
    const struct config_token *tokens; /* of `auth.tokens` */
    size_t token_count;                /* 0: auth is off */
    const char *const *cors_origins;   /* NULL-ended, never NULL */
    const char *webhooks_secret;       /* secret; NULL: none */
    const char *id_namespace;          /* a UUID; ID_NAMESPACE_DEFAULT unless given */
    const char *prefix; /* of the HTTP API: "" or "/path" without a slash at its end */
    const char *pid_file, *user, *group; /* NULL: none */

    struct arena arena;
    void *priv;
};

/* The file that counts: `given` (of `-c`), else $MILLRACE_CONFIG, else ./millrace.json, else
 * /etc/millrace/millrace.json. malloc'ed absolute path; NULL when there is none (defaults count).
 * A file that was named but is not there is for config_load to report. */
char *config_find(const char *given);
/* Loads `file` (NULL: defaults and environment). NULL when an error was reported; warnings alone
 * give a configuration. Reads files, touches nothing else. */
struct config *config_load(const char *file, struct report *report);
/* The two halves of a load, for a master that hands what was checked to its children: the text, as
 * one JSON object with includes, variables and environment in it (new reference; it holds secrets;
 * NULL when something was reported), and the configuration of that, read from nowhere else. */
json_t *config_read(const char *file, struct report *report);
struct config *config_make(const char *file, const json_t *root, struct report *report);
void config_free(struct config *config);

/* Where Redis is: redis.url with redis.user and redis.password over what stands in it.
 * redis_config_done() it. MR_E_SCHEMA for a URL that this version does not speak. */
struct redis_config;
int config_redis(const struct config *config, struct redis_config *ret_redis, struct error *err);
/* An endpoint by name, NULL when there is none. */
const struct config_endpoint *config_endpoint(const struct config *config, const char *name);
/* The price row that counts for a model; NULL when there is none. */
const struct config_price *config_price(const struct config_endpoint *endpoint, const char *model);
/* Limit over all hosts of a queue, 0: none. */
int64_t config_queue_max_running(const struct config *config, const char *queue);
/* Whether this host serves a queue. */
bool config_serves(const struct config *config, const char *queue);
/* Whether a token has a scope; `admin` has every one. */
bool config_token_may(const struct config_token *token, enum config_scope scope);
/* What counts, as JSON (new reference), for `millrace check --show`; secrets read "***". */
json_t *config_describe(const struct config *config);
/* Every key, type, default and sentence, for `millrace check --keys`. */
bool config_describe_keys(struct buf *buf);

/* For struct runner: find_endpoint with a struct config * as its argument. */
const struct endpoint *config_find_endpoint(void *config, const char *name);
/* For struct worker_setup: find_limit with a struct config * as its argument. */
struct limit_rule;
bool config_find_limit(void *config, const char *name, struct limit_rule *ret_rule);
/* For struct pipeline_setup: has_endpoint with a struct config * as its argument. */
bool config_has_endpoint(void *config, const char *name);
/* Path of a pipeline's file NAME.json in the configured folders, malloc'ed; NULL when there is
 * none. */
char *config_pipeline_file(const struct config *config, const char *name);
/* Names of all pipelines in the configured folders, sorted, NULL-ended; free each and the array. */
char **config_pipeline_names(const struct config *config);
