/* The runner: the graph of one lane as a list of steps.
 *
 *   runner_run → lane_work: takes the next open stage, lets helpers take the others
 *   task_do:  skip? → place → open → run → finish
 *   finish:   commit, fail, or nothing when the lane is winding up
 *   next:     what the callback said is open now
 *
 * The fiber that ends a stage goes on with the next one, so a chain needs one fiber; more are
 * started only for stages that are open side by side, and when there is no stack for another the
 * stages run one after the other.
 *
 * Who decides what: the callbacks which stages are open; this file what an attempt's outcome was.
 * A lane that is winding up (run->verdict is not RUN_ON, or its scope has ended) begins no stage
 * and writes no failure, but an output that was finished is still handed to commit, unless another
 * worker has the lane. */
#include "run/runner.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/unit.h"
#include "loop/watchdog.h"
#include "run/runner_inner.h"
#include <string.h>

struct run_fault {
    struct run_fault *next;
    stage_index stage;
    char *text; /* JSON of `.stages.NAME.error` */
};

/* The document's own members */

static const char *status_word(uint8_t status)
{
    static const char *const words[] = {NULL, "completed", "skipped", "failed"};
    return status < sizeof(words) / sizeof(words[0]) ? words[status] : NULL;
}

static const char *fault_text(const struct run *run, stage_index stage)
{
    for (const struct run_fault *fault = run->faults; fault != NULL; fault = fault->next)
        if (fault->stage == stage)
            return fault->text;
    return "null";
}

static void set_member(struct doc *doc, const char *name, struct buf *buf)
{
    size_t len = buf->len;
    char *text = buf_take(buf);
    if (text != NULL)
        doc_steal_text(doc, name, text, len);
}

/* `.stages`: the status of every stage that has ended. */
static void set_stages(struct run *run)
{
    struct buf buf;
    buf_init(&buf, LIMIT_OUTPUT_BYTES);
    buf_add_char(&buf, '{');
    for (uint32_t i = 0; i < run->pipeline->stage_count; i++) {
        const char *word = status_word(run->status[i]);
        if (word != NULL)
            buf_format(&buf, "%s\"%s\":{\"status\":\"%s\",\"error\":%s}", buf.len > 1 ? "," : "",
                       run->pipeline->stages[i].name, word, fault_text(run, i));
    }
    buf_add_char(&buf, '}');
    set_member(run->doc, "stages", &buf);
}

/* `.job`, as the task of this attempt sees it. */
static void set_job(const struct run *run, struct doc *doc, uint32_t attempt)
{
    char created[25];
    struct buf buf;
    clock_format(run->created_ms, created);
    buf_init(&buf, LIMIT_OUTPUT_BYTES);
    const char *priority = run->priority != NULL ? run->priority : "normal";
    buf_format(&buf, "{\"id\":\"%s\",\"pipeline\":\"%s\",\"attempt\":%u,\"priority\":\"%s\"",
               run->job_id != NULL ? run->job_id : "", run->pipeline->name, (unsigned)attempt,
               priority);
    buf_format(&buf, ",\"created_at\":\"%s\",\"metadata\":%s}", created,
               run->metadata != NULL && run->metadata[0] != '\0' ? run->metadata : "{}");
    set_member(doc, "job", &buf);
}

static void note_fault(struct run *run, stage_index stage, const struct error *why)
{
    struct buf buf;
    buf_init(&buf, 4096);
    buf_format(&buf, "{\"code\":\"%s\",\"message\":", error_name(why->code));
    buf_add_json_string(&buf, why->message, strlen(why->message));
    buf_add_char(&buf, '}');
    struct run_fault *fault = mem_zalloc(sizeof(*fault));
    fault->stage = stage;
    fault->text = buf_take(&buf);
    if (fault->text == NULL)
        fault->text = mem_dup("null");
    fault->next = run->faults;
    run->faults = fault;
}

static void free_faults(struct run *run)
{
    while (run->faults != NULL) {
        struct run_fault *fault = run->faults;
        run->faults = fault->next;
        free(fault->text);
        free(fault);
    }
}

/* Verdicts */

static void wind_up(struct run *run, enum run_verdict verdict, int code)
{
    if (run->verdict < verdict)
        run->verdict = verdict;
    scope_cancel(&run->scope, code);
}

/* Takes what a callback said: `rc` and the next stages. */
static void take_next(struct run *run, int rc, const struct run_next *next)
{
    if (rc != MR_OK || next->verdict == RUN_LOST) {
        wind_up(run, RUN_LOST, MR_E_LOST);
        return;
    }
    memcpy(run->open, next->open, sizeof(run->open));
    if (next->verdict == RUN_STOP)
        wind_up(run, RUN_STOP, MR_E_CANCELLED);
    else if (next->verdict == RUN_END && run->verdict == RUN_ON)
        run->verdict = RUN_END;
}

/* Finishing */

static void task_fail(struct task *task, struct error *why);

/* Hands an output over. `status` as in struct run. */
static __attribute__((noinline)) void task_commit(struct task *task, uint8_t status,
                                                  const char *text, size_t len)
{
    struct run *run = task->run;
    struct stage *stage = task->stage;
    struct run_next next = {0};
    struct error err = {0};
    run->status[stage->index] = status;
    doc_set_text(run->doc, stage->name, text, len);
    set_stages(run);
    wait_shield(1);
    int rc = run->ops->commit(run, stage, status == 2 ? STAGE_SKIPPED : STAGE_DONE, text, len,
                              &next, &err);
    wait_shield(-1);
    if (rc == MR_OK || error_class_of(&err) != MR_CLASS_PERMANENT) {
        run_clear_bit(run->running, stage->index);
        take_next(run, rc, &next);
        return;
    }
    /* The result could not be made of the outputs. */
    run->status[stage->index] = 0;
    doc_remove(run->doc, stage->name);
    set_stages(run);
    task_fail(task, &err);
}

/* Whether no further attempt will follow this failure. */
static bool is_final(const struct run *run, const struct stage *stage, const struct error *why)
{
    switch (error_class_of(why)) {
    case MR_CLASS_RETRY:
        return run->attempts[stage->index] + 1 >= stage->retry.attempts;
    case MR_CLASS_THROTTLED:
        return false;
    default:
        return true;
    }
}

static void task_fail(struct task *task, struct error *why)
{
    struct run *run = task->run;
    struct stage *stage = task->stage;
    task_scrub(task, why);
    if (why->where[0] == '\0')
        error_where(why, "%s, stage %s", run->pipeline->name, stage->name);
    struct run_next next = {0};
    struct error err = {0};
    wait_shield(1);
    int rc = run->ops->fail(run, stage, why, &next, &err);
    wait_shield(-1);
    run_clear_bit(run->running, stage->index);
    take_next(run, rc, &next);
}

/* The error that an attempt ended with. */
static void attempt_error(struct task *task, int rc, struct error *ret)
{
    const char *plugin = task->stage->plugin_name;
    const struct error *last = task_last_failure(task);
    int stage_code = task->scope.code;
    if (!task_is_code(rc)) {
        error_set(ret, MR_E_INTERNAL, "plugin \"%s\" returned %d, which is no code of millrace",
                  plugin, rc);
        error_hint(ret, "`run` returns MR_OK or one of MR_E_…: this is a bug of the plugin");
    } else if (rc == MR_E_TIMEOUT && stage_code == MR_E_TIMEOUT) {
        char limit[32];
        unit_format_duration(task->stage->timeout_ms, limit);
        error_set(ret, rc, "the stage took longer than its timeout of %s", limit);
        error_hint(ret, "raise the stage's `timeout` if this much time is to be expected");
        if (last != NULL && last->code == rc)
            error_detail(ret, "%s", last->message);
    } else if (error_class(rc) == MR_CLASS_CANCELLED) {
        error_set(ret, MR_E_INTERNAL, "plugin \"%s\" returned \"%s\", but nothing was cancelled",
                  plugin, error_name(rc));
    } else if (last != NULL && last->code == rc) {
        *ret = *last;
    } else {
        error_set(ret, rc, "plugin \"%s\": %s", plugin, error_text(rc));
    }
}

static void finish_failed(struct task *task, struct error *why)
{
    struct run *run = task->run;
    struct stage *stage = task->stage;
    if (stage->on_failure != NULL && is_final(run, stage, why)) {
        task_scrub(task, why);
        note_fault(run, stage->index, why);
        mr_log(&task->cx, MR_LOG_WARN, "failed, going on with its on_failure: %s: %s",
               error_name(why->code), why->message);
        task_commit(task, 3, stage->on_failure, strlen(stage->on_failure));
        return;
    }
    task_fail(task, why);
}

/* Winding up: true when the attempt's failure is not to be written. */
static bool is_winding_up(struct run *run, struct error *ret_deadline)
{
    int code = scope_error(&run->scope);
    if (code == 0 && run->verdict == RUN_ON)
        return false;
    if (code == MR_E_DEADLINE && run->verdict == RUN_ON) {
        error_set(ret_deadline, MR_E_DEADLINE, "the job's deadline has passed");
        return false;
    }
    if (run->verdict == RUN_ON)
        run->verdict = code == MR_E_LOST ? RUN_LOST : RUN_STOP;
    return true;
}

/* Not inlined, like task_begin: their records of errors would lie on every waiting task's stack. */
static __attribute__((noinline)) void task_finish(struct task *task, int rc)
{
    struct run *run = task->run;
    struct error why = {0};
    if (rc == MR_OK && run->verdict != RUN_LOST && run->scope.code != MR_E_LOST) {
        if (task->output != NULL)
            task_commit(task, 1, task->output, task->output_len);
        else
            task_commit(task, 1, "null", 4);
        return;
    }
    if (is_winding_up(run, &why)) {
        run_clear_bit(run->running, task->stage->index);
        return;
    }
    if (why.code != MR_OK) {
        task_fail(task, &why);
        return;
    }
    attempt_error(task, rc, &why);
    finish_failed(task, &why);
}

/* Steps */

/* Runs the plugin under the stage's time-out. */
static int task_attempt(struct task *task)
{
    struct run *run = task->run;
    struct stage *stage = task->stage;
    if (run->ops->started != NULL)
        run->ops->started(run, stage);
    scope_set_deadline(&task->scope, clock_now_ms() + stage->timeout_ms, MR_E_TIMEOUT);
    return stage->plugin->about.run(&task->cx, stage->settings);
}

static int task_open_and_run(struct task *task)
{
    struct run *run = task->run;
    task->instance = instance_of(run->runner, run->pipeline, task->stage);
    int rc = instance_enter(task->instance);
    if (rc != MR_OK)
        return error_set(task_failure(task), rc, "while waiting for a place: %s", error_text(rc));
    if (task->instance->state != INSTANCE_OPEN)
        rc = instance_open(task->instance, task_failure(task));
    if (rc == MR_OK)
        rc = task_attempt(task);
    instance_leave(task->instance);
    return rc;
}

static __attribute__((noinline)) int task_begin(struct task *task, bool *ret_skip)
{
    struct run *run = task->run;
    struct stage *stage = task->stage;
    bool go = true;
    int rc = MR_OK;
    set_job(run, task->doc, run->attempts[stage->index] + 1);
    if (stage->plugin == NULL)
        return error_set(task_failure(task), MR_E_PIPELINE_CHANGED,
                         "plugin \"%s\" is not there in this process", stage->plugin_name);
    if (stage->when != NULL) {
        struct error why = {0};
        rc = task_test(stage->when, task->doc, &go, &why);
        if (rc != MR_OK) {
            if (why.where[0] == '\0')
                error_where(&why, "%s: /stages/%u/when", run->pipeline->file,
                            (unsigned)stage->index);
            *task_failure(task) = why;
        }
    }
    *ret_skip = !go;
    return rc;
}

static void task_do(struct run *run, struct stage *stage)
{
    struct task task;
    bool skip = false;
    if (is_winding_up(run, NULL)) {
        run_clear_bit(run->running, stage->index);
        return;
    }
    if (run->runner->stopping) {
        run_clear_bit(run->running, stage->index);
        wind_up(run, RUN_STOP, MR_E_STOPPING);
        return;
    }
    task_init(&task, run->runner, run, run->pipeline, stage);
    struct scope *before = scope_enter(&task.scope);
    watchdog_label(run->job_id, stage->name, stage->plugin_name);
    int rc = scope_error(&run->scope); /* the deadline: everything else is winding up */
    if (rc == MR_OK)
        rc = task_begin(&task, &skip);
    if (rc == MR_OK && !skip)
        rc = task_open_and_run(&task);
    watchdog_label(NULL, NULL, NULL);
    if (skip)
        task_commit(&task, 2, stage->otherwise, strlen(stage->otherwise));
    else
        task_finish(&task, rc);
    scope_enter(before);
    task_done(&task);
}

/* The lane */

/* The first stage that is open and not running; marks it as running. */
static struct stage *take_stage(struct run *run)
{
    if (run->verdict != RUN_ON)
        return NULL;
    for (size_t word = 0; word < LIMIT_STAGES / 64; word++) {
        uint64_t ready = run->open[word] & ~run->running[word];
        if (ready == 0)
            continue;
        stage_index index = (stage_index)(word * 64 + (size_t)__builtin_ctzll(ready));
        run_set_bit(run->running, index);
        if (index >= run->pipeline->stage_count + 2 || run->pipeline->stages[index].name == NULL)
            continue; /* no such stage: stays marked, so that nobody takes it */
        return &run->pipeline->stages[index];
    }
    return NULL;
}

static void lane_work(void *arg)
{
    struct run *run = arg;
    for (struct stage *stage; (stage = take_stage(run)) != NULL;) {
        /* One helper for each stage that is open beside this one. A helper that comes too late
         * finds nothing. */
        for (size_t word = 0; word < LIMIT_STAGES / 64; word++) {
            uint64_t ready = run->open[word] & ~run->running[word];
            int spawned = MR_OK;
            for (int n = __builtin_popcountll(ready); n > 0 && spawned == MR_OK; n--)
                spawned = group_spawn(&run->group, &run->scope, lane_work, run);
        }
        task_do(run, stage);
    }
}

enum run_verdict runner_run(struct run *run)
{
    run->verdict = RUN_ON;
    memset(run->running, 0, sizeof(run->running));
    group_init(&run->group, run->runner->loop);
    set_job(run, run->doc, 1);
    set_stages(run);
    struct scope *before = scope_enter(&run->scope);
    /* Whoever ends a stage takes what that opened before it ends itself: nothing is left. */
    lane_work(run);
    group_wait(&run->group);
    scope_enter(before);
    free_faults(run);
    return run->verdict;
}

void runner_init(struct runner *runner, struct loop *loop, struct http *http)
{
    *runner = (struct runner){.loop = loop, .http = http};
    runner->priv = mem_zalloc(sizeof(*runner->priv));
    group_init(&runner->priv->helpers, loop);
}

void runner_settle(struct runner *runner)
{
    for (struct instance *i = runner->priv->instances; i != NULL; i = i->next)
        if (i->scope != NULL)
            scope_cancel(i->scope, MR_E_STOPPING);
    group_wait(&runner->priv->helpers);
}

void runner_done(struct runner *runner)
{
    struct runner_private *priv = runner->priv;
    while (priv->instances != NULL) {
        struct instance *instance = priv->instances;
        priv->instances = instance->next;
        instance_free(instance);
    }
    free(priv);
    runner->priv = NULL;
}
