/* Submissions: see submission.h. */
#include "fcgi/submission.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/unit.h"
#include "fcgi/problem.h"
#include "fcgi/shape.h"
#include "loop/offload.h"
#include "run/pipeline.h"
#include <stdio.h>
#include <string.h>

#define METADATA_TEXT_BYTES 1024u /* of one name or value */

void submission_init(struct submission *submission)
{
    memset(submission, 0, sizeof(*submission));
    submission->priority = "normal";
    enqueue_init(&submission->job, NULL);
    submission->id = submission->job.id;
}

void submission_done(struct submission *submission)
{
    json_decref(submission->input);
    free(submission->metadata);
    enqueue_done(&submission->job);
}

static void read_duration(const json_t *value, const char *pointer, uint64_t *ret_ms,
                          struct report *report)
{
    struct error err;
    if (!json_is_string(value)) {
        report_add(report, NULL, pointer, "must be a duration, such as \"10s\"");
    } else if (unit_parse_duration(json_string_value(value), ret_ms, &err) != MR_OK) {
        error_hint(report_add(report, NULL, pointer, "%s", err.message), "%s", err.hint);
    }
}

/* An instant, as it is: when it has come is for Redis's clock to say, not for this host's. */
static void read_run_at(const json_t *value, uint64_t *ret_at_ms, struct report *report)
{
    int64_t at_ms = json_is_string(value) ? clock_parse(json_string_value(value)) : -1;
    uint64_t now_ms = clock_wall_ms();
    uint64_t year_ms = 366ull * 24 * 3600 * 1000;
    if (at_ms < 0) {
        report_add(report, NULL, "/run_at", "must be a date and time of RFC 3339");
    } else if ((uint64_t)at_ms > now_ms + year_ms) {
        report_add(report, NULL, "/run_at", "must be within 366 days");
    } else {
        *ret_at_ms = at_ms > 0 ? (uint64_t)at_ms : 1;
    }
}

static void read_metadata(const json_t *value, struct submission *ret, struct report *report)
{
    if (!json_is_object(value)) {
        report_add(report, NULL, "/metadata", "must be an object of strings");
        return;
    }
    const char *name = NULL;
    json_t *each = NULL;
    json_object_foreach ((json_t *)(uintptr_t)value, name, each) {
        buf_auto struct buf pointer;
        buf_init(&pointer, LIMIT_BODY_BYTES);
        buf_add_text(&pointer, "/metadata");
        json_pointer_push(&pointer, name);
        if (!json_is_string(each)) {
            report_add(report, NULL, buf_text(&pointer), "must be a string");
        } else if (strlen(name) > METADATA_TEXT_BYTES ||
                   json_string_length(each) > METADATA_TEXT_BYTES) {
            report_add(report, NULL, buf_text(&pointer), "is longer than %u bytes",
                       METADATA_TEXT_BYTES);
        }
    }
    if (json_object_size(value) > 0) {
        ret->metadata = json_print(value, LIMIT_METADATA * 16 * METADATA_TEXT_BYTES, NULL, NULL);
    }
}

static const char *const members[] = {"pipeline", "input",    "priority", "delay", "run_at",
                                      "deadline", "metadata", "fresh",    NULL};

static void read_options(const json_t *body, struct submission *ret, struct report *report)
{
    const json_t *value = NULL;
    if ((value = json_object_get(body, "priority")) != NULL) {
        const char *word = json_string_value(value);
        if (word == NULL || (strcmp(word, "high") != 0 && strcmp(word, "normal") != 0 &&
                             strcmp(word, "low") != 0)) {
            report_add(report, NULL, "/priority", "must be \"high\", \"normal\" or \"low\"");
        } else {
            ret->priority = word[0] == 'h' ? "high" : word[0] == 'l' ? "low" : "normal";
        }
    }
    const json_t *delay = json_object_get(body, "delay");
    const json_t *run_at = json_object_get(body, "run_at");
    if (delay != NULL && run_at != NULL) {
        report_add(report, NULL, "/run_at", "must not stand beside \"delay\"");
    } else if (delay != NULL) {
        read_duration(delay, "/delay", &ret->delay_ms, report);
    } else if (run_at != NULL) {
        read_run_at(run_at, &ret->run_at_ms, report);
    }
    if ((value = json_object_get(body, "deadline")) != NULL) {
        size_t before = report_errors(report);
        read_duration(value, "/deadline", &ret->ttl_ms, report);
        if (ret->ttl_ms == 0 && report_errors(report) == before) {
            report_add(report, NULL, "/deadline", "must be longer than nothing");
        }
    }
    if ((value = json_object_get(body, "fresh")) != NULL) {
        if (!json_is_boolean(value)) {
            report_add(report, NULL, "/fresh", "must be true or false");
        }
        ret->is_fresh = json_is_true(value);
    }
    if ((value = json_object_get(body, "metadata")) != NULL) {
        read_metadata(value, ret, report);
    }
}

enum submission_fault submission_read(const struct front *front, const json_t *body,
                                      struct submission *ret, struct report *report)
{
    if (!json_is_object(body)) {
        report_add(report, NULL, "", "must be an object");
        return SUBMISSION_SHAPE;
    }
    const json_t *metadata = json_object_get(body, "metadata");
    if (json_object_size(metadata) > LIMIT_METADATA) {
        report_add(report, NULL, "/metadata", "has more than %u members", LIMIT_METADATA);
        return SUBMISSION_COUNT;
    }
    const json_t *pipeline = json_object_get(body, "pipeline");
    if (!json_is_string(pipeline)) {
        report_add(report, NULL, "/pipeline", pipeline != NULL ? "must be a string" : "is missing");
    }
    json_t *input = json_object_get(body, "input");
    if (!json_is_object(input)) {
        report_add(report, NULL, "/input", input != NULL ? "must be an object" : "is missing");
    }
    shape_members(body, members, report);
    read_options(body, ret, report);
    if (report_errors(report) > 0) {
        return SUBMISSION_SHAPE;
    }
    ret->pipeline = front_pipeline(front, json_string_value(pipeline));
    if (ret->pipeline == NULL) {
        return SUBMISSION_NO_PIPELINE;
    }
    if (!pipeline_check_input(ret->pipeline, input, report)) {
        return SUBMISSION_SHAPE;
    }
    ret->input = json_incref(input);
    return SUBMISSION_OK;
}

struct prepare {
    struct submission *submission;
    const char *ns, *key;
    int rc;
    struct error err;
};

/* Touches its argument only: may run on a thread. */
static void prepare(void *arg)
{
    struct prepare *job = arg;
    job->rc = enqueue_prepare(&job->submission->job, job->ns, job->key, job->submission->input,
                              &job->err);
}

int submission_prepare(struct front *front, struct submission *submission, const char *key,
                       struct error *err)
{
    char random[33];
    char ns[ID_BYTES];
    int rc = auth_namespace(front->config, submission->token, ns, err);
    if (rc != MR_OK) {
        return rc;
    }
    submission->job.pipeline = submission->pipeline;
    struct prepare job = {
        .submission = submission,
        .ns = ns,
        .key = key,
    };
    if (key == NULL && submission->is_fresh) {
        hash_random_hex(random, 16);
        job.key = random;
    }
    if (submission->text_len > OFFLOAD_JSON_BYTES) {
        rc = offload_run(&front->loop, prepare, &job);
        if (rc != MR_OK) {
            return error_set(err, rc, "%s", error_text(rc));
        }
    } else {
        fiber_on_loop(prepare, &job);
    }
    if (job.rc != MR_OK && err != NULL) {
        *err = job.err;
    }
    return job.rc;
}

int submission_send(struct front *front, struct submission *submission, struct job_submitted *ret,
                    struct error *err)
{
    struct enqueue *job = &submission->job;
    job->delay_ms = submission->delay_ms;
    job->run_at_ms = submission->run_at_ms;
    job->ttl_ms = submission->ttl_ms;
    job->prio = queue_class_find(submission->priority);
    job->metadata = submission->metadata;
    job->owner = submission->token != NULL ? submission->token->name : NULL;
    job->queue_max = (uint64_t)front->config->limits.queue_max;
    wait_shield(1); /* it was asked for: a client that has left does not take it back */
    int rc = enqueue_send(front->store, job, ret, err);
    wait_shield(-1);
    return rc;
}

void submission_forget(struct front *front, struct submission *submission)
{
    json_decref(submission->input);
    submission->input = NULL;
    buf_done(&submission->job.canonical);
    front_release(front, submission->reserved);
    submission->reserved = 0;
}

struct reading {
    const char *text;
    size_t len;
    unsigned depth;
    json_t *value;
    struct error err;
};

static void read_json(void *arg)
{
    struct reading *job = arg;
    job->value = json_read(job->text, job->len, job->depth, &job->err);
}

json_t *submission_body(struct front *front, struct exchange *exchange, struct response *response,
                        uint64_t *ret_reserved)
{
    struct request *request = &exchange->request;
    *ret_reserved = 0;
    if (request_check_json_type(request) != 0) {
        problem_make(response, PROBLEM_UNSUPPORTED_MEDIA_TYPE, request->id,
                     "send application/json, without a Content-Encoding");
        return NULL;
    }
    size_t len = request->body.len;
    uint64_t reserved = (uint64_t)len * FRONT_TREE_COST;
    if (!front_reserve(front, reserved)) {
        problem_full(response, request->id, "limits.memory is reached");
        return NULL;
    }
    struct reading job = {.text = buf_text(&request->body),
                          .len = len,
                          .depth = (unsigned)front->config->limits.json_depth};
    int rc = MR_OK;
    if (len > OFFLOAD_JSON_BYTES) {
        rc = offload_run(&front->loop, read_json, &job);
    } else {
        read_json(&job);
    }
    if (rc != MR_OK) {
        error_set(&job.err, rc, "%s", error_text(rc));
        front_fail(exchange, response, &job.err);
    } else if (job.value == NULL) {
        problem_make(response, PROBLEM_BAD_JSON, request->id, job.err.message);
    }
    if (job.value == NULL) {
        front_release(front, reserved);
        return NULL;
    }
    *ret_reserved = reserved;
    return job.value;
}
