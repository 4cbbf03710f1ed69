/* A growing byte buffer with a bound that is given when it is made. Past the bound (or after any
 * failure) it takes nothing more and `failed` is set: check once, at the end. The content is always
 * NUL-ended. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
    char *data; /* NULL until the first append */
    size_t len, cap, max;
    bool failed;
};

void buf_init(struct buf *buf, size_t max_bytes);
void buf_done(struct buf *buf);
void buf_clear(struct buf *buf);
/* All return false when the bound was passed. */
bool buf_add(struct buf *buf, const void *data, size_t len);
bool buf_add_text(struct buf *buf, const char *text);
bool buf_add_char(struct buf *buf, char c);
bool buf_format(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Appends a JSON string literal with its quotes (RFC 8259 section 7); a byte of `text` that
 * belongs to no UTF-8 becomes U+FFFD. */
bool buf_add_json_string(struct buf *buf, const char *text, size_t len);
/* The content as a NUL-ended string (never NULL), borrowed. */
const char *buf_text(const struct buf *buf);
/* Moves the content out (free() it); NULL when failed. */
char *buf_take(struct buf *buf);

#define buf_auto __attribute__((cleanup(buf_done)))
