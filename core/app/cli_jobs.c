/* `millrace submit`, `status`, `watch` and `cancel`: jobs through Redis directly, with the same ids
 * and checks as over HTTP. */
#include "app/cli.h"

#include "app/enqueue.h"
#include "app/online.h"
#include "base/clock.h"
#include "base/unit.h"
#include "state/durable.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct jobs_args {
    struct cli *cli;
    const char *id, *key, *priority, *delay;
    bool fresh, wait;
    struct pipeline *pipeline;
    struct pipeline_source *source;
    json_t *input;
};

static int jobs_missing(struct cli *cli, const char *id)
{
    struct error err = {0};
    error_set(&err, MR_E_SCHEMA, "there is no job %s", id);
    error_hint(
        &err,
        "its retention may be over; `millrace id PIPELINE -i INPUT` prints the id of a submission");
    return cli_fail(cli, &err);
}

static json_t *jobs_json_or_null(const char *text, size_t len)
{
    json_t *value = text ? json_read(text, len, 0, NULL) : NULL;
    return value ? value : json_null();
}

static json_t *jobs_time(uint64_t ms)
{
    char text[25];
    clock_format(ms, text);
    return ms ? json_string(text) : json_null();
}

static const char *jobs_state(const struct job_stage_view *stage)
{
    return stage->state == 'd'   ? "completed"
           : stage->state == 's' ? "skipped"
           : stage->state == 'f' ? "failed"
                                 : "open";
}

/* {"asked", "got", "reason"}, or null when its pipeline asks for nothing. */
static json_t *jobs_durability(const struct job_view *view)
{
    enum durable_level asked = DURABLE_NONE;
    struct durable_got got;
    if (!durable_parse(view->durability, &asked, &got))
        return json_null();
    json_t *value = json_pack("{s:s, s:s}", "asked", durable_level_name(asked), "got",
                              durable_level_name(got.level));
    if (got.why[0])
        json_object_set_new(value, "reason", json_string(got.why));
    return value;
}

static void jobs_print_durability(const struct job_view *view)
{
    enum durable_level asked = DURABLE_NONE;
    struct durable_got got;
    if (!durable_parse(view->durability, &asked, &got))
        return;
    if (got.level == asked)
        printf("  durable  %s\n", durable_level_name(asked));
    else
        printf("  durable  %s instead of %s: %s\n", durable_level_name(got.level),
               durable_level_name(asked), got.why);
}

/* The job as an object of its own shape, short: what a person asks for on a terminal. */
static json_t *jobs_object(const struct job_view *view)
{
    json_t *stages = json_object();
    for (uint32_t i = 0; i < view->stage_count; i++) {
        const struct job_stage_view *stage = &view->stages[i];
        const char *state = jobs_state(stage);
        if (stage->name[0] != '$')
            json_object_set_new(stages, stage->name,
                                json_pack("{s:s, s:i, s:o, s:o}", "status", state, "attempts",
                                          (int)stage->attempts, "started_at",
                                          jobs_time(stage->started_ms), "finished_at",
                                          jobs_time(stage->finished_ms)));
    }
    return json_pack("{s:s, s:s, s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "id", view->id,
                     "pipeline", view->pipeline, "status", view->status, "progress",
                     (int)view->progress, "created_at", jobs_time(view->created_ms), "started_at",
                     jobs_time(view->started_ms), "finished_at", jobs_time(view->finished_ms),
                     "stages", stages, "result", jobs_json_or_null(view->result, view->result_len),
                     "error", jobs_json_or_null(view->error, view->error_len), "durability",
                     jobs_durability(view));
}

static void jobs_print_text(const struct job_view *view)
{
    char created[25], started[25], finished[25];
    clock_format(view->created_ms, created);
    clock_format(view->started_ms, started);
    clock_format(view->finished_ms, finished);
    printf("%s  %s  %s  %u %%\n", view->id, view->pipeline, view->status, view->progress);
    printf("  created  %s\n", created);
    if (view->started_ms)
        printf("  started  %s\n", started);
    if (view->finished_ms)
        printf("  finished %s\n", finished);
    jobs_print_durability(view);
    for (uint32_t i = 0; i < view->stage_count; i++) {
        const struct job_stage_view *stage = &view->stages[i];
        const char *state = jobs_state(stage);
        if (strcmp(state, "open") == 0)
            state = stage->started_ms ? "running" : "waiting";
        if (stage->name[0] == '$')
            continue;
        printf("  stage    %-20s %-10s attempts %u", stage->name, state, stage->attempts);
        if (stage->started_ms && stage->finished_ms >= stage->started_ms) {
            char took[32];
            unit_format_duration(stage->finished_ms - stage->started_ms, took);
            printf("  %s", took);
        }
        printf("\n");
    }
    if (view->error)
        printf("  error    %.*s\n", (int)view->error_len, view->error);
    if (view->result)
        printf("  result   %.*s\n", (int)view->result_len, view->result);
}

static int jobs_print(struct cli *cli, struct online *online, const char *id)
{
    struct error err = {0};
    struct job_view *view = NULL;
    if (job_read(online->store, id, 0, &view, &err) != MR_OK)
        return cli_fail(cli, &err);
    if (!view)
        return jobs_missing(cli, id);
    if (cli->json) {
        json_hold json_t *object = jobs_object(view);
        cli_print(object);
    } else {
        jobs_print_text(view);
    }
    int code = strcmp(view->status, "failed") == 0 || strcmp(view->status, "cancelled") == 0
                   ? CLI_FAILED
                   : CLI_DONE;
    job_view_free(view);
    return code;
}

/* ---- watch ---- */

/* A line an event; on a terminal a bar before it. */
static void jobs_print_event(const struct cli *cli, const struct job_event *event)
{
    json_hold json_t *data = json_read(event->data, event->len, 0, NULL);
    if (cli->json) {
        json_hold json_t *line = json_pack("{s:I, s:s, s:O?}", "id", (json_int_t)event->number,
                                           "event", event->kind, "data", data);
        cli_print(line);
        fflush(stdout);
        return;
    }
    int64_t progress = json_int_or(data, "progress", 0);
    const char *stage = json_text_or(data, "stage", ""),
               *message = json_text_or(data, "message", "");
    const json_t *error = json_object_get(data, "error");
    if (!*message && error)
        message = json_text_or(error, "message", "");
    char bar[21];
    for (int i = 0; i < 20; i++)
        bar[i] = i < progress / 5 ? '#' : '.';
    bar[20] = '\0';
    printf("[%s] %3d %%  %-16s %s%s%s\n", bar, (int)progress, event->kind, stage,
           *message ? "  " : "", message);
    fflush(stdout);
}

static int jobs_follow(struct cli *cli, struct online *online, const char *id, bool quiet)
{
    struct error err = {0};
    struct watch *watch = NULL;
    int rc = watch_open(online->store, online_sub(online), id, 0, &watch, &err);
    if (rc != MR_OK)
        return cli_fail(cli, &err);
    for (;;) {
        struct job_event event = {0};
        rc = watch_next(watch, UINT64_MAX, &event, &err);
        if (rc != MR_OK)
            break;
        if (!quiet)
            jobs_print_event(cli, &event);
        bool last = event.is_last;
        job_event_done(&event);
        if (last)
            break;
    }
    watch_close(watch);
    if (rc == MR_E_LOST)
        return jobs_missing(cli, id);
    if (rc != MR_OK && rc != MR_E_STOPPING)
        return cli_fail(cli, &err);
    return CLI_DONE;
}

static int jobs_watch_online(struct online *online, void *arg)
{
    struct jobs_args *args = arg;
    int code = jobs_follow(args->cli, online, args->id, false);
    return code == CLI_DONE ? jobs_print(args->cli, online, args->id) : code;
}

static int jobs_status_online(struct online *online, void *arg)
{
    struct jobs_args *args = arg;
    return jobs_print(args->cli, online, args->id);
}

static int jobs_one_id(struct cli *cli, int argc, char **argv,
                       int (*fn)(struct online *online, void *arg))
{
    static const struct cli_option none[] = {{NULL, 0, NULL, NULL}};
    struct jobs_args args = {.cli = cli};
    if (cli_options(cli, argc, argv, none, 1, 1) < 0)
        return CLI_USAGE;
    args.id = argv[1];
    if (!id_is_valid(args.id))
        return cli_usage(cli, "\"%s\" is not a job's id", args.id);
    const struct config *config = cli_config(cli);
    return config ? online_run(config, fn, &args) : CLI_FAILED;
}

static int jobs_status(struct cli *cli, int argc, char **argv)
{
    return jobs_one_id(cli, argc, argv, jobs_status_online);
}

static int jobs_watch(struct cli *cli, int argc, char **argv)
{
    return jobs_one_id(cli, argc, argv, jobs_watch_online);
}

/* ---- cancel ---- */

static int jobs_cancel_online(struct online *online, void *arg)
{
    const struct jobs_args *args = arg;
    struct error err = {0};
    enum cancel_outcome outcome = CANCEL_NONE;
    if (job_cancel(online->store, args->id, NULL, 0, &outcome, &err) != MR_OK)
        return cli_fail(args->cli, &err);
    if (outcome == CANCEL_NONE)
        return jobs_missing(args->cli, args->id);
    if (outcome == CANCEL_ENDED) {
        error_set(&err, MR_E_SCHEMA, "job %s has already ended", args->id);
        return cli_fail(args->cli, &err);
    }
    const char *word = outcome == CANCEL_DONE ? "cancelled" : "cancelling";
    if (args->cli->json) {
        json_hold json_t *object = json_pack("{s:s, s:s}", "id", args->id, "status", word);
        cli_print(object);
    } else {
        printf("%s  %s\n", args->id, word);
    }
    return CLI_DONE;
}

static int jobs_cancel(struct cli *cli, int argc, char **argv)
{
    return jobs_one_id(cli, argc, argv, jobs_cancel_online);
}

/* ---- submit ---- */

static int jobs_send(struct online *online, void *arg)
{
    struct jobs_args *args = arg;
    const struct config *config = online->config;
    struct error err = {0};
    char fresh[33];
    hash_random_hex(fresh, 16);
    __attribute__((cleanup(enqueue_done))) struct enqueue job;
    enqueue_init(&job, args->pipeline);
    job.queue_max = (uint64_t)config->limits.queue_max;
    if (args->priority)
        job.prio = queue_class_find(args->priority);
    if (args->delay && unit_parse_duration(args->delay, &job.delay_ms, &err) != MR_OK)
        return cli_fail(args->cli, &err);
    struct job_submitted submitted = {0};
    int rc = revision_put(online->store, args->source->name, args->source->revision,
                          args->source->text, args->source->len, &err);
    if (rc == MR_OK)
        rc = enqueue_prepare(&job, config->id_namespace, args->fresh ? fresh : args->key,
                             args->input, &err);
    if (rc == MR_OK)
        rc = enqueue_send(online->store, &job, &submitted, &err);
    if (rc == MR_OK && submitted.outcome == JOB_CONFLICT)
        rc = error_set(&err, MR_E_ID_CONFLICT,
                       "the key was used before with another input, for job %s", job.id);
    if (rc == MR_OK && submitted.outcome == JOB_FULL)
        rc = error_set(&err, MR_E_RATE_LIMITED, "the queue is full: nothing was stored");
    if (rc != MR_OK)
        return cli_fail(args->cli, &err);
    const char *id = job.id;
    if (args->wait) {
        int code = jobs_follow(args->cli, online, id, !isatty(STDERR_FILENO) && !args->cli->json);
        return code == CLI_DONE ? jobs_print(args->cli, online, id) : code;
    }
    bool is_new = submitted.outcome == JOB_NEW || submitted.outcome == JOB_AGAIN;
    if (args->cli->json) {
        json_hold json_t *object =
            json_pack("{s:s, s:s, s:b}", "id", id, "status", submitted.status, "replayed", !is_new);
        cli_print(object);
    } else {
        puts(id); /* alone on stdout, for ID=$(millrace submit …) */
        fflush(stdout);
        fprintf(stderr, "%s%s\n", submitted.status, is_new ? "" : " (was there already)");
    }
    return CLI_DONE;
}

/* Reads pipeline and input and checks one against the other; prints what is wrong. */
static bool jobs_prepare(struct jobs_args *args, const struct config *config, const char *name,
                         const char *input)
{
    struct error err = {0};
    mem_auto char *path = cli_pipeline_path(config, name, &err);
    if (!path) {
        cli_fail(args->cli, &err);
        return false;
    }
    args->input = cli_input(input ? input : "{}", &err);
    if (!args->input) {
        cli_fail(args->cli, &err);
        return false;
    }
    struct report report;
    report_init(&report);
    static const struct pipeline_setup structure_only = {0};
    args->source = pipeline_read(path, &report);
    args->pipeline = args->source ? pipeline_build(args->source, &structure_only, &report) : NULL;
    bool good = args->pipeline && pipeline_check_input(args->pipeline, args->input, &report);
    for (size_t i = 0; !good && i < report.count; i++)
        if (report.items[i].code != MR_OK)
            cli_fail(args->cli, &report.items[i]);
    report_done(&report);
    return good;
}

static int jobs_submit(struct cli *cli, int argc, char **argv)
{
    struct jobs_args args = {.cli = cli};
    const char *input = NULL;
    const struct cli_option options[] = {{"input", 'i', &input, NULL},
                                         {"key", 'k', &args.key, NULL},
                                         {"priority", 'p', &args.priority, NULL},
                                         {"delay", 0, &args.delay, NULL},
                                         {"fresh", 0, NULL, &args.fresh},
                                         {"wait", 'w', NULL, &args.wait},
                                         {NULL, 0, NULL, NULL}};
    if (cli_options(cli, argc, argv, options, 1, 1) < 0 || !cli_key(cli, args.key))
        return CLI_USAGE;
    if (args.priority) {
        enum queue_class class = queue_class_find(args.priority);
        if (class < QUEUE_HIGH || class > QUEUE_LOW)
            return cli_usage(cli, "--priority takes high, normal or low, not \"%s\"",
                             args.priority);
    }
    const struct config *config = cli_config(cli);
    if (!config)
        return CLI_FAILED;
    int code = CLI_FAILED;
    if (jobs_prepare(&args, config, argv[1], input))
        code = online_run(config, jobs_send, &args);
    json_decref(args.input);
    pipeline_unref(args.pipeline);
    pipeline_source_free(args.source);
    return code;
}

const struct cli_verb cli_submit = {
    .name = "submit",
    .usage = "PIPELINE [-i INPUT] [--key KEY] [--priority P] [--delay D] [--fresh] [--wait]",
    .summary = "Submits a job through Redis and prints its id.",
    .help = "  -i, --input INPUT   the job's input: JSON, @FILE, or - for stdin; default {}\n"
            "  -k, --key KEY       as the header Idempotency-Key: the same key is the same job\n"
            "  -p, --priority P    high, normal or low\n"
            "      --delay D       run it after a while: \"10s\", \"2h\"\n"
            "      --fresh         a new run, although the same input ran before\n"
            "  -w, --wait          follow it to its end and print it\n",
    .run = jobs_submit,
};
const struct cli_verb cli_status = {
    .name = "status",
    .usage = "ID",
    .summary = "Prints a job: its stages, result or error.",
    .help = "Exits 1 when the job is failed or cancelled, or is not there.\n",
    .run = jobs_status,
};
const struct cli_verb cli_watch = {
    .name = "watch",
    .usage = "ID",
    .summary = "Follows a job's events to its end, then prints it.",
    .help = "With --json an object a line for each event.\n",
    .run = jobs_watch,
};
const struct cli_verb cli_cancel = {
    .name = "cancel",
    .usage = "ID",
    .summary = "Cancels a job.",
    .help = "A job that does not run is cancelled at once; a running one ends as cancelled soon.\n"
            "Exits 1 when it has already ended, or is not there.\n",
    .run = jobs_cancel,
};
