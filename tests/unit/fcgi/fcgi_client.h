/* A raw FastCGI client for tests: blocking, on a thread of its own, with a receive time-out. Writes
 * whatever it is told to, also what no web server would. */
#pragma once

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

struct client {
    int fd;
    bool ended; /* END_REQUEST seen */
    char *out;  /* STDOUT so far, NUL-ended */
    size_t len, cap;
    char raw[65536 + 512];
    size_t raw_len;
};

static inline int client_connect(const char *path)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        close(fd);
        return -1;
    }
    struct timeval limit = {.tv_sec = 20};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    return fd;
}

static inline bool client_send(int fd, const void *data, size_t len)
{
    const char *at = data;
    while (len > 0) {
        ssize_t put = send(fd, at, len, MSG_NOSIGNAL);
        if (put <= 0) {
            return false;
        }
        at += put;
        len -= (size_t)put;
    }
    return true;
}

static inline bool client_record(int fd, int type, const void *data, size_t len)
{
    unsigned char header[8] = {
        1, (unsigned char)type, 0, 1, (unsigned char)(len >> 8), (unsigned char)len, 0, 0};
    return client_send(fd, header, 8) && (len == 0 || client_send(fd, data, len));
}

static inline size_t client_param(unsigned char *at, const char *name, const char *value)
{
    size_t name_len = strlen(name), value_len = strlen(value), used = 0;
    at[used++] = (unsigned char)name_len;
    if (value_len < 128) {
        at[used++] = (unsigned char)value_len;
    } else {
        at[used++] = (unsigned char)(0x80 | value_len >> 24);
        at[used++] = (unsigned char)(value_len >> 16);
        at[used++] = (unsigned char)(value_len >> 8);
        at[used++] = (unsigned char)value_len;
    }
    memcpy(at + used, name, name_len);
    memcpy(at + used + name_len, value, value_len);
    return used + name_len + value_len;
}

/* BEGIN_REQUEST and PARAMS; `length` NULL: no CONTENT_LENGTH. */
static inline bool client_begin(int fd, bool keep, const char *method, const char *uri,
                                const char *length)
{
    unsigned char begin[8] = {0, 1, keep ? 1 : 0};
    unsigned char params[4096];
    size_t len = client_param(params, "REQUEST_METHOD", method);
    len += client_param(params + len, "REQUEST_URI", uri);
    if (length != NULL) {
        len += client_param(params + len, "CONTENT_LENGTH", length);
    }
    return client_record(fd, 1, begin, sizeof(begin)) && client_record(fd, 4, params, len) &&
           client_record(fd, 4, NULL, 0);
}

static inline bool client_request(int fd, bool keep, const char *method, const char *uri,
                                  const char *body)
{
    char length[24];
    snprintf(length, sizeof(length), "%zu", strlen(body));
    return client_begin(fd, keep, method, uri, length) &&
           (*body == '\0' || client_record(fd, 5, body, strlen(body))) &&
           client_record(fd, 5, NULL, 0);
}

static inline void client_init(struct client *client, int fd)
{
    client->fd = fd;
    client->ended = false;
    client->len = client->raw_len = 0;
    client->cap = 4096;
    client->out = calloc(1, client->cap);
}

static inline void client_done(struct client *client)
{
    free(client->out);
    client->out = NULL;
}

static inline void client_take(struct client *client)
{
    while (client->raw_len >= 8) {
        const unsigned char *head = (const unsigned char *)client->raw;
        size_t len = (size_t)head[4] << 8 | head[5], whole = 8 + len + head[6];
        if (client->raw_len < whole) {
            return;
        }
        if (head[1] == 6) {
            if (client->len + len + 1 > client->cap) {
                client->cap = (client->len + len + 1) * 2;
                client->out = realloc(client->out, client->cap);
            }
            memcpy(client->out + client->len, client->raw + 8, len);
            client->len += len;
            client->out[client->len] = '\0';
        } else if (head[1] == 3) {
            client->ended = true;
        }
        memmove(client->raw, client->raw + whole, client->raw_len - whole);
        client->raw_len -= whole;
    }
}

/* Reads more; false at the end of the connection or after 20 s of silence. */
static inline bool client_read(struct client *client)
{
    ssize_t got =
        recv(client->fd, client->raw + client->raw_len, sizeof(client->raw) - client->raw_len, 0);
    if (got <= 0) {
        return false;
    }
    client->raw_len += (size_t)got;
    client_take(client);
    return true;
}

/* Reads to END_REQUEST; the CGI status, 0 when the connection ended before. */
static inline int client_answer(struct client *client)
{
    while (!client->ended) {
        if (!client_read(client)) {
            return 0;
        }
    }
    int status = 0;
    if (sscanf(client->out, "Status: %d", &status) != 1) {
        return 0;
    }
    return status;
}

static inline const char *client_body(const struct client *client)
{
    const char *at = strstr(client->out, "\r\n\r\n");
    return at != NULL ? at + 4 : "";
}

/* One request on a connection of its own; the status, the body into `ret` when not NULL. */
static inline int client_once(const char *path, const char *method, const char *uri,
                              const char *body, char *ret, size_t size)
{
    int fd = client_connect(path);
    if (fd < 0) {
        return -1;
    }
    struct client client;
    client_init(&client, fd);
    int status = client_request(fd, false, method, uri, body) ? client_answer(&client) : 0;
    if (ret != NULL) {
        snprintf(ret, size, "%s", client_body(&client));
    }
    client_done(&client);
    close(fd);
    return status;
}
