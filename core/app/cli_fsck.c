/* `millrace fsck`: checks, and mends, what stands in Redis. */
#include "app/cli.h"

#include "app/online.h"
#include "base/clock.h"
#include "run/pipeline.h"
#include "state/fsck.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LISTED_MAX 10000u /* of the quarantine, at once */

struct fsck_args {
    struct cli *cli;
    bool repair, quarantine;
    const struct config *config;
    struct pipeline_source **sources; /* of the configuration's pipelines; read when first wanted */
    size_t source_count;
    bool has_sources;
    json_t *findings; /* with --json */
};

static void read_sources(struct fsck_args *args)
{
    args->has_sources = true;
    char **names = config_pipeline_names(args->config);
    for (size_t i = 0; names[i]; i++) {
        struct report report;
        report_init(&report);
        mem_auto char *path = config_pipeline_file(args->config, names[i]);
        struct pipeline_source *source = path ? pipeline_read(path, &report) : NULL;
        if (source) {
            args->sources =
                mem_resize(args->sources, args->source_count + 1, sizeof(*args->sources));
            args->sources[args->source_count++] = source;
        }
        report_done(&report);
        free(names[i]);
    }
    free(names);
}

static char *find_source(void *arg, const char *revision, size_t *ret_len, const char **ret_name)
{
    struct fsck_args *args = arg;
    if (!args->has_sources)
        read_sources(args);
    for (size_t i = 0; i < args->source_count; i++)
        if (strcmp(args->sources[i]->revision, revision) == 0) {
            *ret_len = args->sources[i]->len;
            *ret_name = args->sources[i]->name;
            return mem_ndup(args->sources[i]->text, args->sources[i]->len);
        }
    return NULL;
}

static const char *outcome_word(const struct fsck_finding *finding)
{
    static const char *const words[] = {"found", "mended", "quarantined", "left"};
    return fsck_is_note(finding->kind) ? "note" : words[finding->outcome];
}

static void on_finding(void *arg, const struct fsck_finding *finding)
{
    struct fsck_args *args = arg;
    if (args->findings) {
        json_array_append_new(
            args->findings,
            json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "kind", fsck_word(finding->kind),
                      finding->is_job ? "job" : "key", finding->at, "what", finding->what, "wrong",
                      fsck_wrong(finding->kind), "repair", fsck_mends(finding->kind), "outcome",
                      outcome_word(finding)));
        return;
    }
    bool is_note = fsck_is_note(finding->kind);
    const char *sentence = finding->outcome == FSCK_QUARANTINED ? "moved to quarantine"
                           : finding->outcome == FSCK_LEFT      ? "is left: the repair did not help"
                                                                : fsck_mends(finding->kind);
    printf("%s%s %s%s: %s%s%s; %s%s\n", is_note ? "note: " : "", fsck_word(finding->kind),
           finding->is_job ? "job " : "", finding->at, fsck_wrong(finding->kind),
           finding->what[0] ? ": " : "", finding->what,
           finding->outcome == FSCK_FOUND && !is_note ? "--repair " : "", sentence);
}

static int print_summary(struct fsck_args *args, const struct fsck_summary *summary)
{
    if (args->findings) {
        json_hold json_t *all =
            json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:O}", "jobs", (json_int_t)summary->jobs,
                      "findings", (json_int_t)summary->findings, "mended",
                      (json_int_t)summary->mended, "left", (json_int_t)summary->left, "quarantined",
                      (json_int_t)summary->quarantined, "notes", (json_int_t)summary->notes,
                      "in_quarantine", (json_int_t)summary->in_quarantine, "list", args->findings);
        cli_print(all);
    } else {
        printf("fsck: jobs=%" PRIu64 " findings=%" PRIu64 " mended=%" PRIu64 " left=%" PRIu64
               " quarantined=%" PRIu64 " notes=%" PRIu64 " in_quarantine=%" PRIu64 "\n",
               summary->jobs, summary->findings, summary->mended, summary->left,
               summary->quarantined, summary->notes, summary->in_quarantine);
    }
    return summary->left ? CLI_FAILED : CLI_DONE;
}

static int list_quarantine(struct fsck_args *args, struct online *online)
{
    struct error err = {0};
    struct fsck_quarantined *items = NULL;
    size_t count = 0;
    if (fsck_quarantine(online->store, LISTED_MAX, &items, &count, &err) != MR_OK)
        return cli_fail(args->cli, &err);
    json_hold json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        char at[25];
        clock_format(items[i].at_ms, at);
        if (args->cli->json)
            json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "id", items[i].name, "at", at,
                                                  "why", items[i].why));
        else
            printf("%s  %s  %s\n", at, items[i].name, items[i].why);
    }
    fsck_quarantine_free(items, count);
    if (args->cli->json)
        cli_print(list);
    return CLI_DONE;
}

static int fsck_online(struct online *online, void *arg)
{
    struct fsck_args *args = arg;
    if (args->quarantine)
        return list_quarantine(args, online);
    const struct fsck_options options = {
        .repair = args->repair, .on_finding = on_finding, .find_source = find_source, .arg = args};
    struct fsck_summary summary;
    struct error err = {0};
    if (fsck_run(online->store, &options, &summary, &err) != MR_OK)
        return cli_fail(args->cli, &err);
    return print_summary(args, &summary);
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct fsck_args args = {.cli = cli};
    const struct cli_option options[] = {{"repair", 'r', NULL, &args.repair},
                                         {"quarantine", 'q', NULL, &args.quarantine},
                                         {NULL, 0, NULL, NULL}};
    if (cli_options(cli, argc, argv, options, 0, 0) < 0)
        return CLI_USAGE;
    if (args.repair && args.quarantine)
        return cli_usage(cli, "--repair and --quarantine do not go together");
    args.config = cli_config(cli);
    if (!args.config)
        return CLI_FAILED;
    if (cli->json)
        args.findings = json_array();
    int code = online_run_unchecked(args.config, fsck_online, &args);
    json_decref(args.findings);
    for (size_t i = 0; i < args.source_count; i++)
        pipeline_source_free(args.sources[i]);
    free(args.sources);
    return code;
}

const struct cli_verb cli_fsck = {
    .name = "fsck",
    .usage = "[--repair | --quarantine]",
    .summary = "Checks what stands in Redis, beside running workers.",
    .help = "  -r, --repair       mends what can be mended, moves aside what cannot\n"
            "  -q, --quarantine   lists what was moved aside\n"
            "\nA line for each finding. Exits 0 when there is none, or all are dealt with.\n",
    .run = run,
};
