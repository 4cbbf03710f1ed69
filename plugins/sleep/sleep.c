/* sleep: waits, then gives a value. For trying things: thousands of them cost next to nothing. */
#include <millrace/plugin.h>

struct settings {
    uint64_t for_ms;
    const mr_template *output;
};

static const struct mr_option options[] = {
    MR_OPT_DURATION(struct settings, for_ms, "for", NULL, 0, 0, MR_REQUIRED, "How long."),
    MR_OPT_TEMPLATE(struct settings, output, "output", "null", 0,
                    "The value that comes out; default: null."),
};

MR_SUSPENDS static int run(mr_context *cx, const void *settings)
{
    const struct settings *set = settings;
    struct json_t *value = NULL;
    int rc = mr_sleep(cx, set->for_ms);
    if (rc == MR_OK)
        rc = mr_render(cx, set->output, &value);
    return rc == MR_OK ? mr_output(cx, value) : rc;
}

/* A stage's 30 s would end longer sleeps. */
static uint64_t default_timeout(const void *settings)
{
    const struct settings *set = settings;
    return set->for_ms + 30000;
}

MR_PLUGIN(sleep) = {
    MR_PLUGIN_HEAD("sleep", struct settings, options),
    .version = "1.0",
    .summary = "Waits for a time, then gives a value.",
    .capabilities = MR_CAN_REPEAT,
    .default_timeout = default_timeout,
    .run = run,
};
