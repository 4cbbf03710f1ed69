/* Fuzzing what a client controls before anything is stored: parameters (method, path, query,
 * headers) and the body of POST /api/v1/jobs. The input is lines NAME=value, an empty line, and the
 * body.
 *
 * Besides not crashing: what comes out of a request is UTF-8 without NUL in every place that it may
 * be shown, a response made from it has no header that the client could have split, and an id is an
 * id. */
#include "base/utf8.h"
#include "fcgi/problem.h"
#include "fcgi/submission.h"
#include "run/pipeline.h"
#include <stdlib.h>
#include <string.h>

#define PARAMS_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct config config;
static struct front front;

static void demand(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void prepare(void)
{
    static const char text[] =
        "{\"name\":\"p\",\"input\":{\"required\":[\"a\"],\"properties\":{\"a\":{\"type\":"
        "\"string\","
        "\"maxLength\":10},\"n\":{\"type\":\"array\",\"items\":{\"type\":\"number\"}}}},"
        "\"stages\":[{\"name\":\"s\",\"plugin\":\"echo\"}]}";
    static struct pipeline *pipelines[1];
    static const struct pipeline_setup structure_only = {0};
    struct report report;
    report_init(&report);
    struct pipeline_source *source =
        pipeline_source_new("p", "p.json", "/", text, sizeof(text) - 1);
    pipelines[0] = pipeline_build(source, &structure_only, &report);
    demand(pipelines[0] != NULL);
    pipeline_source_free(source);
    report_done(&report);
    config.id_namespace = ID_NAMESPACE_DEFAULT;
    front.config = &config;
    front.pipelines = pipelines;
    front.pipeline_count = 1;
}

static void body(const char *text, size_t len)
{
    struct error err;
    json_t *value = json_read(text, len, 0, &err);
    if (value == NULL) {
        demand(utf8_is_valid(err.message, strlen(err.message)));
        return;
    }
    struct submission submission;
    submission_init(&submission);
    struct report report;
    report_init(&report);
    struct response response;
    response_init(&response);
    enum submission_fault fault = submission_read(&front, value, &submission, &report);
    if (fault == SUBMISSION_SHAPE) {
        demand(report_errors(&report) > 0);
        problem_report(&response, "r", &report);
        json_t *problem = json_read(response.body, response.body_len, 0, &err);
        demand(response.status == 422 && problem != NULL);
        json_decref(problem);
    } else if (fault == SUBMISSION_OK &&
               submission_prepare(&front, &submission, NULL, &err) == MR_OK) {
        demand(id_is_valid(submission.id));
        /* The canonical form is a fixed point. */
        json_t *again =
            json_read(submission.job.canonical.data, submission.job.canonical.len, 0, &err);
        struct buf text2;
        buf_init(&text2, 64u << 20);
        demand(again != NULL && json_canonical_to(again, &text2));
        demand(strcmp(buf_text(&text2), buf_text(&submission.job.canonical)) == 0);
        buf_done(&text2);
        json_decref(again);
    }
    response_done(&response);
    report_done(&report);
    submission_done(&submission);
    json_decref(value);
}

static void check_response(const struct request *request)
{
    struct response response;
    response_init(&response);
    problem_make(&response, PROBLEM_NOT_FOUND, request->id, "x");
    response_header(&response, "X-Echo", request->path);
    response_header(&response, "X-Echo", request->target);
    struct buf head;
    buf_init(&head, 1u << 20);
    if (response_head(&response, request->id, &head)) {
        /* Lines: each ends with CR LF, none holds either alone. */
        for (const char *at = head.data; *at != '\0'; at++) {
            demand(*at != '\r' || at[1] == '\n');
            demand(*at != '\n' || (at > head.data && at[-1] == '\r'));
        }
    }
    buf_done(&head);
    response_done(&response);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (front.config == NULL) {
        prepare();
    }
    char *text = malloc(size + 1);
    memcpy(text, data, size);
    text[size] = '\0';
    const char *params[PARAMS_MAX + 1];
    size_t count = 0;
    char *at = text, *end = text + size;
    while (at < end && *at != '\n' && count < PARAMS_MAX) {
        params[count++] = at;
        at += strcspn(at, "\n");
        if (at < end) {
            *at++ = '\0';
        }
    }
    params[count] = NULL;
    struct request request;
    request_init(&request, count % 2 == 0 ? "" : "/p", params, 1u << 20);
    char allow[64];
    router_find(&request, allow);
    for (size_t i = 0; request.fault == NULL && i < request.queries; i++) {
        demand(utf8_is_valid(request.query[i].name, strlen(request.query[i].name)));
        demand(utf8_is_valid(request.query[i].value, strlen(request.query[i].value)));
    }
    uint64_t wait_ms = 0;
    if (request_prefers_wait(&request, 25000, &wait_ms)) {
        demand(wait_ms <= 25000);
    }
    char key[256];
    if (request_idempotency_key(&request, key) == 1) {
        demand(strlen(key) >= 1 && strlen(key) <= 255);
    }
    request_accepts(&request, "text/event-stream");
    request_none_match(&request, "\"1\"");
    request_check_json_type(&request);
    check_response(&request);
    request_done(&request);
    if (at < end) {
        body(at + 1, (size_t)(end - at - 1));
    }
    free(text);
    return 0;
}
