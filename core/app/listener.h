/* The listening socket: a unix socket with its mode and a lock beside it, TCP, or a descriptor that
 * was handed over. */
#pragma once

#include "base/error.h"
#include <sys/types.h>

struct listener {
    int fd;
    int lock_fd;       /* -1: none */
    char *path;        /* of the unix socket, NULL otherwise */
    bool is_bound;     /* the file at `path` is this socket */
    char instance[24]; /* names this installation on its host: a hash of the socket's path, random
                          without one */
};

/* `address`: "unix:/path", "fd:0" or "HOST:PORT". TCP beyond loopback needs `trusted`, because
 * whoever may write to a FastCGI socket may make libfcgi abort. A unix socket is taken over only
 * when nobody holds the lock `PATH.lock`: "already running" otherwise. MR_E_SCHEMA for an address
 * that is none. */
int listener_open(const char *address, mode_t mode, bool trusted, struct listener *ret_listener,
                  struct error *err);
/* Removes the socket's file too. */
void listener_close(struct listener *listener);
