/* Where Redis is, from its URL. */
#include "base/mem.h"
#include "io/redis_link.h"
#include <string.h>

#define FORMS                                                                                      \
    "redis://[user:password@]host[:port][/db], unix:/path[?db=N] or "                              \
    "sentinel://[user:password@]host[:port],…/MASTERNAME[/db]"

void redis_config_done(struct redis_config *config)
{
    free(config->host);
    free(config->path);
    free(config->user);
    char *secrets[] = {config->password, config->sentinel_password};
    for (size_t i = 0; i < sizeof(secrets) / sizeof(*secrets); i++)
        if (secrets[i]) {
            explicit_bzero(secrets[i], strlen(secrets[i]));
            free(secrets[i]);
        }
    for (size_t i = 0; i < config->sentinel_count; i++)
        free(config->sentinels[i].host);
    free(config->sentinels);
    free(config->master);
    *config = (struct redis_config){0};
}

void redis_config_copy(const struct redis_config *from, struct redis_config *ret)
{
    *ret = *from;
    ret->host = from->host ? mem_dup(from->host) : NULL;
    ret->path = from->path ? mem_dup(from->path) : NULL;
    ret->user = from->user ? mem_dup(from->user) : NULL;
    ret->password = from->password ? mem_dup(from->password) : NULL;
    ret->sentinel_password = from->sentinel_password ? mem_dup(from->sentinel_password) : NULL;
    ret->master = from->master ? mem_dup(from->master) : NULL;
    ret->sentinels = NULL;
    if (from->sentinel_count > 0)
        ret->sentinels = mem_alloc(from->sentinel_count * sizeof(*ret->sentinels));
    for (size_t i = 0; i < from->sentinel_count; i++)
        ret->sentinels[i] =
            (struct redis_host){mem_dup(from->sentinels[i].host), from->sentinels[i].port};
}

char *redis_host_text(const char *host, int port)
{
    bool is_v6 = strchr(host, ':') != NULL;
    return mem_format("%s%s%s:%d", is_v6 ? "[" : "", host, is_v6 ? "]" : "", port);
}

char *redis_address(const struct redis_config *config)
{
    if (config->path)
        return mem_dup(config->path);
    if (config->sentinel_count == 0)
        return redis_host_text(config->host, config->port);
    char *text = mem_format("master %s of the sentinels", config->master);
    for (size_t i = 0; i < config->sentinel_count; i++) {
        mem_auto char *before = text;
        mem_auto char *host = redis_host_text(config->sentinels[i].host, config->sentinels[i].port);
        text = mem_format("%s%s%s", before, i ? "," : " ", host);
    }
    return text;
}

uint64_t redis_connect_ms(const struct redis_config *config)
{
    return config->connect_ms ? config->connect_ms : 5000;
}

uint64_t redis_command_ms(const struct redis_config *config)
{
    return config->command_ms ? config->command_ms : 10000;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A part of a URL with its %XX undone (RFC 3986 section 2.1); NULL when one is malformed or a NUL.
 */
static char *decode(const char *text, size_t len)
{
    char *out = mem_alloc(len + 1);
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c == '%') {
            int high = len - i > 2 ? hex_digit(text[i + 1]) : -1;
            int low = len - i > 2 ? hex_digit(text[i + 2]) : -1;
            if (high < 0 || low < 0 || (high == 0 && low == 0)) {
                free(out);
                return NULL;
            }
            c = (char)(high * 16 + low);
            i += 2;
        }
        out[n++] = c;
    }
    out[n] = '\0';
    return out;
}

static bool parse_number(const char *text, size_t len, int max, int *ret)
{
    int value = 0;
    if (len == 0 || len > 6)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = value * 10 + (text[i] - '0');
    }
    if (value > max)
        return false;
    *ret = value;
    return true;
}

static int refuse(struct error *err, const char *what)
{
    error_set(err, MR_E_SCHEMA, "%s", what);
    error_hint(err, "%s", FORMS);
    return MR_E_SCHEMA;
}

static int parse_unix(const char *rest, struct redis_config *config, struct error *err)
{
    const char *query = strchr(rest, '?');
    size_t len = query ? (size_t)(query - rest) : strlen(rest);
    if (len == 0 || rest[0] != '/')
        return refuse(err, "the path of Redis's socket must be absolute");
    if (len > 100)
        return refuse(err, "the path of Redis's socket is longer than 100 bytes");
    if (query && (strncmp(query, "?db=", 4) != 0 ||
                  !parse_number(query + 4, strlen(query + 4), 99999, &config->db)))
        return refuse(err, "after the path of Redis's socket only ?db=N may stand");
    config->path = decode(rest, len);
    return config->path ? MR_OK : refuse(err, "a %XX in the path of Redis's socket is malformed");
}

/* `user:password@`, if it is there; moves *rest behind it. */
static int parse_user(const char **rest, size_t *len, struct redis_config *config,
                      struct error *err)
{
    const char *at = memrchr(*rest, '@', *len);
    if (!at)
        return MR_OK;
    const char *colon = memchr(*rest, ':', (size_t)(at - *rest));
    if (!colon)
        return refuse(err, "a user of Redis without password");
    if (colon > *rest)
        config->user = decode(*rest, (size_t)(colon - *rest));
    config->password = decode(colon + 1, (size_t)(at - colon - 1));
    if ((colon > *rest && !config->user) || !config->password)
        return refuse(err, "a %XX in user or password of Redis is malformed");
    *len -= (size_t)(at + 1 - *rest);
    *rest = at + 1;
    return MR_OK;
}

/* `host`, `host:port`, `[address]` or `[address]:port`; what is wrong, or NULL. */
static const char *parse_host(const char *text, size_t len, int port, struct redis_host *ret)
{
    const char *end = text + len, *host_end;
    if (len > 0 && text[0] == '[') {
        host_end = memchr(text, ']', len);
        if (!host_end)
            return "the address of Redis lacks its ]";
        text++;
    } else {
        host_end = memchr(text, ':', len);
        if (!host_end)
            host_end = end;
    }
    if (host_end == text)
        return "the host of Redis is missing";
    if (host_end - text >= REDIS_HOST_BYTES)
        return "the host of Redis is longer than 255 bytes";
    const char *after = host_end < end && *host_end == ']' ? host_end + 1 : host_end;
    ret->port = port;
    if (after < end &&
        (*after != ':' || !parse_number(after + 1, (size_t)(end - after - 1), 65535, &ret->port) ||
         ret->port == 0))
        return "the port of Redis is not a number from 1 to 65535";
    ret->host = mem_ndup(text, (size_t)(host_end - text));
    return NULL;
}

static int parse_tcp(const char *rest, struct redis_config *config, struct error *err)
{
    size_t len = strcspn(rest, "/?#");
    const char *path = rest + len;
    struct redis_host host = {0};
    int rc = parse_user(&rest, &len, config, err);
    if (rc != MR_OK)
        return rc;
    const char *wrong = parse_host(rest, len, 6379, &host);
    if (wrong)
        return refuse(err, wrong);
    config->host = host.host;
    config->port = host.port;
    if (*path == '/' && path[1] != '\0' &&
        !parse_number(path + 1, strlen(path + 1), 99999, &config->db))
        return refuse(err, "the database of Redis is not a number");
    if (*path == '?' || *path == '#')
        return refuse(err, "the URL of Redis takes no query");
    return MR_OK;
}

/* What Sentinel itself allows in the name of a master. */
static bool is_master_name(const char *text, size_t len)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    return len >= 1 && len <= 128 && strspn(text, allowed) >= len;
}

static int parse_sentinel(const char *rest, struct redis_config *config, struct error *err)
{
    size_t len = strcspn(rest, "/?#");
    const char *path = rest + len;
    if (strcspn(path, "?#") != strlen(path))
        return refuse(err, "the URL of the sentinels takes no query");
    int rc = parse_user(&rest, &len, config, err);
    if (rc != MR_OK)
        return rc;
    if (len == 0)
        return refuse(err, "the sentinels' addresses are missing");
    config->sentinels = mem_zalloc(REDIS_SENTINELS_MAX * sizeof(*config->sentinels));
    for (const char *at = rest, *end = rest + len; at <= end;) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        size_t size = comma ? (size_t)(comma - at) : (size_t)(end - at);
        if (config->sentinel_count == REDIS_SENTINELS_MAX)
            return refuse(err, "the URL names more than 16 sentinels");
        const char *wrong = parse_host(at, size, 26379, &config->sentinels[config->sentinel_count]);
        if (wrong)
            return refuse(err, wrong);
        config->sentinel_count++;
        at += size + 1;
    }
    if (*path != '/' || path[1] == '\0')
        return refuse(err, "the name of the master is missing: it stands behind the sentinels");
    const char *name = path + 1, *slash = strchr(name, '/');
    size_t name_len = slash ? (size_t)(slash - name) : strlen(name);
    if (!is_master_name(name, name_len))
        return refuse(err, "the name of the master is not 1 to 128 of A-Z a-z 0-9 . _ -");
    if (slash && slash[1] != '\0' &&
        !parse_number(slash + 1, strlen(slash + 1), 99999, &config->db))
        return refuse(err, "the database of Redis is not a number");
    config->master = mem_ndup(name, name_len);
    return MR_OK;
}

int redis_config_parse(const char *url, struct redis_config *ret_config, struct error *err)
{
    struct redis_config config = {0};
    int rc;
    if (strncmp(url, "redis://", 8) == 0)
        rc = parse_tcp(url + 8, &config, err);
    else if (strncmp(url, "sentinel://", 11) == 0)
        rc = parse_sentinel(url + 11, &config, err);
    else if (strncmp(url, "unix:", 5) == 0)
        rc = parse_unix(url + 5, &config, err);
    else if (strncmp(url, "rediss:", 7) == 0)
        rc = refuse(err, "rediss: is not offered yet: use a local TLS proxy");
    else if (strncmp(url, "cluster:", 8) == 0)
        rc = refuse(err, "cluster: is not offered yet");
    else
        rc = refuse(err, "the URL of Redis has an unknown form");
    if (rc == MR_OK)
        *ret_config = config;
    else
        redis_config_done(&config);
    return rc;
}
