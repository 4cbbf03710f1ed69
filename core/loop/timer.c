/* Timers in a heap with four children a node: starting, stopping and firing cost O(log n) and, but
 * for a change of the earliest one, no call into libuv.
 *
 * The one libuv timer is set for the earliest due time and never moved back when that timer is
 * stopped: it then fires early once and is set anew. Due times are of clock.h, not of libuv's own
 * cached clock, so that a clock held by a test holds the timers too. */
#include "loop/timer.h"
#include "base/clock.h"
#include "base/mem.h"
#include "loop/inner.h"

#define WAIT_MAX_MS 3600000u /* libuv's timer is never set further ahead */

static bool is_before(const struct timer_slot *a, const struct timer_slot *b)
{
    return a->due_ms != b->due_ms ? a->due_ms < b->due_ms : a->order < b->order;
}

static void place(struct loop_private *priv, size_t at, struct timer_slot slot)
{
    priv->heap[at] = slot;
    slot.timer->index = at + 1;
}

static void sift_up(struct loop_private *priv, size_t at, struct timer_slot slot)
{
    while (at > 0) {
        size_t above = (at - 1) / 4;
        if (!is_before(&slot, &priv->heap[above]))
            break;
        place(priv, at, priv->heap[above]);
        at = above;
    }
    place(priv, at, slot);
}

static void sift_down(struct loop_private *priv, size_t at, struct timer_slot slot)
{
    for (;;) {
        size_t first = 4 * at + 1, least = first;
        if (first >= priv->timers)
            break;
        for (size_t i = first + 1; i < first + 4 && i < priv->timers; i++)
            if (is_before(&priv->heap[i], &priv->heap[least]))
                least = i;
        if (!is_before(&priv->heap[least], &slot))
            break;
        place(priv, at, priv->heap[least]);
        at = least;
    }
    place(priv, at, slot);
}

/* Sets libuv's timer when the earliest due time comes before what it is set to. */
static void arm(struct loop *loop)
{
    struct loop_private *priv = loop->priv;
    if (priv->timers == 0) {
        if (priv->armed_ms != UINT64_MAX) {
            uv_timer_stop(&priv->timer);
            priv->armed_ms = UINT64_MAX;
        }
        return;
    }
    uint64_t due_ms = priv->heap[0].due_ms;
    if (due_ms >= priv->armed_ms)
        return;
    uint64_t now_ms = clock_now_ms();
    uint64_t in_ms = due_ms > now_ms ? due_ms - now_ms : 0;
    if (in_ms > WAIT_MAX_MS) {
        in_ms = WAIT_MAX_MS;
        due_ms = now_ms + in_ms;
    }
    uv_update_time(&loop->uv);
    uv_timer_start(&priv->timer, timer_on_uv, in_ms, 0);
    priv->armed_ms = due_ms;
}

static void remove_at(struct loop_private *priv, size_t at)
{
    priv->heap[at].timer->index = 0;
    struct timer_slot last = priv->heap[--priv->timers];
    if (at == priv->timers)
        return;
    if (at > 0 && is_before(&last, &priv->heap[(at - 1) / 4]))
        sift_up(priv, at, last);
    else
        sift_down(priv, at, last);
}

void timer_start_at(struct timer *timer, struct loop *loop, uint64_t due_ms,
                    void (*fn)(struct timer *timer))
{
    struct loop_private *priv = loop->priv;
    if (timer->index)
        remove_at(priv, timer->index - 1);
    timer->due_ms = due_ms;
    timer->fn = fn;
    timer->loop = loop;
    if (priv->timers == priv->timers_cap) {
        priv->timers_cap = priv->timers_cap ? 2 * priv->timers_cap : 64;
        priv->heap = mem_resize(priv->heap, priv->timers_cap, sizeof(*priv->heap));
    }
    struct timer_slot slot = {due_ms, priv->timer_order++, timer};
    sift_up(priv, priv->timers++, slot);
    arm(loop);
}

void timer_start(struct timer *timer, struct loop *loop, uint64_t in_ms,
                 void (*fn)(struct timer *timer))
{
    uint64_t now_ms = clock_now_ms();
    timer_start_at(timer, loop, in_ms < UINT64_MAX - now_ms ? now_ms + in_ms : UINT64_MAX, fn);
}

void timer_stop(struct timer *timer)
{
    if (!timer->index)
        return;
    struct loop *loop = timer->loop;
    remove_at(loop->priv, timer->index - 1);
    if (loop->priv->timers == 0)
        arm(loop); /* nothing left: libuv's timer must not keep the loop alive */
}

/* Fires what is due; timers that the callbacks start wait for the next call. */
static void fire(struct loop *loop)
{
    struct loop_private *priv = loop->priv;
    uint64_t now_ms = clock_now_ms(), order = priv->timer_order;
    while (priv->timers > 0 && priv->heap[0].due_ms <= now_ms && priv->heap[0].order < order) {
        struct timer *timer = priv->heap[0].timer;
        remove_at(priv, 0);
        timer->fn(timer);
    }
}

void timer_on_uv(uv_timer_t *handle)
{
    struct loop *loop = handle->data;
    watchdog_touch(loop);
    loop->priv->armed_ms = UINT64_MAX;
    fire(loop);
    arm(loop);
}

static void turn_on_loop(void *arg)
{
    struct loop *loop = arg;
    fire(loop);
    arm(loop);
}

void timer_turn(struct loop *loop)
{
    fiber_on_loop(turn_on_loop, loop);
}
