/* The harness for plugins: the real .so behind a host table of fakes.
 *
 * A `struct fake` is one stage: a plugin loaded with dlopen, its options read by the same rows and
 * code as in the host, a document in memory, and scripts of what the outside answers. fake_run runs
 * one task of it on a fiber. Every call of the plugin is written to `trace`, one line each, in
 * order, so that a test compares text. Steps outlive a task, as in Redis: a task that ends with an
 * error in the middle and is run again is a crash and its recovery.
 *
 * Time stands still but for mr_sleep and what a test adds to `clock_ms`.
 *
 * Torture: with `torture_at` n the nth suspending call of a task ends with `torture_code` instead
 * of doing anything (or, with `torture_after`, after it has done it, as when a reply is lost).
 *
 * What it does not do: retries, stages, Redis. Those are the runner's and have tests of their own.
 */
#pragma once

#include "base/buf.h"
#include "base/doc.h"
#include "base/error.h"
#include "base/expr.h"
#include "base/json.h"
#include "base/mem.h"
#include "fiber/fiber.h"
#include <millrace/plugin.h>

struct fake;

/* One task, or the opening of the instance. */
struct fake_task {
    struct mr_context cx; /* first: what the plugin sees */
    struct fake *fake;
    struct doc *doc; /* a view with the task's bindings */
    struct arena arena;
    struct fake_defer *defers;
    unsigned suspensions; /* so far */
    bool done;
    int code;           /* what run returned */
    char *output;       /* JSON text; NULL: none */
    struct error error; /* what mr_fail or the failing call left */
    int64_t input_tokens, output_tokens;
    void *instance; /* what open left (opening only) */
};

/* What the other side of an HTTP exchange answers. */
struct fake_reply {
    int code;            /* not MR_OK: there is no answer but this error */
    int status;          /* 0: 200 */
    const char *headers; /* "name: value\nname: value", names in lower case; may be NULL */
    const char *body;    /* NULL: empty */
};

/* A request as the plugin made it. */
struct fake_request {
    char *method, *endpoint, *url, *headers, *body;
    uint32_t flags;
    uint64_t timeout_ms, connect_ms, first_byte_ms, idle_ms, max_bytes;
};

struct fake {
    /* Of the test, at any time */
    uint64_t clock_ms, time_left_ms;
    bool cancelled;
    unsigned torture_at; /* 0: off */
    int torture_code;
    bool torture_after;
    bool hold; /* offloads and batches wait for fake_release */

    /* To look at */
    struct buf trace;
    struct fake_request *requests;
    size_t request_count;
    struct fake_task task; /* the last one that fake_run ran */
    void *settings;
    const struct mr_plugin *plugin;

    struct fake_private *priv;
};

/* Loads plugin NAME of the build and gives it `options` (JSON; where there is no double quote,
 * single ones stand for them; so in all JSON here). The test fails when they are refused. Opens the
 * instance. */
struct fake *fake_new(const char *name, const char *options);
/* The same, but gives back what `open` returned; the task of the opening is `task`. */
struct fake *fake_try(const char *name, const char *options, int *ret_code);
void fake_free(struct fake *fake);
static inline void fake_free_cleanup(struct fake **fake)
{
    fake_free(*fake);
}
#define fake_auto __attribute__((cleanup(fake_free_cleanup)))

/* What checking the options says, one line each: "error /pointer: message (hint)"; "" when all is
 * well. free() it. */
char *fake_check(const char *name, const char *options);
/* Asserts that one line of what fake_check says contains all the words (NULL-ended). */
void fake_assert_check(const char *name, const char *options, ...) __attribute__((sentinel));

/* The folder that stands for the pipeline file's; removed at the end of the process. */
const char *fake_dir(void);
/* Writes `text` to a file in that folder, making sub-folders of it; its path is fake_dir()/name. */
void fake_write(const char *name, const char *text);

/* Sets a member of the document. */
void fake_set(struct fake *fake, const char *member, const char *json);
/* Scripts: used up in order. A call that finds none fails the task with MR_E_INTERNAL. */
void fake_will_answer(struct fake *fake, struct fake_reply reply);
/* For mr_call (json: its result) and mr_dispatch (json NULL) of a target. */
void fake_will_end(struct fake *fake, const char *target, int code, const char *json);
/* A stored step (JSON text), NULL when absent; borrowed. */
const char *fake_step(struct fake *fake, const char *name);
void fake_clear_trace(struct fake *fake);

/* Runs a task to its end in fake->task; what fake_run returns is its code. */
int fake_run(struct fake *fake);
/* Several at once: start suspends where `hold` makes it; after fake_release all go on. */
void fake_start(struct fake *fake, struct fake_task *task);
/* Runs what is held, batches gathered by key, and resumes those who waited. Returns how many. */
unsigned fake_release(struct fake *fake);
void fake_task_done(struct fake_task *task);

/* `text` with single quotes made double ones, unless it has double ones already; free() it. */
char *fake_json(const char *text);
/* Asserts that two JSON texts are the same value; `want` with single quotes. */
void fake_assert_json_at(const char *got, const char *want, const char *file, int line);
#define fake_assert_json(got, want) fake_assert_json_at(got, want, __FILE__, __LINE__)
/* Asserts that the task's error message contains the words. */
void fake_assert_message_at(const struct fake_task *task, const char *words, const char *file,
                            int line);
#define fake_assert_message(task, words) fake_assert_message_at(task, words, __FILE__, __LINE__)

/* Runs `fn` for each suspension of a task in turn and each of the codes that end one. `prepare`
 * makes a fresh fake with its scripts; `check` (may be NULL) looks at the task that was tortured.
 * The plugin may leak nothing: ASan says so. Returns the number of runs. */
unsigned fake_torture(struct fake *(*prepare)(void), void (*check)(struct fake *fake));
/* The same for the opening of an instance, which must fail with the code each time. */
unsigned fake_torture_open(const char *name, const char *options);

/* Inside the harness: the table, and the common begin and end of suspending calls. */
extern const struct mr_host fake_table;
void fake_defers_run(struct fake_task *task);

struct fake_held {
    struct fake_held *next;
    struct fiber *fiber;
    bool done;
    const void *key; /* NULL: an offload */
    void (*offload)(void *arg);
    void (*batch)(void **items, uint32_t count);
    void *arg;
    uint32_t max;
};

struct fake_end {
    char *target;
    int code;
    char *json;
    bool used;
};

struct fake_private {
    struct doc *doc;
    struct arena arena; /* the settings' */
    struct expr_set *exprs;
    json_t *options, *steps;
    struct fake_task opening; /* keeps what open allocated */
    void *instance;
    struct fake_reply *replies;
    size_t reply_count, reply_next;
    struct fake_end *ends;
    size_t end_count;
    struct fake_held *held;
};
