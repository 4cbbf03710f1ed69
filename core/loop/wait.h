/* The meeting point of callbacks and fibers: the one primitive behind every suspension.
 *
 * A fiber makes a `struct wait` on its stack, hands its address to whatever will finish (a callback
 * on the loop's thread), and calls wait_for, which suspends it until wait_wake, a deadline, or the
 * cancelling of its scope, whichever is first. After wait_for has returned the operation must be
 * called off by the waiter before the wait leaves its scope: a later wait_wake on it would be a bug
 * (checked builds abort).
 *
 * A scope is what is cancelled together and shares a deadline: a task, a request, a lane. Scopes
 * nest: a child's waits end when any scope above it is cancelled. Cancelling is sticky: every later
 * wait of the scope returns the code at once, unless the fiber is inside wait_shield (clean-up and
 * checkpoints).
 *
 * Torture mode (tests): wait_torture(n, code) makes the n-th suspension from now return `code` at
 * once without suspending, so that a test can end every suspension in turn with cancel, time-out
 * and error. */
#pragma once

#include "loop/timer.h"

struct scope {
    struct scope *parent;
    int code;              /* 0, or the error that cancelled it */
    uint64_t deadline_ms;  /* clock_now_ms() scale; 0: none. Reaching it gives `deadline_code` */
    int deadline_code;     /* default MR_E_TIMEOUT */
    uint64_t paused_at_ms; /* nonzero while the deadline stands still (waiting for a limit) */
    unsigned pauses;       /* scope_pause less scope_resume */
    struct wait *waits;    /* waits in progress of this scope itself */
    struct scope *children, *next, **link;
};

void scope_init(struct scope *scope, struct scope *parent);
/* All waits are over and all children gone. */
void scope_done(struct scope *scope);
/* Ends every wait of the scope and of its children with `code`, now and from now on. The first code
 * stands. Loop's thread. */
void scope_cancel(struct scope *scope, int code);
/* 0, or the error that ends waits of this scope or of one above. */
int scope_error(const struct scope *scope);
/* Milliseconds until the nearest deadline of the scope and those above; UINT64_MAX: none. */
uint64_t scope_time_left(const struct scope *scope);
/* Sets the scope's own deadline (clock_now_ms() scale; 0: none) and the code that reaching it
 * gives; waits in progress follow. Before the first wait the fields may be set directly. */
void scope_set_deadline(struct scope *scope, uint64_t deadline_ms, int code);
/* Stops and continues the clock of the scope's own deadline; pairs nest. A deadline that was
 * already reached stays reached. */
void scope_pause(struct scope *scope);
void scope_resume(struct scope *scope);

struct wait {
    struct loop *loop;
    struct fiber *fiber;
    struct scope *scope;
    struct wait *next, **link;
    bool done;
    bool expired; /* ended by the time-out given to wait_for, not by an error of the same code */
    bool waiting; /* the fiber is suspended in wait_for */
    int code;
    void *value;         /* whatever the waker leaves */
    uint64_t own_due_ms; /* of the time-out given to wait_for; UINT64_MAX: none */
    struct timer timer;
};

/* On a fiber. The scope is the fiber's (scope_current), which may be NULL. Good for one wait_for.
 */
void wait_init(struct wait *wait, struct loop *loop);
/* Suspends until woken, `timeout_ms` has passed (UINT64_MAX: no limit of its own; result
 * MR_E_TIMEOUT), or the scope ends. Returns the code given to wait_wake. If wait_wake came before,
 * returns at once. */
MR_SUSPENDS int wait_for(struct wait *wait, uint64_t timeout_ms);
/* Ends the wait with `code` (MR_OK or an error); the fiber runs on the next turn of the loop. Only
 * the first one counts. Loop's thread. */
void wait_wake(struct wait *wait, int code);
/* Sleeps; MR_OK when the time has passed. */
MR_SUSPENDS int wait_sleep(struct loop *loop, uint64_t ms);
/* Lets other fibers run. */
MR_SUSPENDS int wait_yield(struct loop *loop);

/* The scope of the running fiber (NULL: none), and a change of it; returns the old one. */
struct scope *scope_current(void);
struct scope *scope_enter(struct scope *scope);
/* While n > 0 the running fiber's waits are not ended by its scope, only by their own time-out.
 * Nests. */
void wait_shield(int change);

/* Joining fibers: a group counts spawned fibers; group_wait suspends until all have ended (not
 * ended by cancel: the fibers unwind themselves). */
struct group {
    struct loop *loop;
    size_t running;
    struct wait *waiter;
};
void group_init(struct group *group, struct loop *loop);
int group_spawn(struct group *group, struct scope *scope, void (*fn)(void *arg), void *arg);
MR_SUSPENDS void group_wait(struct group *group);

/* 0 as `nth` switches it off. Not counted: waits that nothing but their waker could end (shielded
 * and without a time-out), and those that return without suspending. In a shield a tortured wait
 * gives MR_E_TIMEOUT, whatever `code` says: nothing else could have ended it. */
void wait_torture(uint64_t nth, int code);
/* Suspensions of this thread so far, to know how many there are to torture. */
uint64_t wait_count(void);
