#include "io/guard.h"
#include "base/mem.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

struct guard_net {
    unsigned char bytes[16];
    unsigned bits;
    int family;
};

struct refused {
    const char *net;
    unsigned bits;
};

/* The registries of RFC 6890 as of 2025, and multicast. */
static const struct refused refused4[] = {
    {"0.0.0.0", 8},                            /* this network; 0.0.0.0 reaches the host itself */
    {"10.0.0.0", 8},                           /* private, RFC 1918 */
    {"100.64.0.0", 10},                        /* carrier-grade NAT, RFC 6598 */
    {"127.0.0.0", 8},                          /* loopback */
    {"169.254.0.0", 16},                       /* link-local; metadata services of clouds */
    {"172.16.0.0", 12},                        /* private */
    {"192.0.0.0", 24},                         /* protocol assignments */
    {"192.0.2.0", 24},                         /* documentation */
    {"192.88.99.0", 24},                       /* 6to4 relays, deprecated */
    {"192.168.0.0", 16},                       /* private */
    {"198.18.0.0", 15},                        /* benchmarks */
    {"198.51.100.0", 24}, {"203.0.113.0", 24}, /* documentation */
    {"224.0.0.0", 4},                          /* multicast */
    {"240.0.0.0", 4},                          /* reserved, and broadcast */
};

static const struct refused refused6[] = {
    {"::", 127},         /* unspecified and loopback */
    {"64:ff9b:1::", 48}, /* local NAT64 */
    {"100::", 64},       /* discard */
    {"2001:db8::", 32},  /* documentation */
    {"3fff::", 20},      /* documentation */
    {"5f00::", 16},      /* segment routing */
    {"fc00::", 7},       /* unique local */
    {"fe80::", 10},      /* link-local */
    {"fec0::", 10},      /* site-local, deprecated */
    {"ff00::", 8},       /* multicast */
};

/* Addresses of version 6 that carry one of version 4: where its bytes lie. */
static const struct {
    const char *net;
    unsigned bits, at;
    unsigned char flip;
} carriers[] = {
    {"::ffff:0:0", 96, 12, 0},   /* mapped */
    {"::", 96, 12, 0},           /* compatible, deprecated */
    {"::ffff:0:0:0", 96, 12, 0}, /* translated, RFC 2765 */
    {"64:ff9b::", 96, 12, 0},    /* NAT64 */
    {"2002::", 16, 2, 0},        /* 6to4 */
    {"2001::", 32, 12, 0xFF},    /* Teredo: the client's, inverted */
};

static bool is_within(const unsigned char *addr, const unsigned char *net, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;
    if (memcmp(addr, net, whole) != 0)
        return false;
    return rest == 0 || ((addr[whole] ^ net[whole]) >> (8 - rest)) == 0;
}

static bool is_within_text(int family, const unsigned char *addr, const char *net, unsigned bits)
{
    unsigned char bytes[16];
    return inet_pton(family, net, bytes) == 1 && is_within(addr, bytes, bits);
}

static bool is_let_through(const struct guard *guard, int family, const unsigned char *addr)
{
    for (size_t i = 0; i < guard->allow_count; i++) {
        const struct guard_net *net = &guard->allow[i];
        if (net->family == family && is_within(addr, net->bytes, net->bits))
            return true;
    }
    return false;
}

static bool allows4(const struct guard *guard, const unsigned char *addr)
{
    if (is_let_through(guard, AF_INET, addr))
        return true;
    for (size_t i = 0; i < sizeof(refused4) / sizeof(refused4[0]); i++)
        if (is_within_text(AF_INET, addr, refused4[i].net, refused4[i].bits))
            return false;
    return true;
}

static bool allows6(const struct guard *guard, const unsigned char *addr)
{
    if (is_let_through(guard, AF_INET6, addr))
        return true;
    for (size_t i = 0; i < sizeof(refused6) / sizeof(refused6[0]); i++)
        if (is_within_text(AF_INET6, addr, refused6[i].net, refused6[i].bits))
            return false;
    for (size_t i = 0; i < sizeof(carriers) / sizeof(carriers[0]); i++) {
        if (!is_within_text(AF_INET6, addr, carriers[i].net, carriers[i].bits))
            continue;
        unsigned char inner[4];
        for (size_t b = 0; b < 4; b++)
            inner[b] = addr[carriers[i].at + b] ^ carriers[i].flip;
        if (!allows4(guard, inner))
            return false;
    }
    return true;
}

bool guard_allows(const struct guard *guard, const struct sockaddr *addr)
{
    if (addr->sa_family == AF_INET)
        return allows4(guard, (const void *)&((const struct sockaddr_in *)addr)->sin_addr);
    if (addr->sa_family == AF_INET6)
        return allows6(guard, (const void *)&((const struct sockaddr_in6 *)addr)->sin6_addr);
    return false;
}

static bool parse_net(const char *text, struct guard_net *ret)
{
    char addr[INET6_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    size_t len = slash ? (size_t)(slash - text) : strlen(text);
    if (len >= sizeof(addr))
        return false;
    memcpy(addr, text, len);
    addr[len] = '\0';
    *ret = (struct guard_net){.family = strchr(addr, ':') ? AF_INET6 : AF_INET};
    if (inet_pton(ret->family, addr, ret->bytes) != 1)
        return false;
    unsigned most = ret->family == AF_INET ? 32 : 128;
    ret->bits = most;
    if (!slash)
        return true;
    size_t digits = strspn(slash + 1, "0123456789");
    if (digits == 0 || digits > 3 || slash[1 + digits] != '\0')
        return false;
    ret->bits = (unsigned)strtoul(slash + 1, NULL, 10);
    return ret->bits <= most;
}

int guard_init(struct guard *guard, const char *const *allow, struct error *err)
{
    *guard = (struct guard){0};
    size_t count = 0;
    while (allow && allow[count])
        count++;
    if (count == 0)
        return MR_OK;
    guard->allow = mem_zalloc(count * sizeof(*guard->allow));
    for (size_t i = 0; i < count; i++) {
        if (!parse_net(allow[i], &guard->allow[i])) {
            guard_done(guard);
            error_set(err, MR_E_SCHEMA, "\"%s\" is no network", allow[i]);
            error_hint(err, "write an address with a prefix length, as 10.0.0.0/8 or ::1/128");
            return MR_E_SCHEMA;
        }
    }
    guard->allow_count = count;
    return MR_OK;
}

void guard_done(struct guard *guard)
{
    free(guard->allow);
    *guard = (struct guard){0};
}
