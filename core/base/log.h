/* The log: one line an event, text on a terminal and JSON lines otherwise (FIELD.md 5.3). The only
 * hidden global of the program.
 *
 *     2026-11-20T09:30:00.125Z warn  worker 2: stage failed job=… stage=vision
 *     {"ts":"2026-11-20T09:30:00.125Z","level":"warn","msg":"stage failed","process":"worker 2",…}
 *
 * Control bytes are escaped, a line is at most LIMIT_LOG_LINE bytes. Thread-safe: one write(2) a
 * line. */
#pragma once

#include "base/error.h"
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_AUTO, LOG_TEXT, LOG_JSON };

/* `file` NULL: stderr. MR_E_INTERNAL when the file cannot be opened. `process` ("front", "worker
 * 2") stands in each line. */
int log_open(const char *file, enum log_format format, enum log_level level, const char *process,
             struct error *err);
/* Reopens the file (SIGUSR1; from the loop, not from the handler). When that fails the old one
 * stays in use, and says so. */
void log_reopen(void);
/* Whether lines of that level are written: before work that is done for a line only. */
bool log_wants(enum log_level level);

/* Named fields after the message: `log_event(LOG_WARN, "stage failed", "job", id, "stage", name,
 * NULL)`: pairs of strings, a NULL value is left out, the end is a NULL key. Keys are literals of
 * the code (`[a-z_]+`), values may be any bytes. */
void log_event(enum log_level level, const char *message, ...) __attribute__((sentinel));
/* A line of a formatted message without fields. */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Logs an error record at level error: `message` (what was being done), the same kind of pairs, and
 * the record's code, error, where, hint and detail as fields. */
void log_error(const char *message, const struct error *err, ...) __attribute__((sentinel));
/* The same at another level: a failure that is to be expected now and then is no error. */
void log_failure(enum log_level level, const char *message, const struct error *err, ...)
    __attribute__((sentinel));

/* Trouble of one kind that comes again and again: told once, then at most every 10 s. Not for
 * threads to share; zeroed at first. */
#define LOG_PACE_MS 10000u
struct log_pace {
    uint64_t told_ms; /* clock_now_ms() of the last line; 0: none yet */
    uint64_t kept;    /* times since then that were not told */
};
/* Whether to tell it now. `ret_times`: how often it came since the last line, in words of the log;
 * "" when it was once. Begins anew when it has not come for 10 s. */
bool log_pace(struct log_pace *pace, char ret_times[24]);
