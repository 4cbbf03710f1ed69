/* The runner: the open stages of a lane, each task on a fiber of its own, until nothing is left to
 * run. It knows no Redis and no front: what it reports, and what it is asked to run next, go
 * through the callbacks of `struct runner_ops`. `millrace run` (run/local.h) and the worker each
 * give it theirs.
 *
 * A task's way: `when` → open the instance (once a process and stage) → run under the stage's
 * time-out → output checked → the outcome is handed to ops->commit or ops->fail, which suspend
 * until it is stored and say which stages of this lane are open now. All callbacks run on the
 * task's fiber. */
#pragma once

#include "base/doc.h"
#include "base/limits.h"
#include "io/http.h"
#include "loop/wait.h"
#include "run/pipeline.h"

struct run;

enum stage_outcome { STAGE_DONE, STAGE_SKIPPED };

/* What a commit or fail says about the lane. */
enum run_verdict {
    RUN_ON,   /* `open` holds the lane's open stages */
    RUN_END,  /* the lane is closed */
    RUN_STOP, /* wind up: no new stage; running ones are cancelled */
    RUN_LOST, /* another worker has the lane: write nothing */
};
struct run_next {
    enum run_verdict verdict;
    uint64_t open[LIMIT_STAGES / 64]; /* bit per stage index */
};

/* A child as ops see it: names resolved, id computed. */
struct run_child {
    const char *id, *pipeline, *stage, *target;
    const char *input; /* canonical JSON */
    size_t input_len;
    const json_t *input_value; /* borrowed */
    uint64_t timeout_ms;       /* call */
    bool has_name;             /* its id is a declared name: not cancelled with the parent */
};

struct runner_ops {
    /* A task is about to run (after `when`); may be NULL. */
    void (*started)(struct run *run, struct stage *stage);
    /* Stores an output (borrowed JSON text). It is in run->doc already, and run->status says how
     * the stage ended: 3 when the output is the stage's `on_failure`. Outputs of other lanes that
     * became known may be set into run->doc. When this is the last stage of the job, `result` must
     * be computed by the callback with pipeline_result; should that fail, its error is returned,
     * and the stage fails with it. MR_OK: `*ret_next` counts. Any other error: as RUN_LOST.
     * Shielded: not ended by the run's scope. */
    MR_SUSPENDS int (*commit)(struct run *run, struct stage *stage, enum stage_outcome outcome,
                              const char *output, size_t len, struct run_next *ret_next,
                              struct error *err);
    /* A failed attempt: class and time are in `why`. Nobody has counted it in run->attempts yet. A
     * stage may be open again in `*ret_next`: it then begins anew at once. Any error: as RUN_LOST.
     */
    MR_SUSPENDS int (*fail)(struct run *run, struct stage *stage, const struct error *why,
                            struct run_next *ret_next, struct error *err);
    /* `out` of a step, borrowed until the task ends, NULL: none. Does not suspend. */
    const char *(*step_get)(struct run *run, struct stage *stage, const char *name,
                            size_t *ret_len);
    MR_SUSPENDS int (*step_put)(struct run *run, struct stage *stage, const char *name,
                                const char *text, size_t len, struct error *err);
    /* The child's result as JSON text (malloc'ed). */
    MR_SUSPENDS int (*call)(struct run *run, struct stage *stage, const struct run_child *child,
                            char **ret_text, size_t *ret_len, struct error *err);
    MR_SUSPENDS int (*dispatch)(struct run *run, struct stage *stage, const struct run_child *child,
                                struct error *err);
    /* Progress and the plugin's own events; may drop or merge. Do not suspend. `data` is JSON text
     * of an object, or NULL. */
    void (*progress)(struct run *run, struct stage *stage, int percent, const char *message);
    void (*emit)(struct run *run, struct stage *stage, const char *kind, const char *data,
                 size_t len);
    /* A log line of the plugin. */
    void (*log)(struct run *run, struct stage *stage, int level, const char *text);
};

/* What all runs of a process share. */
struct runner {
    struct loop *loop;
    struct http *http;
    /* Base URL and key of a configured endpoint (borrowed), NULL when there is none. */
    const struct endpoint *(*find_endpoint)(void *arg, const char *name);
    void *arg;
    /* Limits of an endpoint, both or neither: before a request (may suspend, while the stage's
     * clock stands still; MR_E_RATE_LIMITED with retry_in_ms parks the task) and after it, with
     * what http_begin left in `*ret_ticket` (`reply` NULL: there was none). */
    MR_SUSPENDS int (*http_begin)(void *arg, struct run *run, const struct endpoint *endpoint,
                                  size_t body_len, void **ret_ticket, struct error *err);
    MR_SUSPENDS void (*http_end)(void *arg, struct run *run, void *ticket,
                                 const struct http_reply *reply);
    const char *id_namespace;    /* of declared names; NULL: NAMESPACE_DNS */
    bool stopping;               /* tasks that start now get MR_E_STOPPING */
    struct runner_private *priv; /* batches, instances */
};
struct endpoint {
    char *name, *base_url, *api_key; /* key may be NULL */
    uint64_t timeout_ms;             /* 0: none of its own */
};
void runner_init(struct runner *runner, struct loop *loop, struct http *http);
/* On a fiber, when no run is alive: ends what still opens an instance and waits for it. */
MR_SUSPENDS void runner_settle(struct runner *runner);
/* Closes instances that were opened; they have kept their pipelines. No run may be alive. */
void runner_done(struct runner *runner);

/* One lane of one job. The caller fills it (zeroed first) and keeps it until runner_run returns. */
struct run {
    struct runner *runner;
    const struct runner_ops *ops;
    void *data;                /* the caller's */
    struct pipeline *pipeline; /* borrowed */
    struct doc *doc; /* .input and outputs of finished stages; .job and .stages are made from here
                        by the runner */
    const char *job_id;
    const char *priority;
    const char *metadata;            /* JSON text or NULL */
    uint64_t created_ms;             /* wall clock */
    uint32_t attempts[LIMIT_STAGES]; /* used so far, by stage */
    uint8_t status[LIMIT_STAGES];    /* 0 not finished, 1 completed, 2 skipped, 3 failed */
    uint64_t open[LIMIT_STAGES / 64];
    struct scope scope; /* made by the caller (scope_init): cancelling it ends the lane's tasks; its
                           deadline is the job's */
    int64_t input_tokens,
        output_tokens; /* used by tasks of this run since the caller last took them */
    /* The runner's own. */
    struct group group;
    uint64_t running[LIMIT_STAGES / 64];
    enum run_verdict verdict;
    struct run_fault *faults;
};
/* Runs what is open and what commits open, until no task is left. On a fiber. Returns the last
 * verdict. */
MR_SUSPENDS enum run_verdict runner_run(struct run *run);

static inline bool run_bit(const uint64_t *bits, stage_index i)
{
    return (bits[i / 64] >> (i % 64)) & 1;
}
static inline void run_set_bit(uint64_t *bits, stage_index i)
{
    bits[i / 64] |= (uint64_t)1 << (i % 64);
}
static inline void run_clear_bit(uint64_t *bits, stage_index i)
{
    bits[i / 64] &= ~((uint64_t)1 << (i % 64));
}
