/* The store: what all calls of this layer share (connection, names of keys, scripts, settings), and
 * the checks at start.
 *
 * Every change of a job is one Lua script on one hash slot (docs/protocol.md). A script may be sent
 * again when its reply was lost; the calls of this layer do so by themselves. Errors of all calls:
 * MR_E_STORE (Redis is away or refuses, after the call's patience), MR_E_INTERNAL (a script failed:
 * a bug), and what ends the fiber's scope. */
#pragma once

#include "base/buf.h"
#include "base/id.h"
#include "io/redis.h"
#include "state/keys.h"

#define STORE_NAME_BYTES  65  /* pipelines, queues: 64 characters and NUL */
#define STORE_STAGE_BYTES 49  /* stages: 48 characters and NUL */
#define STORE_ENTRY_BYTES 42  /* id of a stream entry: two 64-bit numbers, a hyphen and NUL */
#define STORE_FENCE_BYTES 48  /* INSTANCE.N */
#define STORE_KEY_BYTES   256 /* any key; store_open refuses prefixes over 64 bytes */
#define STORE_GROUP       "workers"

/* Classes of a queue, in the order in which they are read. A job's priority is one of the last
 * four. */
enum queue_class {
    QUEUE_RECOVERED,
    QUEUE_CALL,
    QUEUE_HIGH,
    QUEUE_NORMAL,
    QUEUE_LOW,
    QUEUE_CLASSES
};
/* "recovered", "call", … */
const char *queue_class_name(enum queue_class class);
/* QUEUE_CLASSES when there is none such. */
enum queue_class queue_class_find(const char *name);

#define STORE_SCHEDULE_MAX 8
struct store_config {
    struct loop *loop;
    struct redis *redis;              /* for commands; borrowed, outlives the store */
    const struct redis_config *where; /* for connections of the store's own (durable.h); copied;
                                         NULL: none is made, and nothing is waited for */
    const char *prefix;               /* NULL: "mr" */
    uint32_t partitions;              /* 0: 1 */
    uint32_t max_crashes;             /* charges above which a job is poison; 0: 3 */
    uint64_t retention_status_ms;     /* 0: 24 h */
    uint64_t retention_result_ms;     /* 0: 7 d */
    uint64_t lease_ms;                /* 0: 15 s */
    /* Automatic reprocessing of dead letters. */
    uint64_t dead_schedule_ms[STORE_SCHEDULE_MAX];
    uint32_t dead_schedule_count; /* 0: none is reprocessed by itself */
    uint32_t dead_budget;         /* a minute and partition; 0: 60 */
    uint32_t dead_breaker;        /* failures in a row of one fingerprint; 0: 20 */
};

/* Reads as a struct; written by store_open, and by worker_enroll for `worker` and `instance`. */
struct store {
    struct loop *loop;
    struct redis *redis;
    char *prefix;
    uint32_t partitions, max_crashes;
    uint64_t retention_status_ms, retention_result_ms, lease_ms;
    uint32_t dead_budget, dead_breaker;
    char schedule[STORE_SCHEDULE_MAX * 21 + 1]; /* "300000,1800000": as scripts take it */
    /* How long the calls of lane.h repeat while Redis is away; default UINT64_MAX (until their
     * scope ends). A worker that drains lowers it. */
    uint64_t patience_ms;
    /* The same for calls on a job by its id, and for limits; default 0: the time of one command. A
     * worker raises it: its tasks wait for Redis as long as their own time lasts. */
    uint64_t ask_ms;
    char *worker;      /* consumer name, NODE/wN; NULL: not a worker */
    char instance[33]; /* random per process start */
    char *queues;      /* that it serves, separated by `,`; NULL: not told (worker_serve) */
    uint32_t slots;    /* lanes that it runs at a time */
    uint64_t begins;   /* of this process: the N of fences */
    uint64_t answers;  /* replies to checkpoints so far: their order */
    struct store_private *priv;
};

#define STORE_PARTITIONS_MAX 1024

/* Whether keys may begin with it: 1 to 64 of `A-Za-z0-9_.-`. */
bool store_prefix_is_valid(const char *prefix);
/* Makes a store; does not talk to Redis. MR_E_SCHEMA when prefix or partitions (1 to
 * STORE_PARTITIONS_MAX) are out of range. */
int store_open(const struct store_config *config, struct store **ret_store, struct error *err);
/* Calls in progress must have ended. */
void store_close(struct store *store);
/* Writes or compares the version key and the number of partitions, and refuses servers that evict
 * (`maxmemory-policy` other than noeviction with maxmemory set: MR_E_SCHEMA with the command that
 * mends it) or are older than 7.0. A replica is MR_E_STORE: it may be promoted. */
MR_SUSPENDS int store_check(struct store *store, struct error *err);
/* Whether Redis would take a submit now, and how many workers are registered (all hosts). MR_OK, or
 * MR_E_STORE with Redis's words: see outage_of. */
MR_SUSPENDS int store_ready(struct store *store, uint64_t timeout_ms, uint64_t *ret_workers,
                            struct error *err);
/* Whether the command connection is ready. */
bool store_is_up(const struct store *store);

/* The partition of a job's id: hash_fnv(id) modulo partitions. */
uint32_t store_partition(const struct store *store, const char *id);
/* Writes `PREFIX:{P}:KIND` or, with `name`, `PREFIX:{P}:KIND:NAME`; returns `ret`. */
const char *store_key(const struct store *store, uint32_t partition, const char *kind,
                      const char *name, char ret[STORE_KEY_BYTES]);
const char *store_queue_key(const struct store *store, uint32_t partition, const char *queue,
                            enum queue_class class, char ret[STORE_KEY_BYTES]);

/* Revisions of pipelines: their source text under its SHA-256, for hosts that meet a job of one
 * they do not have. Put before the first job of it is submitted; also numbers it in every
 * partition. */
MR_SUSPENDS int revision_put(struct store *store, const char *pipeline, const char *revision,
                             const char *text, size_t len, struct error *err);
/* The source (malloc'ed); NULL with MR_OK when it is not there. */
MR_SUSPENDS int revision_get(struct store *store, const char *revision, char **ret_text,
                             size_t *ret_len, struct error *err);

/* Pausing: lanes of the pipeline that are not running yet are held; running ones go on. Resuming is
 * finished by the movers, 100 lanes at a time. Safe to repeat. */
MR_SUSPENDS int pipeline_pause(struct store *store, const char *pipeline, struct error *err);
MR_SUSPENDS int pipeline_resume(struct store *store, const char *pipeline, struct error *err);
MR_SUSPENDS int pipeline_is_paused(struct store *store, const char *pipeline, bool *ret_paused,
                                   struct error *err);

/* Figures of one queue over all partitions. */
struct queue_stats {
    uint64_t waiting[QUEUE_CLASSES]; /* entries that no worker has read */
    uint64_t running[QUEUE_CLASSES]; /* entries that a worker has read */
    uint64_t oldest_ms;              /* age of the oldest entry, by its stream id; 0: none */
};
MR_SUSPENDS int queue_get_stats(struct store *store, const char *queue, struct queue_stats *ret,
                                struct error *err);
