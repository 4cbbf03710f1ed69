/* Threads for what blocks: reading a request in and writing a response out.
 *
 * Two queues. Writes go first, and an eighth of the threads is kept for them, so that peers who
 * stall while they send never keep an answer back. A thread is added when all are busy, up to the
 * maximum; none is taken away. Signals stay with the loop's thread, because a write that one
 * interrupts is a broken stream to libfcgi. */
#pragma once

#include "base/limits.h"
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pool_kind { POOL_READ, POOL_WRITE };

/* A part of its owner's struct. `run` is called on a thread and may free the job. */
struct pool_job {
    void (*run)(struct pool_job *job);
    struct pool_job *next;
};

struct pool_queue {
    struct pool_job *first, **end;
};

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct pool_queue queue[2]; /* by kind */
    size_t waiting;             /* in both */
    uint32_t idle, reading, reading_max, threads, threads_max;
    bool is_ending;
    pthread_t thread[LIMIT_FRONT_THREADS];
};

/* `threads_max` 0 or over LIMIT_FRONT_THREADS: that many. Starts a few. */
void pool_open(struct pool *pool, uint32_t threads_max);
void pool_hand(struct pool *pool, struct pool_job *job, enum pool_kind kind);
/* All jobs have run. Joins the threads. */
void pool_close(struct pool *pool);
/* Threads started so far. */
uint32_t pool_threads(struct pool *pool);
