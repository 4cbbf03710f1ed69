/* A job by hand: run it again, erase it. */
#include "app/rerun.h"
#include "base/limits.h"
#include "fcgi/api_job_object.h"
#include "fcgi/problem.h"
#include "fcgi/shape.h"
#include "fcgi/submission.h"
#include <string.h>

/* ---- POST /api/v1/jobs/{id}/retry ---- */

static void report_from(struct exchange *exchange, struct response *response,
                        const struct error *reason)
{
    struct report report;
    report_init(&report);
    error_hint(report_add(&report, NULL, "/from", "%s", reason->message), "%s", reason->hint);
    problem_report(response, exchange->request.id, &report);
    report_done(&report);
}

static void answer_rerun(struct front *front, struct exchange *exchange, struct response *response,
                         const char *id, enum rerun_outcome outcome, const struct error *reason)
{
    const char *request_id = exchange->request.id;
    const char *comma = reason->hint[0] != '\0' ? "; " : "";
    struct job_view *view = NULL;
    switch (outcome) {
    case RERUN_OK:
        if (job_fetch(front, exchange, response, id, JOB_WANT_OUTPUTS, &view)) {
            job_answer(front, response, 202, view, true);
            job_view_free(view);
        }
        break;
    case RERUN_NONE:
        problem_make(response, PROBLEM_NOT_FOUND, request_id, reason->message);
        break;
    case RERUN_OPEN:
        problem_make(response, PROBLEM_JOB_NOT_FINISHED, request_id, reason->message);
        break;
    case RERUN_COMPLETED:
        problem_format(response, PROBLEM_JOB_ALREADY_FINISHED, request_id, "%s%s%s",
                       reason->message, comma, reason->hint);
        break;
    case RERUN_NO_STAGE:
    case RERUN_NOT_REACHED:
    case RERUN_NO_REVISION:
        report_from(exchange, response, reason);
        break;
    case RERUN_EXPIRED:
        problem_format(response, PROBLEM_EXPIRED, request_id, "%s%s%s", reason->message, comma,
                       reason->hint);
        break;
    }
}

/* `from` of the body, which may be absent altogether; false when the response is a problem. `body`
 * holds the text. */
static bool read_from(struct front *front, struct exchange *exchange, struct response *response,
                      json_t **ret_body, const char **ret_from)
{
    static const char *const members[] = {"from", NULL};
    *ret_from = NULL;
    *ret_body = NULL;
    if (exchange->request.body.len == 0) {
        return true;
    }
    uint64_t reserved = 0;
    *ret_body = submission_body(front, exchange, response, &reserved);
    if (*ret_body == NULL) {
        return false;
    }
    front_release(front, reserved); /* a few bytes, or about to be refused */
    struct report report;
    report_init(&report);
    if (json_is_object(*ret_body)) {
        shape_members(*ret_body, members, &report);
        *ret_from = shape_text(*ret_body, "from", LIMIT_BODY_BYTES, &report);
    } else {
        report_add(&report, NULL, "", "must be an object");
    }
    bool is_good = report_errors(&report) == 0;
    if (!is_good) {
        problem_report(response, exchange->request.id, &report);
    }
    report_done(&report);
    return is_good;
}

void jobs_retry(struct front *front, struct exchange *exchange, struct response *response)
{
    const char *id = exchange->request.arg[0];
    json_hold json_t *body = NULL;
    const char *from = NULL;
    struct job_view *view = NULL;
    if (!front_takes_work(front, exchange, response) ||
        !read_from(front, exchange, response, &body, &from) ||
        !job_fetch(front, exchange, response, id, 0, &view)) {
        return;
    }
    const struct rerun rerun = {.view = view,
                                .from = from,
                                .known = front_pipeline(front, view->pipeline),
                                .req = exchange->request.id};
    enum rerun_outcome outcome = RERUN_NONE;
    struct error reason;
    struct error err;
    wait_shield(1); /* it was asked for: a client that has left does not take it back */
    int rc = rerun_send(front->store, &rerun, &outcome, &reason, &err);
    wait_shield(-1);
    job_view_free(view);
    if (rc != MR_OK) {
        front_fail(exchange, response, &err);
    } else {
        answer_rerun(front, exchange, response, id, outcome, &reason);
    }
}

/* ---- DELETE /api/v1/jobs/{id} ---- */

void jobs_erase(struct front *front, struct exchange *exchange, struct response *response)
{
    const char *request_id = exchange->request.id;
    const char *id = exchange->request.arg[0];
    struct job_view *view = NULL;
    if (!job_fetch(front, exchange, response, id, 0, &view)) { /* whose job it is decides first */
        return;
    }
    job_view_free(view);
    struct error err;
    enum erase_outcome outcome = ERASE_NONE;
    wait_shield(1);
    int rc = job_erase(front->store, id, &outcome, &err);
    wait_shield(-1);
    if (rc != MR_OK) {
        front_fail(exchange, response, &err);
        return;
    }
    switch (outcome) {
    case ERASE_OK:
        response_reset(response, 204);
        break;
    case ERASE_NONE:
        problem_make(response, PROBLEM_NOT_FOUND, request_id,
                     "no job has this id, or it has expired");
        break;
    case ERASE_BUSY:
        problem_make(response, PROBLEM_JOB_NOT_FINISHED, request_id,
                     "a part of the job runs: cancel it, and erase it when it has ended");
        break;
    }
}
