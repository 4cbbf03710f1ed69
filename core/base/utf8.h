/* UTF-8 (RFC 3629): where a well-formed sequence ends. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Bytes (1 to 4) of the well-formed sequence that `text` begins with, 0 when it begins with none:
 * overlong forms, surrogates, values over U+10FFFF and sequences cut short by `len` are none. */
size_t utf8_step(const char *text, size_t len);
bool utf8_is_valid(const char *text, size_t len);
/* The greatest length of at most `len` that does not cut a sequence of valid text apart. */
size_t utf8_cut(const char *text, size_t len);
/* A copy (free) that a terminal and JSON take: control characters and bytes that are not UTF-8
 * become
 * `\xNN`, one a byte. For names of unknown origin. */
char *utf8_plain(const char *text);
