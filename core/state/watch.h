/* Following a job: its events by number, without gap or duplicate, from any position.
 *
 * A watch subscribes first and only then reads the log; what arrives in between is ordered by its
 * number. After a gap or an interruption of the subscription the log is read again. One subscriber
 * connection a process; watches of one job share its channel. SSE, `Prefer: wait` and `call` are
 * all one of these. */
#pragma once

#include "io/redis_sub.h"
#include "state/job.h"

struct watch;

/* Subscribes (confirmed) to a job; the first event given is number `after` + 1. MR_OK also when
 * there is no such job: watch_next says MR_E_LOST then. The watch is used by one fiber. */
MR_SUSPENDS int watch_open(struct store *store, struct redis_sub *sub, const char *id,
                           uint64_t after, struct watch **ret_watch, struct error *err);
/* The next event (moved out: job_event_done). Further results:
 *   MR_E_TIMEOUT  none came within timeout_ms (0: only what is there already)
 *   MR_E_LOST     there is no such job (any more)
 *   MR_E_STOPPING the watch is over: its last event was given (is_last), or the job has ended and
 *                 nothing is newer than `after`
 * While Redis is away it waits; a look at it may outlast timeout_ms by the time of one command.
 * When the log has expired before the job, one event comes with the end (kind "job.completed" …,
 * number = the job's `events`). Slow re-read every 5 s or more as a backstop. */
MR_SUSPENDS int watch_next(struct watch *watch, uint64_t timeout_ms, struct job_event *ret_event,
                           struct error *err);
/* For a pipeline that may be reprocessed by itself: whether a failed end is final is decided by
 * `next_retry_at` in the data of job.failed (default); false: each job.failed ends the watch. */
void watch_set_patient(struct watch *watch, bool is_patient);
/* The number of the last event given. */
uint64_t watch_position(const struct watch *watch);
/* Bytes of events that wait to be taken: a slow reader is cut off by its owner. */
size_t watch_backlog(const struct watch *watch);
void watch_close(struct watch *watch);
