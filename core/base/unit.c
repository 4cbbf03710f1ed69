/* Durations and sizes as text: one table of suffixes each, integers throughout, so that nothing is
 * off by a rounding. What is finer than a millisecond is rounded up: only zero gives zero. */
#include "base/unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct suffix {
    const char *text;
    uint64_t factor;
};

/* From large to small: of texts that are as short as any, with as few decimals, formatting takes
 * the first. */
static const struct suffix durations[] = {
    {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1},
};
static const struct suffix sizes[] = {
    {"GiB", 1ull << 30},
    {"MiB", 1ull << 20},
    {"KiB", 1ull << 10},
    {"B", 1},
};
#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

#define DURATION_MAX_MS (366 * 86400000ull)
#define SIZE_MAX_BYTES  ((uint64_t)INT64_MAX) /* option rows have signed bounds */

static const struct suffix *find_suffix(const struct suffix *table, size_t count, const char *text)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(table[i].text, text) == 0)
            return &table[i];
    return NULL;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Reads `[0-9]+`; UINT64_MAX stands for anything that large. NULL when there is no digit. */
static const char *read_whole(const char *text, uint64_t *ret_value)
{
    if (!is_digit(*text))
        return NULL;
    uint64_t value = 0;
    for (; is_digit(*text); text++) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
            value = UINT64_MAX;
    }
    *ret_value = value;
    return text;
}

/* A fraction as numerator and power of ten. Nine digits count: a billionth of a day is well under a
 * millisecond. `rest` tells whether any of the others is not 0. */
struct fraction {
    uint64_t value, scale;
    bool rest;
};

static const char *read_fraction(const char *text, struct fraction *ret)
{
    *ret = (struct fraction){.scale = 1};
    if (*text != '.')
        return text;
    text++;
    if (!is_digit(*text))
        return NULL;
    for (; is_digit(*text); text++) {
        if (ret->scale < 1000000000) {
            ret->scale *= 10;
            ret->value = ret->value * 10 + (uint64_t)(*text - '0');
        } else if (*text != '0') {
            ret->rest = true;
        }
    }
    return text;
}

static int refuse(struct error *err, const char *text, const char *what, const char *hint)
{
    error_set(err, MR_E_SCHEMA, "\"%.60s\" is %s", text, what);
    error_hint(err, "%s", hint);
    return MR_E_SCHEMA;
}

int unit_parse_duration(const char *text, uint64_t *ret_ms, struct error *err)
{
    static const char hint[] =
        "a number and one of ms, s, m, h, d, such as \"250ms\", \"1.5s\" or \"1h\"";
    uint64_t whole = 0;
    struct fraction fraction = {.scale = 1};
    const char *end = read_whole(text, &whole);
    if (end != NULL)
        end = read_fraction(end, &fraction);
    const struct suffix *unit = end != NULL ? find_suffix(durations, COUNT(durations), end) : NULL;
    if (unit == NULL)
        return refuse(err, text, "no duration", hint);

    uint64_t part = fraction.value * unit->factor; /* below 10^9 × 10^8 */
    uint64_t part_ms = part / fraction.scale;
    if (part % fraction.scale != 0 || fraction.rest)
        part_ms++;
    uint64_t ms;
    if (__builtin_mul_overflow(whole, unit->factor, &ms) ||
        __builtin_add_overflow(ms, part_ms, &ms) || ms > DURATION_MAX_MS)
        return refuse(err, text, "too long a duration", "366d at most");
    *ret_ms = ms;
    return MR_OK;
}

int unit_parse_size(const char *text, uint64_t *ret_bytes, struct error *err)
{
    static const char hint[] =
        "a whole number and one of B, KiB, MiB, GiB, such as \"512KiB\" or \"8MiB\"";
    uint64_t whole = 0;
    const char *end = read_whole(text, &whole);
    const struct suffix *unit = end != NULL ? find_suffix(sizes, COUNT(sizes), end) : NULL;
    if (unit == NULL)
        return refuse(err, text, "no size", hint);
    uint64_t bytes;
    if (__builtin_mul_overflow(whole, unit->factor, &bytes) || bytes > SIZE_MAX_BYTES)
        return refuse(err, text, "too large a size", "less than 8589934592GiB");
    *ret_bytes = bytes;
    return MR_OK;
}

/* `ms` in a unit with at most three decimals, when it can be said so exactly. */
static bool format_in(uint64_t ms, const struct suffix *unit, char ret[32])
{
    uint64_t whole = ms / unit->factor, rest = ms % unit->factor;
    uint64_t thousandths = rest * 1000;
    if (thousandths % unit->factor != 0)
        return false;
    thousandths /= unit->factor;
    if (thousandths == 0) {
        snprintf(ret, 32, "%" PRIu64 "%s", whole, unit->text);
        return true;
    }
    char decimals[8];
    snprintf(decimals, sizeof(decimals), "%03u", (unsigned)(thousandths % 1000));
    for (size_t len = 3; decimals[len - 1] == '0'; len--)
        decimals[len - 1] = '\0';
    snprintf(ret, 32, "%" PRIu64 ".%s%s", whole, decimals, unit->text);
    return true;
}

void unit_format_duration(uint64_t ms, char ret[32])
{
    if (ms == 0) {
        memcpy(ret, "0s", 3);
        return;
    }
    size_t shortest = SIZE_MAX, fewest_decimals = 0;
    for (size_t i = 0; i < COUNT(durations); i++) {
        char text[32];
        if (!format_in(ms, &durations[i], text))
            continue;
        size_t len = strlen(text);
        const char *point = strchr(text, '.');
        size_t decimals = point != NULL ? strspn(point + 1, "0123456789") : 0;
        if (len < shortest || (len == shortest && decimals < fewest_decimals)) {
            memcpy(ret, text, len + 1);
            shortest = len;
            fewest_decimals = decimals;
        }
    }
}

void unit_format_size(uint64_t bytes, char ret[32])
{
    const struct suffix *unit = &sizes[COUNT(sizes) - 1];
    for (size_t i = 0; bytes > 0 && i < COUNT(sizes); i++) {
        if (bytes % sizes[i].factor == 0) {
            unit = &sizes[i];
            break;
        }
    }
    snprintf(ret, 32, "%" PRIu64 "%s", bytes / unit->factor, unit->text);
}
