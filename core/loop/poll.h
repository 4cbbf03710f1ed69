/* Watching a file descriptor: a uv_poll_t with a life of its own, for the seams to libraries that
 * own their sockets (curl, hiredis, libfcgi). */
#pragma once

#include "loop/loop.h"

struct poll;

/* Watches nothing yet; sets O_NONBLOCK on `fd`, which stays its owner's. `status` is 0 or a
 * negative errno, `events` of UV_READABLE, UV_WRITABLE, UV_DISCONNECT. NULL when the descriptor
 * cannot be watched (a regular file, not open). Callbacks run on the loop's stack. */
struct poll *poll_open(struct loop *loop, int fd, void (*fn)(void *arg, int status, int events),
                       void *arg);
/* What is watched from now on; 0: nothing. MR_E_INTERNAL when the kernel refuses. */
int poll_set(struct poll *poll, int events);
/* No callback comes after this call; the descriptor may be closed at once. NULL is fine. */
void poll_close(struct poll *poll);
