/* A stage in one process: what its plugin's `open` left, and how many of its tasks run.
 *
 * The first task of a stage has `open` run, on a fiber of its own that no task's cancel ends; all
 * that come meanwhile wait for it. A failed `open` is tried again by the next task. An instance
 * keeps its pipeline alive and lives until runner_done. */
#pragma once

#include "run/task.h"

#define INSTANCE_OPEN_MS 10000u

struct instance_waiter {
    struct wait wait;
    struct instance_waiter *next, **link;
};

struct instance {
    struct instance *next;
    struct runner *runner;
    struct pipeline *pipeline;
    struct stage *stage;
    enum { INSTANCE_CLOSED, INSTANCE_OPENING, INSTANCE_OPEN } state;
    void *value;
    struct error failure; /* of the last `open` */
    struct scope *scope;  /* of an `open` in progress */
    struct arena arena;
    struct task_defer *defers;
    struct instance_waiter *opening; /* tasks that wait for `open` */
    uint32_t running;                /* tasks that have a place */
    struct instance_waiter *queue;   /* tasks that wait for a place, in order */
};

/* The stage's instance, made on first use. */
struct instance *instance_of(struct runner *runner, struct pipeline *pipeline, struct stage *stage);
/* Waits until `open` has run. */
MR_SUSPENDS int instance_open(struct instance *instance, struct error *err);
/* Takes one of the stage's `concurrency` places, waiting for it. */
MR_SUSPENDS int instance_enter(struct instance *instance);
/* Gives it back. */
void instance_leave(struct instance *instance);
/* Takes a place without asking: a task that comes back from a call. */
void instance_return(struct instance *instance);
/* Closes and frees. */
void instance_free(struct instance *instance);
