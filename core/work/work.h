/* What the files of this layer share; see worker.h for who does what. */
#pragma once

#include "base/log.h"
#include "io/redis_sub.h"
#include "loop/stop.h"
#include "loop/timer.h"
#include "state/job.h"
#include "state/lane.h"
#include "state/watch.h"
#include "work/worker.h"

struct keeper;
struct revision_table;

/* One lane in hand, from its claim to its end. Its fiber owns it. */
struct work_lane {
    struct worker *worker;
    struct work_lane *next, **link; /* in the worker's list */
    struct work_lane *chain;        /* in the bucket of the table by job and number */
    struct lane lane;
    struct lane_grant grant;
    struct pipeline *pipeline; /* a reference */
    struct run run;
    struct work_step *steps;
    /* What the newest reply to a checkpoint left open, and its place in their order: tasks side by
     * side may come to read an older one after it. */
    uint64_t seen_open[LIMIT_STAGES / 64], seen_order;
    size_t lease;   /* place in the keeper's table + 1; 0: not there */
    size_t bytes;   /* counted against the worker's memory */
    uint32_t calls; /* tasks of it that wait in a call: its slot is free meanwhile */
    struct work_lane *waiting_next, **waiting_link; /* lanes with calls, longest waiting first */
    uint32_t
        writing; /* scripts under way that may close it: their replies say whether it is lost */
    uint32_t suspect; /* its takeovers, when they make it a suspect; 0: it is none */
    int durability;   /* what the job's hash says it has: enum durable_level + 1; 0: not known */
    bool has_slot;    /* counted in the worker's `busy` */
    bool is_parked;   /* to be parked: the process is full */
    bool is_claimed;  /* its entry was claimed again meanwhile: look at it once this one is gone */
    bool is_lost;     /* another worker has it: write nothing */
    bool is_stopped;  /* wind up: cancelled or past its deadline */
    bool has_run;     /* run and its scope are made */
    struct work_tell *tell; /* progress and events on their way; NULL: none yet */
};
struct work_step {
    struct work_step *next;
    char *name; /* STAGE#NAME */
    char *text;
    size_t len;
};

#define WORK_BUCKETS   4096
#define WORK_TAKEOVERS 31u   /* above any that begin grants */
#define WORK_SUSPECT   2u    /* takeovers that make a lane a suspect */
#define WORK_AGAIN_MS  1000u /* parked: the process is full, or Redis would not say */

enum trouble { TROUBLE_START, TROUBLE_CLAIM, TROUBLE_BEGIN, TROUBLE_MOVER, TROUBLES };

struct worker {
    const struct worker_setup *setup;
    struct loop loop;
    struct redis *redis, *blocking;
    struct redis_sub *sub;
    struct http *http;
    struct store *store;
    struct plugin_registry *plugins;
    struct runner runner;
    struct revision_table *revisions;
    struct keeper *keeper;
    struct stop stop;
    struct scope scope;       /* of claim, reclaim and mover: cancelled when the worker drains */
    struct scope lanes_scope; /* above all lanes: cancelled when `drain` is over */
    struct group lanes_group, services;
    struct work_lane *lanes;
    struct work_lane *buckets[WORK_BUCKETS];
    size_t held;              /* lanes in hand */
    size_t busy;              /* of them, those that use a slot */
    _Atomic size_t busy_seen; /* the same, for the keeper's thread */
    size_t bytes;             /* documents */
    struct work_lane *waiting, **waiting_end;
    size_t suspects[WORK_TAKEOVERS + 1]; /* lanes in hand by `suspect` */
    size_t parking, parking_bytes;       /* lanes that are being parked */
    struct lane_stream
        *streams; /* queues × classes × partitions, by partition, in order of class */
    size_t stream_count;
    struct redis_listener *bells; /* one a partition */
    struct wait *claim_wait;      /* the claim fiber, when it waits for a slot */
    struct wait *reclaim_wait;    /* the one that takes over, when it waits */
    bool owes;                    /* leases are over whose lanes find no slot: nothing new before */
    struct work_place *places;    /* tasks that wait for a place at an endpoint, oldest first */
    struct wait *drain_wait;
    uint64_t up_since_ms; /* clock_now_ms() of the last connect; 0: away */
    bool look_at_own;     /* own pending entries may be there that nobody holds */
    bool draining;
    struct log_pace trouble[TROUBLES];
    int exit_code;
};

/* trouble.c: logs it, but not each time. */
void worker_trouble(struct worker *worker, enum trouble kind, const char *what,
                    const struct error *err);

/* worker.c: stores the host's own revisions in Redis. */
MR_SUSPENDS int worker_put_revisions(struct worker *worker, struct error *err);

/* room.c: slots that are free now for entries of a class. */
size_t room_slots(const struct worker *worker, enum queue_class class);
void room_take(struct work_lane *lane);
void room_free(struct work_lane *lane);
/* Around a task's wait in a call: frees the lane's slot, takes it again (without asking). */
void room_call_begin(struct work_lane *lane);
void room_call_end(struct work_lane *lane);
/* Parks the longest waiting parents while there are more fibers or documents than allowed. */
void room_park(struct worker *worker);
/* Counts the lane's document as it is now. */
void room_count(struct work_lane *lane);
/* Whether one more suspect, with that many takeovers, may be in hand; then it is counted. */
bool room_suspect(struct work_lane *lane, uint32_t takeovers);
/* It has made progress. */
void room_trust(struct work_lane *lane);
/* The lane is gone. */
void room_leave(struct work_lane *lane);

/* claim.c */
void claim_fiber(void *worker);
void reclaim_fiber(void *worker);
/* Begins and hands back what is pending and not held: the last step of a drain. */
MR_SUSPENDS void claim_hand_back(struct worker *worker);

/* work_lane.c */
struct work_lane *work_lane_find(struct worker *worker, const char *job, uint32_t number);
/* Takes a claimed lane in hand and starts its fiber; nothing when it is held already. */
void work_lane_start(struct worker *worker, const struct lane *lane);
/* The keeper or a bell says that a lane is lost, or to stop. */
void work_lane_lose(struct work_lane *lane);
void work_lane_stop(struct work_lane *lane);

/* work_begin.c: begins a claimed lane; true when it is granted: `pipeline` is set, or it
 * `is_stopped`. */
MR_SUSPENDS bool work_lane_begin(struct work_lane *lane);

/* work_ops.c: the runner's callbacks against Redis. */
extern const struct runner_ops work_ops;
/* A stage's name in Redis: a follow-up is `$after` there, whatever its name in the pipeline. */
const char *work_stage_name(const struct run *run, const struct stage *stage);
/* Commits `$end` with the job's result, or fails it when the result cannot be made, and whatever
 * Redis asks for then. */
MR_SUSPENDS int work_end(struct work_lane *lane, struct run_next *ret_next, struct error *err);
/* Fills run->open, the document and the states from a reply. Returns true when `$end` is open. */
bool work_open(struct work_lane *lane, const char *const *open, uint32_t open_count,
               const struct lane_output *outputs, uint32_t output_count, uint64_t *ret_open);

/* work_child.c */
MR_SUSPENDS int work_call(struct run *run, struct stage *stage, const struct run_child *child,
                          char **ret_text, size_t *ret_len, struct error *err);
MR_SUSPENDS int work_dispatch(struct run *run, struct stage *stage, const struct run_child *child,
                              struct error *err);
/* Cancels the children that a winding-up lane has noted; false: one may still run. */
MR_SUSPENDS bool work_cancel_children(struct work_lane *lane);

/* work_durable.c: waits until what was written for the lane is as safe as its pipeline asks. Right
 * after the reply to the write; not ended by the scope, at most seconds. */
MR_SUSPENDS void work_durable(struct work_lane *lane);
/* At start: a warning when a pipeline asks for what the server cannot do. */
MR_SUSPENDS void work_durable_check(struct worker *worker);

/* work_tell.c: progress merged to one a second, events in order. */
void work_progress(struct run *run, struct stage *stage, int percent, const char *message);
void work_emit(struct run *run, struct stage *stage, const char *kind, const char *data,
               size_t len);
/* Sends what waits when deltas are among it: before a checkpoint. */
MR_SUSPENDS void work_tell_flush(struct work_lane *lane);
MR_SUSPENDS void work_tell_end(struct work_lane *lane);

/* work_limit.c: the runner's hooks around a request to an endpoint. */
MR_SUSPENDS int work_http_begin(void *arg, struct run *run, const struct endpoint *endpoint,
                                size_t body_len, void **ret_ticket, struct error *err);
MR_SUSPENDS void work_http_end(void *arg, struct run *run, void *ticket,
                               const struct http_reply *reply);

/* revision.c */
struct revision_table *revision_table_new(void);
void revision_table_free(struct revision_table *table);
/* Takes over the reference; `is_own`: what this host offers now. */
void revision_add(struct revision_table *table, struct pipeline *pipeline, bool is_own);
/* Borrowed; NULL: not known. `revision` NULL: the host's own. */
struct pipeline *revision_find(const struct revision_table *table, const char *name,
                               const char *revision);
/* Names of all known revisions of a pipeline but the own, separated by `,` (malloc'ed; "" when
 * none). */
char *revision_known(const struct revision_table *table, const char *name);
/* Fetches a revision from Redis and builds it. MR_E_PIPELINE_CHANGED when it is not there or cannot
 * be built here. */
MR_SUSPENDS int revision_fetch(struct worker *worker, const char *name, const char *revision,
                               struct error *err);
/* Calls fn for each of the host's own pipelines. */
void revision_each_own(const struct revision_table *table,
                       void (*fn)(void *arg, struct pipeline *pipeline), void *arg);

/* keeper.c */
struct keeper *keeper_start(struct worker *worker, struct error *err);
/* Renews no more; joins the thread. */
void keeper_stop(struct keeper *keeper);
void keeper_add(struct keeper *keeper, struct work_lane *lane);
void keeper_remove(struct keeper *keeper, struct work_lane *lane);

/* mover.c */
void mover_fiber(void *worker);
