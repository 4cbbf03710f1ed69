/* A sentinel of a test's own, which says what it is told to say: a thread that answers every chunk
 * of bytes it receives with one fixed reply. (What real sentinels do is
 * tests/fault/test_failover.py; this one can lie.) Include in one file of a program. */
#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FALSE_SENTINEL_PEERS 16

struct false_sentinel {
    int listener, port, stop[2];
    pthread_t thread;
    pthread_mutex_t mutex; /* guards reply */
    char reply[2048];      /* "": silent */
    size_t len;
    atomic_uint asked;
};

static inline void *false_sentinel_main(void *arg)
{
    struct false_sentinel *sentinel = arg;
    struct pollfd fds[2 + FALSE_SENTINEL_PEERS] = {{.fd = sentinel->stop[0], .events = POLLIN},
                                                   {.fd = sentinel->listener, .events = POLLIN}};
    nfds_t count = 2;
    while (poll(fds, count, -1) > 0 && !fds[0].revents) {
        if (fds[1].revents && count < 2 + FALSE_SENTINEL_PEERS) {
            int fd = accept4(sentinel->listener, NULL, NULL, SOCK_CLOEXEC);
            if (fd >= 0)
                fds[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
        }
        for (nfds_t i = 2; i < count; i++) {
            char text[4096];
            if (!fds[i].revents)
                continue;
            ssize_t got = read(fds[i].fd, text, sizeof(text));
            if (got > 0) {
                atomic_fetch_add(&sentinel->asked, 1);
                pthread_mutex_lock(&sentinel->mutex);
                send(fds[i].fd, sentinel->reply, sentinel->len, MSG_NOSIGNAL);
                pthread_mutex_unlock(&sentinel->mutex);
            } else {
                close(fds[i].fd);
                fds[i--] = fds[--count];
            }
        }
    }
    for (nfds_t i = 2; i < count; i++)
        close(fds[i].fd);
    return NULL;
}

static inline void false_sentinel_say(struct false_sentinel *sentinel, const char *reply)
{
    pthread_mutex_lock(&sentinel->mutex);
    sentinel->len = strlen(reply);
    memcpy(sentinel->reply, reply, sentinel->len);
    pthread_mutex_unlock(&sentinel->mutex);
}

/* Says that the master is there. */
static inline void false_sentinel_point(struct false_sentinel *sentinel, const char *host, int port)
{
    char reply[256], number[8];
    snprintf(number, sizeof(number), "%d", port);
    snprintf(reply, sizeof(reply), "*2\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n", strlen(host), host,
             strlen(number), number);
    false_sentinel_say(sentinel, reply);
}

/* A port that the kernel gave and that nobody listens on now. */
static inline int free_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    bind(fd, (struct sockaddr *)&address, size);
    getsockname(fd, (struct sockaddr *)&address, &size);
    close(fd);
    return ntohs(address.sin_port);
}

/* `port` 0: the kernel gives one. */
static inline void false_sentinel_start(struct false_sentinel *sentinel, int port)
{
    *sentinel = (struct false_sentinel){.mutex = PTHREAD_MUTEX_INITIALIZER};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    int on = 1;
    sentinel->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(sentinel->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(sentinel->listener, (struct sockaddr *)&address, size) != 0 ||
        listen(sentinel->listener, 16) != 0 || pipe(sentinel->stop) != 0) {
        perror("false sentinel");
        abort();
    }
    getsockname(sentinel->listener, (struct sockaddr *)&address, &size);
    sentinel->port = ntohs(address.sin_port);
    pthread_create(&sentinel->thread, NULL, false_sentinel_main, sentinel);
}

static inline void false_sentinel_stop(struct false_sentinel *sentinel)
{
    if (!sentinel->port)
        return;
    close(sentinel->stop[1]);
    pthread_join(sentinel->thread, NULL);
    close(sentinel->stop[0]);
    close(sentinel->listener);
    sentinel->port = 0;
}
