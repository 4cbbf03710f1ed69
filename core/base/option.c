/* Option rows and a JSON object to a settings struct.
 *
 * One pass over the object's keys finds the unknown ones, one pass over the rows reads each option
 * and then what belongs to its type. Nothing stops at the first error: a value that is wrong is
 * reported and its field left zero. A default goes through the same code as a value of the file; if
 * it is refused, the plugin has a bug, and the report says so. Rows are copied out one by one,
 * since those of an older plugin may be shorter than ours (option_row).
 *
 * Who owns what: strings, paths and list items lie in the caller's arena; expressions and templates
 * belong to the source's expr_set; a JSON value is referenced, and option_release drops that.
 *
 * What this file does not do: reading files named in options (the pipeline reader puts their text
 * in place before), and describing rows (option_describe.c). */
#include "base/option.h"
#include "base/limits.h"
#include "base/unit.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { NESTING_MAX = 8, NAME_MAX_LEN = 48, SHOWN_MAX = 40 };

struct reader {
    const struct option_source *source;
    struct arena *arena;
    struct report *report;
    struct buf pointer;     /* of the value being read */
    const char *default_of; /* the option whose default is being read; NULL: a value of the file */
    unsigned depth;
};

/* Rows */

void option_row(const struct option_rows *rows, uint32_t index, struct mr_option *ret_row)
{
    size_t size = rows->row_size ? rows->row_size : sizeof(*ret_row);
    memset(ret_row, 0, sizeof(*ret_row));
    memcpy(ret_row, (const char *)rows->rows + (size_t)index * size,
           size < sizeof(*ret_row) ? size : sizeof(*ret_row));
}

struct option_rows option_row_items(const struct option_rows *rows, const struct mr_option *row)
{
    return (struct option_rows){
        .rows = row->rows, .count = row->row_count, .row_size = rows->row_size};
}

const char *option_type_name(uint32_t type)
{
    static const char *const names[] = {
        [MR_TYPE_TEXT] = "text",         [MR_TYPE_PATH] = "path",
        [MR_TYPE_ENDPOINT] = "endpoint", [MR_TYPE_INT] = "integer",
        [MR_TYPE_REAL] = "number",       [MR_TYPE_BOOL] = "bool",
        [MR_TYPE_DURATION] = "duration", [MR_TYPE_SIZE] = "size",
        [MR_TYPE_CHOICE] = "choice",     [MR_TYPE_TEMPLATE] = "template",
        [MR_TYPE_EXPR] = "expression",   [MR_TYPE_JSON] = "json",
        [MR_TYPE_LIST] = "list",
    };
    return type > 0 && type < sizeof(names) / sizeof(names[0]) ? names[type] : "unknown";
}

static size_t field_size(const struct mr_option *row)
{
    switch (row->type) {
    case MR_TYPE_BOOL:
    case MR_TYPE_CHOICE:
        return sizeof(int32_t);
    case MR_TYPE_LIST:
        return sizeof(struct mr_list);
    default:
        return 8; /* integers, doubles; pointers are no larger */
    }
}

/* Takes the pointer back to what it was when it had `len` bytes. */
static void pointer_cut(struct reader *reader, size_t len)
{
    reader->pointer.failed = false;
    reader->pointer.len = len;
    if (reader->pointer.data)
        reader->pointer.data[len] = '\0';
}

/* Messages */

__attribute__((format(printf, 2, 3))) static struct error *problem(struct reader *reader,
                                                                   const char *format, ...)
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
static void describe_value(const json_t *value, bool secret, char *ret, size_t size)
{
    char number[32];
    switch (json_typeof(value)) {
    case JSON_STRING: {
        const char *text = json_string_value(value);
        bool cut = strlen(text) > SHOWN_MAX;
        if (secret)
            snprintf(ret, size, "this string");
        else
            snprintf(ret, size, "the string \"%.*s%s\"", SHOWN_MAX, text, cut ? "…" : "");
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

/* A bound as it would be written in the file. */
static void format_bound(const struct mr_option *row, int64_t bound, char ret[32])
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
    format_bound(row, row->min, low);
    format_bound(row, row->max, high);
    bool bounded = row->type != MR_TYPE_LIST && (row->min || row->max);
    const char *word = row->type < sizeof(wanted) / sizeof(wanted[0]) ? wanted[row->type] : NULL;
    snprintf(ret, size, "%s%s%s%s%s", word ? word : "a value", bounded ? " from " : "",
             bounded ? low : "", bounded ? " to " : "", bounded ? high : "");
}

static void wrong(struct reader *reader, const struct mr_option *row, const json_t *value)
{
    char got[160], want[300];
    describe_value(value, row->flags & MR_SECRET, got, sizeof(got));
    describe_wanted(row, want, sizeof(want));
    struct error *err = problem(reader, "option \"%s\" must be %s, not %s", row->name, want, got);
    if (reader->default_of)
        return;
    bool unit = row->type == MR_TYPE_DURATION || row->type == MR_TYPE_SIZE;
    if (unit && json_is_integer(value)) {
        const char *suffix = row->type == MR_TYPE_SIZE ? "MiB" : "s";
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

static bool is_bounded(const struct mr_option *row)
{
    return row->min != 0 || row->max != 0;
}

static bool read_string(struct reader *reader, const struct mr_option *row, const json_t *value,
                        const char **ret_text)
{
    if (!json_is_string(value)) {
        wrong(reader, row, value);
        return false;
    }
    *ret_text = json_string_value(value);
    if (strlen(*ret_text) == json_string_length(value))
        return true;
    problem(reader, "option \"%s\" contains a NUL character", row->name);
    return false;
}

static bool read_text(struct reader *reader, const struct mr_option *row, const json_t *value,
                      void *field)
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
        problem(reader, "option \"%s\" is an empty path", row->name);
        return false;
    }
    memcpy(field, &kept, sizeof(kept));
    return true;
}

static bool read_endpoint(struct reader *reader, const struct mr_option *row, const json_t *value,
                          void *field)
{
    const char *name = NULL;
    if (!read_string(reader, row, value, &name))
        return false;
    if (reader->source->has_endpoint && !reader->source->has_endpoint(reader->source->arg, name)) {
        struct error *err =
            problem(reader, "option \"%s\": endpoint \"%s\" is not configured", row->name, name);
        error_hint(err, "add \"endpoints\": {\"%s\": {\"base_url\": …}} to the configuration",
                   name);
        return false;
    }
    const char *kept = arena_ndup(reader->arena, name, strlen(name));
    memcpy(field, &kept, sizeof(kept));
    return true;
}

static bool read_number(struct reader *reader, const struct mr_option *row, const json_t *value,
                        void *field)
{
    bool integer = row->type == MR_TYPE_INT;
    bool fits = integer ? json_is_integer(value) : json_is_number(value);
    if (fits && is_bounded(row)) {
        if (integer) {
            json_int_t number = json_integer_value(value);
            fits = number >= row->min && number <= row->max;
        } else {
            double number = json_number_value(value);
            fits = number >= (double)row->min && number <= (double)row->max;
        }
    }
    if (!fits) {
        wrong(reader, row, value);
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

static bool read_bool(struct reader *reader, const struct mr_option *row, const json_t *value,
                      void *field)
{
    if (!json_is_boolean(value)) {
        wrong(reader, row, value);
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
static bool read_unit(struct reader *reader, const struct mr_option *row, const json_t *value,
                      void *field)
{
    const char *text = NULL;
    if (!json_is_string(value)) {
        wrong(reader, row, value);
        return false;
    }
    if (!read_string(reader, row, value, &text))
        return false;
    struct error why = {0};
    uint64_t number = 0;
    int rc = row->type == MR_TYPE_DURATION ? unit_parse_duration(text, &number, &why)
                                           : unit_parse_size(text, &number, &why);
    if (rc != MR_OK) {
        struct error *err = problem(reader, "option \"%s\": %s", row->name, why.message);
        if (!reader->default_of && why.hint[0])
            error_hint(err, "%s", why.hint);
        return false;
    }
    bool fits = is_bounded(row) ? (row->min <= 0 || number >= (uint64_t)row->min) &&
                                      (row->max <= 0 || number <= (uint64_t)row->max)
                                : number > 0 || default_is_zero(row);
    if (!fits && number == 0 && !is_bounded(row)) {
        problem(reader, "option \"%s\" may not be zero", row->name);
        return false;
    }
    if (!fits) {
        wrong(reader, row, value);
        return false;
    }
    memcpy(field, &number, sizeof(number));
    return true;
}

static bool read_choice(struct reader *reader, const struct mr_option *row, const json_t *value,
                        void *field)
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
    char want[300];
    describe_wanted(row, want, sizeof(want));
    problem(reader, "option \"%s\" must be %s, not \"%.*s\"", row->name, want, SHOWN_MAX,
            row->flags & MR_SECRET ? "…" : text);
    return false;
}

/* Expressions and templates report for themselves, so that a default's errors are taken aside and
 * reported as the plugin's. */
static bool read_expression(struct reader *reader, const struct mr_option *row, const json_t *value,
                            void *field)
{
    const struct option_source *source = reader->source;
    const char *text = NULL;
    if (!source->exprs) {
        problem(reader, "option \"%s\": expressions are not possible here", row->name);
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
        problem(reader, "%s", aside.items[0].message);
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

static bool read_object(struct reader *reader, const struct option_rows *rows, const json_t *object,
                        void *settings, size_t size);

static bool is_stage_name(const char *text)
{
    static const char *const taken[] = {"input", "job", "stages", "prompt"};
    if (*text < 'a' || *text > 'z' || strlen(text) > NAME_MAX_LEN)
        return false;
    for (const char *p = text; *p; p++)
        if (!((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '_'))
            return false;
    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++)
        if (strcmp(text, taken[i]) == 0)
            return false;
    return true;
}

/* MR_UNIQUE_NAMES: the "name" of row `index` against the grammar and all rows before it. */
static bool check_name(struct reader *reader, const json_t *list, size_t index)
{
    const json_t *value = json_object_get(json_array_get(list, index), "name");
    if (!json_is_string(value))
        return true; /* absent or of a wrong type: its own row says so */
    const char *name = json_string_value(value);
    size_t before = reader->pointer.len;
    json_pointer_push(&reader->pointer, "name");
    bool ok = true;
    if (!is_stage_name(name)) {
        struct error *err = problem(reader, "\"%s\" is not a usable name", name);
        error_hint(err, "a name is [a-z][a-z0-9_]{0,47} and not input, job, stages or prompt");
        ok = false;
    }
    for (size_t i = 0; i < index && ok; i++) {
        const char *other = json_text_or(json_array_get(list, i), "name", NULL);
        if (!other || strcmp(other, name) != 0)
            continue;
        struct error *err = problem(reader, "the name \"%s\" is there twice", name);
        error_hint(err, "entry %zu has it as well: names are unique in a list", i);
        ok = false;
    }
    pointer_cut(reader, before);
    return ok;
}

static bool read_list(struct reader *reader, const struct option_rows *rows,
                      const struct mr_option *row, const json_t *value, void *field)
{
    if (!json_is_array(value)) {
        wrong(reader, row, value);
        return false;
    }
    size_t count = json_array_size(value);
    bool few = is_bounded(row) && (int64_t)count < row->min;
    bool many = is_bounded(row) && row->max > 0 && (int64_t)count > row->max;
    if (few || many || count > UINT32_MAX || reader->depth >= NESTING_MAX) {
        problem(reader, "option \"%s\" must have %s %" PRId64 " entries, not %zu", row->name,
                few ? "at least" : "at most", few ? row->min : row->max, count);
        return false;
    }
    struct option_rows items_rows = option_row_items(rows, row);
    char *items = arena_alloc(reader->arena, count ? count * row->item_size : 1);
    struct mr_list list = {.items = items, .count = (uint32_t)count};
    memcpy(field, &list, sizeof(list)); /* before the items, so that option_release finds them */
    bool ok = true;
    reader->depth++;
    for (size_t i = 0; i < count; i++) {
        size_t before = reader->pointer.len;
        json_pointer_push_index(&reader->pointer, i);
        const json_t *item = json_array_get(value, i);
        if (!json_is_object(item)) {
            char got[160];
            describe_value(item, row->flags & MR_SECRET, got, sizeof(got));
            problem(reader, "each entry of \"%s\" must be an object, not %s", row->name, got);
            ok = false;
        } else {
            ok &=
                read_object(reader, &items_rows, item, items + i * row->item_size, row->item_size);
            if (row->flags & MR_UNIQUE_NAMES)
                ok &= check_name(reader, value, i);
        }
        pointer_cut(reader, before);
    }
    reader->depth--;
    return ok;
}

static bool read_value(struct reader *reader, const struct option_rows *rows,
                       const struct mr_option *row, const json_t *value, void *field)
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
    case MR_TYPE_LIST:
        return read_list(reader, rows, row, value, field);
    }
    problem(reader, "bug in the plugin: option \"%s\" has the unknown type %u", row->name,
            row->type);
    return false;
}

/* The default as a JSON value: JSON text for what is JSON in the file, bare text for what is a
 * string there. New reference, or NULL (reported). */
static json_t *default_value(struct reader *reader, const struct mr_option *row)
{
    switch (row->type) {
    case MR_TYPE_INT:
    case MR_TYPE_REAL:
    case MR_TYPE_BOOL:
    case MR_TYPE_TEMPLATE:
    case MR_TYPE_JSON:
    case MR_TYPE_LIST: {
        struct error why = {0};
        json_t *value = json_read(row->def, strlen(row->def), 0, &why);
        if (!value)
            problem(reader, "%s", why.message);
        return value;
    }
    default: {
        json_t *value = json_string(row->def);
        if (!value)
            problem(reader, "it is not UTF-8");
        return value;
    }
    }
}

static bool read_option(struct reader *reader, const struct option_rows *rows,
                        const struct mr_option *row, const json_t *object, void *field)
{
    const json_t *value = json_object_get(object, row->name);
    bool null_counts = row->type == MR_TYPE_TEMPLATE || row->type == MR_TYPE_JSON;
    if (json_is_null(value) && !null_counts)
        value = NULL;
    if (!value && row->flags & MR_REQUIRED) {
        struct error *err = problem(reader, "option \"%s\" is required", row->name);
        error_hint(err, "%s", row->doc ? row->doc : "");
        return false;
    }
    if (!value && !row->def)
        return true;

    size_t before = reader->pointer.len;
    json_pointer_push(&reader->pointer, row->name);
    bool ok = false;
    if (value) {
        ok = read_value(reader, rows, row, value, field);
    } else {
        reader->default_of = row->name;
        json_hold json_t *standard = default_value(reader, row);
        if (standard)
            ok = read_value(reader, rows, row, standard, field);
        reader->default_of = NULL;
    }
    pointer_cut(reader, before);
    return ok;
}

/* Reports a key that no row has, with the nearest that one has and all of them. */
static void unknown_key(struct reader *reader, const struct option_rows *rows, const char *key)
{
    size_t before = reader->pointer.len;
    json_pointer_push(&reader->pointer, key);
    struct error *err = problem(reader, "option \"%s\" is not known", key);
    pointer_cut(reader, before);

    const char **names = mem_zalloc((rows->count + 1) * sizeof(*names));
    buf_auto struct buf known;
    buf_init(&known, 160);
    bool full = false;
    for (uint32_t i = 0; i < rows->count; i++) {
        struct mr_option row;
        option_row(rows, i, &row);
        names[i] = row.name;
        if (full)
            continue;
        full = known.len + strlen(row.name) > 150;
        buf_format(&known, "%s%s", i ? ", " : "", full ? "…" : row.name);
    }
    const char *nearest = error_nearest(key, names);
    bool some = rows->count > 0;
    error_hint(err, "%s%s%s%s%s", nearest ? "did you mean \"" : "", nearest ? nearest : "",
               nearest ? "\"? " : "", some ? "Known: " : "there are no options here",
               some ? buf_text(&known) : "");
    free(names);
}

static bool is_row(const struct option_rows *rows, const char *key)
{
    for (uint32_t i = 0; i < rows->count; i++) {
        struct mr_option row;
        option_row(rows, i, &row);
        if (strcmp(row.name, key) == 0)
            return true;
    }
    return false;
}

static bool read_object(struct reader *reader, const struct option_rows *rows, const json_t *object,
                        void *settings, size_t size)
{
    bool ok = true;
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
        if (strncmp(key, "//", 2) == 0 || is_row(rows, key))
            continue;
        unknown_key(reader, rows, key);
        ok = false;
    }
    for (uint32_t i = 0; i < rows->count; i++) {
        struct mr_option row;
        option_row(rows, i, &row);
        if (row.offset > size || field_size(&row) > size - row.offset) {
            problem(reader,
                    "bug in the plugin: the field of option \"%s\" is outside of its struct",
                    row.name);
            ok = false;
            continue;
        }
        ok &= read_option(reader, rows, &row, object, (char *)settings + row.offset);
    }
    return ok;
}

bool option_read(const struct option_rows *rows, const json_t *object,
                 const struct option_source *source, void *settings, size_t size,
                 struct arena *arena, struct report *report)
{
    struct reader reader = {.source = source, .arena = arena, .report = report};
    buf_init(&reader.pointer, 4096);
    buf_add_text(&reader.pointer, source->pointer ? source->pointer : "");
    bool ok = false;
    if (object && !json_is_object(object)) {
        char got[160];
        describe_value(object, true, got, sizeof(got));
        problem(&reader, "options must be an object, not %s", got);
    } else {
        ok = read_object(&reader, rows, object, settings, size);
    }
    buf_done(&reader.pointer);
    return ok;
}

void option_release(const struct option_rows *rows, void *settings)
{
    for (uint32_t i = 0; i < rows->count; i++) {
        struct mr_option row;
        option_row(rows, i, &row);
        void *field = (char *)settings + row.offset;
        if (row.type == MR_TYPE_JSON) {
            json_t *value = NULL;
            memcpy(&value, field, sizeof(value));
            json_decref(value);
            memset(field, 0, sizeof(value));
        } else if (row.type == MR_TYPE_LIST) {
            struct mr_list list;
            memcpy(&list, field, sizeof(list));
            struct option_rows items = option_row_items(rows, &row);
            for (uint32_t n = 0; n < list.count; n++)
                option_release(&items, (char *)(uintptr_t)list.items + (size_t)n * row.item_size);
        }
    }
}
