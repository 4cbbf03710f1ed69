/* `millrace`, the program for people: a table of verbs, and what all of them share.
 *
 * Options of all verbs (-c FILE, --json, --help) may stand before or after the verb; they are taken
 * out before the verb sees its arguments. Exit codes: 0 done, 1 failed, 2 usage. Results go to
 * stdout, everything else to stderr. A new verb is a struct cli_verb in a file of its own and one
 * line in cli.c. */
#pragma once

#include "app/config.h"

enum { CLI_DONE, CLI_FAILED, CLI_USAGE };

struct cli;
struct cli_verb {
    const char *name;
    const char *usage;   /* "PIPELINE [-i INPUT]" */
    const char *summary; /* one line of `millrace --help` */
    const char *help;    /* the rest of `millrace VERB --help`, lines ended */
    /* argv[0] is the verb. Returns an exit code. */
    int (*run)(struct cli *cli, int argc, char **argv);
};

struct cli {
    const struct cli_verb *verb;
    const char *file; /* of -c; NULL: searched */
    bool json;
    struct config *config; /* once loaded */
};

/* Loads the configuration (once). Errors are printed, and warnings unless --json; NULL: exit
 * CLI_FAILED. */
const struct config *cli_config(struct cli *cli);

/* An option of a verb: with a value (`value`) or without (`set`). The last row is empty. */
struct cli_option {
    const char *name; /* "input": --input VALUE, --input=VALUE */
    char letter;      /* 'i': -i VALUE, -iVALUE; 0: none */
    const char **value;
    bool *set;
};
/* Takes the options out of argv; the rest, `argv[1…]`, are the positional arguments, whose number
 * it returns: from `least` to `most`, else -1 after a usage message. `--` ends the options. */
int cli_options(struct cli *cli, int argc, char **argv, const struct cli_option *options, int least,
                int most);
/* Prints what is wrong with the usage, and returns CLI_USAGE. */
int cli_usage(struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints an error: with --json as an object on stdout, else message, place and hint on stderr.
 * Returns CLI_FAILED. */
int cli_fail(struct cli *cli, const struct error *err);
/* Prints JSON text or a value, and a line end, on stdout. */
void cli_print(const json_t *value);

/* The text of an `-i`: JSON, @FILE, or - for stdin. New reference; NULL with the reason. */
json_t *cli_input(const char *given, struct error *err);
/* Whether a `--key` may be an Idempotency-Key: 1 to 255 printable characters of ASCII, as over
 * HTTP; NULL is good too. False after a usage message. */
bool cli_key(struct cli *cli, const char *key);
/* A pipeline that is named by file (it has a slash or ends in .json) or by name: its path,
 * malloc'ed; NULL with the reason in `err`. Without a configured folder that has it, its hint lists
 * the names. */
char *cli_pipeline_path(const struct config *config, const char *name, struct error *err);

/* Runs the program. */
int cli_main(int argc, char **argv);

extern const struct cli_verb cli_check, cli_run, cli_plugins, cli_id;
extern const struct cli_verb cli_submit, cli_status, cli_watch, cli_cancel;
extern const struct cli_verb cli_fsck, cli_why;
extern const struct cli_verb cli_retry, cli_dead, cli_queues, cli_pause, cli_resume;
