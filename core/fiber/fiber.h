/* Fibers: stackful coroutines on one thread, always switched fiber <-> loop, never fiber <-> fiber.
 *
 * A fiber runs from fiber_start until its function returns; fiber_suspend gives control back to
 * whoever resumed it. Stacks are mapped with a guard page and pooled; ASan and valgrind are told of
 * every stack and switch. A fiber is never freed from outside: it ends by returning. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fiber;

/* Makes a fiber on a pooled stack. It does not run yet. NULL when no stack can be mapped (ENOMEM)
 * or `fiber_limit` is reached. */
struct fiber *fiber_new(void (*fn)(void *arg), void *arg);
/* Runs the fiber until it suspends or ends; called from the loop's stack only. After its function
 * has returned the fiber is gone. */
void fiber_resume(struct fiber *fiber);
/* Gives control back to the resumer. Only from a fiber. */
void fiber_suspend(void);
/* The running fiber, NULL on the loop's stack. Thread-local. */
struct fiber *fiber_self(void);
/* Runs fn(arg) on the loop's stack and comes back: for deep recursion and big frames, so that a
 * fiber's stack stays one page. May not suspend. On the loop's stack it is a plain call. */
void fiber_on_loop(void (*fn)(void *arg), void *arg);
/* One pointer that belongs to the layer above. */
void fiber_set_data(struct fiber *fiber, void *data);
void *fiber_data(const struct fiber *fiber);

struct fiber_stats {
    size_t live, peak, pooled;
    size_t stack_high_bytes; /* deepest use of any stack released so far, in pages touched */
};
void fiber_get_stats(struct fiber_stats *ret);
/* Most fibers that may be alive (default LIMIT_FIBERS). */
void fiber_set_limit(size_t limit);
/* Unmaps pooled stacks; at the end of a process, so that tests see no leak. */
void fiber_trim(void);
