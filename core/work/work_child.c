/* Calls and dispatches: children by deterministic id (docs/protocol.md, "Call and dispatch"). Note,
 * submit, subscribe, read, wait: repeated after a crash or a retry each step finds what the former
 * one left.
 *
 * While a call waits its lane stays running and renewed, but its slot is free: or a process full of
 * waiting parents would starve the children they wait for. */
#include "work/submit.h"
#include "work/work.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "state/durable.h"
#include <stdio.h>
#include <string.h>

#define WORK_CALL_REREAD_MS 5000u

/* Ids of the calls above, this job first; refuses a circle and too deep a nesting. malloc'ed in
 * *ret. */
static int work_ancestors(const struct work_lane *lane, const char *child, char **ret,
                          struct error *err)
{
    const char *above = lane->grant.ancestors ? lane->grant.ancestors : "";
    size_t depth = *above ? 2 : 1;
    for (const char *at = above; *at; at++)
        depth += *at == ',';
    if (strcmp(lane->lane.job, child) == 0 || strstr(above, child))
        return error_set(err, MR_E_CALL_FAILED, "job %s would wait for itself", child);
    if (depth > LIMIT_ANCESTORS)
        return error_set(err, MR_E_CALL_FAILED, "calls are nested more than %u deep",
                         LIMIT_ANCESTORS);
    *ret = mem_format("%s%s%s", lane->lane.job, *above ? "," : "", above);
    return MR_OK;
}

/* Submits the child. Permanent errors have their class set. */
static int work_submit(struct work_lane *lane, const struct run_child *child, enum job_mode mode,
                       const char *req, uint64_t ttl_ms, struct job_submitted *ret,
                       struct error *err)
{
    struct worker *worker = lane->worker;
    const struct pipeline *pipeline = revision_find(worker->revisions, child->pipeline, NULL);
    if (!pipeline) {
        error_set(err, MR_E_CALL_FAILED, "there is no pipeline \"%s\" on this host",
                  child->pipeline);
        err->class = MR_CLASS_PERMANENT;
        return MR_E_CALL_FAILED;
    }
    struct report report;
    report_init(&report);
    bool fits = pipeline_check_input(pipeline, child->input_value, &report);
    if (!fits) {
        error_set(err, MR_E_SCHEMA, "input of pipeline %s: %s: %s", child->pipeline,
                  report.count ? report.items[0].where : "",
                  report.count ? report.items[0].message : "");
        err->class = MR_CLASS_PERMANENT;
    }
    report_done(&report);
    if (!fits)
        return MR_E_SCHEMA;
    char digest[HASH_HEX_BYTES];
    submit_digest(child->pipeline, child->input, child->input_len, digest);
    mem_auto char *ancestors = NULL;
    int rc = mode == JOB_CALL ? work_ancestors(lane, child->id, &ancestors, err) : MR_OK;
    if (rc != MR_OK) {
        err->class = MR_CLASS_PERMANENT;
        return rc;
    }
    char after[SUBMIT_AFTER_BYTES];
    struct job_submit submit = {.id = child->id,
                                .digest = digest,
                                .input = child->input,
                                .input_len = child->input_len,
                                .req = req,
                                .prio = mode == JOB_CALL ? QUEUE_CALL : QUEUE_NORMAL,
                                .owner = lane->grant.owner && *lane->grant.owner ? lane->grant.owner
                                                                                 : NULL,
                                .ancestors = ancestors,
                                .mode = mode,
                                .queue_max = mode == JOB_CALL ? 0 : worker->setup->queue_max};
    mem_auto struct job_first *first = NULL;
    submit_fill(&submit, pipeline, ttl_ms, after, &first);
    rc = job_submit(worker->store, &submit, ret, err);
    if (rc != MR_OK)
        return rc;
    if (ret->outcome == JOB_CONFLICT)
        return error_set(err, MR_E_ID_CONFLICT, "id %s belongs to another pipeline than %s",
                         child->id, child->pipeline);
    if (ret->outcome == JOB_FULL) {
        error_set(err, MR_E_RATE_LIMITED, "the queue of pipeline %s is full", child->pipeline);
        err->class = MR_CLASS_THROTTLED;
        return MR_E_RATE_LIMITED;
    }
    durable_submitted(worker->store, child->id, (enum durable_level)pipeline->durability);
    return MR_OK;
}

/* Notes the child, so that a stop finds it. */
static int work_note(struct work_lane *lane, const struct stage *stage,
                     const struct run_child *child, const char *req, struct error *err)
{
    enum lane_verdict verdict = LANE_LOST;
    int rc = lane_note(lane->worker->store, &lane->lane, work_stage_name(&lane->run, stage),
                       child->id, req, child->timeout_ms, &verdict, err);
    if (rc != MR_OK)
        return rc;
    if (verdict == LANE_OK)
        return MR_OK;
    if (verdict == LANE_STOP) {
        work_lane_stop(lane);
        return error_set(err, MR_E_CANCELLED, "the job is being stopped");
    }
    work_lane_lose(lane);
    return error_set(err, MR_E_LOST, "the lane belongs to another worker");
}

/* Reads the child; MR_OK with *ret_ended when it has ended, and then the result or the error. */
static int work_read_child(struct work_lane *lane, const struct run_child *child, bool *ret_ended,
                           char **ret_text, size_t *ret_len, struct error *err)
{
    struct job_view *view = NULL;
    int rc = job_read(lane->worker->store, child->id, 0, &view, err);
    if (rc != MR_OK)
        return rc;
    *ret_ended = false;
    if (!view)
        return error_set(err, MR_E_LOST, "child %s is not in Redis", child->id);
    if (view->is_ended && strcmp(view->status, "completed") == 0) {
        *ret_ended = true;
        *ret_text =
            mem_ndup(view->result ? view->result : "null", view->result ? view->result_len : 4);
        *ret_len = view->result ? view->result_len : 4;
    } else if (view->is_ended && view->next_retry_ms == 0) {
        *ret_ended = true;
        json_hold json_t *error =
            view->error ? json_read(view->error, view->error_len, 0, NULL) : NULL;
        rc = error_set(err, MR_E_CALL_FAILED, "pipeline %s (job %s) %s: %s", child->pipeline,
                       child->id, view->status,
                       error ? json_text_or(error, "message", "no message") : "no message");
        /* This run of the parent does not run it again (docs/protocol.md): a retry would be idle.
         */
        if (err && error && strcmp(json_text_or(error, "class", "retry"), "retry") != 0)
            err->class = MR_CLASS_PERMANENT;
    }
    job_view_free(view);
    return rc;
}

/* Waits until the child has ended, following its events from a confirmed subscription on. */
static int work_wait_child(struct work_lane *lane, const struct run_child *child, uint64_t until_ms,
                           char **ret_text, size_t *ret_len, struct error *err)
{
    struct watch *watch = NULL;
    int rc = watch_open(lane->worker->store, lane->worker->sub, child->id, 0, &watch, err);
    if (rc != MR_OK)
        return rc;
    watch_set_patient(watch, true);
    for (;;) {
        bool ended = false;
        rc = work_read_child(lane, child, &ended, ret_text, ret_len, err);
        if (rc != MR_OK || ended)
            break;
        do {
            uint64_t now = clock_now_ms();
            if (now >= until_ms) {
                rc = error_set(err, MR_E_CALL_TIMEOUT,
                               "pipeline %s (job %s) did not end within its time", child->pipeline,
                               child->id);
                break;
            }
            uint64_t left = until_ms - now;
            struct job_event event = {0};
            rc = watch_next(watch, left < WORK_CALL_REREAD_MS ? left : WORK_CALL_REREAD_MS, &event,
                            err);
            ended = rc == MR_OK && event.is_last;
            if (rc == MR_OK)
                job_event_done(&event);
        } while (rc == MR_OK && !ended);
        if (rc == MR_E_CALL_TIMEOUT || scope_error(scope_current()) != MR_OK)
            break;
        if (rc != MR_OK && rc != MR_E_TIMEOUT && rc != MR_E_STOPPING && rc != MR_E_LOST)
            break;
    }
    watch_close(watch);
    return rc;
}

int work_call(struct run *run, struct stage *stage, const struct run_child *child, char **ret_text,
              size_t *ret_len, struct error *err)
{
    struct work_lane *lane = run->data;
    mem_auto char *req = job_call_req(run->job_id, stage->name, child->target, lane->grant.round);
    uint64_t until_ms = clock_now_ms() + child->timeout_ms, left_ms = scope_time_left(&run->scope);
    uint64_t ttl_ms = child->timeout_ms < left_ms ? child->timeout_ms : left_ms;
    int rc = child->has_name ? MR_OK : work_note(lane, stage, child, req, err);
    if (rc != MR_OK)
        return rc;
    /* An absent child (Redis forgot it) is submitted again; the time of the call bounds it. */
    do {
        struct job_submitted submitted;
        rc = work_submit(lane, child, JOB_CALL, req, ttl_ms, &submitted, err);
        if (rc != MR_OK)
            return rc;
        if (submitted.round == 0) { /* a tombstone: this run of the parent was stopped before */
            error_set(err, MR_E_CALL_FAILED, "pipeline %s (job %s) was cancelled", child->pipeline,
                      child->id);
            err->class = MR_CLASS_PERMANENT;
            return MR_E_CALL_FAILED;
        }
        room_call_begin(lane);
        rc = work_wait_child(lane, child, until_ms, ret_text, ret_len, err);
        room_call_end(lane);
    } while (rc == MR_E_LOST && !lane->is_lost && scope_error(scope_current()) == MR_OK &&
             clock_now_ms() < until_ms);
    return rc;
}

int work_dispatch(struct run *run, struct stage *stage, const struct run_child *child,
                  struct error *err)
{
    struct work_lane *lane = run->data;
    mem_auto char *req = job_call_req(run->job_id, stage->name, child->target, lane->grant.round);
    struct job_submitted submitted;
    return work_submit(lane, child, JOB_DISPATCH, req, 0, &submitted, err);
}

bool work_cancel_children(struct work_lane *lane)
{
    bool is_done = true;
    for (uint32_t i = 0; i < lane->grant.child_count; i++) {
        const struct lane_child *child = &lane->grant.children[i];
        enum cancel_outcome outcome;
        struct error err = {0};
        if (job_cancel(lane->worker->store, child->id, child->req,
                       child->timeout_ms + 2 * lane->worker->setup->lease_ms, &outcome,
                       &err) != MR_OK) {
            log_error("child could not be cancelled", &err, "job", child->id, "parent",
                      lane->lane.job, NULL);
            is_done = false;
        }
    }
    return is_done;
}
