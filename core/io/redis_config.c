/* Where Redis is, from its URL. */
#include "base/mem.h"
#include "io/redis_link.h"
#include <string.h>

#define FORMS "redis://[user:password@]host[:port][/db] or unix:/path[?db=N]"

void redis_config_done(struct redis_config *config)
{
    free(config->host);
    free(config->path);
    free(config->user);
    if (config->password) {
        explicit_bzero(config->password, strlen(config->password));
        free(config->password);
    }
    *config = (struct redis_config){0};
}

void redis_config_copy(const struct redis_config *from, struct redis_config *ret)
{
    *ret = *from;
    ret->host = from->host ? mem_dup(from->host) : NULL;
    ret->path = from->path ? mem_dup(from->path) : NULL;
    ret->user = from->user ? mem_dup(from->user) : NULL;
    ret->password = from->password ? mem_dup(from->password) : NULL;
}

char *redis_address(const struct redis_config *config)
{
    if (config->path)
        return mem_dup(config->path);
    bool is_v6 = strchr(config->host, ':') != NULL;
    return mem_format("%s%s%s:%d", is_v6 ? "[" : "", config->host, is_v6 ? "]" : "", config->port);
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

static int parse_tcp(const char *rest, struct redis_config *config, struct error *err)
{
    size_t len = strcspn(rest, "/?#");
    const char *path = rest + len;
    const char *at = memrchr(rest, '@', len);
    if (at) {
        const char *colon = memchr(rest, ':', (size_t)(at - rest));
        if (!colon)
            return refuse(err, "a user of Redis without password");
        if (colon > rest)
            config->user = decode(rest, (size_t)(colon - rest));
        config->password = decode(colon + 1, (size_t)(at - colon - 1));
        if ((colon > rest && !config->user) || !config->password)
            return refuse(err, "a %XX in user or password of Redis is malformed");
        len -= (size_t)(at + 1 - rest);
        rest = at + 1;
    }
    const char *end = rest + len, *host_end;
    if (len > 0 && rest[0] == '[') {
        host_end = memchr(rest, ']', len);
        if (!host_end)
            return refuse(err, "the address of Redis lacks its ]");
        rest++;
    } else {
        host_end = memchr(rest, ':', len);
        if (!host_end)
            host_end = end;
    }
    if (host_end == rest)
        return refuse(err, "the host of Redis is missing");
    const char *after = *host_end == ']' ? host_end + 1 : host_end;
    config->port = 6379;
    if (after < end && (*after != ':' ||
                        !parse_number(after + 1, (size_t)(end - after - 1), 65535, &config->port) ||
                        config->port == 0))
        return refuse(err, "the port of Redis is not a number from 1 to 65535");
    if (*path == '/' && path[1] != '\0' &&
        !parse_number(path + 1, strlen(path + 1), 99999, &config->db))
        return refuse(err, "the database of Redis is not a number");
    if (*path == '?' || *path == '#')
        return refuse(err, "the URL of Redis takes no query");
    config->host = mem_ndup(rest, (size_t)(host_end - rest));
    return MR_OK;
}

int redis_config_parse(const char *url, struct redis_config *ret_config, struct error *err)
{
    struct redis_config config = {0};
    int rc;
    if (strncmp(url, "redis://", 8) == 0)
        rc = parse_tcp(url + 8, &config, err);
    else if (strncmp(url, "unix:", 5) == 0)
        rc = parse_unix(url + 5, &config, err);
    else if (strncmp(url, "rediss:", 7) == 0)
        rc = refuse(err, "rediss: is not offered yet: use a local TLS proxy");
    else if (strncmp(url, "sentinel:", 9) == 0 || strncmp(url, "cluster:", 8) == 0)
        rc = refuse(err, "sentinel: and cluster: are not offered yet");
    else
        rc = refuse(err, "the URL of Redis has an unknown form");
    if (rc == MR_OK)
        *ret_config = config;
    else
        redis_config_done(&config);
    return rc;
}
