/* Durations and sizes as text (PLUGINS.md, Grammars): `[0-9]+(\.[0-9]+)?(ms|s|m|h|d)` at most 366d;
 * `[0-9]+(B|KiB|MiB|GiB)`. */
#pragma once

#include "base/error.h"

int unit_parse_duration(const char *text, uint64_t *ret_ms, struct error *err);
int unit_parse_size(const char *text, uint64_t *ret_bytes, struct error *err);
/* Shortest text that parses back to the value, e.g. "1.5s"; `ret` holds 32 bytes. */
void unit_format_duration(uint64_t ms, char ret[32]);
void unit_format_size(uint64_t bytes, char ret[32]);
