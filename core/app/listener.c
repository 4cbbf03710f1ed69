/* See listener.h. The lock is held by the descriptor: the kernel drops it with the last process
 * that has it, so a master that was killed leaves no stale lock, and its socket's file is known to
 * be dead when the lock is free. Children do not inherit the lock. */
#include "app/listener.h"

#include "base/hash.h"
#include "base/mem.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTENER_BACKLOG 1024

static int listener_lock(struct listener *listener, struct error *err)
{
    mem_auto char *lock = mem_format("%s.lock", listener->path);
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        error_set(err, MR_E_SCHEMA, "cannot open %s: %s", lock, strerror(errno));
        error_hint(err, "the folder of the socket must exist and be writable: set \"listen\" to a "
                        "path in such a folder");
        return MR_E_SCHEMA;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        error_set(err, MR_E_SCHEMA, "already running: another millrace holds %s", lock);
        error_hint(err, "stop it, or give this one a \"listen\" of its own");
        return MR_E_SCHEMA;
    }
    listener->lock_fd = fd;
    return MR_OK;
}

static int listener_unix(struct listener *listener, const char *path, mode_t mode,
                         struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    if (len == 0 || path[0] != '/' || len >= sizeof address.sun_path)
        return error_set(
            err, MR_E_SCHEMA,
            "listen: the path of a unix socket must be absolute and shorter than %zu bytes: \"%s\"",
            sizeof address.sun_path, path);
    memcpy(address.sun_path, path, len + 1);
    listener->path = mem_dup(path);
    char hex[HASH_HEX_BYTES];
    hash_text(path, len, hex);
    snprintf(listener->instance, sizeof listener->instance, "%.12s", hex);
    int rc = listener_lock(listener, err);
    if (rc != MR_OK)
        return rc;
    struct stat st;
    if (lstat(path, &st) == 0) {
        if (!S_ISSOCK(st.st_mode))
            return error_set(err, MR_E_SCHEMA, "listen: %s exists and is not a socket", path);
        unlink(path);
    }
    listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener->fd < 0)
        return error_set(err, MR_E_INTERNAL, "cannot make a socket: %s", strerror(errno));
    mode_t old = umask(0177); /* nobody may connect before the mode is set */
    int bound = bind(listener->fd, (struct sockaddr *)&address, sizeof address);
    int saved = errno;
    umask(old);
    if (bound != 0)
        return error_set(err, MR_E_SCHEMA, "cannot listen on %s: %s", path, strerror(saved));
    listener->is_bound = true;
    if (chmod(path, mode) != 0)
        return error_set(err, MR_E_SCHEMA, "cannot set the mode of %s: %s", path, strerror(errno));
    return MR_OK;
}

static bool listener_is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >> 24 ==
               127;
    return address->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
}

static int listener_tcp(struct listener *listener, const char *address, bool trusted,
                        struct error *err)
{
    const char *colon = strrchr(address, ':');
    if (!colon || colon == address || !colon[1]) {
        error_set(err, MR_E_SCHEMA, "listen: \"%s\" is not an address", address);
        error_hint(err, "one of unix:/path/to.sock, fd:0, HOST:PORT");
        return MR_E_SCHEMA;
    }
    size_t host_len = (size_t)(colon - address);
    if (address[0] == '[' && colon[-1] == ']') {
        address++;
        host_len -= 2;
    }
    mem_auto char *host = mem_ndup(address, host_len);
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(host, colon + 1, &hints, &found);
    if (rc != 0)
        return error_set(err, MR_E_SCHEMA, "listen: %s: %s", host, gai_strerror(rc));
    int code = MR_OK;
    if (!trusted && !listener_is_loopback(found->ai_addr)) {
        code = error_set(err, MR_E_SCHEMA, "listen: %s is not a loopback address", host);
        error_hint(err, "FastCGI has no authentication: use a unix socket, or set "
                        "\"listen_trusted\": true on a private network");
    }
    if (code == MR_OK) {
        listener->fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int one = 1;
        if (listener->fd < 0 ||
            setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
            bind(listener->fd, found->ai_addr, found->ai_addrlen) != 0)
            code = error_set(err, MR_E_SCHEMA, "cannot listen on %s:%s: %s", host, colon + 1,
                             strerror(errno));
    }
    freeaddrinfo(found);
    return code;
}

static int listener_given(struct listener *listener, const char *number, struct error *err)
{
    char *end;
    long fd = strtol(number, &end, 10);
    int listening = 0;
    socklen_t len = sizeof listening;
    if (*end || end == number || fd < 0 || fd > 1 << 20)
        return error_set(err, MR_E_SCHEMA, "listen: \"fd:%s\" is not a descriptor", number);
    if (getsockopt((int)fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) != 0 || !listening) {
        error_set(err, MR_E_SCHEMA, "listen: descriptor %ld is not a listening socket", fd);
        error_hint(err,
                   "\"fd:0\" is for a process that a web server, spawn-fcgi or systemd starts");
        return MR_E_SCHEMA;
    }
    listener->fd = fcntl((int)fd, F_DUPFD_CLOEXEC, 3);
    return listener->fd < 0 ? error_set(err, MR_E_INTERNAL, "cannot keep descriptor %ld: %s", fd,
                                        strerror(errno))
                            : MR_OK;
}

int listener_open(const char *address, mode_t mode, bool trusted, struct listener *ret_listener,
                  struct error *err)
{
    struct listener listener = {.fd = -1, .lock_fd = -1};
    hash_random_hex(listener.instance, 6);
    int rc;
    if (strncmp(address, "unix:", 5) == 0)
        rc = listener_unix(&listener, address + 5, mode, err);
    else if (strncmp(address, "fd:", 3) == 0)
        rc = listener_given(&listener, address + 3, err);
    else
        rc = listener_tcp(&listener, address, trusted, err);
    if (rc == MR_OK && listen(listener.fd, LISTENER_BACKLOG) != 0)
        rc = error_set(err, MR_E_SCHEMA, "cannot listen on %s: %s", address, strerror(errno));
    if (rc != MR_OK) {
        listener_close(&listener);
        return rc;
    }
    *ret_listener = listener;
    return MR_OK;
}

void listener_close(struct listener *listener)
{
    if (listener->fd >= 0)
        close(listener->fd);
    if (listener->is_bound)
        unlink(listener->path);
    if (listener->lock_fd >= 0)
        close(listener->lock_fd);
    free(listener->path);
    *listener = (struct listener){.fd = -1, .lock_fd = -1};
}
