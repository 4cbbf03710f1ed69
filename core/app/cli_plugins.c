/* `millrace plugins`: what there is, and everything about one. Each plugin is loaded in a child
 * process of its own. */
#include "app/cli.h"
#include "app/cli_guard.h"

#include <stdio.h>
#include <string.h>

struct showing {
    struct cli *cli;
    const struct config *config;
    const char *name;
    bool whole; /* everything about it */
};

static json_t *describe(const struct plugin *plugin)
{
    const struct mr_plugin *about = &plugin->about;
    json_t *all = json_pack("{s:s, s:s, s:s, s:s, s:s}", "name", plugin->name, "version",
                            about->version != NULL ? about->version : "", "summary",
                            about->summary != NULL ? about->summary : "", "doc",
                            about->doc != NULL ? about->doc : "", "path", plugin->path);
    mem_auto char *abi =
        mem_format("%u.%u", (unsigned)about->abi_major, (unsigned)about->abi_minor);
    json_object_set_new(all, "abi", json_string(abi));
    json_object_set_new(all, "timeout",
                        json_string(about->timeout != NULL ? about->timeout : "30s"));
    json_object_set_new(all, "can_repeat",
                        json_boolean((about->capabilities & MR_CAN_REPEAT) != 0));
    json_object_set_new(all, "options", option_describe_json(&plugin->options));
    return all;
}

static void print_whole(const struct plugin *plugin)
{
    const struct mr_plugin *about = &plugin->about;
    printf("%s %s\n%s\n", plugin->name, about->version != NULL ? about->version : "",
           about->summary != NULL ? about->summary : "");
    if (about->doc != NULL && about->doc[0] != '\0')
        printf("\n%s\n", about->doc);
    struct buf buf;
    buf_init(&buf, 1u << 20);
    if (option_describe_text(&plugin->options, &buf) && buf.len > 0)
        printf("\nOptions:\n\n%s", buf_text(&buf));
    buf_done(&buf);
    printf("\nTimeout of a stage: %s%s\nFile: %s\n",
           about->timeout != NULL ? about->timeout : "30s",
           about->default_timeout != NULL ? ", or what its options add up to" : "", plugin->path);
}

static int show_main(void *arg, char *note)
{
    const struct showing *showing = arg;
    struct error err = {0};
    snprintf(note, CLI_NOTE_BYTES, "loading plugin \"%.60s\"", showing->name);
    struct plugin_registry *plugins = plugin_registry_new(showing->config->plugins);
    const struct plugin *plugin = plugin_find(plugins, showing->name, &err);
    int rc = CLI_DONE;
    if (plugin == NULL && !showing->whole && !showing->cli->json) {
        printf("%-12s cannot be loaded: %s\n", showing->name, err.message);
        rc = CLI_FAILED;
    } else if (plugin == NULL && showing->cli->json && !showing->whole) {
        json_t *all = json_pack("{s:s, s:s}", "name", showing->name, "error", err.message);
        cli_print(all);
        json_decref(all);
        rc = CLI_FAILED;
    } else if (plugin == NULL) {
        rc = cli_fail(showing->cli, &err);
    } else if (showing->cli->json) {
        json_t *all = describe(plugin);
        cli_print(all);
        json_decref(all);
    } else if (showing->whole) {
        print_whole(plugin);
    } else {
        printf("%-12s %-8s %s\n", plugin->name,
               plugin->about.version != NULL ? plugin->about.version : "",
               plugin->about.summary != NULL ? plugin->about.summary : "");
    }
    plugin_registry_free(plugins);
    return rc;
}

static int list(struct cli *cli, const struct config *config)
{
    struct plugin_registry *plugins = plugin_registry_new(config->plugins);
    char **names = plugin_names(plugins);
    int rc = CLI_DONE;
    if (cli->json)
        fputs("[\n", stdout);
    for (size_t i = 0; names[i] != NULL; i++) {
        struct showing showing = {cli, config, names[i], false};
        if (cli->json && i > 0)
            fputs(",\n", stdout);
        int one = cli_guarded(show_main, &showing);
        rc = one != CLI_DONE ? one : rc;
        free(names[i]);
    }
    if (cli->json)
        fputs("]\n", stdout);
    else if (names[0] == NULL)
        fprintf(stderr, "millrace: there are no plugins in %s\n",
                config->plugins[0] != NULL ? config->plugins[0] : "any folder");
    free(names);
    plugin_registry_free(plugins);
    return rc;
}

static int run(struct cli *cli, int argc, char **argv)
{
    static const struct cli_option options[] = {{0}};
    int count = cli_options(cli, argc, argv, options, 0, 1);
    if (count < 0)
        return CLI_USAGE;
    const struct config *config = cli_config(cli);
    if (config == NULL)
        return CLI_FAILED;
    if (count == 0)
        return list(cli, config);
    struct showing showing = {cli, config, argv[1], true};
    return cli_guarded(show_main, &showing);
}

const struct cli_verb cli_plugins = {
    .name = "plugins",
    .usage = "[NAME]",
    .summary = "Lists plugins, or tells everything about one.",
    .help = "Of one plugin: its options with types, defaults and limits, and where its file is.\n",
    .run = run,
};
