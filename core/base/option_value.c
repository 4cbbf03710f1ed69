/* One value by the type of its row, and what is said when it is wrong: what it is, what would be
 * right, and how that would be written. */
#include "base/limits.h"
#include "base/option_parts.h"
#include "base/unit.h"
#include "base/utf8.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { SHOWN_MAX = 40 };

/* Messages */

struct error *option_problem(struct option_reader *reader, const char *format, ...)
{
    char message[400];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    const char *file = reader->source->file, *pointer = buf_text(&reader->pointer);
    if (!reader->default_of)
        return report_add(reader->report, file, pointer, "%s", message);
    struct error *err = report_add(reader->report, file, pointer,
                                   "bug in the plugin: the default of option \"%s\" is wrong: %s",
                                   reader->default_of, message);
    error_hint(err, "report it to the plugin's author, or give the option a value");
    return err;
}

/* What a value is, for "…, not WHAT". Values of secret options are not shown. */
void option_value_text(const json_t *value, bool secret, char *ret, size_t size)
{
    char number[32];
    switch (json_typeof(value)) {
    case JSON_STRING: {
        const char *text = json_string_value(value);
        size_t len = strlen(text), kept = len > SHOWN_MAX ? utf8_cut(text, SHOWN_MAX) : len;
        if (secret)
            snprintf(ret, size, "this string");
        else
            snprintf(ret, size, "the string \"%.*s%s\"", (int)kept, text, kept < len ? "…" : "");
        return;
    }
    case JSON_INTEGER:
        snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        snprintf(ret, size, "the number %s", secret ? "given" : number);
        return;
    case JSON_REAL:
        snprintf(number, sizeof(number), "%g", json_real_value(value));
        snprintf(ret, size, "the number %s", secret ? "given" : number);
        return;
    case JSON_TRUE:
    case JSON_FALSE:
        snprintf(ret, size, "%s", json_is_true(value) ? "true" : "false");
        return;
    case JSON_NULL:
        snprintf(ret, size, "null");
        return;
    case JSON_ARRAY:
        snprintf(ret, size, "an array");
        return;
    case JSON_OBJECT:
        snprintf(ret, size, "an object");
        return;
    }
}

bool option_is_bounded(const struct mr_option *row)
{
    return row->min != 0 || row->max != 0;
}

/* Whether `max` is a bound; 0 above a positive `min` is none. */
bool option_has_upper(const struct mr_option *row)
{
    return option_is_bounded(row) && row->max >= row->min;
}

/* A bound as it would be written in the file. */
void option_bound_text(const struct mr_option *row, int64_t bound, char ret[32])
{
    if (row->type == MR_TYPE_DURATION)
        unit_format_duration((uint64_t)bound, ret);
    else if (row->type == MR_TYPE_SIZE)
        unit_format_size((uint64_t)bound, ret);
    else
        snprintf(ret, 32, "%" PRId64, bound);
}

/* What the option takes, e.g. `an integer from 1 to 10`. */
static void describe_wanted(const struct mr_option *row, char *ret, size_t size)
{
    static const char *const wanted[] = {
        [MR_TYPE_TEXT] = "a string",
        [MR_TYPE_PATH] = "a path (a string)",
        [MR_TYPE_ENDPOINT] = "the name of an endpoint (a string)",
        [MR_TYPE_INT] = "an integer",
        [MR_TYPE_REAL] = "a number",
        [MR_TYPE_BOOL] = "true or false",
        [MR_TYPE_DURATION] = "a duration such as \"30s\"",
        [MR_TYPE_SIZE] = "a size such as \"8MiB\"",
        [MR_TYPE_EXPR] = "a jq expression (a string)",
        [MR_TYPE_LIST] = "an array of objects",
    };
    if (row->type == MR_TYPE_CHOICE) {
        size_t at = (size_t)snprintf(ret, size, "one of \"");
        for (const char *p = row->choices ? row->choices : ""; *p && at + 8 < size; p++) {
            if (*p == '|')
                at += (size_t)snprintf(ret + at, size - at, "\", \"");
            else
                ret[at++] = *p;
        }
        snprintf(ret + at, size - at, "\"");
        return;
    }
    char low[32], high[32];
    option_bound_text(row, row->min, low);
    option_bound_text(row, row->max, high);
    bool bounded = row->type != MR_TYPE_LIST && option_is_bounded(row),
         open = !option_has_upper(row);
    const char *word = row->type < sizeof(wanted) / sizeof(wanted[0]) ? wanted[row->type] : NULL;
    word = word ? word : "a value";
    if (bounded && open)
        snprintf(ret, size, "%s, at least %s", word, low);
    else
        snprintf(ret, size, "%s%s%s%s%s", word, bounded ? " from " : "", bounded ? low : "",
                 bounded ? " to " : "", bounded ? high : "");
}

void option_wrong(struct option_reader *reader, const struct mr_option *row, const json_t *value)
{
    char got[160], want[300];
    option_value_text(value, row->flags & MR_SECRET, got, sizeof(got));
    describe_wanted(row, want, sizeof(want));
    struct error *err =
        option_problem(reader, "option \"%s\" must be %s, not %s", row->name, want, got);
    if (reader->default_of)
        return;
    bool unit = row->type == MR_TYPE_DURATION || row->type == MR_TYPE_SIZE;
    if (unit && json_is_integer(value)) {
        const char *suffix = row->type == MR_TYPE_SIZE ? "B" : "s";
        error_hint(err, "a number needs quotes and a unit, as in \"%" JSON_INTEGER_FORMAT "%s\"",
                   json_integer_value(value), suffix);
    } else if (json_is_string(value) && (row->type == MR_TYPE_INT || row->type == MR_TYPE_REAL ||
                                         row->type == MR_TYPE_BOOL)) {
        error_hint(err, "written without quotes%s%s", row->def ? ", as in " : "",
                   row->def ? row->def : "");
    } else if (row->def && row->type != MR_TYPE_CHOICE) {
        error_hint(err, "the default is %s", row->def);
    }
}

/* Values by type. Each returns false when it has reported something. */

static bool read_string(struct option_reader *reader, const struct mr_option *row,
                        const json_t *value, const char **ret_text)
{
    if (!json_is_string(value)) {
        option_wrong(reader, row, value);
        return false;
    }
    *ret_text = json_string_value(value);
    if (strlen(*ret_text) == json_string_length(value))
        return true;
    option_problem(reader, "option \"%s\" contains a NUL character", row->name);
    return false;
}

static bool read_text(struct option_reader *reader, const struct mr_option *row,
                      const json_t *value, void *field)
{
    const char *text = NULL;
    if (!read_string(reader, row, value, &text))
        return false;
    const char *kept = NULL;
    if (row->type == MR_TYPE_PATH && text[0] != '/' && reader->source->dir) {
        mem_auto char *path = mem_format("%s/%s", reader->source->dir, text);
        kept = arena_ndup(reader->arena, path, strlen(path));
    } else {
        kept = arena_ndup(reader->arena, text, strlen(text));
    }
    if (row->type == MR_TYPE_PATH && !*text) {
        option_problem(reader, "option \"%s\" is an empty path", row->name);
        return false;
    }
    memcpy(field, &kept, sizeof(kept));
    return true;
}

static bool read_endpoint(struct option_reader *reader, const struct mr_option *row,
                          const json_t *value, void *field)
{
    const char *name = NULL;
    if (!read_string(reader, row, value, &name))
        return false;
    if (reader->source->has_endpoint && !reader->source->has_endpoint(reader->source->arg, name)) {
        struct error *err = option_problem(
            reader, "option \"%s\": endpoint \"%s\" is not configured", row->name, name);
        const char *near =
            reader->source->endpoints ? error_nearest(name, reader->source->endpoints) : NULL;
        if (near)
            error_hint(err, "did you mean \"%s\"?", near);
        else
            error_hint(err, "add \"endpoints\": {\"%s\": {\"base_url\": …}} to the configuration",
                       name);
        return false;
    }
    const char *kept = arena_ndup(reader->arena, name, strlen(name));
    memcpy(field, &kept, sizeof(kept));
    return true;
}

static bool read_number(struct option_reader *reader, const struct mr_option *row,
                        const json_t *value, void *field)
{
    bool integer = row->type == MR_TYPE_INT;
    bool fits = integer ? json_is_integer(value) : json_is_number(value);
    if (fits && option_is_bounded(row)) {
        if (integer) {
            json_int_t number = json_integer_value(value);
            fits = number >= row->min && (!option_has_upper(row) || number <= row->max);
        } else {
            double number = json_number_value(value);
            fits = number >= (double)row->min &&
                   (!option_has_upper(row) || number <= (double)row->max);
        }
    }
    if (!fits) {
        option_wrong(reader, row, value);
        return false;
    }
    if (integer) {
        int64_t number = json_integer_value(value);
        memcpy(field, &number, sizeof(number));
    } else {
        double number = json_number_value(value);
        memcpy(field, &number, sizeof(number));
    }
    return true;
}

static bool read_bool(struct option_reader *reader, const struct mr_option *row,
                      const json_t *value, void *field)
{
    if (!json_is_boolean(value)) {
        option_wrong(reader, row, value);
        return false;
    }
    int32_t truth = json_is_true(value);
    memcpy(field, &truth, sizeof(truth));
    return true;
}

static bool default_is_zero(const struct mr_option *row)
{
    uint64_t number = 1;
    if (!row->def)
        return false;
    int rc = row->type == MR_TYPE_DURATION ? unit_parse_duration(row->def, &number, NULL)
                                           : unit_parse_size(row->def, &number, NULL);
    return rc == MR_OK && number == 0;
}

/* Durations and sizes. Zero is allowed where the row says so: by a lower bound of 0 beside an upper
 * one, or by its default. */
static bool read_unit(struct option_reader *reader, const struct mr_option *row,
                      const json_t *value, void *field)
{
    const char *text = NULL;
    if (!json_is_string(value)) {
        option_wrong(reader, row, value);
        return false;
    }
    if (!read_string(reader, row, value, &text))
        return false;
    struct error why = {0};
    uint64_t number = 0;
    int rc = row->type == MR_TYPE_DURATION ? unit_parse_duration(text, &number, &why)
                                           : unit_parse_size(text, &number, &why);
    if (rc != MR_OK) {
        struct error *err = option_problem(reader, "option \"%s\": %s", row->name, why.message);
        if (!reader->default_of && why.hint[0])
            error_hint(err, "%s", why.hint);
        return false;
    }
    bool fits = option_is_bounded(row)
                    ? (row->min <= 0 || number >= (uint64_t)row->min) &&
                          (!option_has_upper(row) || number <= (uint64_t)row->max)
                    : number > 0 || default_is_zero(row);
    if (!fits && number == 0 && !option_is_bounded(row)) {
        option_problem(reader, "option \"%s\" may not be zero", row->name);
        return false;
    }
    if (!fits) {
        option_wrong(reader, row, value);
        return false;
    }
    memcpy(field, &number, sizeof(number));
    return true;
}

static bool read_choice(struct option_reader *reader, const struct mr_option *row,
                        const json_t *value, void *field)
{
    const char *text = NULL;
    if (!read_string(reader, row, value, &text))
        return false;
    int32_t index = 0;
    size_t len = strlen(text);
    for (const char *p = row->choices ? row->choices : ""; *p; index++) {
        size_t word = strcspn(p, "|");
        if (word == len && memcmp(p, text, len) == 0) {
            memcpy(field, &index, sizeof(index));
            return true;
        }
        p += word;
        p += *p == '|';
    }
    option_wrong(reader, row, value);
    return false;
}

/* Expressions and templates report for themselves, so that a default's errors are taken aside and
 * reported as the plugin's. */
static bool read_expression(struct option_reader *reader, const struct mr_option *row,
                            const json_t *value, void *field)
{
    const struct option_source *source = reader->source;
    const char *text = NULL;
    if (!source->exprs) {
        option_problem(reader, "option \"%s\": expressions are not possible here", row->name);
        return false;
    }
    if (row->type == MR_TYPE_EXPR && !read_string(reader, row, value, &text))
        return false;
    struct report aside;
    report_init(&aside);
    struct report *report = reader->default_of ? &aside : reader->report;
    const void *handle = NULL;
    uint32_t flags = row->flags & (MR_NOT_EMPTY | MR_NO_COLON | MR_LENIENT);
    const char *pointer = buf_text(&reader->pointer);
    if (row->type == MR_TYPE_EXPR)
        handle = expr_add(source->exprs, text, report, source->file, pointer);
    else
        handle = expr_add_template(source->exprs, value, flags, report, source->file, pointer);
    if (!handle && aside.count > 0)
        option_problem(reader, "%s", aside.items[0].message);
    report_done(&aside);
    if (!handle)
        return false;
    memcpy(field, &handle, sizeof(handle));
    return true;
}

static bool read_json(const json_t *value, void *field)
{
    const json_t *kept = json_incref((json_t *)(uintptr_t)value); /* the count is not the value */
    memcpy(field, &kept, sizeof(kept));
    return true;
}

bool option_value(struct option_reader *reader, const struct mr_option *row, const json_t *value,
                  void *field)
{
    switch (row->type) {
    case MR_TYPE_TEXT:
    case MR_TYPE_PATH:
        return read_text(reader, row, value, field);
    case MR_TYPE_ENDPOINT:
        return read_endpoint(reader, row, value, field);
    case MR_TYPE_INT:
    case MR_TYPE_REAL:
        return read_number(reader, row, value, field);
    case MR_TYPE_BOOL:
        return read_bool(reader, row, value, field);
    case MR_TYPE_DURATION:
    case MR_TYPE_SIZE:
        return read_unit(reader, row, value, field);
    case MR_TYPE_CHOICE:
        return read_choice(reader, row, value, field);
    case MR_TYPE_TEMPLATE:
    case MR_TYPE_EXPR:
        return read_expression(reader, row, value, field);
    case MR_TYPE_JSON:
        return read_json(value, field);
    }
    option_problem(reader, "bug in the plugin: option \"%s\" has the unknown type %u", row->name,
                   row->type);
    return false;
}

json_t *option_default(const struct mr_option *row, struct error *err)
{
    switch (row->type) {
    case MR_TYPE_INT:
    case MR_TYPE_REAL:
    case MR_TYPE_BOOL:
    case MR_TYPE_TEMPLATE:
    case MR_TYPE_JSON:
    case MR_TYPE_LIST:
        return json_read(row->def, strlen(row->def), 0, err);
    default: {
        json_t *value = json_string(row->def);
        if (!value)
            error_set(err, MR_E_SCHEMA, "it is not UTF-8");
        return value;
    }
    }
}
