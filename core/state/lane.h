/* Lanes, the worker's side: claim, begin, checkpoint, give back. PROTOCOL of docs/protocol.md.
 *
 * One queue entry = one lane = one lease = one fence. A worker claims entries, begins each (which
 * gives it the fence), renews while it runs, and ends it by commits, fail, park, handback or drop.
 * LANE_LOST from any call: another worker has the lane; abort its fibers, write nothing, forget it.
 *
 * All calls send again when a reply was lost, for store->patience_ms. */
#pragma once

#include "io/redis_sync.h"
#include "state/store.h"

/* A lane as it is claimed, and, once begun, held. Plain data; copy it freely. */
struct lane {
    char job[ID_BYTES];
    char pipeline[STORE_NAME_BYTES];
    char queue[STORE_NAME_BYTES];
    enum queue_class class; /* of the entry */
    enum queue_class prio;  /* of the job, from begin on */
    uint32_t partition;
    uint32_t number;
    char entry[STORE_ENTRY_BYTES];
    char fence[STORE_FENCE_BYTES]; /* "": not begun */
};
struct lane_stream {
    uint32_t partition;
    const char *queue;
    enum queue_class class;
};

/* ---- Claiming ---- */

/* Reads new entries: at most `per_stream` from each stream (all of one partition), into `ret_lanes`
 * (room for stream_count * per_stream). `block_ms` > 0 waits that long for the first; use a
 * connection of its own for that. Groups are made where they are missing. After an error entries
 * may be pending unseen: lane_claim_own. */
MR_SUSPENDS int lane_claim(struct store *store, struct redis *redis,
                           const struct lane_stream *streams, size_t stream_count,
                           uint32_t per_stream, uint64_t block_ms, struct lane *ret_lanes,
                           size_t *ret_count, struct error *err);
/* Own pending entries of one stream after `cursor` ("0" at first; moved on), at most `max`. At
 * start, after a lost reply and after a reconnect; those not held in memory are to be begun. */
MR_SUSPENDS int lane_claim_own(struct store *store, struct redis *redis,
                               const struct lane_stream *stream, char cursor[STORE_ENTRY_BYTES],
                               uint32_t max, struct lane *ret_lanes, size_t *ret_count,
                               struct error *err);
struct lane_overdue {
    bool has_more;    /* there are entries whose lease is over beyond `max` */
    uint64_t next_ms; /* until the next lease ends that is not being renewed; UINT64_MAX: none */
};
/* Takes at most `max` (may be 0: only looks) entries whose lease is over, whoever had them. */
MR_SUSPENDS int lane_reclaim(struct store *store, struct redis *redis,
                             const struct lane_stream *stream, uint32_t max, struct lane *ret_lanes,
                             size_t *ret_count, struct lane_overdue *ret, struct error *err);

/* ---- Begin ---- */

enum lane_verdict {
    LANE_OK,      /* run what is open */
    LANE_END,     /* the lane is closed */
    LANE_STOP,    /* wind up: cancel noted children, then lane_drop */
    LANE_LOST,    /* another worker's */
    LANE_GONE,    /* begin: the entry stood for nothing and was removed */
    LANE_HELD,    /* begin: the pipeline is paused, the lane waits */
    LANE_POISON,  /* begin: it brought processes down too often, the job is failed */
    LANE_SUSPECT, /* begin: more takeovers than allowed; nothing was written. Begin it again, with
                     leave to run it or with `put_off_ms` */
    LANE_PUT_OFF, /* begin: the same, and it waits and comes back */
    LANE_REV,     /* begin: granted, but the job's revision is not among those known. Begin the same
                     lane again (same fence) with it known or with `adopt`, or park or fail it */
};

/* A stage of a pipeline, as a script needs it: for commits those that wait for the finished one. */
struct lane_successor {
    const char *name, *queue;
    const char *const *needs; /* all of them */
    uint32_t need_count;
};
struct lane_begin {
    const char *revision; /* that a job which has none yet gets */
    const char *known;    /* further revisions of this pipeline that are loaded, separated by `,` */
    /* Move the job to `revision`, whose stages these are: done when no other lane runs and the job
     * stands where that revision could have brought it. 0: no. */
    const struct lane_successor *adopt;
    uint32_t adopt_count;
    /* Whose doing the end of an instance was. It is charged once, by the begin that takes the lane
     * from that instance; the other lanes which that instance held are charged nothing. */
    const char *dead;          /* that instance; NULL: no culprit was named */
    bool is_culprit;           /* this job is */
    const char *culprit_stage; /* and the stage that ran then; NULL: not known */
    const char *culprit;    /* plugin and signal in words, without `"` and `\`, for the job's error
                               when this makes it poison; NULL: none */
    uint32_t takeovers_max; /* a lane with more is not granted: LANE_SUSPECT; 0: any is */
    uint64_t put_off_ms;    /* such a lane waits so long, doubling to 30 s: LANE_PUT_OFF; 0: no */
};
struct lane_stage {
    const char *name;
    uint32_t attempts; /* used up by earlier attempts (charged ones) */
    uint32_t throttled;
};
/* A finished stage's output, or a step ("STAGE#NAME", state 0) of an open one. */
struct lane_output {
    const char *name;
    char state; /* d done, s skipped */
    const char *text;
    size_t len;
};
/* A child that an open stage noted; for LANE_STOP. */
struct lane_child {
    const char *stage, *id, *req;
    uint64_t timeout_ms; /* of the call */
};
/* Texts belong to the grant. */
struct lane_grant {
    enum lane_verdict verdict;
    struct lane_stage *open;
    uint32_t open_count;
    struct lane_output *outputs;
    uint32_t output_count;
    struct lane_child *children;
    uint32_t child_count;
    const char *revision;                 /* REV: the one the job has */
    uint64_t revision_number, own_number; /* REV: their load numbers; 0: not numbered */
    bool is_alone;                        /* no other lane of the job runs */
    const char *status, *stop;            /* of the job: `$after` lanes run on an ended one */
    const char *input, *prio, *metadata, *owner, *ancestors, *after; /* "" when there is none */
    size_t input_len;
    uint64_t round, created_ms, left_ms; /* left until the deadline; UINT64_MAX: none */
    uint32_t crashes;
    uint32_t takeovers; /* of this lane, this one counted in; also for SUSPECT */
    uint32_t done;      /* finished stages of the job */
    struct reply reply;
    char *kept; /* the texts after lane_grant_trim */
};
/* Makes lane->fence when it is empty. Fills the grant for OK, STOP and REV. */
MR_SUSPENDS int lane_begin(struct store *store, struct lane *lane, const struct lane_begin *begin,
                           struct lane_grant *ret, struct error *err);
void lane_grant_done(struct lane_grant *grant);
/* Lets go of what is read once (input, open stages, outputs, children) and keeps the texts about
 * the job in one small block: a lane may wait for minutes, and thousands of them do. */
void lane_grant_trim(struct lane_grant *grant);

/* ---- While it runs ---- */

/* What a commit or fail leaves open in this lane, with outputs of stages that finished in other
 * lanes and were asked for. */
struct lane_next {
    enum lane_verdict verdict; /* OK END STOP LOST */
    const char **open;
    uint32_t open_count;
    struct lane_output *outputs;
    uint32_t output_count;
    uint64_t order; /* a higher one was answered later */
    struct reply reply;
};
void lane_next_done(struct lane_next *next);

struct lane_usage {
    int64_t input_tokens, output_tokens, cost_micros; /* to be added */
};
struct lane_commit {
    const char *stage; /* one of the lane's, `$end` or `$after` */
    bool is_skipped;
    const char *output; /* JSON text; of `$end` and `$after` nothing is stored */
    size_t output_len;
    const struct lane_successor *successors; /* stages that need this one */
    uint32_t successor_count;
    uint32_t total;     /* stages of the pipeline */
    const char *result; /* JSON text, when this is the last stage as far as the worker knows, and of
                           `$end`; NULL: none. Ignored when other stages are unfinished */
    size_t result_len;
    uint32_t known;   /* finished stages whose output the worker has and whose commit was answered,
                         this one included */
    const char *have; /* their names separated by `,`: not sent again */
    struct lane_usage usage;
};
/* The checkpoint. A repeated one changes nothing. `$end` among the open stages: all stages are done
 * and the result is wanted, in a commit of stage `$end`. */
MR_SUSPENDS int lane_commit(struct store *store, const struct lane *lane,
                            const struct lane_commit *commit, struct lane_next *ret,
                            struct error *err);

struct lane_fail {
    const char *stage;
    enum mr_class class;
    const char *code;    /* word of the code: error_name() */
    const char *message; /* for people; without secrets */
    uint64_t delay_ms;   /* until the next attempt (retry, throttled) */
    uint32_t attempts;   /* that the stage has in all */
    struct lane_usage usage;
};
/* A failed attempt. With attempts left the stage leaves this lane and waits in one of its own. */
MR_SUSPENDS int lane_fail(struct store *store, const struct lane *lane,
                          const struct lane_fail *fail, struct lane_next *ret, struct error *err);

/* Stores a partial outcome of a running stage. OK, STOP (stored all the same) or LOST. `ret_count`
 * (NULL: not asked): how many steps of the stage Redis has now; fewer than were stored: it has
 * forgotten some. */
MR_SUSPENDS int lane_step(struct store *store, const struct lane *lane, const char *stage,
                          const char *name, const char *text, size_t len, uint32_t *ret_count,
                          enum lane_verdict *ret, struct error *err);
/* Notes a child before it is submitted. `timeout_ms`: of the call; whoever cancels the child before
 * it is there has to keep it out for that long. STOP and LOST: do not submit it. */
MR_SUSPENDS int lane_note(struct store *store, const struct lane *lane, const char *stage,
                          const char *child, const char *req, uint64_t timeout_ms,
                          enum lane_verdict *ret, struct error *err);

struct lane_told {
    const char *kind; /* "stage.progress", "stage.delta", or the plugin's own */
    const char *stage;
    const char *data; /* JSON object text, or NULL; at most LIMIT_EVENT_BYTES */
    size_t len;
    bool is_live; /* published without a number and not kept (deltas) */
};
/* Publishes events; `progress` 0 to 100 raises the job's (UINT32_MAX: none). Not sent again when
 * the reply is lost: MR_E_STORE then, and the events may have been seen. */
MR_SUSPENDS int lane_tell(struct store *store, const struct lane *lane,
                          const struct lane_told *events, uint32_t count, uint32_t progress,
                          enum lane_verdict *ret, struct error *err);

/* ---- Giving it up ---- */

/* The lane waits `delay_ms` and comes back. */
MR_SUSPENDS int lane_park(struct store *store, const struct lane *lane, uint64_t delay_ms,
                          enum lane_verdict *ret, struct error *err);
/* The lane goes back to its queue, in class recovered (graceful stop). */
MR_SUSPENDS int lane_handback(struct store *store, const struct lane *lane, enum lane_verdict *ret,
                              struct error *err);
/* After LANE_STOP, when nothing of it runs any more and its children are cancelled. */
MR_SUSPENDS int lane_drop(struct store *store, const struct lane *lane, enum lane_verdict *ret,
                          struct error *err);

/* ---- Leases (the keeper thread, a connection of its own) ---- */

struct lane_renewal {
    struct lane lane;          /* a copy */
    enum lane_verdict verdict; /* OK STOP LOST */
};
/* What the keeper needs of a store, so that it shares nothing with the loop's thread. */
struct lane_keeper;
struct lane_keeper *lane_keeper_new(const struct store *store, const struct redis_config *config);
void lane_keeper_free(struct lane_keeper *keeper);
/* How many of the worker's slots are taken: the next renewals say so in its registration. */
void lane_keeper_set_busy(struct lane_keeper *keeper, uint64_t busy);
/* Renews all (200 a script) and the worker's registration in each partition; fills the verdicts.
 * On an error the verdicts of what was not reached are LANE_OK and say nothing. */
int lane_renew(struct lane_keeper *keeper, struct lane_renewal *renewals, size_t count,
               uint64_t timeout_ms, struct error *err);

/* ---- Registration ---- */

/* Registers this process as consumer `name`, made unique: a live other instance of that name gets
 * the next suffix ("-2", …) tried, unless it is `reaped` (an instance that the master has seen die;
 * NULL: none), whose pending entries pass on at once. Sets store->worker and store->instance. */
MR_SUSPENDS int worker_enroll(struct store *store, const char *name, const char *instance,
                              const char *reaped, struct error *err);
/* Says in the registration what this worker serves: `queues` separated by `,`, and how many lanes
 * at a time. For people who ask why a job waits (why.h). Renewals repeat it. */
MR_SUSPENDS int worker_serve(struct store *store, const char *queues, uint32_t slots,
                             struct error *err);
/* Takes the registration back (graceful end). */
MR_SUSPENDS int worker_leave(struct store *store, struct error *err);
/* Deletes consumers of this stream that have no registration and nothing pending. */
MR_SUSPENDS int worker_bury(struct store *store, const struct lane_stream *stream,
                            uint32_t *ret_count, struct error *err);
/* The channel on which this worker hears that lanes have to stop; messages: `stop JOB LANE`. */
const char *worker_bell(const struct store *store, uint32_t partition, char ret[STORE_KEY_BYTES]);
/* Reads such a message; false: not one. */
bool worker_bell_parse(const char *text, size_t len, char ret_job[ID_BYTES], uint32_t *ret_lane);

/* ---- The mover ---- */

/* Wakes what is due in a partition (at most 100), lanes of resumed pipelines, and trims lists.
 * `ret_sleep_ms`: until the next is due, at most 1000, jittered; 0: more is due now. */
MR_SUSPENDS int mover_turn(struct store *store, uint32_t partition, uint64_t *ret_sleep_ms,
                           uint32_t *ret_woken, struct error *err);
