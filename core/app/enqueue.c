/* See enqueue.h. The digest is over the pipeline's name and the canonical input, each with its
 * length, as for children (work/work_child.c). */
#include "app/enqueue.h"

#include "base/limits.h"
#include <stdio.h>
#include <string.h>

void enqueue_init(struct enqueue *job, const struct pipeline *pipeline)
{
    *job = (struct enqueue){.pipeline = pipeline, .prio = QUEUE_NORMAL};
    buf_init(&job->canonical, LIMIT_JOB_BYTES);
}

void enqueue_done(struct enqueue *job)
{
    buf_done(&job->canonical);
}

int enqueue_prepare(struct enqueue *job, const char *ns, const char *key, const json_t *input,
                    struct error *err)
{
    const char *name = job->pipeline->name;
    int rc = id_of_job(ns, name, key, input, job->id, err);
    if (rc != MR_OK)
        return rc;
    if (!json_canonical_to(input, &job->canonical) || job->canonical.failed)
        return error_set(err, MR_E_SCHEMA, "the input has no canonical form of at most %u bytes",
                         LIMIT_JOB_BYTES);
    struct hash hash;
    hash_start(&hash);
    hash_add_part(&hash, name, strlen(name));
    hash_add_part(&hash, job->canonical.data, job->canonical.len);
    hash_end(&hash, job->digest);
    return MR_OK;
}

int enqueue_send(struct store *store, const struct enqueue *job, struct job_submitted *ret,
                 struct error *err)
{
    const struct pipeline *pipeline = job->pipeline;
    mem_auto struct job_first *first = mem_alloc((pipeline->stage_count + 1) * sizeof *first);
    uint32_t first_count = 0;
    for (uint32_t i = 0; i < pipeline->stage_count; i++)
        if (pipeline->stages[i].need_count == 0)
            first[first_count++] =
                (struct job_first){pipeline->stages[i].name, pipeline->stages[i].queue};
    char after[24], req[33];
    snprintf(after, sizeof after, "%s%s%s", pipeline->on_complete ? "completed" : "",
             pipeline->on_complete && pipeline->on_failure ? "," : "",
             pipeline->on_failure ? "failed" : "");
    hash_random_hex(req, 16);
    const struct job_submit submit = {.id = job->id,
                                      .pipeline = pipeline->name,
                                      .digest = job->digest,
                                      .input = buf_text(&job->canonical),
                                      .input_len = job->canonical.len,
                                      .req = req,
                                      .delay_ms = job->delay_ms,
                                      .ttl_ms = job->ttl_ms ? job->ttl_ms : pipeline->deadline_ms,
                                      .prio = job->prio,
                                      .metadata = job->metadata,
                                      .owner = job->owner,
                                      .after = after[0] ? after : NULL,
                                      .mode = JOB_PLAIN,
                                      .first = first,
                                      .first_count = first_count,
                                      .queue_max = job->queue_max,
                                      .retention_status_ms = pipeline->retention_status_ms,
                                      .retention_result_ms = pipeline->retention_result_ms};
    return job_submit(store, &submit, ret, err);
}
