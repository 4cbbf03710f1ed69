/* UTF-8 by the table of RFC 3629 section 4: the first byte gives the length and the range that the
 * second byte may have; all further ones are 80..BF. */
#include "base/utf8.h"

#include "base/mem.h"
#include <stdio.h>
#include <string.h>

size_t utf8_step(const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *)text;
    if (len == 0)
        return 0;
    if (p[0] < 0x80)
        return 1;

    size_t need;
    unsigned char low = 0x80, high = 0xBF;
    if (p[0] >= 0xC2 && p[0] <= 0xDF) {
        need = 2;
    } else if (p[0] >= 0xE0 && p[0] <= 0xEF) {
        need = 3;
        if (p[0] == 0xE0)
            low = 0xA0; /* overlong below */
        if (p[0] == 0xED)
            high = 0x9F; /* surrogates above */
    } else if (p[0] >= 0xF0 && p[0] <= 0xF4) {
        need = 4;
        if (p[0] == 0xF0)
            low = 0x90; /* overlong below */
        if (p[0] == 0xF4)
            high = 0x8F; /* over U+10FFFF above */
    } else {
        return 0;
    }
    if (len < need || p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < need; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    return need;
}

bool utf8_is_valid(const char *text, size_t len)
{
    for (size_t at = 0; at < len;) {
        size_t step = utf8_step(text + at, len - at);
        if (step == 0)
            return false;
        at += step;
    }
    return true;
}

size_t utf8_cut(const char *text, size_t len)
{
    size_t start = len;
    while (start > 0 && len - start < 3 && ((unsigned char)text[start - 1] & 0xC0) == 0x80)
        start--;
    if (start == 0 || ((unsigned char)text[start - 1] & 0x80) == 0)
        return len; /* ends in ASCII, or is no UTF-8 anyway */
    start--;
    return utf8_step(text + start, len - start) == len - start ? len : start;
}

/* C0, DEL, and C1, whose first byte is C2. */
static bool is_control(const char *text, size_t step)
{
    const unsigned char *p = (const unsigned char *)text;
    return step == 1 ? p[0] < 0x20 || p[0] == 0x7F : step == 2 && p[0] == 0xC2 && p[1] < 0xA0;
}

char *utf8_plain(const char *text)
{
    size_t len = strlen(text), at = 0;
    char *plain = mem_alloc(4 * len + 1);
    for (size_t i = 0; i < len;) {
        size_t step = utf8_step(text + i, len - i);
        if (step > 0 && !is_control(text + i, step)) {
            memcpy(plain + at, text + i, step);
            at += step;
            i += step;
            continue;
        }
        for (size_t end = i + (step > 0 ? step : 1); i < end; i++)
            at += (size_t)snprintf(plain + at, 5, "\\x%02x", (unsigned)(unsigned char)text[i]);
    }
    plain[at] = '\0';
    return plain;
}
