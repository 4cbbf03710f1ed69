/* `millrace run`: jobs in this process, with everything in memory.
 *
 * A session holds the job that was asked for and all it calls or dispatches, found by their ids, so
 * that two calls of one child meet, as they would in Redis. Each job is a fiber that has the runner
 * run its graph; the callbacks below decide what is open next. A retry waits inside the `fail`
 * callback, on the failed task's fiber, and then says that the stage is open again. The session
 * ends when every job has ended, dispatched ones too.
 *
 * Like the worker: attempts, backoff with full jitter, throttling that uses no attempt, deadlines,
 * branches that finish when another one has failed, `on_complete` and `on_failure`. Unlike it:
 * nothing survives the process, and a failed child is not run a second time. */
#include "run/local_inner.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/id.h"
#include "base/log.h"
#include "base/mem.h"
#include <string.h>

#define THROTTLED_MS 1000u

static struct local_job *job_of(struct run *run)
{
    return run->data;
}

/* Events */

static void tell(const struct local_job *job, const char *kind, const struct stage *stage,
                 const char *data)
{
    const struct local_setup *setup = job->session->setup;
    if (setup->on_event != NULL)
        setup->on_event(setup->arg, job->id, kind, stage != NULL ? stage->name : NULL, data);
}

static void tell_error(const struct local_job *job, const char *kind, const struct stage *stage,
                       const struct error *why, uint32_t attempt, uint64_t in_ms)
{
    struct buf buf;
    buf_init(&buf, 8192);
    buf_format(&buf,
               "{\"error\":{\"code\":\"%s\",\"class\":\"%s\",\"message\":", error_name(why->code),
               error_class_name(error_class_of(why)));
    buf_add_json_string(&buf, why->message, strlen(why->message));
    buf_add_text(&buf, ",\"hint\":");
    buf_add_json_string(&buf, why->hint, strlen(why->hint));
    buf_add_char(&buf, '}');
    if (attempt > 0)
        buf_format(&buf, ",\"attempt\":%u", (unsigned)attempt);
    if (in_ms > 0)
        buf_format(&buf, ",\"in_ms\":%llu", (unsigned long long)in_ms);
    buf_add_char(&buf, '}');
    tell(job, kind, stage, buf_text(&buf));
    buf_done(&buf);
}

static void tell_output(const struct local_job *job, const struct stage *stage, const char *status,
                        const char *output, size_t len)
{
    struct buf buf;
    buf_init(&buf, LIMIT_OUTPUT_BYTES + 256);
    buf_format(&buf, "{\"status\":\"%s\",\"output\":", status);
    buf_add(&buf, output, len);
    buf_add_char(&buf, '}');
    tell(job, "stage.completed", stage, buf_text(&buf));
    buf_done(&buf);
}

/* The graph */

static bool needs_are_done(const struct run *run, const struct stage *stage)
{
    for (uint32_t i = 0; i < stage->need_count; i++)
        if (run->status[stage->needs[i]] == 0)
            return false;
    return true;
}

/* Stages that may run now: those that are running (but for `done`), and, unless the job has failed,
 * all whose needs are done. */
static void set_open(const struct local_job *job, stage_index done, struct run_next *next)
{
    const struct run *run = &job->run;
    bool any = false;
    memset(next->open, 0, sizeof(next->open));
    for (uint32_t i = 0; i < job->pipeline->stage_count + 2 && i < LIMIT_STAGES; i++) {
        bool open = run_bit(run->running, i) && i != done;
        if (!open && !job->failed && !job->after && i < job->pipeline->stage_count)
            open = run->status[i] == 0 && needs_are_done(run, &job->pipeline->stages[i]);
        if (open)
            run_set_bit(next->open, i);
        any = any || open;
    }
    next->verdict = any ? RUN_ON : RUN_END;
}

static bool all_done(const struct local_job *job)
{
    for (uint32_t i = 0; i < job->pipeline->stage_count; i++)
        if (job->run.status[i] == 0)
            return false;
    return true;
}

/* Callbacks */

static void on_started(struct run *run, struct stage *stage)
{
    char data[64];
    snprintf(data, sizeof(data), "{\"attempt\":%u}", (unsigned)run->attempts[stage->index] + 1);
    tell(job_of(run), "stage.started", stage, data);
}

static int on_commit(struct run *run, struct stage *stage, enum stage_outcome outcome,
                     const char *output, size_t len, struct run_next *ret_next, struct error *err)
{
    struct local_job *job = job_of(run);
    if (!job->after && !job->failed && all_done(job)) {
        int rc = pipeline_result(job->pipeline, run->doc, &job->result, &job->result_len, err);
        if (rc != MR_OK)
            return rc;
    }
    const char *status = outcome == STAGE_SKIPPED         ? "skipped"
                         : run->status[stage->index] == 3 ? "failed"
                                                          : "completed";
    tell_output(job, stage, status, output, len);
    set_open(job, stage->index, ret_next);
    return MR_OK;
}

/* Full jitter: anything up to the bound, which doubles with each attempt. */
static uint64_t backoff_ms(const struct retry_policy *retry, uint32_t attempts)
{
    uint64_t bound = retry->backoff_ms;
    for (uint32_t i = 1; i < attempts && bound < retry->max_backoff_ms; i++)
        bound *= 2;
    if (bound > retry->max_backoff_ms)
        bound = retry->max_backoff_ms;
    uint64_t random;
    hash_random(&random, sizeof(random));
    return bound == 0 ? 0 : random % (bound + 1);
}

/* Waits for the next attempt. Callbacks are shielded from the run's scope; this one wait is not. */
static void wait_again(struct local_job *job, uint64_t ms)
{
    struct scope *before = scope_enter(&job->backoff);
    wait_shield(-1);
    wait_sleep(job->session->setup->runner->loop, ms);
    wait_shield(1);
    scope_enter(before);
}

static int on_fail(struct run *run, struct stage *stage, const struct error *why,
                   struct run_next *ret_next, struct error *err)
{
    (void)err;
    struct local_job *job = job_of(run);
    enum mr_class class = error_class_of(why);
    bool throttled = class == MR_CLASS_THROTTLED;
    bool again = throttled || (class == MR_CLASS_RETRY &&
                               run->attempts[stage->index] + 1 < stage->retry.attempts);
    if (again && !job->failed) {
        uint64_t in_ms = why->retry_in_ms;
        if (!throttled)
            run->attempts[stage->index]++;
        if (in_ms == 0)
            in_ms =
                throttled ? THROTTLED_MS : backoff_ms(&stage->retry, run->attempts[stage->index]);
        tell_error(job, "stage.retrying", stage, why, run->attempts[stage->index] + 1, in_ms);
        wait_again(job, in_ms);
        set_open(job, stage->index, ret_next);
        if (!job->failed) {
            run_set_bit(ret_next->open, stage->index);
            ret_next->verdict = RUN_ON;
        }
        return MR_OK;
    }
    tell_error(job, "stage.failed", stage, why, run->attempts[stage->index] + 1, 0);
    if (!job->after && !job->failed) {
        job->failed = true;
        job->error = *why;
        scope_cancel(&job->backoff, MR_E_CANCELLED);
    }
    set_open(job, stage->index, ret_next);
    return MR_OK;
}

static const char *on_step_get(struct run *run, struct stage *stage, const char *name,
                               size_t *ret_len)
{
    for (const struct local_step *step = job_of(run)->steps; step != NULL; step = step->next) {
        if (step->stage != stage->index || strcmp(step->name, name) != 0)
            continue;
        *ret_len = step->len;
        return step->text;
    }
    return NULL;
}

static int on_step_put(struct run *run, struct stage *stage, const char *name, const char *text,
                       size_t len, struct error *err)
{
    (void)err;
    /* The newest comes first and counts; older texts may still be lent. */
    struct local_step *step = mem_zalloc(sizeof(*step));
    step->stage = stage->index;
    step->name = mem_dup(name);
    step->text = mem_ndup(text, len);
    step->len = len;
    step->next = job_of(run)->steps;
    job_of(run)->steps = step;
    return MR_OK;
}

static void on_progress(struct run *run, struct stage *stage, int percent, const char *message)
{
    struct buf buf;
    buf_init(&buf, LIMIT_EVENT_BYTES);
    buf_format(&buf, "{\"percent\":%d,\"message\":", percent);
    const char *text = message != NULL ? message : "";
    buf_add_json_string(&buf, text, strlen(text));
    buf_add_char(&buf, '}');
    if (!buf.failed)
        tell(job_of(run), "stage.progress", stage, buf_text(&buf));
    buf_done(&buf);
}

static void on_emit(struct run *run, struct stage *stage, const char *kind, const char *data,
                    size_t len)
{
    (void)len;
    tell(job_of(run), kind, stage, data);
}

static const struct runner_ops local_ops = {
    .started = on_started,
    .commit = on_commit,
    .fail = on_fail,
    .step_get = on_step_get,
    .step_put = on_step_put,
    .call = local_call,
    .dispatch = local_dispatch,
    .progress = on_progress,
    .emit = on_emit,
};

/* Jobs */

struct local_job *local_job_new(struct session *session, const char *id, struct pipeline *pipeline,
                                const char *input, size_t len, struct local_job *parent,
                                uint64_t ttl_ms)
{
    struct local_job *job = mem_zalloc(sizeof(*job));
    job->session = session;
    job->parent = parent;
    memcpy(job->id, id, ID_BYTES);
    job->pipeline = pipeline_ref(pipeline);
    uint64_t most_ms = pipeline->deadline_ms;
    if (ttl_ms != 0 && (most_ms == 0 || ttl_ms < most_ms))
        most_ms = ttl_ms;
    job->deadline_ms = most_ms != 0 ? clock_now_ms() + most_ms : 0;
    if (parent != NULL && parent->deadline_ms != 0 &&
        (job->deadline_ms == 0 || parent->deadline_ms < job->deadline_ms))
        job->deadline_ms = parent->deadline_ms;
    job->run = (struct run){
        .runner = session->setup->runner,
        .ops = &local_ops,
        .data = job,
        .pipeline = pipeline,
        .doc = doc_new(),
        .job_id = job->id,
        .priority = "normal",
        .created_ms = clock_wall_ms(),
    };
    doc_set_text(job->run.doc, "input", input, len);
    job->next = session->jobs;
    session->jobs = job;
    return job;
}

static void job_free(struct local_job *job)
{
    while (job->steps != NULL) {
        struct local_step *step = job->steps;
        job->steps = step->next;
        free(step->name);
        free(step->text);
        free(step);
    }
    doc_free(job->run.doc);
    pipeline_unref(job->pipeline);
    free(job->result);
    free(job);
}

static enum run_verdict job_run(struct local_job *job, uint64_t deadline_ms)
{
    scope_init(&job->run.scope, &job->session->scope);
    scope_init(&job->backoff, &job->run.scope);
    if (deadline_ms != 0)
        scope_set_deadline(&job->run.scope, deadline_ms, MR_E_DEADLINE);
    enum run_verdict verdict = runner_run(&job->run);
    scope_done(&job->backoff);
    scope_done(&job->run.scope);
    return verdict;
}

/* `on_complete` and `on_failure` change nothing about the job. */
static void job_after(struct local_job *job)
{
    const struct stage *stage =
        job->failed ? job->pipeline->on_failure : job->pipeline->on_complete;
    if (stage == NULL)
        return;
    job->after = true;
    memset(job->run.open, 0, sizeof(job->run.open));
    run_set_bit(job->run.open, stage->index);
    job_run(job, 0);
}

static void job_main(void *arg)
{
    struct local_job *job = arg;
    for (uint32_t i = 0; i < job->pipeline->stage_count; i++)
        if (job->pipeline->stages[i].need_count == 0)
            run_set_bit(job->run.open, i);
    job_run(job, job->deadline_ms);
    int ended = scope_error(&job->session->scope);
    if (!job->failed && job->result == NULL)
        error_set(&job->error, ended != MR_OK ? ended : MR_E_INTERNAL, "%s",
                  ended != MR_OK ? error_text(ended) : "the job ended without a result");
    if (job->error.code == MR_OK)
        tell(job, "job.completed", NULL,
             job->result_len <= LIMIT_OUTPUT_BYTES ? job->result : NULL);
    else
        tell_error(job,
                   error_class(job->error.code) == MR_CLASS_CANCELLED ? "job.cancelled"
                                                                      : "job.failed",
                   NULL, &job->error, 0, 0);
    job->ended = true;
    while (job->waiters != NULL) {
        struct local_waiter *waiter = job->waiters;
        job->waiters = waiter->next;
        wait_wake(&waiter->wait, MR_OK);
    }
    if (ended == MR_OK)
        job_after(job);
}

int local_job_start(struct local_job *job, struct error *err)
{
    char data[128];
    snprintf(data, sizeof(data), "{\"pipeline\":\"%s\"}", job->pipeline->name);
    tell(job, "job.queued", NULL, data);
    int rc = group_spawn(&job->session->group, &job->session->scope, job_main, job);
    if (rc != MR_OK) {
        error_set(&job->error, rc, "no fiber to run the job on");
        job->ended = true;
        if (err != NULL)
            *err = job->error;
    }
    return rc;
}

int local_run(const struct local_setup *setup, struct pipeline *pipeline, const json_t *input,
              char **ret_result, size_t *ret_len, struct error *err)
{
    char id[ID_BYTES];
    int rc = id_of_job(ID_NAMESPACE_DEFAULT, pipeline->name, NULL, input, id, err);
    if (rc != MR_OK)
        return rc;
    size_t len = 0;
    mem_auto char *text = json_print(input, LIMIT_JOB_BYTES, &len, err);
    if (text == NULL)
        return err != NULL ? err->code : MR_E_SCHEMA;
    struct session session = {.setup = setup};
    scope_init(&session.scope, scope_current());
    group_init(&session.group, setup->runner->loop);
    struct local_job *job = local_job_new(&session, id, pipeline, text, len, NULL, 0);
    rc = local_job_start(job, err);
    group_wait(&session.group);
    if (rc == MR_OK && job->error.code != MR_OK) {
        rc = job->error.code;
        if (err != NULL)
            *err = job->error;
    } else if (rc == MR_OK) {
        *ret_result = job->result;
        *ret_len = job->result_len;
        job->result = NULL;
    }
    scope_done(&session.scope);
    while (session.jobs != NULL) {
        job = session.jobs;
        session.jobs = job->next;
        job_free(job);
    }
    return rc;
}
