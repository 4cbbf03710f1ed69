/* The worker: takes lanes from Redis, keeps their leases, feeds the runner, writes checkpoints.
 * What a worker process does, as a list of steps, is worker_run.
 *
 *   worker.c      the process: opens everything, starts the fibers, drains, closes
 *   claim.c       reads queues in order of class, begins lanes, takes over what others lost
 *   work_lane.c   one lane: begin, runner, end; the runner's callbacks against Redis
 *   work_child.c  calls and dispatches
 *   work_limit.c  limits of endpoints
 *   revision.c    pipelines by revision, local or from Redis
 *   keeper.c      the thread that renews leases and watches the loop
 *   mover.c       wakes what is due
 *
 * All of it runs on one loop; only the keeper is a thread, and it shares with the loop a table of
 * leases under a mutex. */
#pragma once

#include "run/runner.h"
#include "state/limit.h"
#include "state/store.h"
#include "work/page.h"

struct worker_setup {
    const struct redis_config *redis;
    const char *prefix;
    unsigned partitions;
    const char *node; /* HOST/INSTANCE */
    int slot;
    struct page_slot *page;                       /* NULL: none (tests) */
    int lifeline_fd;                              /* -1: none */
    const struct pipeline_source *const *sources; /* NULL-ended; what this host offers */
    const char *const *plugin_folders;
    const char *const *queues; /* NULL-ended; "*": all queues of the pipelines */
    size_t concurrency;        /* lanes in flight */
    size_t fibers_max;
    uint64_t memory_max; /* bytes of documents above which nothing is claimed */
    uint64_t lease_ms, stall_ms, drain_ms;
    uint64_t retention_status_ms, retention_result_ms;
    unsigned max_crashes;
    const uint64_t *dead_schedule_ms; /* automatic reprocessing of dead letters */
    size_t dead_schedule_count;
    unsigned dead_budget, dead_breaker;
    uint64_t queue_max;       /* entries; dispatches into a longer queue are throttled */
    const char *id_namespace; /* of declared names; NULL: NAMESPACE_DNS */
    const char *const *address_allow;
    bool (*has_endpoint)(void *arg, const char *name);
    const struct endpoint *(*find_endpoint)(void *arg, const char *name);
    /* Limits of an endpoint that hold over all workers; false: it has none. May be NULL. */
    bool (*find_limit)(void *arg, const char *endpoint, struct limit_rule *ret_rule);
    void *arg;
};
/* Runs until TERM (drain), INT (at once) or the master's end. The process's exit status: 0 after a
 * clean end, 1 when it could not start. */
int worker_run(const struct worker_setup *setup);
