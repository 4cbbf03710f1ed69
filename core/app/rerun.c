/* Running a job again: see rerun.h. */
#include "app/rerun.h"

#include "base/limits.h"
#include <string.h>

/* Marks `at` and everything that waits for it, in the order of the graph. */
static void rerun_mark(const struct pipeline *pipeline, stage_index at, bool *marked)
{
    stage_index open[LIMIT_STAGES];
    uint32_t count = 0;
    marked[at] = true;
    open[count++] = at;
    while (count > 0) {
        const struct stage *stage = &pipeline->stages[open[--count]];
        for (uint32_t i = 0; i < stage->next_count; i++)
            if (stage->next[i] < pipeline->stage_count && !marked[stage->next[i]]) {
                marked[stage->next[i]] = true;
                open[count++] = stage->next[i];
            }
    }
}

static void rerun_no_stage(const struct rerun *rerun, const struct pipeline *pipeline,
                           struct error *reason)
{
    const char *names[LIMIT_STAGES + 1] = {0};
    for (uint32_t i = 0; i < pipeline->stage_count; i++)
        names[i] = pipeline->stages[i].name;
    error_set(reason, MR_E_SCHEMA, "pipeline %s has no stage \"%.48s\"", pipeline->name,
              rerun->from);
    const char *near = error_nearest(rerun->from, names);
    if (near)
        error_hint(reason, "did you mean \"%s\"?", near);
}

/* The pipeline of the job's revision from Redis; NULL with MR_OK when it cannot be had. */
static int rerun_fetch(struct store *store, const struct job_view *view,
                       struct pipeline **ret_pipeline, struct error *err)
{
    mem_auto char *text = NULL;
    size_t len = 0;
    *ret_pipeline = NULL;
    int rc = revision_get(store, view->revision, &text, &len, err);
    if (rc != MR_OK || !text)
        return rc;
    static const struct pipeline_setup structure_only = {0};
    struct report report;
    report_init(&report);
    struct pipeline_source *source =
        pipeline_source_new(view->pipeline, view->pipeline, ".", text, len);
    *ret_pipeline = pipeline_build(source, &structure_only, &report);
    pipeline_source_free(source);
    report_done(&report);
    return MR_OK;
}

static int rerun_again(struct store *store, const struct rerun *rerun, const char *const *reset,
                       uint32_t count, enum rerun_outcome *ret, struct error *reason,
                       struct error *err)
{
    const char *id = rerun->view->id;
    const struct job_again again = {
        .id = id, .req = rerun->req, .reset = reset, .reset_count = count, .is_fresh = true};
    enum again_outcome outcome;
    int rc = job_run_again(store, &again, &outcome, err);
    if (rc != MR_OK)
        return rc;
    *ret = RERUN_OK;
    if (outcome == AGAIN_NONE) {
        *ret = RERUN_NONE;
        error_set(reason, MR_E_SCHEMA, "no job has this id, or it has expired");
    } else if (outcome == AGAIN_REFUSED) {
        /* It was failed or cancelled a moment ago: another has begun it, or outputs are gone. */
        struct job_view *now = NULL;
        rc = job_read(store, id, 0, &now, err);
        bool is_ended = now && now->is_ended;
        *ret = is_ended ? RERUN_EXPIRED : RERUN_OPEN;
        if (is_ended) {
            error_set(reason, MR_E_SCHEMA, "the outputs of its finished stages have expired");
            error_hint(reason, "submit it anew with \"fresh\": true");
        } else {
            error_set(reason, MR_E_SCHEMA, "the job runs again already");
        }
        job_view_free(now);
    }
    return rc;
}

/* With the graph at hand: `from`, then what comes after it. */
static int rerun_from(struct store *store, const struct rerun *rerun,
                      const struct pipeline *pipeline, enum rerun_outcome *ret,
                      struct error *reason, struct error *err)
{
    const struct stage *from = pipeline_stage(pipeline, rerun->from);
    if (!from || from->index >= pipeline->stage_count) {
        *ret = RERUN_NO_STAGE;
        rerun_no_stage(rerun, pipeline, reason);
        return MR_OK;
    }
    if (!job_view_stage(rerun->view, rerun->from)) {
        *ret = RERUN_NOT_REACHED;
        error_set(reason, MR_E_SCHEMA, "the job did not get as far as stage \"%s\"", rerun->from);
        error_hint(reason, "without \"from\" it goes on where it stopped");
        return MR_OK;
    }
    bool marked[LIMIT_STAGES] = {false};
    const char *reset[LIMIT_STAGES];
    uint32_t count = 0;
    rerun_mark(pipeline, from->index, marked);
    reset[count++] = from->name;
    for (uint32_t i = 0; i < pipeline->stage_count; i++)
        if (marked[i] && i != from->index)
            reset[count++] = pipeline->stages[i].name;
    return rerun_again(store, rerun, reset, count, ret, reason, err);
}

int rerun_send(struct store *store, const struct rerun *rerun, enum rerun_outcome *ret_outcome,
               struct error *reason, struct error *err)
{
    const struct job_view *view = rerun->view;
    error_set(reason, MR_OK, "%s", "");
    bool is_same = strcmp(view->req, rerun->req) == 0; /* sent again after a lost answer */
    if (!is_same && strcmp(view->status, "completed") == 0) {
        *ret_outcome = RERUN_COMPLETED;
        error_set(reason, MR_E_SCHEMA, "the job has completed");
        error_hint(reason, "\"fresh\": true with the same input makes a new run");
        return MR_OK;
    }
    if (!is_same && !view->is_ended) {
        *ret_outcome = RERUN_OPEN;
        error_set(reason, MR_E_SCHEMA, "the job is %s", view->status);
        return MR_OK;
    }
    if (is_same || !rerun->from)
        return rerun_again(store, rerun, NULL, 0, ret_outcome, reason, err);
    const struct pipeline *known = rerun->known;
    if (known && (!view->revision[0] || strcmp(known->revision, view->revision) == 0))
        return rerun_from(store, rerun, known, ret_outcome, reason, err);
    struct pipeline *fetched = NULL;
    int rc = view->revision[0] ? rerun_fetch(store, view, &fetched, err) : MR_OK;
    if (rc == MR_OK && !fetched) {
        *ret_outcome = RERUN_NO_REVISION;
        error_set(reason, MR_E_SCHEMA, "the job's revision of pipeline %s is not known any more",
                  view->pipeline);
        error_hint(reason, "without \"from\" it goes on where it stopped");
    } else if (rc == MR_OK) {
        rc = rerun_from(store, rerun, fetched, ret_outcome, reason, err);
    }
    pipeline_unref(fetched);
    return rc;
}
