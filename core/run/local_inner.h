/* What the files of `millrace run` share: jobs in memory. */
#pragma once

#include "base/id.h"
#include "run/local.h"

struct local_step {
    struct local_step *next;
    stage_index stage;
    char *name, *text;
    size_t len;
};

struct local_waiter {
    struct wait wait;
    struct local_waiter *next;
};

struct local_job {
    struct local_job *next;
    struct session *session;
    struct local_job *parent; /* that called it; NULL: none */
    char id[ID_BYTES];
    struct pipeline *pipeline;
    struct run run;
    struct scope backoff; /* of waiting retries: ends when the job has failed */
    uint64_t deadline_ms; /* clock_now_ms() scale; 0: none */
    bool ended, failed;
    bool after; /* `on_complete` or `on_failure` runs */
    struct error error;
    char *result;
    size_t result_len;
    struct local_step *steps;
    struct local_waiter *waiters;
};

struct session {
    const struct local_setup *setup;
    struct local_job *jobs;
    struct scope scope;
    struct group group;
};

/* A job of the session; `input` is copied. `parent`: the one that calls it; `ttl_ms` bounds its
 * deadline (0: not). */
struct local_job *local_job_new(struct session *session, const char *id, struct pipeline *pipeline,
                                const char *input, size_t len, struct local_job *parent,
                                uint64_t ttl_ms);
/* Has it run on a fiber of its own. */
int local_job_start(struct local_job *job, struct error *err);

/* Callbacks of the runner (run/runner.h). */
MR_SUSPENDS int local_call(struct run *run, struct stage *stage, const struct run_child *child,
                           char **ret_text, size_t *ret_len, struct error *err);
MR_SUSPENDS int local_dispatch(struct run *run, struct stage *stage, const struct run_child *child,
                               struct error *err);
