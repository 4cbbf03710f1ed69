/* See check.h. */
#include "app/check.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct check_names {
    const struct config *config;
    struct pipeline_source *const *sources;
    size_t count;
    bool serves;      /* a queue of some stage */
    json_t *versions; /* of plugins, filled; NULL: not asked for */
};

static bool check_has_pipeline(void *arg, const char *name)
{
    const struct check_names *names = arg;
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->sources[i]->name, name) == 0)
            return true;
    mem_auto char *path = config_pipeline_file(names->config, name);
    return path != NULL;
}

static bool check_has_endpoint(void *arg, const char *name)
{
    const struct check_names *names = arg;
    return config_endpoint(names->config, name) != NULL;
}

/* Loads each plugin that is named, one by one, so that a crash has a name. */
static void check_plugins(struct plugin_registry *plugins, const struct pipeline_source *source,
                          check_note *note, void *arg)
{
    json_hold json_t *root = json_read(source->text, source->len, 0, NULL);
    const json_t *stages = json_object_get(root, "stages");
    for (size_t i = 0; i < json_array_size(stages); i++) {
        const char *name = json_text_or(json_array_get(stages, i), "plugin", NULL);
        struct error ignored;
        if (!name)
            continue;
        note(arg, "loading plugin", name);
        plugin_find(plugins, name, &ignored);
    }
}

static void check_all(struct check_names *names, check_note *note, void *arg, struct report *report)
{
    const struct config *config = names->config;
    struct plugin_registry *plugins = plugin_registry_new(config->plugins);
    const struct pipeline_setup setup = {.plugins = plugins,
                                         .has_endpoint = check_has_endpoint,
                                         .endpoints = config->endpoint_names,
                                         .has_pipeline = check_has_pipeline,
                                         .arg = names};
    for (size_t i = 0; i < names->count; i++) {
        if (note) {
            check_plugins(plugins, names->sources[i], note, arg);
            note(arg, "checking pipeline", names->sources[i]->name);
        }
        struct pipeline *pipeline = pipeline_build(names->sources[i], &setup, report);
        for (uint32_t k = 0; pipeline && k < pipeline->stage_count; k++) {
            const struct stage *stage = &pipeline->stages[k];
            names->serves = names->serves || config_serves(config, stage->queue);
            if (names->versions && stage->plugin)
                json_object_set_new(names->versions, stage->plugin_name,
                                    json_string(stage->plugin->about.version));
        }
        pipeline_unref(pipeline);
    }
    plugin_registry_free(plugins);
}

bool check_sources(const struct config *config, struct pipeline_source *const *sources,
                   size_t count, check_note *note, void *arg, struct report *report)
{
    size_t before = report_errors(report);
    struct check_names names = {.config = config, .sources = sources, .count = count};
    check_all(&names, note, arg, report);
    return report_errors(report) == before;
}

bool check_bundle(const struct config *config, struct bundle *bundle, check_note *note, void *arg,
                  struct report *report)
{
    size_t before = report_errors(report);
    json_decref(bundle->plugins);
    bundle->plugins = json_object();
    struct check_names names = {.config = config,
                                .sources = bundle->sources,
                                .count = bundle->count,
                                .versions = bundle->plugins,
                                .serves =
                                    config_serves(config, "default")}; /* follow-ups run there */
    check_all(&names, note, arg, report);
    if (bundle->count == 0)
        report_warn(report, config->file, "/pipelines", "there is no pipeline in %s",
                    config->pipelines[0] ? config->pipelines[0] : "any folder");
    else if (!names.serves && config->role != CONFIG_FRONT && report_errors(report) == before)
        error_hint(
            report_add(report, config->file, "/queues",
                       "names none of the queues that the pipelines use"),
            "[\"*\"] serves them all; a stage's `queue` is \"default\" unless it says otherwise");
    if (strcmp(config->tasks_pipeline, "prompt") != 0 &&
        !bundle_find(bundle, config->tasks_pipeline))
        report_warn(report, config->file, "/tasks/pipeline", "there is no pipeline \"%s\"",
                    config->tasks_pipeline);
    return report_errors(report) == before;
}

void check_print(const struct report *report, bool quiet)
{
    for (size_t i = 0; i < report->count; i++) {
        const struct error *item = &report->items[i];
        bool warning = item->code == MR_OK;
        if (warning && quiet)
            continue;
        fprintf(stderr, "%s%s%s%s\n", item->where, item->where[0] ? ": " : "",
                warning ? "warning: " : "", item->message);
        if (item->hint[0])
            fprintf(stderr, "    hint: %s\n", item->hint);
    }
}

void check_write(const struct report *report, int fd)
{
    if (ftruncate(fd, 0) != 0 || lseek(fd, 0, SEEK_SET) != 0)
        return;
    for (size_t i = 0; i < report->count; i++) {
        const struct error *item = &report->items[i];
        if (item->code != MR_OK)
            dprintf(fd, "%s%s%s%s%s%s\n", item->where, item->where[0] ? ": " : "", item->message,
                    item->hint[0] ? " (" : "", item->hint, item->hint[0] ? ")" : "");
    }
}
