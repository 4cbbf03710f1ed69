/* Names of hosts to addresses, without blocking: hiredis would call getaddrinfo on the loop's
 * thread, for as long as the resolver likes.
 *
 * Each look-up is a detached thread that writes its answer into a pipe; whoever asked reads it when
 * the pipe is readable, or closes the pipe and is rid of it. At most LOOKUP_THREADS hang at once.
 */
#pragma once

#include "base/error.h"
#include <stdint.h>

#define LOOKUP_THREADS   16
#define LOOKUP_ADDRESSES 8
#define LOOKUP_BYTES     46 /* of an address as text: INET6_ADDRSTRLEN */

struct lookup {
    int code; /* of getaddrinfo; 0: there are addresses */
    uint32_t count;
    char addresses[LOOKUP_ADDRESSES][LOOKUP_BYTES]; /* IPv4 first */
};
/* Whether `host` is an address already. */
bool lookup_is_address(const char *host);
/* The descriptor (non-blocking, the caller's to close) that becomes readable with the answer; -1
 * with `err` when no thread can be had. */
int lookup_start(const char *host, struct error *err);
/* Takes the answer. MR_OK with at least one address, MR_E_CONNECT with the resolver's words. */
int lookup_read(int fd, struct lookup *ret, struct error *err);
