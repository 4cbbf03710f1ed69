/* echo: gives back its input. The smallest plugin, for trying things. */
#include <millrace/plugin.h>

struct settings {
    const mr_template *output;
};

static const struct mr_option options[] = {
    MR_OPT_TEMPLATE(struct settings, output, "output", "\"{{ .input }}\"", 0,
                    "The value that comes out; default: the job's input."),
};

static int run(mr_context *cx, const void *settings)
{
    const struct settings *set = settings;
    struct json_t *value = NULL;
    int rc = mr_render(cx, set->output, &value);
    return rc == MR_OK ? mr_output(cx, value) : rc;
}

MR_PLUGIN(echo) = {
    MR_PLUGIN_HEAD("echo", struct settings, options),
    .version = "1.0",
    .summary = "Gives back its input, or a value of your choice.",
    .capabilities = MR_CAN_REPEAT,
    .run = run,
};
