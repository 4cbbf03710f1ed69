/* `millrace dead list`, `retry` and `discard`: failed jobs, by what they failed of, through Redis
 * directly. */
#include "app/cli.h"

#include "app/online.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/utf8.h"
#include "state/dead.h"
#include <stdio.h>
#include <string.h>

#define DEAD_IDS_MAX 1000
#define DEAD_LIMIT   100u /* entries of a list unless --limit says otherwise */

struct dead_args {
    struct cli *cli;
    struct dead_filter filter;
    enum dead_action action;
    const char *word; /* list, retry, discard */
    bool all, dry_run;
    bool pages; /* --limit or --after was given */
    uint32_t limit;
    const char *after;
    char **ids;
    int id_count;
};

/* ---- list ---- */

static json_t *dead_time(uint64_t ms)
{
    char text[25];
    clock_format(ms, text);
    return ms ? json_string(text) : json_null();
}

static json_t *dead_text(const char *text)
{
    return text[0] ? json_string(text) : json_null();
}

static json_t *dead_object(const struct dead_letter *letter)
{
    return json_pack("{s:s, s:s, s:o, s:o, s:s, s:s, s:i, s:s, s:o, s:o}", "id", letter->id,
                     "pipeline", letter->pipeline, "stage", dead_text(letter->stage), "class",
                     dead_text(letter->class), "code", letter->code, "message", letter->message,
                     "attempts", (int)letter->attempts, "fingerprint", letter->fingerprint, "at",
                     dead_time(letter->at_ms), "next_retry_at", dead_time(letter->next_retry_ms));
}

static void dead_print(const struct dead_letter *letter)
{
    char at[25], next[25];
    clock_format(letter->at_ms, at);
    clock_format(letter->next_retry_ms, next);
    mem_auto char *message = utf8_plain(letter->message);
    printf("%s  %s  %s  %s  attempts %u%s%s\n    %s\n", letter->id, at, letter->fingerprint,
           letter->class, letter->attempts, next[0] ? "  next " : "", next, message);
}

static int dead_list_online(struct online *online, void *arg)
{
    const struct dead_args *args = arg;
    struct error err = {0};
    struct dead_page page;
    if (dead_list(online->store, &args->filter, args->after, args->limit, UINT64_MAX, &page,
                  &err) != MR_OK)
        return cli_fail(args->cli, &err);
    const char *last = page.has_more    ? page.last_id
                       : page.count > 0 ? page.letters[page.count - 1].id
                                        : "";
    if (args->cli->json) {
        json_t *data = json_array();
        for (size_t i = 0; i < page.count; i++)
            json_array_append_new(data, dead_object(&page.letters[i]));
        json_hold json_t *object = json_pack("{s:s, s:o, s:b, s:o}", "object", "list", "data", data,
                                             "has_more", page.has_more, "last_id", dead_text(last));
        cli_print(object);
    } else {
        for (size_t i = 0; i < page.count; i++)
            dead_print(&page.letters[i]);
        if (page.has_more)
            fprintf(stderr, "there are more: --after %s\n", page.last_id);
        else if (page.count == 0)
            fprintf(stderr, "no dead letters\n");
    }
    dead_page_done(&page);
    return CLI_DONE;
}

/* ---- retry, discard ---- */

/* One that was named. Returns an exit code; `ret_done` counts it. */
static int dead_one(const struct dead_args *args, struct online *online, const char *id,
                    const char *req, uint64_t *matched, uint64_t *done)
{
    struct error err = {0};
    uint64_t at_ms = 0;
    if (job_find_listed(online->store, true, id, &at_ms, &err) != MR_OK)
        return cli_fail(args->cli, &err);
    if (at_ms == 0) {
        error_set(&err, MR_E_SCHEMA, "%s is no dead letter", id);
        error_hint(&err, "`millrace status %s` says what it is", id);
        return cli_fail(args->cli, &err);
    }
    ++*matched;
    if (args->dry_run)
        return CLI_DONE;
    bool is_done = false;
    int rc;
    if (args->action == DEAD_DISCARD) {
        rc = dead_discard(online->store, id, &is_done, &err);
    } else {
        const struct job_again again = {.id = id, .req = req, .is_fresh = true};
        enum again_outcome outcome = AGAIN_NONE;
        rc = job_run_again(online->store, &again, &outcome, &err);
        is_done = outcome == AGAIN_OK;
        if (rc == MR_OK && outcome == AGAIN_REFUSED)
            rc = error_set(&err, MR_E_SCHEMA,
                           "%s cannot run again: it does already, or outputs have expired", id);
    }
    if (rc != MR_OK)
        return cli_fail(args->cli, &err);
    *done += is_done;
    return CLI_DONE;
}

static int dead_act_online(struct online *online, void *arg)
{
    struct dead_args *args = arg;
    struct error err = {0};
    uint64_t matched = 0, done = 0;
    int code = CLI_DONE;
    char req[33];
    hash_random_hex(req, 16);
    for (int i = 0; i < args->id_count; i++)
        if (dead_one(args, online, args->ids[i], req, &matched, &done) != CLI_DONE)
            code = CLI_FAILED;
    if (args->id_count == 0) {
        struct dead_sweep sweep;
        enum dead_action action = args->dry_run ? DEAD_COUNT : args->action;
        if (dead_sweep(online->store, &args->filter, action, req, 0, UINT64_MAX, &sweep, &err) !=
            MR_OK)
            return cli_fail(args->cli, &err);
        matched = sweep.matched;
        done = sweep.done;
    }
    if (args->cli->json) {
        json_hold json_t *object =
            json_pack("{s:I, s:I}", "matched", (json_int_t)matched, "done", (json_int_t)done);
        cli_print(object);
    } else {
        const char *what = args->action == DEAD_DISCARD ? "discarded" : "run again";
        if (args->dry_run)
            printf("%llu would be %s\n", (unsigned long long)matched, what);
        else
            printf("%llu matched, %llu %s\n", (unsigned long long)matched, (unsigned long long)done,
                   what);
    }
    return code;
}

/* ---- The verb ---- */

static bool dead_word(struct dead_args *args, const char *word)
{
    static const char *const words[] = {"list", "retry", "discard", NULL};
    static const enum dead_action actions[] = {DEAD_COUNT, DEAD_RETRY, DEAD_DISCARD};
    for (size_t i = 0; words[i]; i++)
        if (strcmp(word, words[i]) == 0) {
            args->word = words[i];
            args->action = actions[i];
            return true;
        }
    const char *near = error_nearest(word, words);
    cli_usage(args->cli, "\"%s\" is none of list, retry and discard%s%s%s", word,
              near ? ", did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    return false;
}

/* What may not stand together; CLI_DONE when all is well. */
static int dead_check(const struct dead_args *args)
{
    struct cli *cli = args->cli;
    const struct dead_filter *filter = &args->filter;
    bool names = filter->pipeline || filter->stage || filter->code;
    if (strcmp(args->word, "list") == 0) {
        if (args->id_count > 0)
            return cli_usage(cli, "dead list takes no ids: `millrace status ID`");
        return CLI_DONE;
    }
    if (args->pages)
        return cli_usage(cli, "--limit and --after are for dead list: dead %s takes all that match",
                         args->word);
    if (args->id_count > 0 && (names || filter->before_ms || args->all))
        return cli_usage(cli, "give ids or a filter, not both");
    if (args->all && names)
        return cli_usage(cli, "give --all or a filter, not both");
    if (args->id_count == 0 && !names && !filter->before_ms && !args->all)
        return cli_usage(cli, "dead %s wants ids, a filter, or --all for every dead letter",
                         args->word);
    return CLI_DONE;
}

static int dead_run(struct cli *cli, int argc, char **argv)
{
    struct dead_args args = {.cli = cli, .limit = DEAD_LIMIT};
    const char *before = NULL, *limit = NULL;
    const struct cli_option options[] = {{"pipeline", 'p', &args.filter.pipeline, NULL},
                                         {"stage", 's', &args.filter.stage, NULL},
                                         {"code", 0, &args.filter.code, NULL},
                                         {"before", 'b', &before, NULL},
                                         {"all", 'a', NULL, &args.all},
                                         {"dry-run", 'n', NULL, &args.dry_run},
                                         {"limit", 'l', &limit, NULL},
                                         {"after", 0, &args.after, NULL},
                                         {NULL, 0, NULL, NULL}};
    int count = cli_options(cli, argc, argv, options, 1, 1 + DEAD_IDS_MAX);
    if (count < 0 || !dead_word(&args, argv[1]))
        return CLI_USAGE;
    args.ids = argv + 2;
    args.id_count = count - 1;
    for (int i = 0; i < args.id_count; i++)
        if (!id_is_valid(args.ids[i]))
            return cli_usage(cli, "\"%s\" is not a job's id", args.ids[i]);
    if (!dead_filter_before(&args.filter, before))
        return cli_usage(cli, "--before takes a time as 2026-11-20T22:00:00Z, not \"%s\"", before);
    if (limit) {
        bool good = strspn(limit, "0123456789") == strlen(limit) && strlen(limit) <= 5;
        args.limit = good ? (uint32_t)strtoul(limit, NULL, 10) : 0;
        if (args.limit == 0)
            return cli_usage(cli, "--limit takes 1 to 99999, not \"%s\"", limit);
    }
    if (args.after && !id_is_valid(args.after))
        return cli_usage(cli, "\"%s\" is not a job's id", args.after);
    args.pages = limit || args.after;
    if (dead_check(&args) != CLI_DONE)
        return CLI_USAGE;
    const struct config *config = cli_config(cli);
    bool is_list = strcmp(args.word, "list") == 0;
    return config ? online_run(config, is_list ? dead_list_online : dead_act_online, &args)
                  : CLI_FAILED;
}

const struct cli_verb cli_dead = {
    .name = "dead",
    .usage = "list|retry|discard [--pipeline P] [--stage S] [--code C] [--before T] [--all] "
             "[--dry-run] [ID...]",
    .summary = "Lists dead letters, runs them again, or discards them.",
    .help = "A dead letter is a job that failed for good, or until it runs again by itself.\n"
            "list prints them, newest first; retry runs them again from the failed stage, with\n"
            "fresh attempts; discard leaves them failed and takes them off the list.\n"
            "retry and discard want ids, a filter, or --all.\n\n"
            "  -p, --pipeline P    of this pipeline\n"
            "  -s, --stage S       that failed in this stage\n"
            "      --code C        that failed with this code (\"timeout\")\n"
            "  -b, --before T      that failed before a time (\"2026-11-20T22:00:00Z\")\n"
            "  -a, --all           all of them\n"
            "  -n, --dry-run       only say how many there are\n"
            "  -l, --limit N       list: so many at most; default 100\n"
            "      --after ID      list: go on after this one\n"
            "\nExits 1 when an id is no dead letter.\n",
    .run = dead_run,
};
