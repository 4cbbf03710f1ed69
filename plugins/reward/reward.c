/* reward: hands results on to other pipelines or services, target after target.
 *
 * Targets run in the order they stand in; neighbours marked `parallel` run side by side. Each
 * target's outcome, a fallback or a skip included, is stored as the step "target.NAME" before the
 * next target begins, and read back when the stage runs again: whatever happens in between, a
 * decision that was taken once stands, so two effects that exclude one another never both happen.
 * Then it is bound as `.NAME` for the targets after it.
 *
 *   call      waits for the result             fallback: on_timeout, on_failure
 *   dispatch  goes on; its outcome is the id   fallback: on_failure
 *
 * What ends the task itself (cancel, the stage's own time-out, a lost lane, a rate limit) is never
 * a target's failure and takes no fallback. Effects over HTTP may repeat after a crash; they carry
 * the effect's deterministic id as `Idempotency-Key`. */
#include "reply.h"
#include <jansson.h>
#include <millrace/plugin.h>
#include <string.h>

#define MARGIN_MS 5000u

enum mode { MODE_CALL, MODE_DISPATCH };

struct target {
    const char *name;
    int32_t mode; /* enum mode */
    const char *pipeline;
    const mr_template *url;
    const mr_expr *when;
    const mr_template *input;
    const mr_template *id;
    uint64_t timeout_ms;
    const struct json_t *on_timeout, *on_failure; /* NULL: not given; "fail": fail */
    int32_t parallel;
};

struct settings {
    struct mr_list targets; /* of struct target */
};

static const struct mr_option target_options[] = {
    MR_OPT_TEXT(struct target, name, "name", NULL, MR_REQUIRED,
                "Names the target; later targets see its outcome as .NAME."),
    MR_OPT_CHOICE(struct target, mode, "mode", NULL, "call|dispatch", MR_REQUIRED,
                  "call waits for the result, dispatch submits and goes on."),
    MR_OPT_TEXT(struct target, pipeline, "pipeline", NULL, MR_PIPELINE, "The pipeline to run."),
    MR_OPT_TEMPLATE(struct target, url, "url", NULL, MR_NOT_EMPTY,
                    "Instead of a pipeline: an address that gets the input as a JSON POST."),
    MR_OPT_EXPR(struct target, when, "when", NULL, 0,
                "The target is skipped, with outcome null, when this is false or null."),
    MR_OPT_TEMPLATE(struct target, input, "input", "\"{{ .input }}\"", 0,
                    "What the target gets; default: the job's input."),
    MR_OPT_TEMPLATE(struct target, id, "id", NULL, MR_NOT_EMPTY | MR_NO_COLON,
                    "Name whose UUIDv5 is the child's id; default: from parent, stage, target."),
    MR_OPT_DURATION(struct target, timeout_ms, "timeout", "10s", 0, 0, 0,
                    "How long a call may take."),
    MR_OPT_JSON(struct target, on_timeout, "on_timeout", NULL, 0,
                "\"fail\", or the outcome of a call that times out; default: as on_failure."),
    MR_OPT_JSON(struct target, on_failure, "on_failure", NULL, 0,
                "\"fail\" (the default), or the outcome to go on with."),
    MR_OPT_BOOL(struct target, parallel, "parallel", "false", 0,
                "Runs side by side with neighbours that say so too."),
};

static const struct mr_option options[] = {
    MR_OPT_LIST(struct settings, targets, "targets", target_options, struct target, 1, 100,
                MR_REQUIRED | MR_UNIQUE_NAMES, "What to hand on, and where, in order."),
};

/* Checks */

static void check_target(const struct mr_check *check, const struct target *target, uint32_t index)
{
    char at[64];
    snprintf(at, sizeof(at), "/targets/%u", index);
    if (!target->pipeline == !target->url)
        check->error(check->self, at,
                     target->url ? "has both \"pipeline\" and \"url\""
                                 : "has neither \"pipeline\" nor \"url\"",
                     "give exactly one of them");
    if (target->mode == MODE_DISPATCH && target->on_timeout) {
        snprintf(at, sizeof(at), "/targets/%u/on_timeout", index);
        check->error(check->self, at, "is for calls: a dispatch does not wait for a result",
                     "use \"on_failure\", or \"mode\": \"call\"");
    }
}

/* A template may be any JSON; these have to give text. */
static void check_text(const struct mr_check *check, uint32_t index, const char *name)
{
    const json_t *targets = json_object_get(check->options, "targets");
    const json_t *value = json_object_get(json_array_get(targets, index), name);
    char at[64];
    snprintf(at, sizeof(at), "/targets/%u/%s", index, name);
    if (value && !json_is_string(value))
        check->error(check->self, at, "is not a string", "text, which may hold {{ }}");
}

static void check(const void *settings, const struct mr_check *check)
{
    const struct settings *set = settings;
    const struct target *targets = set->targets.items;
    for (uint32_t i = 0; i < set->targets.count; i++) {
        check_target(check, &targets[i], i);
        check_text(check, i, "url");
        check_text(check, i, "id");
    }
}

/* The sum of what is waited for, whether side by side or not, and a margin. */
static uint64_t default_timeout(const void *settings)
{
    const struct settings *set = settings;
    const struct target *targets = set->targets.items;
    uint64_t sum = MARGIN_MS;
    for (uint32_t i = 0; i < set->targets.count; i++)
        if (targets[i].mode == MODE_CALL || targets[i].url)
            sum += targets[i].timeout_ms;
    return sum;
}

/* Outcomes */

/* Whether the error is the target's own failure, and not the end of this task. */
static int is_failure(mr_context *cx, int code)
{
    switch (code) {
    case MR_E_CANCELLED:
    case MR_E_DEADLINE:
    case MR_E_LOST:
    case MR_E_STOPPING:
    case MR_E_STORE:
    case MR_E_INTERNAL:
    case MR_E_RATE_LIMITED:
        return 0;
    case MR_E_TIMEOUT:
    case MR_E_CALL_TIMEOUT:
        return !mr_cancelled(cx) && mr_time_left(cx) > 0;
    default:
        return 1;
    }
}

/* What the target says to do about an error: the value to go on with (borrowed), or NULL. */
static const json_t *fallback(mr_context *cx, const struct target *target, int code)
{
    const json_t *value = target->on_failure;
    if (!is_failure(cx, code))
        return NULL;
    if ((code == MR_E_CALL_TIMEOUT || code == MR_E_TIMEOUT) && target->on_timeout)
        value = target->on_timeout;
    const char *word = json_string_value(value);
    return word && strcmp(word, "fail") == 0 ? NULL : value;
}

/* Whether everything up to the path of the address stands in the pipeline file itself, so that no
 * user chooses the host. */
static int has_own_host(mr_context *cx, uint32_t index)
{
    const json_t *targets = json_object_get(mr_options(cx), "targets");
    const char *url = json_string_value(json_object_get(json_array_get(targets, index), "url"));
    const char *host = url ? strstr(url, "://") : NULL;
    if (!host)
        return 0;
    const char *open = strstr(url, "{{");
    const char *path = strpbrk(host + 3, "/?#");
    return !open || (path && path < open);
}

/* Turns the status of a service's answer into the task's error, as for any other upstream. */
static int check_status(mr_context *cx, const struct target *target,
                        const struct mr_http_reply *reply)
{
    int status = reply->status;
    if (status >= 200 && status < 300)
        return MR_OK;
    int code = MR_E_UPSTREAM_STATUS;
    int cls = MR_CLASS_PERMANENT;
    if (status == 429) {
        code = MR_E_RATE_LIMITED;
        cls = MR_CLASS_THROTTLED;
    } else if (status == 401 || status == 403)
        code = MR_E_AUTH;
    else if (status == 408 || status == 409 || status >= 500)
        cls = MR_CLASS_RETRY;
    return mr_fail_as(cx, code, cls, cls == MR_CLASS_PERMANENT ? 0 : reply_wait_ms(reply),
                      "target \"%s\": the service answered %d", target->name, status);
}

/* POSTs the input to a service. A call's outcome is the JSON it answers, a dispatch's the effect's
 * id. */
MR_SUSPENDS static int run_url(mr_context *cx, const struct target *target, uint32_t index,
                               const json_t *input, const char *id, json_t **ret_value)
{
    const char *url = NULL;
    uint64_t url_len = 0;
    char key[MR_ID_BYTES];
    int rc = mr_render_text(cx, target->url, &url, &url_len);
    if (rc == MR_OK)
        rc = mr_child_id(cx, target->name, id, key);
    if (rc != MR_OK)
        return rc;
    const struct mr_header headers[] = {
        {"Content-Type", "application/json"},
        {"Accept", "application/json"},
        {"Idempotency-Key", key},
    };
    struct mr_http request = {
        .size = sizeof(request),
        .flags = has_own_host(cx, index) ? 0 : MR_HTTP_GUARD,
        .method = "POST",
        .url = url,
        .headers = headers,
        .header_count = 3,
        .timeout_ms = target->timeout_ms,
        .first_byte_ms = target->timeout_ms,
        .idle_ms = target->timeout_ms,
    };
    rc = mr_print(cx, input, &request.body, &request.body_len);
    if (rc != MR_OK)
        return rc;
    struct mr_http_reply reply = {.size = sizeof(reply)};
    rc = mr_http(cx, &request, &reply);
    if (rc == MR_OK)
        rc = check_status(cx, target, &reply);
    if (rc != MR_OK)
        return rc;
    if (target->mode == MODE_DISPATCH)
        *ret_value = json_string(key);
    else if (reply.body_len == 0)
        *ret_value = json_null();
    else
        rc = mr_parse(cx, reply.body, reply.body_len, ret_value);
    return rc;
}

static void decref_cleanup(json_t **slot)
{
    json_decref(*slot);
}

/* Makes the call or the dispatch. New reference in `*ret_value`. */
MR_SUSPENDS static int run_effect(mr_context *cx, const struct target *target, uint32_t index,
                                  json_t **ret_value)
{
    __attribute__((cleanup(decref_cleanup))) json_t *input = NULL;
    const char *id = NULL;
    uint64_t id_len = 0;
    int rc = mr_render(cx, target->input, &input);
    if (rc == MR_OK && target->id)
        rc = mr_render_text(cx, target->id, &id, &id_len);
    if (rc != MR_OK)
        return rc;
    if (target->id && (!id || id_len == 0))
        return mr_fail(cx, MR_E_SCHEMA, "target \"%s\": the id renders to nothing", target->name);
    if (target->url)
        return run_url(cx, target, index, input, id, ret_value);

    struct mr_child child = {
        .size = sizeof(child),
        .pipeline = target->pipeline,
        .target = target->name,
        .id = id,
        .input = input,
        .timeout_ms = target->timeout_ms,
    };
    if (target->mode == MODE_CALL)
        return mr_call(cx, &child, ret_value);
    char child_id[MR_ID_BYTES];
    rc = mr_dispatch(cx, &child, child_id);
    if (rc == MR_OK)
        *ret_value = json_string(child_id);
    return rc;
}

/* Whether `when` lets the target run. */
static int is_wanted(mr_context *cx, const struct target *target, int *ret_wanted)
{
    json_t *value = NULL;
    int rc = target->when ? mr_eval(cx, target->when, &value) : MR_OK;
    if (rc != MR_OK)
        return rc;
    *ret_wanted = !target->when || !(json_is_null(value) || json_is_false(value));
    json_decref(value);
    return MR_OK;
}

/* One target from its stored outcome, or from the beginning to its outcome being stored. New
 * reference. */
MR_SUSPENDS static int run_target(mr_context *cx, const struct target *target, uint32_t index,
                                  json_t **ret_value)
{
    char step[64];
    const char *text = NULL;
    uint64_t len = 0;
    int wanted = 0;
    snprintf(step, sizeof(step), "target.%s", target->name);
    int rc = mr_step_get(cx, step, &text, &len);
    if (rc != MR_OK)
        return rc;
    if (text)
        return mr_parse(cx, text, len, ret_value);

    __attribute__((cleanup(decref_cleanup))) json_t *value = NULL;
    rc = is_wanted(cx, target, &wanted);
    if (rc != MR_OK)
        return rc;
    if (!wanted)
        value = json_null();
    else if ((rc = run_effect(cx, target, index, &value)) != MR_OK) {
        const json_t *instead = fallback(cx, target, rc);
        if (!instead)
            return rc;
        mr_log(cx, MR_LOG_WARN, "target \"%s\" failed, going on with its fallback: %s",
               target->name, mr_error_text(cx));
        value = json_deep_copy(instead);
    }
    rc = mr_print(cx, value, &text, &len);
    if (rc == MR_OK)
        rc = mr_step_put(cx, step, text, len);
    if (rc != MR_OK)
        return rc;
    *ret_value = value;
    value = NULL;
    return MR_OK;
}

/* The list of steps of one run. */

struct run {
    const struct target *targets;
    uint32_t count, begin; /* `begin`: the first target of the group at hand */
    json_t **values;       /* by target; references of the run */
};

static void drop_values(void *arg)
{
    struct run *run = arg;
    for (uint32_t i = 0; i < run->count; i++)
        json_decref(run->values[i]);
}

static int run_member(mr_context *cx, void *arg, uint32_t index)
{
    const struct run *run = arg;
    uint32_t at = run->begin + index;
    return run_target(cx, &run->targets[at], at, &run->values[at]);
}

/* How many targets from `run->begin` on go side by side: 1 for one that is alone. */
static uint32_t group_size(const struct run *run)
{
    uint32_t end = run->begin;
    while (end < run->count && run->targets[end].parallel)
        end++;
    return end > run->begin ? end - run->begin : 1;
}

MR_SUSPENDS static int run(mr_context *cx, const void *settings)
{
    const struct settings *set = settings;
    struct run *run = mr_alloc(cx, sizeof(*run));
    run->targets = set->targets.items;
    run->count = set->targets.count;
    run->values = mr_alloc(cx, run->count * sizeof(json_t *));
    mr_defer(cx, drop_values, run);

    while (run->begin < run->count) {
        uint32_t n = group_size(run);
        int rc = n == 1 ? run_member(cx, run, 0) : mr_parallel(cx, run_member, run, n);
        for (uint32_t i = run->begin; rc == MR_OK && i < run->begin + n; i++)
            rc = mr_bind(cx, run->targets[i].name, run->values[i]);
        if (rc != MR_OK)
            return rc;
        run->begin += n;
        mr_progress(cx, (int)(run->begin * 100 / run->count), NULL);
    }

    json_t *output = json_object();
    for (uint32_t i = 0; i < run->count; i++)
        json_object_set(output, run->targets[i].name, run->values[i]);
    return mr_output(cx, output);
}

MR_PLUGIN(reward) = {
    MR_PLUGIN_HEAD("reward", struct settings, options),
    .version = "1.0",
    .summary = "Calls and dispatches other pipelines or services, in order.",
    .doc = "Output: an object with each target's name and its result (call) or id (dispatch); "
           "null for a target that was skipped.",
    .check = check,
    .default_timeout = default_timeout,
    .run = run,
};
