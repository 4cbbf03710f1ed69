#include "io/redis_sync.h"
#include "base/clock.h"
#include "base/mem.h"
#include "io/redis_lookup.h"
#include "io/redis_sentinel.h"
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PAUSE_MS    200  /* between rounds of asking sentinels */
#define SYNC_ASK_MS 2000 /* between looks for a switch */

struct redis_sync {
    struct redis_config config;
    char *name;
    redisContext *context;       /* NULL: not connected */
    size_t sentinel;             /* the one to ask first */
    char host[REDIS_HOST_BYTES]; /* where the sentinels said the server is */
    int port;
    uint64_t asked_ms; /* when */
    unsigned attempts; /* which of several addresses of a name is taken */
};

struct redis_sync *redis_sync_open(const struct redis_config *config, const char *name)
{
    struct sigaction old;
    if (sigaction(SIGPIPE, NULL, &old) == 0 && old.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
    struct redis_sync *sync = mem_zalloc(sizeof(*sync));
    redis_config_copy(config, &sync->config);
    sync->name = mem_dup(name);
    return sync;
}

static void hang_up(struct redis_sync *sync)
{
    if (sync->context)
        redisFree(sync->context);
    sync->context = NULL;
}

void redis_sync_close(struct redis_sync *sync)
{
    if (!sync)
        return;
    hang_up(sync);
    redis_config_done(&sync->config);
    free(sync->name);
    free(sync);
}

static uint64_t left_of(uint64_t due_ms)
{
    uint64_t now = clock_now_ms();
    return due_ms > now ? due_ms - now : 0;
}

static struct timeval timeval_of(uint64_t ms)
{
    if (ms == 0)
        ms = 1; /* 0 would mean: no limit */
    return (struct timeval){(time_t)(ms / 1000), (suseconds_t)(ms % 1000 * 1000)};
}

/* Nothing was sent: no connection to be had. */
static int away(struct redis_sync *sync, const char *why, struct error *err)
{
    mem_auto char *address = redis_address(&sync->config);
    error_set(err, MR_E_STORE, "Redis at %s is away", address);
    error_detail(err, "not sent; %s", why);
    hang_up(sync);
    return MR_E_STORE;
}

static int broken(struct redis_sync *sync, struct error *err)
{
    mem_auto char *address = redis_address(&sync->config);
    error_set(err, MR_E_STORE, "the connection to Redis at %s broke", address);
    error_detail(err, "sent, outcome unknown; %s", sync->context->errstr);
    hang_up(sync);
    return MR_E_STORE;
}

/* The next reply; NULL with the reason in errstr. (A reply that comes byte by byte takes longer:
 * the time is the socket's, for each read.) */
static redisReply *reply_get(redisContext *context, uint64_t due_ms)
{
    void *reply = NULL;
    redisSetTimeout(context, timeval_of(left_of(due_ms)));
    return redisGetReply(context, &reply) == REDIS_OK ? reply : NULL;
}

/* Sends one command and reads its reply; on errors the connection is gone. REPLY_ERROR is MR_OK. */
static int exchange(struct redis_sync *sync, size_t argc, const struct arg *argv, uint64_t due_ms,
                    struct reply *ret_reply, struct error *err)
{
    if (link_append(sync->context, argc, argv) != REDIS_OK)
        return broken(sync, err);
    redisReply *reply = reply_get(sync->context, due_ms);
    if (!reply)
        return broken(sync, err);
    link_take(reply, ret_reply);
    return MR_OK;
}

/* ---- Connecting ---- */

/* A connection to an address or a name; NULL with why. */
static redisContext *dial(struct redis_sync *sync, const char *host, int port, uint64_t due_ms,
                          char *why, size_t size)
{
    struct lookup found = {.count = 1};
    struct error err = {0};
    if (lookup_is_address(host)) {
        snprintf(found.addresses[0], LOOKUP_BYTES, "%s", host);
    } else {
        int fd = lookup_start(host, &err);
        if (fd >= 0) {
            struct pollfd ready = {.fd = fd, .events = POLLIN};
            uint64_t left = left_of(due_ms);
            if (poll(&ready, 1, (int)(left < 60000 ? left : 60000)) == 1)
                lookup_read(fd, &found, &err);
            else
                error_set(&err, MR_E_CONNECT, "no address in time");
            close(fd);
        }
        if (err.code != MR_OK) {
            snprintf(why, size, "%.60s: %.90s", host, err.message);
            return NULL;
        }
    }
    const char *address = found.addresses[sync->attempts++ % found.count];
    redisContext *context = redisConnectWithTimeout(address, port, timeval_of(left_of(due_ms)));
    if (context && !context->err)
        return context;
    snprintf(why, size, "%.60s: %.90s", host, context ? context->errstr : "out of memory");
    if (context)
        redisFree(context);
    return NULL;
}

/* One sentinel's word for where the master is. */
static bool ask_sentinel(struct redis_sync *sync, const struct redis_host *sentinel,
                         uint64_t due_ms, char ret_host[REDIS_HOST_BYTES], int *ret_port, char *why,
                         size_t size)
{
    uint64_t limit = clock_now_ms() + SENTINEL_MS;
    if (limit > due_ms)
        limit = due_ms;
    redisContext *context = dial(sync, sentinel->host, sentinel->port, limit, why, size);
    if (!context)
        return false;
    bool is_good = true, is_last = false;
    for (unsigned left = sentinel_ask(context, &sync->config); is_good && left > 0; left--) {
        redisReply *reply = reply_get(context, limit);
        is_last = left == 1;
        if (!reply)
            snprintf(why, size, "sentinel %.60s: %.80s", sentinel->host, context->errstr);
        is_good = reply && (!(is_last || reply->type == REDIS_REPLY_ERROR) ||
                            sentinel_answer(reply, &sync->config, ret_host, ret_port, why, size));
        if (reply)
            freeReplyObject(reply);
    }
    redisFree(context);
    return is_good && is_last;
}

/* The server to greet: as configured, or who the first sentinel that knows says it is. A server
 * that turned out to be no master makes the next call begin with the next sentinel. */
static redisContext *find_server(struct redis_sync *sync, uint64_t due_ms, char *why, size_t size)
{
    const struct redis_config *config = &sync->config;
    char host[REDIS_HOST_BYTES] = "";
    int port = config->port;
    if (config->path) {
        redisContext *context =
            redisConnectUnixWithTimeout(config->path, timeval_of(left_of(due_ms)));
        if (context && !context->err)
            return context;
        snprintf(why, size, "%s", context ? context->errstr : "out of memory");
        if (context)
            redisFree(context);
        return NULL;
    }
    bool is_known = config->sentinel_count == 0;
    if (is_known)
        snprintf(host, sizeof(host), "%s", config->host);
    for (size_t i = 0; i < config->sentinel_count && !is_known && left_of(due_ms) > 0; i++) {
        const struct redis_host *sentinel = &config->sentinels[sync->sentinel];
        is_known = ask_sentinel(sync, sentinel, due_ms, host, &port, why, size);
        if (!is_known)
            sync->sentinel = (sync->sentinel + 1) % config->sentinel_count;
    }
    snprintf(sync->host, sizeof(sync->host), "%s", host);
    sync->port = port;
    sync->asked_ms = clock_now_ms();
    redisContext *context = is_known ? dial(sync, host, port, due_ms, why, size) : NULL;
    if (context)
        redisEnableKeepAlive(context);
    else if (is_known && config->sentinel_count > 0)
        sync->sentinel = (sync->sentinel + 1) % config->sentinel_count;
    return context;
}

/* AUTH, SELECT, SETNAME, ROLE where sentinels are asked, PING; false with why. */
static bool greet(struct redis_sync *sync, uint64_t due_ms, char *why, size_t size)
{
    const struct redis_config *config = &sync->config;
    char slot[24];
    struct arg auth[3] = {arg_text("AUTH")};
    size_t auth_count = 1;
    if (config->password) {
        if (config->user)
            auth[auth_count++] = arg_text(config->user);
        auth[auth_count++] = arg_text(config->password);
    }
    struct arg select[2] = {arg_text("SELECT"), arg_int(slot, config->db)};
    struct arg name[3] = {arg_text("CLIENT"), arg_text("SETNAME"), arg_text(sync->name)};
    struct arg role[1] = {arg_text("ROLE")}, ping[1] = {arg_text("PING")};
    const struct {
        size_t argc;
        const struct arg *argv;
    } steps[] = {{config->password ? auth_count : 0, auth},
                 {config->db ? 2u : 0u, select},
                 {3, name},
                 {config->sentinel_count ? 1u : 0u, role},
                 {1, ping}};
    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        if (steps[i].argc == 0)
            continue;
        redisReply *reply = NULL;
        if (link_append(sync->context, steps[i].argc, steps[i].argv) == REDIS_OK)
            reply = reply_get(sync->context, due_ms);
        if (!reply) {
            snprintf(why, size, "%s", sync->context->errstr);
            return false;
        }
        bool is_good = reply->type != REDIS_REPLY_ERROR || steps[i].argv == name;
        if (!is_good)
            snprintf(why, size, "%.150s", reply->str ? reply->str : "");
        else if (steps[i].argv == role)
            is_good = sentinel_is_master(reply, why, size);
        freeReplyObject(reply);
        if (!is_good)
            return false;
    }
    return true;
}

/* One round: a server and its greeting. */
static bool connect_once(struct redis_sync *sync, uint64_t due_ms, char *why, size_t size)
{
    uint64_t limit = clock_now_ms() + redis_connect_ms(&sync->config);
    if (limit > due_ms)
        limit = due_ms;
    sync->context = find_server(sync, limit, why, size);
    if (!sync->context)
        return false;
    if (greet(sync, limit, why, size))
        return true;
    if (sync->config.sentinel_count > 0)
        sync->sentinel = (sync->sentinel + 1) % sync->config.sentinel_count;
    hang_up(sync);
    return false;
}

/* As redis_switch.h does on the loop: leaves a server that is no longer the sentinels' master. They
 * are asked at most every SYNC_ASK_MS, for half of the call's time; one that does not know or
 * answer is passed over. */
static void look_for_switch(struct redis_sync *sync, uint64_t due_ms)
{
    uint64_t now = clock_now_ms();
    if (!sync->context || sync->config.sentinel_count == 0 || now - sync->asked_ms < SYNC_ASK_MS)
        return;
    char host[REDIS_HOST_BYTES] = "", why[160];
    int port = 0;
    sync->asked_ms = now;
    if (!ask_sentinel(sync, &sync->config.sentinels[sync->sentinel], now + left_of(due_ms) / 2,
                      host, &port, why, sizeof(why)))
        sync->sentinel = (sync->sentinel + 1) % sync->config.sentinel_count;
    else if (port != sync->port || strcmp(host, sync->host) != 0)
        hang_up(sync);
}

/* Sentinels are asked round after round while there is time: a failover takes a while. */
static int connect_sync(struct redis_sync *sync, uint64_t due_ms, struct error *err)
{
    if (sync->context)
        return MR_OK;
    char why[160] = "no connection";
    while (!connect_once(sync, due_ms, why, sizeof(why))) {
        if (sync->config.sentinel_count == 0 || left_of(due_ms) <= PAUSE_MS)
            return away(sync, why, err);
        poll(NULL, 0, PAUSE_MS);
    }
    return MR_OK;
}

static int call(struct redis_sync *sync, size_t argc, const struct arg *argv, uint64_t due_ms,
                struct reply *ret_reply, struct error *err)
{
    look_for_switch(sync, due_ms);
    int rc = connect_sync(sync, due_ms, err);
    if (rc == MR_OK)
        rc = exchange(sync, argc, argv, due_ms, ret_reply, err);
    if (rc == MR_OK && ret_reply->type == REPLY_ERROR && link_error_is_demoted(ret_reply->text))
        hang_up(sync); /* the next call finds whoever is the master then */
    return rc;
}

static uint64_t due_in(const struct redis_sync *sync, uint64_t timeout_ms)
{
    return clock_now_ms() + (timeout_ms ? timeout_ms : redis_command_ms(&sync->config));
}

int redis_sync_call(struct redis_sync *sync, size_t argc, const struct arg *argv,
                    uint64_t timeout_ms, struct reply *ret_reply, struct error *err)
{
    struct reply reply;
    int rc = call(sync, argc, argv, due_in(sync, timeout_ms), &reply, err);
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

int redis_sync_run(struct redis_sync *sync, struct redis_script *script, size_t keys,
                   const struct arg *key, size_t argc, const struct arg *argv, uint64_t timeout_ms,
                   struct reply *ret_reply, struct error *err)
{
    uint64_t due_ms = due_in(sync, timeout_ms);
    mem_auto struct arg *words = mem_alloc((keys + argc + 3) * sizeof(*words));
    char slot[24];
    /* After a lost reply, or from a server that was demoted, once more at once, over a new
     * connection; its failure is the answer. */
    for (unsigned lost = 0;;) {
        struct reply reply = {.type = REPLY_NIL};
        int rc = MR_OK;
        if (!script->sha[0]) {
            struct arg load[3] = {arg_text("SCRIPT"), arg_text("LOAD"), arg_text(script->text)};
            rc = call(sync, 3, load, due_ms, &reply, err);
            if (rc == MR_OK && reply.type == REPLY_TEXT && reply.len == 40)
                memcpy(script->sha, reply.text, 41);
            if (rc == MR_OK && reply.type != REPLY_ERROR)
                reply_done(&reply);
        }
        if (rc == MR_OK && reply.type != REPLY_ERROR) {
            size_t count = link_evalsha(words, slot, script, keys, key, argc, argv);
            rc = call(sync, count, words, due_ms, &reply, err);
        }
        if (rc == MR_OK && reply.type != REPLY_ERROR) {
            *ret_reply = reply;
            return MR_OK;
        }
        if (rc == MR_OK) {
            enum script_error kind = link_script_error(reply.text);
            if (kind == SCRIPT_UNKNOWN) {
                script->sha[0] = '\0';
                reply_done(&reply);
                continue;
            }
            bool is_demoted = link_error_is_demoted(reply.text);
            rc = kind == SCRIPT_BUG ? MR_E_INTERNAL : MR_E_STORE;
            if (kind == SCRIPT_BUG)
                error_set(err, rc, "Redis refused script %s: %.300s", script->name, reply.text);
            else
                link_refused(script->name, reply.text, err);
            reply_done(&reply);
            if (!is_demoted)
                return rc;
        }
        if (lost++ > 0 || left_of(due_ms) == 0)
            return rc;
    }
}
