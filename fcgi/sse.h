/* An event stream (WHATWG HTML, section 9.2) over a FastCGI connection, written from the loop
 * without ever blocking it.
 *
 * The head goes out through the acceptor; from then on events are wrapped into FCGI_STDOUT records
 * here. A stream holds at most SSE_QUEUE_BYTES that the peer has not taken; its fiber waits while
 * there are any, and a peer that takes nothing for `stall_ms`, or lets more than
 * SSE_BACKLOG_BYTES of events pile up behind, is cut off: it comes back with Last-Event-ID. */
#pragma once

#include "fcgi/acceptor.h"

#define SSE_QUEUE_BYTES   (256u << 10)
#define SSE_BACKLOG_BYTES (1u << 20)
#define SSE_STALL_MS      30000u
#define SSE_HEARTBEAT_MS                                                                           \
    15000u                  /* under the smallest silence that a web server allows (NOTES: 40 s) */
#define SSE_AGE_MS 3600000u /* some web servers read on for a client that has left */

struct sse {
    struct loop *loop;
    struct exchange *exchange;
    uint64_t stall_ms;
    /* Bytes of events that wait behind the stream (watch_backlog); NULL: none. */
    size_t (*backlog)(void *arg);
    void *backlog_arg;
    /* Own. */
    struct buf pending;
    size_t sent; /* of `pending` */
    struct wait *waiter;
    uint16_t record_id;
    int fd;
    int code; /* the first error; nothing is written after it */
};

/* Writes the head (200, text/event-stream) and `retry: 3000`. Whatever it returns, sse_close must
 * follow. */
MR_SUSPENDS int sse_open(struct sse *sse, struct loop *loop, struct exchange *exchange);
/* One event; `number` 0: without an id. `data` may have several lines. Returns when the peer has
 * taken it: MR_OK, MR_E_RESET (gone), MR_E_TIMEOUT (stalled), or what ended the scope. */
MR_SUSPENDS int sse_event(struct sse *sse, uint64_t number, const char *kind, const char *data,
                          size_t len);
/* `: text`, a heartbeat. */
MR_SUSPENDS int sse_comment(struct sse *sse, const char *text);
/* Writes the end record, if nothing went wrong, and gives the connection back. Must be the last
 * thing a fiber does under the exchange's scope. */
MR_SUSPENDS void sse_close(struct sse *sse);
