/* The worker process, as a list of steps: see worker_run and worker_main. */
#include "work/work.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/log.h"
#include <stdio.h>
#include <string.h>

#define WORKER_END_MS   3000u /* for handing back, once `drain` is over */
#define WORKER_PAUSE_MS 500u  /* before Redis is asked again whether it will do */

/* ---- Queues ---- */

static bool worker_serves(const struct worker *worker, const char *queue)
{
    for (const char *const *each = worker->setup->queues; *each; each++)
        if (strcmp(*each, "*") == 0 || strcmp(*each, queue) == 0)
            return true;
    return false;
}

struct worker_queues {
    struct worker *worker;
    const char *names[LIMIT_STAGES];
    size_t count;
};

static void worker_add_queue(struct worker_queues *queues, const char *name)
{
    for (size_t i = 0; i < queues->count; i++)
        if (strcmp(queues->names[i], name) == 0)
            return;
    if (queues->count < LIMIT_STAGES && worker_serves(queues->worker, name))
        queues->names[queues->count++] = name;
}

static void worker_add_queues(void *arg, struct pipeline *pipeline)
{
    for (uint32_t i = 0; i < pipeline->stage_count; i++)
        worker_add_queue(arg, pipeline->stages[i].queue);
}

/* Every queue that the pipelines name and this host serves, in each class and partition. `default`
 * is always among them: follow-ups live there. */
static void worker_make_streams(struct worker *worker)
{
    struct worker_queues queues = {.worker = worker};
    worker_add_queue(&queues, "default");
    revision_each_own(worker->revisions, worker_add_queues, &queues);
    size_t each = queues.count * QUEUE_CLASSES;
    worker->stream_count = each * worker->store->partitions;
    worker->streams = mem_zalloc((worker->stream_count + 1) * sizeof *worker->streams);
    struct lane_stream *at = worker->streams;
    for (uint32_t partition = 0; partition < worker->store->partitions; partition++)
        for (int class = 0; class < QUEUE_CLASSES; class ++)
            for (size_t i = 0; i < queues.count; i++)
                *at++ = (struct lane_stream){.partition = partition,
                                             .queue = queues.names[i],
                                             .class = (enum queue_class) class};
}

/* ---- Pipelines ---- */

static int worker_load(struct worker *worker, struct error *err)
{
    const struct pipeline_setup setup = {.plugins = worker->plugins,
                                         .has_endpoint = worker->setup->has_endpoint,
                                         .arg = worker->setup->arg};
    for (const struct pipeline_source *const *source = worker->setup->sources; *source; source++) {
        struct report report;
        report_init(&report);
        struct pipeline *pipeline = pipeline_build(*source, &setup, &report);
        if (pipeline)
            revision_add(worker->revisions, pipeline, true);
        else
            error_set(err, MR_E_SCHEMA, "pipeline %s: %s", (*source)->name,
                      report.count ? report.items[0].message : "refused");
        report_done(&report);
        if (!pipeline)
            return MR_E_SCHEMA;
    }
    return MR_OK;
}

/* ---- Bells ---- */

static void worker_on_bell(struct redis_listener *listener, const char *text, size_t len)
{
    struct worker *worker = listener->data;
    char job[ID_BYTES];
    uint32_t number;
    if (!text || !worker_bell_parse(text, len, job, &number))
        return; /* after an interruption the next renewal says what was missed */
    struct work_lane *lane = work_lane_find(worker, job, number);
    if (lane)
        work_lane_stop(lane);
}

static int worker_listen(struct worker *worker, struct error *err)
{
    worker->bells = mem_zalloc(worker->store->partitions * sizeof *worker->bells);
    for (uint32_t i = 0; i < worker->store->partitions; i++) {
        char channel[STORE_KEY_BYTES];
        worker->bells[i] = (struct redis_listener){.fn = worker_on_bell, .data = worker};
        int rc = redis_listen(worker->sub, worker_bell(worker->store, i, channel),
                              &worker->bells[i], 0, err);
        if (rc != MR_OK)
            return rc;
    }
    return MR_OK;
}

static void worker_on_redis(void *arg, bool up)
{
    struct worker *worker = arg;
    worker->up_since_ms = up ? clock_now_ms() : 0;
    worker->look_at_own = true;
    log_event(up ? LOG_INFO : LOG_WARN, up ? "connected to Redis" : "Redis is away", NULL);
    if (worker->claim_wait)
        wait_wake(worker->claim_wait, MR_OK);
}

/* ---- Start, drain, end ---- */

int worker_put_revisions(struct worker *worker, struct error *err)
{
    int rc = MR_OK;
    for (const struct pipeline_source *const *source = worker->setup->sources;
         rc == MR_OK && *source; source++)
        rc = revision_put(worker->store, (*source)->name, (*source)->revision, (*source)->text,
                          (*source)->len, err);
    return rc;
}

/* All of it may be sent again: a reply may be lost anywhere. */
static int worker_register(struct worker *worker, const char *name, const char *instance,
                           const char *reaped, struct error *err)
{
    struct page_slot *page = worker->setup->page;
    int rc = store_check(worker->store, err);
    if (rc == MR_OK)
        rc = worker_enroll(worker->store, name, instance, reaped, err);
    if (rc != MR_OK)
        return rc;
    /* From here on the master names this instance, not the one before, to the next child. */
    snprintf(page->name, sizeof page->name, "%s", worker->store->worker);
    snprintf(page->instance, sizeof page->instance, "%s", instance);
    return worker_put_revisions(worker, err);
}

/* Tries until Redis answers, then checks it and registers. What cannot be mended by waiting ends
 * the process. */
static int worker_join(struct worker *worker, struct error *err)
{
    struct page_slot *page = worker->setup->page;
    char name[PAGE_NAME], instance[33];
    hash_random_hex(instance, 16);
    const char *reaped = page->reaped[0] ? page->reaped : NULL;
    if (reaped) /* its name may have a suffix: what is pending stands under that name */
        snprintf(name, sizeof name, "%s", page->reaped_name);
    else
        snprintf(name, sizeof name, "%s/w%d", worker->setup->node, worker->setup->slot);
    int rc;
    while ((rc = worker_register(worker, name, instance, reaped, err)) == MR_E_STORE &&
           scope_error(&worker->scope) == MR_OK) {
        worker_trouble(worker, TROUBLE_START, "waiting for Redis", err);
        wait_sleep(&worker->loop, WORKER_PAUSE_MS);
    }
    if (rc == MR_OK)
        work_durable_check(worker);
    return rc == MR_OK ? worker_listen(worker, err) : rc;
}

/* Waits until no lane is in hand, at most `ms`. */
static void worker_await_lanes(struct worker *worker, uint64_t ms)
{
    if (worker->held == 0)
        return;
    struct wait wait;
    wait_init(&wait, &worker->loop);
    worker->drain_wait = &wait;
    wait_for(&wait, ms);
    worker->drain_wait = NULL;
}

/* Waits for the lanes in hand, at most `drain`; then they are cancelled and hand themselves back.
 * Without Redis they cannot: then they end as they are, and their leases run out. */
static void worker_drain(struct worker *worker)
{
    if (worker->held && worker->stop.kind != STOP_NOW) {
        log_line(LOG_INFO, "draining: %zu lanes in hand", worker->held);
        worker_await_lanes(worker, worker->setup->drain_ms);
    }
    if (worker->held)
        log_line(LOG_INFO, "handing back %zu lanes", worker->held);
    worker->runner.stopping = true;
    worker->store->patience_ms = worker->store->ask_ms = WORKER_END_MS;
    scope_cancel(&worker->lanes_scope, MR_E_STOPPING);
    worker_await_lanes(worker, WORKER_END_MS);
    redis_hurry(worker->redis);
    group_wait(&worker->lanes_group);
    runner_settle(&worker->runner);
}

static void worker_on_stop(void *arg, enum stop_kind kind)
{
    struct worker *worker = arg;
    worker->draining = true;
    atomic_store(&worker->setup->page->draining, 1);
    scope_cancel(&worker->scope, MR_E_STOPPING);
    if (kind == STOP_NOW && worker->drain_wait)
        wait_wake(worker->drain_wait, MR_OK);
}

/* Says which queues this process serves; Redis being away is no reason to end. */
static int worker_tell_queues(struct worker *worker, struct error *err)
{
    struct buf queues;
    buf_init(&queues, LIMIT_STAGES * STORE_NAME_BYTES);
    size_t count = worker->stream_count / worker->store->partitions / QUEUE_CLASSES;
    for (size_t i = 0; i < count; i++)
        buf_format(&queues, "%s%s", i ? "," : "", worker->streams[i].queue);
    int rc =
        worker_serve(worker->store, buf_text(&queues), (uint32_t)worker->setup->concurrency, err);
    buf_done(&queues);
    return rc == MR_E_STORE ? MR_OK : rc;
}

static void worker_main(void *arg)
{
    struct worker *worker = arg;
    struct error err = {0};
    scope_enter(&worker->scope);
    int rc = worker_join(worker, &err);
    if (rc == MR_OK)
        worker_make_streams(worker);
    if (rc == MR_OK && worker->stream_count == 0)
        rc = error_set(&err, MR_E_SCHEMA,
                       "there is nothing to serve: \"queues\" names none of the pipelines' queues");
    if (rc == MR_OK)
        rc = worker_tell_queues(worker, &err);
    if (rc == MR_OK && (worker->keeper = keeper_start(worker, &err)) == NULL)
        rc = err.code;
    if (rc != MR_OK) {
        if (scope_error(&worker->scope) == MR_OK) {
            log_error("worker cannot start", &err, NULL);
            worker->exit_code = 1;
        }
        loop_stop(&worker->loop);
        return;
    }
    worker->look_at_own = true;
    void (*const services[])(void *) = {claim_fiber, reclaim_fiber, mover_fiber};
    for (size_t i = 0; i < sizeof services / sizeof services[0]; i++)
        if (group_spawn(&worker->services, &worker->scope, services[i], worker) != MR_OK)
            worker_on_stop(worker, STOP_NOW);
    atomic_store(&worker->setup->page->ready, 1);
    log_event(LOG_INFO, "ready", "worker", worker->store->worker, NULL);
    group_wait(&worker->services); /* they end when the scope is cancelled */
    scope_enter(NULL);
    redis_close(worker->blocking); /* what it was about to be given stays in the queue */
    worker->blocking = NULL;
    worker_drain(worker);
    if (store_is_up(worker->store)) /* without Redis the leases decide, and nobody waits for it */
        claim_hand_back(worker);
    keeper_stop(worker->keeper);
    if (store_is_up(worker->store) && worker_leave(worker->store, &err) != MR_OK)
        log_error("registration could not be taken back", &err, NULL);
    loop_stop(&worker->loop);
}

static int worker_open(struct worker *worker, struct error *err)
{
    const struct worker_setup *setup = worker->setup;
    int rc = loop_init(&worker->loop, err);
    if (rc != MR_OK)
        return rc;
    expr_set_trampoline(fiber_on_loop);
    watchdog_start(&worker->loop, &setup->page->mark);
    scope_init(&worker->scope, NULL);
    scope_init(&worker->lanes_scope, NULL);
    group_init(&worker->lanes_group, &worker->loop);
    group_init(&worker->services, &worker->loop);
    rc = stop_watch(&worker->stop, &worker->loop, setup->lifeline_fd, worker_on_stop, worker, err);
    const struct http_config http = {.in_flight_max = setup->concurrency * 2,
                                     .allow = setup->address_allow};
    if (rc == MR_OK)
        rc = http_open(&worker->loop, &http, &worker->http, err);
    if (rc != MR_OK)
        return rc;
    worker->redis = redis_open(&worker->loop, setup->redis, "worker");
    worker->blocking = redis_open(&worker->loop, setup->redis, "worker-queues");
    worker->sub = redis_sub_open(&worker->loop, setup->redis, "worker-events");
    redis_on_state(worker->redis, worker_on_redis, worker);
    struct store_config store = {.loop = &worker->loop,
                                 .redis = worker->redis,
                                 .where = setup->redis,
                                 .prefix = setup->prefix,
                                 .partitions = setup->partitions,
                                 .max_crashes = setup->max_crashes,
                                 .retention_status_ms = setup->retention_status_ms,
                                 .retention_result_ms = setup->retention_result_ms,
                                 .lease_ms = setup->lease_ms};
    store.dead_budget = setup->dead_budget;
    store.dead_breaker = setup->dead_breaker;
    for (; store.dead_schedule_count < setup->dead_schedule_count &&
           store.dead_schedule_count < STORE_SCHEDULE_MAX;
         store.dead_schedule_count++)
        store.dead_schedule_ms[store.dead_schedule_count] =
            setup->dead_schedule_ms[store.dead_schedule_count];
    rc = store_open(&store, &worker->store, err);
    if (rc != MR_OK)
        return rc;
    worker->store->ask_ms = UINT64_MAX; /* an outage costs a task time, not an attempt */
    runner_init(&worker->runner, &worker->loop, worker->http);
    worker->runner.find_endpoint = setup->find_endpoint;
    worker->runner.arg = setup->arg;
    worker->runner.http_begin = work_http_begin;
    worker->runner.http_end = work_http_end;
    worker->runner.id_namespace = setup->id_namespace;
    worker->plugins = plugin_registry_new(setup->plugin_folders);
    worker->revisions = revision_table_new();
    return worker_load(worker, err);
}

static void worker_close(struct worker *worker)
{
    runner_done(&worker->runner);
    revision_table_free(worker->revisions);
    plugin_registry_free(worker->plugins);
    for (uint32_t i = 0; worker->bells && i < worker->store->partitions; i++)
        redis_unlisten(worker->sub, &worker->bells[i]);
    free(worker->bells);
    free(worker->streams);
    store_close(worker->store);
    redis_sub_close(worker->sub);
    redis_close(worker->blocking);
    redis_close(worker->redis);
    http_close(worker->http);
    stop_unwatch(&worker->stop);
    scope_done(&worker->lanes_scope);
    scope_done(&worker->scope);
    loop_done(&worker->loop);
    fiber_trim();
}

int worker_run(const struct worker_setup *given)
{
    static struct page_slot none; /* without a master nobody reads it */
    struct worker_setup setup = *given;
    if (!setup.page)
        setup.page = &none;
    struct worker *worker = mem_zalloc(sizeof *worker);
    worker->setup = &setup;
    worker->waiting_end = &worker->waiting;
    struct error err = {0};
    int code = 1;
    fiber_set_limit(setup.fibers_max + setup.concurrency);
    if (worker_open(worker, &err) != MR_OK) {
        log_error("worker cannot start", &err, NULL);
    } else if (loop_spawn(&worker->loop, NULL, worker_main, worker) != MR_OK) {
        log_line(LOG_ERROR, "worker cannot start: no stack");
    } else {
        loop_run(&worker->loop);
        code = worker->exit_code;
        worker_close(worker);
    }
    free(worker);
    return code;
}
