#include "io/resolve.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

struct resolve_waiter {
    struct resolve_waiter *next;
    struct wait *wait;
    bool listed;
};

void resolve_init(struct resolve *resolve, struct loop *loop)
{
    *resolve = (struct resolve){.loop = loop};
}

static bool is_idle(const struct resolve_host *host)
{
    return !host->pioneer && !host->waiters;
}

/* Frees hosts nobody needs: all idle ones, or those whose time is over. */
static void sweep(struct resolve *resolve, uint64_t now_ms)
{
    for (size_t i = 0; i < RESOLVE_BUCKETS; i++) {
        struct resolve_host **link = &resolve->buckets[i];
        while (*link) {
            struct resolve_host *host = *link;
            if (is_idle(host) && host->known_until_ms <= now_ms) {
                *link = host->next;
                free(host);
                resolve->hosts--;
            } else {
                link = &host->next;
            }
        }
    }
}

void resolve_done(struct resolve *resolve)
{
    sweep(resolve, UINT64_MAX);
}

static struct resolve_host *host_get(struct resolve *resolve, const char *name)
{
    size_t len = strlen(name);
    struct resolve_host **bucket = &resolve->buckets[hash_fnv(name, len) % RESOLVE_BUCKETS];
    for (struct resolve_host *host = *bucket; host; host = host->next)
        if (strcmp(host->name, name) == 0)
            return host;
    if (resolve->hosts >= RESOLVE_HOSTS_MAX)
        sweep(resolve, clock_now_ms());
    if (resolve->hosts >= RESOLVE_HOSTS_MAX)
        return NULL;
    struct resolve_host *host = mem_zalloc(sizeof(*host) + len + 1);
    memcpy(host->name, name, len + 1);
    host->waiters_end = &host->waiters;
    host->next = *bucket;
    *bucket = host;
    resolve->hosts++;
    return host;
}

static bool needs_no_resolver(const char *name)
{
    unsigned char bytes[16];
    return name[0] == '[' || inet_pton(AF_INET, name, bytes) == 1 ||
           inet_pton(AF_INET6, name, bytes) == 1 || strcasecmp(name, "localhost") == 0;
}

static void unlist(struct resolve_host *host, struct resolve_waiter *waiter)
{
    struct resolve_waiter **link = &host->waiters;
    while (*link != waiter)
        link = &(*link)->next;
    *link = waiter->next;
    if (!waiter->next)
        host->waiters_end = link;
    waiter->listed = false;
}

/* Wakes the first that still waits; one whose time-out came already has its wait over and would
 * pass nothing on. */
static void wake_first(struct resolve_host *host, int code)
{
    bool woken = false;
    while (host->waiters && !woken) {
        struct resolve_waiter *waiter = host->waiters;
        unlist(host, waiter);
        woken = !waiter->wait->done;
        wait_wake(waiter->wait, code);
    }
}

int resolve_begin(struct resolve *resolve, const char *name, uint64_t timeout_ms,
                  struct resolve_host **ret_host)
{
    *ret_host = NULL;
    if (needs_no_resolver(name))
        return MR_OK;
    uint64_t begin_ms = clock_now_ms();
    for (;;) {
        /* Looked up anew each time: an idle host may have been swept meanwhile. */
        struct resolve_host *host = host_get(resolve, name);
        uint64_t now_ms = clock_now_ms();
        if (!host || host->known_until_ms > now_ms)
            return MR_OK;
        if (!host->pioneer) {
            host->pioneer = true;
            *ret_host = host;
            return MR_OK;
        }
        if (now_ms - begin_ms >= timeout_ms)
            return MR_E_TIMEOUT;
        struct wait wait;
        wait_init(&wait, resolve->loop);
        struct resolve_waiter waiter = {.wait = &wait, .listed = true};
        *host->waiters_end = &waiter;
        host->waiters_end = &waiter.next;
        int code = wait_for(&wait, timeout_ms - (now_ms - begin_ms));
        if (waiter.listed)
            unlist(host, &waiter);
        if (code != MR_OK)
            return code;
    }
}

void resolve_end(struct resolve_host *host, enum resolve_end end)
{
    host->pioneer = false;
    host->known_until_ms = end == RESOLVE_KNOWN ? clock_now_ms() + RESOLVE_KNOWN_MS : 0;
    if (end == RESOLVE_OPEN) {
        wake_first(host, MR_OK);
        return;
    }
    while (host->waiters)
        wake_first(host, end == RESOLVE_KNOWN ? MR_OK : MR_E_CONNECT);
}
