/* The front's process, as a list of steps: see front_main. */
#include "fcgi/front_main.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "fcgi/front.h"
#include "run/pipeline.h"
#include "state/durable.h"
#include <stdio.h>
#include <string.h>

#define JOIN_FIRST_MS 1000u
#define JOIN_RETRY_MS 1000u
#define DRAIN_LOOK_MS 10u

/* After a reconnect Redis may be another one, or have forgotten: look again. */
static void on_redis(void *arg, bool up)
{
    struct front *front = arg;
    if (up && front->reconnected != NULL) {
        wait_wake(front->reconnected, MR_OK);
    }
}

static void on_stop(void *arg, enum stop_kind kind)
{
    struct front *front = arg;
    front->is_draining = true;
    atomic_store(&front->page->draining, 1);
    if (kind == STOP_NOW && front->acceptor != NULL) {
        acceptor_stop(front->acceptor);
        acceptor_cut(front->acceptor);
    }
    scope_cancel(&front->scope, MR_E_STOPPING);
}

/* Once, at the start, when a pipeline asks for what the server cannot do. */
static void warn_of_durability(struct front *front)
{
    enum durable_level asked = DURABLE_NONE;
    struct error err = {0};
    for (size_t i = 0; i < front->pipeline_count; i++) {
        if ((enum durable_level)front->pipelines[i]->durability == DURABLE_AOF) {
            asked = DURABLE_AOF;
        }
    }
    if (durable_check(front->store, asked, &err) == MR_E_SCHEMA) {
        log_event(LOG_WARN, "durability cannot be had", "error", err.message, "hint", err.hint,
                  NULL);
    }
}

/* Checks the store and leaves our revisions there. */
static int join_once(struct front *front, struct error *err)
{
    int rc = store_check(front->store, err);
    for (const struct pipeline_source *const *source = front->setup->sources;
         rc == MR_OK && *source != NULL; source++) {
        rc = revision_put(front->store, (*source)->name, (*source)->revision, (*source)->text,
                          (*source)->len, err);
    }
    front->outage = rc == MR_E_STORE && err != NULL ? outage_of(err) : OUTAGE_AWAY;
    if (rc == MR_OK) {
        bool is_first = !front->has_joined;
        front->has_joined = true;
        atomic_store(&front->page->ready, 1); /* it takes work from now on */
        if (is_first) {
            warn_of_durability(front);
        }
    }
    return rc;
}

/* Before the socket is served: after a reload the front of before serves meanwhile. Not for long:
 * without Redis there is still somebody who says so. */
static void join_first(struct front *front)
{
    struct scope scope;
    scope_init(&scope, &front->scope);
    scope_set_deadline(&scope, clock_now_ms() + JOIN_FIRST_MS, MR_E_TIMEOUT);
    scope_enter(&scope);
    struct error err = {0};
    join_once(front, &err);
    scope_enter(&front->scope);
    scope_done(&scope);
}

/* The same as often as it takes. The front serves all the while: it says 503 to submits. MR_OK,
 * MR_E_STOPPING, or what waiting does not mend. */
static int join(struct front *front, struct error *err)
{
    for (;;) {
        int rc = join_once(front, err);
        if (rc == MR_OK) {
            return MR_OK;
        }
        if (scope_error(&front->scope) != MR_OK) {
            return MR_E_STOPPING;
        }
        if (rc != MR_E_STORE && rc != MR_E_TIMEOUT) {
            return rc;
        }
        char times[24];
        if (log_pace(&front->joining, times)) {
            log_error("waiting for Redis", err, "times", times[0] != '\0' ? times : NULL, NULL);
        }
        if (wait_sleep(&front->loop, JOIN_RETRY_MS) != MR_OK) {
            return MR_E_STOPPING;
        }
    }
}

/* MR_OK after a reconnect, else what ends the scope. */
static int await_reconnect(struct front *front)
{
    struct wait wait;
    wait_init(&wait, &front->loop);
    front->reconnected = &wait;
    int rc = wait_for(&wait, UINT64_MAX);
    front->reconnected = NULL;
    return rc;
}

static int listen_for_requests(struct front *front, struct error *err)
{
    const struct config *config = front->config;
    const struct acceptor_setup setup = {
        .loop = &front->loop,
        .listen_fd = front->setup->listen_fd,
        .prefix = config->prefix != NULL ? config->prefix : "",
        .body_max_bytes = config->limits.body_max,
        .memory_max_bytes = config->limits.memory,
        .on_request = front_take,
        .arg = front,
    };
    front->acceptor = acceptor_open(&setup, err);
    return front->acceptor != NULL ? MR_OK : err->code;
}

/* Streams and waits end at once; other requests get `drain` to finish. */
static void drain(struct front *front)
{
    acceptor_stop(front->acceptor);
    front_end_stays(front);
    uint64_t limit = front->stop.kind == STOP_NOW ? 0 : front->config->drain_ms;
    uint64_t since = clock_now_ms();
    struct acceptor_stats stats;
    for (;;) {
        acceptor_get_stats(front->acceptor, &stats);
        if (stats.connections == 0 || clock_now_ms() - since >= limit ||
            front->stop.kind == STOP_NOW) {
            break;
        }
        wait_sleep(&front->loop, DRAIN_LOOK_MS);
    }
    if (stats.connections > 0) {
        log_line(LOG_INFO, "breaking off %zu connections", stats.connections);
    }
    acceptor_close(front->acceptor);
}

static void front_main(void *arg)
{
    struct front *front = arg;
    struct error err = {0};
    scope_enter(&front->scope);
    join_first(front);
    int rc = listen_for_requests(front, &err);
    if (rc == MR_OK) {
        char count[24];
        snprintf(count, sizeof(count), "%zu", front->pipeline_count);
        log_event(LOG_INFO, "ready", "pipelines", count, NULL);
        while ((rc = join(front, &err)) == MR_OK && await_reconnect(front) == MR_OK) {
        }
    }
    if (rc != MR_OK && rc != MR_E_STOPPING) {
        log_error("front cannot serve", &err, NULL);
        front->exit_code = 1;
        front->is_draining = true;
    }
    scope_enter(NULL);
    if (front->acceptor != NULL) {
        drain(front);
    }
    loop_stop(&front->loop);
}

int front_run(const struct front_setup *setup)
{
    struct front *front = mem_zalloc(sizeof(*front));
    struct error err = {0};
    int code = 1;
    fiber_set_limit((size_t)setup->config->limits.fibers_max);
    bool watches = false;
    int rc = front_open(front, setup, &err);
    if (rc == MR_OK) {
        hash_random_hex(front->page->instance, 16);
        redis_on_state(front->redis, on_redis, front);
        rc = stop_watch(&front->stop, &front->loop, setup->lifeline_fd, on_stop, front, &err);
        watches = rc == MR_OK;
    }
    if (rc == MR_OK) {
        rc = loop_spawn(&front->loop, NULL, front_main, front);
    }
    if (rc == MR_OK) {
        loop_run(&front->loop);
        code = front->exit_code;
    } else {
        log_error("front cannot start", &err, NULL);
    }
    if (watches) {
        stop_unwatch(&front->stop);
    }
    front_close(front);
    free(front);
    return code;
}
