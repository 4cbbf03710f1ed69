/* Honesty about what is read but has no effect in this version: each such setting that was given is
 * a warning, so that nobody believes in a limit that is not there. A line goes when its feature
 * comes. */
#include "app/config_parts.h"

#include "base/limits.h"
#include "io/redis.h"

#define PENDING "has no effect in this version"

static void pending_endpoints(const struct config *config, struct report *report)
{
    for (size_t i = 0; i < config->endpoint_count; i++) {
        const struct config_endpoint *endpoint = &config->endpoints[i];
        if (!endpoint->price_count)
            continue;
        mem_auto char *pointer = mem_format("/endpoints/%s/prices", endpoint->endpoint.name);
        report_warn(report, config->file, pointer, PENDING);
    }
}

void config_warn_pending(const struct config *config, struct report *report)
{
    pending_endpoints(config, report);
    for (size_t i = 0; i < config->queue_limit_count; i++) {
        if (!config->queue_limits[i].max_running)
            continue;
        mem_auto char *pointer = mem_format("/queues/%s/max_running", config->queue_limits[i].name);
        report_warn(report, config->file, pointer, PENDING);
    }
    if (config->cors_origins[0])
        report_warn(report, config->file, "/cors/origins", PENDING);
    if (config->webhooks_secret)
        report_warn(report, config->file, "/webhooks/secret", PENDING);
    if (config->limits.output_max != LIMIT_OUTPUT_BYTES)
        report_warn(report, config->file, "/limits/output_max", PENDING ": it is 1 MiB");
    if (config->limits.job_max != LIMIT_JOB_BYTES)
        report_warn(report, config->file, "/limits/job_max", PENDING ": it is 16 MiB");
    if (config->limits.event_max != LIMIT_EVENT_BYTES)
        report_warn(report, config->file, "/limits/event_max", PENDING ": it is 16 KiB");
}

bool config_check_redis(const struct config *config, struct report *report)
{
    struct redis_config parsed = {0};
    struct error err = {0};
    if (config_redis(config, &parsed, &err) == MR_OK) {
        redis_config_done(&parsed);
        return true;
    }
    struct error *item = report_add(report, config->file, "/redis/url", "%s", err.message);
    if (err.hint[0])
        error_hint(item, "%s", err.hint);
    return false;
}
