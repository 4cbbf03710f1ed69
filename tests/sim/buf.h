/*
 * buf: a growing byte buffer, and JSON text written straight into it.
 *
 * Small allocations abort on failure: the simulator has nothing better to do then. Whoever appends
 * data from outside checks its size first; the parser in http.c and the rules in rule.c do.
 */
#ifndef SIM_BUF_H
#define SIM_BUF_H

#include <stddef.h>
#include <stdint.h>

struct buf {
    char *p; /* NULL while empty; not NUL-terminated */
    size_t n;
    size_t cap;
};

/* calloc that aborts with a message when there is no memory. */
void *xcalloc(size_t count, size_t size);

/* strndup that aborts; the copy is NUL-terminated, the caller frees it. */
char *xstrndup(const char *s, size_t n);

/* Makes room for n more bytes and returns where they go; the caller adds to b->n what it wrote. */
char *buf_room(struct buf *b, size_t n);

/* Appends n bytes. */
void buf_add(struct buf *b, const void *p, size_t n);

/* Appends a NUL-terminated text. */
void buf_text(struct buf *b, const char *s);

/* Appends as printf does. */
void buf_format(struct buf *b, const char *format, ...)
    __attribute__((format(printf, 2, 3), nonnull));

/* Appends a JSON string with its quotes (RFC 8259 section 7); bytes that are not UTF-8 become
 * U+FFFD. */
void buf_json(struct buf *b, const char *s, size_t n);

/* Drops the first n bytes. */
void buf_drop(struct buf *b, size_t n);

/* Frees the bytes and makes the buffer empty. */
void buf_free(struct buf *b);

/* Length of the longest beginning of s, at most max bytes, that does not cut a UTF-8 character. */
size_t utf8_clip(const char *s, size_t n, size_t max);

#endif
