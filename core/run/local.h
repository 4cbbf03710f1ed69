/* `millrace run`: one job here and now. Gives the runner callbacks that keep everything in memory:
 * the graph, retries with backoff, steps, called and dispatched pipelines (run in this process, by
 * the same deterministic ids). */
#pragma once

#include "run/runner.h"

struct local_setup {
    struct runner *runner;
    /* A pipeline by name, borrowed; NULL with the reason. */
    struct pipeline *(*find_pipeline)(void *arg, const char *name, struct error *err);
    void *arg;
    /* Told of each event as it happens: kind as in API.md ("stage.started"), stage (NULL: the
     * job's), JSON text of its data or NULL. */
    void (*on_event)(void *arg, const char *job, const char *kind, const char *stage,
                     const char *data);
};
/* Runs to the end; the result as JSON text (malloc'ed). Errors as in the job's `error`. */
MR_SUSPENDS int local_run(const struct local_setup *setup, struct pipeline *pipeline,
                          const json_t *input, char **ret_result, size_t *ret_len,
                          struct error *err);
