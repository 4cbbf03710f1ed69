/* The host table of the harness: each function records the call and answers as the test scripted.
 * Over 500 lines: one short function for each row of the table. */
#include "fake_host.h"
#include "base/id.h"
#include "base/limits.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct fake_defer {
    struct fake_defer *next;
    void (*fn)(void *arg);
    void *arg;
};

static struct fake_task *task_of(mr_context *cx)
{
    return (struct fake_task *)cx;
}

static struct fake_private *priv_of(mr_context *cx)
{
    return task_of(cx)->fake->priv;
}

__attribute__((format(printf, 2, 3))) static void trace(mr_context *cx, const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    buf_format(&task_of(cx)->fake->trace, "%s\n", line);
}

static int set_error(mr_context *cx, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static int set_error(mr_context *cx, int code, const char *format, ...)
{
    struct error *err = &task_of(cx)->error;
    memset(err, 0, sizeof(*err));
    err->code = code;
    va_list args;
    va_start(args, format);
    vsnprintf(err->message, sizeof(err->message), format, args);
    va_end(args);
    return code;
}

/* At the begin of every call that suspends: what was lent is gone. */
static int suspend_begin(mr_context *cx)
{
    struct fake_task *task = task_of(cx);
    doc_forget(task->doc);
    doc_forget(task->fake->priv->doc);
    task->suspensions++;
    if (task->fake->torture_at == task->suspensions && !task->fake->torture_after)
        return set_error(cx, task->fake->torture_code, "torture at suspension %u",
                         task->suspensions);
    return MR_OK;
}

/* At its end, after the effect. */
static int suspend_end(mr_context *cx, int rc)
{
    struct fake_task *task = task_of(cx);
    if (task->fake->torture_at == task->suspensions && task->fake->torture_after)
        return set_error(cx, task->fake->torture_code, "torture after suspension %u",
                         task->suspensions);
    return rc;
}

/* The document */

static const struct json_t *fake_get(mr_context *cx, const char *path)
{
    char name[64];
    size_t len = strcspn(path + 1, ".[");
    json_t *value = NULL;
    snprintf(name, sizeof(name), "%.*s", (int)len, path + 1);
    if (path[0] != '.' || doc_member(task_of(cx)->doc, name, &value, NULL) != MR_OK)
        return NULL;
    for (path += 1 + len; value && *path; path += len) {
        if (*path == '[') {
            value = json_array_get(value, strtoul(path + 1, NULL, 10));
            len = strcspn(path, "]") + 1;
        } else {
            len = strcspn(path + 1, ".[") + 1;
            snprintf(name, sizeof(name), "%.*s", (int)len - 1, path + 1);
            value = json_object_get(value, name);
        }
    }
    return value;
}

static int fake_render(mr_context *cx, const mr_template *tpl, struct json_t **ret_value)
{
    return expr_render(tpl, task_of(cx)->doc, ret_value, &task_of(cx)->error);
}

static int fake_print(mr_context *cx, const struct json_t *value, const char **ret_text,
                      uint64_t *ret_len)
{
    size_t len = 0;
    mem_auto char *text = json_print(value, 64u << 20, &len, &task_of(cx)->error);
    if (!text)
        return task_of(cx)->error.code;
    *ret_text = arena_ndup(&task_of(cx)->arena, text, len);
    *ret_len = len;
    return MR_OK;
}

static int fake_render_text(mr_context *cx, const mr_template *tpl, const char **ret_text,
                            uint64_t *ret_len)
{
    json_hold json_t *value = NULL;
    int rc = fake_render(cx, tpl, &value);
    if (rc != MR_OK)
        return rc;
    *ret_text = NULL;
    *ret_len = 0;
    if (json_is_null(value))
        return MR_OK;
    if (!json_is_string(value))
        return fake_print(cx, value, ret_text, ret_len);
    *ret_len = json_string_length(value);
    *ret_text = arena_ndup(&task_of(cx)->arena, json_string_value(value), *ret_len);
    return MR_OK;
}

static int fake_eval(mr_context *cx, const mr_expr *expr, struct json_t **ret_value)
{
    return expr_eval(expr, task_of(cx)->doc, ret_value, &task_of(cx)->error);
}

static int fake_bind(mr_context *cx, const char *name, const struct json_t *value)
{
    mem_auto char *text = json_print(value, 1u << 20, NULL, NULL);
    trace(cx, "bind %s %s", name, text);
    doc_steal_value(task_of(cx)->doc, name, json_deep_copy(value));
    return MR_OK;
}

/* The outcome */

static int fake_output_text(mr_context *cx, const char *text, uint64_t len)
{
    struct fake_task *task = task_of(cx);
    json_hold json_t *value = json_read(text, len, 0, &task->error);
    if (!value)
        return task->error.code;
    if (len > LIMIT_OUTPUT_BYTES)
        return set_error(cx, MR_E_SCHEMA, "the output is over 1 MiB");
    free(task->output);
    task->output = mem_ndup(text, len);
    return MR_OK;
}

static int fake_output(mr_context *cx, struct json_t *value)
{
    struct fake_task *task = task_of(cx);
    size_t len = 0;
    assert_non_null(value);
    char *text = json_print(value, LIMIT_OUTPUT_BYTES, &len, NULL);
    json_decref(value);
    if (!text)
        return set_error(cx, MR_E_SCHEMA, "the output is over 1 MiB");
    free(task->output);
    task->output = text;
    return MR_OK;
}

__attribute__((format(printf, 5, 0))) static int
fake_fail(mr_context *cx, int code, int cls, uint64_t retry_in_ms, const char *format, va_list args)
{
    /* The text may be made from what error_text lent. */
    struct error made = {.code = code, .class = cls, .retry_in_ms = retry_in_ms};
    vsnprintf(made.message, sizeof(made.message), format, args);
    task_of(cx)->error = made;
    return code;
}

static int fake_parse(mr_context *cx, const char *text, uint64_t len, struct json_t **ret_value)
{
    json_t *value = json_read(text, len, 0, &task_of(cx)->error);
    if (!value)
        return task_of(cx)->error.code;
    *ret_value = value;
    return MR_OK;
}

/* The outside */

static char *copy(const char *text)
{
    return text ? mem_dup(text) : NULL;
}

static void record_request(struct fake *fake, const struct mr_http *request)
{
    struct buf headers;
    buf_init(&headers, 1u << 16);
    for (uint32_t i = 0; i < request->header_count; i++)
        buf_format(&headers, "%s: %s\n", request->headers[i].name, request->headers[i].value);
    fake->requests = mem_resize(fake->requests, fake->request_count + 1, sizeof(*fake->requests));
    fake->requests[fake->request_count++] = (struct fake_request){
        .method = copy(request->method),
        .endpoint = copy(request->endpoint),
        .url = copy(request->url),
        .headers = mem_dup(buf_text(&headers)),
        .body = request->body ? mem_ndup(request->body, request->body_len) : NULL,
        .flags = request->flags,
        .timeout_ms = request->timeout_ms,
        .connect_ms = request->connect_ms,
        .first_byte_ms = request->first_byte_ms,
        .idle_ms = request->idle_ms,
        .max_bytes = request->max_bytes,
    };
    buf_done(&headers);
}

/* Splits "name: value\n…" into an array of the task's. */
static const struct mr_header *read_headers(struct arena *arena, const char *text,
                                            uint32_t *ret_count)
{
    struct mr_header *headers = arena_alloc(arena, 32 * sizeof(*headers));
    *ret_count = 0;
    for (const char *line = text; line && *line; line += strcspn(line, "\n") + (*line == '\n')) {
        if (*line == '\n')
            continue;
        size_t len = strcspn(line, "\n");
        size_t name = strcspn(line, ":");
        assert_true(name < len && *ret_count < 32);
        headers[*ret_count].name = arena_ndup(arena, line, name);
        headers[(*ret_count)++].value = arena_ndup(arena, line + name + 2, len - name - 2);
    }
    return headers;
}

static int fake_http(mr_context *cx, const struct mr_http *request, struct mr_http_reply *reply)
{
    struct fake_private *priv = priv_of(cx);
    struct arena *arena = &task_of(cx)->arena;
    assert_int_equal(request->size, sizeof(*request));
    assert_int_equal(reply->size, sizeof(*reply));
    trace(cx, "http %s %s %s", request->method ? request->method : "-",
          request->endpoint ? request->endpoint : "-", request->url);
    record_request(task_of(cx)->fake, request);
    int rc = suspend_begin(cx);
    if (rc != MR_OK)
        return rc;
    if (priv->reply_next == priv->reply_count)
        return set_error(cx, MR_E_INTERNAL, "no reply was scripted for %s", request->url);
    const struct fake_reply *script = &priv->replies[priv->reply_next++];
    if (script->code != MR_OK)
        return set_error(cx, script->code, "http: %s", error_name(script->code));
    const char *body = script->body ? script->body : "";
    reply->status = script->status ? script->status : 200;
    reply->body_len = strlen(body);
    reply->body = arena_ndup(arena, body, strlen(body));
    reply->headers = read_headers(arena, script->headers, &reply->header_count);
    return suspend_end(cx, MR_OK);
}

static int fake_child_id(mr_context *cx, const char *target, const char *name,
                         char ret_id[MR_ID_BYTES])
{
    (void)cx;
    if (name)
        id_of_name(ID_NAMESPACE_DNS, name, ret_id);
    else
        id_of_child("11111111-1111-5111-8111-111111111111", "stage", target, ret_id);
    return MR_OK;
}

static int fake_uuid(mr_context *cx, const char *name, char ret_id[MR_ID_BYTES])
{
    return fake_child_id(cx, "", name, ret_id);
}

static struct fake_end *find_end(mr_context *cx, const char *target)
{
    struct fake_private *priv = priv_of(cx);
    for (size_t i = 0; i < priv->end_count; i++)
        if (!priv->ends[i].used && strcmp(priv->ends[i].target, target) == 0)
            return &priv->ends[i];
    return NULL;
}

static void trace_child(mr_context *cx, const char *verb, const struct mr_child *child)
{
    assert_int_equal(child->size, sizeof(*child));
    mem_auto char *input = json_print(child->input, 1u << 20, NULL, NULL);
    trace(cx, "%s %s %s id=%s %s", verb, child->target, child->pipeline,
          child->id ? child->id : "-", input);
}

static int fake_call(mr_context *cx, const struct mr_child *child, struct json_t **ret_result)
{
    trace_child(cx, "call", child);
    int rc = suspend_begin(cx);
    if (rc != MR_OK)
        return rc;
    struct fake_end *end = find_end(cx, child->target);
    if (!end)
        return set_error(cx, MR_E_INTERNAL, "no end was scripted for %s", child->target);
    end->used = true;
    if (end->code != MR_OK)
        return set_error(cx, end->code, "%s: %s", child->target, error_name(end->code));
    rc = suspend_end(cx, MR_OK);
    if (rc == MR_OK)
        *ret_result = json_read(end->json, strlen(end->json), 0, NULL);
    return rc;
}

static int fake_dispatch(mr_context *cx, const struct mr_child *child, char ret_id[MR_ID_BYTES])
{
    trace_child(cx, "dispatch", child);
    int rc = suspend_begin(cx);
    if (rc != MR_OK)
        return rc;
    struct fake_end *end = find_end(cx, child->target);
    if (end) {
        end->used = true;
        if (end->code != MR_OK)
            return set_error(cx, end->code, "%s: %s", child->target, error_name(end->code));
    }
    fake_child_id(cx, child->target, child->id, ret_id);
    return suspend_end(cx, MR_OK);
}

/* Steps */

static int fake_step_get(mr_context *cx, const char *name, const char **ret_text, uint64_t *ret_len)
{
    const json_t *text = json_object_get(priv_of(cx)->steps, name);
    *ret_text = NULL;
    *ret_len = 0;
    if (!text)
        return MR_OK;
    trace(cx, "step_get %s %s", name, json_string_value(text));
    *ret_len = json_string_length(text);
    *ret_text = arena_ndup(&task_of(cx)->arena, json_string_value(text), *ret_len);
    return MR_OK;
}

static int fake_step_put(mr_context *cx, const char *name, const char *text, uint64_t len)
{
    size_t name_len = strlen(name);
    assert_true(name_len >= 1 && name_len <= 64);
    assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_.-"), name_len);
    trace(cx, "step_put %s %.*s", name, (int)len, text);
    int rc = suspend_begin(cx);
    if (rc != MR_OK)
        return rc;
    json_object_set_new(priv_of(cx)->steps, name, json_stringn(text, len));
    return suspend_end(cx, MR_OK);
}

/* Time and threads */

static int fake_sleep(mr_context *cx, uint64_t ms)
{
    trace(cx, "sleep %llu", (unsigned long long)ms);
    int rc = suspend_begin(cx);
    if (rc != MR_OK)
        return rc;
    task_of(cx)->fake->clock_ms += ms;
    return suspend_end(cx, MR_OK);
}

/* Waits for fake_release. */
static void wait_held(mr_context *cx, struct fake_held *held)
{
    struct fake_private *priv = priv_of(cx);
    struct fake_held **link = &priv->held;
    while (*link)
        link = &(*link)->next;
    *link = held;
    held->fiber = fiber_self();
    while (!held->done)
        fiber_suspend();
}

static int fake_offload(mr_context *cx, void (*fn)(void *arg), void *arg)
{
    trace(cx, "offload");
    int rc = suspend_begin(cx);
    if (rc != MR_OK)
        return rc;
    if (task_of(cx)->fake->hold) {
        struct fake_held held = {.offload = fn, .arg = arg};
        wait_held(cx, &held);
    } else
        fiber_on_loop(fn, arg);
    return suspend_end(cx, MR_OK);
}

struct lone_batch {
    void (*fn)(void **items, uint32_t count);
    void *item;
};

static void run_lone_batch(void *arg)
{
    struct lone_batch *lone = arg;
    lone->fn(&lone->item, 1);
}

static int fake_batch(mr_context *cx, const void *key, void (*fn)(void **items, uint32_t count),
                      void *item, uint32_t max, uint64_t linger_ms)
{
    trace(cx, "batch max %u linger %llu", max, (unsigned long long)linger_ms);
    int rc = suspend_begin(cx);
    if (rc != MR_OK)
        return rc;
    if (task_of(cx)->fake->hold) {
        struct fake_held held = {.key = key, .batch = fn, .arg = item, .max = max};
        wait_held(cx, &held);
    } else {
        struct lone_batch lone = {fn, item};
        fiber_on_loop(run_lone_batch, &lone);
    }
    return suspend_end(cx, MR_OK);
}

unsigned fake_release(struct fake *fake)
{
    struct fake_held *all = fake->priv->held;
    unsigned count = 0;
    fake->priv->held = NULL;
    for (struct fake_held *held = all; held; held = held->next) {
        if (!held->key) {
            held->offload(held->arg);
            continue;
        }
        /* All of the same key that nobody has handled yet, at most `max`. */
        void *items[256];
        uint32_t n = 0;
        if (held->max == 0)
            continue;
        uint32_t max = held->max < 256 ? held->max : 256;
        for (struct fake_held *other = held; other; other = other->next)
            if (other->key == held->key && other->max && n < max) {
                items[n++] = other->arg;
                other->max = 0;
            }
        buf_format(&fake->trace, "batch of %u\n", n);
        held->batch(items, n);
    }
    for (struct fake_held *held = all, *next; held; held = next, count++) {
        next = held->next; /* the record is on the stack of who waits */
        held->done = true;
        fiber_resume(held->fiber);
    }
    return count;
}

/* Backwards, so that nothing can rely on the order; the first error in order of index. */
static int fake_parallel(mr_context *cx, int (*fn)(mr_context *cx, void *arg, uint32_t index),
                         void *arg, uint32_t count)
{
    struct error first = {0};
    trace(cx, "parallel %u", count);
    for (uint32_t i = count; i-- > 0;)
        if (fn(cx, arg, i) != MR_OK)
            first = task_of(cx)->error;
    trace(cx, "parallel end");
    if (first.code != MR_OK)
        task_of(cx)->error = first;
    return first.code;
}

/* The rest */

static int fake_progress(mr_context *cx, int percent, const char *message)
{
    trace(cx, "progress %d%s%s", percent, message ? " " : "", message ? message : "");
    return MR_OK;
}

static int fake_emit(mr_context *cx, const char *kind, const struct json_t *data)
{
    mem_auto char *text = json_print(data, LIMIT_EVENT_BYTES, NULL, NULL);
    trace(cx, "emit %s %s", kind, text);
    return text ? MR_OK : MR_E_SCHEMA;
}

__attribute__((format(printf, 3, 0))) static void fake_log(mr_context *cx, int level,
                                                           const char *format, va_list args)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    char text[600];
    vsnprintf(text, sizeof(text), format, args);
    trace(cx, "log %s %s", names[level & 3], text);
}

static void *fake_alloc(mr_context *cx, size_t size)
{
    return arena_alloc(&task_of(cx)->arena, size);
}

static void fake_defer(mr_context *cx, void (*fn)(void *arg), void *arg)
{
    struct fake_defer *defer = arena_alloc(&task_of(cx)->arena, sizeof(*defer));
    *defer = (struct fake_defer){task_of(cx)->defers, fn, arg};
    task_of(cx)->defers = defer;
}

void fake_defers_run(struct fake_task *task)
{
    for (; task->defers; task->defers = task->defers->next)
        task->defers->fn(task->defers->arg);
}

static void *fake_instance(mr_context *cx)
{
    return priv_of(cx)->instance;
}

static uint64_t fake_time_left(mr_context *cx)
{
    return task_of(cx)->fake->time_left_ms;
}

static int fake_cancelled(mr_context *cx)
{
    return task_of(cx)->fake->cancelled;
}

static void fake_usage(mr_context *cx, int64_t input_tokens, int64_t output_tokens)
{
    trace(cx, "usage %lld %lld", (long long)input_tokens, (long long)output_tokens);
    task_of(cx)->input_tokens += input_tokens;
    task_of(cx)->output_tokens += output_tokens;
}

static const char *fake_dir_of(mr_context *cx)
{
    (void)cx;
    return fake_dir();
}

static const struct json_t *fake_options(mr_context *cx)
{
    return priv_of(cx)->options;
}

static const char *fake_error_text(mr_context *cx)
{
    return task_of(cx)->error.message;
}

static uint64_t fake_now(mr_context *cx)
{
    return task_of(cx)->fake->clock_ms;
}

const struct mr_host fake_table = {
    .size = sizeof(struct mr_host),
    .abi_minor = MR_ABI_MINOR,
    .get = fake_get,
    .render = fake_render,
    .render_text = fake_render_text,
    .eval = fake_eval,
    .bind = fake_bind,
    .output = fake_output,
    .output_text = fake_output_text,
    .fail = fake_fail,
    .parse = fake_parse,
    .print = fake_print,
    .http = fake_http,
    .call = fake_call,
    .dispatch = fake_dispatch,
    .uuid = fake_uuid,
    .step_get = fake_step_get,
    .step_put = fake_step_put,
    .sleep = fake_sleep,
    .offload = fake_offload,
    .batch = fake_batch,
    .parallel = fake_parallel,
    .progress = fake_progress,
    .emit = fake_emit,
    .log = fake_log,
    .alloc = fake_alloc,
    .defer = fake_defer,
    .instance = fake_instance,
    .time_left = fake_time_left,
    .cancelled = fake_cancelled,
    .usage = fake_usage,
    .dir = fake_dir_of,
    .options = fake_options,
    .error_text = fake_error_text,
    .child_id = fake_child_id,
    .now = fake_now,
};
