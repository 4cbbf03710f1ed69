/* A generation: the children of one configuration, from their start until the last one has ended.
 *
 * A reload starts a second generation beside the first one, on slots of the page that are free;
 * when all of it serves, the first one is told to end. Children get configuration and pipelines
 * from the generation's bundle, never from files: one that dies and is started again is the same as
 * before, whatever stands in the files by then. */
#pragma once

#include "app/child.h"
#include "app/config.h"
#include "work/page.h"

enum generation_state {
    GENERATION_STARTING, /* beside one that serves: a death ends it */
    GENERATION_SERVING,  /* children that die are started again */
    GENERATION_ENDING,   /* told to stop */
};

struct generation_setup {
    struct page *page;
    int page_fd, lifeline_fd;
    int listen_fd; /* -1: no front */
    const char *node, *file;
    enum config_role role; /* of the first start */
};
struct generation;

/* Makes a generation from a bundle, whose descriptor passes to it also on failure; nothing is
 * started yet. `busy`: slots that other generations use. MR_E_INTERNAL when the bundle cannot be
 * read or there are not enough free slots. */
int generation_new(const struct generation_setup *setup, int bundle_fd, enum generation_state state,
                   const bool busy[PAGE_SLOTS], struct generation **ret, struct error *err);
void generation_free(struct generation *generation);
/* What it was started with. Borrowed. */
const struct config *generation_config(const struct generation *generation);
enum generation_state generation_state(const struct generation *generation);
void generation_set_serving(struct generation *generation);
/* Sets the slots that it uses. */
void generation_mark(const struct generation *generation, bool busy[PAGE_SLOTS]);

/* Starts what is due, and kills what did not end in time. Returns when to be called again:
 * clock_now_ms() time, UINT64_MAX: nothing is due. */
uint64_t generation_turn(struct generation *generation);
/* A process has ended. False: it is none of this generation. */
bool generation_reap(struct generation *generation, pid_t pid, int status);
/* Sends a signal to every child. */
void generation_signal(const struct generation *generation, int sig);
/* Tells every child to stop: TERM (drain, then KILL) or INT (at once). A second call may shorten
 * the time, not lengthen it. */
void generation_end(struct generation *generation, int sig);
/* Every child serves. */
bool generation_is_ready(const struct generation *generation);
/* No child takes anything new any more. */
bool generation_is_draining(const struct generation *generation);
/* A child of a starting generation has died: it will not do. */
bool generation_has_failed(const struct generation *generation);
/* It was told to end, and no process of it is left. */
bool generation_is_over(const struct generation *generation);
