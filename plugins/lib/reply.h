/* What plugins that speak HTTP share: finding a header, and how long the other side asks us to
 * wait.
 *
 * Header only, so that a plugin stays one shared object without undefined symbols. */
#pragma once

#include <millrace/plugin.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* The longest wait that is honoured; more is cut to it. */
#define REPLY_WAIT_MAX_MS 120000u

/* The value of a header (name in lower case), or NULL. */
static inline const char *reply_header(const struct mr_http_reply *reply, const char *name)
{
    for (uint32_t i = 0; i < reply->header_count; i++)
        if (strcmp(reply->headers[i].name, name) == 0)
            return reply->headers[i].value;
    return NULL;
}

/* "12" or "0.5" in thousandths (ms where the unit is the second); -1 when it is no such number. */
static inline int64_t reply_parse_milli(const char *text)
{
    int64_t value = 0;
    int64_t unit = 1000;
    int digits = 0;
    while (*text == ' ' || *text == '\t')
        text++;
    for (; *text >= '0' && *text <= '9'; text++, digits++)
        if (value < INT64_MAX / 100000)
            value = value * 10 + (*text - '0');
    value *= 1000;
    if (*text == '.')
        for (text++; *text >= '0' && *text <= '9'; text++, digits++) {
            unit /= 10;
            value += (*text - '0') * unit;
        }
    while (*text == ' ' || *text == '\t')
        text++;
    return digits == 0 || *text != 0 ? -1 : value;
}

/* Seconds since 1970 of an IMF-fixdate (RFC 9110 section 5.6.7), or -1. Not strptime: that follows
 * the locale. */
static inline int64_t reply_parse_date(const char *text)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct tm tm = {0};
    char month[4] = "";
    if (sscanf(text, "%*3[A-Za-z], %2d %3[A-Za-z] %4d %2d:%2d:%2d GMT", &tm.tm_mday, month,
               &tm.tm_year, &tm.tm_hour, &tm.tm_min, &tm.tm_sec) != 6)
        return -1;
    const char *found = strlen(month) == 3 ? strstr(months, month) : NULL;
    if (!found || (found - months) % 3 != 0 || tm.tm_year < 1970)
        return -1;
    tm.tm_mon = (int)(found - months) / 3;
    tm.tm_year -= 1900;
    return (int64_t)timegm(&tm);
}

/* How long the other side asks to wait, in ms: `retry-after-ms`, else `Retry-After` (seconds, also
 * with a fraction, or a date, counted from the answer's own `Date` when it has one). 0: it does not
 * say. At most REPLY_WAIT_MAX_MS. */
static inline uint64_t reply_wait_ms(const struct mr_http_reply *reply)
{
    int64_t ms = -1;
    const char *value = reply_header(reply, "retry-after-ms");
    if (value && (ms = reply_parse_milli(value)) > 0)
        ms = (ms + 999) / 1000;
    value = reply_header(reply, "retry-after");
    if (ms <= 0 && value) {
        ms = reply_parse_milli(value);
        if (ms < 0) {
            const char *date = reply_header(reply, "date");
            int64_t now = date ? reply_parse_date(date) : -1;
            int64_t until = reply_parse_date(value);
            if (now < 0)
                now = (int64_t)time(NULL);
            ms = until > now
                     ? (until - now > REPLY_WAIT_MAX_MS ? REPLY_WAIT_MAX_MS : until - now) * 1000
                     : 0;
        }
    }
    if (ms <= 0)
        return 0;
    return ms > (int64_t)REPLY_WAIT_MAX_MS ? REPLY_WAIT_MAX_MS : (uint64_t)ms;
}

/* Copies text from outside into a message: one line, no control bytes, whole UTF-8 characters, cut
 * with "..." at `size`. */
static inline const char *reply_one_line(const char *text, char *buf, size_t size)
{
    size_t n = 0;
    size_t i = 0;
    for (; text[i] && n + 4 < size; i++) {
        unsigned char c = (unsigned char)text[i];
        buf[n++] = c < 0x20 || c == 0x7f ? ' ' : (char)c;
    }
    if (text[i]) {
        while (n > 0 && ((unsigned char)text[i] & 0xc0) == 0x80)
            i--, n--;
        memcpy(buf + n, "...", 3);
        n += 3;
    }
    buf[n] = 0;
    return buf;
}
