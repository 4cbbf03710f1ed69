/* Durability: waiting until what was written is on the server's disk (`aof`: WAITAOF 1 0, Redis 7.2
 * or Valkey) or in the memory of a replica (`replica`: WAIT 1).
 *
 * Both commands wait for the writes of the connection that sends them, and block it. So each level
 * has a connection of its own, opened when it is first asked for, and waits for many at once:
 * whoever comes while a round is under way waits for the next one. A round is a tiny write and then
 * the command: what a server has written before that write, over any connection, comes before it in
 * its append-only file and in what replicas receive.
 *
 * That only holds on one server and one history. So a round compares the replication id
 * (master_replid) behind both connections, and one waits only for what was written over the present
 * command connection: when that broke in between, a failover may have lost the write, and the
 * answer is `none`. */
#pragma once

#include "state/store.h"

/* As enum pipeline_durability: the layers above translate by value. */
enum durable_level { DURABLE_NONE, DURABLE_AOF, DURABLE_REPLICA, DURABLE_LEVELS };
/* "none", "aof", "replica"; DURABLE_LEVELS when there is none such. */
const char *durable_level_name(enum durable_level level);
enum durable_level durable_level_find(const char *name);

/* How long is waited. With `appendfsync everysec` a sync comes once a second. */
#define DURABLE_AOF_MS     3000u
#define DURABLE_REPLICA_MS 1000u

struct durable_got {
    enum durable_level level; /* what was asked for, or DURABLE_NONE */
    char why[112];            /* with NONE although more was asked for: "no replica has …" */
};
/* Waits until everything that was written over the store's command connection is safe. To be called
 * directly after the reply to the write, before anything that suspends. Never fails and is not
 * ended by the scope: at most the level's time. `asked` NONE: returns at once. */
MR_SUSPENDS void durable_wait(struct store *store, enum durable_level asked,
                              struct durable_got *ret);
/* Notes in the job what it got (field `durability` of its hash); nothing when the job is gone.
 * Safe to repeat. */
MR_SUSPENDS int durable_note(struct store *store, const char *job, enum durable_level asked,
                             const struct durable_got *got, struct error *err);
/* Reads such a note, a job_view's `durability`. False: it is none. */
bool durable_parse(const char *text, enum durable_level *ret_asked, struct durable_got *ret_got);
/* Both, for who has just submitted a job: a note that cannot be written is logged. */
MR_SUSPENDS void durable_submitted(struct store *store, const char *job, enum durable_level asked);
/* Whether the server can do it at all: MR_OK; MR_E_SCHEMA with what is missing and what would be
 * right; MR_E_STORE when it does not say. */
MR_SUSPENDS int durable_check(struct store *store, enum durable_level asked, struct error *err);

/* store.c: at the end. */
struct durable;
void durable_close(struct durable *durable);
