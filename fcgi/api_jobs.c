/* Jobs over HTTP: submit, read, result, cancel. */
#include "base/clock.h"
#include "base/limits.h"
#include "fcgi/api_job_object.h"
#include "fcgi/problem.h"
#include "fcgi/submission.h"
#include "state/watch.h"
#include <stdio.h>
#include <string.h>

/* ---- Waiting ---- */

/* Waits at most `ms` until the job has ended (or, with `any`, until anything happens to it that
 * event number `after` did not tell). The watch begins at `after`. Errors are not the request's: it
 * answers with what there is. False when too many wait already. */
static bool wait_for_job(struct front *front, struct exchange *exchange, const char *id,
                         uint64_t after, bool any, uint64_t ms)
{
    if (ms == 0 || front->waiters >= FRONT_WAITERS) {
        return false;
    }
    front->waiters++;
    struct front_stay stay;
    front_stay_begin(front, exchange, &stay, ms);
    uint64_t until = clock_now_ms() + ms;
    struct watch *watch = NULL;
    struct error err;
    int rc = watch_open(front->store, front->sub, id, after, &watch, &err);
    bool over = false;
    while (rc == MR_OK && !over) {
        uint64_t now = clock_now_ms();
        struct job_event event;
        rc = watch_next(watch, now < until ? until - now : 0, &event, &err);
        if (rc == MR_OK) {
            over = any || event.is_last;
            job_event_done(&event);
        }
    }
    if (watch != NULL) {
        watch_close(watch);
    }
    front_stay_end(&stay);
    front->waiters--;
    return true;
}

static void note_wait(struct response *response, uint64_t ms)
{
    response_header_format(response, "Preference-Applied", "wait=%llu",
                           (unsigned long long)(ms / 1000));
}

/* ---- POST /api/v1/jobs ---- */

static bool read_submission(struct front *front, struct exchange *exchange,
                            struct response *response, const json_t *body,
                            struct submission *submission)
{
    const char *request_id = exchange->request.id;
    struct report report;
    report_init(&report);
    enum submission_fault fault = submission_read(front, body, submission, &report);
    switch (fault) {
    case SUBMISSION_OK:
        break;
    case SUBMISSION_SHAPE:
        problem_report(response, request_id, &report);
        break;
    case SUBMISSION_COUNT:
        problem_format(response, PROBLEM_PAYLOAD_TOO_LARGE, request_id, "%s %s",
                       report.items[0].where, report.items[0].message);
        break;
    case SUBMISSION_NO_PIPELINE:
        problem_format(response, PROBLEM_NOT_FOUND, request_id, "there is no pipeline \"%s\"",
                       json_text_or(body, "pipeline", ""));
        break;
    }
    report_done(&report);
    return fault == SUBMISSION_OK;
}

static void answer_submitted(struct front *front, struct exchange *exchange,
                             struct response *response, const char *id,
                             const struct job_submitted *submitted)
{
    uint64_t wait_ms = 0;
    bool waits = request_prefers_wait(&exchange->request, front->config->limits.wait_max, &wait_ms);
    bool had_ended = job_status_is_ended(submitted->status);
    if (waits && !had_ended) {
        waits = wait_for_job(front, exchange, id, 0, false, wait_ms);
    }
    struct job_view *view = NULL;
    if (!job_fetch(front, exchange, response, id, JOB_WANT_OUTPUTS, &view)) {
        if (response->status == 404) { /* a failover between the two calls */
            problem_make(response, PROBLEM_STORE_UNAVAILABLE, exchange->request.id,
                         "Redis has forgotten the job that it had just stored: send it again");
            response_header(response, "Retry-After", "1");
        }
        return;
    }
    /* A new job is 202 even when it has ended between the two calls: the client did not wait. */
    bool is_done = view->is_ended && (waits || submitted->outcome == JOB_SAME);
    job_answer(front, response, is_done ? 200 : 202, view, true);
    if (waits) {
        note_wait(response, wait_ms);
    }
    if (submitted->outcome == JOB_SAME) {
        response_header(response, "Idempotent-Replayed", "true");
    }
    job_view_free(view);
}

static void submit(struct front *front, struct exchange *exchange, struct response *response,
                   struct submission *submission, const char *key)
{
    const char *request_id = exchange->request.id;
    struct error err;
    if (submission_prepare(front, submission, key, &err) != MR_OK) {
        if (err.code == MR_E_SCHEMA) {
            problem_make(response, PROBLEM_VALIDATION, request_id, err.message);
        } else {
            front_fail(exchange, response, &err);
        }
        return;
    }
    struct job_submitted submitted;
    if (submission_send(front, submission, &submitted, &err) != MR_OK) {
        front_fail(exchange, response, &err);
        return;
    }
    /* From here on only the id counts: the documents go before anything is waited for. */
    submission_forget(front, submission);
    exchange_forget_body(exchange);
    switch (submitted.outcome) {
    case JOB_CONFLICT:
        problem_make(response, PROBLEM_IDEMPOTENCY_KEY_REUSE, request_id,
                     "this key, or this id, belongs to a request with another body");
        break;
    case JOB_FULL:
        problem_make(response, PROBLEM_QUEUE_FULL, request_id,
                     "the queue is as long as limits.queue_max");
        response_header(response, "Retry-After", "5");
        break;
    case JOB_NEW:
    case JOB_SAME:
    case JOB_AGAIN:
        answer_submitted(front, exchange, response, submission->id, &submitted);
        break;
    }
}

void jobs_submit(struct front *front, struct exchange *exchange, struct response *response)
{
    struct request *request = &exchange->request;
    if (!front_takes_work(front, exchange, response)) {
        return;
    }
    char key[LIMIT_IDEMPOTENCY_KEY + 1];
    int has_key = request_idempotency_key(request, key);
    if (has_key < 0) {
        problem_make(response, PROBLEM_BAD_JSON, request->id,
                     "Idempotency-Key must be 1 to 255 visible ASCII characters, or a string in "
                     "quotes");
        return;
    }
    struct submission submission;
    submission_init(&submission);
    json_t *body = submission_body(front, exchange, response, &submission.reserved);
    if (body == NULL) {
        submission_done(&submission);
        return;
    }
    submission.text_len = request->body.len;
    submission.token = exchange->token;
    bool is_good = read_submission(front, exchange, response, body, &submission);
    json_decref(body); /* the input lives on by its reference */
    if (is_good) {
        submit(front, exchange, response, &submission, has_key > 0 ? key : NULL);
    }
    submission_forget(front, &submission);
    submission_done(&submission);
}

/* ---- GET /api/v1/jobs/{id} ---- */

void jobs_get(struct front *front, struct exchange *exchange, struct response *response)
{
    struct request *request = &exchange->request;
    const char *id = request->arg[0];
    struct job_view *view = NULL;
    if (!job_fetch(front, exchange, response, id, JOB_WANT_OUTPUTS, &view)) {
        return;
    }
    char etag[JOB_ETAG_BYTES];
    job_etag(view, etag);
    bool has_condition = request_header(request, "If-None-Match") != NULL;
    uint64_t wait_ms = 0;
    bool waits = request_prefers_wait(request, front->config->limits.wait_max, &wait_ms);
    if (waits && !view->is_ended && (!has_condition || request_none_match(request, etag))) {
        uint64_t position = view->events;
        job_view_free(view);
        view = NULL;
        waits = wait_for_job(front, exchange, id, position, true, wait_ms);
        if (!job_fetch(front, exchange, response, id, JOB_WANT_OUTPUTS, &view)) {
            return;
        }
        job_etag(view, etag);
    }
    if (has_condition && request_none_match(request, etag)) {
        response->status = 304;
        response_header(response, "ETag", etag);
        unsigned retry_after = job_retry_after(view);
        if (retry_after > 0) {
            response_header_format(response, "Retry-After", "%u", retry_after);
        }
    } else {
        job_answer(front, response, 200, view, false);
    }
    if (waits) {
        note_wait(response, wait_ms);
    }
    job_view_free(view);
}

/* ---- GET /api/v1/jobs/{id}/result ---- */

void jobs_result(struct front *front, struct exchange *exchange, struct response *response)
{
    const char *request_id = exchange->request.id;
    struct job_view *view = NULL;
    if (!job_fetch(front, exchange, response, exchange->request.arg[0], 0, &view)) {
        return;
    }
    if (!view->is_ended) {
        problem_format(response, PROBLEM_JOB_NOT_FINISHED, request_id, "the job is %s",
                       view->status);
        response_header_format(response, "Retry-After", "%u", job_retry_after(view));
    } else if (strcmp(view->status, "completed") == 0) {
        const char *text = view->result != NULL ? view->result : "null";
        size_t len = view->result != NULL ? view->result_len : 4;
        response->status = 200;
        response_steal(response, "application/json", mem_ndup(text, len), len);
    } else {
        json_hold json_t *root = NULL;
        struct job_fault fault;
        job_fault_read(view, &root, &fault);
        problem_failed_job(response, request_id, fault.code, fault.message, fault.stage);
    }
    job_view_free(view);
}

/* ---- POST /api/v1/jobs/{id}/cancel ---- */

void jobs_cancel(struct front *front, struct exchange *exchange, struct response *response)
{
    const char *request_id = exchange->request.id;
    const char *id = exchange->request.arg[0];
    if (!id_is_valid(id)) {
        problem_make(response, PROBLEM_NOT_FOUND, request_id, "no job has this id");
        return;
    }
    if (!front_has_store(front, exchange, response)) {
        return;
    }
    struct job_view *view = NULL;
    if (exchange->token != NULL) { /* whose job it is decides first */
        if (!job_fetch(front, exchange, response, id, 0, &view)) {
            return;
        }
        job_view_free(view);
    }
    struct error err;
    enum cancel_outcome outcome = CANCEL_NONE;
    wait_shield(1);
    int rc = job_cancel(front->store, id, NULL, 0, &outcome, &err);
    wait_shield(-1);
    if (rc != MR_OK) {
        front_fail(exchange, response, &err);
        return;
    }
    if (outcome == CANCEL_NONE) {
        problem_make(response, PROBLEM_NOT_FOUND, request_id,
                     "no job has this id, or it has expired");
        return;
    }
    if (outcome == CANCEL_ENDED) {
        problem_make(response, PROBLEM_JOB_ALREADY_FINISHED, request_id,
                     "the job had ended before");
        return;
    }
    if (job_fetch(front, exchange, response, id, JOB_WANT_OUTPUTS, &view)) {
        job_answer(front, response, outcome == CANCEL_DONE ? 200 : 202, view, false);
        job_view_free(view);
    }
}
