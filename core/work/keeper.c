/* The keeper: a thread that renews leases over a connection of its own, so that a loop which is
 * busy for a while loses nothing, and that watches the loop: when it has stood still for `stall`,
 * leases are not renewed any more and the process is aborted, with the mark on the shared page
 * naming the task.
 *
 * What it shares with the loop is the table of leases, under a mutex. What it learns (a lane is
 * lost, or is to stop) it posts to the loop by value; the loop looks the lane up again, since it
 * may have ended meanwhile. */
#include "work/work.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define KEEPER_TICK_MS 25u
#define KEEPER_GAP_MS  500u /* a tick that is later by this: the process was stopped, or starved */

struct keeper {
    struct worker *worker;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    bool stopping;
    struct lane_renewal *table; /* the copies; `owners` has the lane of each place */
    struct work_lane **owners;
    size_t count, cap;
    struct lane_keeper *leases;
    struct watchdog_mark *mark;
    uint64_t named_us; /* `since_us` of the hold that was named last */
    struct log_pace trouble;
    uint64_t seen_ms;  /* when this thread last looked at the clock */
    uint64_t floor_ms; /* clock_now_ms() when this thread last ran again after the whole process had
                          stood: what held the loop before that counts from here */
};

struct keeper_news {
    struct worker *worker;
    struct lane lane;
    enum lane_verdict verdict;
};

static void keeper_tell(void *arg)
{
    struct keeper_news *news = arg;
    struct work_lane *lane = work_lane_find(news->worker, news->lane.job, news->lane.number);
    if (lane && strcmp(lane->lane.fence, news->lane.fence) == 0) {
        if (news->verdict == LANE_LOST && !lane->writing)
            work_lane_lose(lane);
        else if (news->verdict == LANE_STOP)
            work_lane_stop(lane);
    }
    free(news);
}

static void keeper_renew(struct keeper *keeper)
{
    pthread_mutex_lock(&keeper->mutex);
    size_t count = keeper->count;
    struct lane_renewal *copy = mem_alloc((count + 1) * sizeof *copy);
    if (count > 0)
        memcpy(copy, keeper->table, count * sizeof *copy);
    pthread_mutex_unlock(&keeper->mutex);
    for (size_t i = 0; i < count; i++)
        copy[i].verdict = LANE_OK;
    struct error err = {0};
    char times[24];
    lane_keeper_set_busy(keeper->leases,
                         atomic_load_explicit(&keeper->worker->busy_seen, memory_order_relaxed));
    if (lane_renew(keeper->leases, copy, count, keeper->worker->setup->lease_ms / 3, &err) !=
            MR_OK &&
        log_pace(&keeper->trouble, times))
        log_error("leases could not be renewed", &err, "times", times[0] ? times : NULL, NULL);
    for (size_t i = 0; i < count; i++) {
        if (copy[i].verdict == LANE_OK)
            continue;
        struct keeper_news *news = mem_alloc(sizeof *news);
        *news = (struct keeper_news){
            .worker = keeper->worker, .lane = copy[i].lane, .verdict = copy[i].verdict};
        loop_post(&keeper->worker->loop, keeper_tell, news);
    }
    free(copy);
}

/* This thread runs, and had at most `usual_ms` to do since it last said so; when that is long ago
 * the whole process has stood. From look to look no moment is left out. */
static void keeper_look(struct keeper *keeper, uint64_t usual_ms)
{
    uint64_t now_ms = clock_now_ms();
    if (now_ms - keeper->seen_ms > usual_ms + KEEPER_GAP_MS)
        keeper->floor_ms = now_ms;
    keeper->seen_ms = now_ms;
}

/* Names who holds the loop, once a hold; aborts when it has stood still for too long. Returns false
 * while leases must not be renewed. */
static void keeper_watch(struct keeper *keeper)
{
    uint64_t standing_ms = watchdog_standing_ms(keeper->mark);
    uint64_t since_us = atomic_load_explicit(&keeper->mark->since_us, memory_order_relaxed);
    keeper_look(keeper, KEEPER_TICK_MS); /* after it was read: a stop before it counts */
    uint64_t awake_ms = clock_now_ms() - keeper->floor_ms;
    if (standing_ms > awake_ms)
        standing_ms = awake_ms;
    if (standing_ms < LIMIT_HOLD_MS || since_us == 0)
        return;
    char job[40], stage[WATCHDOG_TEXT], plugin[WATCHDOG_TEXT], held[24];
    bool named = watchdog_read(keeper->mark, job, stage, plugin);
    snprintf(held, sizeof held, "%llu ms", (unsigned long long)standing_ms);
    if (keeper->named_us != since_us) {
        keeper->named_us = since_us;
        log_event(LOG_WARN, named ? "a stage holds the loop" : "the loop is held", "job",
                  named ? job : NULL, "stage", named ? stage : NULL, "plugin",
                  named ? plugin : NULL, "for", held, NULL);
    }
    if (standing_ms < keeper->worker->setup->stall_ms)
        return;
    log_event(LOG_ERROR, "the loop has stood still for too long: aborting", "job",
              named ? job : NULL, "stage", named ? stage : NULL, "plugin", named ? plugin : NULL,
              "for", held, NULL);
    abort();
}

static void *keeper_main(void *arg)
{
    struct keeper *keeper = arg;
    uint64_t period_ms = keeper->worker->setup->lease_ms / 3, next_ms = clock_now_ms() + period_ms;
    keeper->seen_ms = clock_now_ms();
    pthread_mutex_lock(&keeper->mutex);
    while (!keeper->stopping) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += KEEPER_TICK_MS * 1000000L;
        if (until.tv_nsec >= 1000000000L) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000L;
        }
        pthread_cond_timedwait(&keeper->wake, &keeper->mutex, &until);
        if (keeper->stopping)
            break;
        pthread_mutex_unlock(&keeper->mutex);
        keeper_watch(keeper);
        if (clock_now_ms() >= next_ms) {
            keeper_renew(keeper);
            keeper_look(keeper, period_ms);
            next_ms = clock_now_ms() + period_ms;
        }
        pthread_mutex_lock(&keeper->mutex);
    }
    pthread_mutex_unlock(&keeper->mutex);
    return NULL;
}

struct keeper *keeper_start(struct worker *worker, struct error *err)
{
    struct keeper *keeper = mem_zalloc(sizeof *keeper);
    keeper->worker = worker;
    keeper->mark = &worker->setup->page->mark;
    keeper->leases = lane_keeper_new(worker->store, worker->setup->redis);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&keeper->mutex, NULL);
    pthread_cond_init(&keeper->wake, &attr);
    pthread_condattr_destroy(&attr);
    int rc = pthread_create(&keeper->thread, NULL, keeper_main, keeper);
    if (rc == 0)
        return keeper;
    error_set(err, MR_E_INTERNAL, "cannot start the keeper's thread: %s", strerror(rc));
    lane_keeper_free(keeper->leases);
    free(keeper);
    return NULL;
}

void keeper_stop(struct keeper *keeper)
{
    if (!keeper)
        return;
    pthread_mutex_lock(&keeper->mutex);
    keeper->stopping = true;
    pthread_cond_signal(&keeper->wake);
    pthread_mutex_unlock(&keeper->mutex);
    pthread_join(keeper->thread, NULL);
    lane_keeper_free(keeper->leases);
    pthread_mutex_destroy(&keeper->mutex);
    pthread_cond_destroy(&keeper->wake);
    free(keeper->table);
    free(keeper->owners);
    free(keeper);
}

void keeper_add(struct keeper *keeper, struct work_lane *lane)
{
    pthread_mutex_lock(&keeper->mutex);
    if (keeper->count == keeper->cap) {
        keeper->cap = keeper->cap ? keeper->cap * 2 : 64;
        keeper->table = mem_resize(keeper->table, keeper->cap, sizeof *keeper->table);
        keeper->owners = mem_resize(keeper->owners, keeper->cap, sizeof(struct work_lane *));
    }
    keeper->table[keeper->count].lane = lane->lane;
    keeper->owners[keeper->count] = lane;
    lane->lease = ++keeper->count;
    pthread_mutex_unlock(&keeper->mutex);
}

void keeper_remove(struct keeper *keeper, struct work_lane *lane)
{
    if (!lane->lease)
        return;
    pthread_mutex_lock(&keeper->mutex);
    size_t place = lane->lease - 1, last = --keeper->count;
    keeper->table[place] = keeper->table[last];
    keeper->owners[place] = keeper->owners[last];
    keeper->owners[place]->lease = place + 1;
    lane->lease = 0;
    pthread_mutex_unlock(&keeper->mutex);
}
