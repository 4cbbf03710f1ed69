/* `millrace run`: one job here and now, without Redis or a web server.
 *
 * The pipeline and those that it calls are read and built in this process; run/local.h runs the job
 * on a loop. Progress goes to stderr, the result to stdout. */
#include "app/check.h"
#include "app/cli.h"
#include "app/cli_crash.h"
#include "app/cli_progress.h"

#include "base/clock.h"
#include "run/local.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct running {
    struct cli *cli;
    const struct config *config;
    struct loop loop;
    struct runner runner;
    struct plugin_registry *plugins;
    struct pipeline **pipelines; /* built so far */
    size_t pipeline_count;
    char *dir; /* of the file that was given: called pipelines are looked for there first */
    struct pipeline *pipeline;
    json_t *input;
    struct progress *progress;
    struct scope scope; /* ended by SIGINT */
    uv_signal_t interrupt;
    int rc;
};

/* The file of a pipeline that is called by name, malloc'ed; NULL when there is none. */
static char *find_file(const struct running *running, const char *name)
{
    if (!pipeline_name_is_valid(name))
        return NULL;
    char *path = mem_format("%s/%s.json", running->dir, name);
    if (access(path, F_OK) == 0)
        return path;
    free(path);
    return config_pipeline_file(running->config, name);
}

static bool has_pipeline(void *arg, const char *name)
{
    mem_auto char *path = find_file(arg, name);
    return path != NULL;
}

static bool has_endpoint(void *arg, const char *name)
{
    const struct running *running = arg;
    return config_endpoint(running->config, name) != NULL;
}

static const struct endpoint *find_endpoint(void *arg, const char *name)
{
    const struct running *running = arg;
    const struct config_endpoint *found = config_endpoint(running->config, name);
    return found != NULL ? &found->endpoint : NULL;
}

/* Reads and builds; kept until the end. NULL when something was reported. */
static struct pipeline *load(struct running *running, const char *path, struct report *report)
{
    const struct pipeline_setup setup = {.plugins = running->plugins,
                                         .has_endpoint = has_endpoint,
                                         .endpoints = running->config->endpoint_names,
                                         .has_pipeline = has_pipeline,
                                         .arg = running};
    struct pipeline_source *source = pipeline_read(path, report);
    if (source == NULL)
        return NULL;
    struct pipeline *pipeline = pipeline_build(source, &setup, report);
    pipeline_source_free(source);
    if (pipeline == NULL)
        return NULL;
    running->pipelines =
        mem_resize(running->pipelines, running->pipeline_count + 1, sizeof(struct pipeline *));
    running->pipelines[running->pipeline_count++] = pipeline;
    return pipeline;
}

static struct pipeline *find_pipeline(void *arg, const char *name, struct error *err)
{
    struct running *running = arg;
    for (size_t i = 0; i < running->pipeline_count; i++)
        if (strcmp(running->pipelines[i]->name, name) == 0)
            return running->pipelines[i];
    mem_auto char *path = find_file(running, name);
    if (path == NULL) {
        error_set(err, MR_E_PLUGIN, "there is no pipeline \"%s\"", name);
        return NULL;
    }
    struct report report;
    report_init(&report);
    struct pipeline *pipeline = load(running, path, &report);
    if (pipeline == NULL) {
        check_print(&report, true);
        error_set(err, MR_E_PLUGIN, "pipeline \"%s\" has errors", name);
    }
    report_done(&report);
    return pipeline;
}

static void print_event(const char *job, const char *kind, const char *stage, const char *data)
{
    char at[25];
    clock_format(clock_wall_ms(), at);
    json_t *all = json_pack("{s:s, s:s, s:s}", "event", kind, "job", job, "at", at);
    if (stage != NULL)
        json_object_set_new(all, "stage", json_string(stage));
    json_t *value = data != NULL ? json_read(data, strlen(data), 0, NULL) : NULL;
    if (value != NULL)
        json_object_set_new(all, "data", value);
    cli_print(all);
    fflush(stdout);
    json_decref(all);
}

static void on_event(void *arg, const char *job, const char *kind, const char *stage,
                     const char *data)
{
    struct running *running = arg;
    if (running->cli->json)
        print_event(job, kind, stage, data);
    else
        progress_event(running->progress, job, kind, stage, data);
}

static void print_result(struct running *running, const char *text, size_t len)
{
    if (running->cli->json)
        fputs("{\"result\":", stdout);
    fwrite(text, 1, len, stdout);
    fputs(running->cli->json ? "}\n" : "\n", stdout);
}

/* On a fiber. */
static void job_main(void *arg)
{
    struct running *running = arg;
    const struct local_setup setup = {.runner = &running->runner,
                                      .find_pipeline = find_pipeline,
                                      .arg = running,
                                      .on_event = on_event};
    struct error err = {0};
    char *text = NULL;
    size_t len = 0;
    struct scope *before = scope_enter(&running->scope);
    int rc = local_run(&setup, running->pipeline, running->input, &text, &len, &err);
    scope_enter(before);
    runner_settle(&running->runner);
    if (running->progress != NULL) {
        progress_free(running->progress);
        running->progress = NULL;
    }
    if (rc == MR_OK)
        print_result(running, text, len);
    else
        cli_fail(running->cli, &err);
    running->rc = rc == MR_OK ? CLI_DONE : CLI_FAILED;
    free(text);
    uv_close((uv_handle_t *)&running->interrupt, NULL);
}

static void on_interrupt(uv_signal_t *signal, int number)
{
    struct running *running = signal->data;
    (void)number;
    scope_cancel(&running->scope, MR_E_CANCELLED);
}

static int run_job(struct running *running)
{
    struct error err = {0};
    struct http *http = NULL;
    const struct http_config http_config = {.allow = running->config->limits.address_allow};
    if (loop_init(&running->loop, &err) != MR_OK)
        return cli_fail(running->cli, &err);
    if (http_open(&running->loop, &http_config, &http, &err) != MR_OK) {
        loop_done(&running->loop);
        return cli_fail(running->cli, &err);
    }
    cli_crash_start(&running->loop);
    expr_set_trampoline(fiber_on_loop);
    runner_init(&running->runner, &running->loop, http);
    running->runner.find_endpoint = find_endpoint;
    running->runner.arg = running;
    scope_init(&running->scope, NULL);
    uv_signal_init(&running->loop.uv, &running->interrupt);
    running->interrupt.data = running;
    uv_signal_start_oneshot(&running->interrupt, on_interrupt, SIGINT);
    if (!running->cli->json)
        running->progress = progress_new(&running->loop, stderr, isatty(STDERR_FILENO) == 1);
    running->rc = CLI_FAILED;
    if (loop_spawn(&running->loop, NULL, job_main, running) == MR_OK)
        loop_run_fibers(&running->loop);
    runner_done(&running->runner);
    http_close(http);
    scope_done(&running->scope);
    loop_done(&running->loop);
    return running->rc;
}

/* Reads pipeline and input; prints what is wrong with them. */
static bool prepare(struct running *running, const char *name, const char *input)
{
    struct error err = {0};
    struct report report;
    mem_auto char *path = cli_pipeline_path(running->config, name, &err);
    if (path == NULL) {
        cli_fail(running->cli, &err);
        return false;
    }
    const char *slash = strrchr(path, '/');
    running->dir = slash != NULL ? mem_ndup(path, (size_t)(slash - path)) : mem_dup(".");
    running->input = input != NULL ? cli_input(input, &err) : json_object();
    if (running->input == NULL) {
        cli_fail(running->cli, &err);
        return false;
    }
    report_init(&report);
    running->pipeline = load(running, path, &report);
    bool fine = running->pipeline != NULL;
    if (fine)
        fine = pipeline_check_input(running->pipeline, running->input, &report);
    check_print(&report, running->cli->json);
    report_done(&report);
    return fine;
}

static int run(struct cli *cli, int argc, char **argv)
{
    const char *input = NULL;
    const struct cli_option options[] = {{"input", 'i', &input, NULL}, {0}};
    if (cli_options(cli, argc, argv, options, 1, 1) < 0)
        return CLI_USAGE;
    struct running running = {.cli = cli, .config = cli_config(cli)};
    if (running.config == NULL)
        return CLI_FAILED;
    log_open(NULL, running.config->log_format, LOG_WARN, "run", NULL);
    running.plugins = plugin_registry_new(running.config->plugins);
    int rc = CLI_FAILED;
    if (prepare(&running, argv[1], input))
        rc = run_job(&running);
    for (size_t i = 0; i < running.pipeline_count; i++)
        pipeline_unref(running.pipelines[i]);
    free(running.pipelines);
    json_decref(running.input);
    free(running.dir);
    plugin_registry_free(running.plugins);
    fiber_trim();
    return rc;
}

const struct cli_verb cli_run = {
    .name = "run",
    .usage = "PIPELINE [-i INPUT]",
    .summary = "Runs one job here and now; the result on stdout.",
    .help = "PIPELINE is the name of a pipeline or a file. No Redis and no web server are needed;\n"
            "called and dispatched pipelines run in this process as well.\n"
            "  -i, --input INPUT   JSON, @FILE or - for stdin; default {}\n"
            "With --json each event is a line of JSON, and the last line holds the result.\n",
    .run = run,
};
