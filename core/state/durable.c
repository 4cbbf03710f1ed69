/* Group commit: see durable.h. One of those who wait leads: it makes the round on its own fiber,
 * for all who were there when it began, and hands the lead on. A leader is shielded, so a round
 * always comes to its end; a follower whose time is over leaves by itself. */
#include "state/durable.h"
#include "base/clock.h"
#include "base/log.h"
#include "state/inner.h"
#include <stdio.h>
#include <string.h>

#define HISTORY_BYTES 41 /* master_replid: 40 hex digits */
#define PAUSE_MS      50u
#define PROBE_MS      300u
#define GRACE_MS      500u /* for the reply of a wait that the server has ended */

/* One who waits; on its fiber's stack. */
struct follower {
    struct wait wait;
    struct follower *next, **link; /* link NULL: in no list */
    uint64_t due_ms;
    uint64_t connection; /* the store's, over which was written */
    uint64_t joined;     /* rounds that had begun then */
    bool waits;          /* else it leads */
    struct durable_got *got;
};
/* A connection and which history of data is behind it. */
struct place {
    struct redis *redis;
    uint64_t connection; /* of which `history` is; 0: not known */
    char history[HISTORY_BYTES];
};
struct line {
    enum durable_level level;
    struct place own, store;
    struct follower *first, **end;
    uint64_t rounds; /* begun */
    uint64_t probed; /* over which connection: see probe() */
    bool is_early;
    bool has_failed; /* the last one got nothing: ask whether there is a replica at all */
    bool has_leader;
};
struct durable {
    struct line lines[DURABLE_LEVELS];
};

static const char *const names[DURABLE_LEVELS] = {"none", "aof", "replica"};

const char *durable_level_name(enum durable_level level)
{
    return names[level];
}

enum durable_level durable_level_find(const char *name)
{
    for (unsigned i = 0; i < DURABLE_LEVELS; i++)
        if (strcmp(name, names[i]) == 0)
            return (enum durable_level)i;
    return DURABLE_LEVELS;
}

void durable_close(struct durable *durable)
{
    if (!durable)
        return;
    for (unsigned i = 0; i < DURABLE_LEVELS; i++)
        redis_close(durable->lines[i].own.redis);
    free(durable);
}

static struct line *line_get(struct store *store, enum durable_level level)
{
    struct store_private *priv = store->priv;
    if (!priv->durable)
        priv->durable = mem_zalloc(sizeof(*priv->durable));
    struct line *line = &priv->durable->lines[level];
    if (!line->own.redis) {
        line->level = level;
        line->end = &line->first;
        line->store.redis = store->redis;
        /* Nothing on it takes longer than a wait: one that hangs is left soon. */
        struct redis_config where = priv->where;
        where.command_ms = DURABLE_AOF_MS;
        line->own.redis = redis_open(store->loop, &where,
                                     level == DURABLE_AOF ? "durable-aof" : "durable-replica");
    }
    return line;
}

/* ---- Who waits ---- */

static void join(struct line *line, struct follower *follower)
{
    follower->next = NULL;
    follower->link = line->end;
    *line->end = follower;
    line->end = &follower->next;
}

static void leave(struct line *line, struct follower *follower)
{
    *follower->link = follower->next;
    if (follower->next)
        follower->next->link = follower->link;
    else
        line->end = follower->link;
    follower->link = NULL;
}

static void answer(struct line *line, struct follower *follower, enum durable_level level,
                   const char *why)
{
    leave(line, follower);
    follower->got->level = level;
    snprintf(follower->got->why, sizeof(follower->got->why), "%.*s",
             (int)sizeof(follower->got->why) - 1, why);
    if (follower->waits)
        wait_wake(&follower->wait, MR_OK);
}

/* ---- A round ---- */

static uint64_t left_of(uint64_t due_ms)
{
    uint64_t now = clock_now_ms();
    return due_ms > now ? due_ms - now : 0;
}

/* Learns which history is behind a connection, once for each connection. */
static int place_look(struct place *place, uint64_t due_ms, struct error *err)
{
    uint64_t connection = redis_connection(place->redis);
    if (connection && connection == place->connection)
        return MR_OK;
    struct arg words[2] = {arg_text("INFO"), arg_text("replication")};
    struct reply reply;
    place->connection = 0;
    int rc = redis_call(place->redis, 2, words, left_of(due_ms) + 1, &reply, err);
    if (rc != MR_OK)
        return rc;
    connection = redis_connection(place->redis);
    const char *at = reply.type == REPLY_TEXT ? strstr(reply.text, "master_replid:") : NULL;
    snprintf(place->history, sizeof(place->history), "%.40s", at ? at + 14 : "");
    reply_done(&reply);
    /* It may have been another connection's reply only if that is gone again; then `connection` is
     * 0 or the next round asks anew. */
    place->connection = strspn(place->history, "0123456789abcdef") == 40 ? connection : 0;
    return place->connection ? MR_OK
                             : error_set(err, MR_E_STORE,
                                         "the server does not say whose "
                                         "data it has");
}

/* The number after `name:` in INFO replication; -1: it does not say. */
static int info_number(const struct line *line, const char *name, uint64_t due_ms)
{
    struct arg words[2] = {arg_text("INFO"), arg_text("replication")};
    struct reply reply;
    if (redis_call(line->own.redis, 2, words, left_of(due_ms) + 1, &reply, NULL) != MR_OK)
        return -1;
    const char *at = reply.type == REPLY_TEXT ? strstr(reply.text, name) : NULL;
    int value = at ? (int)text_u64(at + strlen(name), 9) : -1;
    reply_done(&reply);
    return value;
}

/* WAIT or WAITAOF; MR_OK when it was had. MR_E_SCHEMA: it cannot be had from this server. */
static int ask(struct line *line, uint64_t due_ms, struct error *err)
{
    char ms[24];
    uint64_t left = left_of(due_ms);
    bool is_aof = line->level == DURABLE_AOF;
    /* Nobody is to wait a second at each step while there is no replica: one second tells. */
    if (line->has_failed && !is_aof && info_number(line, "connected_slaves:", due_ms) == 0)
        return error_set(err, MR_E_SCHEMA, "no replica is connected");
    /* 0 would mean: for ever. */
    struct arg limit = arg_int(ms, left ? (int64_t)left : 1);
    struct arg wait[3] = {arg_text("WAIT"), arg_text("1"), limit};
    struct arg waitaof[4] = {arg_text("WAITAOF"), arg_text("1"), arg_text("0"), limit};
    struct reply reply;
    int rc = redis_call(line->own.redis, is_aof ? 4 : 3, is_aof ? waitaof : wait, left + GRACE_MS,
                        &reply, err);
    if (rc == MR_E_STORE && is_aof && strstr(err->message, "unknown command"))
        return error_set(err, MR_E_SCHEMA, "WAITAOF is not known to this server");
    if (rc == MR_E_STORE && is_aof && strstr(err->message, "appendonly is disabled"))
        return error_set(err, MR_E_SCHEMA, "this server keeps no append-only file");
    if (rc != MR_OK)
        return rc;
    uint64_t count = is_aof                    ? reply_u64(&reply, 0)
                     : reply.type == REPLY_INT ? (uint64_t)reply.integer
                                               : 0;
    reply_done(&reply);
    line->has_failed = count == 0;
    if (count > 0)
        return MR_OK;
    return error_set(err, MR_E_TIMEOUT, "%s within %u ms",
                     is_aof ? "the append-only file was not synced" : "no replica has confirmed it",
                     is_aof ? DURABLE_AOF_MS : DURABLE_REPLICA_MS);
}

/* The tiny write that is then waited for. */
static int touch(struct store *store, struct line *line, uint64_t due_ms, struct error *err)
{
    char key[STORE_KEY_BYTES];
    struct reply reply;
    snprintf(key, sizeof(key), "%s:durable", store->prefix);
    struct arg name = arg_text(key), value = arg_text(store->instance);
    int rc = redis_run(line->own.redis, &store->priv->scripts[SCRIPT_durable], 1, &name, 1, &value,
                       left_of(due_ms) + 1, &reply, err);
    if (rc == MR_OK)
        reply_done(&reply);
    return rc;
}

/* Some servers (Redis 7.4, Valkey 8.0: redis pull request 13793) answer WAITAOF with appendfsync
 * everysec although nothing was synced since. A right one syncs once a second, so two waits one
 * after the other take most of a second: a server where they do not is not believed. Once for each
 * connection. */
static int probe(struct store *store, struct line *line, uint64_t due_ms, struct error *err)
{
    if (line->level != DURABLE_AOF)
        return MR_OK;
    if (line->probed != line->own.connection) {
        struct arg words[3] = {arg_text("CONFIG"), arg_text("GET"), arg_text("appendfsync")};
        struct reply reply;
        bool is_everysec = false;
        int rc = redis_call(line->own.redis, 3, words, left_of(due_ms) + 1, &reply, NULL);
        if (rc == MR_OK) { /* else it is not permitted: it has to be believed */
            is_everysec = strcmp(reply_text(&reply, 1), "everysec") == 0;
            reply_done(&reply);
        }
        uint64_t begin = clock_now_ms();
        rc = MR_OK;
        for (int i = 0; i < 2 && is_everysec && rc == MR_OK; i++) {
            rc = touch(store, line, due_ms, err);
            if (rc == MR_OK)
                rc = ask(line, due_ms, err);
        }
        if (rc != MR_OK)
            return rc;
        line->is_early = is_everysec && clock_now_ms() - begin < PROBE_MS;
        line->probed = line->own.connection;
    }
    if (!line->is_early)
        return MR_OK;
    error_set(err, MR_E_SCHEMA, "WAITAOF of this server answers before the disk has it");
    error_hint(err, "a known fault of some versions with appendfsync everysec: a newer server, or "
                    "appendfsync always");
    return MR_E_SCHEMA;
}

/* The tiny write and the wait for it, on one connection to the server that the store writes to.
 * `*ret_round`: who joined before that round is covered. */
static int attempt(struct store *store, struct line *line, uint64_t due_ms, uint64_t *ret_round,
                   struct error *err)
{
    int rc = place_look(&line->own, due_ms, err);
    if (rc == MR_OK)
        rc = place_look(&line->store, due_ms, err);
    if (rc != MR_OK)
        return rc;
    if (strcmp(line->own.history, line->store.history) != 0) {
        line->own.connection = line->store.connection = 0;
        return error_set(err, MR_E_LOST, "a failover is under way");
    }
    rc = probe(store, line, due_ms, err);
    if (rc != MR_OK)
        return rc;
    *ret_round = ++line->rounds;
    rc = touch(store, line, due_ms, err);
    if (rc != MR_OK)
        return rc;
    if (redis_connection(line->own.redis) == line->own.connection)
        rc = ask(line, due_ms, err);
    if (rc == MR_OK && redis_connection(line->own.redis) != line->own.connection)
        rc = error_set(err, MR_E_LOST, "the connection to Redis broke while it was waited for");
    return rc;
}

/* Those who wrote over a connection that is gone: a failover may have lost it. */
static void answer_strays(struct line *line)
{
    uint64_t connection = redis_connection(line->store.redis);
    struct follower *next;
    for (struct follower *each = line->first; each; each = next) {
        next = each->next;
        if (each->connection != connection)
            answer(line, each, DURABLE_NONE, "the connection to Redis broke after it was written");
    }
}

/* Makes a round for `leader` and all who are there; then the leader has its answer. */
static void lead(struct store *store, struct line *line, struct follower *leader)
{
    struct error err = {0};
    uint64_t round = 0;
    int rc = MR_E_LOST;
    while (leader->link) {
        answer_strays(line);
        if (!leader->link)
            break;
        rc = attempt(store, line, leader->due_ms, &round, &err);
        bool passes = rc == MR_E_LOST || rc == MR_E_STORE; /* by itself, perhaps */
        if (!passes || left_of(leader->due_ms) <= PAUSE_MS)
            break;
        wait_sleep(store->loop, PAUSE_MS);
    }
    if (rc == MR_OK)
        answer_strays(line);
    /* The answer may go to clients: no addresses. */
    bool is_away = err.code == MR_E_STORE && strcmp(err.detail, "answered") != 0;
    const char *why = is_away ? "Redis does not answer" : err.message;
    struct follower *next;
    for (struct follower *each = line->first; each; each = next) {
        next = each->next;
        if (rc == MR_OK && each->joined < round)
            answer(line, each, line->level, "");
        else if (rc == MR_E_SCHEMA || (rc != MR_OK && (each == leader || !left_of(each->due_ms))))
            answer(line, each, DURABLE_NONE, why);
    }
}

static void wait_in_line(struct store *store, struct line *line, struct follower *me)
{
    join(line, me);
    while (me->link) {
        if (!line->has_leader) {
            line->has_leader = true;
            lead(store, line, me);
            line->has_leader = false;
            break;
        }
        wait_init(&me->wait, store->loop);
        me->waits = true;
        int rc = wait_for(&me->wait, left_of(me->due_ms));
        me->waits = false;
        if (rc != MR_OK && me->link) {
            leave(line, me);
            me->got->level = DURABLE_NONE;
            snprintf(me->got->why, sizeof(me->got->why), "nothing was heard within its time");
        }
    }
    /* Whoever is the first now leads. */
    if (!line->has_leader && line->first && line->first->waits)
        wait_wake(&line->first->wait, MR_OK);
}

void durable_wait(struct store *store, enum durable_level asked, struct durable_got *ret)
{
    *ret = (struct durable_got){.level = DURABLE_NONE};
    if (asked == DURABLE_NONE)
        return;
    if (!store->priv->has_where) {
        snprintf(ret->why, sizeof(ret->why), "this process does not wait for it");
        return;
    }
    uint64_t time_ms = asked == DURABLE_AOF ? DURABLE_AOF_MS : DURABLE_REPLICA_MS;
    struct line *line = line_get(store, asked);
    struct follower me = {.due_ms = clock_now_ms() + time_ms,
                          .connection = redis_connection(store->redis),
                          .joined = line->rounds,
                          .got = ret};
    wait_shield(1);
    wait_in_line(store, line, &me);
    wait_shield(-1);
}

/* ---- Notes ---- */

int durable_note(struct store *store, const char *job, enum durable_level asked,
                 const struct durable_got *got, struct error *err)
{
    char text[160];
    snprintf(text, sizeof(text), "%s %s%s%s", names[asked], names[got->level],
             got->why[0] ? " " : "", got->why);
    call_auto struct call call;
    call_init(&call, store, SCRIPT_durability, store_partition(store, job));
    call_key(&call, "job", job);
    call_text(&call, text);
    struct reply reply;
    int rc = call_run(&call, 0, &reply, err);
    if (rc == MR_OK)
        reply_done(&reply);
    return rc;
}

bool durable_parse(const char *text, enum durable_level *ret_asked, struct durable_got *ret_got)
{
    char asked[16] = "", got[16] = "";
    int used = 0;
    if (sscanf(text, "%15s %15s%n", asked, got, &used) != 2)
        return false;
    enum durable_level first = durable_level_find(asked), second = durable_level_find(got);
    if (first == DURABLE_LEVELS || second == DURABLE_LEVELS)
        return false;
    *ret_asked = first;
    ret_got->level = second;
    snprintf(ret_got->why, sizeof(ret_got->why), "%s", text[used] == ' ' ? text + used + 1 : "");
    return true;
}

void durable_submitted(struct store *store, const char *job, enum durable_level asked)
{
    struct durable_got got;
    struct error err = {0};
    if (asked == DURABLE_NONE)
        return;
    durable_wait(store, asked, &got);
    wait_shield(1);
    int rc = durable_note(store, job, asked, &got, &err);
    wait_shield(-1);
    if (rc != MR_OK)
        log_error("what a job's durability is could not be noted", &err, "job", job, NULL);
}

int durable_check(struct store *store, enum durable_level asked, struct error *err)
{
    struct reply reply;
    if (asked != DURABLE_AOF) /* WAIT is older than any server we take; replicas come and go */
        return MR_OK;
    int rc = redis_command(store->redis, &reply, err, "COMMAND", "INFO", "WAITAOF", NULL);
    if (rc != MR_OK)
        return rc;
    bool is_known = reply.count == 1 && reply.items[0].type == REPLY_ARRAY;
    reply_done(&reply);
    if (!is_known) {
        error_set(err, MR_E_SCHEMA,
                  "\"durability\": \"aof\" is not to be had: this server does not know WAITAOF");
        error_hint(err,
                   "Redis 7.2 or Valkey; or appendfsync always, which makes every answer wait");
        return MR_E_SCHEMA;
    }
    rc = redis_command(store->redis, &reply, err, "INFO", "persistence", NULL);
    if (rc != MR_OK)
        return rc;
    bool is_on = reply.type == REPLY_TEXT && strstr(reply.text, "aof_enabled:1");
    reply_done(&reply);
    if (is_on && !store->priv->has_where)
        return MR_OK;
    if (is_on) {
        struct line *line = line_get(store, DURABLE_AOF);
        uint64_t due_ms = clock_now_ms() + DURABLE_AOF_MS;
        if (line->has_leader) /* somebody is at it, and will say so */
            return MR_OK;
        line->has_leader = true;
        rc = place_look(&line->own, due_ms, err);
        rc = rc == MR_OK ? probe(store, line, due_ms, err) : rc;
        line->has_leader = false;
        if (line->first && line->first->waits)
            wait_wake(&line->first->wait, MR_OK);
        return rc;
    }
    error_set(err, MR_E_SCHEMA,
              "\"durability\": \"aof\" is not to be had: this server keeps no append-only file");
    error_hint(err, "appendonly yes");
    return MR_E_SCHEMA;
}
