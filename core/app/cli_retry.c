/* `millrace retry`: runs a failed or cancelled job again, from where it failed or from a stage. */
#include "app/cli.h"

#include "app/online.h"
#include "app/rerun.h"
#include "base/hash.h"
#include <stdio.h>

struct retry_args {
    struct cli *cli;
    const char *id, *from;
};

static int retry_online(struct online *online, void *arg)
{
    const struct retry_args *args = arg;
    struct error err = {0}, reason = {0};
    struct job_view *view = NULL;
    char req[33];
    hash_random_hex(req, 16);
    if (job_read(online->store, args->id, 0, &view, &err) != MR_OK)
        return cli_fail(args->cli, &err);
    if (!view) {
        error_set(&err, MR_E_SCHEMA, "there is no job %s", args->id);
        error_hint(&err, "its retention may be over");
        return cli_fail(args->cli, &err);
    }
    /* The graph comes from Redis: the folders here may be of another day. */
    const struct rerun rerun = {.view = view, .from = args->from, .req = req};
    enum rerun_outcome outcome = RERUN_NONE;
    int rc = rerun_send(online->store, &rerun, &outcome, &reason, &err);
    job_view_free(view);
    if (rc != MR_OK)
        return cli_fail(args->cli, &err);
    if (outcome != RERUN_OK) {
        error_where(&reason, "%s", args->id);
        return cli_fail(args->cli, &reason);
    }
    if (args->cli->json) {
        json_hold json_t *object = json_pack("{s:s, s:s}", "id", args->id, "status", "queued");
        cli_print(object);
    } else {
        printf("%s  queued\n", args->id);
    }
    return CLI_DONE;
}

static int retry_run(struct cli *cli, int argc, char **argv)
{
    struct retry_args args = {.cli = cli};
    const struct cli_option options[] = {{"from", 'f', &args.from, NULL}, {NULL, 0, NULL, NULL}};
    if (cli_options(cli, argc, argv, options, 1, 1) < 0)
        return CLI_USAGE;
    args.id = argv[1];
    if (!id_is_valid(args.id))
        return cli_usage(cli, "\"%s\" is not a job's id", args.id);
    const struct config *config = cli_config(cli);
    return config ? online_run(config, retry_online, &args) : CLI_FAILED;
}

const struct cli_verb cli_retry = {
    .name = "retry",
    .usage = "ID [--from STAGE]",
    .summary = "Runs a failed or cancelled job again.",
    .help = "It goes on where it failed: outputs of finished stages are kept and not computed\n"
            "again. Attempts begin anew.\n\n"
            "  -f, --from STAGE    this stage and every stage after it run again too\n"
            "\nExits 1 when the job has not ended, has completed, or is not there.\n",
    .run = retry_run,
};
