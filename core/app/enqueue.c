/* See enqueue.h. */
#include "app/enqueue.h"

#include "base/limits.h"
#include "state/durable.h"
#include "work/submit.h"
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
    submit_digest(name, job->canonical.data, job->canonical.len, job->digest);
    return MR_OK;
}

int enqueue_send(struct store *store, const struct enqueue *job, struct job_submitted *ret,
                 struct error *err)
{
    const struct pipeline *pipeline = job->pipeline;
    char after[SUBMIT_AFTER_BYTES], req[33];
    hash_random_hex(req, 16);
    struct job_submit submit = {.id = job->id,
                                .digest = job->digest,
                                .input = buf_text(&job->canonical),
                                .input_len = job->canonical.len,
                                .req = req,
                                .delay_ms = job->delay_ms,
                                .run_at_ms = job->run_at_ms,
                                .prio = job->prio,
                                .metadata = job->metadata,
                                .owner = job->owner,
                                .mode = JOB_PLAIN,
                                .queue_max = job->queue_max};
    mem_auto struct job_first *first = NULL;
    submit_fill(&submit, pipeline, 0, after, &first);
    if (job->ttl_ms) /* a client's own deadline stands instead of the pipeline's */
        submit.ttl_ms = job->ttl_ms;
    int rc = job_submit(store, &submit, ret, err);
    if (rc == MR_OK && ret->outcome != JOB_CONFLICT && ret->outcome != JOB_FULL)
        durable_submitted(store, job->id, (enum durable_level)pipeline->durability);
    return rc;
}
