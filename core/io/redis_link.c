#include "io/redis_link.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKOFF_FIRST_MS 50u
#define BACKOFF_MAX_MS   2000u

static void on_poll(void *arg, int status, int events);
static void on_timer(struct timer *timer);

/* hiredis writes with write(2): a broken connection must not end the process. */
static void ignore_sigpipe(void)
{
    struct sigaction old;
    if (sigaction(SIGPIPE, NULL, &old) == 0 && old.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
}

static void link_connect(struct redis_link *link)
{
    const struct redis_config *config = &link->config;
    redisContext *context = config->path ? redisConnectUnixNonBlock(config->path)
                                         : redisConnectNonBlock(config->host, config->port);
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
    if (!config->path) {
        int on = 1;
        setsockopt(context->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        redisEnableKeepAlive(context);
    }
    link->poll = poll_open(link->loop, context->fd, on_poll, link);
    if (!link->poll || poll_set(link->poll, UV_READABLE | UV_WRITABLE) != MR_OK) {
        link_drop(link, "the connection cannot be watched");
        return;
    }
    timer_start(&link->timer, link->loop, redis_connect_ms(config), on_timer);
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
    link->timer.data = link;
    snprintf(link->reason, sizeof(link->reason), "not connected yet");
    timer_start(&link->timer, loop, 0, on_timer);
}

static void link_shut(struct redis_link *link)
{
    timer_stop(&link->timer);
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
    redis_config_done(&link->config);
    free(link->name);
    free(link->address);
    link->name = link->address = NULL;
}

void link_drop(struct redis_link *link, const char *format, ...)
{
    bool was_up = link->state == LINK_UP;
    va_list args;
    va_start(args, format);
    vsnprintf(link->reason, sizeof(link->reason), format, args);
    va_end(args);
    link_shut(link);
    /* Half of the time is random, so that processes do not come back together. */
    uint64_t most = BACKOFF_FIRST_MS;
    for (unsigned i = 0; i < link->failures && most < BACKOFF_MAX_MS; i++)
        most *= 2;
    if (most > BACKOFF_MAX_MS)
        most = BACKOFF_MAX_MS;
    uint16_t dice;
    hash_random(&dice, sizeof(dice));
    uint64_t delay = most / 2 + most * dice / (2 * 65536);
    link->failures++;
    if (was_up || link->failures == 1)
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
        link_connect(link);
    else
        link_drop(link, "no answer within %llu ms",
                  (unsigned long long)redis_connect_ms(&link->config));
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
static void link_greet(struct redis_link *link)
{
    const struct redis_config *config = &link->config;
    link->state = LINK_GREETING;
    link->greetings = 0;
    if (config->password) {
        struct arg argv[3] = {arg_text("AUTH")};
        size_t argc = 1;
        if (config->user)
            argv[argc++] = arg_text(config->user);
        argv[argc++] = arg_text(config->password);
        link_send(link, argc, argv);
        link->greetings++;
    }
    if (config->db != 0) {
        char slot[24];
        struct arg argv[2] = {arg_text("SELECT"), arg_int(slot, config->db)};
        link_send(link, 2, argv);
        link->greetings++;
    }
    struct arg name[3] = {arg_text("CLIENT"), arg_text("SETNAME"), arg_text(link->name)};
    link_send(link, 3, name);
    struct arg ping[1] = {arg_text("PING")};
    link_send(link, 1, ping);
    link->greetings += 2;
}

static void link_greeted(struct redis_link *link, redisReply *reply)
{
    bool is_name = link->greetings == 2;
    link->greetings--;
    if (reply->type == REDIS_REPLY_ERROR && !is_name) {
        char text[160];
        snprintf(text, sizeof(text), "%.150s", reply->str ? reply->str : "");
        freeReplyObject(reply);
        link_drop(link, "%s", text);
        return;
    }
    freeReplyObject(reply);
    if (link->greetings > 0)
        return;
    timer_stop(&link->timer);
    link->state = LINK_UP;
    if (link->failures > 0)
        log_event(LOG_INFO, "connected to Redis", "connection", link->name, NULL);
    link->failures = 0;
    link->reason[0] = '\0';
    link->on_up(link->arg);
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
        if (link->state == LINK_GREETING)
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
        link_greet(link);
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

/* Replies and words */

void link_take(redisReply *from, struct reply *ret)
{
    *ret = (struct reply){.type = REPLY_NIL};
    switch (from->type) {
    case REDIS_REPLY_INTEGER:
        ret->type = REPLY_INT;
        ret->integer = from->integer;
        break;
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
    case REDIS_REPLY_ERROR:
        ret->type = from->type == REDIS_REPLY_STRING   ? REPLY_TEXT
                    : from->type == REDIS_REPLY_STATUS ? REPLY_STATUS
                                                       : REPLY_ERROR;
        ret->text = from->str; /* malloc'ed and NUL-ended by hiredis */
        ret->len = (size_t)from->len;
        from->str = NULL;
        break;
    case REDIS_REPLY_ARRAY:
        ret->type = REPLY_ARRAY;
        ret->count = from->elements;
        if (ret->count > 0)
            ret->items = mem_alloc(ret->count * sizeof(*ret->items));
        for (size_t i = 0; i < ret->count; i++) {
            link_take(from->element[i], &ret->items[i]);
            from->element[i] = NULL;
        }
        break;
    default:
        break;
    }
    freeReplyObject(from);
}

void reply_done(struct reply *reply)
{
    free(reply->text);
    for (size_t i = 0; i < reply->count; i++)
        reply_done(&reply->items[i]);
    free(reply->items);
    *reply = (struct reply){.type = REPLY_NIL};
}

struct arg arg_text(const char *text)
{
    return (struct arg){text, strlen(text)};
}

struct arg arg_int(char slot[24], int64_t value)
{
    int len = snprintf(slot, 24, "%lld", (long long)value);
    return (struct arg){slot, (size_t)len};
}

size_t link_evalsha(struct arg *ret, char slot[24], const struct redis_script *script, size_t keys,
                    const struct arg *key, size_t argc, const struct arg *argv)
{
    ret[0] = arg_text("EVALSHA");
    ret[1] = (struct arg){script->sha, 40};
    ret[2] = arg_int(slot, (int64_t)keys);
    for (size_t i = 0; i < keys; i++)
        ret[3 + i] = key[i];
    for (size_t i = 0; i < argc; i++)
        ret[3 + keys + i] = argv[i];
    return 3 + keys + argc;
}

enum script_error link_script_error(const char *text)
{
    static const char *const busy[] = {"LOADING",     "BUSY",       "READONLY",  "MASTERDOWN",
                                       "CLUSTERDOWN", "NOREPLICAS", "UNBLOCKED", "TRYAGAIN"};
    static const char *const refused[] = {"OOM", "MISCONF", "NOPERM", "NOAUTH"};
    /* An error that a command inside the script met may be wrapped: the word stands first in both
     * forms that servers use ("OOM …", "ERR … script: …, on @user_script:1: OOM …" is a bug). */
    if (strncmp(text, "NOSCRIPT", 8) == 0)
        return SCRIPT_UNKNOWN;
    for (size_t i = 0; i < sizeof(busy) / sizeof(*busy); i++)
        if (strncmp(text, busy[i], strlen(busy[i])) == 0)
            return SCRIPT_BUSY;
    for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++)
        if (strncmp(text, refused[i], strlen(refused[i])) == 0)
            return SCRIPT_REFUSED;
    return SCRIPT_BUG;
}
