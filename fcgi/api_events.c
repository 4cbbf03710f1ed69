/* A job's events: as a stream that begins where the client left off, or as a list. */
#include "base/clock.h"
#include "base/limits.h"
#include "fcgi/api_job_object.h"
#include "fcgi/problem.h"
#include "fcgi/sse.h"
#include "state/watch.h"
#include <stdio.h>
#include <string.h>

#define EVENTS_PAGE     100u
#define EVENTS_PAGE_MAX 200u

/* A counting number; false when it is none. */
static bool parse_number(const char *text, uint64_t max, uint64_t *ret)
{
    uint64_t value = 0;
    if (*text == '\0' || strlen(text) > 18) {
        return false;
    }
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9') {
            return false;
        }
        value = value * 10 + (uint64_t)(*text - '0');
    }
    *ret = value;
    return value <= max;
}

/* `Last-Event-ID`, else `?after`, else 0. */
static bool read_position(const struct request *request, struct response *response,
                          uint64_t *ret_after)
{
    const char *header = request_header(request, "Last-Event-ID");
    const char *query = request_query(request, "after");
    const char *text = header != NULL ? header : query;
    *ret_after = 0;
    if (text == NULL || parse_number(text, UINT64_MAX, ret_after)) {
        return true;
    }
    problem_format(response, PROBLEM_BAD_JSON, request->id, "%s must be the number of an event",
                   header != NULL ? "Last-Event-ID" : "after");
    return false;
}

/* ---- As a stream ---- */

static size_t backlog(void *arg)
{
    return watch_backlog(arg);
}

/* Sends events until the job's last, the end of the client, of the stream's time or of ours. */
static void follow(struct sse *sse, struct watch *watch)
{
    uint64_t until = clock_now_ms() + SSE_AGE_MS;
    int rc = MR_OK;
    bool is_last = false;
    while (rc == MR_OK && !is_last && clock_now_ms() < until) {
        struct job_event event;
        struct error err;
        rc = watch_next(watch, SSE_HEARTBEAT_MS, &event, &err);
        if (rc == MR_E_TIMEOUT) {
            rc = sse_comment(sse, "still here");
        } else if (rc == MR_OK) {
            is_last = event.is_last;
            rc = sse_event(sse, event.number, event.kind, event.data, event.len);
            job_event_done(&event);
        }
    }
}

static void stream(struct front *front, struct exchange *exchange, struct response *response,
                   const char *id, uint64_t after)
{
    if (front->streams >= (size_t)front->config->limits.streams_max) {
        problem_make(response, PROBLEM_TOO_MANY_STREAMS, exchange->request.id,
                     "limits.streams_max event streams are open");
        response_header(response, "Retry-After", "10");
        return;
    }
    front->streams++;
    struct front_stay stay;
    front_stay_begin(front, exchange, &stay, UINT64_MAX);
    struct watch *watch = NULL;
    struct error err;
    int rc = watch_open(front->store, front->sub, id, after, &watch, &err);
    if (rc != MR_OK) {
        front_stay_end(&stay);
        front->streams--;
        front_fail(exchange, response, &err);
        return;
    }
    watch_set_patient(watch, true);
    struct sse sse;
    rc = sse_open(&sse, &front->loop, exchange);
    sse.backlog = backlog;
    sse.backlog_arg = watch;
    if (rc == MR_OK) {
        follow(&sse, watch);
    }
    watch_close(watch);
    front_stay_end(&stay);
    front->streams--;
    sse_close(&sse);
}

/* ---- As a list ---- */

static void list(struct front *front, struct exchange *exchange, struct response *response,
                 const char *id, uint64_t after)
{
    const struct request *request = &exchange->request;
    const char *limit_text = request_query(request, "limit");
    uint64_t limit = EVENTS_PAGE;
    if (limit_text != NULL && (!parse_number(limit_text, EVENTS_PAGE_MAX, &limit) || limit == 0)) {
        problem_format(response, PROBLEM_BAD_JSON, request->id, "limit must be 1 to %u",
                       EVENTS_PAGE_MAX);
        return;
    }
    struct error err;
    struct job_event *events = NULL;
    size_t count = 0;
    uint64_t total = 0;
    if (job_events(front->store, id, after, (uint32_t)limit, &events, &count, &total, &err) !=
        MR_OK) {
        front_fail(exchange, response, &err);
        return;
    }
    struct buf text;
    buf_init(&text, (size_t)(EVENTS_PAGE_MAX + 1) * (LIMIT_EVENT_BYTES + 512));
    buf_add_text(&text, "{\"object\":\"list\",\"data\":[");
    uint64_t last = after;
    for (size_t i = 0; i < count; i++) {
        buf_format(&text, "%s{\"id\":%llu,\"event\":\"%s\",\"data\":", i > 0 ? "," : "",
                   (unsigned long long)events[i].number, events[i].kind);
        buf_add(&text, events[i].data, events[i].len);
        buf_add_char(&text, '}');
        last = events[i].number;
        job_event_done(&events[i]);
    }
    free(events);
    buf_format(&text, "],\"has_more\":%s,\"last_id\":%llu}", last < total ? "true" : "false",
               (unsigned long long)last);
    response_json_text(response, 200, &text);
    buf_done(&text);
}

void events_get(struct front *front, struct exchange *exchange, struct response *response)
{
    const struct request *request = &exchange->request;
    const char *id = request->arg[0];
    bool as_stream = request->method == METHOD_GET && request_accepts(request, "text/event-stream");
    uint64_t after = 0;
    struct job_view *view = NULL;
    if (!read_position(request, response, &after) ||
        !job_fetch(front, exchange, response, id, 0, &view)) {
        return;
    }
    bool is_over = view->is_ended && view->next_retry_ms == 0;
    bool is_expired = view->is_ended && !view->has_log && after < view->events;
    bool is_current = is_over && after >= view->events;
    job_view_free(view);
    if (is_expired) {
        problem_make(response, PROBLEM_EXPIRED, request->id,
                     "the events have expired; the job itself is still there");
    } else if (as_stream && is_current) {
        response->status = 204; /* an EventSource does not come back after this */
    } else if (as_stream) {
        stream(front, exchange, response, id, after);
    } else {
        list(front, exchange, response, id, after);
    }
}
