/* Dead letters over HTTP: list, run again, discard. All of it is for the scope `admin`. */
#include "base/clock.h"
#include "base/limits.h"
#include "fcgi/paging.h"
#include "fcgi/problem.h"
#include "fcgi/shape.h"
#include "fcgi/submission.h"
#include "state/dead.h"
#include <string.h>

#define DEAD_NAME_BYTES 64u    /* of a pipeline, a stage, a code */
#define DEAD_SWEEP_MAX  10000u /* letters a request acts on, then it says has_more */
#define DEAD_SWEEP_MS   8000u
#define DEAD_LIST_BYTES (16u << 20)

/* ---- GET /api/v1/dead ---- */

static void add_text(struct buf *text, const char *name, const char *value)
{
    buf_format(text, ",\"%s\":", name);
    if (*value == '\0') {
        buf_add_text(text, "null");
    } else {
        buf_add_json_string(text, value, strlen(value));
    }
}

static void add_time(struct buf *text, const char *name, uint64_t ms)
{
    char time[25];
    clock_format(ms, time);
    add_text(text, name, time);
}

static void add_letter(struct buf *text, const struct dead_letter *letter)
{
    buf_format(text, "{\"id\":\"%s\"", letter->id);
    add_text(text, "pipeline", letter->pipeline);
    add_text(text, "stage", letter->stage);
    add_text(text, "class", letter->class);
    add_text(text, "code", letter->code);
    add_text(text, "message", letter->message);
    buf_format(text, ",\"attempts\":%u", letter->attempts);
    add_text(text, "fingerprint", letter->fingerprint);
    add_time(text, "at", letter->at_ms);
    add_time(text, "next_retry_at", letter->next_retry_ms);
    buf_add_char(text, '}');
}

/* The filter of a query; false when the response is a 400. */
static bool query_filter(const struct request *request, struct response *response,
                         struct dead_filter *ret)
{
    *ret = (struct dead_filter){.pipeline = request_query(request, "pipeline"),
                                .stage = request_query(request, "stage"),
                                .code = request_query(request, "code")};
    if (!dead_filter_before(ret, request_query(request, "before"))) {
        problem_make(response, PROBLEM_BAD_JSON, request->id,
                     "before must be a date and time of RFC 3339 (a + in a query is %2B)");
        return false;
    }
    return true;
}

void dead_get(struct front *front, struct exchange *exchange, struct response *response)
{
    struct dead_filter filter;
    struct paging paging;
    if (!paging_read(&exchange->request, response, &paging) ||
        !query_filter(&exchange->request, response, &filter) ||
        !front_has_store(front, exchange, response)) {
        return;
    }
    if (paging.before_ms != 0 && (filter.before_ms == 0 || paging.before_ms < filter.before_ms)) {
        filter.before_ms = paging.before_ms;
    }
    struct dead_page page;
    struct error err;
    int rc = dead_list(front->store, &filter, paging.after, paging.limit, PAGING_MS, &page, &err);
    if (rc == MR_E_LOST) {
        paging_expired(exchange, response);
        return;
    }
    if (rc != MR_OK) {
        front_fail(exchange, response, &err);
        return;
    }
    struct buf text;
    buf_init(&text, DEAD_LIST_BYTES);
    paging_begin(&text);
    for (size_t i = 0; i < page.count; i++) {
        if (i > 0) {
            buf_add_char(&text, ',');
        }
        add_letter(&text, &page.letters[i]);
    }
    const char *last = page.count > 0 ? page.letters[page.count - 1].id : NULL;
    paging_end(&text, page.has_more, page.has_more ? page.last_id : last);
    response_json_text(response, 200, &text);
    buf_done(&text);
    dead_page_done(&page);
}

/* ---- POST /api/v1/dead/retry, /api/v1/dead/discard ---- */

struct order {
    struct dead_filter filter; /* texts borrowed from the body */
    bool is_dry;
};

/* A filter that meets everything is most likely a slip, at night and with consequences: it has to
 * be said. */
static void read_order(const json_t *body, struct order *ret, struct report *report)
{
    static const char *const members[] = {"pipeline", "stage",   "code", "before",
                                          "all",      "dry_run", NULL};
    struct dead_filter *filter = &ret->filter;
    shape_members(body, members, report);
    filter->pipeline = shape_text(body, "pipeline", DEAD_NAME_BYTES, report);
    filter->stage = shape_text(body, "stage", DEAD_NAME_BYTES, report);
    filter->code = shape_text(body, "code", DEAD_NAME_BYTES, report);
    const char *before = shape_text(body, "before", DEAD_NAME_BYTES, report);
    if (!dead_filter_before(filter, before)) {
        report_add(report, NULL, "/before", "must be a date and time of RFC 3339");
    }
    bool is_all = shape_bool(body, "all", report);
    ret->is_dry = shape_bool(body, "dry_run", report);
    /* `before` alone says when, not what: pages of "all" carry it. */
    bool is_wide = filter->pipeline == NULL && filter->stage == NULL && filter->code == NULL;
    if (report_errors(report) > 0) {
        return;
    }
    if (is_all && !is_wide) {
        report_add(report, NULL, "/all", "must not stand beside pipeline, stage or code");
    } else if (!is_all && is_wide && before == NULL) {
        error_hint(report_add(report, NULL, "", "names none of pipeline, stage, code, before"),
                   "\"all\": true acts on every dead letter");
    }
}

static void sweep(struct front *front, struct exchange *exchange, struct response *response,
                  const struct order *order, enum dead_action action)
{
    struct error err;
    struct dead_sweep swept;
    if (order->is_dry) {
        action = DEAD_COUNT;
    }
    if (dead_sweep(front->store, &order->filter, action, exchange->request.id,
                   order->is_dry ? 0 : DEAD_SWEEP_MAX, DEAD_SWEEP_MS, &swept, &err) != MR_OK) {
        front_fail(exchange, response, &err);
        return;
    }
    char before[25];
    clock_format(swept.before_ms, before);
    struct buf text;
    buf_init(&text, 256);
    buf_format(&text, "{\"matched\":%llu,\"done\":%llu,\"has_more\":%s,\"before\":\"%s\"}",
               (unsigned long long)swept.matched, (unsigned long long)swept.done,
               swept.has_more ? "true" : "false", before);
    response_json_text(response, order->is_dry ? 200 : 202, &text);
    buf_done(&text);
}

static void act(struct front *front, struct exchange *exchange, struct response *response,
                enum dead_action action)
{
    if (!front_has_store(front, exchange, response)) {
        return;
    }
    uint64_t reserved = 0;
    json_hold json_t *body = submission_body(front, exchange, response, &reserved);
    if (body == NULL) {
        return;
    }
    struct report report;
    report_init(&report);
    struct order order = {0};
    if (json_is_object(body)) {
        read_order(body, &order, &report);
    } else {
        report_add(&report, NULL, "", "must be an object");
    }
    if (report_errors(&report) > 0) {
        problem_report(response, exchange->request.id, &report);
    } else {
        sweep(front, exchange, response, &order, action);
    }
    report_done(&report);
    front_release(front, reserved);
}

void dead_retry(struct front *front, struct exchange *exchange, struct response *response)
{
    if (front_takes_work(front, exchange, response)) {
        act(front, exchange, response, DEAD_RETRY);
    }
}

void dead_drop(struct front *front, struct exchange *exchange, struct response *response)
{
    act(front, exchange, response, DEAD_DISCARD);
}
