/* What option rows say, for people (`millrace plugins NAME`) and for programs.
 *
 * The text is a table: name, type, what holds when the option is absent, and the sentence, wrapped;
 * rows of a list stand below it, indented. Defaults of secret options are not shown. */
#include "base/option_parts.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 100, DEPTH_MAX = 8, INDENT = 2 };

struct columns {
    size_t name, type, rest;
};

/* "required", the default, or nothing. */
static void describe_absent(const struct mr_option *row, char *ret, size_t size)
{
    if (row->flags & MR_REQUIRED)
        snprintf(ret, size, "required");
    else if (!row->def)
        snprintf(ret, size, "-");
    else
        snprintf(ret, size, "%s", row->flags & MR_SECRET ? "(secret)" : row->def);
}

static size_t greater(size_t a, size_t b)
{
    return a > b ? a : b;
}

static void measure(const struct option_rows *rows, size_t indent, struct columns *columns)
{
    for (uint32_t i = 0; i < rows->count; i++) {
        struct mr_option row;
        char absent[64];
        option_row(rows, i, &row);
        describe_absent(&row, absent, sizeof(absent));
        columns->name = greater(columns->name, indent + strlen(row.name));
        columns->type = greater(columns->type, strlen(option_type_name(row.type)));
        columns->rest = greater(columns->rest, strlen(absent));
        if (row.type == MR_TYPE_LIST && indent < DEPTH_MAX * INDENT) {
            struct option_rows items = option_row_items(rows, &row);
            measure(&items, indent + INDENT, columns);
        }
    }
}

/* The sentence, and what the row says besides: choices, bounds. */
static void describe_sentence(const struct mr_option *row, struct buf *buf)
{
    buf_add_text(buf, row->doc ? row->doc : "");
    if (row->type == MR_TYPE_CHOICE && row->choices) {
        buf_add_text(buf, " One of ");
        for (const char *p = row->choices; *p; p++)
            if (*p == '|')
                buf_add_text(buf, ", ");
            else
                buf_add_char(buf, *p);
        buf_add_char(buf, '.');
    }
    if (!option_is_bounded(row))
        return;
    char low[32], high[32];
    option_bound_text(row, row->min, low);
    option_bound_text(row, row->max, high);
    const char *unit = row->type == MR_TYPE_LIST ? " entries" : "";
    if (option_has_upper(row))
        buf_format(buf, " From %s to %s%s.", low, high, unit);
    else
        buf_format(buf, " At least %s%s.", low, unit);
}

/* Characters, not bytes: what begins a UTF-8 sequence counts. */
static size_t width_of(const char *text, size_t len)
{
    size_t width = 0;
    for (size_t i = 0; i < len; i++)
        width += ((unsigned char)text[i] & 0xc0) != 0x80;
    return width;
}

static void add_wrapped(struct buf *buf, const char *text, size_t indent)
{
    size_t column = indent;
    while (*text) {
        size_t len = strcspn(text, " "), width = width_of(text, len);
        if (column > indent && column + 1 + width > WIDTH) {
            buf_format(buf, "\n%*s", (int)indent, "");
            column = indent;
        } else if (column > indent) {
            buf_add_char(buf, ' ');
            column++;
        }
        buf_add(buf, text, len);
        column += width;
        text += len;
        text += strspn(text, " ");
    }
    buf_add_char(buf, '\n');
}

static void describe_rows(const struct option_rows *rows, size_t indent,
                          const struct columns *columns, struct buf *buf)
{
    for (uint32_t i = 0; i < rows->count; i++) {
        struct mr_option row;
        char absent[64];
        option_row(rows, i, &row);
        describe_absent(&row, absent, sizeof(absent));
        buf_auto struct buf sentence;
        buf_init(&sentence, 8192);
        describe_sentence(&row, &sentence);
        buf_format(buf, "%*s%-*s  %-*s  %-*s  ", (int)indent, "", (int)(columns->name - indent),
                   row.name, (int)columns->type, option_type_name(row.type), (int)columns->rest,
                   absent);
        size_t left = columns->name + columns->type + columns->rest + 6;
        add_wrapped(buf, buf_text(&sentence), left);
        if (row.type == MR_TYPE_LIST && indent < DEPTH_MAX * INDENT) {
            struct option_rows items = option_row_items(rows, &row);
            describe_rows(&items, indent + INDENT, columns, buf);
        }
    }
}

bool option_describe_text(const struct option_rows *rows, struct buf *buf)
{
    struct columns columns = {0};
    measure(rows, INDENT, &columns);
    describe_rows(rows, INDENT, &columns, buf);
    return !buf->failed;
}

static void set_bound(json_t *object, const char *key, const struct mr_option *row, int64_t bound)
{
    char text[32];
    if (row->type == MR_TYPE_DURATION || row->type == MR_TYPE_SIZE) {
        option_bound_text(row, bound, text);
        json_object_set_new(object, key, json_string(text));
    } else {
        json_object_set_new(object, key, json_integer(bound));
    }
}

static json_t *choices_json(const char *choices)
{
    json_t *array = json_array();
    for (const char *p = choices; *p;) {
        size_t len = strcspn(p, "|");
        json_array_append_new(array, json_stringn(p, len));
        p += len;
        p += *p == '|';
    }
    return array;
}

static json_t *rows_json(const struct option_rows *rows, unsigned depth)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < rows->count; i++) {
        struct mr_option row;
        option_row(rows, i, &row);
        json_t *object = json_object();
        json_object_set_new(object, "name", json_string(row.name));
        json_object_set_new(object, "type", json_string(option_type_name(row.type)));
        json_object_set_new(object, "required", json_boolean(row.flags & MR_REQUIRED));
        if (row.flags & MR_SECRET)
            json_object_set_new(object, "secret", json_true());
        else if (row.def)
            json_object_set_new(object, "default", option_default(&row, NULL));
        json_object_set_new(object, "doc", json_string(row.doc ? row.doc : ""));
        if (row.type == MR_TYPE_CHOICE && row.choices)
            json_object_set_new(object, "choices", choices_json(row.choices));
        if (option_is_bounded(&row)) {
            set_bound(object, "min", &row, row.min);
            if (option_has_upper(&row))
                set_bound(object, "max", &row, row.max);
        }
        if (row.type == MR_TYPE_LIST && depth < DEPTH_MAX) {
            struct option_rows items = option_row_items(rows, &row);
            json_object_set_new(object, "rows", rows_json(&items, depth + 1));
        }
        json_array_append_new(array, object);
    }
    return array;
}

json_t *option_describe_json(const struct option_rows *rows)
{
    return rows_json(rows, 0);
}
