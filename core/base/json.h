/* JSON from outside, its canonical form, pointers and text. The one seam to jansson's parser and
 * printer.
 *
 * json_read is the one function that parses JSON from outside (bodies, model answers, rule files,
 * results of children, plugin output): a linear scan bounds the nesting before jansson sees the
 * text, because its recursion would overflow a fiber's stack. */
#pragma once

#include "base/buf.h"
#include "base/error.h"
#include <jansson.h>

/* Parses `len` bytes (any value, scalars too; duplicate keys, bad UTF-8, lone surrogates, \u0000 in
 * keys, integers beyond 64 bit are refused). New reference, or NULL with MR_E_BAD_RESPONSE in `err`
 * whose message has line and column. `depth_max` 0: LIMIT_JSON_DEPTH. */
json_t *json_read(const char *text, size_t len, unsigned depth_max, struct error *err);
/* Greatest nesting of arrays and objects in a text that need not be valid. */
unsigned json_text_depth(const char *text, size_t len);

/* Compact text, keys in the order they stand in, integers as they are, reals as the shortest that
 * round-trips. NULL (MR_E_…) when over `max_bytes` or not printable. free() it. */
char *json_print(const json_t *value, size_t max_bytes, size_t *ret_len, struct error *err);
bool json_print_to(const json_t *value, struct buf *buf);
/* Canonical JSON (PLUGINS.md, Semantics): keys in bytewise order, no spaces, shortest reals that
 * look like reals (1.0 is not 1). */
bool json_canonical_to(const json_t *value, struct buf *buf);

/* RFC 6901 lookup; borrowed, NULL when absent. */
json_t *json_at(const json_t *value, const char *pointer);
/* Appends `/token` with ~ and / escaped (RFC 6901 section 3) to a pointer being built. */
bool json_pointer_push(struct buf *pointer, const char *token);
bool json_pointer_push_index(struct buf *pointer, size_t index);

/* Borrowed text of member `key`, or `fallback` when absent or no string. */
const char *json_text_or(const json_t *object, const char *key, const char *fallback);
int64_t json_int_or(const json_t *object, const char *key, int64_t fallback);

static inline void json_cleanup(json_t **slot)
{
    json_decref(*slot);
}
#define json_hold __attribute__((cleanup(json_cleanup)))
