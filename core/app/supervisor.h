/* The master: one thread, no libuv, curl, jq, hiredis, no plugin. It holds the listening socket and
 * the shared page, starts the front and the workers, and starts them again.
 *
 * A child that served and dies is started again at once; one that dies before it is ready, or five
 * times in ten seconds, waits with a growing pause. After a fatal signal the mark on the page names
 * the one task that is charged; SIGKILL charges nobody. Children watch the lifeline pipe: when the
 * master is gone they drain by themselves.
 *
 * On a reload (HUP, USR2) front and workers of a new generation (generation.h) take the place of
 * the old ones together; a configuration that is refused changes nothing. */
#pragma once

#include "app/child.h"
#include "app/config.h"
#include "app/listener.h"

/* `node` of the child that checks for a reload: it writes the reasons of a refusal into the
 * bundle's file, for the log; at the first start they are printed. */
#define SUPERVISOR_RELOAD "reload"

struct supervisor_setup {
    const struct config *config;
    const char *file; /* the configuration's file as the children shall load it; NULL: none */
    struct listener *listener; /* NULL: no front */
    int bundle_fd;             /* passes to it */
};
/* Runs until told to stop; the exit status: 0 after a stop, 1 when no child could be started. */
int supervisor_run(const struct supervisor_setup *setup);
/* Starts a child that checks configuration and pipelines and writes the bundle; true when it found
 * no error (it has printed what it found). */
bool supervisor_check(const char *file, int bundle_fd, struct error *err);
