/* One connection to Redis that comes back by itself: the address (from the configuration, or from
 * the sentinels: redis_sentinel.h), connect, greeting (AUTH, SELECT, SETNAME, with sentinels ROLE,
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

enum link_state {
    LINK_DOWN,
    LINK_LOOKUP, /* the name of the host is being looked up */
    LINK_CONNECTING,
    LINK_ASKING, /* a sentinel */
    LINK_GREETING,
    LINK_UP
};
enum link_greeting { GREET_AUTH, GREET_SELECT, GREET_NAME, GREET_ROLE, GREET_PING, GREETS };

struct redis_link {
    struct loop *loop;
    struct redis_config config; /* copied */
    char *name;
    char *address; /* path, or host:port: for messages */
    enum link_state state;
    char peer[REDIS_HOST_BYTES]; /* who is being connected to: the server or a sentinel */
    int peer_port;
    bool to_sentinel;          /* to be asked, on the way to the server */
    bool is_switch;            /* redis_switch.c: the server is a sentinel itself */
    struct link_switch *watch; /* NULL: no sentinels, or it is one itself */
    size_t sentinel;           /* the one to ask next */
    size_t asked;              /* in this round */
    int lookup_fd;             /* -1: none */
    redisContext *context;     /* NULL: down */
    struct poll *poll;
    struct timer timer;                   /* until it is up: the limit; down: the next attempt */
    unsigned failures;                    /* attempts since the connection was last up */
    unsigned attempts;                    /* all: which of several addresses of a name is taken */
    enum link_greeting greetings[GREETS]; /* replies still to come; for a sentinel their number */
    unsigned greeting, greeting_count;
    char reason[256]; /* why it is down */
    uint64_t read_ms; /* when something was last received */
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
/* Path, host:port, or master and sentinels, without user and password (malloc'ed). */
char *redis_address(const struct redis_config *config);
/* host:port, an IPv6 address in brackets (malloc'ed). */
char *redis_host_text(const char *host, int port);
uint64_t redis_connect_ms(const struct redis_config *config);
uint64_t redis_command_ms(const struct redis_config *config);
/* Appends one command to a context's output buffer. */
int link_append(redisContext *context, size_t argc, const struct arg *argv);
/* Fills `ret` (room for keys + argc + 3, with `slot` for a number) with the words of an EVALSHA. */
size_t link_evalsha(struct arg *ret, char slot[24], const struct redis_script *script, size_t keys,
                    const struct arg *key, size_t argc, const struct arg *argv);
/* An error reply of a server that is no master (any more). */
bool link_error_is_demoted(const char *text);
/* MR_E_STORE for an error reply to `what`: "Redis refused WHAT: the server's words", which begin
 * with the word that says what is the case (OOM, LOADING, …); `detail` is "answered". */
int link_refused(const char *what, const char *text, struct error *err);
/* What an error reply to a script means. */
enum script_error { SCRIPT_BUG, SCRIPT_UNKNOWN, SCRIPT_REFUSED, SCRIPT_BUSY };
enum script_error link_script_error(const char *text);
