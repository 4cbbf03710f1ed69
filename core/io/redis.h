/* Redis: pipelined commands from fibers over one connection that comes back by itself. With
 * redis_sub.h and redis_sync.h the one seam to hiredis.
 *
 * A call suspends its fiber until the reply is there. When the connection breaks, what was sent has
 * an unknown outcome: the call returns MR_E_STORE and `err->detail` says whether it was sent.
 * Scripts are safe to repeat, so redis_script repeats them by itself until its time is up. Replies
 * are copied out of hiredis and belong to the caller. */
#pragma once

#include "loop/wait.h"

#define REDIS_HOST_BYTES    256
#define REDIS_SENTINELS_MAX 16
struct redis_host {
    char *host;
    int port;
};
/* One of `path`, `host`, and `sentinels` with `master` says where Redis is. */
struct redis_config {
    char *host;
    char *path;            /* unix socket */
    char *user, *password; /* of Redis; may be NULL; never logged */
    int port, db;
    uint64_t connect_ms;          /* 0: 5 s */
    uint64_t command_ms;          /* 0: 10 s, from the call to the reply, reconnecting included */
    struct redis_host *sentinels; /* who is asked where the master is: redis_sentinel.h */
    size_t sentinel_count;
    char *master;            /* its name there */
    char *sentinel_password; /* of the sentinels; may be NULL */
};
/* `redis://[user:pass@]host[:port][/db]`, `unix:/path[?db=N]`,
 * `sentinel://[user:pass@]host[:port],…/MASTERNAME[/db]` (user and password are Redis's).
 * MR_E_SCHEMA with what would be right; rediss: and cluster: are named as not offered yet. */
int redis_config_parse(const char *url, struct redis_config *ret_config, struct error *err);
void redis_config_copy(const struct redis_config *from, struct redis_config *ret);
void redis_config_done(struct redis_config *config);

enum reply_type { REPLY_NIL, REPLY_TEXT, REPLY_INT, REPLY_ARRAY, REPLY_STATUS, REPLY_ERROR };
struct reply {
    enum reply_type type;
    int64_t integer;
    char *text; /* NUL-ended, may hold NULs: TEXT, STATUS, ERROR */
    size_t len;
    struct reply *items;
    size_t count;
};
/* Frees what a reply holds; the struct itself is the caller's. */
void reply_done(struct reply *reply);

struct redis;
/* `name` is for the log and CLIENT SETNAME. Connects in the background. */
struct redis *redis_open(struct loop *loop, const struct redis_config *config, const char *name);
/* Pending calls get MR_E_STOPPING. */
void redis_close(struct redis *redis);
/* For a process that ends: from now on nothing waits for a connection, and no script is sent
 * again. */
void redis_hurry(struct redis *redis);
bool redis_is_up(const struct redis *redis);
/* Why there is no connection: words of the system or of the server ("NOAUTH …"); "" while there is
 * one. Borrowed until the next suspension. */
const char *redis_reason(const struct redis *redis);
/* Number of the present connection, from 1; 0: there is none. Whoever needs two replies from one
 * server compares it before and after. */
uint64_t redis_connection(const struct redis *redis);
/* Called on the loop's stack after each (re)connect that is ready for commands, and when the
 * connection is lost. */
void redis_on_state(struct redis *redis, void (*fn)(void *arg, bool up), void *arg);

/* An argument with its length. */
struct arg {
    const char *data;
    size_t len;
};
struct arg arg_text(const char *text);
struct arg arg_int(char slot[24], int64_t value);

/* One command. MR_OK with the reply. An error reply is MR_E_STORE, "Redis refused NAME: the
 * server's words", and `err->detail` "answered". Waits for a connection at most command_ms.
 *
 * A server that says it is a replica (READONLY, MASTERDOWN, UNBLOCKED: it was demoted) is left: the
 * connection is dropped, and the next one goes to whoever is the master then. */
MR_SUSPENDS int redis_call(struct redis *redis, size_t argc, const struct arg *argv,
                           uint64_t timeout_ms, struct reply *ret_reply, struct error *err);
/* The same from text words, for short fixed commands: redis_command(r, &reply, &err, "HGET", key,
 * field, NULL). */
MR_SUSPENDS int redis_command(struct redis *redis, struct reply *ret_reply, struct error *err, ...)
    __attribute__((sentinel));

/* A Lua script, loaded when the server does not know it (NOSCRIPT). */
struct redis_script {
    const char *name, *text;
    char sha[41]; /* SHA-1 of the text as the server says; filled by the first load */
    bool is_loading;
    uint32_t loads;
};
/* EVALSHA; repeated after a lost connection until `timeout_ms` (0: command_ms; UINT64_MAX: until
 * the scope ends). An error reply of the script is MR_E_INTERNAL with its words. What passes by
 * itself (loading, a failover, too few replicas) is waited for within the time, and is MR_E_STORE
 * after it; what does not (OOM, MISCONF, no permission) is MR_E_STORE at once, but is waited for by
 * calls without a limit. */
MR_SUSPENDS int redis_run(struct redis *redis, struct redis_script *script, size_t keys,
                          const struct arg *key, size_t argc, const struct arg *argv,
                          uint64_t timeout_ms, struct reply *ret_reply, struct error *err);
