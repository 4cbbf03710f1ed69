/* The three standard descriptors of a program: always open, whoever started it. */
#pragma once

#include <stdbool.h>

/* Opens /dev/null in place of those of 0, 1 and 2 that are closed: otherwise the next file, socket
 * or pipe gets such a number, messages are written into it, and libuv aborts on closing it. To be
 * called first in main. False when /dev/null cannot be opened. */
bool stdio_fill(void);
/* Flushes stdout, at the end of a process. False, with a message on stderr, when something that was
 * printed there before or now could not be written. */
bool stdio_flush(void);
