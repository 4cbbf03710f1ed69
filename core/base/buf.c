/* A growing byte buffer with a bound.
 *
 * Capacity doubles and always has room for the NUL behind the content, which does not count against
 * `max`. A piece that would pass the bound is not appended in part: the content stays what it was
 * and `failed` keeps everything out that follows, so that no text with a hole in it is ever used.
 */
#include "base/buf.h"

#include "base/mem.h"
#include "base/utf8.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { CAP_FIRST = 64 };

void buf_init(struct buf *buf, size_t max_bytes)
{
    /* One less than SIZE_MAX, so that adding the NUL cannot overflow. */
    *buf = (struct buf){.max = max_bytes < SIZE_MAX ? max_bytes : SIZE_MAX - 1};
}

void buf_done(struct buf *buf)
{
    free(buf->data);
    *buf = (struct buf){.max = buf->max};
}

void buf_clear(struct buf *buf)
{
    buf->len = 0;
    buf->failed = false;
    if (buf->data != NULL)
        buf->data[0] = '\0';
}

/* Makes room for `len` more bytes and their NUL. */
static bool grow(struct buf *buf, size_t len)
{
    if (buf->failed || len > buf->max - buf->len) {
        buf->failed = true;
        return false;
    }
    size_t need = buf->len + len + 1;
    if (need <= buf->cap)
        return true;
    size_t cap = buf->cap > 0 ? buf->cap : CAP_FIRST;
    while (cap < need)
        cap = cap <= SIZE_MAX / 2 ? cap * 2 : SIZE_MAX;
    if (cap > buf->max + 1)
        cap = buf->max + 1;
    buf->data = mem_resize(buf->data, cap, 1);
    buf->cap = cap;
    return true;
}

bool buf_add(struct buf *buf, const void *data, size_t len)
{
    if (!grow(buf, len))
        return false;
    if (len > 0)
        memcpy(buf->data + buf->len, data, len);
    buf->len += len;
    buf->data[buf->len] = '\0';
    return true;
}

bool buf_add_text(struct buf *buf, const char *text)
{
    return buf_add(buf, text, strlen(text));
}

bool buf_add_char(struct buf *buf, char c)
{
    return buf_add(buf, &c, 1);
}

bool buf_format(struct buf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    bool ok = len >= 0 && grow(buf, (size_t)len);
    if (ok) {
        vsnprintf(buf->data + buf->len, (size_t)len + 1, format, again);
        buf->len += (size_t)len;
    } else {
        buf->failed = true;
    }
    va_end(again);
    return ok;
}

/* The letter of a byte's two-character escape, 'u' when it has none and needs \u00xx, 0 when the
 * byte stands for itself. */
static char json_escape(unsigned char byte)
{
    static const char controls[] = "uuuuuuuubtnufruuuuuuuuuuuuuuuuuu";
    _Static_assert(sizeof(controls) - 1 == 0x20, "one letter for each control byte");
    if (byte < 0x20)
        return controls[byte];
    return byte == '"' || byte == '\\' ? (char)byte : 0;
}

bool buf_add_json_string(struct buf *buf, const char *text, size_t len)
{
    buf_add_char(buf, '"');
    size_t start = 0;
    for (size_t i = 0; i < len; i++) {
        size_t step = utf8_step(text + i, len - i);
        char escape = json_escape((unsigned char)text[i]);
        if (step > 0 && escape == 0) {
            i += step - 1;
            continue;
        }
        buf_add(buf, text + start, i - start);
        start = i + 1;
        if (step == 0)
            buf_add_text(buf, "\\ufffd");
        else if (escape == 'u')
            buf_format(buf, "\\u%04x", (unsigned)(unsigned char)text[i]);
        else
            buf_add(buf, (const char[]){'\\', escape}, 2);
    }
    buf_add(buf, text + start, len - start);
    return buf_add_char(buf, '"');
}

const char *buf_text(const struct buf *buf)
{
    return buf->data != NULL ? buf->data : "";
}

char *buf_take(struct buf *buf)
{
    char *data = NULL;
    if (!buf->failed) {
        data = buf->data != NULL ? buf->data : mem_dup("");
        buf->data = NULL;
    }
    buf_done(buf);
    return data;
}
