/* When a child process is to stop: TERM and QUIT drain, INT stops at once, and the end of the
 * lifeline pipe (the master is gone) drains. USR1 reopens the log. HUP and USR2, which may be sent
 * to every process of a service or a terminal, are the master's alone and change nothing here.
 *
 * `fn` runs on the loop's stack, once for a drain and once more if an INT follows. */
#pragma once

#include "loop/poll.h"

enum stop_kind { STOP_DRAIN = 1, STOP_NOW };
struct stop {
    struct loop *loop;
    uv_signal_t signals[6];
    struct poll *lifeline;
    int lifeline_fd;
    int kind; /* 0 until told */
    void (*fn)(void *arg, enum stop_kind kind);
    void *arg;
};
/* `lifeline_fd` -1: none. MR_E_INTERNAL when a signal cannot be watched. The struct stays where it
 * is until stop_unwatch. */
int stop_watch(struct stop *stop, struct loop *loop, int lifeline_fd,
               void (*fn)(void *arg, enum stop_kind kind), void *arg, struct error *err);
/* The loop must turn once more afterwards (loop_done does). */
void stop_unwatch(struct stop *stop);
