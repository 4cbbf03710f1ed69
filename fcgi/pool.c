/* The threads: see pool.h. */
#include "fcgi/pool.h"
#include "base/log.h"
#include <signal.h>
#include <string.h>

#define POOL_START 2u
#define POOL_STACK (256u << 10)

static struct pool_job *queue_take(struct pool *pool, enum pool_kind kind)
{
    struct pool_queue *queue = &pool->queue[kind];
    struct pool_job *job = queue->first;
    if (job != NULL) {
        queue->first = job->next;
        if (queue->first == NULL) {
            queue->end = &queue->first;
        }
        pool->waiting--;
    }
    return job;
}

/* The next job that a thread may begin, or NULL. */
static struct pool_job *take(struct pool *pool, enum pool_kind *ret_kind)
{
    *ret_kind = POOL_WRITE;
    struct pool_job *job = queue_take(pool, POOL_WRITE);
    if (job == NULL && pool->reading < pool->reading_max) {
        *ret_kind = POOL_READ;
        job = queue_take(pool, POOL_READ);
        pool->reading += job != NULL;
    }
    return job;
}

static void *thread_main(void *arg)
{
    struct pool *pool = arg;
    pthread_mutex_lock(&pool->lock);
    while (!pool->is_ending) {
        enum pool_kind kind = POOL_WRITE;
        struct pool_job *job = take(pool, &kind);
        if (job == NULL) {
            pool->idle++;
            pthread_cond_wait(&pool->more, &pool->lock);
            pool->idle--;
            continue;
        }
        pthread_mutex_unlock(&pool->lock);
        job->run(job);
        pthread_mutex_lock(&pool->lock);
        if (kind == POOL_READ) {
            pool->reading--;
            if (pool->queue[POOL_READ].first != NULL) {
                pthread_cond_signal(&pool->more);
            }
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* One more thread, under the lock. Without it the others come round to the work. */
static void thread_start(struct pool *pool)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, POOL_STACK);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&pool->thread[pool->threads], &attr, thread_main, pool);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (rc == 0) {
        pool->threads++;
    } else if (pool->threads == 0) {
        log_event(LOG_WARN, "no thread can be started", "reason", strerror(rc), NULL);
    }
}

void pool_open(struct pool *pool, uint32_t threads_max)
{
    memset(pool, 0, sizeof(*pool));
    bool in_range = threads_max > 0 && threads_max <= LIMIT_FRONT_THREADS;
    pool->threads_max = in_range ? threads_max : LIMIT_FRONT_THREADS;
    pool->reading_max = pool->threads_max - pool->threads_max / 8;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->more, NULL);
    for (size_t i = 0; i < 2; i++) {
        pool->queue[i].end = &pool->queue[i].first;
    }
    pthread_mutex_lock(&pool->lock);
    for (uint32_t i = 0; i < POOL_START && i < pool->threads_max; i++) {
        thread_start(pool);
    }
    pthread_mutex_unlock(&pool->lock);
}

void pool_hand(struct pool *pool, struct pool_job *job, enum pool_kind kind)
{
    job->next = NULL;
    pthread_mutex_lock(&pool->lock);
    *pool->queue[kind].end = job;
    pool->queue[kind].end = &job->next;
    pool->waiting++;
    if (pool->waiting > pool->idle && pool->threads < pool->threads_max) {
        thread_start(pool);
    }
    pthread_cond_signal(&pool->more);
    pthread_mutex_unlock(&pool->lock);
}

void pool_close(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->is_ending = true;
    pthread_cond_broadcast(&pool->more);
    pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i < pool->threads; i++) {
        pthread_join(pool->thread[i], NULL);
    }
    pthread_cond_destroy(&pool->more);
    pthread_mutex_destroy(&pool->lock);
}

uint32_t pool_threads(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    uint32_t threads = pool->threads;
    pthread_mutex_unlock(&pool->lock);
    return threads;
}
