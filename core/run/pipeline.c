/* A pipeline from its source: forms read by option rows, stages with their plugins and settings.
 *
 * One declaration (the rows below) says what a pipeline and a stage may have; reading, unknown keys
 * and their hints come from it, exactly as for plugins. The order: forms, plugins and options, then
 * the checks that need all of it (pipeline_check.c, pipeline_graph.c), then jq compiles what was
 * collected. Nothing stops at the first error.
 *
 * Owned by the pipeline: its arena, the settings (and what option_release drops), the expression
 * set, the root. A reference count of one thread: pipelines never leave the loop's. */
#include "run/pipeline.h"

#include "base/limits.h"
#include "base/unit.h"
#include "run/pipeline_inner.h"
#include "run/pipeline_schema.h"
#include <string.h>

#define STAGE_TIMEOUT_MS 30000u

struct pipeline_form {
    const char *name, *description;
    const json_t *input, *stages, *retention, *on_complete, *on_failure;
    const mr_template *result, *tasks_input;
    uint64_t deadline_ms;
    int32_t durability;
};
static const struct mr_option pipeline_options[] = {
    MR_OPT_TEXT(struct pipeline_form, name, "name", NULL, 0, "The file's name without .json."),
    MR_OPT_TEXT(struct pipeline_form, description, "description", NULL, 0, "For people."),
    MR_OPT_JSON(struct pipeline_form, input, "input", NULL, 0, "JSON Schema of the input."),
    MR_OPT_JSON(struct pipeline_form, stages, "stages", NULL, MR_REQUIRED, "The stages."),
    MR_OPT_TEMPLATE(struct pipeline_form, result, "result", NULL, 0,
                    "The job's result; default: every stage's output by name."),
    MR_OPT_TEMPLATE(struct pipeline_form, tasks_input, "tasks_input",
                    "{\"prompt\": \"{{ .prompt }}\"}", 0, "Input made from a prompt."),
    MR_OPT_JSON(struct pipeline_form, retention, "retention", NULL, 0,
                "How long status and result are kept."),
    MR_OPT_DURATION(struct pipeline_form, deadline_ms, "deadline", NULL, 0, 0, 0,
                    "How long a job may take altogether."),
    MR_OPT_CHOICE(struct pipeline_form, durability, "durability", "none", "none|aof|replica", 0,
                  "What a submission waits for before it is answered."),
    MR_OPT_JSON(struct pipeline_form, on_complete, "on_complete", NULL, 0,
                "Targets after a completed job."),
    MR_OPT_JSON(struct pipeline_form, on_failure, "on_failure", NULL, 0,
                "Targets after a failed job."),
};

struct stage_form {
    const char *name, *plugin, *queue;
    const json_t *options, *needs, *otherwise, *on_failure;
    const json_t *retry;
    const mr_expr *when;
    uint64_t timeout_ms;
    int64_t concurrency;
};
static const struct mr_option stage_options[] = {
    MR_OPT_TEXT(struct stage_form, name, "name", NULL, MR_REQUIRED, "The stage's name."),
    MR_OPT_TEXT(struct stage_form, plugin, "plugin", NULL, MR_REQUIRED, "The plugin's name."),
    MR_OPT_JSON(struct stage_form, options, "options", NULL, 0, "The plugin's options."),
    MR_OPT_JSON(struct stage_form, needs, "needs", NULL, 0,
                "Stages it waits for; default: the one above."),
    MR_OPT_EXPR(struct stage_form, when, "when", NULL, 0, "Skipped when false or null."),
    MR_OPT_JSON(struct stage_form, otherwise, "else", NULL, 0, "Output when skipped."),
    MR_OPT_DURATION(struct stage_form, timeout_ms, "timeout", NULL, 0, 0, 0,
                    "How long an attempt may take."),
    MR_OPT_TEXT(struct stage_form, queue, "queue", "default", 0, "The queue."),
    MR_OPT_INT(struct stage_form, concurrency, "concurrency", NULL, 1, 1000000, 0,
               "Running tasks per process."),
    MR_OPT_JSON(struct stage_form, retry, "retry", NULL, 0, "The retry policy."),
    MR_OPT_JSON(struct stage_form, on_failure, "on_failure", NULL, 0,
                "\"fail\", or an output to go on with."),
};

struct retry_form {
    int64_t attempts;
    uint64_t backoff_ms, max_backoff_ms;
};
static const struct mr_option retry_options[] = {
    MR_OPT_INT(struct retry_form, attempts, "attempts", "3", 1, 1000, 0, "Attempts in all."),
    MR_OPT_DURATION(struct retry_form, backoff_ms, "backoff", "1s", 0, 0, 0,
                    "Upper bound of the first wait."),
    MR_OPT_DURATION(struct retry_form, max_backoff_ms, "max_backoff", "60s", 0, 0, 0,
                    "Upper bound of any wait."),
};

struct retention_form {
    uint64_t status_ms, result_ms;
};
static const struct mr_option retention_options[] = {
    MR_OPT_DURATION(struct retention_form, status_ms, "status", NULL, 0, 0, 0,
                    "For log and outputs of completed jobs."),
    MR_OPT_DURATION(struct retention_form, result_ms, "result", NULL, 0, 0, 0,
                    "For jobs and their results."),
};

#define ROWS(table)                                                                                \
    {                                                                                              \
        (table), sizeof(table) / sizeof((table)[0]), sizeof(struct mr_option)                      \
    }
static const struct option_rows pipeline_rows = ROWS(pipeline_options);
static const struct option_rows stage_rows = ROWS(stage_options);
static const struct option_rows retry_rows = ROWS(retry_options);
static const struct option_rows retention_rows = ROWS(retention_options);

/* Reads one form. `value` NULL: defaults. */
static bool read_form(struct build *build, const struct option_rows *rows, const json_t *value,
                      const char *pointer, void *form, size_t size)
{
    if (value != NULL && !json_is_object(value)) {
        report_add(build->report, build->source->file, pointer, "must be an object");
        return false;
    }
    struct option_source source = {
        .file = build->source->file,
        .pointer = pointer,
        .dir = build->source->dir,
        .exprs = build->pipeline->exprs,
    };
    bool fine =
        option_read(rows, value, &source, form, size, &build->pipeline->arena, build->report);
    /* The form keeps its JSON values: they are borrowed from the root, which lives as long. */
    mem_auto char *copy = mem_alloc(size);
    memcpy(copy, form, size);
    option_release(rows, copy);
    return fine;
}

/* An output that stands in the file (`else`, `on_failure`), malloc'ed JSON text. */
static char *output_text(struct build *build, const json_t *value, const char *pointer)
{
    struct error why = {0};
    size_t len = 0;
    char *text = json_print(value, LIMIT_OUTPUT_BYTES, &len, &why);
    if (text == NULL)
        report_add(build->report, build->source->file, pointer, "%s", why.message);
    else if (strstr(text, "{{") != NULL)
        error_hint(report_warn(build->report, build->source->file, pointer,
                               "contains {{, but is an output as it stands, not a template"),
                   "a stage of plugin \"transform\" renders templates");
    return text;
}

static char *stage_pointer(char *ret, size_t size, stage_index index, const char *rest)
{
    snprintf(ret, size, "/stages/%u%s", (unsigned)index, rest);
    return ret;
}

struct hook_check {
    struct build *build;
    const char *pointer; /* of the options */
};

static struct error *hook_report(struct hook_check *hook, bool warning, const char *pointer,
                                 const char *message)
{
    mem_auto char *at = mem_format("%s%s", hook->pointer, pointer != NULL ? pointer : "");
    const char *file = hook->build->source->file;
    return warning ? report_warn(hook->build->report, file, at, "%s", message)
                   : report_add(hook->build->report, file, at, "%s", message);
}

static void hook_error(void *self, const char *pointer, const char *message, const char *hint)
{
    struct error *err = hook_report(self, false, pointer, message);
    if (hint != NULL)
        error_hint(err, "%s", hint);
}

static void hook_warn(void *self, const char *pointer, const char *message, const char *hint)
{
    struct error *err = hook_report(self, true, pointer, message);
    if (hint != NULL)
        error_hint(err, "%s", hint);
}

/* Finds the plugin and reads its options into settings. */
static void build_plugin(struct build *build, struct stage *stage, const char *stage_at,
                         const char *options_at)
{
    if (build->setup->plugins == NULL)
        return;
    struct error why = {0};
    const struct plugin *plugin = plugin_find(build->setup->plugins, stage->plugin_name, &why);
    if (plugin == NULL) {
        mem_auto char *at = mem_format("%s/plugin", stage_at);
        struct error *err = report_add(build->report, build->source->file, at, "%s", why.message);
        if (why.hint[0] != '\0')
            error_hint(err, "%s", why.hint);
        return;
    }
    stage->plugin = plugin;
    stage->settings = mem_zalloc(plugin->about.settings_size);
    struct option_source source = {
        .file = build->source->file,
        .pointer = options_at,
        .dir = build->source->dir,
        .exprs = build->pipeline->exprs,
        .has_endpoint = build->setup->has_endpoint,
        .arg = build->setup->arg,
        .endpoints = build->setup->endpoints,
    };
    bool fine = option_read(&plugin->options, stage->options, &source, stage->settings,
                            plugin->about.settings_size, &build->pipeline->arena, build->report);
    if (!fine || plugin->about.check == NULL)
        return;
    struct hook_check hook = {build, options_at};
    struct mr_check check = {
        .self = &hook, .error = hook_error, .warn = hook_warn, .options = stage->options};
    plugin->about.check(stage->settings, &check);
}

/* The stage's own `timeout`, else what the plugin derives from its settings, else the plugin's,
 * else that of all. */
static uint64_t stage_timeout(const struct stage *stage, uint64_t given_ms)
{
    if (given_ms != 0)
        return given_ms;
    uint64_t ms = 0;
    if (stage->plugin != NULL && stage->plugin->about.default_timeout != NULL)
        ms = stage->plugin->about.default_timeout(stage->settings);
    if (ms == 0 && stage->plugin != NULL && stage->plugin->about.timeout != NULL &&
        unit_parse_duration(stage->plugin->about.timeout, &ms, NULL) != MR_OK)
        ms = 0;
    return ms != 0 ? ms : STAGE_TIMEOUT_MS;
}

static void build_retry(struct build *build, struct stage *stage, const json_t *value)
{
    char at[64];
    struct retry_form form = {0};
    stage_pointer(at, sizeof(at), stage->index, "/retry");
    read_form(build, &retry_rows, value, at, &form, sizeof(form));
    if (form.backoff_ms > form.max_backoff_ms && form.max_backoff_ms != 0)
        report_warn(build->report, build->source->file, at,
                    "\"backoff\" is longer than \"max_backoff\", which bounds it");
    stage->retry =
        (struct retry_policy){(uint32_t)form.attempts, form.backoff_ms, form.max_backoff_ms};
}

static void build_stage(struct build *build, stage_index index, const json_t *raw)
{
    struct stage *stage = &build->pipeline->stages[index];
    struct stage_form form = {0};
    char at[64], options_at[64];
    stage_pointer(at, sizeof(at), index, "");
    stage_pointer(options_at, sizeof(options_at), index, "/options");
    build->stages[index].raw = raw;
    stage->index = index;
    read_form(build, &stage_rows, raw, at, &form, sizeof(form));

    stage->name = mem_dup(form.name != NULL ? form.name : "");
    stage->plugin_name = mem_dup(form.plugin != NULL ? form.plugin : "");
    stage->queue = mem_dup(form.queue != NULL ? form.queue : "default");
    stage->when = form.when;
    stage->concurrency = (uint32_t)form.concurrency;
    stage->options = json_is_object(form.options) ? form.options : NULL;
    if (form.options != NULL && stage->options == NULL)
        report_add(build->report, build->source->file, options_at, "must be an object");
    if (!pipeline_name_is_valid(stage->queue)) {
        mem_auto char *queue_at = mem_format("%s/queue", at);
        error_hint(report_add(build->report, build->source->file, queue_at,
                              "\"%.80s\" is not the name of a queue", stage->queue),
                   "a-z, 0-9 and -, at most 64 characters");
    }
    build_retry(build, stage, form.retry);
    mem_auto char *else_at = mem_format("%s/else", at);
    stage->otherwise =
        form.otherwise != NULL ? output_text(build, form.otherwise, else_at) : mem_dup("null");
    const char *word = json_string_value(form.on_failure);
    mem_auto char *failure_at = mem_format("%s/on_failure", at);
    if (form.on_failure != NULL && (word == NULL || strcmp(word, "fail") != 0))
        stage->on_failure = output_text(build, form.on_failure, failure_at);
    if (form.plugin != NULL)
        build_plugin(build, stage, at, options_at);
    build->stages[index].timeout_given = form.timeout_ms != 0;
    stage->timeout_ms = stage_timeout(stage, form.timeout_ms);
}

/* A hidden stage that hands a job's end on: its targets are the options of a `reward`. */
static struct stage *build_after(struct build *build, const json_t *targets, const char *member)
{
    if (targets == NULL || json_is_null(targets))
        return NULL;
    mem_auto char *at = mem_format("/%s", member);
    if (!json_is_array(targets)) {
        error_hint(report_add(build->report, build->source->file, at, "must be an array"),
                   "targets as in the plugin \"reward\"");
        return NULL;
    }
    stage_index index = build->stage_count++;
    struct stage *stage = &build->pipeline->stages[index];
    /* The root keeps it; the wrapper is what the plugin sees as its options. */
    json_t *options = json_pack("{s:O}", "targets", targets);
    mem_auto char *slot = mem_format("$%s", member);
    json_object_set_new(build->pipeline->root, slot, options);
    build->stages[index].raw = NULL;
    stage->index = index;
    stage->name = mem_dup(slot);
    stage->plugin_name = mem_dup("reward");
    stage->queue = mem_dup("default");
    stage->otherwise = mem_dup("null");
    stage->options = options;
    build_retry(build, stage, NULL);
    build_plugin(build, stage, "", at);
    stage->timeout_ms = stage_timeout(stage, 0);
    return stage;
}

static void build_stages(struct build *build, const struct pipeline_form *form)
{
    const char *file = build->source->file;
    struct pipeline *pipeline = build->pipeline;
    size_t count = json_array_size(form->stages);
    size_t hidden = (form->on_complete != NULL) + (size_t)(form->on_failure != NULL);
    if (form->stages != NULL && count == 0)
        error_hint(report_add(build->report, file, "/stages", "must be an array of stages"),
                   "[{\"name\": \"first\", \"plugin\": \"echo\"}]");
    if (count + hidden > LIMIT_STAGES) {
        report_add(build->report, file, "/stages", "has %zu stages, more than %u", count,
                   (unsigned)(LIMIT_STAGES - hidden));
        count = 0;
    }
    pipeline->stages = mem_zalloc((count + 2) * sizeof(struct stage));
    build->stages = mem_zalloc((count + 2) * sizeof(struct build_stage));
    pipeline->stage_count = build->stage_count = (uint32_t)count;
    for (stage_index i = 0; i < count; i++)
        build_stage(build, i, json_array_get(form->stages, i));
    pipeline->on_complete = build_after(build, form->on_complete, "on_complete");
    pipeline->on_failure = build_after(build, form->on_failure, "on_failure");
}

static void build_all(struct build *build)
{
    struct pipeline *pipeline = build->pipeline;
    const char *file = build->source->file;
    struct pipeline_form form = {0};
    read_form(build, &pipeline_rows, pipeline->root, "", &form, sizeof(form));
    pipeline->description = form.description != NULL ? mem_dup(form.description) : NULL;
    pipeline->result = form.result;
    pipeline->tasks_input = form.tasks_input;
    pipeline->deadline_ms = form.deadline_ms;
    pipeline->durability = form.durability;
    pipeline->input_schema = form.input;
    if (form.input != NULL)
        schema_check(form.input, file, "/input", build->report);
    struct retention_form retention = {0};
    read_form(build, &retention_rows, form.retention, "/retention", &retention, sizeof(retention));
    pipeline->retention_status_ms = retention.status_ms;
    pipeline->retention_result_ms = retention.result_ms;

    build_stages(build, &form);
    pipeline_check_words(build);
    pipeline_check_graph(build);
    pipeline_check_options(build);
    expr_set_compile(pipeline->exprs, build->report, file);
}

/* The targets of a hidden stage lie one level higher in the file than in its options. */
static void lift_pointers(struct report *report, size_t from)
{
    static const char *const hidden[] = {": /on_complete/targets", ": /on_failure/targets"};
    for (size_t i = from; i < report->count; i++) {
        for (size_t n = 0; n < sizeof(hidden) / sizeof(hidden[0]); n++) {
            char *at = strstr(report->items[i].where, hidden[n]);
            if (at == NULL)
                continue;
            at += strlen(hidden[n]);
            memmove(at - strlen("/targets"), at, strlen(at) + 1);
        }
    }
}

struct pipeline *pipeline_build(const struct pipeline_source *source,
                                const struct pipeline_setup *setup, struct report *report)
{
    size_t before = report_errors(report), first = report->count;
    struct error why = {0};
    json_t *root = json_read(source->text, source->len, 0, &why);
    if (!json_is_object(root)) {
        report_add(report, source->file, "", "%s",
                   root != NULL ? "a pipeline is a JSON object" : why.message);
        json_decref(root);
        return NULL;
    }
    struct pipeline *pipeline = mem_zalloc(sizeof(*pipeline));
    pipeline->refs = 1;
    pipeline->root = root;
    pipeline->exprs = expr_set_new();
    arena_init(&pipeline->arena);
    pipeline->name = mem_dup(source->name);
    pipeline->file = mem_dup(source->file);
    pipeline->dir = mem_dup(source->dir);
    memcpy(pipeline->revision, source->revision, sizeof(pipeline->revision));
    struct build build = {.source = source, .setup = setup, .report = report, .pipeline = pipeline};
    build_all(&build);
    lift_pointers(report, first);
    free(build.stages);
    if (report_errors(report) == before)
        return pipeline;
    pipeline_unref(pipeline);
    return NULL;
}

struct pipeline *pipeline_ref(struct pipeline *pipeline)
{
    pipeline->refs++;
    return pipeline;
}

static void stage_done(struct stage *stage)
{
    if (stage->plugin != NULL)
        option_release(&stage->plugin->options, stage->settings);
    free(stage->settings);
    free(stage->name);
    free(stage->queue);
    free(stage->plugin_name);
    free(stage->needs);
    free(stage->next);
    free(stage->otherwise);
    free(stage->on_failure);
}

void pipeline_unref(struct pipeline *pipeline)
{
    if (pipeline == NULL || --pipeline->refs > 0)
        return;
    if (pipeline->stages != NULL)
        for (uint32_t i = 0; i < pipeline->stage_count + 2; i++)
            stage_done(&pipeline->stages[i]);
    free(pipeline->stages);
    expr_set_free(pipeline->exprs);
    json_decref(pipeline->root);
    arena_done(&pipeline->arena);
    free(pipeline->name);
    free(pipeline->description);
    free(pipeline->file);
    free(pipeline->dir);
    free(pipeline);
}
