/* The loop: libuv, the fibers that run on it and their life. One loop a process (tests make several
 * one after the other); the only seam to libuv for the layers above, which use wait.h, timer.h,
 * offload.h and the poll calls below. */
#pragma once

#include "base/error.h"
#include "fiber/fiber.h"
#include <uv.h>

struct loop {
    uv_loop_t uv;
    size_t fibers;    /* alive, started by loop_spawn */
    uint64_t turn_us; /* when the current turn of the loop began (monotonic, µs) */
    struct loop_private *priv;
};

int loop_init(struct loop *loop, struct error *err);
/* Closes what the loop itself made and asserts (in checked builds) that nothing else is left open.
 */
void loop_done(struct loop *loop);
/* Runs until loop_stop, or until no handle is active and no fiber alive. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);
/* Runs until no fiber that was started by loop_spawn is alive (tests, `millrace run`). */
void loop_run_fibers(struct loop *loop);

/* Starts a fiber that first runs in the coming turn (from anywhere on the loop's thread). `scope`
 * NULL: the spawner's own scope is not inherited, the fiber has none. MR_E_INTERNAL when out of
 * stacks. The fiber may be joined through a `struct wait` that fn's end wakes, or a group. */
struct scope;
int loop_spawn(struct loop *loop, struct scope *scope, void (*fn)(void *arg), void *arg);

/* Runs fn(arg) on the loop's thread on its next turn; may be called from any thread. Order is kept.
 */
void loop_post(struct loop *loop, void (*fn)(void *arg), void *arg);
