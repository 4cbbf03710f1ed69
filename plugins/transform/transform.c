/* transform: builds a new value out of the document. */
#include <millrace/plugin.h>

struct settings {
    const mr_template *output;
};

static const struct mr_option options[] = {
    MR_OPT_TEMPLATE(struct settings, output, "output", NULL, MR_REQUIRED,
                    "The value that comes out; its strings are templates."),
};

static int run(mr_context *cx, const void *settings)
{
    const struct settings *set = settings;
    struct json_t *value = NULL;
    int rc = mr_render(cx, set->output, &value);
    return rc == MR_OK ? mr_output(cx, value) : rc;
}

MR_PLUGIN(transform) = {
    MR_PLUGIN_HEAD("transform", struct settings, options),
    .version = "1.0",
    .summary = "Builds a value out of the input and earlier outputs.",
    .capabilities = MR_CAN_REPEAT,
    .run = run,
};
