/* The acceptor: from connections of web servers to requests on the loop, and back. acceptor.c is
 * the one seam to libfcgi.
 *
 * libfcgi blocks, has no read time-out and keeps a thread with a kept connection. So the loop
 * accepts, watches all connections, and hands only a readable one to a thread, which reads one
 * request in to the end of its stdin; a thread writes each response out. Both run under a total
 * deadline (10 s and 1 s for each MiB moved) that the loop enforces with shutdown(2). An event
 * stream is taken from libfcgi after its head: fcgi/sse.h goes on from the loop.
 *
 * Who owns what: the acceptor owns the exchange, from on_request until its response is written.
 * The loop alone closes descriptors, and never one that a thread holds. */
#pragma once

#include "fcgi/request.h"
#include "fcgi/response.h"
#include "loop/wait.h"

struct acceptor;
struct conn;

/* One request and its answer. */
struct exchange {
    struct request request;
    struct scope scope; /* cancelled with MR_E_CANCELLED when the client has gone */
    int refusal;        /* 0, or the status that reading it led to: 400, 413, 503 */
    const char *refusal_text;
    bool is_answered; /* a stream was written: no response follows */
    struct acceptor *acceptor;
    struct conn *conn;
    /* The receiver's. */
    void *data;
    const struct config_token *token; /* who asks; NULL: auth is off */
};

struct acceptor_setup {
    struct loop *loop;
    int listen_fd;      /* borrowed; made non-blocking */
    const char *prefix; /* of paths; outlives the acceptor */
    size_t body_max_bytes;
    uint64_t memory_max_bytes; /* bodies held at once; above it a request is refused with 503; 0: no
                                  limit */
    uint32_t threads_max;      /* 0: LIMIT_FRONT_THREADS */
    uint64_t request_ms;       /* 0: LIMIT_REQUEST_MS; tests shorten it */
    uint64_t mib_ms;           /* for each MiB moved; 0: 1 s */
    /* A request has been read; on the loop's stack. It must end in exchange_respond or
     * exchange_end_stream. */
    void (*on_request)(void *arg, struct exchange *exchange);
    void *arg;
};

/* MR_E_INTERNAL when the socket cannot be watched or no thread started. */
struct acceptor *acceptor_open(const struct acceptor_setup *setup, struct error *err);
/* Accepts no more and closes connections that are kept for a next request; requests in flight, and
 * those of which nothing has been read yet, go on. */
void acceptor_stop(struct acceptor *acceptor);
/* Cancels handlers with MR_E_STOPPING and breaks off what is being read. */
void acceptor_cut(struct acceptor *acceptor);
/* Stops, cuts, waits for all connections and threads to end, frees. On a fiber. */
MR_SUSPENDS void acceptor_close(struct acceptor *acceptor);

struct acceptor_stats {
    size_t connections, exchanges; /* open; being handled or written */
    size_t threads;
    uint64_t served;     /* responses written and streams ended */
    uint64_t cut;        /* connections broken off at a deadline */
    uint64_t body_bytes; /* held now */
};
void acceptor_get_stats(struct acceptor *acceptor, struct acceptor_stats *ret);

/* Answers and ends the exchange: `response` is moved out (init'ed again). The last thing that a
 * fiber under exchange->scope does: the exchange may be gone on the loop's next turn. */
void exchange_respond(struct exchange *exchange, struct response *response);

/* Frees the request's body: for a handler that has read it and is going to wait. */
void exchange_forget_body(struct exchange *exchange);

/* Writes the head of a stream and takes the connection from libfcgi. MR_OK, or MR_E_RESET when the
 * client has gone. Either way exchange_end_stream must follow, and `response` is moved out. */
MR_SUSPENDS int exchange_begin_stream(struct exchange *exchange, struct response *response);
/* For fcgi/sse.c: the descriptor and the FastCGI request id. */
int exchange_fd(const struct exchange *exchange, uint16_t *ret_record_id);
/* For fcgi/sse.c: calls fn once when the descriptor takes bytes again. NULL: no more. */
void exchange_on_writable(struct exchange *exchange, void (*fn)(void *arg), void *arg);
/* Ends a stream and with it the exchange, as exchange_respond does. `whole`: its end record is
 * written, the connection may be kept. */
void exchange_end_stream(struct exchange *exchange, bool whole);
