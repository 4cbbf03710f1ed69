/* `millrace id`: the UUIDv5 that a submission, or a declared name, will get. */
#include "app/cli.h"

#include "base/id.h"
#include <stdio.h>
#include <string.h>

static int print_id(struct cli *cli, const char *id)
{
    if (!cli->json) {
        printf("%s\n", id);
        return CLI_DONE;
    }
    json_t *all = json_pack("{s:s}", "id", id);
    cli_print(all);
    json_decref(all);
    return CLI_DONE;
}

/* The name of the pipeline: what a file is called without .json. */
static char *pipeline_name(const char *given)
{
    const char *slash = strrchr(given, '/');
    const char *base = slash != NULL ? slash + 1 : given;
    size_t len = strlen(base);
    return len > 5 && strcmp(base + len - 5, ".json") == 0 ? mem_ndup(base, len - 5)
                                                           : mem_dup(base);
}

static int run(struct cli *cli, int argc, char **argv)
{
    const char *input = NULL, *key = NULL, *name = NULL;
    const struct cli_option options[] = {
        {"input", 'i', &input, NULL}, {"key", 'k', &key, NULL}, {"name", 'n', &name, NULL}, {0}};
    int count = cli_options(cli, argc, argv, options, 0, 1);
    if (count < 0 || !cli_key(cli, key))
        return CLI_USAGE;
    char id[ID_BYTES];
    if (name != NULL) {
        if (count > 0 || key != NULL || input != NULL)
            return cli_usage(cli, "--name stands alone");
        id_of_name(ID_NAMESPACE_DNS, name, id);
        return print_id(cli, id);
    }
    if (count == 0)
        return cli_usage(cli, "an argument is missing");
    if (input == NULL && key == NULL)
        return cli_usage(cli, "an id is made from an input (-i) or a key (--key)");
    const struct config *config = cli_config(cli);
    if (config == NULL)
        return CLI_FAILED;
    struct error err = {0};
    mem_auto char *pipeline = pipeline_name(argv[1]);
    if (!pipeline_name_is_valid(pipeline))
        return cli_usage(cli, "\"%s\" is not the name of a pipeline", argv[1]);
    json_hold json_t *value = input != NULL ? cli_input(input, &err) : NULL;
    if (input != NULL && value == NULL)
        return cli_fail(cli, &err);
    if (id_of_job(config->id_namespace, pipeline, key, value, id, &err) != MR_OK)
        return cli_fail(cli, &err);
    return print_id(cli, id);
}

const struct cli_verb cli_id = {
    .name = "id",
    .usage = "PIPELINE {-i INPUT | --key KEY} | --name NAME",
    .summary = "Prints the id that a submission will get.",
    .help = "  -i, --input INPUT   JSON, @FILE or - for stdin\n"
            "  -k, --key KEY       the Idempotency-Key of the submission, instead of its input\n"
            "  -n, --name NAME     the id of a declared name (a target's `id`): UUIDv5 in\n"
            "                      NAMESPACE_DNS, as Python's uuid.uuid5(NAMESPACE_DNS, NAME)\n",
    .run = run,
};
