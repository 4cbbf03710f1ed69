/* The runner's callbacks against Redis: each outcome becomes a checkpoint before the next stage
 * begins, and the reply says what this lane has to run now.
 *
 * An output is put into the document before it is committed: whatever the reply opens may read it.
 * The job's result goes with the last commit as far as this worker knows; if it was not the last,
 * or the result could not be made, Redis opens `$end` and asks for it again.
 *
 * A Redis that has forgotten its last seconds (a failover) may answer with stages that this worker
 * has finished already. They are not run again: what was paid for is still in the document, and is
 * committed again from there, one after the other, until what is open is really open (work_next).
 * Steps of stages that run are stored again too. */
#include "work/work.h"

#include "base/clock.h"
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

static bool work_is_finished(const struct run *run, const struct stage *stage)
{
    return run->status[stage->index] != 0;
}

/* The names of finished stages whose output this worker has, and their number, `current` counted
 * in. `*ret_known` leaves out what another task of this lane is about to commit: Redis may not have
 * it yet, and would take what was finished elsewhere for known. */
static uint32_t work_have(const struct run *run, const struct stage *current, struct buf *names,
                          uint32_t *ret_known)
{
    uint32_t count = 0, known = 0;
    for (uint32_t i = 0; i < run->pipeline->stage_count; i++) {
        const struct stage *stage = &run->pipeline->stages[i];
        if (stage != current && !work_is_finished(run, stage))
            continue;
        count++;
        known += stage == current || !run_bit(run->running, i);
        buf_format(names, "%s%s", names->len ? "," : "", stage->name);
    }
    *ret_known = known;
    return count;
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

/* A reply that was long on its way (the process was stopped, or starved) says how the lane stood
 * then: its lease may be over since, and another worker may have it. The same call is sent again,
 * which writes nothing and says how it stands now, before a stage begins on the strength of it. */
static bool work_is_stale(const struct work_lane *lane, const struct lane_next *next,
                          uint64_t sent_ms)
{
    return next->verdict == LANE_OK && clock_now_ms() - sent_ms > lane->worker->setup->lease_ms / 2;
}

/* Sends the checkpoint of a finished stage. */
static int work_send_commit(struct work_lane *lane, struct stage *stage, bool is_skipped,
                            const char *output, size_t len, struct lane_next *ret_next,
                            struct error *err)
{
    struct run *run = &lane->run;
    struct buf buf_auto have;
    buf_init(&have, LIMIT_STAGES * STORE_STAGE_BYTES);
    struct lane_commit commit = {.stage = work_stage_name(run, stage),
                                 .is_skipped = is_skipped,
                                 .output = output,
                                 .output_len = len,
                                 .successor_count = stage->next_count,
                                 .total = run->pipeline->stage_count};
    uint32_t count = work_have(run, stage, &have, &commit.known);
    commit.have = buf_text(&have);
    mem_auto struct lane_successor *successors = work_successors(run->pipeline, stage);
    commit.successors = successors;
    mem_auto char *result = NULL;
    bool is_durable = run->pipeline->durability != PIPELINE_NONE; /* see work_durable.c */
    if (count == commit.total && stage->index < commit.total && !is_durable) {
        /* An error here is met again, and reported, by `$end`. */
        if (pipeline_result(run->pipeline, run->doc, &result, &commit.result_len, NULL) == MR_OK)
            commit.result = result;
    }
    work_take_usage(run, &commit.usage);
    work_tell_flush(lane);
    lane->writing++;
    uint64_t sent_ms = clock_now_ms();
    int rc = lane_commit(lane->worker->store, &lane->lane, &commit, ret_next, err);
    if (rc == MR_OK && work_is_stale(lane, ret_next, sent_ms)) {
        lane_next_done(ret_next);
        rc = lane_commit(lane->worker->store, &lane->lane, &commit, ret_next, err);
    }
    if (rc == MR_OK)
        work_durable(lane);
    lane->writing--;
    return rc;
}

static int work_send_fail(struct work_lane *lane, const struct lane_fail *fail,
                          struct lane_next *ret_next, struct error *err)
{
    work_tell_flush(lane);
    lane->writing++;
    int rc = lane_fail(lane->worker->store, &lane->lane, fail, ret_next, err);
    lane->writing--;
    return rc;
}

/* Commits `$end` with the job's result, or fails it when the result cannot be made; or ends an
 * `$after` with nothing to do. Its record of errors is on no waiting lane's stack. */
static __attribute__((noinline)) int work_send_end(struct work_lane *lane,
                                                   struct lane_next *ret_next, struct error *err)
{
    struct run *run = &lane->run;
    struct error why = {0};
    mem_auto char *result = NULL;
    bool is_end = !job_status_is_ended(lane->grant.status);
    struct lane_commit commit = {.stage = is_end ? "$end" : "$after",
                                 .output = "",
                                 .total = run->pipeline->stage_count,
                                 .known = run->pipeline->stage_count,
                                 .have = ""};
    if (is_end &&
        pipeline_result(run->pipeline, run->doc, &result, &commit.result_len, &why) != MR_OK) {
        const struct lane_fail fail = {.stage = "$end",
                                       .class = MR_CLASS_PERMANENT,
                                       .code = error_name(why.code),
                                       .message = why.message,
                                       .attempts = 1};
        return work_send_fail(lane, &fail, ret_next, err);
    }
    commit.result = result;
    lane->writing++;
    int rc = lane_commit(lane->worker->store, &lane->lane, &commit, ret_next, err);
    lane->writing--;
    return rc;
}

/* A stage that is open for Redis although this worker has finished it; NULL: none. What another
 * task of this lane is about to commit is not meant, but `current`'s own is. */
static struct stage *work_forgotten(const struct run *run, const struct stage *current,
                                    const uint64_t *open)
{
    for (uint32_t i = 0; i < run->pipeline->stage_count; i++) {
        struct stage *stage = &run->pipeline->stages[i];
        if (run_bit(open, i) && work_is_finished(run, stage) &&
            (stage == current || !run_bit(run->running, i)))
            return stage;
    }
    return NULL;
}

/* Stores the steps of these stages once more, where they are not finished: Redis may have forgotten
 * them. */
static int work_put_steps(struct work_lane *lane, const uint64_t *stages, struct error *err)
{
    const struct run *run = &lane->run;
    for (const struct work_step *step = lane->steps; step; step = step->next) {
        char name[STORE_STAGE_BYTES];
        size_t len = strcspn(step->name, "#");
        snprintf(name, sizeof name, "%.*s", (int)len, step->name);
        const struct stage *stage = pipeline_stage(run->pipeline, name);
        if (!stage || !run_bit(stages, stage->index) || work_is_finished(run, stage))
            continue;
        enum lane_verdict verdict;
        int rc = lane_step(lane->worker->store, &lane->lane, name, step->name + len + 1, step->text,
                           step->len, NULL, &verdict, err);
        if (rc != MR_OK)
            return rc;
    }
    return MR_OK;
}

/* Sends again what Redis has forgotten, or sends what it asks for now; false: there is nothing.
 * `current`: the stage of the call that `open` answers; `fail`: when that was a failure. */
static bool work_send_more(struct work_lane *lane, struct stage *current,
                           const struct lane_fail *fail, const uint64_t *open, bool end,
                           struct lane_next *ret_next, int *ret_rc, struct error *err)
{
    struct run *run = &lane->run;
    struct stage *stage = work_forgotten(run, current, open);
    size_t len = 0;
    const char *output = stage ? doc_text(run->doc, stage->name, &len) : NULL;
    if (output) {
        log_event(LOG_WARN, "Redis has forgotten a checkpoint: stored again", "job", lane->lane.job,
                  "stage", stage->name, NULL);
        *ret_rc = work_send_commit(lane, stage, run->status[stage->index] == 2, output, len,
                                   ret_next, err);
        return true;
    }
    if (fail && current && run_bit(open, current->index)) {
        *ret_rc = work_send_fail(lane, fail, ret_next, err);
        return true;
    }
    if (end)
        *ret_rc = work_send_end(lane, ret_next, err);
    return end;
}

/* Keeps what the newest reply left open; an older one gets that instead of its own. */
static void work_see(struct work_lane *lane, uint64_t order, uint64_t *open)
{
    if (order < lane->seen_order) {
        memcpy(open, lane->seen_open, sizeof lane->seen_open);
        return;
    }
    lane->seen_order = order;
    memcpy(lane->seen_open, open, sizeof lane->seen_open);
}

/* Turns a reply into the runner's words, once everything that the reply asks for was sent. */
static int work_next(struct work_lane *lane, struct stage *current, const struct lane_fail *fail,
                     struct lane_next *next, struct run_next *ret_next, struct error *err)
{
    struct run *run = &lane->run;
    struct run_next out = {.verdict = RUN_ON};
    bool has_forgotten = false;
    /* Each turn brings a stage further: more than two for each is a fault. */
    for (uint32_t turns = 2 * run->pipeline->stage_count + 8; turns > 0; turns--) {
        enum lane_verdict verdict = next->verdict;
        bool end = verdict == LANE_OK && work_open(lane, next->open, next->open_count,
                                                   next->outputs, next->output_count, out.open);
        uint64_t order = next->order;
        lane_next_done(next);
        if (verdict == LANE_OK) {
            int rc = MR_OK;
            has_forgotten = has_forgotten || work_forgotten(run, current, out.open);
            if (work_send_more(lane, current, fail, out.open, end, next, &rc, err)) {
                if (rc != MR_OK)
                    return rc;
                continue;
            }
            rc = has_forgotten ? work_put_steps(lane, out.open, err) : MR_OK;
            if (rc != MR_OK)
                return rc;
            work_see(lane, order, out.open);
        } else if (verdict == LANE_END) {
            out.verdict = RUN_END;
        } else if (verdict == LANE_STOP) {
            lane->is_stopped = true;
            out.verdict = RUN_STOP;
        } else {
            work_lane_lose(lane);
            out.verdict = RUN_LOST;
        }
        *ret_next = out;
        return MR_OK;
    }
    lane_next_done(next);
    return error_set(err, MR_E_INTERNAL, "job %s does not get further", lane->lane.job);
}

static int work_commit(struct run *run, struct stage *stage, enum stage_outcome outcome,
                       const char *output, size_t len, struct run_next *ret_next, struct error *err)
{
    struct work_lane *lane = run->data;
    struct lane_next next = {0};
    int rc = work_send_commit(lane, stage, outcome == STAGE_SKIPPED, output, len, &next, err);
    if (rc == MR_OK && next.verdict == LANE_OK)
        room_trust(lane);
    rc = rc == MR_OK ? work_next(lane, stage, NULL, &next, ret_next, err) : rc;
    room_count(lane);
    return rc;
}

int work_end(struct work_lane *lane, struct run_next *ret_next, struct error *err)
{
    struct lane_next next = {0};
    int rc = work_send_end(lane, &next, err);
    return rc == MR_OK ? work_next(lane, NULL, NULL, &next, ret_next, err) : rc;
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
    bool is_usual = fail.class == MR_CLASS_RETRY || fail.class == MR_CLASS_THROTTLED;
    log_failure(is_usual ? LOG_WARN : LOG_ERROR, "attempt failed", why, "job", lane->lane.job,
                "pipeline", run->pipeline->name, "stage", stage->name, "class",
                error_class_name(fail.class), NULL);
    work_take_usage(run, &fail.usage);
    struct lane_next next = {0};
    int rc = work_send_fail(lane, &fail, &next, err);
    return rc == MR_OK ? work_next(lane, stage, &fail, &next, ret_next, err) : rc;
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

/* Steps of a stage in memory, `name` counted in. */
static uint32_t work_count_steps(const struct work_lane *lane, const char *stage, const char *name)
{
    size_t prefix = strlen(stage);
    uint32_t count = 1;
    for (const struct work_step *step = lane->steps; step; step = step->next)
        count += strncmp(step->name, stage, prefix) == 0 && step->name[prefix] == '#' &&
                 strcmp(step->name + prefix + 1, name) != 0;
    return count;
}

static int work_step_put(struct run *run, struct stage *stage, const char *name, const char *text,
                         size_t len, struct error *err)
{
    struct work_lane *lane = run->data;
    const char *own = work_stage_name(run, stage);
    enum lane_verdict verdict = LANE_LOST;
    uint32_t count = 0, want = work_count_steps(lane, own, name);
    /* Shielded: it may hold what was paid for, and outlives an outage longer than the stage's time.
     */
    wait_shield(1);
    int rc =
        lane_step(lane->worker->store, &lane->lane, own, name, text, len, &count, &verdict, err);
    if (rc == MR_OK && verdict != LANE_LOST && count < want)
        rc = work_put_steps(lane, run->running, err);
    wait_shield(-1);
    if (rc != MR_OK)
        return rc;
    work_durable(lane);
    if (verdict == LANE_LOST) {
        work_lane_lose(lane);
        return error_set(err, MR_E_LOST, "the lane belongs to another worker");
    }
    struct work_step *step = mem_zalloc(sizeof *step);
    *step = (struct work_step){.next = lane->steps,
                               .name = mem_format("%s#%s", own, name),
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
