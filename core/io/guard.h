/* The address guard: which addresses a call may reach whose host part came from a user.
 *
 * It decides on the address that is about to be connected to, after the name was resolved, so that
 * neither a name that points inward nor one that changes between check and use gets through. */
#pragma once

#include "base/error.h"
#include <sys/socket.h>

struct guard_net; /* an address and a prefix length */

struct guard {
    struct guard_net *allow;
    size_t allow_count;
};

/* `allow`: NULL-ended list of networks that are let through whatever they are ("10.0.0.0/8",
 * "::1/128", "192.0.2.1"); NULL: none. MR_E_SCHEMA names the first that is no network. */
int guard_init(struct guard *guard, const char *const *allow, struct error *err);
void guard_done(struct guard *guard);
/* Whether a user may have us connect to `addr` (AF_INET or AF_INET6; nothing else is let through).
 * Refused: what is not globally reachable by the special-purpose registries (RFC 6890; among them
 * RFC 1918, RFC 6598, loopback, link-local, unique local), multicast, and addresses of version 6
 * that carry a refused one of version 4 (mapped, compatible, NAT64, 6to4, Teredo). */
bool guard_allows(const struct guard *guard, const struct sockaddr *addr);
