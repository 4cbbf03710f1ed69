/* `millrace why`: where a job stands, for what reason, until when. */
#include "app/cli.h"

#include "app/online.h"
#include "state/why.h"
#include <stdio.h>
#include <string.h>

struct why_args {
    struct cli *cli;
    const char *id;
};

static void print_about(const json_t *about, int indent);

static void print_value(const char *name, const json_t *value, int indent)
{
    if (json_is_null(value) || (json_is_array(value) && json_array_size(value) == 0))
        return;
    if (strcmp(name, "children") == 0) {
        size_t i;
        const json_t *child;
        json_array_foreach (value, i, child) {
            printf("%*scalled %s: ", indent, "", json_text_or(child, "id", ""));
            print_about(child, indent);
        }
        return;
    }
    printf("%*s%-14s ", indent, "", name);
    if (json_is_string(value)) {
        printf("%s\n", json_string_value(value));
    } else {
        fflush(stdout);
        cli_print(value);
    }
}

static void print_detail(const json_t *about, int indent)
{
    const char *name;
    json_t *value;
    const char *until = json_text_or(about, "until", NULL);
    if (until)
        printf("%*s%-14s %s\n", indent, "", "until", until);
    json_object_foreach (json_object_get(about, "detail"), name, value)
        print_value(name, value, indent);
}

/* The sentence, the details, then each lane. */
static void print_about(const json_t *about, int indent)
{
    printf("%s (%s)\n", json_text_or(about, "sentence", ""), json_text_or(about, "reason", ""));
    print_detail(about, indent + 2);
    size_t i;
    const json_t *lane;
    json_array_foreach (json_object_get(about, "lanes"), i, lane) {
        size_t s;
        const json_t *stage;
        if (json_is_null(json_object_get(lane, "lane")))
            printf("%*snot yet in a lane,", indent + 2, "");
        else
            printf("%*slane %d,", indent + 2, "", (int)json_int_or(lane, "lane", 0));
        json_array_foreach (json_object_get(lane, "stages"), s, stage)
            printf(" %s", json_string_value(stage));
        printf(": %s (%s)\n", json_text_or(lane, "sentence", ""), json_text_or(lane, "reason", ""));
        print_detail(lane, indent + 4);
    }
}

static int why_online(struct online *online, void *arg)
{
    struct why_args *args = arg;
    struct error err = {0};
    struct why_answer answer = {0};
    if (why_job(online->store, args->id, &answer, &err) != MR_OK)
        return cli_fail(args->cli, &err);
    if (args->cli->json) {
        cli_print(answer.object);
    } else {
        printf("%s: ", args->id);
        print_about(answer.object, 0);
        if (answer.reason == WHY_not_found)
            printf("  `millrace id PIPELINE -i INPUT` prints the id that a submission gets\n");
    }
    int code = answer.reason == WHY_not_found ? CLI_FAILED : CLI_DONE;
    why_done(&answer);
    return code;
}

static int run(struct cli *cli, int argc, char **argv)
{
    static const struct cli_option none[] = {{NULL, 0, NULL, NULL}};
    struct why_args args = {.cli = cli};
    if (cli_options(cli, argc, argv, none, 1, 1) < 0)
        return CLI_USAGE;
    args.id = argv[1];
    const struct config *config = cli_config(cli);
    return config ? online_run(config, why_online, &args) : CLI_FAILED;
}

const struct cli_verb cli_why = {
    .name = "why",
    .usage = "ID",
    .summary = "Says why a job stands where it stands, and until when.",
    .help = "Reads only. Exits 1 when there is no such job.\n",
    .run = run,
};
