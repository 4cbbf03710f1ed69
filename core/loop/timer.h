/* Many timers on one libuv timer: a heap, cheap to start and stop. A timer is a part of its owner's
 * struct; the callback runs on the loop's stack. Follows clock.h, so that a held clock drives it
 * (timer_turn). */
#pragma once

#include "loop/loop.h"

struct timer {
    uint64_t due_ms;
    size_t index; /* in the heap + 1; 0: not running */
    void (*fn)(struct timer *timer);
    void *data;
    struct loop *loop;
};
/* Starts or restarts. */
void timer_start(struct timer *timer, struct loop *loop, uint64_t in_ms,
                 void (*fn)(struct timer *timer));
/* Nothing happens when it does not run. */
void timer_stop(struct timer *timer);
static inline bool timer_is_running(const struct timer *timer)
{
    return timer->index != 0;
}
/* Tests with a held clock: fires what is due now. */
void timer_turn(struct loop *loop);
