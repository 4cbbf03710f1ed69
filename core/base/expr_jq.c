/* The seam to libjq 1.6.
 *
 * All expressions of a set are one program: each a function of its own, called through a tree of
 * comparisons with the index that comes with the input. Compiling costs 16 ms whatever its length,
 * since jq compiles its builtins every time; a function each keeps the code of one below jq's limit
 * of 64 Ki words.
 *
 *     def mr_0: (…); def mr_1: (…); .[0] as $i | .[1] | if $i < 1 then mr_0 else mr_1 end
 *
 * The input is [index, document], with those members of the document that the expression reads.
 * Members become jq's values and results jansson's directly, without text. Integers beyond 2^53,
 * which jq would round, are refused with their place, and so are more values than
 * LIMIT_EXPR_VALUES. A result that is a whole number up to 2^53 is an integer, any other number a
 * real.
 *
 * jq 1.6 aborts when it is asked for a further result after an error. So a run takes one result,
 * asks for one more only to see whether there is any, and leaves the rest to the next jq_start,
 * which resets everything.
 *
 * When it compiles, jq 1.6 loads a library at $HOME/.jq, whose definitions go before its own:
 * whoever owns that file could redefine what is on the list of allowed words. So HOME is out of
 * jq's sight for that moment: `environ` points to a copy of the list without it. No other thread
 * may change the environment meanwhile; one that reads it misses HOME at the worst. */
#include "base/expr_parts.h"
#include "base/limits.h"
#include "base/utf8.h"
#include <jq.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EXACT_MAX 9007199254740992 /* 2^53 */

enum {
    PROGRAM_MAX = 64 << 20,
    PLACE_MAX = 200,
    SAID_MAX = 200,
    RESULT_DEPTH_MAX = LIMIT_JSON_DEPTH
};

struct jq_program {
    jq_state *jq;
};

/* Compiling */

static bool compile_without_home(jq_state *jq, const char *text)
{
    size_t count = 0, kept = 0;
    while (environ && environ[count])
        count++;
    char **saved = environ, **without = mem_zalloc((count + 1) * sizeof(*without));
    for (size_t i = 0; i < count; i++)
        if (strncmp(environ[i], "HOME=", 5) != 0)
            without[kept++] = environ[i];
    environ = without;
    bool ok = jq_compile(jq, text) != 0;
    environ = saved;
    free(without);
    return ok;
}

static void keep_message(void *arg, jv message)
{
    struct buf *said = arg;
    message = jq_format_error(message);
    if (jv_get_kind(message) == JV_KIND_STRING) {
        buf_add(said, jv_string_value(message), (size_t)jv_string_length_bytes(jv_copy(message)));
        buf_add_char(said, '\n');
    }
    jv_free(message);
}

/* Writes the choice among the functions `from` … `to` - 1. */
static void write_dispatch(struct buf *text, size_t from, size_t to)
{
    if (to - from == 1) {
        buf_format(text, "mr_%zu", from);
        return;
    }
    size_t middle = from + (to - from) / 2;
    buf_format(text, "if $i < %zu then ", middle);
    write_dispatch(text, from, middle);
    buf_add_text(text, " else ");
    write_dispatch(text, middle, to);
    buf_add_text(text, " end");
}

struct jq_program *jq_program_open(const char *const *texts, size_t count, struct buf *said)
{
    buf_auto struct buf text;
    buf_init(&text, PROGRAM_MAX);
    buf_add_text(&text, word_prelude);
    for (size_t i = 0; i < count; i++)
        buf_format(&text, "def mr_%zu: (%s);\n", i, texts[i]);
    buf_add_text(&text, ".[0] as $i | .[1] | ");
    write_dispatch(&text, 0, count);
    if (text.failed) {
        buf_add_text(said, "all expressions together are too long");
        return NULL;
    }
    struct jq_program *program = mem_zalloc(sizeof(*program));
    program->jq = jq_init();
    if (program->jq)
        jq_set_error_cb(program->jq, keep_message, said);
    if (!program->jq || !compile_without_home(program->jq, buf_text(&text))) {
        jq_program_close(program);
        return NULL;
    }
    jq_set_error_cb(program->jq, NULL, NULL);
    return program;
}

void jq_program_close(struct jq_program *program)
{
    if (!program)
        return;
    if (program->jq)
        jq_teardown(&program->jq);
    free(program);
}

/* jansson to jq */

struct conversion {
    size_t values;   /* so far */
    size_t place_at; /* where the place begins in `place`; it is written from its end */
    char place[PLACE_MAX];
    const char *why;
    json_int_t integer; /* the one that does not fit, when `why` is not set */
};

/* Puts a step before the place that is being written while the recursion goes back up. */
static void place_push(struct conversion *conversion, const char *step)
{
    size_t len = strlen(step);
    if (len > conversion->place_at)
        return; /* the end of it is what matters */
    conversion->place_at -= len;
    memcpy(conversion->place + conversion->place_at, step, len);
}

static bool to_jv(struct conversion *conversion, const json_t *value, jv *ret);

static bool array_to_jv(struct conversion *conversion, const json_t *array, jv *ret)
{
    size_t count = json_array_size(array);
    jv result = jv_array_sized(count < LIMIT_EXPR_VALUES ? (int)count : 0);
    for (size_t i = 0; i < count; i++) {
        jv item;
        if (!to_jv(conversion, json_array_get(array, i), &item)) {
            char step[32];
            snprintf(step, sizeof(step), "[%zu]", i);
            place_push(conversion, step);
            jv_free(result);
            return false;
        }
        result = jv_array_append(result, item);
    }
    *ret = result;
    return true;
}

static bool object_to_jv(struct conversion *conversion, const json_t *object, jv *ret)
{
    jv result = jv_object();
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
        jv member;
        if (!to_jv(conversion, value, &member)) {
            char step[64];
            size_t len = strlen(key);
            snprintf(step, sizeof(step), ".%.*s", (int)utf8_cut(key, len < 60 ? len : 60), key);
            place_push(conversion, step);
            jv_free(result);
            return false;
        }
        result = jv_object_set(result, jv_string(key), member);
    }
    *ret = result;
    return true;
}

static bool to_jv(struct conversion *conversion, const json_t *value, jv *ret)
{
    if (++conversion->values > LIMIT_EXPR_VALUES) {
        conversion->why = "more values than an expression with jq may read";
        return false;
    }
    switch (json_typeof(value)) {
    case JSON_NULL:
        *ret = jv_null();
        return true;
    case JSON_TRUE:
    case JSON_FALSE:
        *ret = jv_bool(json_is_true(value));
        return true;
    case JSON_STRING:
        *ret = jv_string_sized(json_string_value(value), (int)json_string_length(value));
        return true;
    case JSON_REAL:
        *ret = jv_number(json_real_value(value));
        return true;
    case JSON_INTEGER:
        conversion->integer = json_integer_value(value);
        if (conversion->integer > EXACT_MAX || conversion->integer < -EXACT_MAX)
            return false;
        *ret = jv_number((double)conversion->integer);
        return true;
    case JSON_ARRAY:
        return array_to_jv(conversion, value, ret);
    case JSON_OBJECT:
        return object_to_jv(conversion, value, ret);
    }
    return false;
}

static int conversion_failed(struct conversion *conversion, const char *name,
                             const struct mr_expr *expr, struct error *err)
{
    place_push(conversion, name);
    place_push(conversion, ".");
    int len = (int)(PLACE_MAX - conversion->place_at);
    const char *place = conversion->place + conversion->place_at;
    int rc;
    if (conversion->why) {
        rc = error_set(err, MR_E_SCHEMA, "expression \"%s\": %s (%u), at %.*s", expr->shown,
                       conversion->why, LIMIT_EXPR_VALUES, len, place);
        error_hint(err, "a plain path, as in {{ .a.b }}, has no such limit");
    } else {
        rc = error_set(err, MR_E_SCHEMA,
                       "expression \"%s\" needs jq, and %.*s is %" JSON_INTEGER_FORMAT
                       ", which jq cannot hold exactly",
                       expr->shown, len, place, conversion->integer);
        error_hint(err, "integers beyond 2^53 are exact in plain paths and in strings");
    }
    return rc;
}

/* jq to jansson */

struct result {
    size_t values;
    const char *why;
};

static json_t *from_jv(struct result *result, jv value, unsigned depth);

static json_t *number_from_jv(struct result *result, double number)
{
    if (!isfinite(number)) {
        result->why = "a number that is not finite";
        return NULL;
    }
    if (number == floor(number) && fabs(number) <= (double)EXACT_MAX)
        return json_integer((json_int_t)number);
    return json_real(number);
}

static json_t *array_from_jv(struct result *result, jv value, unsigned depth)
{
    json_t *array = json_array();
    int count = jv_array_length(jv_copy(value));
    for (int i = 0; i < count; i++) {
        jv item = jv_array_get(jv_copy(value), i);
        json_t *converted = from_jv(result, item, depth + 1);
        jv_free(item);
        if (!converted || json_array_append_new(array, converted) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *object_from_jv(struct result *result, jv value, unsigned depth)
{
    json_t *object = json_object();
    for (int i = jv_object_iter(value); jv_object_iter_valid(value, i);
         i = jv_object_iter_next(value, i)) {
        jv key = jv_object_iter_key(value, i);
        jv member = jv_object_iter_value(value, i);
        const char *name = jv_string_value(key);
        bool nul = strlen(name) != (size_t)jv_string_length_bytes(jv_copy(key));
        json_t *converted = nul ? NULL : from_jv(result, member, depth + 1);
        int rc = converted ? json_object_set_new(object, name, converted) : -1;
        jv_free(key);
        jv_free(member);
        if (rc != 0) {
            if (nul)
                result->why = "a key that contains \\u0000";
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

/* New reference; `value` is not consumed. */
static json_t *from_jv(struct result *result, jv value, unsigned depth)
{
    if (++result->values > LIMIT_EXPR_VALUES || depth > RESULT_DEPTH_MAX) {
        result->why = depth > RESULT_DEPTH_MAX ? "a value that is nested too deeply"
                                               : "more values than an expression with jq may give";
        return NULL;
    }
    switch (jv_get_kind(value)) {
    case JV_KIND_NULL:
        return json_null();
    case JV_KIND_TRUE:
        return json_true();
    case JV_KIND_FALSE:
        return json_false();
    case JV_KIND_NUMBER:
        return number_from_jv(result, jv_number_value(value));
    case JV_KIND_STRING:
        return json_stringn(jv_string_value(value), (size_t)jv_string_length_bytes(jv_copy(value)));
    case JV_KIND_ARRAY:
        return array_from_jv(result, value, depth);
    case JV_KIND_OBJECT:
        return object_from_jv(result, value, depth);
    case JV_KIND_INVALID:
        break;
    }
    result->why = "no value";
    return NULL;
}

/* Running */

struct gathering {
    const struct mr_expr *expr;
    struct doc *doc;
    struct error *err;
    struct conversion conversion;
    jv document;
    int rc;
};

static void gather(void *arg, const char *name)
{
    struct gathering *g = arg;
    json_t *value = NULL;
    jv member;
    if (g->rc == MR_OK)
        g->rc = doc_member(g->doc, name, &value, g->err);
    if (g->rc != MR_OK || !value)
        return;
    if (to_jv(&g->conversion, value, &member))
        g->document = jv_object_set(g->document, jv_string(name), member);
    else
        g->rc = conversion_failed(&g->conversion, name, g->expr, g->err);
}

/* Takes jq's message out of an invalid value (consumed). */
static int run_failed(const struct mr_expr *expr, jv message, struct error *err)
{
    if (jv_get_kind(message) != JV_KIND_STRING)
        message = jv_dump_string(message, 0);
    const char *text = jv_string_value(message);
    size_t len = strlen(text);
    int rc = error_set(err, MR_E_SCHEMA, "expression \"%s\": %.*s", expr->shown,
                       (int)utf8_cut(text, len < SAID_MAX ? len : SAID_MAX), text);
    jv_free(message);
    return rc;
}

int jq_program_run(struct jq_program *program, const struct mr_expr *expr, size_t index,
                   struct doc *doc, json_t **ret_value, bool *ret_several, struct error *err)
{
    struct gathering g = {.expr = expr,
                          .doc = doc,
                          .err = err,
                          .conversion = {.place_at = PLACE_MAX},
                          .document = jv_object()};
    if (expr->reads_all)
        doc_each(doc, gather, &g);
    else
        for (const char **name = expr->names; *name; name++)
            gather(&g, *name);
    if (g.rc != MR_OK) {
        jv_free(g.document);
        return g.rc;
    }

    jv input = jv_array_append(jv_array_append(jv_array(), jv_number((double)index)), g.document);
    jq_start(program->jq, input, 0);
    jv value = jq_next(program->jq);
    if (!jv_is_valid(value)) {
        if (jv_invalid_has_msg(jv_copy(value)))
            return run_failed(expr, jv_invalid_get_msg(value), err);
        jv_free(value);
        *ret_value = NULL;
        *ret_several = false;
        return MR_OK;
    }
    struct result result = {0};
    json_t *converted = from_jv(&result, value, 0);
    jv_free(value);
    if (!converted)
        return error_set(err, MR_E_SCHEMA, "expression \"%s\" gives %s", expr->shown,
                         result.why ? result.why : "text that is not UTF-8");

    value = jq_next(program->jq);
    bool another = jv_is_valid(value);
    if (!another && jv_invalid_has_msg(jv_copy(value))) {
        json_decref(converted);
        return run_failed(expr, jv_invalid_get_msg(value), err);
    }
    jv_free(value);
    *ret_value = converted;
    *ret_several = another;
    return MR_OK;
}
