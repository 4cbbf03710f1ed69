/* Errors are values: a negative code out of one table (MR_ERRORS in millrace/plugin.h), which also
 * gives the class and the HTTP status, and a record that says what failed, where, and what would be
 * right.
 *
 * Functions return MR_OK or a code and fill a caller's `struct error`. Only the layer that owns a
 * job logs. `detail` is for the log and never leaves the process towards a client. */
#pragma once

#include "millrace/plugin.h"
#include <stdbool.h>
#include <stddef.h>

struct error {
    int code;             /* MR_OK or MR_E_… */
    int class;            /* enum mr_class that overrides the code's own; 0: the code's */
    uint64_t retry_in_ms; /* for class throttled, or a hint for retry; 0: no wish */
    char message[256];    /* primary line: lower case, no period */
    char detail[160];     /* facts for the log */
    char hint[200];       /* what would be right */
    char where[200];      /* FILE and JSON Pointer, or job/stage */
};

/* All texts of a record are valid UTF-8, cut at a whole character when too long: bytes from outside
 * that are none become '?'. Arguments may point into `err` itself ("%s: …", err->message). */

/* Fills `err` anew (NULL is fine) and returns `code`, so that a function may end with `return
 * error_set(…)`. */
int error_set(struct error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Fill one more field of a record that error_set has filled; NULL is fine. */
void error_detail(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));
void error_hint(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));
void error_where(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The word of a code as it stands in `error.code` of a job ("timeout"); "internal" for a code that
 * is not in the table. */
const char *error_name(int code);
/* The code of a word, or 0 when there is none such. */
int error_code(const char *name);
/* The sentence of a code ("a time limit was reached"), for a record without a message. */
const char *error_text(int code);
/* MR_CLASS_BUG for a code that is not in the table, MR_CLASS_DEFAULT for MR_OK. */
enum mr_class error_class(int code);
/* The class that counts for a record: its own if set, else its code's. */
enum mr_class error_class_of(const struct error *err);
/* "retry", "throttled", …, and back (0 when there is none such). */
const char *error_class_name(enum mr_class class);
enum mr_class error_class_find(const char *name);
/* The HTTP status that stands for the code when a client asks for the result; 200 for MR_OK, 500
 * for a code that is not in the table. */
int error_http_status(int code);

/* A list of errors, for checks that report everything at once. Keeps LIMIT_REPORT of them. */
struct report {
    struct error *items;
    size_t count, cap;
    size_t warnings; /* of `items`, how many are warnings: their code is MR_OK */
    size_t dropped;  /* errors over the limit, counted only */
};
void report_init(struct report *report);
void report_done(struct report *report);
/* Adds an error of code MR_E_SCHEMA; `file` and `pointer` (RFC 6901, "" = the whole document) may
 * be NULL and become `where` ("FILE: POINTER"). Returns it, to add a hint. The pointer lives until
 * the next report_add. */
struct error *report_add(struct report *report, const char *file, const char *pointer,
                         const char *format, ...) __attribute__((format(printf, 4, 5)));
struct error *report_warn(struct report *report, const char *file, const char *pointer,
                          const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Number of errors that are not warnings, dropped ones included. */
size_t report_errors(const struct report *report);
/* The word among the NULL-ended `words` that is nearest to `word`, or NULL. Near is an edit
 * distance (insertions, deletions, replacements, swaps of neighbours; upper and lower case are
 * alike) of at most 2 or a third of the length of `word`, and less than that length. Of equally
 * near ones the first. */
const char *error_nearest(const char *word, const char *const *words);
