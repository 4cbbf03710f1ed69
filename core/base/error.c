/* Errors as values, and the one table they come from.
 *
 * MR_ERRORS in millrace/plugin.h is the table: one row a code, with its word, class, HTTP status
 * and sentence. Everything below that maps one of these to another looks it up there, so that a new
 * code is one new row. Codes reach us from plugins too: what is not in the table counts as
 * `internal`, a bug.
 *
 * Texts are formatted into a local first, since arguments may point into the record, and then
 * copied so that the record always holds valid UTF-8 without cut characters: it will end up in
 * JSON, whatever bytes an upstream sent. Nothing here logs. */
#include "base/error.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/utf8.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct row {
    int code;
    enum mr_class class;
    int http_status;
    const char *name, *text;
};

static const struct row rows[] = {
#define MR_X(name, number, word, cls, http, text) {number, MR_CLASS_##cls, http, word, text},
    MR_ERRORS(MR_X)
#undef MR_X
};
enum { ROW_COUNT = sizeof(rows) / sizeof(rows[0]) };

/* Indexed by enum mr_class. */
static const char *const class_names[] = {
    [MR_CLASS_DEFAULT] = "default",
    [MR_CLASS_RETRY] = "retry",
    [MR_CLASS_THROTTLED] = "throttled",
    [MR_CLASS_PERMANENT] = "permanent",
    [MR_CLASS_CANCELLED] = "cancelled",
    [MR_CLASS_CRASH] = "crash",
    [MR_CLASS_BUG] = "bug",
};
enum { CLASS_COUNT = sizeof(class_names) / sizeof(class_names[0]) };

/* The row of a code; that of MR_E_INTERNAL when it has none. */
static const struct row *row_of(int code)
{
    const struct row *internal = NULL;
    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (rows[i].code == code)
            return &rows[i];
        if (rows[i].code == MR_E_INTERNAL)
            internal = &rows[i];
    }
    return internal;
}

const char *error_name(int code)
{
    return row_of(code)->name;
}

int error_code(const char *name)
{
    for (size_t i = 0; i < ROW_COUNT; i++)
        if (strcmp(rows[i].name, name) == 0)
            return rows[i].code;
    return 0;
}

const char *error_text(int code)
{
    return row_of(code)->text;
}

enum mr_class error_class(int code)
{
    return code == MR_OK ? MR_CLASS_DEFAULT : row_of(code)->class;
}

enum mr_class error_class_of(const struct error *err)
{
    bool own = err->class > MR_CLASS_DEFAULT && err->class < CLASS_COUNT;
    return own ? (enum mr_class)err->class : error_class(err->code);
}

const char *error_class_name(enum mr_class class)
{
    return (unsigned)class < CLASS_COUNT ? class_names[class] : class_names[MR_CLASS_BUG];
}

enum mr_class error_class_find(const char *name)
{
    for (unsigned i = MR_CLASS_DEFAULT + 1; i < CLASS_COUNT; i++)
        if (strcmp(class_names[i], name) == 0)
            return (enum mr_class)i;
    return MR_CLASS_DEFAULT;
}

int error_http_status(int code)
{
    return code == MR_OK ? 200 : row_of(code)->http_status;
}

/* Records */

enum { FIELD_MAX = 400 };
_Static_assert(sizeof(((struct error *)0)->message) <= FIELD_MAX &&
                   sizeof(((struct error *)0)->detail) <= FIELD_MAX &&
                   sizeof(((struct error *)0)->hint) <= FIELD_MAX &&
                   sizeof(((struct error *)0)->where) <= FIELD_MAX,
               "format_field has room for every field");

/* Formats into `field` of `size` bytes. */
static __attribute__((format(printf, 3, 0))) void format_field(char *field, size_t size,
                                                               const char *format, va_list args)
{
    char text[FIELD_MAX];
    int wanted = vsnprintf(text, size, format, args);
    size_t len = 0;
    if (wanted > 0)
        len = (size_t)wanted < size ? (size_t)wanted : utf8_cut(text, size - 1);
    for (size_t i = 0; i < len;) {
        size_t step = utf8_step(text + i, len - i);
        if (step == 0) {
            text[i] = '?';
            step = 1;
        }
        i += step;
    }
    memcpy(field, text, len);
    field[len] = '\0';
}

int error_set(struct error *err, int code, const char *format, ...)
{
    if (err == NULL)
        return code;
    va_list args;
    va_start(args, format);
    format_field(err->message, sizeof(err->message), format, args);
    va_end(args);
    err->code = code;
    err->class = MR_CLASS_DEFAULT;
    err->retry_in_ms = 0;
    err->detail[0] = err->hint[0] = err->where[0] = '\0';
    return code;
}

/* The three setters of one field differ in the field only. */
#define SETTER(field)                                                                              \
    void error_##field(struct error *err, const char *format, ...)                                 \
    {                                                                                              \
        if (err == NULL)                                                                           \
            return;                                                                                \
        va_list args;                                                                              \
        va_start(args, format);                                                                    \
        format_field(err->field, sizeof(err->field), format, args);                                \
        va_end(args);                                                                              \
    }
SETTER(detail)
SETTER(hint)
SETTER(where)
#undef SETTER

/* Reports */

void report_init(struct report *report)
{
    *report = (struct report){0};
}

void report_done(struct report *report)
{
    free(report->items);
    report_init(report);
}

/* The next free item. The array always has one item more than are counted, which takes those over
 * the limit. */
static struct error *report_next(struct report *report)
{
    if (report->count + 1 >= report->cap) {
        size_t cap = report->cap > 0 ? report->cap * 2 : 8;
        report->items = mem_resize(report->items, cap, sizeof(*report->items));
        report->cap = cap;
    }
    struct error *item = &report->items[report->count];
    *item = (struct error){0};
    return item;
}

static __attribute__((format(printf, 5, 0))) struct error *
report_put(struct report *report, int code, const char *file, const char *pointer,
           const char *format, va_list args)
{
    struct error *item = report_next(report);
    item->code = code;
    format_field(item->message, sizeof(item->message), format, args);
    bool both = file != NULL && pointer != NULL && *pointer != '\0';
    error_where(item, "%s%s%s", file != NULL ? file : "", both ? ": " : "",
                pointer != NULL ? pointer : "");
    if (report->count < LIMIT_REPORT) {
        report->count++;
        if (code == MR_OK)
            report->warnings++;
    } else if (code != MR_OK) {
        report->dropped++;
    }
    return item;
}

struct error *report_add(struct report *report, const char *file, const char *pointer,
                         const char *format, ...)
{
    va_list args;
    va_start(args, format);
    struct error *item = report_put(report, MR_E_SCHEMA, file, pointer, format, args);
    va_end(args);
    return item;
}

struct error *report_warn(struct report *report, const char *file, const char *pointer,
                          const char *format, ...)
{
    va_list args;
    va_start(args, format);
    struct error *item = report_put(report, MR_OK, file, pointer, format, args);
    va_end(args);
    return item;
}

size_t report_errors(const struct report *report)
{
    return report->count - report->warnings + report->dropped;
}

/* Suggestions */

enum { WORD_MAX = 64 }; /* names are at most that long; longer words get no suggestion */

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static size_t min_of(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Insertions, deletions, replacements and swaps of neighbours that make `a` out of `b`, each letter
 * touched once (optimal string alignment), by the usual table of which three rows are kept. */
static size_t distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t table[3][WORD_MAX + 1];
    size_t *before = table[0], *last = table[1], *now = table[2];
    for (size_t j = 0; j <= b_len; j++)
        last[j] = before[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        now[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            bool same = lower(a[i - 1]) == lower(b[j - 1]);
            size_t best = last[j - 1] + (same ? 0 : 1);
            best = min_of(best, min_of(last[j], now[j - 1]) + 1);
            bool swapped = i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) &&
                           lower(a[i - 2]) == lower(b[j - 1]);
            if (swapped)
                best = min_of(best, before[j - 2] + 1);
            now[j] = best;
        }
        size_t *oldest = before;
        before = last;
        last = now;
        now = oldest;
    }
    return last[b_len];
}

const char *error_nearest(const char *word, const char *const *words)
{
    size_t len = strlen(word);
    if (len == 0 || len > WORD_MAX)
        return NULL;
    size_t most = len / 3 > 2 ? len / 3 : 2;
    if (most >= len)
        most = len - 1;

    const char *nearest = NULL;
    for (; *words != NULL; words++) {
        size_t other_len = strlen(*words);
        if (other_len > WORD_MAX)
            continue;
        size_t steps = distance(word, len, *words, other_len);
        if (nearest == NULL ? steps <= most : steps < most) {
            nearest = *words;
            most = steps;
        }
    }
    return nearest;
}
