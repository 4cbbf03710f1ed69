/* Problem details (RFC 9457): the one form of every error answer.
 *
 * `{"type":"urn:millrace:problem:SLUG","title","status","detail","instance","errors":[…]}`;
 * `detail` is always a string, `instance` the request's id, `errors` the places in the body that
 * are wrong.
 */
#pragma once

#include "base/error.h"
#include "fcgi/response.h"
#include "state/outage.h"

/* name, slug, status, title */
#define PROBLEMS(X)                                                                                \
    X(BAD_JSON, "bad-json", 400, "The request cannot be understood")                               \
    X(VALIDATION, "validation", 422, "The request does not have the shape that was asked for")     \
    X(NOT_FOUND, "not-found", 404, "There is no such thing")                                       \
    X(METHOD_NOT_ALLOWED, "method-not-allowed", 405, "The method is not offered here")             \
    X(PAYLOAD_TOO_LARGE, "payload-too-large", 413, "The request is too large")                     \
    X(UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", 415, "The body is not of a type we read")  \
    X(IDEMPOTENCY_KEY_REUSE, "idempotency-key-reuse", 422,                                         \
      "The idempotency key was used with another request")                                         \
    X(JOB_NOT_FINISHED, "job-not-finished", 409, "The job has not finished")                       \
    X(JOB_ALREADY_FINISHED, "job-already-finished", 409, "The job has already finished")           \
    X(JOB_FAILED, "job-failed", 424, "The job did not complete")                                   \
    X(UNAUTHORIZED, "unauthorized", 401, "A token is needed")                                      \
    X(FORBIDDEN, "forbidden", 403, "The token does not allow this")                                \
    X(RATE_LIMITED, "rate-limited", 429, "Too many requests")                                      \
    X(QUEUE_FULL, "queue-full", 429, "The queue is full")                                          \
    X(TOO_MANY_STREAMS, "too-many-streams", 429, "Too many event streams are open")                \
    X(DRAINING, "draining", 503, "The service is stopping")                                        \
    X(STORE_UNAVAILABLE, "store-unavailable", 503, "Redis cannot be reached")                      \
    X(EXPIRED, "expired", 410, "What was asked for has expired")                                   \
    X(INTERNAL, "internal", 500, "Something went wrong here")

enum problem {
#define PROBLEM_ENUM(name, slug, status, title) PROBLEM_##name,
    PROBLEMS(PROBLEM_ENUM)
#undef PROBLEM_ENUM
};

const char *problem_slug(enum problem problem);
int problem_status(enum problem problem);

/* Makes `response` the problem. `request_id` becomes the instance; `detail` may be NULL. */
void problem_make(struct response *response, enum problem problem, const char *request_id,
                  const char *detail);
void problem_format(struct response *response, enum problem problem, const char *request_id,
                    const char *format, ...) __attribute__((format(printf, 4, 5)));
/* The list of slugs is closed (docs/http-api.md), and one of them may stand for several troubles:
 * then the title tells them apart. */
/* 503 `store-unavailable` with title and detail of the outage, and Retry-After. */
void problem_store(struct response *response, const char *request_id, enum outage outage);
/* 503 `draining`, titled as full, and Retry-After: a limit of this process is reached. */
void problem_full(struct response *response, const char *request_id, const char *detail);
/* A `validation` problem with one entry of `errors` for each error of the report, whose `where` is
 * a JSON Pointer. */
void problem_report(struct response *response, const char *request_id, const struct report *report);
/* With a title of its own and one more member at the end (a JSON value, borrowed). */
void problem_with(struct response *response, enum problem problem, const char *title,
                  const char *request_id, const char *detail, const char *member,
                  const json_t *value);
/* The problem for an error record of the state layer: MR_E_STORE is problem_store, MR_E_STOPPING
 * draining, anything else internal; adds Retry-After to the 503s. */
void problem_error(struct response *response, const char *request_id, const struct error *err);
/* The 424 of a job that failed: `code` is the job's error code, and stands in the document. */
void problem_failed_job(struct response *response, const char *request_id, const char *code,
                        const char *message, const char *stage);
