/* A lane whose callbacks keep everything in memory and do what a test says: what the runner is
 * tried with, apart from `millrace run` and the worker. */
#pragma once

#include "rig.h"

struct lane {
    struct rig *rig;
    struct run run;
    char log[2048];           /* "commit a=1; fail b timeout/retry; …" */
    char *steps[8];           /* text of step "0" … "7" */
    enum run_verdict verdict; /* what the next commit or fail says, unless RUN_ON */
    int commit_rc;            /* what the next commit returns */
    unsigned retries;         /* how often a failed stage is opened again */
    enum run_verdict end;
    struct error last; /* of the last fail */
};

__attribute__((unused, format(printf, 2, 3))) static void lane_note(struct lane *lane,
                                                                    const char *format, ...)
{
    size_t len = strlen(lane->log);
    va_list args;
    va_start(args, format);
    vsnprintf(lane->log + len, sizeof(lane->log) - len, format, args);
    va_end(args);
}

/* What is open now: what runs but for `done`, and what has its needs done and has not ended. */
static void lane_next(struct lane *lane, struct stage *done, bool again, struct run_next *next)
{
    struct run *run = &lane->run;
    bool any = again;
    memset(next, 0, sizeof(*next));
    for (uint32_t i = 0; i < run->pipeline->stage_count; i++) {
        const struct stage *stage = &run->pipeline->stages[i];
        bool open = run->status[i] == 0 && i != done->index && !run_bit(run->open, i) &&
                    lane->last.code == 0;
        for (uint32_t n = 0; n < stage->need_count; n++)
            open = open && run->status[stage->needs[n]] != 0;
        open = open || (run_bit(run->open, i) && i != done->index && run->status[i] == 0);
        if (open)
            run_set_bit(next->open, i);
        any = any || open;
    }
    if (again)
        run_set_bit(next->open, done->index);
    next->verdict = lane->verdict != RUN_ON ? lane->verdict : any ? RUN_ON : RUN_END;
}

static int lane_commit(struct run *run, struct stage *stage, enum stage_outcome outcome,
                       const char *output, size_t len, struct run_next *ret_next, struct error *err)
{
    struct lane *lane = run->data;
    lane_note(lane, "%s %s=%.*s; ", outcome == STAGE_SKIPPED ? "skip" : "commit", stage->name,
              (int)len, output);
    assert_int_not_equal(run->status[stage->index], 0);
    if (lane->commit_rc != MR_OK) {
        int rc = lane->commit_rc;
        lane->commit_rc = MR_OK;
        return error_set(err, rc, "as the test says");
    }
    lane_next(lane, stage, false, ret_next);
    return MR_OK;
}

static int lane_fail(struct run *run, struct stage *stage, const struct error *why,
                     struct run_next *ret_next, struct error *err)
{
    (void)err;
    struct lane *lane = run->data;
    lane_note(lane, "fail %s %s/%s; ", stage->name, error_name(why->code),
              error_class_name(error_class_of(why)));
    bool again = lane->retries > 0;
    if (again) {
        lane->retries--;
        run->attempts[stage->index]++;
    } else {
        lane->last = *why;
    }
    lane_next(lane, stage, again, ret_next);
    return MR_OK;
}

static const char *lane_step_get(struct run *run, struct stage *stage, const char *name,
                                 size_t *ret_len)
{
    (void)stage;
    struct lane *lane = run->data;
    const char *text = lane->steps[(name[0] - '0') & 7];
    *ret_len = text != NULL ? strlen(text) : 0;
    return text;
}

static int lane_step_put(struct run *run, struct stage *stage, const char *name, const char *text,
                         size_t len, struct error *err)
{
    (void)stage, (void)err;
    struct lane *lane = run->data;
    char **slot = &lane->steps[(name[0] - '0') & 7];
    free(*slot);
    *slot = mem_ndup(text, len);
    return wait_yield(&lane->rig->loop);
}

static void lane_progress(struct run *run, struct stage *stage, int percent, const char *message)
{
    lane_note(run->data, "progress %s %d %s; ", stage->name, percent, message);
}

static void lane_emit(struct run *run, struct stage *stage, const char *kind, const char *data,
                      size_t len)
{
    lane_note(run->data, "emit %s %s %.*s; ", stage->name, kind, (int)len, data);
}

static void lane_log(struct run *run, struct stage *stage, int level, const char *text)
{
    lane_note(run->data, "log %s %d %s; ", stage->name, level, text);
}

static int lane_call(struct run *run, struct stage *stage, const struct run_child *child,
                     char **ret_text, size_t *ret_len, struct error *err)
{
    (void)err;
    struct lane *lane = run->data;
    lane_note(lane, "call %s %s %s %.*s %d; ", stage->name, child->pipeline, child->id,
              (int)child->input_len, child->input, child->has_name);
    int rc = wait_yield(&lane->rig->loop);
    if (rc != MR_OK)
        return rc;
    *ret_text = mem_dup("{\"called\":true}");
    *ret_len = strlen(*ret_text);
    return MR_OK;
}

static int lane_dispatch(struct run *run, struct stage *stage, const struct run_child *child,
                         struct error *err)
{
    (void)err;
    lane_note(run->data, "dispatch %s %s %s; ", stage->name, child->pipeline, child->id);
    return MR_OK;
}

static const struct runner_ops lane_ops = {
    .commit = lane_commit,
    .fail = lane_fail,
    .step_get = lane_step_get,
    .step_put = lane_step_put,
    .call = lane_call,
    .dispatch = lane_dispatch,
    .progress = lane_progress,
    .emit = lane_emit,
    .log = lane_log,
};

/* On a fiber, or before: makes the lane with the stages open that need nothing. */
__attribute__((unused)) static void lane_init(struct lane *lane, struct rig *rig,
                                              struct pipeline *pipeline, const char *input)
{
    memset(lane, 0, sizeof(*lane));
    lane->rig = rig;
    lane->run.runner = &rig->runner;
    lane->run.ops = &lane_ops;
    lane->run.data = lane;
    lane->run.pipeline = pipeline;
    lane->run.doc = doc_new();
    lane->run.job_id = "11111111-2222-5333-8444-555555555555";
    doc_set_text(lane->run.doc, "input", input, strlen(input));
    for (uint32_t i = 0; i < pipeline->stage_count; i++)
        if (pipeline->stages[i].need_count == 0)
            run_set_bit(lane->run.open, i);
    scope_init(&lane->run.scope, NULL);
}

__attribute__((unused)) static void lane_done(struct lane *lane)
{
    for (size_t i = 0; i < 8; i++)
        free(lane->steps[i]);
    doc_free(lane->run.doc);
    scope_done(&lane->run.scope);
}

__attribute__((unused)) static void lane_main(void *arg)
{
    struct lane *lane = arg;
    lane->end = runner_run(&lane->run);
}

/* All of it: builds, runs, and leaves the lane for the test to look at. */
__attribute__((unused)) static struct pipeline *lane_go(struct lane *lane, struct rig *rig,
                                                        const char *text, const char *input)
{
    struct pipeline *pipeline = rig_must(rig, "test", text);
    lane_init(lane, rig, pipeline, input);
    rig_run(rig, lane_main, lane);
    return pipeline;
}
