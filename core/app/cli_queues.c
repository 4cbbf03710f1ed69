/* `millrace queues`, `pause` and `resume`: how the queues stand, and holding a pipeline back. */
#include "app/cli.h"

#include "app/bundle.h"
#include "app/online.h"
#include "base/unit.h"
#include "base/utf8.h"
#include "state/dead.h"
#include "state/pause.h"
#include <stdio.h>
#include <string.h>

/* ---- queues ---- */

struct queues_args {
    struct cli *cli;
    char **names; /* of queues, NULL-ended, sorted */
    size_t count;
};

static void queues_add(struct queues_args *args, const char *name)
{
    for (size_t i = 0; i < args->count; i++)
        if (strcmp(args->names[i], name) == 0)
            return;
    args->names = mem_resize(args->names, args->count + 1, sizeof(*args->names));
    args->names[args->count++] = mem_dup(name);
}

static int queues_by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Every queue that a pipeline here names, and that of follow-ups; what cannot be read is left out,
 * `millrace check` tells of it. */
static void queues_find(struct queues_args *args, const struct config *config)
{
    static const struct pipeline_setup structure_only = {0};
    struct bundle bundle = {0};
    struct report report;
    report_init(&report);
    bundle_read(config, &bundle, &report);
    queues_add(args, "default");
    for (size_t i = 0; i < bundle.count; i++) {
        struct pipeline *pipeline = pipeline_build(bundle.sources[i], &structure_only, &report);
        for (uint32_t k = 0; pipeline && k < pipeline->stage_count; k++)
            queues_add(args, pipeline->stages[k].queue);
        pipeline_unref(pipeline);
    }
    bundle_done(&bundle);
    report_done(&report);
    qsort(args->names, args->count, sizeof(*args->names), queues_by_name);
}

static const char *queues_pause_word(enum pause_state state)
{
    return state == PAUSE_ON ? "paused" : state == PAUSE_RESUMING ? "resuming" : "running";
}

static int queues_figures(struct queues_args *args, struct store *store, json_t *queues,
                          struct error *err)
{
    if (!args->cli->json)
        printf("%-20s %10s %10s %10s\n", "QUEUE", "WAITING", "RUNNING", "OLDEST");
    for (size_t i = 0; i < args->count; i++) {
        struct queue_stats stats;
        uint64_t waiting = 0, running = 0;
        char oldest[32];
        int rc = queue_get_stats(store, args->names[i], &stats, err);
        if (rc != MR_OK)
            return rc;
        for (unsigned class = 0; class < QUEUE_CLASSES; class ++) {
            waiting += stats.waiting[class];
            running += stats.running[class];
        }
        unit_format_duration(stats.oldest_ms, oldest);
        json_object_set_new(queues, args->names[i],
                            json_pack("{s:I, s:I, s:I}", "waiting", (json_int_t)waiting, "running",
                                      (json_int_t)running, "oldest_ms",
                                      (json_int_t)stats.oldest_ms));
        if (!args->cli->json)
            printf("%-20s %10llu %10llu %10s\n", args->names[i], (unsigned long long)waiting,
                   (unsigned long long)running, waiting + running > 0 ? oldest : "-");
    }
    return MR_OK;
}

static int queues_paused(struct queues_args *args, struct store *store, char *const *names,
                         json_t *paused, struct error *err)
{
    for (; *names; names++) {
        struct pause pause;
        int rc = pause_get(store, *names, &pause, err);
        if (rc != MR_OK)
            return rc;
        mem_auto char *name = utf8_plain(*names);
        json_object_set_new(paused, name,
                            json_pack("{s:s, s:I}", "state", queues_pause_word(pause.state), "held",
                                      (json_int_t)pause.held));
        if (!args->cli->json)
            printf("pipeline %s is %s, %llu held\n", name, queues_pause_word(pause.state),
                   (unsigned long long)pause.held);
    }
    return MR_OK;
}

static int queues_online(struct online *online, void *arg)
{
    struct queues_args *args = arg;
    struct error err = {0};
    uint64_t dead = 0;
    char **names = NULL;
    json_hold json_t *queues = json_object(), *paused = json_object();
    int rc = queues_figures(args, online->store, queues, &err);
    if (rc == MR_OK)
        rc = pause_names(online->store, &names, &err);
    if (rc == MR_OK)
        rc = queues_paused(args, online->store, names, paused, &err);
    if (rc == MR_OK)
        rc = dead_count(online->store, &dead, &err);
    for (size_t i = 0; names && names[i]; i++)
        free(names[i]);
    free(names);
    if (rc != MR_OK)
        return cli_fail(args->cli, &err);
    if (args->cli->json) {
        json_hold json_t *object = json_pack("{s:O, s:O, s:I}", "queues", queues, "paused", paused,
                                             "dead", (json_int_t)dead);
        cli_print(object);
    } else {
        printf("%llu dead letters\n", (unsigned long long)dead);
    }
    return CLI_DONE;
}

static int queues_run(struct cli *cli, int argc, char **argv)
{
    static const struct cli_option none[] = {{NULL, 0, NULL, NULL}};
    struct queues_args args = {.cli = cli};
    if (cli_options(cli, argc, argv, none, 0, 0) < 0)
        return CLI_USAGE;
    const struct config *config = cli_config(cli);
    if (!config)
        return CLI_FAILED;
    queues_find(&args, config);
    int code = online_run(config, queues_online, &args);
    for (size_t i = 0; i < args.count; i++)
        free(args.names[i]);
    free(args.names);
    return code;
}

/* ---- pause, resume ---- */

struct pause_args {
    struct cli *cli;
    const char *name;
    bool is_known; /* in the folders here */
    bool resume;
    struct error unknown; /* why it is not */
};

static int pause_online(struct online *online, void *arg)
{
    const struct pause_args *args = arg;
    struct error err = {0};
    struct pause pause = {.state = PAUSE_NONE};
    if (pause_get(online->store, args->name, &pause, &err) != MR_OK)
        return cli_fail(args->cli, &err);
    /* A pipeline whose file is gone may still be paused, with jobs that wait. */
    if (!args->is_known && pause.state == PAUSE_NONE)
        return cli_fail(args->cli, &args->unknown);
    int rc = args->resume ? pipeline_resume(online->store, args->name, &err)
                          : pipeline_pause(online->store, args->name, &err);
    if (rc == MR_OK)
        rc = pause_get(online->store, args->name, &pause, &err);
    if (rc != MR_OK)
        return cli_fail(args->cli, &err);
    const char *word = queues_pause_word(pause.state);
    if (args->cli->json) {
        json_hold json_t *object = json_pack("{s:s, s:s, s:I}", "pipeline", args->name, "state",
                                             word, "held", (json_int_t)pause.held);
        cli_print(object);
    } else {
        printf("%s  %s\n", args->name, word);
    }
    return CLI_DONE;
}

static int pause_run(struct cli *cli, int argc, char **argv)
{
    static const struct cli_option none[] = {{NULL, 0, NULL, NULL}};
    struct pause_args args = {.cli = cli, .resume = strcmp(argv[0], "resume") == 0};
    if (cli_options(cli, argc, argv, none, 1, 1) < 0)
        return CLI_USAGE;
    args.name = argv[1];
    if (!pipeline_name_is_valid(args.name))
        return cli_usage(cli, "\"%s\" is not the name of a pipeline", args.name);
    const struct config *config = cli_config(cli);
    if (!config)
        return CLI_FAILED;
    mem_auto char *path = cli_pipeline_path(config, args.name, &args.unknown);
    args.is_known = path != NULL;
    return online_run(config, pause_online, &args);
}

const struct cli_verb cli_queues = {
    .name = "queues",
    .usage = "",
    .summary = "Prints how every queue stands, paused pipelines, and dead letters.",
    .help = "Waiting and running count lanes: parts of jobs that one worker runs together.\n"
            "Lanes of a paused pipeline are held and in no queue.\n",
    .run = queues_run,
};
const struct cli_verb cli_pause = {
    .name = "pause",
    .usage = "PIPELINE",
    .summary = "Holds jobs of a pipeline back, on every host.",
    .help = "What runs goes on until its queue changes or the job ends; what would begin waits\n"
            "until `millrace resume`. Jobs are still accepted.\n",
    .run = pause_run,
};
const struct cli_verb cli_resume = {
    .name = "resume",
    .usage = "PIPELINE",
    .summary = "Lets a paused pipeline go on.",
    .help = "Held jobs are queued again, 100 at a time.\n",
    .run = pause_run,
};
