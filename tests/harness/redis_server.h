/* A redis-server of a test's own: on a unix socket in a temporary folder, without persistence, and
 * gone with the test program (PR_SET_PDEATHSIG). Include in one file of a program. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct redis_server {
    char dir[64];
    char path[96]; /* of the socket */
    char url[128]; /* unix:PATH */
    pid_t pid;     /* 0: not running */
};

/* Connects; -1 with errno. */
static inline int redis_server_connect(const struct redis_server *server)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", server->path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Sends an inline command and reads one block of reply into `ret` (NUL-ended); for set-up and for
 * what the tested client must not do. */
static inline void redis_server_ask(const struct redis_server *server, const char *command,
                                    char *ret, size_t size)
{
    ret[0] = '\0';
    int fd = redis_server_connect(server);
    if (fd < 0)
        return;
    char line[1024];
    int len = snprintf(line, sizeof(line), "%s\r\n", command);
    if (write(fd, line, (size_t)len) == len) {
        ssize_t got = read(fd, ret, size - 1);
        ret[got > 0 ? got : 0] = '\0';
    }
    close(fd);
}

/* The folder and the names, without a server yet. */
static inline void redis_server_prepare(struct redis_server *server)
{
    *server = (struct redis_server){0};
    snprintf(server->dir, sizeof(server->dir), "/tmp/mr-redis-XXXXXX");
    if (!mkdtemp(server->dir)) {
        perror("mkdtemp");
        abort();
    }
    snprintf(server->path, sizeof(server->path), "%s/redis.sock", server->dir);
    snprintf(server->url, sizeof(server->url), "unix:%s", server->path);
}

/* Runs redis-server with up to eight more words ("--requirepass", "x", NULL) and returns when it
 * answers. */
static inline void redis_server_run(struct redis_server *server, const char *const *more)
{
    int ready[2], status = 0;
    if (pipe2(ready, O_CLOEXEC) != 0)
        abort();
    server->pid = fork();
    if (server->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        const char *argv[32] = {"redis-server",
                                "--port",
                                "0",
                                "--unixsocket",
                                server->path,
                                "--save",
                                "",
                                "--appendonly",
                                "no",
                                "--loglevel",
                                "warning",
                                "--dir",
                                server->dir,
                                "--enable-debug-command",
                                "yes"};
        size_t n = 15;
        for (; more && *more && n < 30; more++)
            argv[n++] = *more;
        int null = open("/dev/null", O_RDWR);
        dup2(null, 0);
        dup2(null, 1);
        fcntl(ready[1], F_DUPFD, 10); /* without FD_CLOEXEC: closed when the server ends */
        execvp("redis-server", (char *const *)argv);
        perror("redis-server");
        _exit(127);
    }
    close(ready[1]);
    for (int tries = 0; tries < 4000; tries++) {
        char reply[64];
        redis_server_ask(server, "PING", reply, sizeof(reply));
        if (reply[0] == '+' || (reply[0] == '-' && strstr(reply, "NOAUTH"))) {
            close(ready[0]);
            return;
        }
        /* 5 ms, or sooner when the server has died. */
        struct pollfd died = {.fd = ready[0], .events = POLLIN};
        poll(&died, 1, 5);
        if (waitpid(server->pid, &status, WNOHANG) == server->pid) {
            fprintf(stderr, "redis-server ended with status %x\n", (unsigned)status);
            abort();
        }
    }
    fprintf(stderr, "redis-server did not start\n");
    abort();
}

static inline void redis_server_start(struct redis_server *server)
{
    redis_server_prepare(server);
    redis_server_run(server, NULL);
}

/* kill -9: what it held is forgotten. */
static inline void redis_server_kill(struct redis_server *server)
{
    if (server->pid == 0)
        return;
    kill(server->pid, SIGKILL);
    waitpid(server->pid, NULL, 0);
    server->pid = 0;
    unlink(server->path);
}

static inline void redis_server_pause(struct redis_server *server)
{
    kill(server->pid, SIGSTOP);
}

static inline void redis_server_continue(struct redis_server *server)
{
    kill(server->pid, SIGCONT);
}

static inline void redis_server_stop(struct redis_server *server)
{
    redis_server_kill(server);
    rmdir(server->dir);
}
