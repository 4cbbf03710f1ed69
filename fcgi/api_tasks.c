/* The simple task API: prompts in, states out. A task is a job of the pipeline that
 * `tasks.pipeline` names, on the input that the pipeline makes of a prompt. */
#include "base/limits.h"
#include "fcgi/api_job_object.h"
#include "fcgi/problem.h"
#include "fcgi/submission.h"
#include "run/pipeline.h"
#include <stdio.h>
#include <string.h>

#define TASKS_IDS_MAX 100u
#define TASKS_READ_MS 5000u
#define TASKS_AWAY    "Failed to retrieve status from Redis"
#define TASKS_BYTES   ((size_t)LIMIT_JOB_BYTES * 4u)

/* Many calls at once: FRONT_PARALLEL fibers take the next item each until none is left. */
struct crowd {
    struct front *front;
    size_t count, next;
    void (*one)(struct crowd *crowd, size_t index);
    void *arg;
    bool is_over; /* set by `one`: the rest is not begun */
};

static void crowd_member(void *arg)
{
    struct crowd *crowd = arg;
    while (!crowd->is_over && crowd->next < crowd->count) {
        crowd->one(crowd, crowd->next++);
    }
}

static void crowd_run(struct crowd *crowd)
{
    struct group group;
    group_init(&group, &crowd->front->loop);
    for (size_t i = 1; i < crowd->count && i < FRONT_PARALLEL; i++) {
        if (group_spawn(&group, scope_current(), crowd_member, crowd) != MR_OK) {
            break;
        }
    }
    crowd_member(crowd);
    group_wait(&group);
}

/* ---- POST /api/tasks ---- */

struct prompts {
    struct submission *each;
    struct error err; /* of the first that failed */
    enum job_outcome outcome;
};

static void send_prompt(struct crowd *crowd, size_t index)
{
    struct prompts *prompts = crowd->arg;
    struct submission *submission = &prompts->each[index];
    struct job_submitted submitted = {0};
    struct error err;
    int rc = submission_prepare(crowd->front, submission, NULL, &err);
    if (rc == MR_OK) {
        rc = submission_send(crowd->front, submission, &submitted, &err);
    }
    if (rc == MR_OK && submitted.outcome != JOB_FULL && submitted.outcome != JOB_CONFLICT) {
        return;
    }
    if (!crowd->is_over) {
        crowd->is_over = true;
        prompts->outcome = submitted.outcome;
        if (rc != MR_OK) {
            prompts->err = err;
        } else {
            error_set(&prompts->err, MR_E_RATE_LIMITED, "the queue is full");
        }
    }
}

/* Makes submissions of the prompts; false when the response is a problem. */
static bool read_prompts(struct front *front, struct exchange *exchange, struct response *response,
                         const json_t *array, struct pipeline *pipeline, struct prompts *ret)
{
    struct report report;
    report_init(&report);
    bool too_long = false;
    for (size_t i = 0; i < json_array_size(array) && !too_long; i++) {
        const json_t *prompt = json_array_get(array, i);
        struct submission *submission = &ret->each[i];
        submission_init(submission);
        submission->pipeline = pipeline;
        submission->token = exchange->token;
        char pointer[40];
        snprintf(pointer, sizeof(pointer), "/prompts/%zu", i);
        struct error err;
        if (!json_is_string(prompt)) {
            report_add(&report, NULL, pointer, "must be a string");
            continue;
        }
        submission->text_len = json_string_length(prompt);
        too_long = submission->text_len > front->config->limits.prompt_max;
        if (!too_long && pipeline_tasks_input(pipeline, json_string_value(prompt),
                                              &submission->input, &err) != MR_OK) {
            report_add(&report, NULL, pointer, "%s", err.message);
        } else if (!too_long) {
            pipeline_check_input(pipeline, submission->input, &report);
        }
    }
    bool is_good = !too_long && report_errors(&report) == 0;
    if (too_long) {
        problem_make(response, PROBLEM_PAYLOAD_TOO_LARGE, exchange->request.id,
                     "a prompt is longer than limits.prompt_max");
    } else if (!is_good) {
        problem_report(response, exchange->request.id, &report);
    }
    report_done(&report);
    return is_good;
}

static void submit_prompts(struct front *front, struct exchange *exchange,
                           struct response *response, const json_t *array,
                           struct pipeline *pipeline)
{
    size_t count = json_array_size(array);
    struct prompts prompts = {.each = mem_zalloc(count * sizeof(*prompts.each))};
    if (read_prompts(front, exchange, response, array, pipeline, &prompts)) {
        struct crowd crowd = {.front = front, .count = count, .one = send_prompt, .arg = &prompts};
        crowd_run(&crowd);
        if (crowd.is_over && prompts.err.code == MR_E_RATE_LIMITED) {
            problem_make(response, PROBLEM_QUEUE_FULL, exchange->request.id,
                         "the queue is as long as limits.queue_max; send the same prompts again");
            response_header(response, "Retry-After", "5");
        } else if (crowd.is_over) {
            front_fail(exchange, response, &prompts.err);
        } else {
            struct buf text;
            buf_init(&text, 64 + count * (ID_BYTES + 4));
            buf_add_text(&text, "{\"task_ids\":[");
            for (size_t i = 0; i < count; i++) {
                buf_format(&text, "%s\"%s\"", i > 0 ? "," : "", prompts.each[i].id);
            }
            buf_add_text(&text, "],\"status\":\"queued\"}");
            response_json_text(response, 200, &text);
            buf_done(&text);
        }
    }
    for (size_t i = 0; i < count; i++) {
        submission_done(&prompts.each[i]);
    }
    free(prompts.each);
}

/* The list of prompts, or NULL with the response made. */
static const json_t *find_prompts(struct front *front, struct exchange *exchange,
                                  struct response *response, const json_t *body)
{
    const char *request_id = exchange->request.id;
    const json_t *array = json_object_get(body, "prompts");
    struct report report;
    report_init(&report);
    const char *name = NULL;
    json_t *value = NULL;
    if (!json_is_object(body)) {
        report_add(&report, NULL, "", "must be an object");
    } else if (!json_is_array(array)) {
        report_add(&report, NULL, "/prompts",
                   array != NULL ? "must be an array of strings" : "is missing");
    }
    json_object_foreach ((json_t *)(uintptr_t)body, name, value) {
        if (strcmp(name, "prompts") != 0) {
            buf_auto struct buf pointer;
            buf_init(&pointer, LIMIT_BODY_BYTES);
            json_pointer_push(&pointer, name);
            report_add(&report, NULL, buf_text(&pointer), "is not a known member");
        }
    }
    bool has_shape = report_errors(&report) == 0;
    if (!has_shape) {
        problem_report(response, request_id, &report);
    }
    report_done(&report);
    if (!has_shape) {
        return NULL;
    }
    if (json_array_size(array) == 0) {
        problem_make(response, PROBLEM_BAD_JSON, request_id, "prompts is empty");
        return NULL;
    }
    if (json_array_size(array) > (size_t)front->config->limits.batch_max) {
        problem_format(response, PROBLEM_PAYLOAD_TOO_LARGE, request_id,
                       "more prompts than limits.batch_max (%lld)",
                       (long long)front->config->limits.batch_max);
        return NULL;
    }
    return array;
}

void tasks_submit(struct front *front, struct exchange *exchange, struct response *response)
{
    if (!front_takes_work(front, exchange, response)) {
        return;
    }
    uint64_t reserved = 0;
    json_hold json_t *body = submission_body(front, exchange, response, &reserved);
    const json_t *array = body != NULL ? find_prompts(front, exchange, response, body) : NULL;
    if (array != NULL) {
        const char *name = front->config->tasks_pipeline;
        struct pipeline *pipeline = front_pipeline(front, name);
        if (pipeline == NULL) {
            problem_format(response, PROBLEM_NOT_FOUND, exchange->request.id,
                           "there is no pipeline \"%s\" (tasks.pipeline)", name);
        } else {
            submit_prompts(front, exchange, response, array, pipeline);
        }
    }
    if (body != NULL) {
        front_release(front, reserved);
    }
}

/* ---- GET /api/tasks, /api/tasks/{id} ---- */

static void task_add(struct buf *text, const struct job_view *view)
{
    if (view == NULL) {
        buf_add_text(text, "{\"status\":\"not_found\"}");
        return;
    }
    bool completed = strcmp(view->status, "completed") == 0;
    const char *status = completed                                 ? "completed"
                         : view->is_ended                          ? "error"
                         : strcmp(view->status, "processing") == 0 ? "processing"
                                                                   : "queued";
    buf_format(text, "{\"status\":\"%s\",\"result\":", status);
    if (completed && view->result != NULL) {
        buf_add(text, view->result, view->result_len);
    } else {
        buf_add_text(text, "null");
    }
    buf_add_text(text, ",\"error\":");
    if (view->is_ended && !completed) {
        json_hold json_t *root = NULL;
        struct job_fault fault;
        job_fault_read(view, &root, &fault);
        buf_add_json_string(text, fault.message, strlen(fault.message));
    } else {
        buf_add_text(text, "null");
    }
    buf_format(text, ",\"progress\":\"%u\"}", completed ? 100u : view->progress);
}

struct task_ids {
    const struct config_token *token;
    const char *id[TASKS_IDS_MAX];
    size_t count;
    struct job_view *view[TASKS_IDS_MAX];
    bool has_failed[TASKS_IDS_MAX];
};

static void read_task(struct crowd *crowd, size_t index)
{
    struct task_ids *ids = crowd->arg;
    if (!id_is_valid(ids->id[index])) {
        return;
    }
    struct error err;
    ids->has_failed[index] =
        !store_is_up(crowd->front->store) ||
        job_read(crowd->front->store, ids->id[index], 0, &ids->view[index], &err) != MR_OK;
    struct job_view *view = ids->view[index];
    if (view != NULL && !auth_sees(ids->token, view->owner)) {
        job_view_free(view);
        ids->view[index] = NULL;
    }
}

/* Splits `a,b` in place; each id once. False when there are too many. */
static bool split_ids(char *text, struct task_ids *ret)
{
    char *rest = NULL;
    for (char *id = strtok_r(text, ",", &rest); id != NULL; id = strtok_r(NULL, ",", &rest)) {
        bool known = false;
        for (size_t i = 0; i < ret->count && !known; i++) {
            known = strcmp(ret->id[i], id) == 0;
        }
        if (!known && ret->count == TASKS_IDS_MAX) {
            return false;
        }
        if (!known) {
            ret->id[ret->count++] = id;
        }
    }
    return true;
}

void tasks_list(struct front *front, struct exchange *exchange, struct response *response)
{
    const char *query = request_query(&exchange->request, "task_ids");
    mem_auto char *copy = mem_dup(query != NULL ? query : "");
    mem_auto struct task_ids *ids = mem_zalloc(sizeof(*ids));
    ids->token = exchange->token;
    if (!split_ids(copy, ids)) {
        problem_format(response, PROBLEM_BAD_JSON, exchange->request.id, "more than %u task_ids",
                       TASKS_IDS_MAX);
        return;
    }
    if (ids->count == 0) {
        problem_make(response, PROBLEM_BAD_JSON, exchange->request.id, "give ids: ?task_ids=ID,ID");
        return;
    }
    struct crowd crowd = {.front = front, .count = ids->count, .one = read_task, .arg = ids};
    uint64_t deadline = exchange->scope.deadline_ms - FRONT_REQUEST_MS + TASKS_READ_MS;
    scope_set_deadline(&exchange->scope, deadline, MR_E_TIMEOUT);
    crowd_run(&crowd);
    struct buf text;
    buf_init(&text, TASKS_BYTES);
    for (size_t i = 0; i < ids->count; i++) {
        buf_add_char(&text, i > 0 ? ',' : '{');
        buf_add_json_string(&text, ids->id[i], strlen(ids->id[i]));
        buf_add_char(&text, ':');
        if (ids->has_failed[i]) {
            buf_add_text(&text, "{\"status\":\"error\",\"error\":\"" TASKS_AWAY "\"}");
        } else {
            task_add(&text, ids->view[i]);
        }
        if (ids->view[i] != NULL) {
            job_view_free(ids->view[i]);
        }
    }
    buf_add_char(&text, '}');
    response_json_text(response, 200, &text);
    buf_done(&text);
}

void tasks_get(struct front *front, struct exchange *exchange, struct response *response)
{
    struct job_view *view = NULL;
    if (!job_fetch(front, exchange, response, exchange->request.arg[0], 0, &view)) {
        return;
    }
    struct buf text;
    buf_init(&text, TASKS_BYTES);
    task_add(&text, view);
    response_json_text(response, 200, &text);
    buf_done(&text);
    job_view_free(view);
}
