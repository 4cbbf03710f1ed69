/* The host's table: what plugins call, one short function per public call (millrace/plugin.h says
 * what each promises).
 *
 * Each function fills the task's failure record when it fails, so that a plugin may pass the code
 * on and the job's error still says what happened. Calls that may suspend drop the document's trees
 * first (task_suspends). Calls that need a job (children, steps, events) say so while an instance
 * opens. The calls that wait or work are in host_work.c, those that
 * reach other jobs and HTTP in host_call.c and host_http.c. */
#include "run/host.h"

#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "loop/offload.h"
#include <stdio.h>
#include <string.h>

#define MESSAGE_MAX   2000u
#define STEP_NAME_MAX 64u

bool host_needs_run(struct task *task, const char *call)
{
    if (task->run != NULL)
        return true;
    error_set(task_failure(task), MR_E_PLUGIN, "%s is not possible while the plugin opens", call);
    return false;
}

/* The document */

/* `.a.b[0]` to the name of the member and an RFC 6901 pointer for the rest. */
static bool split_path(const char *path, char *ret_name, size_t name_size, struct buf *pointer)
{
    if (path == NULL || path[0] != '.')
        return false;
    const char *at = path + 1;
    size_t len = strcspn(at, ".[");
    if (len == 0 || len >= name_size)
        return false;
    memcpy(ret_name, at, len);
    ret_name[len] = '\0';
    for (at += len; *at != '\0';) {
        if (*at == '.') {
            at++;
            len = strcspn(at, ".[");
            char token[256];
            if (len == 0 || len >= sizeof(token))
                return false;
            memcpy(token, at, len);
            token[len] = '\0';
            json_pointer_push(pointer, token);
        } else {
            at++;
            len = strspn(at, "0123456789");
            if (len == 0 || at[len] != ']')
                return false;
            buf_add_char(pointer, '/');
            buf_add(pointer, at, len);
            len++;
        }
        at += len;
    }
    return !pointer->failed;
}

static const struct json_t *host_get(mr_context *cx, const char *path)
{
    struct task *task = task_of(cx);
    char name[128];
    struct buf pointer;
    buf_init(&pointer, 4096);
    json_t *value = NULL;
    if (split_path(path, name, sizeof(name), &pointer) &&
        doc_member(task->doc, name, &value, NULL) == MR_OK && value != NULL && pointer.len > 0)
        value = json_at(value, buf_text(&pointer));
    buf_done(&pointer);
    return value;
}

static int host_render(mr_context *cx, const mr_template *tpl, struct json_t **ret_value)
{
    struct task *task = task_of(cx);
    struct error why = {0};
    int rc = task_render(tpl, task->doc, ret_value, &why);
    if (rc != MR_OK)
        *task_failure(task) = why;
    return rc;
}

static void free_text(void *text)
{
    free(text);
}

static int host_render_text(mr_context *cx, const mr_template *tpl, const char **ret_text,
                            uint64_t *ret_len)
{
    struct task *task = task_of(cx);
    json_hold json_t *value = NULL;
    int rc = host_render(cx, tpl, &value);
    if (rc != MR_OK)
        return rc;
    size_t len = 0;
    const char *text = NULL;
    if (json_is_string(value)) {
        len = json_string_length(value);
        char *copy = task_alloc(task, len + 1);
        memcpy(copy, json_string_value(value), len);
        text = copy;
    } else if (!json_is_null(value)) {
        struct error why = {0};
        char *printed = task_print(value, LIMIT_JOB_BYTES, false, &len, &why);
        if (printed == NULL) {
            *task_failure(task) = why;
            return why.code;
        }
        task_defer(task, free_text, printed);
        text = printed;
    }
    *ret_text = text;
    if (ret_len != NULL)
        *ret_len = len;
    return MR_OK;
}

static int host_eval(mr_context *cx, const mr_expr *expr, struct json_t **ret_value)
{
    struct task *task = task_of(cx);
    struct error why = {0};
    int rc = task_eval(expr, task->doc, ret_value, &why);
    if (rc != MR_OK)
        *task_failure(task) = why;
    return rc;
}

static int host_bind(mr_context *cx, const char *name, const struct json_t *value)
{
    struct task *task = task_of(cx);
    struct error why = {0};
    size_t len = 0;
    char *text = task_print(value, LIMIT_JOB_BYTES, false, &len, &why);
    if (text == NULL) {
        *task_failure(task) = why;
        return why.code;
    }
    doc_steal_text(task->doc, name, text, len);
    return MR_OK;
}

/* The outcome */

static int host_output(mr_context *cx, struct json_t *value)
{
    struct task *task = task_of(cx);
    struct error why = {0};
    size_t len = 0;
    if (value == NULL)
        return error_set(task_failure(task), MR_E_PLUGIN, "the output is no value");
    char *text = task_print(value, LIMIT_OUTPUT_BYTES, false, &len, &why);
    json_decref(value);
    if (text == NULL) {
        *task_failure(task) = why;
        return why.code;
    }
    return task_set_output(task, text, len);
}

static int host_output_text(mr_context *cx, const char *text, uint64_t len)
{
    struct task *task = task_of(cx);
    if (len > LIMIT_OUTPUT_BYTES)
        return task_set_output(task, NULL, len);
    /* Printed again: events and results are spliced and must stand on one line. */
    json_t *value = NULL;
    struct error why = {0};
    task_suspends(task);
    int rc = offload_json_read(task->runner->loop, text, len, &value, &why);
    if (rc != MR_OK) {
        *task_failure(task) = why;
        return rc;
    }
    return host_output(cx, value);
}

__attribute__((format(printf, 5, 0))) static int
host_fail(mr_context *cx, int code, int cls, uint64_t retry_in_ms, const char *format, va_list args)
{
    struct error *err = task_failure(task_of(cx));
    char message[MESSAGE_MAX];
    vsnprintf(message, sizeof(message), format, args);
    error_set(err, code, "%s", message);
    err->class = cls > MR_CLASS_DEFAULT && cls <= MR_CLASS_BUG ? cls : MR_CLASS_DEFAULT;
    err->retry_in_ms = retry_in_ms;
    return code;
}

static const char *host_error_text(mr_context *cx)
{
    const struct error *err = task_last_failure(task_of(cx));
    return err != NULL ? err->message : "";
}

/* Sums stay exact in Redis's scripts, whatever a provider says. */
static void add_tokens(int64_t *sum, int64_t more)
{
    const int64_t most = (int64_t)1 << 50;
    if (more > 0)
        *sum = more < most - *sum ? *sum + more : most;
}

static void host_usage(mr_context *cx, int64_t input_tokens, int64_t output_tokens)
{
    struct task *task = task_of(cx);
    if (task->run == NULL)
        return;
    add_tokens(&task->run->input_tokens, input_tokens);
    add_tokens(&task->run->output_tokens, output_tokens);
}

/* JSON of others */

static int host_parse(mr_context *cx, const char *text, uint64_t len, struct json_t **ret_value)
{
    struct task *task = task_of(cx);
    struct error why = {0};
    if (len > OFFLOAD_JSON_BYTES)
        task_suspends(task);
    int rc = offload_json_read(task->runner->loop, text, len, ret_value, &why);
    if (rc != MR_OK)
        *task_failure(task) = why;
    return rc;
}

static int host_print(mr_context *cx, const struct json_t *value, const char **ret_text,
                      uint64_t *ret_len)
{
    struct task *task = task_of(cx);
    struct error why = {0};
    size_t len = 0;
    char *text = task_print(value, LIMIT_JOB_BYTES, false, &len, &why);
    if (text == NULL) {
        *task_failure(task) = why;
        return why.code;
    }
    task_defer(task, free_text, text);
    *ret_text = text;
    if (ret_len != NULL)
        *ret_len = len;
    return MR_OK;
}

/* Steps */

static bool step_name_is_valid(struct task *task, const char *name)
{
    size_t len = name != NULL ? strlen(name) : 0;
    if (len > 0 && len <= STEP_NAME_MAX &&
        strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_.-") == len)
        return true;
    struct error *err = task_failure(task);
    error_set(err, MR_E_PLUGIN, "\"%.80s\" is not the name of a step", name != NULL ? name : "");
    error_hint(err, "a-z, 0-9 and _.-, at most %u characters", STEP_NAME_MAX);
    return false;
}

static int host_step_get(mr_context *cx, const char *name, const char **ret_text, uint64_t *ret_len)
{
    struct task *task = task_of(cx);
    size_t len = 0;
    if (!host_needs_run(task, "mr_step_get") || !step_name_is_valid(task, name))
        return MR_E_PLUGIN;
    const struct runner_ops *ops = task->run->ops;
    *ret_text = ops->step_get != NULL ? ops->step_get(task->run, task->stage, name, &len) : NULL;
    if (ret_len != NULL)
        *ret_len = *ret_text != NULL ? len : 0;
    return MR_OK;
}

static int host_step_put(mr_context *cx, const char *name, const char *text, uint64_t len)
{
    struct task *task = task_of(cx);
    if (!host_needs_run(task, "mr_step_put") || !step_name_is_valid(task, name))
        return MR_E_PLUGIN;
    if (len > LIMIT_OUTPUT_BYTES)
        return error_set(task_failure(task), MR_E_SCHEMA,
                         "step \"%s\" has %llu bytes, more than the %u that are allowed", name,
                         (unsigned long long)len, LIMIT_OUTPUT_BYTES);
    if (task->run->ops->step_put == NULL)
        return MR_OK;
    struct error why = {0};
    task_suspends(task);
    int rc = task->run->ops->step_put(task->run, task->stage, name, text, len, &why);
    if (rc != MR_OK)
        *task_failure(task) = why;
    return rc;
}

/* Events, logs, figures */

static int host_progress(mr_context *cx, int percent, const char *message)
{
    struct task *task = task_of(cx);
    if (!host_needs_run(task, "mr_progress"))
        return MR_E_PLUGIN;
    percent = percent < 0 ? 0 : percent > 100 ? 100 : percent;
    if (task->run->ops->progress != NULL)
        task->run->ops->progress(task->run, task->stage, percent, message);
    return MR_OK;
}

static int host_emit(mr_context *cx, const char *kind, const struct json_t *data)
{
    struct task *task = task_of(cx);
    if (!host_needs_run(task, "mr_emit"))
        return MR_E_PLUGIN;
    if (strcmp(kind, "stage.progress") != 0 && strcmp(kind, "stage.delta") != 0)
        return error_set(task_failure(task), MR_E_PLUGIN,
                         "\"%.40s\" is not a kind of event: stage.progress or stage.delta", kind);
    if (data != NULL && !json_is_object(data))
        return error_set(task_failure(task), MR_E_PLUGIN, "an event's data must be an object");
    if (task->run->ops->emit == NULL)
        return MR_OK;
    size_t len = 0;
    struct error why = {0};
    char *text = data != NULL ? task_print(data, LIMIT_EVENT_BYTES, false, &len, &why) : NULL;
    if (data != NULL && text == NULL) {
        *task_failure(task) = why;
        return why.code;
    }
    task->run->ops->emit(task->run, task->stage, kind, text, len);
    free(text);
    return MR_OK;
}

__attribute__((format(printf, 3, 0))) static void host_log(mr_context *cx, int level,
                                                           const char *format, va_list args)
{
    struct task *task = task_of(cx);
    struct error line = {0};
    char message[MESSAGE_MAX];
    vsnprintf(message, sizeof(message), format, args);
    error_set(&line, MR_E_INTERNAL, "%s", message);
    task_scrub(task, &line);
    level = level < MR_LOG_DEBUG ? MR_LOG_DEBUG : level > MR_LOG_ERROR ? MR_LOG_ERROR : level;
    if (task->run != NULL && task->run->ops->log != NULL)
        task->run->ops->log(task->run, task->stage, level, line.message);
    else
        log_event((enum log_level)level, line.message, "job",
                  task->run != NULL ? task->run->job_id : NULL, "stage", task->stage->name,
                  "plugin", task->stage->plugin_name, NULL);
}

static void *host_alloc(mr_context *cx, size_t size)
{
    return task_alloc(task_of(cx), size);
}

static void host_defer(mr_context *cx, void (*fn)(void *arg), void *arg)
{
    task_defer(task_of(cx), fn, arg);
}

static void *host_instance(mr_context *cx)
{
    return task_of(cx)->stage->instance;
}

static uint64_t host_time_left(mr_context *cx)
{
    return scope_time_left(&task_of(cx)->scope);
}

static int host_cancelled(mr_context *cx)
{
    return scope_error(&task_of(cx)->scope) != MR_OK;
}

static const char *host_dir(mr_context *cx)
{
    return task_of(cx)->pipeline->dir;
}

static const struct json_t *host_options(mr_context *cx)
{
    return task_of(cx)->stage->options;
}

static uint64_t host_now(mr_context *cx)
{
    (void)cx;
    return clock_now_ms();
}

const struct mr_host host_table = {
    .size = sizeof(struct mr_host),
    .abi_minor = MR_ABI_MINOR,
    .get = host_get,
    .render = host_render,
    .render_text = host_render_text,
    .eval = host_eval,
    .bind = host_bind,
    .output = host_output,
    .output_text = host_output_text,
    .fail = host_fail,
    .parse = host_parse,
    .print = host_print,
    .http = host_http,
    .call = host_call,
    .dispatch = host_dispatch,
    .uuid = host_uuid,
    .step_get = host_step_get,
    .step_put = host_step_put,
    .sleep = host_sleep,
    .offload = host_offload,
    .batch = host_batch,
    .parallel = host_parallel,
    .progress = host_progress,
    .emit = host_emit,
    .log = host_log,
    .alloc = host_alloc,
    .defer = host_defer,
    .instance = host_instance,
    .time_left = host_time_left,
    .cancelled = host_cancelled,
    .usage = host_usage,
    .dir = host_dir,
    .options = host_options,
    .error_text = host_error_text,
    .child_id = host_child_id,
    .now = host_now,
};
