/* millrace/plugin.h: everything that the author of a stage plugin needs, to be read from top to
 * bottom. Over 500 lines: one file to include, one page to read.
 *
 * 1. The model
 *
 * A pipeline is a graph of stages; a stage is a plugin with options that the host has checked. For
 * every job the host calls the plugin's `run` on a fiber of its own, with a stack of its own (256
 * KiB). Code reads as if it blocked; the process never does. A call marked MR_SUSPENDS may let
 * other jobs run before it returns; nothing else does. What jobs share may have changed after such
 * a call, which is why settings arrive `const` and what an instance shares is asked for by name
 * (mr_instance). Cancel, deadline and shutdown show up as the error of the call in progress: clean
 * up (or let mr_defer do it) and return that error. A stage may run more than once for one job,
 * after a crash or a retry: what must not happen twice goes through mr_step_put, mr_call,
 * mr_dispatch or a row keyed by mr_uuid.
 *
 * Never hold a lock, a thread-local or errno across a call that suspends; never block (mr_offload
 * is for that).
 *
 * 2. The smallest plugin
 *
 *     #include <millrace/plugin.h>
 *
 *     struct settings { const mr_template *output; };
 *
 *     static const struct mr_option options[] = {
 *         MR_OPT_TEMPLATE(struct settings, output, "output", "\"{{ .input }}\"", 0, "The output."),
 *     };
 *
 *     static int run(mr_context *cx, const void *settings)
 *     {
 *         const struct settings *set = settings;
 *         struct json_t *value = NULL;
 *         int rc = mr_render(cx, set->output, &value);
 *         if (rc != MR_OK)
 *             return rc;
 *         return mr_output(cx, value);
 *     }
 *
 *     MR_PLUGIN(echo) = {
 *         MR_PLUGIN_HEAD("echo", struct settings, options),
 *         .version = "1.0", .summary = "Gives back its input.", .run = run,
 *     };
 *
 * Built with `cc -shared -fPIC -fvisibility=hidden -o echo.so echo.c` it is loaded by its file
 * name. */
#ifndef MILLRACE_PLUGIN_H
#define MILLRACE_PLUGIN_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MR_ABI_MAJOR 0
#define MR_ABI_MINOR 1

struct json_t; /* a jansson value; authors who build JSON include <jansson.h> themselves */

/* The task at hand: one attempt at one stage of one job. Lives while `run` (or `open`) runs. */
typedef struct mr_context mr_context;
/* An option whose strings are `{{ }}` templates, compiled at load. */
typedef struct mr_template mr_template;
/* An option that is a jq expression, compiled at load. */
typedef struct mr_expr mr_expr;

/* Marks calls during which other fibers run. */
#define MR_SUSPENDS

/* 3. Results and errors
 *
 * `run` returns MR_OK with its output set, or a code below, normally by `return mr_fail(cx, code,
 * "…")` or by passing on what a call returned. The class of the code decides what happens: retry
 * (backoff), throttled (parked, no attempt used), permanent, cancelled, crash, bug.
 *
 *   X(NAME, number, word in `error.code`, class, HTTP status of the result, text) */
#define MR_ERRORS(X)                                                                               \
    X(TIMEOUT, -1, "timeout", RETRY, 504, "a time limit was reached")                              \
    X(CONNECT, -2, "connect", RETRY, 502, "no connection")                                         \
    X(RESET, -3, "reset", RETRY, 502, "the connection broke")                                      \
    X(UPSTREAM_STATUS, -4, "upstream_status", RETRY, 502,                                          \
      "the other side answered with an error status")                                              \
    X(RATE_LIMITED, -5, "rate_limited", THROTTLED, 429, "a rate limit holds")                      \
    X(QUOTA, -6, "quota", PERMANENT, 402, "the account's quota is used up")                        \
    X(AUTH, -7, "auth", PERMANENT, 502, "the other side refused the credentials")                  \
    X(BAD_RESPONSE, -8, "bad_response", RETRY, 502, "the answer could not be understood")          \
    X(SCHEMA, -9, "schema", PERMANENT, 422, "data does not have the shape that was asked for")     \
    X(PLUGIN, -10, "plugin", PERMANENT, 500, "the plugin failed")                                  \
    X(CALL_TIMEOUT, -11, "call_timeout", RETRY, 504, "a called pipeline did not end in time")      \
    X(CALL_FAILED, -12, "call_failed", RETRY, 502, "a called pipeline failed")                     \
    X(DEADLINE, -13, "deadline", PERMANENT, 504, "the job's deadline has passed")                  \
    X(CANCELLED, -14, "cancelled", CANCELLED, 409, "cancelled")                                    \
    X(POISON, -15, "poison", CRASH, 500, "the job brought its process down too often")             \
    X(PIPELINE_CHANGED, -16, "pipeline_changed", PERMANENT, 409,                                   \
      "the pipeline changed in a way that this job cannot follow")                                 \
    X(ID_CONFLICT, -17, "id_conflict", PERMANENT, 409, "the id belongs to another pipeline")       \
    X(INTERNAL, -18, "internal", BUG, 500, "internal error")                                       \
    /* Never stored in a job: */                                                                   \
    X(LOST, -19, "lost", CANCELLED, 409, "the lane belongs to another worker")                     \
    X(STORE, -20, "store", RETRY, 503, "Redis is away")                                            \
    X(STOPPING, -21, "stopping", CANCELLED, 503, "the process is stopping")

#define MR_OK 0
enum mr_code {
#define MR_X(name, number, word, cls, http, text) MR_E_##name = number,
    MR_ERRORS(MR_X)
#undef MR_X
};

/* Classes of failure; 0 stands for "the code's own". */
enum mr_class {
    MR_CLASS_DEFAULT,
    MR_CLASS_RETRY,
    MR_CLASS_THROTTLED,
    MR_CLASS_PERMANENT,
    MR_CLASS_CANCELLED,
    MR_CLASS_CRASH,
    MR_CLASS_BUG,
};

enum mr_log_level { MR_LOG_DEBUG, MR_LOG_INFO, MR_LOG_WARN, MR_LOG_ERROR };

/* 4. Options
 *
 * One row an option. The host parses and checks the pipeline file against the rows, reports every
 * problem at once with file, JSON Pointer and hint, and fills a struct that the plugin declares. A
 * row whose field has the wrong C type does not compile. The sentence is not optional: `millrace
 * plugins NAME`, the documentation and the JSON Schema come from it.
 *
 *   macro             field                   in the file
 *   MR_OPT_TEXT       const char *            a string
 *   MR_OPT_PATH       const char *            a path from the pipeline's folder; arrives absolute
 *   MR_OPT_ENDPOINT   const char *            the name of an `endpoints.NAME` of the configuration
 *   MR_OPT_INT        int64_t                 an integer from min to max
 *   MR_OPT_REAL       double                  a number from min to max
 *   MR_OPT_BOOL       int32_t                 true or false
 *   MR_OPT_DURATION   uint64_t, milliseconds  "250ms", "5s", "1h"
 *   MR_OPT_SIZE       uint64_t, bytes         "8MiB"
 *   MR_OPT_CHOICE     int32_t, the index      one of "a|b|c"
 *   MR_OPT_TEMPLATE   const mr_template *     any JSON value; its strings are templates
 *   MR_OPT_EXPR       const mr_expr *         a jq expression
 *   MR_OPT_JSON       const struct json_t *   any JSON value, as it stands
 *   MR_OPT_LIST       struct mr_list          an array of objects, each checked against its rows
 *
 * An option that is absent and has no default leaves 0 or NULL. A JSON null is an absent option,
 * but for TEMPLATE and JSON rows, where it is a value. */
enum mr_type {
    MR_TYPE_TEXT = 1,
    MR_TYPE_PATH,
    MR_TYPE_ENDPOINT,
    MR_TYPE_INT,
    MR_TYPE_REAL,
    MR_TYPE_BOOL,
    MR_TYPE_DURATION,
    MR_TYPE_SIZE,
    MR_TYPE_CHOICE,
    MR_TYPE_TEMPLATE,
    MR_TYPE_EXPR,
    MR_TYPE_JSON,
    MR_TYPE_LIST,
};

enum mr_option_flag {
    MR_REQUIRED = 1 << 0,
    /* Kept out of dumps, logs and descriptions. */
    MR_SECRET = 1 << 1,
    /* TEMPLATE: an interpolated part may not be empty (ids, addresses, parameters). */
    MR_NOT_EMPTY = 1 << 2,
    /* TEMPLATE: an interpolated part may not contain ':' (ids). */
    MR_NO_COLON = 1 << 3,
    /* TEMPLATE: a missing part makes the string null instead of an error (lookup keys). */
    MR_LENIENT = 1 << 4,
    /* LIST: the rows' "name" is a stage-like name ([a-z][a-z0-9_]{0,47}) and unique. */
    MR_UNIQUE_NAMES = 1 << 5,
    /* TEXT: the name of a pipeline, which the host knows to exist. */
    MR_PIPELINE = 1 << 6,
};

struct mr_list {
    const void *items; /* `count` structs of the element's type, one after the other */
    uint32_t count;
    uint32_t reserved;
};

struct mr_option {
    const char *name;
    /* The default as it would stand in the file (JSON text for TEMPLATE and JSON), or NULL. */
    const char *def;
    const char *doc;              /* one sentence */
    const char *choices;          /* CHOICE: "a|b|c" */
    const struct mr_option *rows; /* LIST */
    int64_t min, max; /* INT, REAL, DURATION (ms), SIZE (bytes), LIST (items); both 0: unbounded */
    uint32_t type;    /* enum mr_type */
    uint32_t flags;   /* enum mr_option_flag */
    uint32_t offset;  /* of the field */
    uint32_t row_count; /* LIST */
    uint32_t item_size; /* LIST: sizeof one element */
    uint32_t reserved;
};

#ifdef __cplusplus
#define MR_FIELD(s, f, ...) ((uint32_t)offsetof(s, f))
#else
/* The offset of a field, which must have one of the types named: _Generic has no other branch. */
#define MR_FIELD(s, f, t) ((uint32_t)(offsetof(s, f) + 0 * _Generic(((s *)0)->f, t : 1)))
#endif
#define MR_OPT_(s, f, ctype, kind, n, d, fl, lo, hi, sentence)                                     \
    {                                                                                              \
        .name = (n), .def = (d), .doc = "" sentence, .min = (lo), .max = (hi), .type = (kind),     \
        .flags = (fl), .offset = MR_FIELD(s, f, ctype)                                             \
    }
#define MR_OPT_TEXT(s, f, n, d, fl, sentence)                                                      \
    MR_OPT_(s, f, const char *, MR_TYPE_TEXT, n, d, fl, 0, 0, sentence)
#define MR_OPT_PATH(s, f, n, d, fl, sentence)                                                      \
    MR_OPT_(s, f, const char *, MR_TYPE_PATH, n, d, fl, 0, 0, sentence)
#define MR_OPT_ENDPOINT(s, f, n, d, fl, sentence)                                                  \
    MR_OPT_(s, f, const char *, MR_TYPE_ENDPOINT, n, d, fl, 0, 0, sentence)
#define MR_OPT_INT(s, f, n, d, lo, hi, fl, sentence)                                               \
    MR_OPT_(s, f, int64_t, MR_TYPE_INT, n, d, fl, lo, hi, sentence)
#define MR_OPT_REAL(s, f, n, d, lo, hi, fl, sentence)                                              \
    MR_OPT_(s, f, double, MR_TYPE_REAL, n, d, fl, lo, hi, sentence)
#define MR_OPT_BOOL(s, f, n, d, fl, sentence)                                                      \
    MR_OPT_(s, f, int32_t, MR_TYPE_BOOL, n, d, fl, 0, 0, sentence)
#define MR_OPT_DURATION(s, f, n, d, lo, hi, fl, sentence)                                          \
    MR_OPT_(s, f, uint64_t, MR_TYPE_DURATION, n, d, fl, lo, hi, sentence)
#define MR_OPT_SIZE(s, f, n, d, lo, hi, fl, sentence)                                              \
    MR_OPT_(s, f, uint64_t, MR_TYPE_SIZE, n, d, fl, lo, hi, sentence)
#define MR_OPT_TEMPLATE(s, f, n, d, fl, sentence)                                                  \
    MR_OPT_(s, f, const mr_template *, MR_TYPE_TEMPLATE, n, d, fl, 0, 0, sentence)
#define MR_OPT_EXPR(s, f, n, d, fl, sentence)                                                      \
    MR_OPT_(s, f, const mr_expr *, MR_TYPE_EXPR, n, d, fl, 0, 0, sentence)
#define MR_OPT_JSON(s, f, n, d, fl, sentence)                                                      \
    MR_OPT_(s, f, const struct json_t *, MR_TYPE_JSON, n, d, fl, 0, 0, sentence)
#define MR_OPT_CHOICE(s, f, n, d, words, fl, sentence)                                             \
    {                                                                                              \
        .name = (n), .def = (d), .doc = "" sentence, .choices = (words), .type = MR_TYPE_CHOICE,   \
        .flags = (fl), .offset = MR_FIELD(s, f, int32_t)                                           \
    }
#define MR_OPT_LIST(s, f, n, table, item, lo, hi, fl, sentence)                                    \
    {                                                                                              \
        .name = (n), .doc = "" sentence, .rows = (table), .min = (lo), .max = (hi),                \
        .type = MR_TYPE_LIST, .flags = (fl), .offset = MR_FIELD(s, f, struct mr_list),             \
        .row_count = (uint32_t)(sizeof(table) / sizeof((table)[0])),                               \
        .item_size = (uint32_t)sizeof(item)                                                        \
    }

/* 5. The descriptor
 *
 * The one symbol that a plugin exports is `mr_plugin_NAME`, this struct, where NAME is also the
 * file's name. Fields that are left out are 0. */
struct mr_check;
struct mr_plugin {
    uint32_t size; /* sizeof(struct mr_plugin) where the plugin was built */
    uint32_t abi_major, abi_minor;
    uint32_t option_size; /* sizeof(struct mr_option) there */
    uint32_t option_count;
    uint32_t settings_size;
    const char *name, *version, *summary;
    const char *doc; /* some sentences or paragraphs; may be NULL */
    const struct mr_option *options;
    const char *timeout;   /* default of a stage's `timeout`; NULL: "30s" */
    uint32_t capabilities; /* enum mr_capability */
    uint32_t reserved;
    /* Further checks that one row cannot express, at load and in `millrace check`. No I/O. */
    void (*check)(const void *settings, const struct mr_check *check);
    /* Default time-out in ms that depends on the settings (goes before `timeout`); NULL: none. */
    uint64_t (*default_timeout)(const void *settings);
    /* Once per worker process, stage and revision, on a fiber, before the first task; 10 s at most.
     * What it leaves in `*ret_instance` is shared by all tasks of the stage in this process
     * (mr_instance). */
    int (*open)(mr_context *cx, const void *settings, void **ret_instance);
    /* Once per task, on a fiber. */
    int (*run)(mr_context *cx, const void *settings);
    /* At the end of the process, on the loop's thread; may not suspend. */
    void (*close)(void *instance);
};

enum mr_capability {
    MR_CAN_REPEAT =
        1 << 0, /* running it again has no effect outside: no warning in `millrace check` */
};

/* How `check` says what it found; `pointer` is relative to the options ("/targets/0/id"). */
struct mr_check {
    void *self;
    void (*error)(void *self, const char *pointer, const char *message, const char *hint);
    void (*warn)(void *self, const char *pointer, const char *message, const char *hint);
    /* The options as they stand in the file (files inlined): what templates look like unrendered.
     */
    const struct json_t *options;
};

#if defined(__GNUC__)
#define MR_EXPORT __attribute__((visibility("default")))
#else
#define MR_EXPORT
#endif
#define MR_PLUGIN(name)                                                                            \
    MR_EXPORT extern const struct mr_plugin mr_plugin_##name;                                      \
    const struct mr_plugin mr_plugin_##name
#define MR_PLUGIN_HEAD(text, type, table)                                                          \
    .size = (uint32_t)sizeof(struct mr_plugin), .abi_major = MR_ABI_MAJOR,                         \
    .abi_minor = MR_ABI_MINOR, .option_size = (uint32_t)sizeof(struct mr_option),                  \
    .option_count = (uint32_t)(sizeof(table) / sizeof((table)[0])),                                \
    .settings_size = (uint32_t)sizeof(type), .name = (text), .options = (table)

/* 6. What calls take and give. Structs start with their size; zero means "as by default". */
struct mr_header {
    const char *name, *value;
};

enum mr_http_flag {
    MR_HTTP_GUARD = 1 << 0, /* the address comes from a user: private, loopback and link-local
                               addresses are refused */
};

struct mr_http {
    uint32_t size;
    uint32_t flags;       /* enum mr_http_flag */
    const char *method;   /* NULL: GET, or POST with a body */
    const char *endpoint; /* the name of a configured endpoint: `url` is then appended to its base
                             URL and its key is sent as a bearer token */
    const char *url;
    const struct mr_header *headers;
    uint32_t header_count;
    uint32_t reserved;
    const char *body;
    uint64_t body_len;
    uint64_t timeout_ms;    /* all of it; 0: what is left of the stage's time */
    uint64_t connect_ms;    /* 0: 5 s */
    uint64_t first_byte_ms; /* 0: 60 s */
    uint64_t idle_ms;       /* between two reads; 0: 30 s */
    uint64_t max_bytes;     /* of the answer's body; 0: 8 MiB; more is MR_E_BAD_RESPONSE */
};

struct mr_http_reply {
    uint32_t size;
    int32_t status;
    const char *body; /* NUL-ended; the task's until it ends */
    uint64_t body_len;
    const struct mr_header *headers; /* names in lower case */
    uint32_t header_count;
    uint32_t reserved;
};

struct mr_child {
    uint32_t size;
    uint32_t reserved;
    const char *pipeline;
    const char *target; /* names the child within its stage: part of its default id */
    const char *id;     /* name whose UUIDv5 is the id; NULL: from parent, stage and target */
    const struct json_t *input; /* borrowed */
    uint64_t timeout_ms;        /* mr_call: 0: 10 s */
};

#define MR_ID_BYTES 37 /* a UUID as text and its NUL */

/* 7. The host's table. Append-only; plugins use the functions of part 8. */
struct mr_host {
    uint32_t size;
    uint32_t abi_minor;
    const struct json_t *(*get)(mr_context *cx, const char *path);
    int (*render)(mr_context *cx, const mr_template *tpl, struct json_t **ret_value);
    int (*render_text)(mr_context *cx, const mr_template *tpl, const char **ret_text,
                       uint64_t *ret_len);
    int (*eval)(mr_context *cx, const mr_expr *expr, struct json_t **ret_value);
    int (*bind)(mr_context *cx, const char *name, const struct json_t *value);
    int (*output)(mr_context *cx, struct json_t *value);
    int (*output_text)(mr_context *cx, const char *text, uint64_t len);
    int (*fail)(mr_context *cx, int code, int cls, uint64_t retry_in_ms, const char *format,
                va_list args);
    int (*parse)(mr_context *cx, const char *text, uint64_t len, struct json_t **ret_value);
    int (*print)(mr_context *cx, const struct json_t *value, const char **ret_text,
                 uint64_t *ret_len);
    int (*http)(mr_context *cx, const struct mr_http *request, struct mr_http_reply *reply);
    int (*call)(mr_context *cx, const struct mr_child *child, struct json_t **ret_result);
    int (*dispatch)(mr_context *cx, const struct mr_child *child, char ret_id[MR_ID_BYTES]);
    int (*uuid)(mr_context *cx, const char *name, char ret_id[MR_ID_BYTES]);
    int (*step_get)(mr_context *cx, const char *name, const char **ret_text, uint64_t *ret_len);
    int (*step_put)(mr_context *cx, const char *name, const char *text, uint64_t len);
    int (*sleep)(mr_context *cx, uint64_t ms);
    int (*offload)(mr_context *cx, void (*fn)(void *arg), void *arg);
    int (*batch)(mr_context *cx, const void *key, void (*fn)(void **items, uint32_t count),
                 void *item, uint32_t max, uint64_t linger_ms);
    int (*parallel)(mr_context *cx, int (*fn)(mr_context *cx, void *arg, uint32_t index), void *arg,
                    uint32_t count);
    int (*progress)(mr_context *cx, int percent, const char *message);
    int (*emit)(mr_context *cx, const char *kind, const struct json_t *data);
    void (*log)(mr_context *cx, int level, const char *format, va_list args);
    void *(*alloc)(mr_context *cx, size_t size);
    void (*defer)(mr_context *cx, void (*fn)(void *arg), void *arg);
    void *(*instance)(mr_context *cx);
    uint64_t (*time_left)(mr_context *cx);
    int (*cancelled)(mr_context *cx);
    void (*usage)(mr_context *cx, int64_t input_tokens, int64_t output_tokens);
    const char *(*dir)(mr_context *cx);
    const struct json_t *(*options)(mr_context *cx);
    const char *(*error_text)(mr_context *cx);
    int (*child_id)(mr_context *cx, const char *target, const char *name, char ret_id[MR_ID_BYTES]);
    uint64_t (*now)(mr_context *cx);
};
/* The host's own part of a context follows. */
struct mr_context {
    const struct mr_host *host;
};

/* 8. The calls */
#if defined(__GNUC__)
#define MR_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define MR_INLINE       static inline __attribute__((unused))
#else
#define MR_PRINTF(f, a)
#define MR_INLINE static inline
#endif

/* The document */

/* The value at a plain path (".input.url", ".vision.major", ".job.id") or NULL. Lent until the next
 * call that suspends. */
MR_INLINE const struct json_t *mr_get(mr_context *cx, const char *path)
{
    return cx->host->get(cx, path);
}
/* Renders a template over the document. New reference in `*ret_value`. MR_E_SCHEMA (with the place)
 * when a part is missing. */
MR_INLINE int mr_render(mr_context *cx, const mr_template *tpl, struct json_t **ret_value)
{
    return cx->host->render(cx, tpl, ret_value);
}
/* As text: a string as it is, anything else as compact JSON. The text is the task's until it ends.
 * NULL when a LENIENT template has a missing part. */
MR_INLINE int mr_render_text(mr_context *cx, const mr_template *tpl, const char **ret_text,
                             uint64_t *ret_len)
{
    return cx->host->render_text(cx, tpl, ret_text, ret_len);
}
/* The one result of an expression. New reference. None, several or an error: MR_E_SCHEMA. */
MR_INLINE int mr_eval(mr_context *cx, const mr_expr *expr, struct json_t **ret_value)
{
    return cx->host->eval(cx, expr, ret_value);
}
/* Makes `value` (borrowed, copied) visible as `.NAME` to what this task renders from now on. */
MR_INLINE int mr_bind(mr_context *cx, const char *name, const struct json_t *value)
{
    return cx->host->bind(cx, name, value);
}

/* The outcome */

/* Sets the output; takes over the reference. MR_E_SCHEMA when the text would be over 1 MiB. The
 * last call counts. May suspend for texts over 64 KiB, which are printed on a thread. */
MR_SUSPENDS MR_INLINE int mr_output(mr_context *cx, struct json_t *value)
{
    return cx->host->output(cx, value);
}
/* Sets the output to JSON text that is already there; copied and checked. May suspend for texts
 * over 64 KiB. */
MR_SUSPENDS MR_INLINE int mr_output_text(mr_context *cx, const char *text, uint64_t len)
{
    return cx->host->output_text(cx, text, len);
}
/* Says why the task fails and returns `code`, for `return mr_fail(…)`. Message: what failed and
 * what would be right, lower case, no secrets. */
MR_INLINE MR_PRINTF(3, 4) int mr_fail(mr_context *cx, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    code = cx->host->fail(cx, code, MR_CLASS_DEFAULT, 0, format, args);
    va_end(args);
    return code;
}
/* The same with a class of its own and the time after which it makes sense to try again (0: the
 * stage's backoff). */
MR_INLINE MR_PRINTF(5, 6) int mr_fail_as(mr_context *cx, int code, int cls, uint64_t retry_in_ms,
                                         const char *format, ...)
{
    va_list args;
    va_start(args, format);
    code = cx->host->fail(cx, code, cls, retry_in_ms, format, args);
    va_end(args);
    return code;
}
/* Tokens that this task used; added to the job's usage. */
MR_INLINE void mr_usage(mr_context *cx, int64_t input_tokens, int64_t output_tokens)
{
    cx->host->usage(cx, input_tokens, output_tokens);
}

/* JSON of others. Texts over 64 KiB are parsed and printed on a thread: then these calls suspend.
 */

/* Parses text from outside with the host's limits. New reference. MR_E_BAD_RESPONSE with line and
 * column as the task's error. */
MR_SUSPENDS MR_INLINE int mr_parse(mr_context *cx, const char *text, uint64_t len,
                                   struct json_t **ret_value)
{
    return cx->host->parse(cx, text, len, ret_value);
}
/* Compact text; the task's until it ends. */
MR_SUSPENDS MR_INLINE int mr_print(mr_context *cx, const struct json_t *value,
                                   const char **ret_text, uint64_t *ret_len)
{
    return cx->host->print(cx, value, ret_text, ret_len);
}

/* Calls that suspend. Each returns MR_E_CANCELLED, MR_E_TIMEOUT (the stage's time is up), MR_E_LOST
 * or MR_E_STOPPING when the task is to end. */

/* One HTTP exchange; no redirects. MR_OK for every status that came. MR_E_CONNECT, MR_E_RESET,
 * MR_E_TIMEOUT, MR_E_BAD_RESPONSE (too large). */
MR_SUSPENDS MR_INLINE int mr_http(mr_context *cx, const struct mr_http *request,
                                  struct mr_http_reply *reply)
{
    return cx->host->http(cx, request, reply);
}
/* Runs another pipeline and waits for its result (new reference). MR_E_CALL_TIMEOUT,
 * MR_E_CALL_FAILED, MR_E_ID_CONFLICT. Repeated after a crash or a retry it lands on the same child.
 */
MR_SUSPENDS MR_INLINE int mr_call(mr_context *cx, const struct mr_child *child,
                                  struct json_t **ret_result)
{
    return cx->host->call(cx, child, ret_result);
}
/* Submits a job and goes on; returns when it is stored. An id that exists stands as it is. */
MR_SUSPENDS MR_INLINE int mr_dispatch(mr_context *cx, const struct mr_child *child,
                                      char ret_id[MR_ID_BYTES])
{
    return cx->host->dispatch(cx, child, ret_id);
}
/* What a former attempt stored under `name` (lent until the task ends), or NULL. Does not suspend.
 */
MR_INLINE int mr_step_get(mr_context *cx, const char *name, const char **ret_text,
                          uint64_t *ret_len)
{
    return cx->host->step_get(cx, name, ret_text, ret_len);
}
/* Stores JSON text as a partial outcome of this stage, so that it survives a crash and a retry.
 * `name`: [a-z0-9_.-]{1,64}. */
MR_SUSPENDS MR_INLINE int mr_step_put(mr_context *cx, const char *name, const char *text,
                                      uint64_t len)
{
    return cx->host->step_put(cx, name, text, len);
}
MR_SUSPENDS MR_INLINE int mr_sleep(mr_context *cx, uint64_t ms)
{
    return cx->host->sleep(cx, ms);
}
/* Runs `fn` on a thread and waits for it. It may touch its argument only, and cannot be cancelled
 * once begun: a cancelled task still waits for it. */
MR_SUSPENDS MR_INLINE int mr_offload(mr_context *cx, void (*fn)(void *arg), void *arg)
{
    return cx->host->offload(cx, fn, arg);
}
/* Gathers items of concurrent tasks that give the same `key`, for at most `linger_ms` or until
 * `max` are there, and has `fn` handle them together on a thread. Outcomes go into the items.
 * Batches of one key run one after the other. */
MR_SUSPENDS MR_INLINE int mr_batch(mr_context *cx, const void *key,
                                   void (*fn)(void **items, uint32_t count), void *item,
                                   uint32_t max, uint64_t linger_ms)
{
    return cx->host->batch(cx, key, fn, item, max, linger_ms);
}
/* Runs fn(cx, arg, 0 … count-1) side by side, each on a fiber of its own, and waits for all; the
 * first error in order of index. */
MR_SUSPENDS MR_INLINE int mr_parallel(mr_context *cx,
                                      int (*fn)(mr_context *cx, void *arg, uint32_t index),
                                      void *arg, uint32_t count)
{
    return cx->host->parallel(cx, fn, arg, count);
}

/* Calls that do not suspend */

/* The UUIDv5 of a name, as a child with `id` would get it. */
MR_INLINE int mr_uuid(mr_context *cx, const char *name, char ret_id[MR_ID_BYTES])
{
    return cx->host->uuid(cx, name, ret_id);
}
/* The id that a child with this target and this name (NULL: none) gets, for effects outside that
 * take an idempotency key. */
MR_INLINE int mr_child_id(mr_context *cx, const char *target, const char *name,
                          char ret_id[MR_ID_BYTES])
{
    return cx->host->child_id(cx, target, name, ret_id);
}
/* The folder of the pipeline file, absolute, for paths inside other options (a row of type PATH
 * arrives absolute by itself). */
MR_INLINE const char *mr_dir(mr_context *cx)
{
    return cx->host->dir(cx);
}
/* The stage's options as they stand in the file (prompt files inlined), borrowed. */
MR_INLINE const struct json_t *mr_options(mr_context *cx)
{
    return cx->host->options(cx);
}
/* What the last call that failed said ("line 3 column 7: ..."), never NULL; lent until the next
 * call. */
MR_INLINE const char *mr_error_text(mr_context *cx)
{
    return cx->host->error_text(cx);
}
/* Milliseconds of a clock that never goes back (in a test one that is turned by hand). */
MR_INLINE uint64_t mr_now(mr_context *cx)
{
    return cx->host->now(cx);
}
/* 0 to 100 within this stage, with an optional message; merged to one a second. */
MR_INLINE int mr_progress(mr_context *cx, int percent, const char *message)
{
    return cx->host->progress(cx, percent, message);
}
/* An event of the job's log, at most 16 KiB: kind "stage.progress" or "stage.delta"; a delta is
 * live only. */
MR_INLINE int mr_emit(mr_context *cx, const char *kind, const struct json_t *data)
{
    return cx->host->emit(cx, kind, data);
}
MR_INLINE MR_PRINTF(3, 4) void mr_log(mr_context *cx, int level, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    cx->host->log(cx, level, format, args);
    va_end(args);
}
/* Zeroed memory that ends with the task (in `open`: with the instance). Never NULL. */
MR_INLINE void *mr_alloc(mr_context *cx, size_t size)
{
    return cx->host->alloc(cx, size);
}
/* Has fn(arg) called when the task ends, however it ends; last in, first out. It may not suspend.
 */
MR_INLINE void mr_defer(mr_context *cx, void (*fn)(void *arg), void *arg)
{
    cx->host->defer(cx, fn, arg);
}
/* What `open` left, shared with all tasks of this stage in this process: it may have changed after
 * every call that suspends. */
MR_INLINE void *mr_instance(mr_context *cx)
{
    return cx->host->instance(cx);
}
/* Milliseconds until the stage's time is up. */
MR_INLINE uint64_t mr_time_left(mr_context *cx)
{
    return cx->host->time_left(cx);
}
/* Nonzero when the task is to end; a long computation asks now and then. */
MR_INLINE int mr_cancelled(mr_context *cx)
{
    return cx->host->cancelled(cx);
}
/* Whether the host has a function that was added after this plugin's minimum: `mr_has(cx,
 * offsetof(struct mr_host, batch))`. */
MR_INLINE int mr_has(mr_context *cx, size_t offset)
{
    return offset + sizeof(void (*)(void)) <= cx->host->size;
}

/* 9. The ABI and its history
 *
 * While the major is 0 the shape may change with each minor, and a plugin is accepted by hosts of
 * the same minor only. From 1.0 on: a host takes plugins of its major whose minor is not newer;
 * tables and structs grow at their ends; nothing is removed without a new major.
 *
 * 0.1  2026-11-20  first form */

#ifdef __cplusplus
}
#endif
#endif
