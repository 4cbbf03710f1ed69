/* Option rows and a JSON object to a settings struct.
 *
 * One pass over the object's keys finds the unknown ones, one pass over the rows reads each option
 * and then what belongs to its type (option_value.c). Nothing stops at the first error: a value
 * that is wrong is reported and its field left zero. A default goes through the same code as a
 * value of the file; if it is refused, the plugin has a bug, and the report says so. Rows are
 * copied out one by one, since those of an older plugin may be shorter than ours (option_row).
 *
 * Who owns what: strings, paths and list items lie in the caller's arena; expressions and templates
 * belong to the source's expr_set; a JSON value is referenced, and option_release drops that.
 *
 * What this file does not do: reading files named in options (the pipeline reader puts their text
 * in place before), and describing rows (option_describe.c). */
#include "base/option_parts.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { NESTING_MAX = 8, NAME_MAX_LEN = 48 };

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
static void pointer_cut(struct option_reader *reader, size_t len)
{
    reader->pointer.failed = false;
    reader->pointer.len = len;
    if (reader->pointer.data)
        reader->pointer.data[len] = '\0';
}

static bool read_object(struct option_reader *reader, const struct option_rows *rows,
                        const json_t *object, void *settings, size_t size);

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
static bool check_name(struct option_reader *reader, const json_t *list, size_t index)
{
    const json_t *value = json_object_get(json_array_get(list, index), "name");
    if (!json_is_string(value))
        return true; /* absent or of a wrong type: its own row says so */
    const char *name = json_string_value(value);
    size_t before = reader->pointer.len;
    json_pointer_push(&reader->pointer, "name");
    bool ok = true;
    if (!is_stage_name(name)) {
        struct error *err = option_problem(reader, "\"%s\" is not a usable name", name);
        error_hint(err, "a name is [a-z][a-z0-9_]{0,47} and not input, job, stages or prompt");
        ok = false;
    }
    for (size_t i = 0; i < index && ok; i++) {
        const char *other = json_text_or(json_array_get(list, i), "name", NULL);
        if (!other || strcmp(other, name) != 0)
            continue;
        struct error *err = option_problem(reader, "the name \"%s\" is there twice", name);
        error_hint(err, "entry %zu has it as well: names are unique in a list", i);
        ok = false;
    }
    pointer_cut(reader, before);
    return ok;
}

static bool read_list(struct option_reader *reader, const struct option_rows *rows,
                      const struct mr_option *row, const json_t *value, void *field)
{
    if (!json_is_array(value)) {
        option_wrong(reader, row, value);
        return false;
    }
    size_t count = json_array_size(value);
    bool few = option_is_bounded(row) && (int64_t)count < row->min;
    bool many = option_has_upper(row) && (int64_t)count > row->max;
    if (few || many || count > UINT32_MAX || reader->depth >= NESTING_MAX) {
        option_problem(reader, "option \"%s\" must have %s %" PRId64 " entries, not %zu", row->name,
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
            option_value_text(item, row->flags & MR_SECRET, got, sizeof(got));
            option_problem(reader, "each entry of \"%s\" must be an object, not %s", row->name,
                           got);
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

static bool read_value(struct option_reader *reader, const struct option_rows *rows,
                       const struct mr_option *row, const json_t *value, void *field)
{
    if (row->type == MR_TYPE_LIST)
        return read_list(reader, rows, row, value, field);
    return option_value(reader, row, value, field);
}

static bool read_option(struct option_reader *reader, const struct option_rows *rows,
                        const struct mr_option *row, const json_t *object, void *field)
{
    const json_t *value = json_object_get(object, row->name);
    bool null_counts = row->type == MR_TYPE_TEMPLATE || row->type == MR_TYPE_JSON;
    if (json_is_null(value) && !null_counts)
        value = NULL;
    if (!value && row->flags & MR_REQUIRED) {
        struct error *err = option_problem(reader, "option \"%s\" is required", row->name);
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
        struct error why = {0};
        json_hold json_t *standard = option_default(row, &why);
        if (standard)
            ok = read_value(reader, rows, row, standard, field);
        else
            option_problem(reader, "%s", why.message);
        reader->default_of = NULL;
    }
    pointer_cut(reader, before);
    return ok;
}

/* Reports a key that no row has, with the nearest that one has and all of them. */
static void unknown_key(struct option_reader *reader, const struct option_rows *rows,
                        const char *key)
{
    size_t before = reader->pointer.len;
    json_pointer_push(&reader->pointer, key);
    struct error *err = option_problem(reader, "option \"%s\" is not known", key);
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

static bool read_object(struct option_reader *reader, const struct option_rows *rows,
                        const json_t *object, void *settings, size_t size)
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
            option_problem(reader,
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
    struct option_reader reader = {.source = source, .arena = arena, .report = report};
    buf_init(&reader.pointer, 4096);
    buf_add_text(&reader.pointer, source->pointer ? source->pointer : "");
    bool ok = false;
    if (object && !json_is_object(object)) {
        char got[160];
        option_value_text(object, true, got, sizeof(got));
        option_problem(&reader, "options must be an object, not %s", got);
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
