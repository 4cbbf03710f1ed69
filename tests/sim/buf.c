/*
 * buf: see buf.h. Capacity doubles; utf8_length decides what is a character for buf_json.
 */
#include "buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void no_memory(void)
{
    fputs("mr-sim: out of memory\n", stderr);
    abort();
}

void *xcalloc(size_t count, size_t size)
{
    void *p = calloc(count, size);

    if (!p)
        no_memory();
    return p;
}

char *xstrndup(const char *s, size_t n)
{
    char *copy = xcalloc(n + 1, 1);

    memcpy(copy, s, n);
    return copy;
}

char *buf_room(struct buf *b, size_t n)
{
    if (b->cap - b->n < n) {
        size_t cap = b->cap ? b->cap : 256;

        while (cap - b->n < n) {
            if (cap > SIZE_MAX / 2)
                no_memory();
            cap *= 2;
        }
        char *p = realloc(b->p, cap);
        if (!p)
            no_memory();
        b->p = p;
        b->cap = cap;
    }
    return b->p + b->n;
}

void buf_add(struct buf *b, const void *p, size_t n)
{
    if (n == 0)
        return;
    memcpy(buf_room(b, n), p, n);
    b->n += n;
}

void buf_text(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_format(struct buf *b, const char *format, ...)
{
    va_list args;

    char *room = buf_room(b, 256);
    va_start(args, format);
    int n = vsnprintf(room, 256, format, args);
    va_end(args);
    if (n >= 256) { /* the first try has told the size */
        room = buf_room(b, (size_t)n + 1);
        va_start(args, format);
        n = vsnprintf(room, (size_t)n + 1, format, args);
        va_end(args);
    }
    if (n < 0)
        no_memory();
    b->n += (size_t)n;
}

/* Bytes of the well-formed UTF-8 character at s (Unicode 15, table 3-7), 0 when there is none. */
static size_t utf8_length(const unsigned char *s, size_t n)
{
    size_t len = s[0] < 0x80                   ? 1
                 : s[0] >= 0xC2 && s[0] < 0xE0 ? 2
                 : s[0] >= 0xE0 && s[0] < 0xF0 ? 3
                 : s[0] >= 0xF0 && s[0] < 0xF5 ? 4
                                               : 0;

    if (len == 0 || len > n)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    }
    if (len == 3 && ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F)))
        return 0;
    if (len == 4 && ((s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F)))
        return 0;
    return len;
}

static void add_escaped(struct buf *b, unsigned char c)
{
    switch (c) {
    case '"':
        buf_add(b, "\\\"", 2);
        break;
    case '\\':
        buf_add(b, "\\\\", 2);
        break;
    case '\n':
        buf_add(b, "\\n", 2);
        break;
    case '\r':
        buf_add(b, "\\r", 2);
        break;
    case '\t':
        buf_add(b, "\\t", 2);
        break;
    default:
        buf_format(b, "\\u%04x", c);
    }
}

void buf_json(struct buf *b, const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t from = 0;

    buf_add(b, "\"", 1);
    for (size_t i = 0; i < n;) {
        size_t len = utf8_length(p + i, n - i);

        if (len == 1 && (p[i] < 0x20 || p[i] == '"' || p[i] == '\\')) {
            buf_add(b, s + from, i - from);
            add_escaped(b, p[i]);
            from = ++i;
        } else if (len == 0) {
            buf_add(b, s + from, i - from);
            buf_add(b, "\xEF\xBF\xBD", 3);
            from = ++i;
        } else {
            i += len;
        }
    }
    buf_add(b, s + from, n - from);
    buf_add(b, "\"", 1);
}

void buf_drop(struct buf *b, size_t n)
{
    if (n >= b->n) {
        b->n = 0;
        return;
    }
    memmove(b->p, b->p + n, b->n - n);
    b->n -= n;
}

void buf_free(struct buf *b)
{
    free(b->p);
    *b = (struct buf){0};
}

size_t utf8_clip(const char *s, size_t n, size_t max)
{
    if (n <= max)
        return n;
    while (max > 0 && ((unsigned char)s[max] & 0xC0) == 0x80)
        max--;
    return max;
}
