/* JSON: reading with bounds, printing, pointers.
 *
 * Reading. jansson's parser recurses, 80 bytes of stack a level, to a depth of its own of 2048, and
 * its printer takes 305: neither fits a fiber. So a linear scan counts brackets outside of strings
 * first. On every prefix that the parser accepts scan and parser agree on what is a string, so the
 * scan never finds less than what the parser will descend to. NUL bytes, no part of any JSON text,
 * are refused here too: jansson passes over some of them (it reads [1 NUL] as [1]). Everything else
 * that is to be refused is refused by jansson: duplicate keys, bad UTF-8, lone surrogates, \u0000
 * (without JSON_ALLOW_NUL), integers beyond 64 bit and reals beyond a double. What it says "near"
 * the place is left out: the text may be anybody's secret.
 *
 * Printing. One printer for both forms; the canonical one sorts keys. jansson's own would write 0.1
 * as 0.10000000000000001 and recurse without a bound. Trees that were read here are bounded; those
 * that others built are checked on the way. Both forms are byte for byte what Python's
 * json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=…) gives, so that ids can
 * be computed elsewhere.
 *
 * The shortest real. A decimal of up to 15 digits survives the way through a double, so if any that
 * short gives the value, printing 15 digits finds it; else 16 or 17 do. Two exceptions: subnormal
 * doubles hold fewer digits, so all lengths are tried; and at a power of two the gap below is half
 * of the gap above, so that the shortest decimal may be the next one above the nearest of its
 * length. (2^-44 is 5.684341886080802e-14, although …801 is nearer.) */
#include "base/json.h"

#include "base/limits.h"
#include "base/mem.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Depth to which trees are printed. What the process builds has values that were read inside values
 * of its own, which are a few levels deep. */
enum { PRINT_DEPTH_MAX = 2 * LIMIT_JSON_DEPTH };

/* Reading */

/* Scans until the nesting passes `max`; gives the offset where it does, or `len`. */
static size_t scan_depth(const char *text, size_t len, unsigned max, unsigned *ret_deepest)
{
    unsigned depth = 0, deepest = 0;
    bool in_string = false;
    size_t i = 0;
    for (; i < len; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (depth == max)
                break;
            depth++;
            if (depth > deepest)
                deepest = depth;
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        }
    }
    *ret_deepest = deepest;
    return i < len ? i : len;
}

unsigned json_text_depth(const char *text, size_t len)
{
    unsigned deepest;
    scan_depth(text, len, UINT32_MAX, &deepest);
    return deepest;
}

/* Line and column (in bytes) of an offset, both from 1. */
static void place_of(const char *text, size_t at, size_t *ret_line, size_t *ret_column)
{
    size_t line = 1, start = 0;
    for (size_t i = 0; i < at; i++) {
        if (text[i] == '\n') {
            line++;
            start = i + 1;
        }
    }
    *ret_line = line;
    *ret_column = at - start + 1;
}

json_t *json_read(const char *text, size_t len, unsigned depth_max, struct error *err)
{
    if (depth_max == 0)
        depth_max = LIMIT_JSON_DEPTH;
    const char *nul = len > 0 ? memchr(text, '\0', len) : NULL;
    unsigned deepest;
    size_t at = nul != NULL ? (size_t)(nul - text) : scan_depth(text, len, depth_max, &deepest);
    if (at < len) {
        size_t line, column;
        place_of(text, at, &line, &column);
        if (nul != NULL)
            error_set(err, MR_E_BAD_RESPONSE, "not valid JSON: line %zu, column %zu: NUL byte",
                      line, column);
        else
            error_set(err, MR_E_BAD_RESPONSE,
                      "not acceptable as JSON: line %zu, column %zu: nested deeper than %u levels",
                      line, column, depth_max);
        return NULL;
    }

    json_error_t where;
    json_t *value = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &where);
    if (value == NULL) {
        const char *what = where.text;
        enum json_error_code code = json_error_code(&where);
        if (code == json_error_null_character || code == json_error_null_byte_in_key)
            what = "\\u0000 is not accepted"; /* jansson's words name a flag of its own */
        const char *near = strstr(what, " near '");
        int shown = near != NULL ? (int)(near - what) : (int)strlen(what);
        error_set(err, MR_E_BAD_RESPONSE, "not valid JSON: line %d, column %d: %.*s", where.line,
                  where.column, shown, what);
    }
    return value;
}

/* Printing */

struct printer {
    struct buf *buf;
    bool sorted;
    bool too_deep, not_finite; /* why it failed, when not for want of room */
};

/* A positive decimal: d.ddd × 10^exponent, d not 0, no zeros at the end. */
struct decimal {
    char digits[24];
    int count, exponent;
};

static void trim_zeros(struct decimal *decimal)
{
    while (decimal->count > 1 && decimal->digits[decimal->count - 1] == '0')
        decimal->count--;
}

/* `real` rounded to `count` digits. */
static struct decimal decimal_round(double real, int count)
{
    char text[40];
    snprintf(text, sizeof(text), "%.*e", count - 1, real);
    struct decimal decimal = {.count = 0};
    const char *p = text;
    for (; *p != 'e'; p++) /* what is no digit is the locale's decimal point */
        if (*p >= '0' && *p <= '9')
            decimal.digits[decimal.count++] = *p;
    decimal.exponent = (int)strtol(p + 1, NULL, 10);
    trim_zeros(&decimal);
    return decimal;
}

/* The next decimal above with `count` digits. */
static struct decimal decimal_above(struct decimal decimal, int count)
{
    while (decimal.count < count)
        decimal.digits[decimal.count++] = '0';
    int i = count - 1;
    while (i >= 0 && decimal.digits[i] == '9')
        decimal.digits[i--] = '0';
    if (i >= 0) {
        decimal.digits[i]++;
    } else {
        decimal.digits[0] = '1'; /* 9.99 became 10.0 */
        decimal.exponent++;
    }
    trim_zeros(&decimal);
    return decimal;
}

/* Whether the decimal gives `real` when read again. Without a point: locales differ in it. */
static bool decimal_gives(const struct decimal *decimal, double real)
{
    char text[40];
    snprintf(text, sizeof(text), "%.*se%d", decimal->count, decimal->digits,
             decimal->exponent - (decimal->count - 1));
    return strtod(text, NULL) == real;
}

/* The shortest decimal that gives `real` (finite, above 0); see the top of the file. */
static struct decimal decimal_shortest(double real)
{
    int exponent;
    bool power_of_two = frexp(real, &exponent) == 0.5;
    for (int count = real < DBL_MIN ? 1 : DBL_DIG; count < DBL_DECIMAL_DIG; count++) {
        struct decimal decimal = decimal_round(real, count);
        if (decimal_gives(&decimal, real))
            return decimal;
        if (power_of_two) {
            decimal = decimal_above(decimal, count);
            if (decimal_gives(&decimal, real))
                return decimal;
        }
    }
    return decimal_round(real, DBL_DECIMAL_DIG);
}

/* As Python's repr: an exponent from 1e16 up and below 0.0001, and always a point or an exponent.
 */
static bool print_real(struct printer *printer, double real)
{
    struct buf *buf = printer->buf;
    if (!isfinite(real)) {
        printer->not_finite = true;
        return false;
    }
    if (signbit(real))
        buf_add_char(buf, '-');
    if (real == 0.0)
        return buf_add_text(buf, "0.0");

    struct decimal decimal = decimal_shortest(fabs(real));
    const char *digits = decimal.digits;
    size_t count = (size_t)decimal.count;
    int exponent = decimal.exponent;
    if (exponent < -4 || exponent >= 16) {
        buf_add(buf, digits, 1);
        if (count > 1) {
            buf_add_char(buf, '.');
            buf_add(buf, digits + 1, count - 1);
        }
        return buf_format(buf, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
    }
    if (exponent < 0) {
        buf_add(buf, "0.000", (size_t)(1 - exponent));
        return buf_add(buf, digits, count);
    }
    size_t whole = (size_t)exponent + 1; /* digits before the point */
    if (count > whole) {
        buf_add(buf, digits, whole);
        buf_add_char(buf, '.');
        return buf_add(buf, digits + whole, count - whole);
    }
    buf_add(buf, digits, count);
    buf_add(buf, "000000000000000", whole - count);
    return buf_add_text(buf, ".0");
}

static bool print_value(struct printer *printer, const json_t *value, unsigned depth);

static bool print_member(struct printer *printer, const char *key, const json_t *value,
                         unsigned depth)
{
    buf_add_json_string(printer->buf, key, strlen(key));
    buf_add_char(printer->buf, ':');
    return print_value(printer, value, depth);
}

/* strcmp compares as unsigned bytes, and the order of UTF-8 by bytes is that of code points. */
static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool print_object_sorted(struct printer *printer, json_t *object, unsigned depth)
{
    mem_auto const char **keys = mem_resize(NULL, json_object_size(object), sizeof(*keys));
    size_t count = 0;
    const char *key;
    json_t *member;
    json_object_foreach (object, key, member) {
        keys[count++] = key;
    }
    qsort(keys, count, sizeof(*keys), compare_keys);
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buf_add_char(printer->buf, ',');
        if (!print_member(printer, keys[i], json_object_get(object, keys[i]), depth))
            return false;
    }
    return true;
}

static bool print_object(struct printer *printer, json_t *object, unsigned depth)
{
    if (printer->sorted)
        return print_object_sorted(printer, object, depth);
    bool first = true;
    const char *key;
    json_t *member;
    json_object_foreach (object, key, member) {
        if (!first)
            buf_add_char(printer->buf, ',');
        first = false;
        if (!print_member(printer, key, member, depth))
            return false;
    }
    return true;
}

static bool print_array(struct printer *printer, const json_t *array, unsigned depth)
{
    size_t count = json_array_size(array);
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buf_add_char(printer->buf, ',');
        if (!print_value(printer, json_array_get(array, i), depth))
            return false;
    }
    return true;
}

/* `depth`: of the arrays and objects around the value. Each level ends as soon as one below it
 * fails, so that a tree that contains itself costs no more than the buffer's bound. */
static bool print_value(struct printer *printer, const json_t *value, unsigned depth)
{
    struct buf *buf = printer->buf;
    switch (json_typeof(value)) {
    case JSON_NULL:
        return buf_add_text(buf, "null");
    case JSON_TRUE:
        return buf_add_text(buf, "true");
    case JSON_FALSE:
        return buf_add_text(buf, "false");
    case JSON_INTEGER:
        return buf_format(buf, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    case JSON_REAL:
        return print_real(printer, json_real_value(value));
    case JSON_STRING:
        return buf_add_json_string(buf, json_string_value(value), json_string_length(value));
    case JSON_ARRAY:
    case JSON_OBJECT:
        break;
    }
    if (depth == PRINT_DEPTH_MAX) {
        printer->too_deep = true;
        return false;
    }
    bool object = json_is_object(value);
    buf_add_char(buf, object ? '{' : '[');
    /* Iterating takes a json_t that is not const and changes nothing. */
    bool ok = object ? print_object(printer, (json_t *)(uintptr_t)value, depth + 1)
                     : print_array(printer, value, depth + 1);
    return ok && buf_add_char(buf, object ? '}' : ']');
}

static bool print(struct printer *printer, const json_t *value)
{
    bool ok = value != NULL && print_value(printer, value, 0) && !printer->buf->failed;
    if (!ok)
        printer->buf->failed = true;
    return ok;
}

bool json_print_to(const json_t *value, struct buf *buf)
{
    return print(&(struct printer){.buf = buf}, value);
}

bool json_canonical_to(const json_t *value, struct buf *buf)
{
    return print(&(struct printer){.buf = buf, .sorted = true}, value);
}

char *json_print(const json_t *value, size_t max_bytes, size_t *ret_len, struct error *err)
{
    struct buf buf;
    buf_init(&buf, max_bytes);
    struct printer printer = {.buf = &buf};
    if (print(&printer, value)) {
        if (ret_len != NULL)
            *ret_len = buf.len;
        return buf_take(&buf);
    }
    buf_done(&buf);
    if (value == NULL)
        error_set(err, MR_E_INTERNAL, "no JSON value to print");
    else if (printer.too_deep)
        error_set(err, MR_E_SCHEMA, "a JSON value is nested deeper than %u levels",
                  PRINT_DEPTH_MAX);
    else if (printer.not_finite)
        error_set(err, MR_E_SCHEMA, "a number is not finite, which JSON cannot express");
    else
        error_set(err, MR_E_SCHEMA, "a JSON value is larger than %zu bytes as text", max_bytes);
    return NULL;
}

/* Pointers */

/* The value of an array index (RFC 6901 section 4: no leading zeros), or SIZE_MAX when it is none.
 */
static size_t parse_index(const char *token, size_t len)
{
    if (len == 0 || len > 9 || (token[0] == '0' && len > 1))
        return SIZE_MAX;
    size_t index = 0;
    for (size_t i = 0; i < len; i++) {
        if (token[i] < '0' || token[i] > '9')
            return SIZE_MAX;
        index = index * 10 + (size_t)(token[i] - '0');
    }
    return index;
}

/* The member whose key is the token with ~1 and ~0 resolved. */
static json_t *member_at(const json_t *object, const char *token, size_t len)
{
    mem_auto char *key = mem_ndup(token, len);
    size_t out = 0;
    for (size_t in = 0; in < len; in++, out++) {
        key[out] = token[in];
        if (token[in] != '~')
            continue;
        in++;
        if (in == len || (token[in] != '0' && token[in] != '1'))
            return NULL;
        key[out] = token[in] == '0' ? '~' : '/';
    }
    key[out] = '\0';
    return json_object_get(object, key);
}

json_t *json_at(const json_t *value, const char *pointer)
{
    while (value != NULL && *pointer != '\0') {
        if (*pointer != '/')
            return NULL;
        const char *token = pointer + 1;
        size_t len = strcspn(token, "/");
        if (json_is_object(value))
            value = member_at(value, token, len);
        else if (json_is_array(value))
            value = json_array_get(value, parse_index(token, len));
        else
            value = NULL;
        pointer = token + len;
    }
    return (json_t *)(uintptr_t)value;
}

bool json_pointer_push(struct buf *pointer, const char *token)
{
    buf_add_char(pointer, '/');
    for (; *token != '\0'; token++) {
        if (*token == '~')
            buf_add_text(pointer, "~0");
        else if (*token == '/')
            buf_add_text(pointer, "~1");
        else
            buf_add_char(pointer, *token);
    }
    return !pointer->failed;
}

bool json_pointer_push_index(struct buf *pointer, size_t index)
{
    return buf_format(pointer, "/%zu", index);
}

/* Members */

const char *json_text_or(const json_t *object, const char *key, const char *fallback)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : fallback;
}

int64_t json_int_or(const json_t *object, const char *key, int64_t fallback)
{
    const json_t *value = json_object_get(object, key);
    return json_is_integer(value) ? (int64_t)json_integer_value(value) : fallback;
}
