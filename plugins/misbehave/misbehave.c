/* misbehave: does what a plugin must not do, on demand, so that tests see the host stand it.
 *
 * `how` says what, mostly as "{{ .input.how }}", so that one pipeline serves all; "well" behaves.
 * Built into the tests' folder, never installed. */
#include <jansson.h>
#include <millrace/plugin.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct settings {
    const mr_template *how;
    uint64_t for_ms;
};

static const struct mr_option options[] = {
    MR_OPT_TEMPLATE(struct settings, how, "how", "\"{{ .input.how }}\"", 0,
                    "What to do: one of the words in the table of misbehave.c."),
    MR_OPT_DURATION(struct settings, for_ms, "for", "200ms", 0, 0, 0,
                    "How long \"hold\" and \"spin\" hold the loop, and \"busy\" a thread."),
};

static uint64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static uint64_t cpu_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static int output_word(mr_context *cx, const char *word)
{
    return mr_output(cx, json_string(word));
}

static int well(mr_context *cx, const struct settings *set)
{
    (void)set;
    return output_word(cx, "well");
}

static int segv(mr_context *cx, const struct settings *set)
{
    (void)set;
    raise(SIGSEGV);
    return output_word(cx, "survived");
}

static int abort_process(mr_context *cx, const struct settings *set)
{
    (void)cx;
    (void)set;
    abort();
}

static int exit_process(mr_context *cx, const struct settings *set)
{
    (void)cx;
    (void)set;
    _exit(3);
}

/* As the kernel does when memory is short: nobody is named. */
static int kill_process(mr_context *cx, const struct settings *set)
{
    (void)set;
    raise(SIGKILL);
    return output_word(cx, "survived");
}

/* Keeps the loop from turning for a time. */
static int hold(mr_context *cx, const struct settings *set)
{
    uint64_t end = now_ms() + set->for_ms;
    while (now_ms() < end)
        ;
    return output_word(cx, "held");
}

/* The same, counted in time of this thread: a process that is stopped meanwhile has it all before
 * it. */
static int spin(mr_context *cx, const struct settings *set)
{
    uint64_t end = cpu_ms() + set->for_ms;
    while (cpu_ms() < end)
        ;
    return output_word(cx, "spun");
}

/* The same without an end. */
static int stall(mr_context *cx, const struct settings *set)
{
    volatile uint64_t turns = 0;
    (void)set;
    while (turns != UINT64_MAX)
        turns = turns + 1;
    return output_word(cx, "stalled");
}

/* The compiler sees no end to this, rightly; `before` is a condition it cannot see through. */
static int recurse(volatile char *before)
{
    volatile char here[512];
    here[0] = before[0];
    return here[0] ? 0 : recurse(here) + here[0];
}

static int overflow(mr_context *cx, const struct settings *set)
{
    volatile char begin[1] = {0};
    (void)cx;
    (void)set;
    return recurse(begin);
}

/* Deltas, the last of them right before the end. */
static int tell(mr_context *cx, const struct settings *set)
{
    (void)set;
    for (int i = 1; i <= 3; i++) {
        json_t *data = json_pack("{s:i}", "told", i);
        mr_emit(cx, "stage.delta", data);
        json_decref(data);
    }
    return output_word(cx, "told");
}

/* Says that all is well, and has set no output. */
static int silent(mr_context *cx, const struct settings *set)
{
    (void)cx;
    (void)set;
    return MR_OK;
}

static int positive_code(mr_context *cx, const struct settings *set)
{
    (void)cx;
    (void)set;
    return 12345;
}

static int unknown_code(mr_context *cx, const struct settings *set)
{
    (void)cx;
    (void)set;
    return -12345;
}

/* Fails without saying why. */
static int mute(mr_context *cx, const struct settings *set)
{
    (void)cx;
    (void)set;
    return MR_E_PLUGIN;
}

static int large(mr_context *cx, const struct settings *set)
{
    size_t len = 2u << 20;
    (void)set;
    char *text = mr_alloc(cx, len + 1);
    memset(text, 'x', len);
    text[0] = text[len - 1] = '"';
    return mr_output_text(cx, text, len);
}

static int deep(mr_context *cx, const struct settings *set)
{
    size_t half = 100000;
    (void)set;
    char *text = mr_alloc(cx, 2 * half + 1);
    memset(text, '[', half);
    memset(text + half, ']', half);
    return mr_output_text(cx, text, 2 * half);
}

static int no_json(mr_context *cx, const struct settings *set)
{
    (void)set;
    return mr_output_text(cx, "{\"half\":", 8);
}

/* Goes on after it was told to end. */
static int deaf(mr_context *cx, const struct settings *set)
{
    int rc = MR_OK;
    for (int i = 0; i < 5; i++)
        rc = mr_sleep(cx, set->for_ms);
    (void)rc;
    return output_word(cx, "deaf");
}

/* Says that it was ended by the host, which it was not. */
static int as_cancelled(mr_context *cx, const struct settings *set)
{
    (void)cx;
    (void)set;
    return MR_E_CANCELLED;
}

static int as_lost(mr_context *cx, const struct settings *set)
{
    (void)cx;
    (void)set;
    return MR_E_LOST;
}

static int as_stopping(mr_context *cx, const struct settings *set)
{
    (void)cx;
    (void)set;
    return MR_E_STOPPING;
}

struct busy {
    uint64_t end_ms;
};

static void busy_until(void *arg)
{
    const struct busy *busy = arg;
    for (uint64_t now = now_ms(); now < busy->end_ms; now = now_ms())
        poll(NULL, 0, (int)(busy->end_ms - now));
}

/* Keeps a thread for a time, as a library that blocks does; nothing can end that. */
static int busy(mr_context *cx, const struct settings *set)
{
    struct busy *busy = mr_alloc(cx, sizeof(*busy));
    busy->end_ms = now_ms() + set->for_ms;
    int rc = mr_offload(cx, busy_until, busy);
    return rc == MR_OK ? output_word(cx, "busy") : rc;
}

static void never(void *arg)
{
    (void)arg;
    raise(SIGSEGV);
}

/* Crashes in its clean-up. */
static int bad_defer(mr_context *cx, const struct settings *set)
{
    (void)set;
    mr_defer(cx, never, NULL);
    return output_word(cx, "deferred");
}

/* Crashes on a thread. */
static int bad_offload(mr_context *cx, const struct settings *set)
{
    (void)set;
    int rc = mr_offload(cx, never, NULL);
    return rc == MR_OK ? output_word(cx, "survived") : rc;
}

static const struct {
    const char *word;
    int (*fn)(mr_context *cx, const struct settings *set);
} ways[] = {
    {"well", well},
    {"segv", segv},
    {"abort", abort_process},
    {"exit", exit_process},
    {"kill", kill_process},
    {"hold", hold},
    {"spin", spin},
    {"stall", stall},
    {"overflow", overflow},
    {"tell", tell},
    {"silent", silent},
    {"positive", positive_code},
    {"unknown", unknown_code},
    {"mute", mute},
    {"large", large},
    {"deep", deep},
    {"no_json", no_json},
    {"deaf", deaf},
    {"cancelled", as_cancelled},
    {"lost", as_lost},
    {"stopping", as_stopping},
    {"busy", busy},
    {"bad_defer", bad_defer},
    {"bad_offload", bad_offload},
};

static int run(mr_context *cx, const void *settings)
{
    const struct settings *set = settings;
    const char *how = NULL;
    uint64_t len = 0;
    int rc = mr_render_text(cx, set->how, &how, &len);
    if (rc != MR_OK)
        return rc;
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
        if (strcmp(ways[i].word, how ? how : "") == 0)
            return ways[i].fn(cx, set);
    return mr_fail(cx, MR_E_SCHEMA, "\"%s\" is no way to misbehave", how ? how : "");
}

MR_PLUGIN(misbehave) = {
    MR_PLUGIN_HEAD("misbehave", struct settings, options),
    .version = "1.0",
    .summary = "Does on demand what a plugin must not do.",
    .capabilities = MR_CAN_REPEAT,
    .run = run,
};
