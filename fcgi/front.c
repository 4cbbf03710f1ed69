/* The front: see front.h. */
#include "fcgi/front.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "fcgi/problem.h"
#include "run/pipeline.h"
#include "state/store.h"
#include <stdio.h>
#include <string.h>

struct pipeline *front_pipeline(const struct front *front, const char *name)
{
    for (size_t i = 0; i < front->pipeline_count; i++) {
        if (strcmp(front->pipelines[i]->name, name) == 0) {
            return front->pipelines[i];
        }
    }
    return NULL;
}

bool front_reserve(struct front *front, uint64_t bytes)
{
    if (front->memory_bytes + bytes > front->config->limits.memory) {
        return false;
    }
    front->memory_bytes += bytes;
    return true;
}

void front_release(struct front *front, uint64_t bytes)
{
    front->memory_bytes -= bytes;
}

bool front_has_store(struct front *front, struct exchange *exchange, struct response *response)
{
    if (store_is_up(front->store)) {
        return true;
    }
    problem_store(response, exchange->request.id,
                  outage_of_words(redis_reason(front->redis), OUTAGE_AWAY));
    return false;
}

bool front_takes_work(struct front *front, struct exchange *exchange, struct response *response)
{
    if (!front_has_store(front, exchange, response)) {
        return false;
    }
    if (!front->has_joined) {
        problem_store(response, exchange->request.id, front->outage);
        return false;
    }
    return true;
}

void front_fail(struct exchange *exchange, struct response *response, const struct error *err)
{
    problem_error(response, exchange->request.id, err);
    if (response->status == 500) {
        log_error("a request failed", err, "request", exchange->request.id, "target",
                  exchange->request.target, NULL);
    } else if (err->code == MR_E_STORE) {
        /* Redis's own words are for the operator; the answer has ours. */
        struct front *front = exchange->data;
        char times[24];
        if (log_pace(&front->refusals, times)) {
            log_event(LOG_WARN, "Redis refused what a request needs", "request",
                      exchange->request.id, "error", err->message, "detail", err->detail, "times",
                      times[0] != '\0' ? times : NULL, NULL);
        }
    }
}

/* ---- Stays ---- */

void front_stay_begin(struct front *front, struct exchange *exchange, struct front_stay *stay,
                      uint64_t may_last_ms)
{
    uint64_t deadline =
        may_last_ms == UINT64_MAX ? 0 : clock_now_ms() + may_last_ms + FRONT_REQUEST_MS;
    scope_set_deadline(&exchange->scope, deadline, MR_E_TIMEOUT);
    scope_init(&stay->scope, &exchange->scope);
    stay->outer = scope_enter(&stay->scope);
    stay->next = front->stays;
    stay->link = &front->stays;
    if (stay->next != NULL) {
        stay->next->link = &stay->next;
    }
    front->stays = stay;
    if (front->is_draining) {
        scope_cancel(&stay->scope, MR_E_STOPPING);
    }
}

void front_stay_end(struct front_stay *stay)
{
    *stay->link = stay->next;
    if (stay->next != NULL) {
        stay->next->link = stay->link;
    }
    scope_enter(stay->outer);
    scope_done(&stay->scope);
}

void front_end_stays(struct front *front)
{
    for (struct front_stay *stay = front->stays; stay != NULL; stay = stay->next) {
        scope_cancel(&stay->scope, MR_E_STOPPING);
    }
}

/* ---- Requests ---- */

static void refused(struct exchange *exchange, struct response *response)
{
    if (exchange->refusal == 503) {
        problem_full(response, exchange->request.id, exchange->refusal_text);
        return;
    }
    enum problem problem = exchange->refusal == 413 ? PROBLEM_PAYLOAD_TOO_LARGE : PROBLEM_BAD_JSON;
    problem_make(response, problem, exchange->request.id, exchange->refusal_text);
}

static bool is_allowed(struct front *front, struct exchange *exchange, struct response *response,
                       const struct route *route)
{
    const char *id = exchange->request.id;
    switch (auth_check(front->config, &exchange->request, route->scope, &exchange->token)) {
    case AUTH_OK:
        return true;
    case AUTH_UNKNOWN:
        problem_make(response, PROBLEM_UNAUTHORIZED, id, "send Authorization: Bearer TOKEN");
        response_header(response, "WWW-Authenticate", "Bearer realm=\"millrace\"");
        return false;
    case AUTH_REFUSED:
        problem_make(response, PROBLEM_FORBIDDEN, id, "the token lacks the scope for this");
        return false;
    }
    return false;
}

static void answer(struct front *front, struct exchange *exchange, struct response *response)
{
    struct request *request = &exchange->request;
    char allow[ROUTER_ALLOW_BYTES];
    const struct route *route = router_find(request, allow);
    if (route != NULL) {
        if (is_allowed(front, exchange, response, route)) {
            route->handler(front, exchange, response);
        }
    } else if (allow[0] != '\0') {
        problem_format(response, PROBLEM_METHOD_NOT_ALLOWED, request->id, "offered here: %s",
                       allow);
        response_header(response, "Allow", allow);
    } else {
        problem_make(response, PROBLEM_NOT_FOUND, request->id, "nothing is at this path");
    }
}

static void log_request(struct front *front, const struct exchange *exchange, int status,
                        uint64_t began_ms)
{
    if (!log_wants(status >= 500 ? LOG_WARN : LOG_DEBUG)) {
        return;
    }
    /* An outage answers every request with 503: a line for some of them says it. */
    char status_text[12], took[24], times[24];
    if (status == 503 && !log_pace(&front->unavailable, times)) {
        return;
    }
    snprintf(status_text, sizeof(status_text), "%d", status);
    snprintf(took, sizeof(took), "%llu", (unsigned long long)(clock_now_ms() - began_ms));
    log_event(status >= 500 ? LOG_WARN : LOG_DEBUG, "request", "request", exchange->request.id,
              "method", request_method_name(exchange->request.method), "target",
              exchange->request.target, "status", status_text, "ms", took, "times",
              status == 503 && times[0] != '\0' ? times : NULL, NULL);
}

static void handle(void *arg)
{
    struct exchange *exchange = arg;
    struct front *front = exchange->data;
    uint64_t began_ms = clock_now_ms();
    exchange->scope.deadline_ms = began_ms + FRONT_REQUEST_MS;
    struct response response;
    response_init(&response);
    if (exchange->refusal != 0) {
        refused(exchange, &response);
    } else {
        answer(front, exchange, &response);
    }
    atomic_fetch_sub_explicit(&front->page->running, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&front->page->served, 1, memory_order_relaxed);
    if (!exchange->is_answered) {
        log_request(front, exchange, response.status, began_ms);
        scope_enter(NULL);
        exchange_respond(exchange, &response);
    }
    response_done(&response);
}

void front_take(void *arg, struct exchange *exchange)
{
    struct front *front = arg;
    exchange->data = front;
    atomic_fetch_add_explicit(&front->page->running, 1, memory_order_relaxed);
    if (loop_spawn(&front->loop, &exchange->scope, handle, exchange) == MR_OK) {
        return;
    }
    atomic_fetch_sub_explicit(&front->page->running, 1, memory_order_relaxed);
    struct response response;
    response_init(&response);
    problem_full(&response, exchange->request.id, "more requests are open than limits.fibers_max");
    exchange_respond(exchange, &response);
    response_done(&response);
}

/* ---- Life ---- */

static int load_pipelines(struct front *front, struct error *err)
{
    const struct pipeline_source *const *sources = front->setup->sources;
    size_t count = 0;
    while (sources[count] != NULL) {
        count++;
    }
    front->pipelines = mem_zalloc((count + 1) * sizeof(*front->pipelines));
    static const struct pipeline_setup structure_only = {0};
    for (size_t i = 0; i < count; i++) {
        struct report report;
        report_init(&report);
        struct pipeline *pipeline = pipeline_build(sources[i], &structure_only, &report);
        if (pipeline == NULL) {
            error_set(err, MR_E_SCHEMA, "pipeline %s: %s", sources[i]->name,
                      report.count > 0 ? report.items[0].message : "refused");
            report_done(&report);
            return MR_E_SCHEMA;
        }
        report_done(&report);
        front->pipelines[front->pipeline_count++] = pipeline;
    }
    return MR_OK;
}

int front_open(struct front *front, const struct front_setup *setup, struct error *err)
{
    static struct page_slot none; /* without a master nobody reads it */
    memset(front, 0, sizeof(*front));
    front->setup = setup;
    front->config = setup->config;
    front->page = setup->page != NULL ? setup->page : &none;
    int rc = loop_init(&front->loop, err);
    if (rc != MR_OK) {
        return rc;
    }
    watchdog_start(&front->loop, &front->page->mark);
    scope_init(&front->scope, NULL);
    const struct config *config = setup->config;
    front->redis = redis_open(&front->loop, setup->redis, "front");
    front->sub = redis_sub_open(&front->loop, setup->redis, "front-events");
    struct store_config store = {
        .loop = &front->loop,
        .redis = front->redis,
        .where = setup->redis,
        .prefix = config->redis.prefix,
        .partitions = (uint32_t)config->redis.partitions,
        .max_crashes = (uint32_t)config->max_crashes,
        .retention_status_ms = config->retention_status_ms,
        .retention_result_ms = config->retention_result_ms,
        .lease_ms = config->lease_ms,
        .dead_budget = (uint32_t)config->dead_budget,
        .dead_breaker = (uint32_t)config->dead_breaker,
    };
    for (size_t i = 0; i < config->dead_schedule_count && i < STORE_SCHEDULE_MAX; i++) {
        store.dead_schedule_ms[store.dead_schedule_count++] = config->dead_schedule_ms[i];
    }
    rc = store_open(&store, &front->store, err);
    return rc == MR_OK ? load_pipelines(front, err) : rc;
}

void front_close(struct front *front)
{
    if (front->setup == NULL) {
        return;
    }
    for (size_t i = 0; i < front->pipeline_count; i++) {
        pipeline_unref(front->pipelines[i]);
    }
    free(front->pipelines);
    if (front->store != NULL) {
        store_close(front->store);
    }
    if (front->sub != NULL) {
        redis_sub_close(front->sub);
    }
    if (front->redis != NULL) {
        redis_close(front->redis);
        scope_done(&front->scope);
    }
    loop_done(&front->loop);
    fiber_trim();
}
