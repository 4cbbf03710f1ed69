/* One connection to Redis that comes back by itself: connect, greeting (AUTH, SELECT, SETNAME,
 * PING), bytes out and replies in, reconnect. For redis.c and redis_sub.c only.
 *
 * hiredis is used for the protocol alone (its command formatter, output buffer and reply reader);
 * connecting, waiting for the socket, time-outs and the order of replies are ours. Its asynchronous
 * API is not used: in 0.14 it has no time-outs, stays silent when a connection is refused, and
 * loses track of PING on a subscribed connection. */
#pragma once

#include "io/redis.h"
#include "loop/poll.h"
#include "loop/timer.h"
#include <hiredis/hiredis.h>

enum link_state { LINK_DOWN, LINK_CONNECTING, LINK_GREETING, LINK_UP };

struct redis_link {
    struct loop *loop;
    struct redis_config config; /* copied */
    char *name;
    char *address; /* path, or host:port: for messages */
    enum link_state state;
    redisContext *context; /* NULL: down */
    struct poll *poll;
    struct timer timer; /* connecting and greeting: the limit; down: the next attempt */
    unsigned failures;  /* attempts since the connection was last up */
    unsigned greetings; /* replies still to come */
    char reason[200];   /* why it is down */
    uint64_t read_ms;   /* when something was last received */
    void *arg;
    /* All on the loop's stack. */
    void (*on_up)(void *arg);
    void (*on_down)(void *arg);                     /* only after on_up */
    void (*on_reply)(void *arg, redisReply *reply); /* the reply passes to the callee */
};

/* The caller has set arg and the three functions. Connects in the background. */
void link_open(struct redis_link *link, struct loop *loop, const struct redis_config *config,
               const char *name);
/* on_down is not called. */
void link_close(struct redis_link *link);
/* Appends a command; only while up. */
void link_send(struct redis_link *link, size_t argc, const struct arg *argv);
/* Breaks the connection (on_down is called when it was up); it comes back. */
void link_drop(struct redis_link *link, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A reply in our form; takes the texts out of hiredis's and frees it. */
void link_take(redisReply *from, struct reply *ret);
void redis_config_copy(const struct redis_config *from, struct redis_config *ret);
/* Path, or host:port, without user and password (malloc'ed). */
char *redis_address(const struct redis_config *config);
uint64_t redis_connect_ms(const struct redis_config *config);
uint64_t redis_command_ms(const struct redis_config *config);
/* Appends one command to a context's output buffer. */
int link_append(redisContext *context, size_t argc, const struct arg *argv);
/* Fills `ret` (room for keys + argc + 3, with `slot` for a number) with the words of an EVALSHA. */
size_t link_evalsha(struct arg *ret, char slot[24], const struct redis_script *script, size_t keys,
                    const struct arg *key, size_t argc, const struct arg *argv);
/* What an error reply to a script means. */
enum script_error { SCRIPT_BUG, SCRIPT_UNKNOWN, SCRIPT_REFUSED, SCRIPT_BUSY };
enum script_error link_script_error(const char *text);
