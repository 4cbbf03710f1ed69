/* `millrace check`: the configuration and pipelines, every problem at once.
 *
 * Without a file: the configuration and all pipelines of its folders. With files: a file that has
 * `stages`, or another member that only pipelines have, is a pipeline and is checked with the
 * configuration that counts; any other is a configuration, checked with its pipelines. Plugins are
 * loaded in a child process. */
#include "app/check.h"
#include "app/cli.h"
#include "app/cli_guard.h"
#include "base/file.h"
#include "base/limits.h"

#include <stdio.h>
#include <string.h>

struct checking {
    struct cli *cli;
    char **files;
    int file_count;
    char *note;
    struct report report;
    size_t pipelines;
};

static void note_step(void *arg, const char *doing, const char *name)
{
    struct checking *checking = arg;
    snprintf(checking->note, CLI_NOTE_BYTES, "%s \"%.60s\"", doing, name);
}

/* A configuration and all its pipelines. */
static void check_config(struct checking *checking, const char *file)
{
    struct report *report = &checking->report;
    struct config *config = config_load(file, report);
    if (config == NULL)
        return;
    struct bundle bundle = {0};
    bundle_read(config, &bundle, report);
    check_bundle(config, &bundle, note_step, checking, report);
    checking->pipelines += bundle.count;
    bundle_done(&bundle);
    config_free(config);
}

/* Whether a file looks like a pipeline. What cannot be parsed is whatever reports it. */
static bool is_pipeline(const char *file)
{
    size_t len = 0;
    mem_auto char *text = file_read(file, LIMIT_CONFIG_BYTES, &len, NULL);
    json_hold json_t *root = text != NULL ? json_read(text, len, 0, NULL) : NULL;
    return json_object_get(root, "stages") != NULL || json_object_get(root, "name") != NULL ||
           json_object_get(root, "input") != NULL || json_object_get(root, "result") != NULL;
}

static void check_files(struct checking *checking)
{
    struct config *config = NULL;
    struct pipeline_source **sources =
        mem_zalloc((size_t)checking->file_count * sizeof(struct pipeline_source *));
    size_t count = 0;
    for (int i = 0; i < checking->file_count; i++) {
        const char *file = checking->files[i];
        if (!is_pipeline(file)) {
            check_config(checking, file);
            continue;
        }
        sources[count] = pipeline_read(file, &checking->report);
        count += sources[count] != NULL;
    }
    if (count > 0) {
        mem_auto char *file = config_find(checking->cli->file);
        config = config_load(file, &checking->report);
        if (config != NULL) {
            check_sources(config, sources, count, note_step, checking, &checking->report);
            checking->pipelines += count;
        }
    }
    for (size_t i = 0; i < count; i++)
        pipeline_source_free(sources[i]);
    free(sources);
    config_free(config);
}

static void print_json(const struct report *report)
{
    json_t *problems = json_array();
    for (size_t i = 0; i < report->count; i++) {
        const struct error *item = &report->items[i];
        json_array_append_new(problems,
                              json_pack("{s:s, s:s, s:s, s:s}", "severity",
                                        item->code == MR_OK ? "warning" : "error", "where",
                                        item->where, "message", item->message, "hint", item->hint));
    }
    json_t *all = json_pack("{s:b, s:o}", "ok", report_errors(report) == 0, "problems", problems);
    cli_print(all);
    json_decref(all);
}

static int check_main(void *arg, char *note)
{
    struct checking *checking = arg;
    struct report *report = &checking->report;
    checking->note = note;
    snprintf(note, CLI_NOTE_BYTES, "reading files");
    if (checking->file_count > 0) {
        check_files(checking);
    } else {
        mem_auto char *file = config_find(checking->cli->file);
        check_config(checking, file);
    }
    size_t errors = report_errors(report);
    if (checking->cli->json) {
        print_json(report);
    } else {
        check_print(report, false);
        if (errors == 0)
            printf("ok: %zu pipeline%s%s\n", checking->pipelines,
                   checking->pipelines == 1 ? "" : "s",
                   report->warnings > 0 ? ", with warnings" : "");
        else
            fprintf(stderr, "%zu error%s\n", errors, errors == 1 ? "" : "s");
    }
    report_done(report);
    return errors == 0 ? CLI_DONE : CLI_FAILED;
}

/* What counts, secrets as ***; or what there is to set. */
static int show(struct cli *cli, bool keys)
{
    if (keys) {
        struct buf buf;
        buf_init(&buf, 1u << 20);
        config_describe_keys(&buf);
        fputs(buf_text(&buf), stdout);
        buf_done(&buf);
        return CLI_DONE;
    }
    const struct config *config = cli_config(cli);
    if (config == NULL)
        return CLI_FAILED;
    json_hold json_t *all = config_describe(config);
    char *text = json_dumps(all, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    if (text != NULL)
        puts(text);
    free(text);
    return CLI_DONE;
}

static int run(struct cli *cli, int argc, char **argv)
{
    bool keys = false, effective = false;
    const struct cli_option options[] = {
        {"keys", '\0', NULL, &keys}, {"show", '\0', NULL, &effective}, {0}};
    int count = cli_options(cli, argc, argv, options, 0, 1000);
    if (count < 0)
        return CLI_USAGE;
    if (keys || effective)
        return count == 0 && !(keys && effective) ? show(cli, keys)
                                                  : cli_usage(cli, "--keys and --show stand alone");
    struct checking checking = {.cli = cli, .files = argv + 1, .file_count = count};
    report_init(&checking.report);
    return cli_guarded(check_main, &checking);
}

const struct cli_verb cli_check = {
    .name = "check",
    .usage = "[FILE...]",
    .summary = "Checks the configuration and pipelines, all errors at once.",
    .help = "Without FILE: the configuration and every pipeline of its folders. A FILE is a\n"
            "pipeline or a configuration. Problems are printed as FILE: /pointer: message, with a\n"
            "hint; warnings alone leave the exit status 0. Plugins run in a child process.\n"
            "  --show   prints the configuration that counts as JSON, secrets as ***\n"
            "  --keys   prints every key of the configuration with type, default and meaning\n",
    .run = run,
};
