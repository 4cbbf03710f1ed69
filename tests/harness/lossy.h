/* A proxy between a client and a redis_server that loses replies: the command reached the server,
 * the client sees its connection break. A thread of its own; unix sockets. */
#pragma once

#include "redis_server.h"
#include <pthread.h>
#include <stdatomic.h>

#define LOSSY_PAIRS 64

struct lossy {
    const struct redis_server *server;
    char path[96], url[128];
    int listener, stop[2];
    pthread_t thread;
    /* The n-th block of bytes from the server from now on is thrown away and its connection closed;
     * 0: none. */
    _Atomic int lose_at;
    _Atomic int lost; /* so far */
    int client[LOSSY_PAIRS], upstream[LOSSY_PAIRS];
    size_t count;
};

static inline void lossy_drop(struct lossy *lossy, size_t i)
{
    close(lossy->client[i]);
    close(lossy->upstream[i]);
    lossy->count--;
    lossy->client[i] = lossy->client[lossy->count];
    lossy->upstream[i] = lossy->upstream[lossy->count];
}

static inline bool lossy_write(int fd, const char *data, ssize_t len)
{
    while (len > 0) {
        ssize_t put = send(fd, data, (size_t)len, MSG_NOSIGNAL);
        if (put <= 0)
            return false;
        data += put;
        len -= put;
    }
    return true;
}

static inline void *lossy_main(void *arg)
{
    struct lossy *lossy = arg;
    char *block = malloc(1 << 20);
    for (;;) {
        struct pollfd fds[2 + 2 * LOSSY_PAIRS];
        fds[0] = (struct pollfd){.fd = lossy->stop[0], .events = POLLIN};
        fds[1] = (struct pollfd){.fd = lossy->listener, .events = POLLIN};
        size_t count = lossy->count;
        for (size_t i = 0; i < count; i++) {
            fds[2 + 2 * i] = (struct pollfd){.fd = lossy->client[i], .events = POLLIN};
            fds[3 + 2 * i] = (struct pollfd){.fd = lossy->upstream[i], .events = POLLIN};
        }
        if (poll(fds, 2 + 2 * count, -1) < 0)
            continue;
        if (fds[0].revents)
            break;
        for (size_t i = count; i-- > 0;) {
            bool ok = true;
            if (fds[2 + 2 * i].revents) {
                ssize_t got = read(lossy->client[i], block, 1 << 20);
                ok = got > 0 && lossy_write(lossy->upstream[i], block, got);
            }
            if (ok && fds[3 + 2 * i].revents) {
                ssize_t got = read(lossy->upstream[i], block, 1 << 20);
                int at = atomic_load(&lossy->lose_at);
                if (at > 0)
                    atomic_store(&lossy->lose_at, at - 1);
                if (at == 1)
                    atomic_fetch_add(&lossy->lost, 1);
                ok = got > 0 && at != 1 && lossy_write(lossy->client[i], block, got);
            }
            if (!ok)
                lossy_drop(lossy, i);
        }
        if (fds[1].revents) {
            int client = accept(lossy->listener, NULL, NULL);
            int upstream = client >= 0 ? redis_server_connect(lossy->server) : -1;
            if (upstream >= 0 && lossy->count < LOSSY_PAIRS) {
                lossy->client[lossy->count] = client;
                lossy->upstream[lossy->count++] = upstream;
            } else if (client >= 0) {
                close(client);
            }
        }
    }
    while (lossy->count > 0)
        lossy_drop(lossy, 0);
    free(block);
    return NULL;
}

static inline void lossy_start(struct lossy *lossy, const struct redis_server *server)
{
    *lossy = (struct lossy){.server = server};
    snprintf(lossy->path, sizeof(lossy->path), "%s/lossy.sock", server->dir);
    snprintf(lossy->url, sizeof(lossy->url), "unix:%s", lossy->path);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", lossy->path);
    lossy->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(lossy->listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(lossy->listener, 64) != 0 || pipe2(lossy->stop, O_CLOEXEC) != 0 ||
        pthread_create(&lossy->thread, NULL, lossy_main, lossy) != 0)
        abort();
}

static inline void lossy_stop(struct lossy *lossy)
{
    if (write(lossy->stop[1], "x", 1) != 1)
        abort();
    pthread_join(lossy->thread, NULL);
    close(lossy->stop[0]);
    close(lossy->stop[1]);
    close(lossy->listener);
    unlink(lossy->path);
}
