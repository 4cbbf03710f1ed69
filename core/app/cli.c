/* See cli.h. */
#include "app/cli.h"
#include "app/stdio.h"
#include "base/limits.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct cli_verb *const verbs[] = {
    &cli_check, &cli_run,    &cli_plugins, &cli_submit, &cli_status,
    &cli_watch, &cli_cancel, &cli_retry,   &cli_dead,   &cli_queues,
    &cli_pause, &cli_resume, &cli_why,     &cli_fsck,   &cli_id,
};
enum { VERB_COUNT = sizeof(verbs) / sizeof(verbs[0]) };

#define INPUT_BYTES (16u << 20)

static void print_help(FILE *out)
{
    fprintf(out,
            "millrace %s: jobs through pipelines of plugins\n\nUsage: millrace VERB [options]\n\n",
            MR_VERSION);
    for (size_t i = 0; i < VERB_COUNT; i++) {
        mem_auto char *left = mem_format("%s %s", verbs[i]->name, verbs[i]->usage);
        if (strlen(left) > 30)
            fprintf(out, "  %s\n  %-30s %s\n", left, "", verbs[i]->summary);
        else
            fprintf(out, "  %-30s %s\n", left, verbs[i]->summary);
    }
    fputs("\nOptions of every verb:\n"
          "  -c FILE    the configuration; else $MILLRACE_CONFIG, ./millrace.json,\n"
          "             /etc/millrace/millrace.json\n"
          "  --json     output for programs\n"
          "  --help     about the verb\n"
          "\nExit status: 0 done, 1 failed, 2 usage.\n",
          out);
}

static void print_verb_help(const struct cli_verb *verb)
{
    printf("Usage: millrace %s %s\n\n%s\n", verb->name, verb->usage, verb->summary);
    if (verb->help != NULL && verb->help[0] != '\0')
        printf("\n%s", verb->help);
    printf("\nOptions of every verb: -c FILE, --json, --help\n");
}

int cli_usage(struct cli *cli, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("millrace: ", stderr);
    vfprintf(stderr, format, args);
    va_end(args);
    if (cli->verb != NULL)
        fprintf(stderr, "\nUsage: millrace %s %s\nRun \"millrace %s --help\" for more.\n",
                cli->verb->name, cli->verb->usage, cli->verb->name);
    else
        fputs("\nRun \"millrace --help\" for the verbs.\n", stderr);
    return CLI_USAGE;
}

int cli_fail(struct cli *cli, const struct error *err)
{
    if (cli->json) {
        json_t *all = json_pack("{s:{s:s, s:s, s:s, s:s}}", "error", "code", error_name(err->code),
                                "message", err->message, "where", err->where, "hint", err->hint);
        cli_print(all);
        json_decref(all);
        return CLI_FAILED;
    }
    fprintf(stderr, "millrace: %s%s%s\n", err->where, err->where[0] != '\0' ? ": " : "",
            err->message);
    if (err->hint[0] != '\0')
        fprintf(stderr, "    hint: %s\n", err->hint);
    return CLI_FAILED;
}

void cli_print(const json_t *value)
{
    size_t len = 0;
    mem_auto char *text = json_print(value, SIZE_MAX, &len, NULL);
    if (text != NULL) {
        fwrite(text, 1, len, stdout);
        fputc('\n', stdout);
    }
}

const struct config *cli_config(struct cli *cli)
{
    if (cli->config != NULL)
        return cli->config;
    struct report report;
    report_init(&report);
    mem_auto char *file = config_find(cli->file);
    cli->config = config_load(file, &report);
    for (size_t i = 0; i < report.count; i++) {
        const struct error *item = &report.items[i];
        bool warning = item->code == MR_OK;
        if (warning && cli->json)
            continue;
        fprintf(stderr, "%s%s%s%s\n", item->where, item->where[0] != '\0' ? ": " : "",
                warning ? "warning: " : "", item->message);
        if (item->hint[0] != '\0')
            fprintf(stderr, "    hint: %s\n", item->hint);
    }
    report_done(&report);
    return cli->config;
}

/* Options of a verb */

static const struct cli_option *find_long(const struct cli_option *options, const char *arg,
                                          const char **ret_value)
{
    const char *equals = strchr(arg, '=');
    size_t len = equals != NULL ? (size_t)(equals - arg) : strlen(arg);
    for (; options->name != NULL; options++) {
        if (strlen(options->name) != len || strncmp(options->name, arg, len) != 0)
            continue;
        *ret_value = equals != NULL ? equals + 1 : NULL;
        return options;
    }
    return NULL;
}

static const struct cli_option *find_short(const struct cli_option *options, const char *arg,
                                           const char **ret_value)
{
    for (; options->name != NULL; options++) {
        if (options->letter == '\0' || options->letter != arg[0])
            continue;
        *ret_value = arg[1] != '\0' ? arg + 1 : NULL;
        return options;
    }
    return NULL;
}

static int unknown_option(struct cli *cli, const struct cli_option *options, const char *arg)
{
    const char *words[32] = {"json", "help", "config"};
    size_t count = 3;
    for (const struct cli_option *option = options; option->name != NULL && count < 31; option++)
        words[count++] = option->name;
    const char *near = strncmp(arg, "--", 2) == 0 ? error_nearest(arg + 2, words) : NULL;
    cli_usage(cli, "option \"%s\" is not known%s%s%s", arg,
              near != NULL ? ", did you mean \"--" : "", near != NULL ? near : "",
              near != NULL ? "\"?" : "");
    return -1;
}

int cli_options(struct cli *cli, int argc, char **argv, const struct cli_option *options, int least,
                int most)
{
    int count = 0;
    bool ended = false;
    for (int i = 1; i < argc; i++) {
        char *arg = argv[i];
        if (ended || arg[0] != '-' || arg[1] == '\0') {
            argv[++count] = arg;
            continue;
        }
        if (strcmp(arg, "--") == 0) {
            ended = true;
            continue;
        }
        const char *value = NULL;
        const struct cli_option *option = strncmp(arg, "--", 2) == 0
                                              ? find_long(options, arg + 2, &value)
                                              : find_short(options, arg + 1, &value);
        if (option == NULL)
            return unknown_option(cli, options, arg);
        if (option->set != NULL) {
            if (value != NULL) {
                cli_usage(cli, "option \"--%s\" takes no value", option->name);
                return -1;
            }
            *option->set = true;
            continue;
        }
        if (value == NULL && i + 1 < argc)
            value = argv[++i];
        if (value == NULL) {
            cli_usage(cli, "option \"--%s\" wants a value", option->name);
            return -1;
        }
        *option->value = value;
    }
    if (count >= least && count <= most)
        return count;
    if (count < least)
        cli_usage(cli, "an argument is missing");
    else
        cli_usage(cli, "\"%s\" is one argument too many", argv[most + 1]);
    return -1;
}

/* What several verbs take */

json_t *cli_input(const char *given, struct error *err)
{
    FILE *file = NULL;
    if (strcmp(given, "-") == 0)
        file = stdin;
    else if (given[0] == '@' && (file = fopen(given + 1, "re")) == NULL) {
        error_set(err, MR_E_SCHEMA, "%s cannot be opened: %s", given + 1, strerror(errno));
        return NULL;
    }
    if (file == NULL) {
        json_t *value = json_read(given, strlen(given), 0, err);
        if (value == NULL)
            error_where(err, "input");
        return value;
    }
    struct buf buf;
    char block[8192];
    buf_init(&buf, INPUT_BYTES);
    size_t got;
    while ((got = fread(block, 1, sizeof(block), file)) > 0 && buf_add(&buf, block, got))
        ;
    json_t *value = NULL;
    if (ferror(file))
        error_set(err, MR_E_SCHEMA, "cannot be read: %s", strerror(errno));
    else if (buf.failed)
        error_set(err, MR_E_SCHEMA, "has more than %u bytes", INPUT_BYTES);
    else
        value = json_read(buf_text(&buf), buf.len, 0, err);
    if (value == NULL)
        error_where(err, "%s", file == stdin ? "stdin" : given + 1);
    if (file != stdin)
        fclose(file);
    buf_done(&buf);
    return value;
}

bool cli_key(struct cli *cli, const char *key)
{
    size_t len = key != NULL ? strlen(key) : 1;
    bool good = len >= 1 && len <= LIMIT_IDEMPOTENCY_KEY;
    for (const char *at = key; good && at != NULL && *at != '\0'; at++)
        good = *at >= 0x20 && *at <= 0x7e;
    if (!good)
        cli_usage(cli, "--key takes 1 to %u printable characters of ASCII", LIMIT_IDEMPOTENCY_KEY);
    return good;
}

static void hint_pipelines(const struct config *config, const char *name, struct error *err)
{
    char **names = config_pipeline_names(config);
    const char *near = error_nearest(name, (const char *const *)names);
    if (near != NULL) {
        error_hint(err, "did you mean \"%s\"?", near);
    } else {
        struct buf buf;
        buf_init(&buf, 180);
        for (size_t i = 0; names[i] != NULL; i++)
            if (!buf_format(&buf, "%s%s", i > 0 ? ", " : "", names[i]))
                break;
        if (buf.len > 0)
            error_hint(err, "there are: %s", buf_text(&buf));
        else
            error_hint(err, "there is no pipeline in %s", config->pipelines[0]);
        buf_done(&buf);
    }
    for (size_t i = 0; names[i] != NULL; i++)
        free(names[i]);
    free(names);
}

char *cli_pipeline_path(const struct config *config, const char *name, struct error *err)
{
    size_t len = strlen(name);
    if (strchr(name, '/') != NULL || (len > 5 && strcmp(name + len - 5, ".json") == 0)) {
        if (access(name, F_OK) == 0)
            return mem_dup(name);
        error_set(err, MR_E_SCHEMA, "%s: %s", name, strerror(errno));
        return NULL;
    }
    char *path = config_pipeline_file(config, name);
    if (path == NULL) {
        error_set(err, MR_E_SCHEMA, "there is no pipeline \"%s\"", name);
        hint_pipelines(config, name, err);
    }
    return path;
}

/* The program */

static const struct cli_verb *find_verb(const char *name)
{
    for (size_t i = 0; name != NULL && i < VERB_COUNT; i++)
        if (strcmp(verbs[i]->name, name) == 0)
            return verbs[i];
    return NULL;
}

static int unknown_verb(struct cli *cli, const char *name)
{
    const char *names[VERB_COUNT + 1] = {0};
    for (size_t i = 0; i < VERB_COUNT; i++)
        names[i] = verbs[i]->name;
    const char *near = error_nearest(name, names);
    if (near != NULL)
        return cli_usage(cli, "there is no verb \"%s\", did you mean \"%s\"?", name, near);
    return cli_usage(cli, "there is no verb \"%s\"", name);
}

/* Takes the options of every verb out of argv. Returns the new argc, or -1. */
static int take_common(struct cli *cli, int argc, char **argv, bool *ret_help)
{
    int kept = 1;
    bool ended = false;
    for (int i = 1; i < argc; i++) {
        char *arg = argv[i];
        if (ended || arg[0] != '-') {
            argv[kept++] = arg;
        } else if (strcmp(arg, "--") == 0) {
            ended = true;
            argv[kept++] = arg;
        } else if (strcmp(arg, "--json") == 0) {
            cli->json = true;
        } else if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            *ret_help = true;
        } else if (strncmp(arg, "--config=", 9) == 0) {
            cli->file = arg + 9;
        } else if (strcmp(arg, "-c") == 0 || strcmp(arg, "--config") == 0) {
            if (i + 1 >= argc) {
                cli_usage(cli, "-c wants a file");
                return -1;
            }
            cli->file = argv[++i];
        } else if (strncmp(arg, "-c", 2) == 0) {
            cli->file = arg + 2;
        } else {
            argv[kept++] = arg;
        }
    }
    argv[kept] = NULL;
    return kept;
}

static int dispatch(int argc, char **argv)
{
    struct cli cli = {0};
    bool help = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--version") == 0) {
            printf("millrace %s\n", MR_VERSION);
            return CLI_DONE;
        }
        if (argv[i][0] != '-')
            break;
    }
    argc = take_common(&cli, argc, argv, &help);
    if (argc < 0)
        return CLI_USAGE;
    if (argc < 2 && help) {
        print_help(stdout);
        return CLI_DONE;
    }
    if (argc < 2) {
        print_help(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "help") == 0 && argc < 3) {
        print_help(stdout);
        return CLI_DONE;
    }
    if (strcmp(argv[1], "help") == 0) {
        help = true;
        argv++;
    }
    cli.verb = find_verb(argv[1]);
    if (cli.verb == NULL)
        return unknown_verb(&cli, argv[1]);
    if (help) {
        print_verb_help(cli.verb);
        return CLI_DONE;
    }
    int rc = cli.verb->run(&cli, argc - 1, argv + 1);
    config_free(cli.config);
    return rc;
}

int cli_main(int argc, char **argv)
{
    int rc = dispatch(argc, argv);
    return stdio_flush() || rc != CLI_DONE ? rc : CLI_FAILED;
}
