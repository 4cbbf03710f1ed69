/* A small HTTP server in a process of its own that behaves as its path says, for tests of clients.
 *
 *   /ok             200 {"ok":true}
 *   /echo           the request as it came, as text
 *   /status?N       status N, empty
 *   /hang           nothing, ever
 *   /held           answers when httpd_release is called
 *   /stall          header and a part of the body, then nothing
 *   /stall-held     the same, the rest when httpd_release is called
 *   /reset          resets the connection instead of answering
 *   /reset-mid      resets it in the middle of the body
 *   /close          closes it instead of answering
 *   /truncate       closes it before the length it said
 *   /bytes?N        N bytes with their length
 *   /chunked?N      N bytes in chunks
 *   /headers?N      N headers x-0 … with a value of 32 bytes
 *   /garbage        no HTTP
 *   /interim        103 with a header, then 200
 *   /last           an answer after which the connection closes
 *   /unread         stops reading after the header of the request
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

struct httpd_counts {
    _Atomic unsigned connections; /* accepted so far */
    _Atomic unsigned open;        /* connections now */
    _Atomic unsigned requests;    /* whose header was read, so far */
    _Atomic unsigned answers;     /* complete ones */
    _Atomic unsigned parts;       /* beginnings of answers that stall, once they are sent */
};

struct httpd {
    pid_t pid;
    int port;
    int control;         /* a byte here releases what is held */
    int mute, mute_port; /* a listener that nobody accepts from */
    struct httpd_counts *counts;
};

/* Starts it on a free port of 127.0.0.1. False when that failed. */
bool httpd_start(struct httpd *httpd);
void httpd_stop(struct httpd *httpd);
void httpd_release(struct httpd *httpd);
