/* The keys of the configuration: option rows by section, and the structs that they fill. One table
 * for reading, for the environment, for descriptions and for what is printed. */
#pragma once

#include "app/config_file.h"
#include "base/option.h"

/* Fields of CONFIG_JSON rows are objects and arrays that config.c reads further. */
struct config_form {
    const char *listen, *listen_mode, *id_namespace, *prefix, *pid_file, *user, *group;
    int32_t listen_trusted, role;
    int64_t workers, concurrency, max_crashes;
    uint64_t lease_ms, stall_ms, drain_ms;
    const json_t *redis, *pipelines, *plugins, *queues, *endpoints, *retention, *dead, *limits,
        *log, *tasks, *auth, *cors, *webhooks;
};
struct config_form_endpoint {
    const char *base_url, *api_key;
    int64_t rpm, tpm, burst, max_in_flight;
    uint64_t timeout_ms;
    const json_t *prices;
};
struct config_form_price {
    double input, output;
};
struct config_form_queue {
    int64_t max_running;
};
struct config_form_retention {
    uint64_t status_ms, result_ms;
};
struct config_form_dead {
    const json_t *schedule;
    int64_t budget, breaker;
};
struct config_form_log {
    int32_t level, format;
    const char *file;
};
struct config_form_tasks {
    const char *pipeline;
};
struct config_form_token {
    const char *name, *sha256;
    const json_t *scopes;
};
struct config_form_auth {
    struct mr_list tokens;
};
struct config_form_cors {
    const json_t *origins;
};
struct config_form_webhooks {
    const char *secret;
};

extern const struct option_rows config_rows, config_redis_rows, config_endpoint_rows,
    config_price_rows, config_queue_rows, config_retention_rows, config_dead_rows,
    config_limits_rows, config_log_rows, config_tasks_rows, config_auth_rows, config_cors_rows,
    config_webhooks_rows;

/* The rows of a section ("redis"); NULL for a word that is none. `endpoints` and `queues` hold
 * objects by name: theirs are those of one such object. */
const struct option_rows *config_section(const char *name, bool *ret_by_name);
/* For the environment. */
enum config_kind config_kind(const char *const *path);
