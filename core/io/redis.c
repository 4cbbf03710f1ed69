#include "io/redis.h"
#include "base/clock.h"
#include "base/mem.h"
#include "io/redis_link.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A command between sending and its reply, in the order of sending. Its fiber may have left (`wait`
 * NULL): then whoever ends it frees it, else the fiber does. */
struct pending {
    struct pending *next;
    struct wait *wait;
    uint64_t due_ms; /* when the connection counts as dead without the reply */
    bool is_over;
    int code;
    char reason[160];
    struct reply reply;
};
/* A fiber that waits for a connection; on its stack. */
struct waiter {
    struct wait wait;
    struct waiter *next, **link;
};
struct redis {
    struct redis_link link;
    struct loop *loop;
    struct pending *first, **end;
    struct waiter *waiters;
    uint64_t connections; /* so far */
    unsigned users;       /* fibers inside redis_run, which may come back after the close */
    bool is_closed, is_hasty;
    struct timer watch; /* of the first pending command */
    void (*on_state)(void *arg, bool up);
    void *on_state_arg;
};

/* ---- Pending commands ---- */

static void pending_end(struct pending *pending, int code, const char *reason)
{
    pending->is_over = true;
    pending->code = code;
    if (!pending->wait) {
        reply_done(&pending->reply);
        free(pending);
        return;
    }
    snprintf(pending->reason, sizeof(pending->reason), "%.*s", (int)sizeof(pending->reason) - 1,
             reason);
    wait_wake(pending->wait, MR_OK);
}

static struct pending *pending_pop(struct redis *redis)
{
    struct pending *pending = redis->first;
    redis->first = pending->next;
    if (!redis->first)
        redis->end = &redis->first;
    return pending;
}

static void on_watch(struct timer *timer)
{
    struct redis *redis = timer->data;
    if (!redis->first)
        return;
    if (redis->first->due_ms <= clock_now_ms())
        link_drop(&redis->link, "no reply in time");
    else
        timer_start(timer, redis->loop, 1000, on_watch);
}

static struct pending *pending_new(struct redis *redis, struct wait *wait, uint64_t timeout_ms)
{
    struct pending *pending = mem_zalloc(sizeof(*pending));
    uint64_t least = redis_command_ms(&redis->link.config), now = clock_now_ms();
    if (timeout_ms < least)
        timeout_ms = least;
    pending->wait = wait;
    pending->due_ms = timeout_ms < UINT64_MAX - now ? now + timeout_ms : UINT64_MAX;
    *redis->end = pending;
    redis->end = &pending->next;
    if (!timer_is_running(&redis->watch))
        timer_start(&redis->watch, redis->loop, 1000, on_watch);
    return pending;
}

static void end_all(struct redis *redis, int code, const char *reason)
{
    while (redis->first)
        pending_end(pending_pop(redis), code, reason);
    timer_stop(&redis->watch);
}

static void wake_waiters(struct redis *redis, int code)
{
    while (redis->waiters) {
        struct waiter *waiter = redis->waiters;
        redis->waiters = waiter->next;
        if (waiter->next)
            waiter->next->link = &redis->waiters;
        waiter->link = NULL;
        wait_wake(&waiter->wait, code);
    }
}

/* ---- What the connection tells ---- */

static void on_up(void *arg)
{
    struct redis *redis = arg;
    redis->connections++;
    if (redis->on_state)
        redis->on_state(redis->on_state_arg, true);
    wake_waiters(redis, MR_OK);
}

static void on_down(void *arg)
{
    struct redis *redis = arg;
    end_all(redis, MR_E_STORE, redis->link.reason);
    if (redis->on_state)
        redis->on_state(redis->on_state_arg, false);
}

static void on_reply(void *arg, redisReply *reply)
{
    struct redis *redis = arg;
    if (!redis->first) {
        freeReplyObject(reply);
        link_drop(&redis->link, "a reply without a command");
        return;
    }
    struct pending *pending = pending_pop(redis);
    char demoted[160] = "";
    if (reply->type == REDIS_REPLY_ERROR && reply->str && link_error_is_demoted(reply->str))
        snprintf(demoted, sizeof(demoted), "%.150s", reply->str);
    if (pending->wait)
        link_take(reply, &pending->reply);
    else
        freeReplyObject(reply);
    pending_end(pending, MR_OK, "");
    if (demoted[0])
        link_drop(&redis->link, "%s", demoted);
}

struct redis *redis_open(struct loop *loop, const struct redis_config *config, const char *name)
{
    struct redis *redis = mem_zalloc(sizeof(*redis));
    redis->loop = loop;
    redis->end = &redis->first;
    redis->watch.data = redis;
    redis->link.arg = redis;
    redis->link.on_up = on_up;
    redis->link.on_down = on_down;
    redis->link.on_reply = on_reply;
    link_open(&redis->link, loop, config, name);
    return redis;
}

void redis_close(struct redis *redis)
{
    if (!redis)
        return;
    /* Fibers that wake now touch their pending command only, never `redis`. */
    end_all(redis, MR_E_STOPPING, "the connection was closed");
    wake_waiters(redis, MR_E_STOPPING);
    link_close(&redis->link);
    redis->is_closed = true;
    if (redis->users == 0)
        free(redis);
}

void redis_hurry(struct redis *redis)
{
    redis->is_hasty = true;
    wake_waiters(redis, MR_E_STORE);
}

bool redis_is_up(const struct redis *redis)
{
    return redis->link.state == LINK_UP;
}

const char *redis_reason(const struct redis *redis)
{
    return redis_is_up(redis) ? "" : redis->link.reason;
}

uint64_t redis_connection(const struct redis *redis)
{
    return redis_is_up(redis) ? redis->connections : 0;
}

void redis_on_state(struct redis *redis, void (*fn)(void *arg, bool up), void *arg)
{
    redis->on_state = fn;
    redis->on_state_arg = arg;
}

/* ---- Calls ---- */

static uint64_t left_of(uint64_t due_ms)
{
    uint64_t now = clock_now_ms();
    if (due_ms == UINT64_MAX)
        return UINT64_MAX;
    return due_ms > now ? due_ms - now : 0;
}

static uint64_t due_in(uint64_t ms)
{
    uint64_t now = clock_now_ms();
    return ms < UINT64_MAX - now ? now + ms : UINT64_MAX;
}

/* What the end of a wait that was not woken by us means. */
static int not_woken(struct redis *redis, const struct wait *wait, int code, bool was_sent,
                     struct error *err)
{
    if (!wait->expired && code != MR_E_TIMEOUT)
        return error_set(err, code, "ended while waiting for Redis");
    if (!wait->expired && scope_error(wait->scope) == code)
        return error_set(err, code, "out of time while waiting for Redis");
    error_set(err, MR_E_STORE, "Redis at %s does not answer", redis->link.address);
    error_detail(err, "%s; %s", was_sent ? "sent, outcome unknown" : "not sent",
                 redis->link.reason[0] ? redis->link.reason : "no reply in time");
    return MR_E_STORE;
}

static int wait_until_up(struct redis *redis, uint64_t due_ms, struct error *err)
{
    if (redis_is_up(redis))
        return MR_OK;
    if (redis->is_hasty)
        return error_set(err, MR_E_STORE, "no connection to Redis at %s", redis->link.address);
    struct waiter waiter = {0};
    wait_init(&waiter.wait, redis->loop);
    waiter.next = redis->waiters;
    waiter.link = &redis->waiters;
    if (waiter.next)
        waiter.next->link = &waiter.next;
    redis->waiters = &waiter;
    int rc = wait_for(&waiter.wait, left_of(due_ms));
    if (waiter.link) {
        *waiter.link = waiter.next;
        if (waiter.next)
            waiter.next->link = waiter.link;
        return not_woken(redis, &waiter.wait, rc, false, err);
    }
    if (rc == MR_E_STOPPING)
        return error_set(err, rc, "the connection to Redis was closed");
    return rc == MR_OK ? MR_OK : error_set(err, rc, "ended while waiting for Redis");
}

/* Sends and waits; REPLY_ERROR is MR_OK here. */
static int call(struct redis *redis, size_t argc, const struct arg *argv, uint64_t due_ms,
                struct reply *ret_reply, struct error *err)
{
    for (;;) {
        int rc = wait_until_up(redis, due_ms, err);
        if (rc != MR_OK)
            return rc;
        if (redis_is_up(redis))
            break; /* else it went down again before this fiber ran */
    }
    struct wait wait;
    wait_init(&wait, redis->loop);
    struct pending *pending = pending_new(redis, &wait, left_of(due_ms));
    link_send(&redis->link, argc, argv);
    int rc = wait_for(&wait, left_of(due_ms));
    if (!pending->is_over) {
        pending->wait = NULL;
        return not_woken(redis, &wait, rc, true, err);
    }
    rc = pending->code;
    if (rc == MR_OK) {
        *ret_reply = pending->reply;
    } else {
        error_set(err, rc, rc == MR_E_STORE ? "the connection to Redis broke" : "stopping");
        error_detail(err, "sent, outcome unknown; %s", pending->reason);
        reply_done(&pending->reply);
    }
    free(pending);
    return rc;
}

static uint64_t limit_of(const struct redis *redis, uint64_t timeout_ms)
{
    return timeout_ms ? timeout_ms : redis_command_ms(&redis->link.config);
}

int redis_call(struct redis *redis, size_t argc, const struct arg *argv, uint64_t timeout_ms,
               struct reply *ret_reply, struct error *err)
{
    struct reply reply;
    int rc = call(redis, argc, argv, due_in(limit_of(redis, timeout_ms)), &reply, err);
    if (rc != MR_OK)
        return rc;
    if (reply.type == REPLY_ERROR) {
        char what[32];
        snprintf(what, sizeof(what), "%.*s", (int)(argv[0].len < 31 ? argv[0].len : 31),
                 argv[0].data);
        rc = link_refused(what, reply.text, err);
        reply_done(&reply);
        return rc;
    }
    *ret_reply = reply;
    return MR_OK;
}

int redis_command(struct redis *redis, struct reply *ret_reply, struct error *err, ...)
{
    struct arg argv[16];
    size_t argc = 0;
    va_list args;
    va_start(args, err);
    for (const char *word; (word = va_arg(args, const char *));) {
        if (argc == sizeof(argv) / sizeof(*argv)) {
            va_end(args);
            return error_set(err, MR_E_INTERNAL, "a command of more than %zu words", argc);
        }
        argv[argc++] = arg_text(word);
    }
    va_end(args);
    return redis_call(redis, argc, argv, 0, ret_reply, err);
}

/* ---- Scripts ---- */

#define LOAD_LOOK_MS 10u /* between looks at somebody else's load */

static int load(struct redis *redis, struct redis_script *script, uint64_t due_ms,
                struct reply *ret_reply, struct error *err)
{
    struct arg argv[3] = {arg_text("SCRIPT"), arg_text("LOAD"), arg_text(script->text)};
    script->is_loading = true;
    int rc = call(redis, 3, argv, due_ms, ret_reply, err);
    script->is_loading = false;
    if (rc != MR_OK || ret_reply->type == REPLY_ERROR)
        return rc;
    script->loads++;
    if (ret_reply->type != REPLY_TEXT || ret_reply->len != 40) {
        reply_done(ret_reply);
        return error_set(err, MR_E_INTERNAL, "SCRIPT LOAD of %s gave no digest", script->name);
    }
    memcpy(script->sha, ret_reply->text, 41);
    reply_done(ret_reply);
    return MR_OK;
}

static int run(struct redis *redis, struct redis_script *script, size_t keys, const struct arg *key,
               size_t argc, const struct arg *argv, uint64_t timeout_ms, struct reply *ret_reply,
               struct error *err)
{
    uint64_t limit_ms = limit_of(redis, timeout_ms), due_ms = due_in(limit_ms), pause_ms = 20;
    struct arg few[64];
    mem_auto struct arg *many =
        keys + argc + 3 > 64 ? mem_alloc((keys + argc + 3) * sizeof(*many)) : NULL;
    struct arg *words = many ? many : few;
    char slot[24];
    for (;;) {
        /* One fiber loads a script, the others wait for it: a server that was restarted knows none,
         * and ten thousand lanes would send it ten thousand times. */
        while (!script->sha[0] && script->is_loading) {
            int waited = wait_sleep(redis->loop, LOAD_LOOK_MS);
            if (waited != MR_OK)
                return error_set(err, waited, "ended while waiting for Redis");
            if (redis->is_closed)
                return error_set(err, MR_E_STOPPING, "the connection to Redis was closed");
            if (left_of(due_ms) == 0) {
                error_set(err, MR_E_STORE, "Redis at %s does not answer", redis->link.address);
                error_detail(err, "not sent; %s", redis->link.reason);
                return MR_E_STORE;
            }
        }
        struct reply reply = {.type = REPLY_NIL};
        /* One attempt never takes longer than command_ms: a connection that hangs is dropped, and
         * a call without a limit goes on over the next one. */
        uint64_t try_ms = due_in(limit_of(redis, 0));
        if (try_ms > due_ms)
            try_ms = due_ms;
        int rc = script->sha[0] ? MR_OK : load(redis, script, try_ms, &reply, err);
        uint32_t loads = script->loads;
        if (rc == MR_OK && reply.type != REPLY_ERROR) {
            size_t count = link_evalsha(words, slot, script, keys, key, argc, argv);
            rc = call(redis, count, words, try_ms, &reply, err);
        }
        if (rc == MR_OK && reply.type != REPLY_ERROR) {
            *ret_reply = reply;
            return MR_OK;
        }
        bool again = rc == MR_E_STORE;
        if (rc == MR_OK) {
            enum script_error kind = link_script_error(reply.text);
            if (kind == SCRIPT_UNKNOWN) {
                reply_done(&reply);
                if (script->loads == loads) /* else somebody has loaded it meanwhile */
                    script->sha[0] = '\0';
                continue;
            }
            rc = kind == SCRIPT_BUG ? MR_E_INTERNAL : MR_E_STORE;
            if (kind == SCRIPT_BUG)
                error_set(err, rc, "Redis refused script %s: %.300s", script->name, reply.text);
            else
                link_refused(script->name, reply.text, err);
            reply_done(&reply);
            again = kind == SCRIPT_BUSY || (kind == SCRIPT_REFUSED && limit_ms == UINT64_MAX);
        }
        if (!again || redis->is_hasty || left_of(due_ms) <= pause_ms)
            return rc;
        int slept = wait_sleep(redis->loop, pause_ms);
        if (slept != MR_OK)
            return error_set(err, slept, "ended while waiting for Redis");
        if (redis->is_closed)
            return error_set(err, MR_E_STOPPING, "the connection to Redis was closed");
        pause_ms = pause_ms < 500 ? pause_ms * 2 : 1000;
    }
}

int redis_run(struct redis *redis, struct redis_script *script, size_t keys, const struct arg *key,
              size_t argc, const struct arg *argv, uint64_t timeout_ms, struct reply *ret_reply,
              struct error *err)
{
    redis->users++;
    int rc = run(redis, script, keys, key, argc, argv, timeout_ms, ret_reply, err);
    if (--redis->users == 0 && redis->is_closed)
        free(redis);
    return rc;
}
