/* What the front's process runs: the loop, Redis, the acceptor, and a fiber for each request. */
#pragma once

#include "app/config.h"
#include "io/redis.h"
#include "work/page.h"

struct front_setup {
    const struct config *config;
    const struct redis_config *redis;
    int listen_fd;
    int lifeline_fd;                              /* -1: none (role front on fd:0) */
    struct page_slot *page;                       /* NULL: none */
    const struct pipeline_source *const *sources; /* NULL-ended */
    const json_t *plugins;                        /* versions by name; NULL: not known */
};
/* Runs until TERM, INT or the master's end; open requests are answered first (drain). The process's
 * exit status. */
int front_run(const struct front_setup *setup);
