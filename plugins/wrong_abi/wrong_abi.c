/* wrong_abi: claims to be built for a host that does not exist yet. For tests of the loader. */
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

MR_EXPORT extern const struct mr_plugin mr_plugin_wrong_abi;
const struct mr_plugin mr_plugin_wrong_abi = {
    .size = (uint32_t)sizeof(struct mr_plugin),
    .abi_major = MR_ABI_MAJOR,
    .abi_minor = MR_ABI_MINOR + 1,
    .option_size = (uint32_t)sizeof(struct mr_option),
    .option_count = 1,
    .settings_size = (uint32_t)sizeof(struct settings),
    .name = "wrong_abi",
    .version = "1.0",
    .summary = "Was built for another host.",
    .options = options,
    .run = run,
};
