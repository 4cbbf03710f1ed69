/*
 * server: connections, their requests, and the control API's view of them.
 *
 * One libuv loop and one thread. A connection has one request at a time: read → (latency, hold) →
 * sent in pieces → next. Reads go into one shared buffer; a connection owns a buffer only while a
 * request is incomplete or while its answer waits, so ten thousand idle connections cost a few
 * hundred bytes each.
 */
#ifndef SIM_SERVER_H
#define SIM_SERVER_H

#include "answer.h"
#include "journal.h"

#include <uv.h>

struct conn;

struct conn_list {
    struct conn *first;
    struct conn *last;
};

struct stats {
    uint64_t requests; /* model requests that were read whole */
    uint64_t in_flight;
    uint64_t max_in_flight;
    uint64_t ended; /* answered, or ended otherwise */
    uint64_t client_closed;
    uint64_t held;
    uint64_t connections; /* open now */
    uint64_t max_connections;
    uint64_t accepted;
    uint64_t refused; /* not HTTP, or over a bound */
};

/* What a /control/wait waits for; members that are not set are UINT64_MAX. */
struct wait_for {
    uint64_t requests;
    uint64_t ended;
    uint64_t in_flight;
    uint64_t held;
    uint64_t client_closed;
    char *contains; /* counts for requests: only those whose text has it; owned */
    char *model;    /* the same for the model; owned */
};

struct server {
    uv_loop_t *loop;
    uv_tcp_t listener;
    uv_signal_t signals[2];
    uv_prepare_t before_poll; /* writes the journal out and looks at the waits */
    struct answer_defaults defaults;
    struct rules rules;
    struct journal journal;
    struct stats stats;
    struct conn_list all;
    struct conn_list held;
    struct conn_list waiting; /* control waits */
    bool changed;             /* something a wait may wait for */
    bool stopping;
    char read_buffer[64 * 1024];
};

/* Opens the listening socket at "HOST:PORT" or "[V6]:PORT". Returns 0 or a libuv error. */
int server_listen(struct server *s, const char *address, int *ret_port);

/* Closes everything; the loop ends when the last handle is closed. */
void server_stop(struct server *s);

/* ---- for control.c ---- */

/* The answer to a control request: a plan now, or wait_for and timeout for one that blocks. */
struct control_reply {
    struct plan plan;
    bool blocks;
    struct wait_for wait;
    uint64_t timeout_ms;
};

/* Handles a request under /control/. */
void control_handle(struct server *s, const struct http_request *r,
                    struct control_reply *ret_reply);

/* True when what is waited for has been reached. */
bool control_reached(const struct server *s, const struct wait_for *wait);

/* The plan that ends a wait. */
void control_wait_plan(const struct server *s, bool reached, struct plan *ret_plan);

/* Lets the first `count` held requests go on; returns how many did. */
uint64_t server_release(struct server *s, uint64_t count);

#endif
