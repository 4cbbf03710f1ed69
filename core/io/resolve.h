/* One resolver at a time for each new host.
 *
 * curl starts a thread for every name it has to resolve: three hundred calls to a host it does not
 * know yet are three hundred threads. So the first call to such a host goes ahead as its pioneer,
 * and the others wait until it has an address (which is then in curl's cache), has failed to get
 * one (they fail with it), or has ended without knowing (the next one goes ahead). */
#pragma once

#include "loop/wait.h"

struct resolve_host {
    struct resolve_host *next; /* in its bucket */
    struct resolve_waiter *waiters, **waiters_end;
    uint64_t known_until_ms;
    bool pioneer;
    char name[];
};

#define RESOLVE_BUCKETS   256u
#define RESOLVE_HOSTS_MAX 4096u   /* beyond it new hosts are not held back */
#define RESOLVE_KNOWN_MS  240000u /* less than what curl's cache keeps: RESOLVE_CACHE_S */
#define RESOLVE_CACHE_S   300L

struct resolve {
    struct loop *loop;
    struct resolve_host *buckets[RESOLVE_BUCKETS];
    size_t hosts;
};

void resolve_init(struct resolve *resolve, struct loop *loop);
void resolve_done(struct resolve *resolve);
/* Returns when a call to `name` may go ahead. MR_OK with `*ret_host` NULL: the host is known, or an
 * address. MR_OK with a host: this call is the pioneer and owes a resolve_end. MR_E_CONNECT: the
 * pioneer could not resolve it; MR_E_TIMEOUT; or the scope's error. */
MR_SUSPENDS int resolve_begin(struct resolve *resolve, const char *name, uint64_t timeout_ms,
                              struct resolve_host **ret_host);

enum resolve_end { RESOLVE_KNOWN, RESOLVE_FAILED, RESOLVE_OPEN };
/* The pioneer's report; does not call curl and may come from its callbacks. */
void resolve_end(struct resolve_host *host, enum resolve_end end);
