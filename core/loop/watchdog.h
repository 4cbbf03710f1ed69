/* The watchdog: names whatever holds the loop for more than LIMIT_HOLD_MS, and knows since when the
 * loop has stood still.
 *
 * Each resume of a fiber notes what runs (watchdog_enter) in a fixed record that may lie on a page
 * shared with the master, so that a crash can be charged to one task. A thread (the keeper) reads
 * the record; the loop only writes it, with relaxed atomics. */
#pragma once

#include "loop/loop.h"
#include <stdatomic.h>

#define WATCHDOG_TEXT 64

/* What runs now. Written by the loop's thread only; `seq` is odd while it is being written. */
struct watchdog_mark {
    _Atomic uint32_t seq;
    _Atomic uint32_t running;  /* 0: the loop itself */
    _Atomic uint64_t since_us; /* clock_now_us() of the resume, or of the turn's begin; 0: the loop
                                  waits in poll */
    char job[40], stage[WATCHDOG_TEXT], plugin[WATCHDOG_TEXT];
    /* Whose offloaded function ended the process by a fatal signal: texts as above, written once,
     * by the thread that dies. 0: nobody's, 1: being written, 2: there. */
    _Atomic uint32_t blamed;
    char blamed_job[40], blamed_stage[WATCHDOG_TEXT], blamed_plugin[WATCHDOG_TEXT];
};

/* Has the loop note its turns and resumes in `mark`, and fatal signals on threads of offload.h.
 * Such signals go on to whoever had them before. */
void watchdog_start(struct loop *loop, struct watchdog_mark *mark);
/* Names what the running fiber works on; texts are copied (cut) at each of its resumes, so they
 * must live as long as the fiber or until the next call. NULLs: nothing. */
void watchdog_label(const char *job, const char *stage, const char *plugin);
/* Callbacks that libuv makes while it polls: notes that the loop is at work. Done for those of
 * poll.h, timer.h, offload.h and loop_post; whoever uses a libuv handle directly calls it first. */
void watchdog_touch(struct loop *loop);
/* Resumes that held the loop for more than LIMIT_HOLD_MS so far (each was logged with its name),
 * and the longest. */
uint64_t watchdog_holds(const struct loop *loop, uint64_t *ret_longest_ms);
/* Any thread: for how many ms the loop has been in one resume or callback; 0 when it waits. */
uint64_t watchdog_standing_ms(const struct watchdog_mark *mark);
/* Any thread: a consistent copy of who is blamed, else of who runs; false: nobody. */
bool watchdog_read(const struct watchdog_mark *mark, char ret_job[40],
                   char ret_stage[WATCHDOG_TEXT], char ret_plugin[WATCHDOG_TEXT]);
