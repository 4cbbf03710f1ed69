#include "io/redis_link.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/redis_lookup.h"
#include "io/redis_sentinel.h"
#include "io/redis_switch.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKOFF_FIRST_MS    50u
#define BACKOFF_MAX_MS      2000u
#define BACKOFF_SENTINEL_MS 500u /* a failover takes seconds: what comes after it should not */

static void on_poll(void *arg, int status, int events);
static void on_timer(struct timer *timer);

/* hiredis writes with write(2): a broken connection must not end the process. */
static void ignore_sigpipe(void)
{
    struct sigaction old;
    if (sigaction(SIGPIPE, NULL, &old) == 0 && old.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
}

/* Takes a context whose connection is under way. */
static void link_connecting(struct redis_link *link, redisContext *context)
{
    if (!context || context->err) {
        char why[128];
        snprintf(why, sizeof(why), "%s", context ? context->errstr : "out of memory");
        if (context)
            redisFree(context);
        link_drop(link, "%s", why);
        return;
    }
    link->context = context;
    link->state = LINK_CONNECTING;
    if (!link->config.path) {
        int on = 1;
        setsockopt(context->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        redisEnableKeepAlive(context);
    }
    link->poll = poll_open(link->loop, context->fd, on_poll, link);
    if (!link->poll || poll_set(link->poll, UV_READABLE | UV_WRITABLE) != MR_OK)
        link_drop(link, "the connection cannot be watched");
}

static void lookup_forget(struct redis_link *link)
{
    poll_close(link->poll);
    link->poll = NULL;
    close(link->lookup_fd);
    link->lookup_fd = -1;
}

static void on_lookup(void *arg, int status, int events)
{
    struct redis_link *link = arg;
    struct lookup found;
    struct error err = {0};
    (void)status;
    (void)events;
    int rc = lookup_read(link->lookup_fd, &found, &err);
    lookup_forget(link);
    if (rc != MR_OK)
        link_drop(link, "%s: %s", link->peer, err.message);
    else /* the next attempt takes the next address */
        link_connecting(link, redisConnectNonBlock(found.addresses[link->attempts % found.count],
                                                   link->peer_port));
}

/* Connects to `peer`; the limit counts from here. */
static void link_dial(struct redis_link *link)
{
    uint64_t limit_ms = redis_connect_ms(&link->config);
    if (link->to_sentinel && limit_ms > SENTINEL_MS)
        limit_ms = SENTINEL_MS;
    timer_start(&link->timer, link->loop, limit_ms, on_timer);
    link->attempts++;
    if (lookup_is_address(link->peer)) {
        link_connecting(link, redisConnectNonBlock(link->peer, link->peer_port));
        return;
    }
    struct error err = {0};
    link->state = LINK_LOOKUP;
    link->lookup_fd = lookup_start(link->peer, &err);
    if (link->lookup_fd < 0) {
        link_drop(link, "%s: %s", link->peer, err.message);
        return;
    }
    link->poll = poll_open(link->loop, link->lookup_fd, on_lookup, link);
    if (!link->poll || poll_set(link->poll, UV_READABLE) != MR_OK)
        link_drop(link, "the look-up cannot be watched");
}

/* The first step of an attempt, or the next sentinel of a round. */
static void link_begin(struct redis_link *link)
{
    const struct redis_config *config = &link->config;
    if (config->path) {
        timer_start(&link->timer, link->loop, redis_connect_ms(config), on_timer);
        link_connecting(link, redisConnectUnixNonBlock(config->path));
        return;
    }
    const struct redis_host *sentinel =
        config->sentinel_count > 0 ? &config->sentinels[link->sentinel] : NULL;
    link->to_sentinel = sentinel && !link->is_switch;
    snprintf(link->peer, sizeof(link->peer), "%s", sentinel ? sentinel->host : config->host);
    link->peer_port = sentinel ? sentinel->port : config->port;
    link_dial(link);
}

void link_open(struct redis_link *link, struct loop *loop, const struct redis_config *config,
               const char *name)
{
    ignore_sigpipe();
    link->loop = loop;
    redis_config_copy(config, &link->config);
    link->name = mem_dup(name);
    link->address = redis_address(config);
    link->state = LINK_DOWN;
    link->lookup_fd = -1;
    link->timer.data = link;
    snprintf(link->reason, sizeof(link->reason), "not connected yet");
    timer_start(&link->timer, loop, 0, on_timer);
    if (config->sentinel_count > 0 && !link->is_switch)
        link->watch = link_switch_open(link);
}

static void link_shut(struct redis_link *link)
{
    timer_stop(&link->timer);
    if (link->lookup_fd >= 0)
        lookup_forget(link);
    poll_close(link->poll);
    link->poll = NULL;
    if (link->context)
        redisFree(link->context);
    link->context = NULL;
    link->state = LINK_DOWN;
}

void link_close(struct redis_link *link)
{
    link_shut(link);
    link_switch_close(link->watch);
    link->watch = NULL;
    redis_config_done(&link->config);
    free(link->name);
    free(link->address);
    link->name = link->address = NULL;
}

/* Half of the time is random, so that processes do not come back together. */
static uint64_t link_backoff(const struct redis_link *link)
{
    uint64_t most = BACKOFF_FIRST_MS;
    uint64_t limit = link->config.sentinel_count ? BACKOFF_SENTINEL_MS : BACKOFF_MAX_MS;
    for (unsigned i = 0; i < link->failures && most < limit; i++)
        most *= 2;
    if (most > limit)
        most = limit;
    uint16_t dice;
    hash_random(&dice, sizeof(dice));
    return most / 2 + most * dice / (2 * 65536);
}

void link_drop(struct redis_link *link, const char *format, ...)
{
    bool was_up = link->state == LINK_UP;
    char why[160];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof(why), format, args);
    va_end(args);
    link_shut(link);
    if (link->config.sentinel_count > 0) {
        mem_auto char *peer = redis_host_text(link->peer, link->peer_port);
        snprintf(link->reason, sizeof(link->reason), "%s%.60s: %s",
                 link->to_sentinel ? "sentinel " : "", peer, why);
        /* Whoever failed, or sent us to a server that is no good, is asked last. */
        if (!was_up)
            link->sentinel = (link->sentinel + 1) % link->config.sentinel_count;
        if (link->to_sentinel && ++link->asked < link->config.sentinel_count) {
            timer_start(&link->timer, link->loop, 0, on_timer);
            return;
        }
        link->to_sentinel = false;
        link->asked = 0;
    } else {
        snprintf(link->reason, sizeof(link->reason), "%s", why);
    }
    uint64_t delay = link_backoff(link);
    link->failures++;
    if ((was_up || link->failures == 1) && !link->is_switch)
        log_event(LOG_WARN, "no connection to Redis", "connection", link->name, "address",
                  link->address, "reason", link->reason, NULL);
    timer_start(&link->timer, link->loop, delay, on_timer);
    if (was_up)
        link->on_down(link->arg);
}

static void on_timer(struct timer *timer)
{
    struct redis_link *link = timer->data;
    if (link->state == LINK_DOWN)
        link_begin(link);
    else
        link_drop(link, "no answer within %llu ms",
                  (unsigned long long)(link->to_sentinel ? SENTINEL_MS
                                                         : redis_connect_ms(&link->config)));
}

int link_append(redisContext *context, size_t argc, const struct arg *argv)
{
    const char *few[64], **data = few;
    size_t few_len[64] = {0}, *len = few_len;
    if (argc > 64) {
        data = mem_alloc(argc * sizeof(*data));
        len = mem_alloc(argc * sizeof(*len));
    }
    for (size_t i = 0; i < argc; i++) {
        data[i] = argv[i].data;
        len[i] = argv[i].len;
    }
    int rc = redisAppendCommandArgv(context, (int)argc, data, len);
    if (argc > 64) {
        free(data);
        free(len);
    }
    return rc;
}

void link_send(struct redis_link *link, size_t argc, const struct arg *argv)
{
    if (link_append(link->context, argc, argv) != REDIS_OK) {
        fprintf(stderr, "millrace: out of memory for a command\n");
        abort();
    }
    /* Written when the loop finds the socket writable: all commands of a turn in one write. */
    poll_set(link->poll, UV_READABLE | UV_WRITABLE);
}

/* Greeting: pipelined, PING last. A server that is still loading its data refuses the PING. */
static void greet(struct redis_link *link, enum link_greeting step, size_t argc,
                  const struct arg *argv)
{
    link_send(link, argc, argv);
    link->greetings[link->greeting_count++] = step;
}

static void link_greet(struct redis_link *link)
{
    const struct redis_config *config = &link->config;
    link->state = LINK_GREETING;
    link->greeting = link->greeting_count = 0;
    if (link->is_switch) {
        struct arg auth[2] = {arg_text("AUTH"), arg_text("")};
        struct arg hello[1] = {arg_text("PING")};
        if (config->sentinel_password) {
            auth[1] = arg_text(config->sentinel_password);
            greet(link, GREET_AUTH, 2, auth);
        }
        greet(link, GREET_PING, 1, hello);
        return;
    }
    if (config->password) {
        struct arg argv[3] = {arg_text("AUTH")};
        size_t argc = 1;
        if (config->user)
            argv[argc++] = arg_text(config->user);
        argv[argc++] = arg_text(config->password);
        greet(link, GREET_AUTH, argc, argv);
    }
    if (config->db != 0) {
        char slot[24];
        struct arg argv[2] = {arg_text("SELECT"), arg_int(slot, config->db)};
        greet(link, GREET_SELECT, 2, argv);
    }
    struct arg name[3] = {arg_text("CLIENT"), arg_text("SETNAME"), arg_text(link->name)};
    greet(link, GREET_NAME, 3, name);
    struct arg role[1] = {arg_text("ROLE")}, ping[1] = {arg_text("PING")};
    greet(link, GREET_ROLE, 1, role);
    greet(link, GREET_PING, 1, ping);
}

static void link_up(struct redis_link *link)
{
    timer_stop(&link->timer);
    link->state = LINK_UP;
    if (link->config.sentinel_count > 0) {
        mem_auto char *peer = redis_host_text(link->peer, link->peer_port);
        free(link->address);
        link->address = mem_format("%s (master %s)", peer, link->config.master);
    }
    if (link->failures > 0 && !link->is_switch)
        log_event(LOG_INFO, "connected to Redis", "connection", link->name, "address",
                  link->address, NULL);
    link->failures = 0;
    link->reason[0] = '\0';
    link->on_up(link->arg);
}

static void link_greeted(struct redis_link *link, redisReply *reply)
{
    enum link_greeting step = link->greetings[link->greeting++];
    char why[160] = "";
    /* A user that may not ask (ACL) is told by the first write. */
    bool may_pass = link->config.sentinel_count == 0 && reply->type == REDIS_REPLY_ERROR;
    if (step == GREET_ROLE && !may_pass)
        sentinel_is_master(reply, why, sizeof(why));
    else if (step == GREET_ROLE)
        why[0] = '\0';
    else if (reply->type == REDIS_REPLY_ERROR && step != GREET_NAME &&
             !(step == GREET_PING && strncmp(reply->str, "MISCONF", 7) == 0))
        snprintf(why, sizeof(why), "%.150s", reply->str ? reply->str : "");
    freeReplyObject(reply);
    if (why[0])
        link_drop(link, "%s", why);
    else if (link->greeting == link->greeting_count)
        link_up(link);
}

/* A sentinel's reply: the last one says where the master is. */
static void link_told(struct redis_link *link, redisReply *reply)
{
    char why[160] = "", host[REDIS_HOST_BYTES];
    int port = 0;
    bool is_last = ++link->greeting == link->greeting_count;
    if (is_last || reply->type == REDIS_REPLY_ERROR)
        sentinel_answer(reply, &link->config, host, &port, why, sizeof(why));
    freeReplyObject(reply);
    if (why[0]) {
        link_drop(link, "%s", why);
    } else if (is_last) {
        link_shut(link);
        link->to_sentinel = false;
        link->asked = 0;
        snprintf(link->peer, sizeof(link->peer), "%s", host);
        link->peer_port = port;
        link_dial(link);
    }
}

/* Gives out what the reader holds. */
static void link_replies(struct redis_link *link)
{
    redisContext *context = link->context;
    while (link->context == context) {
        void *reply = NULL;
        if (redisGetReplyFromReader(context, &reply) != REDIS_OK) {
            link_drop(link, "%s", context->errstr);
            return;
        }
        if (!reply)
            return;
        if (link->state == LINK_ASKING)
            link_told(link, reply);
        else if (link->state == LINK_GREETING)
            link_greeted(link, reply);
        else
            link->on_reply(link->arg, reply);
    }
}

static void on_poll(void *arg, int status, int events)
{
    struct redis_link *link = arg;
    redisContext *context = link->context;
    if (link->state == LINK_CONNECTING) {
        /* libuv's status only says that something is wrong, the socket says what. */
        int error = 0;
        socklen_t size = sizeof(error);
        if (getsockopt(context->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
            error = errno;
        if (error == 0 && status < 0)
            error = -status;
        if (error != 0) {
            link_drop(link, "%s", strerror(error));
            return;
        }
        if (!(events & UV_WRITABLE))
            return;
        if (link->to_sentinel) {
            link->state = LINK_ASKING;
            link->greeting = 0;
            link->greeting_count = sentinel_ask(context, &link->config);
        } else {
            link_greet(link);
        }
    }
    if (status < 0) {
        link_drop(link, "%s", strerror(-status));
        return;
    }
    if (events & UV_WRITABLE) {
        int done = 0;
        if (redisBufferWrite(context, &done) != REDIS_OK) {
            /* What the server said last (why it closes) may still be readable. */
            link_drop(link, "%s", context->errstr);
            return;
        }
        if (done)
            poll_set(link->poll, UV_READABLE);
    }
    if (events & UV_READABLE) {
        if (redisBufferRead(context) != REDIS_OK) {
            link_drop(link, "%s", context->errstr);
            return;
        }
        link->read_ms = clock_now_ms();
        link_replies(link);
    }
}
