/* What a child process inherits: its role, its slot and its descriptors, by number, through one
 * environment variable.
 *
 * Children are fork + exec of the same program with an argv[0] of their own ("millrace: worker 2"),
 * so that what they run is clean memory and `ps` says who is who. Every descriptor of the master is
 * close-on-exec but those that a child is given. */
#pragma once

#include "base/error.h"
#include <sys/types.h>

enum child_role { CHILD_NONE, CHILD_CHECK, CHILD_FRONT, CHILD_WORKER };

struct child {
    enum child_role role;
    int slot;        /* on the shared page; the front is 0 */
    int page_fd;     /* -1: none, as are those below */
    int lifeline_fd; /* end of file here: the master is gone, drain */
    int listen_fd;   /* the front's */
    int bundle_fd;   /* the pipelines (bundle.h); the check's child writes it */
    char node[128];  /* HOST/INSTANCE, the first part of a worker's name */
};

/* What this process was started as; CHILD_NONE when by hand. Removes the variable from the
 * environment. */
int child_from_env(struct child *ret_child, struct error *err);
/* "front", "worker 2", "check": for titles and log lines. */
void child_title(const struct child *child, char ret_title[32]);
/* Starts a child with the configuration `file` (NULL: searched). MR_E_INTERNAL when it cannot fork;
 * an exec that fails shows as exit status 127. */
int child_spawn(const struct child *child, const char *file, pid_t *ret_pid, struct error *err);
