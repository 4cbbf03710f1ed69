/* One connection of a web server: its life on the loop. Shared by acceptor.c, which accepts and
 * talks libfcgi, and conn.c, which is the rest.
 *
 * A connection's way: RESTING (watched for readability) → READING (a thread has it) → HANDLING (the
 * exchange is with the front; the loop watches for the client's leaving) → WRITING (a thread) →
 * RESTING when kept, else closed; or STREAMING (the loop writes). Hand-over goes by the pool
 * towards the threads and by loop_post back, so a connection is touched by one side at a time; the
 * exceptions are atomics: `began_ms` and `moved`, from which the loop's timer reckons the deadline.
 * Descriptors stay blocking, as libfcgi needs them; the loop passes MSG_DONTWAIT. */
#pragma once

#include "fcgi/acceptor.h"
#include "fcgi/pool.h"
#include "loop/poll.h"
#include "loop/timer.h"

enum conn_state {
    CONN_RESTING,
    CONN_READING,
    CONN_HANDLING,
    CONN_WRITING,
    CONN_STREAMING,
    CONN_LINGERING,
};
enum conn_outcome { CONN_WHOLE, CONN_BROKEN };

struct FCGX_Request;

struct conn {
    struct acceptor *acceptor;
    struct conn *next, **link; /* all connections */
    struct pool_job job;
    struct poll *poll;
    int fd;
    enum conn_state state;
    struct timer timer;
    _Atomic uint64_t began_ms; /* when a thread took it; 0: it waits for one */
    _Atomic size_t moved;      /* bytes read or written since then */
    bool was_cut;              /* shut down at a deadline */
    bool is_gone;              /* hung up while its request was handled */
    bool is_half_closed;       /* its peer sends no more but may read */
    /* The exchange. */
    struct FCGX_Request *fcgx; /* malloc'ed; acceptor.c's */
    struct exchange exchange;
    struct response response;
    enum conn_outcome outcome; /* of what a thread did */
    size_t body_bytes;         /* counted in acceptor->body_bytes */
    uint16_t record_id;
    bool is_kept;
    bool is_unread; /* a part of the body was not read */
    bool is_fresh;  /* accepted, and nothing has come yet */
    struct wait *head_written;
    void (*on_writable)(void *arg);
    void *on_writable_arg;
};

struct acceptor {
    struct acceptor_setup setup;
    struct poll *listen;
    bool is_stopped;
    struct timer pause;
    struct conn *conns;
    size_t conn_count, exchange_count;
    uint64_t served, cut;
    struct wait *closer; /* woken when no connection is left */
    _Atomic uint64_t body_bytes;
    struct pool pool;
};

/* conn.c. Takes the descriptor of a new connection over. */
void conn_open(struct acceptor *acceptor, int fd);
void conn_close(struct conn *conn);
/* At rest between two requests, with no next one under way. */
bool conn_is_idle(const struct conn *conn);
/* Shuts a connection down that a thread may hold; the thread's call ends. */
void conn_break(struct conn *conn);

/* acceptor.c, on threads: one request to the end of its stdin, one response. They set `outcome`. */
void conn_read(struct conn *conn);
void conn_write(struct conn *conn);
/* Frees what libfcgi holds of a request that was read and will not be answered. */
void conn_drop(struct conn *conn);
