/* The runner's callbacks against Redis: each outcome becomes a checkpoint before the next stage
 * begins, and the reply says what this lane has to run now.
 *
 * An output is put into the document before it is committed: whatever the reply opens may read it.
 * The job's result goes with the last commit as far as this worker knows; if it was not the last,
 * or the result could not be made, Redis opens `$end` and asks for it again. */
#include "work/work.h"

#include "base/hash.h"
#include "base/log.h"
#include <string.h>

#define WORK_THROTTLED_MS 1000u /* when nobody says how long */

/* What the pipeline wants to have run after this end of the job; NULL: nothing. */
static const struct stage *work_follow_up(const struct work_lane *lane)
{
    return strcmp(lane->grant.status, "completed") == 0 ? lane->pipeline->on_complete
           : strcmp(lane->grant.status, "failed") == 0  ? lane->pipeline->on_failure
                                                        : NULL;
}

const char *work_stage_name(const struct run *run, const struct stage *stage)
{
    return stage->index < run->pipeline->stage_count ? stage->name : "$after";
}

bool work_open(struct work_lane *lane, const char *const *open, uint32_t open_count,
               const struct lane_output *outputs, uint32_t output_count, uint64_t *ret_open)
{
    struct run *run = &lane->run;
    bool end = false;
    for (uint32_t i = 0; i < output_count; i++) {
        const struct stage *stage = pipeline_stage(lane->pipeline, outputs[i].name);
        if (!stage)
            continue;
        doc_set_text(run->doc, stage->name, outputs[i].text, outputs[i].len);
        run->status[stage->index] = outputs[i].state == 's' ? 2 : 1;
    }
    memset(ret_open, 0, sizeof run->open);
    for (uint32_t i = 0; i < open_count; i++) {
        const struct stage *stage = pipeline_stage(lane->pipeline, open[i]);
        if (strcmp(open[i], "$after") == 0)
            stage = work_follow_up(lane);
        if (stage)
            run_set_bit(ret_open, stage->index);
        else
            end = true; /* `$end`, or `$after` with nothing to do */
    }
    return end;
}

static void work_take_usage(struct run *run, struct lane_usage *ret_usage)
{
    *ret_usage =
        (struct lane_usage){.input_tokens = run->input_tokens, .output_tokens = run->output_tokens};
    run->input_tokens = run->output_tokens = 0;
}

/* Turns a reply into the runner's words; commits `$end` when it was opened. */
static int work_next(struct work_lane *lane, struct lane_next *next, struct run_next *ret_next,
                     struct error *err)
{
    struct run_next out = {.verdict = RUN_ON};
    bool end = false;
    switch (next->verdict) {
    case LANE_OK:
        end = work_open(lane, next->open, next->open_count, next->outputs, next->output_count,
                        out.open);
        break;
    case LANE_END:
        out.verdict = RUN_END;
        break;
    case LANE_STOP:
        lane->is_stopped = true;
        out.verdict = RUN_STOP;
        break;
    default:
        work_lane_lose(lane);
        out.verdict = RUN_LOST;
        break;
    }
    lane_next_done(next);
    if (end)
        return work_end(lane, ret_next, err);
    *ret_next = out;
    return MR_OK;
}

static bool work_is_finished(const struct run *run, const struct stage *stage)
{
    return run->status[stage->index] != 0;
}

/* The names of finished stages that this worker has, and their number, `current` counted in. */
static uint32_t work_have(const struct run *run, const struct stage *current, struct buf *names)
{
    uint32_t known = 0;
    for (uint32_t i = 0; i < run->pipeline->stage_count; i++) {
        const struct stage *stage = &run->pipeline->stages[i];
        if (stage != current && !work_is_finished(run, stage))
            continue;
        known++;
        buf_format(names, "%s%s", names->len ? "," : "", stage->name);
    }
    return known;
}

/* The stages that wait for this one, with all their needs, as the script wants them. Names are
 * borrowed from the pipeline; free() the array. */
static struct lane_successor *work_successors(const struct pipeline *pipeline,
                                              const struct stage *stage)
{
    size_t need_count = 0;
    for (uint32_t i = 0; i < stage->next_count; i++)
        need_count += pipeline->stages[stage->next[i]].need_count;
    struct lane_successor *all =
        mem_alloc(stage->next_count * sizeof *all + need_count * sizeof(char *) + 1);
    const char **needs = (const char **)(void *)(all + stage->next_count);
    for (uint32_t i = 0; i < stage->next_count; i++) {
        const struct stage *next = &pipeline->stages[stage->next[i]];
        all[i] = (struct lane_successor){.name = next->name,
                                         .queue = next->queue,
                                         .needs = needs,
                                         .need_count = next->need_count};
        for (uint32_t k = 0; k < next->need_count; k++)
            *needs++ = pipeline->stages[next->needs[k]].name;
    }
    return all;
}

static int work_commit(struct run *run, struct stage *stage, enum stage_outcome outcome,
                       const char *output, size_t len, struct run_next *ret_next, struct error *err)
{
    struct work_lane *lane = run->data;
    struct buf buf_auto have;
    buf_init(&have, LIMIT_STAGES * STORE_STAGE_BYTES);
    struct lane_commit commit = {.stage = work_stage_name(run, stage),
                                 .is_skipped = outcome == STAGE_SKIPPED,
                                 .output = output,
                                 .output_len = len,
                                 .successor_count = stage->next_count,
                                 .total = run->pipeline->stage_count};
    commit.known = work_have(run, stage, &have);
    commit.have = buf_text(&have);
    mem_auto struct lane_successor *successors = work_successors(run->pipeline, stage);
    commit.successors = successors;
    mem_auto char *result = NULL;
    if (commit.known == commit.total && stage->index < commit.total) {
        /* An error here is met again, and reported, by `$end`. */
        if (pipeline_result(run->pipeline, run->doc, &result, &commit.result_len, NULL) == MR_OK)
            commit.result = result;
    }
    work_take_usage(run, &commit.usage);
    struct lane_next next = {0};
    work_tell_flush(lane);
    lane->writing++;
    int rc = lane_commit(lane->worker->store, &lane->lane, &commit, &next, err);
    lane->writing--;
    rc = rc == MR_OK ? work_next(lane, &next, ret_next, err) : rc;
    room_count(lane);
    return rc;
}

int work_end(struct work_lane *lane, struct run_next *ret_next, struct error *err)
{
    struct run *run = &lane->run;
    struct lane_next next = {0};
    struct error why = {0};
    mem_auto char *result = NULL;
    bool is_end = strcmp(lane->grant.status, "completed") != 0 &&
                  strcmp(lane->grant.status, "failed") != 0 &&
                  strcmp(lane->grant.status, "cancelled") != 0;
    struct lane_commit commit = {.stage = is_end ? "$end" : "$after",
                                 .output = "",
                                 .total = run->pipeline->stage_count,
                                 .have = ""};
    int rc;
    if (is_end &&
        pipeline_result(run->pipeline, run->doc, &result, &commit.result_len, &why) != MR_OK) {
        const struct lane_fail fail = {.stage = "$end",
                                       .class = MR_CLASS_PERMANENT,
                                       .code = error_name(why.code),
                                       .message = why.message,
                                       .attempts = 1};
        lane->writing++;
        rc = lane_fail(lane->worker->store, &lane->lane, &fail, &next, err);
        lane->writing--;
    } else {
        commit.result = result;
        commit.known = commit.total;
        lane->writing++;
        rc = lane_commit(lane->worker->store, &lane->lane, &commit, &next, err);
        lane->writing--;
    }
    if (rc != MR_OK)
        return rc;
    *ret_next = (struct run_next){.verdict = next.verdict == LANE_END    ? RUN_END
                                             : next.verdict == LANE_STOP ? RUN_STOP
                                             : next.verdict == LANE_OK   ? RUN_END
                                                                         : RUN_LOST};
    if (next.verdict == LANE_STOP)
        lane->is_stopped = true;
    lane_next_done(&next);
    return MR_OK;
}

/* Full jitter: anywhere between nothing and a bound that doubles with each attempt. */
static uint64_t work_backoff(const struct stage *stage, uint32_t attempts)
{
    uint64_t bound = stage->retry.backoff_ms;
    for (uint32_t i = 0; i < attempts && bound < stage->retry.max_backoff_ms; i++)
        bound *= 2;
    if (bound > stage->retry.max_backoff_ms)
        bound = stage->retry.max_backoff_ms;
    uint64_t random;
    hash_random(&random, sizeof random);
    return bound ? random % (bound + 1) : 0;
}

static int work_fail(struct run *run, struct stage *stage, const struct error *why,
                     struct run_next *ret_next, struct error *err)
{
    struct work_lane *lane = run->data;
    struct lane_fail fail = {.stage = work_stage_name(run, stage),
                             .class = error_class_of(why),
                             .code = error_name(why->code),
                             .message = why->message,
                             .attempts = stage->retry.attempts};
    if (fail.class == MR_CLASS_THROTTLED)
        fail.delay_ms = why->retry_in_ms ? why->retry_in_ms : WORK_THROTTLED_MS;
    else if (fail.class == MR_CLASS_RETRY)
        fail.delay_ms =
            why->retry_in_ms ? why->retry_in_ms : work_backoff(stage, run->attempts[stage->index]);
    log_error("attempt failed", why, "job", lane->lane.job, "pipeline", run->pipeline->name,
              "stage", stage->name, "class", error_class_name(fail.class), NULL);
    work_take_usage(run, &fail.usage);
    struct lane_next next = {0};
    work_tell_flush(lane);
    lane->writing++;
    int rc = lane_fail(lane->worker->store, &lane->lane, &fail, &next, err);
    lane->writing--;
    return rc == MR_OK ? work_next(lane, &next, ret_next, err) : rc;
}

static const char *work_step_get(struct run *run, struct stage *stage, const char *name,
                                 size_t *ret_len)
{
    struct work_lane *lane = run->data;
    const char *own = work_stage_name(run, stage);
    size_t prefix = strlen(own);
    for (struct work_step *step = lane->steps; step; step = step->next) {
        if (strncmp(step->name, own, prefix) == 0 && step->name[prefix] == '#' &&
            strcmp(step->name + prefix + 1, name) == 0) {
            *ret_len = step->len;
            return step->text;
        }
    }
    return NULL;
}

static int work_step_put(struct run *run, struct stage *stage, const char *name, const char *text,
                         size_t len, struct error *err)
{
    struct work_lane *lane = run->data;
    enum lane_verdict verdict = LANE_LOST;
    int rc = lane_step(lane->worker->store, &lane->lane, work_stage_name(run, stage), name, text,
                       len, &verdict, err);
    if (rc != MR_OK)
        return rc;
    if (verdict == LANE_LOST) {
        work_lane_lose(lane);
        return error_set(err, MR_E_LOST, "the lane belongs to another worker");
    }
    struct work_step *step = mem_zalloc(sizeof *step);
    *step = (struct work_step){.next = lane->steps,
                               .name = mem_format("%s#%s", work_stage_name(run, stage), name),
                               .text = mem_ndup(text, len),
                               .len = len};
    lane->steps = step;
    if (verdict == LANE_STOP) {
        work_lane_stop(lane);
        return error_set(err, MR_E_CANCELLED, "the job is being stopped");
    }
    return MR_OK;
}

static void work_log(struct run *run, struct stage *stage, int level, const char *text)
{
    struct work_lane *lane = run->data;
    log_event(level <= MR_LOG_DEBUG  ? LOG_DEBUG
              : level == MR_LOG_INFO ? LOG_INFO
              : level == MR_LOG_WARN ? LOG_WARN
                                     : LOG_ERROR,
              text, "job", lane->lane.job, "pipeline", run->pipeline->name, "stage", stage->name,
              NULL);
}

const struct runner_ops work_ops = {
    .commit = work_commit,
    .fail = work_fail,
    .step_get = work_step_get,
    .step_put = work_step_put,
    .call = work_call,
    .dispatch = work_dispatch,
    .progress = work_progress,
    .emit = work_emit,
    .log = work_log,
};
