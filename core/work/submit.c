/* See submit.h. */
#include "work/submit.h"

#include "base/mem.h"
#include <stdio.h>
#include <string.h>

void submit_digest(const char *pipeline, const char *input, size_t len,
                   char ret_hex[HASH_HEX_BYTES])
{
    struct hash hash;
    hash_start(&hash);
    hash_add_part(&hash, pipeline, strlen(pipeline));
    hash_add_part(&hash, input, len);
    hash_end(&hash, ret_hex);
}

void submit_fill(struct job_submit *submit, const struct pipeline *pipeline, uint64_t ttl_ms,
                 char after[SUBMIT_AFTER_BYTES], struct job_first **ret_first)
{
    struct job_first *first = mem_alloc((pipeline->stage_count + 1) * sizeof *first);
    uint32_t count = 0;
    for (uint32_t i = 0; i < pipeline->stage_count; i++)
        if (pipeline->stages[i].need_count == 0)
            first[count++] =
                (struct job_first){pipeline->stages[i].name, pipeline->stages[i].queue};
    snprintf(after, SUBMIT_AFTER_BYTES, "%s%s%s", pipeline->on_complete ? "completed" : "",
             pipeline->on_complete && pipeline->on_failure ? "," : "",
             pipeline->on_failure ? "failed" : "");
    submit->pipeline = pipeline->name;
    submit->first = first;
    submit->first_count = count;
    submit->after = after[0] ? after : NULL;
    submit->ttl_ms = ttl_ms;
    if (pipeline->deadline_ms && (!ttl_ms || pipeline->deadline_ms < ttl_ms))
        submit->ttl_ms = pipeline->deadline_ms;
    submit->retention_status_ms = pipeline->retention_status_ms;
    submit->retention_result_ms = pipeline->retention_result_ms;
    *ret_first = first;
}
