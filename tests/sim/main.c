/*
 * mr-sim: the model simulator, the only stand-in of the project: for tests, benchmarks and the
 * demo.
 *
 * It speaks OpenAI chat completions over real HTTP/1.1 and misbehaves on request: by rules of a
 * file, or of the control API at run time. Tests await events (GET /control/wait, POST
 * /control/release) and never sleep. manual.c has the whole documentation, which `mr-sim --help`
 * prints.
 *
 * This file reads the options and runs the loop; server.c is where a request's life can be
 * followed, answer.c decides what is answered, rule.c reads and matches rules, control.c is the
 * control API.
 */
#include "manual.h"
#include "server.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

struct options {
    const char *listen;
    const char *script;
    const char *journal;
    size_t journal_keep;
    size_t journal_bodies;
};

static bool parse_number(const char *text, size_t min, size_t max, size_t *ret)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end != '\0' || value < min || value > max)
        return false;
    *ret = (size_t)value;
    return true;
}

/* Returns -1 to go on, else the exit status. */
static int read_options(int argc, char **argv, struct options *o, struct answer_defaults *d)
{
    static const struct option names[] = {{"listen", required_argument, NULL, 'l'},
                                          {"latency", required_argument, NULL, 't'},
                                          {"stream-every", required_argument, NULL, 'e'},
                                          {"stream-bytes", required_argument, NULL, 'c'},
                                          {"script", required_argument, NULL, 's'},
                                          {"journal", required_argument, NULL, 'j'},
                                          {"journal-keep", required_argument, NULL, 'k'},
                                          {"journal-bodies", required_argument, NULL, 'b'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    struct span_ms span;
    int c;
    bool good = true;

    while (good && (c = getopt_long(argc, argv, "h", names, NULL)) != -1) {
        switch (c) {
        case 'l':
            o->listen = optarg;
            break;
        case 't':
            good = span_parse(optarg, &d->latency);
            break;
        case 'e':
            good = span_parse(optarg, &span);
            d->stream_every_ms = good ? span.min : 0;
            break;
        case 'c':
            good = parse_number(optarg, 1, 1 << 20, &d->stream_bytes);
            break;
        case 's':
            o->script = optarg;
            break;
        case 'j':
            o->journal = optarg;
            break;
        case 'k':
            good = parse_number(optarg, 1, 10000000, &o->journal_keep);
            break;
        case 'b':
            good = parse_number(optarg, 0, HTTP_BODY_MAX, &o->journal_bodies);
            break;
        case 'h':
            manual_print();
            return 0;
        default:
            fputs("mr-sim --help prints the manual\n", stderr);
            return 2;
        }
    }
    if (!good) {
        fprintf(stderr, "mr-sim: %s: not a value for this option (see --help)\n", optarg);
        return 2;
    }
    if (optind < argc) {
        fprintf(stderr, "mr-sim: %s: no arguments are taken (see --help)\n", argv[optind]);
        return 2;
    }
    return -1;
}

static bool load_script(struct server *s, const char *file)
{
    json_error_t error;
    char message[256];
    json_t *source = json_load_file(file, JSON_REJECT_DUPLICATES, &error);

    if (!source) {
        fprintf(stderr, "mr-sim: %s:%d:%d: %s\n", file, error.line, error.column, error.text);
        return false;
    }
    bool good = rules_add(&s->rules, &s->rules.script, source, message, sizeof message);
    if (!good)
        fprintf(stderr, "mr-sim: %s: %s\n", file, message);
    json_decref(source);
    return good;
}

/* Ten thousand connections need as many descriptors: the soft limit is raised to the hard one. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void print_listening(const char *address, int port)
{
    const char *colon = strrchr(address, ':');

    printf("listening %.*s:%d\n", (int)(colon - address), address, port);
    fflush(stdout);
}

static void server_free(struct server *s)
{
    rule_list_clear(&s->rules.control);
    rule_list_clear(&s->rules.script);
    journal_done(&s->journal);
    uv_loop_close(s->loop);
    free(s);
}

int main(int argc, char **argv)
{
    struct options o = {.listen = "127.0.0.1:0", .journal_keep = 100000};
    struct server *s = xcalloc(1, sizeof *s);
    int port = 0;

    s->loop = uv_default_loop();
    s->defaults =
        (struct answer_defaults){.latency = {250, 250}, .stream_every_ms = 5, .stream_bytes = 12};
    int rc = read_options(argc, argv, &o, &s->defaults);
    if (rc >= 0) {
        free(s);
        return rc;
    }
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    if (!journal_init(&s->journal, o.journal, o.journal_keep, o.journal_bodies)) {
        fprintf(stderr, "mr-sim: %s: %s\n", o.journal, strerror(errno));
        free(s);
        return 1;
    }
    rc = 1;
    if (!o.script || load_script(s, o.script)) {
        int error = server_listen(s, o.listen, &port);

        if (error != 0) {
            fprintf(stderr, "mr-sim: --listen %s: %s\n", o.listen, uv_strerror(error));
            if (s->listener.data)
                server_stop(s);
        } else {
            print_listening(o.listen, port);
            rc = 0;
        }
        uv_run(s->loop, UV_RUN_DEFAULT);
    }
    server_free(s);
    return rc;
}
