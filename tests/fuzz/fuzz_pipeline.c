/* Fuzzes the building of pipelines from text: forms, graph, schemas, expressions, targets.
 *
 * The text is built twice: with stages of plugins that are not there (so that nothing is loaded),
 * and without plugins, as the front does. What builds has to hold together: needs and next are each
 * other's mirror, and inputs can be checked and results be made. */
#include "run/pipeline.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool has_name(void *arg, const char *name)
{
    (void)arg;
    return name[0] < 'n';
}

static void must(bool fine)
{
    if (!fine)
        abort();
}

static bool holds(const stage_index *list, uint32_t count, stage_index one)
{
    for (uint32_t i = 0; i < count; i++)
        if (list[i] == one)
            return true;
    return false;
}

static void check_graph(const struct pipeline *pipeline)
{
    must(pipeline->stage_count > 0);
    for (uint32_t i = 0; i < pipeline->stage_count; i++) {
        const struct stage *stage = &pipeline->stages[i];
        must(stage->index == i && stage->timeout_ms > 0 && stage->retry.attempts > 0);
        must(stage->otherwise != NULL && pipeline_name_is_valid(stage->queue));
        must(pipeline_stage(pipeline, stage->name) == stage);
        for (uint32_t n = 0; n < stage->need_count; n++) {
            const struct stage *need = &pipeline->stages[stage->needs[n]];
            must(stage->needs[n] < pipeline->stage_count && need != stage);
            must(holds(need->next, need->next_count, i));
        }
    }
}

static void use(struct pipeline *pipeline)
{
    struct report report;
    struct error err = {0};
    report_init(&report);
    json_t *input = NULL;
    if (pipeline_tasks_input(pipeline, "a prompt", &input, &err) == MR_OK)
        pipeline_check_input(pipeline, input, &report);
    json_decref(input);
    struct doc *doc = doc_new();
    for (uint32_t i = 0; i < pipeline->stage_count; i++)
        doc_set_text(doc, pipeline->stages[i].name, "{\"a\":[1]}", 9);
    char *text = NULL;
    size_t len = 0;
    if (pipeline_result(pipeline, doc, &text, &len, &err) == MR_OK) {
        json_t *value = json_read(text, len, 1024, &err);
        must(value != NULL);
        json_decref(value);
    }
    free(text);
    doc_free(doc);
    report_done(&report);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const none[] = {NULL};
    struct plugin_registry *plugins = plugin_registry_new(none);
    const struct pipeline_setup setups[] = {
        {.plugins = NULL},
        {.plugins = plugins, .has_endpoint = has_name, .has_pipeline = has_name},
    };
    struct pipeline_source *source =
        pipeline_source_new("fuzz", "fuzz.json", "/nonexistent", (const char *)data, size);
    for (size_t i = 0; i < 2; i++) {
        struct report report;
        report_init(&report);
        struct pipeline *pipeline = pipeline_build(source, &setups[i], &report);
        must((pipeline != NULL) == (report_errors(&report) == 0));
        if (pipeline != NULL) {
            check_graph(pipeline);
            use(pipeline);
            pipeline_unref(pipeline);
        }
        report_done(&report);
    }
    pipeline_source_free(source);
    plugin_registry_free(plugins);
    return 0;
}
