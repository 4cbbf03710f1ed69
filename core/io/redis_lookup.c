#include "io/redis_lookup.h"
#include "base/mem.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static atomic_int threads;

struct question {
    int fd;
    char host[];
};

bool lookup_is_address(const char *host)
{
    unsigned char bytes[16];
    return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

static void take(struct lookup *answer, const struct addrinfo *found, int family)
{
    for (; found && answer->count < LOOKUP_ADDRESSES; found = found->ai_next) {
        const void *bytes = NULL;
        if (found->ai_family == AF_INET && family == AF_INET)
            bytes = &((const struct sockaddr_in *)(const void *)found->ai_addr)->sin_addr;
        else if (found->ai_family == AF_INET6 && family == AF_INET6)
            bytes = &((const struct sockaddr_in6 *)(const void *)found->ai_addr)->sin6_addr;
        if (bytes && inet_ntop(family, bytes, answer->addresses[answer->count], LOOKUP_BYTES))
            answer->count++;
    }
}

static void *lookup_main(void *arg)
{
    struct question *question = arg;
    struct lookup answer = {0};
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found = NULL;
    answer.code = getaddrinfo(question->host, NULL, &hints, &found);
    if (answer.code == 0) {
        take(&answer, found, AF_INET);
        take(&answer, found, AF_INET6);
        freeaddrinfo(found);
    }
    /* Less than PIPE_BUF: whole or not at all. Nobody may be there any more, and SIGPIPE is
     * ignored (redis_link.c). */
    ssize_t written = write(question->fd, &answer, sizeof(answer));
    (void)written;
    close(question->fd);
    free(question);
    atomic_fetch_sub(&threads, 1);
    return NULL;
}

int lookup_start(const char *host, struct error *err)
{
    int ends[2];
    if (atomic_fetch_add(&threads, 1) >= LOOKUP_THREADS) {
        atomic_fetch_sub(&threads, 1);
        error_set(err, MR_E_CONNECT, "the resolver hangs: %d look-ups are under way",
                  LOOKUP_THREADS);
        return -1;
    }
    if (pipe2(ends, O_CLOEXEC) != 0) {
        atomic_fetch_sub(&threads, 1);
        error_set(err, MR_E_CONNECT, "no pipe for a look-up: %s", strerror(errno));
        return -1;
    }
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    size_t len = strlen(host);
    struct question *question = mem_zalloc(sizeof(*question) + len + 1);
    question->fd = ends[1];
    memcpy(question->host, host, len + 1);
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int rc = pthread_create(&thread, &attr, lookup_main, question);
    pthread_attr_destroy(&attr);
    if (rc == 0)
        return ends[0];
    atomic_fetch_sub(&threads, 1);
    close(ends[0]);
    close(ends[1]);
    free(question);
    error_set(err, MR_E_CONNECT, "no thread for a look-up: %s", strerror(rc));
    return -1;
}

int lookup_read(int fd, struct lookup *ret, struct error *err)
{
    struct lookup answer = {0};
    if (read(fd, &answer, sizeof(answer)) != (ssize_t)sizeof(answer))
        return error_set(err, MR_E_CONNECT, "the look-up ended without an answer");
    if (answer.code != 0)
        return error_set(err, MR_E_CONNECT, "%s", gai_strerror(answer.code));
    if (answer.count == 0)
        return error_set(err, MR_E_CONNECT, "the name has no address");
    *ret = answer;
    return MR_OK;
}
