/* Jobs from outside: submit, read, cancel, run again, list, dead letters, erase. What a worker does
 * with a lane is in lane.h, following a job's events in watch.h. */
#pragma once

#include "state/store.h"

/* Who asks, which decides what happens when the id exists. */
enum job_mode {
    JOB_PLAIN,    /* a client: another digest is a conflict; a failed job runs again */
    JOB_DISPATCH, /* a stage, fire and forget: whatever exists stands */
    JOB_CALL,     /* a stage that waits: a failed or cancelled child runs again, once per run of the
                     parent */
};
struct job_first {
    const char *name, *queue;
};
struct job_submit {
    const char *id, *pipeline;
    const char *digest; /* SHA-256 of pipeline and canonical input, hex */
    const char *input;  /* canonical JSON */
    size_t input_len;
    /* The request that begins this run of the job: any text without spaces that differs from
     * request to request (the front: its request id). Calls and dispatches: see job_call_req. */
    const char *req;
    uint64_t delay_ms;  /* 0: at once */
    uint64_t run_at_ms; /* else: when, by the server's clock (ms since 1970); 0: see delay_ms */
    uint64_t ttl_ms;    /* the job's deadline from now; 0: none */
    enum queue_class prio;
    const char *metadata;  /* JSON object, or NULL */
    const char *owner;     /* token's name with auth on, or NULL */
    const char *ancestors; /* ids of the calls above, nearest first, separated by `,`; or NULL */
    const char *after;     /* which ends want a follow-up (stage `$after`, in queue default), of
                              completed, failed, cancelled, separated by `,`; NULL: none */
    enum job_mode mode;
    const struct job_first *first; /* stages without needs; 1 to 256 */
    uint32_t first_count;
    uint64_t queue_max; /* refuse when a first stage's queue is as long; 0: no limit. Calls are
                           exempt */
    uint64_t retention_status_ms, retention_result_ms; /* 0: the store's */
};
enum job_outcome {
    JOB_NEW,      /* 202 */
    JOB_SAME,     /* exists; `status` says how it stands */
    JOB_AGAIN,    /* had failed (or, for a call, was cancelled) and runs again; 202 */
    JOB_CONFLICT, /* the id belongs to another input, or for children to another pipeline; 422 */
    JOB_FULL,     /* nothing was stored; 429 */
};
struct job_submitted {
    enum job_outcome outcome;
    char status[16]; /* as in struct job_view; "queued" for NEW */
    uint64_t round;  /* of the job after this call; 0: FULL, CONFLICT */
};
/* Safe to repeat with the same `req`. At maxmemory MR_E_STORE. */
MR_SUSPENDS int job_submit(struct store *store, const struct job_submit *submit,
                           struct job_submitted *ret, struct error *err);
/* The `req` of a child: names parent, stage, target and the parent's round (malloc'ed). */
char *job_call_req(const char *parent, const char *stage, const char *target, uint64_t round);

/* ---- Reading ---- */

struct job_stage_view {
    const char *name;
    char state;        /* o open, d done, s skipped, f failed */
    uint32_t attempts; /* made, the one that runs included */
    uint32_t throttled;
    uint64_t started_ms, finished_ms; /* 0: not yet */
    const char *queue;
    const char *output; /* JSON text; NULL: none, or not asked for, or expired */
    size_t output_len;
};
struct job_lane_view {
    uint32_t number;
    char state; /* q queued, r running, d due, h held (pipeline paused) */
    const char *queue;
    enum queue_class class;
    const char *entry;  /* of its stream, in q and r */
    const char *worker; /* that runs it or ran it last; "" */
    uint64_t due_ms;    /* server time, in d */
    uint32_t crashes, takeovers;
    const char *stages; /* separated by `,` */
};
/* Texts belong to the view. Times are the server's, ms since 1970. */
struct job_view {
    char id[ID_BYTES];
    const char *pipeline, *revision; /* revision "": not begun yet */
    const char *status;              /* queued processing waiting completed failed cancelled */
    const char *stop;   /* "", failed, deadline, cancelled: how it will end once nothing runs */
    const char *prio;   /* call high normal low */
    const char *digest; /* as submitted */
    const char *owner, *metadata, *after, *req; /* "" when there is none */
    const char *durability; /* "", or for durable_parse (durable.h): what its last write got */
    const char *input, *result, *error; /* JSON; NULL when there is none */
    size_t input_len, result_len, error_len;
    uint64_t created_ms, started_ms, finished_ms, deadline_ms, expires_ms; /* 0: none */
    uint64_t next_retry_ms; /* automatic reprocessing of a dead letter; 0: none due */
    uint32_t progress;      /* 0 to 100 */
    uint64_t events;        /* number of events so far: the revision for ETag */
    bool has_log;           /* false: its events (and outputs) have expired before it */
    uint64_t round, dead_tries;
    int64_t input_tokens, output_tokens, cost_micros;
    bool is_ended; /* completed, failed or cancelled */
    struct job_stage_view *stages;
    uint32_t stage_count;
    struct job_lane_view *lanes;
    uint32_t lane_count;
    uint64_t now_ms;    /* the server's time of this read */
    struct reply reply; /* what the texts point into */
};
enum job_want { JOB_WANT_OUTPUTS = 1 };
/* Reads a job in one round trip. *ret_view NULL with MR_OK: there is none (tombstones are none). */
MR_SUSPENDS int job_read(struct store *store, const char *id, unsigned want,
                         struct job_view **ret_view, struct error *err);
void job_view_free(struct job_view *view);
/* Whether a status is one of the three ends. */
bool job_status_is_ended(const char *status);
const struct job_stage_view *job_view_stage(const struct job_view *view, const char *name);
/* The stage that a person would name now: the first open one by start, else NULL. */
const struct job_stage_view *job_view_current(const struct job_view *view);

/* An event of the log: also what watch.h gives. */
struct job_event {
    uint64_t number; /* from 1; 0: live only (deltas, progress beyond the limit) */
    char kind[48];   /* "stage.completed" */
    uint64_t at_ms;  /* server time */
    char *data;      /* JSON object with job, at, and what belongs to the kind */
    size_t len;
    bool is_last; /* the job's end (of this round) */
};
void job_event_done(struct job_event *event);
/* Events with numbers over `after`, at most `max`, in an array (free each with job_event_done, and
 * the array). `ret_total`: numbers given so far. */
MR_SUSPENDS int job_events(struct store *store, const char *id, uint64_t after, uint32_t max,
                           struct job_event **ret_events, size_t *ret_count, uint64_t *ret_total,
                           struct error *err);

/* ---- Changing ---- */

enum cancel_outcome {
    CANCEL_NONE,       /* no such job (with `req`: a tombstone was left) */
    CANCEL_DONE,       /* it is cancelled */
    CANCEL_CANCELLING, /* it will end cancelled */
    CANCEL_ENDED,      /* had ended otherwise; 409 */
};
/* `req`: NULL from people; a parent passes the req it submitted the child with, and then only a
 * child that this parent began is cancelled, and one that is not there yet is stopped in advance,
 * for `tomb_ms`. */
MR_SUSPENDS int job_cancel(struct store *store, const char *id, const char *req, uint64_t tomb_ms,
                           enum cancel_outcome *ret, struct error *err);

struct job_again {
    const char *id, *req;
    uint64_t ttl_ms; /* new deadline; 0: as long as the first one was, if it had one */
    /* Stages to run again although they are done: `from` and every stage after it; NULL: none. */
    const char *const *reset;
    uint32_t reset_count;
    bool is_fresh; /* attempts begin at 0 (by hand); else as after a wake of a dead letter */
};
enum again_outcome { AGAIN_NONE, AGAIN_OK, AGAIN_SAME, AGAIN_REFUSED /* 409: not ended badly */ };
MR_SUSPENDS int job_run_again(struct store *store, const struct job_again *again,
                              enum again_outcome *ret, struct error *err);

enum erase_outcome { ERASE_OK, ERASE_NONE, ERASE_BUSY /* 409: a lane runs */ };
MR_SUSPENDS int job_erase(struct store *store, const char *id, enum erase_outcome *ret,
                          struct error *err);

/* ---- Lists ---- */

/* Ids of recent jobs (`dead` false) or of dead letters, newest first, over all partitions.
 * `before_ms` 0: from the newest; else those with a lower time, or the same time and a lower id
 * than `before_id`. free() the array. Some may have expired: job_read says. */
struct job_listed {
    char id[ID_BYTES];
    uint64_t at_ms;
};
MR_SUSPENDS int job_list(struct store *store, bool dead, uint64_t before_ms, const char *before_id,
                         uint32_t max, struct job_listed **ret_items, size_t *ret_count,
                         struct error *err);
/* Where a job stands in the list: its time in `ret_at_ms`. 0: it is not in it (any more). */
MR_SUSPENDS int job_find_listed(struct store *store, bool dead, const char *id, uint64_t *ret_at_ms,
                                struct error *err);
/* Reads listed jobs without what may be long (input, result, outputs), 50 a script: a view for each
 * item, NULL for one that is gone. job_view_free each. */
MR_SUSPENDS int job_read_briefs(struct store *store, const struct job_listed *items, size_t count,
                                struct job_view **ret_views, struct error *err);
/* Takes a job out of the dead letters; it stays failed until it expires. When it was due to run
 * again by itself this is its end: watches end, and its follow-up runs. */
MR_SUSPENDS int dead_discard(struct store *store, const char *id, bool *ret_done,
                             struct error *err);
