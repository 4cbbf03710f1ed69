/* See check.h. */
#include "app/check.h"

#include <stdio.h>

struct check_names {
    const struct config *config;
    const struct bundle *bundle;
};

static bool check_has_pipeline(void *arg, const char *name)
{
    const struct check_names *names = arg;
    return bundle_find(names->bundle, name) != NULL;
}

static bool check_has_endpoint(void *arg, const char *name)
{
    const struct check_names *names = arg;
    return config_endpoint(names->config, name) != NULL;
}

bool check_bundle(const struct config *config, const struct bundle *bundle, struct report *report)
{
    size_t before = report_errors(report);
    struct check_names names = {.config = config, .bundle = bundle};
    struct plugin_registry *plugins = plugin_registry_new(config->plugins);
    const struct pipeline_setup setup = {.plugins = plugins,
                                         .has_endpoint = check_has_endpoint,
                                         .endpoints = config->endpoint_names,
                                         .has_pipeline = check_has_pipeline,
                                         .arg = &names};
    for (size_t i = 0; i < bundle->count; i++)
        pipeline_unref(pipeline_build(bundle->sources[i], &setup, report));
    plugin_registry_free(plugins);
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
