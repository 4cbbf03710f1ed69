/* no_symbol: exports a descriptor under another name than its file's. For tests of the loader. */
#include <millrace/plugin.h>

struct settings {
    int32_t nothing;
};

static const struct mr_option options[] = {
    MR_OPT_BOOL(struct settings, nothing, "nothing", "false", 0, "Nothing."),
};

static int run(mr_context *cx, const void *settings)
{
    (void)settings;
    return mr_output_text(cx, "true", 4);
}

MR_PLUGIN(some_other_name) = {
    MR_PLUGIN_HEAD("some_other_name", struct settings, options),
    .version = "1.0",
    .summary = "Has a name of its own.",
    .run = run,
};
