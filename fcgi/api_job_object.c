/* The job object: see api_job_object.h. Built as text, because results and outputs are stored as
 * text and may be megabytes. */
#include "fcgi/api_job_object.h"
#include "base/clock.h"
#include "base/limits.h"
#include "fcgi/problem.h"
#include "run/pipeline.h"
#include "state/durable.h"
#include <stdio.h>
#include <string.h>

#define OBJECT_BYTES (LIMIT_JOB_BYTES * 2u)

static void add_text(struct buf *text, const char *name, const char *value)
{
    buf_format(text, ",\"%s\":", name);
    if (value == NULL || *value == '\0') {
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

static void add_raw(struct buf *text, const char *name, const char *json, size_t len)
{
    buf_format(text, ",\"%s\":", name);
    if (json == NULL || len == 0) {
        buf_add_text(text, "null");
    } else {
        buf_add(text, json, len);
    }
}

void job_fault_read(const struct job_view *view, json_t **ret_root, struct job_fault *ret_fault)
{
    *ret_root = view->error != NULL ? json_read(view->error, view->error_len, 0, NULL) : NULL;
    const char *code = strcmp(view->status, "cancelled") == 0 ? "cancelled" : "internal";
    ret_fault->code = json_text_or(*ret_root, "code", code);
    ret_fault->message = json_text_or(*ret_root, "message", error_text(error_code(code)));
    ret_fault->stage = json_text_or(*ret_root, "stage", NULL);
    const json_t *retryable = json_object_get(*ret_root, "retryable");
    ret_fault->is_retryable = retryable != NULL
                                  ? json_is_true(retryable)
                                  : error_class(error_code(ret_fault->code)) == MR_CLASS_RETRY;
}

static void add_error(struct buf *text, const struct job_view *view)
{
    bool failed = strcmp(view->status, "failed") == 0;
    if (view->error == NULL && !failed) {
        buf_add_text(text, ",\"error\":null");
        return;
    }
    json_hold json_t *root = NULL;
    struct job_fault fault;
    job_fault_read(view, &root, &fault);
    buf_add_text(text, ",\"error\":{\"code\":");
    buf_add_json_string(text, fault.code, strlen(fault.code));
    add_text(text, "message", fault.message);
    add_text(text, "stage", fault.stage);
    buf_format(text, ",\"retryable\":%s}", fault.is_retryable ? "true" : "false");
}

static bool lane_has(const struct job_lane_view *lane, const char *stage)
{
    size_t len = strlen(stage);
    for (const char *at = lane->stages; at != NULL && *at != '\0';) {
        size_t part = strcspn(at, ",");
        if (part == len && memcmp(at, stage, len) == 0) {
            return true;
        }
        at += part + (at[part] == ',');
    }
    return false;
}

static const char *stage_status(const struct job_view *view, const struct job_stage_view *stage)
{
    switch (stage->state) {
    case 'd':
        return "completed";
    case 's':
        return "skipped";
    case 'f':
        return "failed";
    default:
        break;
    }
    for (uint32_t i = 0; i < view->lane_count; i++) {
        if (lane_has(&view->lanes[i], stage->name)) {
            char state = view->lanes[i].state;
            return state == 'r' ? "processing" : state == 'q' ? "queued" : "waiting";
        }
    }
    return view->is_ended ? "cancelled" : "queued";
}

static void add_stage(struct buf *text, const struct job_view *view,
                      const struct job_stage_view *stage, bool *is_first)
{
    if (stage->name[0] == '$') {
        return; /* ours, not the pipeline's */
    }
    if (!*is_first) {
        buf_add_char(text, ',');
    }
    *is_first = false;
    buf_add_json_string(text, stage->name, strlen(stage->name));
    buf_format(text, ":{\"status\":\"%s\",\"attempts\":%u", stage_status(view, stage),
               stage->attempts);
    add_time(text, "started_at", stage->started_ms);
    add_time(text, "finished_at", stage->finished_ms);
    add_raw(text, "output", stage->output, stage->output_len);
    buf_add_char(text, '}');
}

static void add_stages(struct buf *text, const struct job_view *view,
                       const struct pipeline *pipeline)
{
    buf_add_text(text, ",\"stages\":{");
    bool is_first = true;
    for (uint32_t i = 0; pipeline != NULL && i < pipeline->stage_count; i++) {
        const struct job_stage_view *stage = job_view_stage(view, pipeline->stages[i].name);
        if (stage != NULL) {
            add_stage(text, view, stage, &is_first);
        }
    }
    for (uint32_t i = 0; i < view->stage_count; i++) {
        if (pipeline == NULL || pipeline_stage(pipeline, view->stages[i].name) == NULL) {
            add_stage(text, view, &view->stages[i], &is_first);
        }
    }
    buf_add_char(text, '}');
}

/* Only where the pipeline asks for it and something was written since. */
static void add_durability(struct buf *text, const struct job_view *view)
{
    enum durable_level asked = DURABLE_NONE;
    struct durable_got got;
    if (!durable_parse(view->durability, &asked, &got)) {
        return;
    }
    buf_format(text, ",\"durability\":{\"asked\":\"%s\",\"got\":\"%s\"", durable_level_name(asked),
               durable_level_name(got.level));
    if (got.why[0] != '\0') {
        add_text(text, "reason", got.why);
    }
    buf_add_char(text, '}');
}

static void add_links(struct buf *text, const struct job_view *view, const char *prefix)
{
    /* The prefix is the configuration's, the id hex and hyphens: nothing to escape. */
    const char *id = view->id;
    buf_format(text, ",\"links\":{\"self\":\"%s/api/v1/jobs/%s\"", prefix, id);
    buf_format(text, ",\"result\":\"%s/api/v1/jobs/%s/result\"", prefix, id);
    buf_format(text, ",\"events\":\"%s/api/v1/jobs/%s/events\"", prefix, id);
    buf_format(text, ",\"cancel\":\"%s/api/v1/jobs/%s/cancel\"}", prefix, id);
}

/* The stage that the object names: the one that is open, or the one that failed. */
static const char *named_stage(const struct job_view *view, const struct job_stage_view *current)
{
    if (current != NULL && current->name[0] != '$' && !view->is_ended) {
        return current->name;
    }
    for (uint32_t i = 0; view->is_ended && i < view->stage_count; i++) {
        if (view->stages[i].state == 'f') {
            return view->stages[i].name;
        }
    }
    return NULL;
}

/* Attempts of the stage that is named, else of the one that ended last. */
static unsigned attempts_of(const struct job_view *view, const char *name)
{
    const struct job_stage_view *stage = name != NULL ? job_view_stage(view, name) : NULL;
    for (uint32_t i = 0; name == NULL && i < view->stage_count; i++) {
        const struct job_stage_view *each = &view->stages[i];
        if (each->name[0] != '$' && (stage == NULL || each->finished_ms > stage->finished_ms)) {
            stage = each;
        }
    }
    return stage != NULL ? stage->attempts : 0;
}

static bool add_object(struct buf *text, const struct job_view *view,
                       const struct pipeline *pipeline, const char *prefix, bool is_brief)
{
    const struct job_stage_view *current = job_view_current(view);
    const char *name = named_stage(view, current);
    bool completed = strcmp(view->status, "completed") == 0;
    buf_format(text, "{\"object\":\"job\",\"id\":\"%s\"", view->id);
    add_text(text, "pipeline", view->pipeline);
    add_text(text, "status", view->status);
    add_text(text, "stage", name);
    buf_format(text, ",\"progress\":%u", completed ? 100u : view->progress);
    buf_format(text, ",\"attempt\":%u", attempts_of(view, name));
    add_time(text, "created_at", view->created_ms);
    add_time(text, "started_at", view->started_ms);
    add_time(text, "finished_at", view->finished_ms);
    add_time(text, "expires_at", view->expires_ms);
    if (!view->is_ended && strcmp(view->stop, "cancelled") == 0) {
        buf_add_text(text, ",\"cancel_requested\":true");
    }
    if (view->next_retry_ms != 0) {
        add_time(text, "next_retry_at", view->next_retry_ms);
    }
    if (!is_brief) {
        add_stages(text, view, pipeline);
        add_raw(text, "result", completed ? view->result : NULL, view->result_len);
    }
    add_error(text, view);
    buf_format(text,
               ",\"usage\":{\"input_tokens\":%lld,\"output_tokens\":%lld,\"cost\":%lld.%06lld}",
               (long long)view->input_tokens, (long long)view->output_tokens,
               (long long)(view->cost_micros / 1000000), (long long)(view->cost_micros % 1000000));
    add_durability(text, view);
    bool has_metadata = view->metadata != NULL && *view->metadata != '\0';
    buf_format(text, ",\"metadata\":%s", has_metadata ? view->metadata : "{}");
    add_links(text, view, prefix);
    return buf_add_char(text, '}');
}

bool job_object_add(struct buf *text, const struct job_view *view, const struct pipeline *pipeline,
                    const char *prefix)
{
    return add_object(text, view, pipeline, prefix, false);
}

bool job_object_add_brief(struct buf *text, const struct job_view *view, const char *prefix)
{
    return add_object(text, view, NULL, prefix, true);
}

void job_etag(const struct job_view *view, char ret_etag[JOB_ETAG_BYTES])
{
    snprintf(ret_etag, JOB_ETAG_BYTES, "\"%llu-%llu-%s%u%s%s\"", (unsigned long long)view->round,
             (unsigned long long)view->events, view->is_ended ? "e" : "o", view->progress,
             strcmp(view->stop, "cancelled") == 0 ? "c" : "", view->has_log ? "" : "x");
}

unsigned job_retry_after(const struct job_view *view)
{
    if (view->is_ended) {
        return 0;
    }
    uint64_t due_ms = 0;
    for (uint32_t i = 0; i < view->lane_count; i++) {
        const struct job_lane_view *lane = &view->lanes[i];
        if (lane->state != 'd') {
            return lane->state == 'h' ? 10 : 1;
        }
        if (due_ms == 0 || lane->due_ms < due_ms) {
            due_ms = lane->due_ms;
        }
    }
    uint64_t seconds = due_ms > view->now_ms ? (due_ms - view->now_ms + 999) / 1000 : 1;
    return seconds > 60 ? 60 : (unsigned)seconds;
}

void job_answer(struct front *front, struct response *response, int status,
                const struct job_view *view, bool location)
{
    struct buf text;
    buf_init(&text, OBJECT_BYTES);
    const char *prefix = front->config->prefix;
    job_object_add(&text, view, front_pipeline(front, view->pipeline), prefix);
    char etag[JOB_ETAG_BYTES];
    job_etag(view, etag);
    response_header(response, "ETag", etag);
    unsigned retry_after = job_retry_after(view);
    if (retry_after > 0) {
        response_header_format(response, "Retry-After", "%u", retry_after);
    }
    if (location) {
        response_header_format(response, "Location", "%s/api/v1/jobs/%s", prefix, view->id);
    }
    response_json_text(response, status, &text);
    buf_done(&text);
}

bool job_fetch(struct front *front, struct exchange *exchange, struct response *response,
               const char *id, unsigned want, struct job_view **ret_view)
{
    struct error err;
    struct job_view *view = NULL;
    if (!id_is_valid(id)) {
        problem_make(response, PROBLEM_NOT_FOUND, exchange->request.id, "no job has this id");
        return false;
    }
    if (!front_has_store(front, exchange, response)) {
        return false;
    }
    if (job_read(front->store, id, want, &view, &err) != MR_OK) {
        front_fail(exchange, response, &err);
        return false;
    }
    if (view == NULL) {
        problem_make(response, PROBLEM_NOT_FOUND, exchange->request.id,
                     "no job has this id, or it has expired");
        return false;
    }
    if (!auth_sees(exchange->token, view->owner)) {
        job_view_free(view);
        problem_make(response, PROBLEM_NOT_FOUND, exchange->request.id,
                     "no job has this id, or it has expired");
        return false;
    }
    *ret_view = view;
    return true;
}
