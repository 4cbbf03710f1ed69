/* What the files of this layer share and no one else includes: a fiber as the loop knows it, and
 * the loop's own state. */
#pragma once

#include "loop/loop.h"
#include "loop/timer.h"
#include "loop/watchdog.h"
#include <pthread.h>

/* A fiber on a loop: made by loop_spawn, freed when its function has returned. */
struct strand {
    struct loop *loop;
    struct fiber *fiber;
    void (*fn)(void *arg);
    void *arg;
    struct scope *scope;
    struct strand *next; /* in the ready list */
    bool ready;
    unsigned shield;
    uint64_t label_id; /* of the texts below; 0: none */
    const char *job, *stage, *plugin;
};

struct post {
    struct post *next;
    void (*fn)(void *arg);
    void *arg;
};

struct timer_slot {
    uint64_t due_ms;
    uint64_t order; /* timers of one moment fire in the order they were started */
    struct timer *timer;
};

struct loop_private {
    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t idle; /* active while fibers are ready, so that libuv does not block */
    uv_async_t async;
    uv_timer_t timer;
    bool stopped;

    struct strand *ready, **ready_end;

    pthread_mutex_t posts_lock; /* guards the two below */
    struct post *posts, **posts_end;

    struct timer_slot *heap; /* four children a node */
    size_t timers, timers_cap;
    uint64_t timer_order;
    uint64_t armed_ms; /* what `timer` is set to; UINT64_MAX: it does not run */

    struct watchdog_mark *mark; /* NULL: no watchdog */
    uint64_t marked_label;      /* whose texts are in it */
    bool resume_named;          /* and whether they name this resume, though its work may be done */
    uint64_t label_ids;
    uint64_t holds, hold_longest_us;
};

/* The calling thread begins work for that strand; NULL: it has ended. */
void watchdog_note_thread(const struct strand *strand);

/* The running fiber's strand, NULL on the loop's stack. */
struct strand *strand_self(void);
/* Has the strand resumed in the next drain; nothing happens when it is already listed. */
void strand_ready(struct strand *strand);
/* Prints and aborts: a use of this layer that cannot be right. */
__attribute__((noreturn)) void loop_misuse(const char *what);

void timer_start_at(struct timer *timer, struct loop *loop, uint64_t due_ms,
                    void (*fn)(struct timer *timer));
void timer_on_uv(uv_timer_t *handle);

/* The loop goes into poll; comes out of it or into a callback; resumes a fiber; is back from one
 * that ran from `begin_us` to `end_us`. Nothing without a mark. */
void watchdog_note_poll(struct loop_private *priv);
void watchdog_note_work(struct loop_private *priv, uint64_t now_us);
void watchdog_note_resume(struct loop_private *priv, const struct strand *strand);
void watchdog_note_back(struct loop_private *priv, uint64_t begin_us, uint64_t end_us);
