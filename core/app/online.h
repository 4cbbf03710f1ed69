/* Being connected, for the command line: a loop, Redis and the store around one function on a
 * fiber. */
#pragma once

#include "app/config.h"
#include "state/watch.h"

struct online {
    const struct config *config;
    struct loop loop;
    struct redis *redis;
    struct redis_sub *sub; /* opened by the first online_sub */
    struct redis_config where;
    struct store *store;
};
/* Connects, checks the store and runs fn(online, arg) on a fiber; its result, or 1 after the reason
 * was printed. */
int online_run(const struct config *config, int (*fn)(struct online *online, void *arg), void *arg);
/* As online_run, without the check of the store: for fsck, which mends what would stop it there. */
int online_run_unchecked(const struct config *config, int (*fn)(struct online *online, void *arg),
                         void *arg);
/* The subscriber connection. */
struct redis_sub *online_sub(struct online *online);
