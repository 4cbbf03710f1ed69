#include "io/redis_sync.h"
#include "base/clock.h"
#include "base/mem.h"
#include "io/redis_link.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>

struct redis_sync {
    struct redis_config config;
    char *name;
    redisContext *context; /* NULL: not connected */
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

static int broken(struct redis_sync *sync, bool was_sent, struct error *err)
{
    mem_auto char *address = redis_address(&sync->config);
    error_set(err, MR_E_STORE,
              was_sent ? "the connection to Redis at %s broke" : "Redis at %s is away", address);
    error_detail(err, "%s; %s", was_sent ? "sent, outcome unknown" : "not sent",
                 sync->context ? sync->context->errstr : "no connection");
    hang_up(sync);
    return MR_E_STORE;
}

/* Sends one command and reads its reply; on errors the connection is gone. REPLY_ERROR is MR_OK. */
static int exchange(struct redis_sync *sync, size_t argc, const struct arg *argv, uint64_t due_ms,
                    struct reply *ret_reply, struct error *err)
{
    void *reply = NULL;
    redisSetTimeout(sync->context, timeval_of(left_of(due_ms)));
    if (link_append(sync->context, argc, argv) != REDIS_OK)
        return broken(sync, false, err);
    if (redisGetReply(sync->context, &reply) != REDIS_OK || !reply)
        return broken(sync, true, err);
    link_take(reply, ret_reply);
    return MR_OK;
}

static int greet(struct redis_sync *sync, uint64_t due_ms, struct error *err)
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
    struct arg ping[1] = {arg_text("PING")};
    struct {
        size_t argc;
        const struct arg *argv;
    } steps[] = {{config->password ? auth_count : 0, auth},
                 {config->db ? 2u : 0u, select},
                 {3, name},
                 {1, ping}};
    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        if (steps[i].argc == 0)
            continue;
        struct reply reply = {0};
        int rc = exchange(sync, steps[i].argc, steps[i].argv, due_ms, &reply, err);
        if (rc != MR_OK)
            return rc;
        if (reply.type == REPLY_ERROR && steps[i].argv != name) {
            error_set(err, MR_E_STORE, "Redis refused the connection: %.300s", reply.text);
            error_detail(err, "not sent");
            reply_done(&reply);
            hang_up(sync);
            return MR_E_STORE;
        }
        reply_done(&reply);
    }
    return MR_OK;
}

static int connect_sync(struct redis_sync *sync, uint64_t due_ms, struct error *err)
{
    if (sync->context)
        return MR_OK;
    uint64_t limit = redis_connect_ms(&sync->config), left = left_of(due_ms);
    struct timeval time = timeval_of(left < limit ? left : limit);
    sync->context = sync->config.path
                        ? redisConnectUnixWithTimeout(sync->config.path, time)
                        : redisConnectWithTimeout(sync->config.host, sync->config.port, time);
    if (!sync->context || sync->context->err)
        return broken(sync, false, err);
    if (!sync->config.path)
        redisEnableKeepAlive(sync->context);
    return greet(sync, due_ms, err);
}

static int call(struct redis_sync *sync, size_t argc, const struct arg *argv, uint64_t due_ms,
                struct reply *ret_reply, struct error *err)
{
    int rc = connect_sync(sync, due_ms, err);
    return rc == MR_OK ? exchange(sync, argc, argv, due_ms, ret_reply, err) : rc;
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
        error_set(err, MR_E_STORE, "Redis refused %.*s: %.300s", (int)argv[0].len, argv[0].data,
                  reply.text);
        error_detail(err, "answered");
        reply_done(&reply);
        return MR_E_STORE;
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
    /* After a lost reply once more at once, over a new connection; its failure is the answer. */
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
            rc = error_set(err, kind == SCRIPT_BUG ? MR_E_INTERNAL : MR_E_STORE,
                           "Redis refused script %s: %.300s", script->name, reply.text);
            error_detail(err, "answered");
            reply_done(&reply);
            return rc;
        }
        if (lost++ > 0 || left_of(due_ms) == 0)
            return rc;
    }
}
