/* Time behind a pointer, so that tests turn it by hand. */
#pragma once

#include <stdint.h>

/* Milliseconds of a clock that never goes back (CLOCK_MONOTONIC_COARSE is not used: 4 ms steps). */
uint64_t clock_now_ms(void);
/* Milliseconds since 1970, for what people read; never for deadlines. */
uint64_t clock_wall_ms(void);
/* Microseconds of the monotonic clock, for measuring. */
uint64_t clock_now_us(void);
/* Tests: stops both clocks at `ms` (0: real time again). clock_turn moves them on. */
void clock_hold(uint64_t ms);
void clock_turn(uint64_t ms);
/* RFC 3339 with milliseconds and Z; `ret` holds 25 bytes. 0 gives an empty string. */
void clock_format(uint64_t wall_ms, char ret[25]);
/* RFC 3339 date-time to ms since 1970; -1 when it is none. */
int64_t clock_parse(const char *text);
