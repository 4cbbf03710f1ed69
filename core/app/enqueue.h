/* From a pipeline and an input to a job in Redis: one way for the front and for the command line,
 * so that both give the same ids. */
#pragma once

#include "run/pipeline.h"
#include "state/job.h"

struct enqueue {
    const struct pipeline *pipeline;
    char id[ID_BYTES], digest[HASH_HEX_BYTES]; /* enqueue_prepare */
    struct buf canonical;                      /* the input as it is stored; enqueue_init */
    enum queue_class prio;                     /* high, normal or low */
    uint64_t delay_ms, ttl_ms;                 /* 0: none; ttl: else the pipeline's deadline */
    uint64_t run_at_ms;                        /* see struct job_submit */
    const char *metadata;                      /* JSON object or NULL */
    const char *owner;                         /* token's name or NULL */
    uint64_t queue_max;
};
void enqueue_init(struct enqueue *job, const struct pipeline *pipeline);
void enqueue_done(struct enqueue *job);
/* Canonical text, digest and id of an input that was checked. `key` NULL: the input decides.
 * Touches its arguments only: may run on a thread. MR_E_SCHEMA when the input has no canonical form
 * within LIMIT_JOB_BYTES, or `ns` is no UUID. */
int enqueue_prepare(struct enqueue *job, const char *ns, const char *key, const json_t *input,
                    struct error *err);
/* Stores it, and waits until it is as safe as its pipeline's `durability` asks (the job says
 * whether it is: durable.h); errors and outcomes of job_submit. */
MR_SUSPENDS int enqueue_send(struct store *store, const struct enqueue *job,
                             struct job_submitted *ret, struct error *err);
