/* What the files of `option` share; nobody else includes it.
 *
 *   option.c           rows, objects, lists, defaults
 *   option_value.c     one value by its row's type, and what is said when it is wrong
 *   option_describe.c  rows for people and programs */
#pragma once

#include "base/option.h"

struct option_reader {
    const struct option_source *source;
    struct arena *arena;
    struct report *report;
    struct buf pointer;     /* of the value being read */
    const char *default_of; /* the option whose default is being read; NULL: a value of the file */
    unsigned depth;
};

/* Reports at the reader's pointer; for a default, as a bug of the plugin. */
struct error *option_problem(struct option_reader *reader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* What a value is, for "…, not WHAT". Values of secret options are not shown. */
void option_value_text(const json_t *value, bool secret, char *ret, size_t size);
/* Reports that a value is not what the row asks for. */
void option_wrong(struct option_reader *reader, const struct mr_option *row, const json_t *value);
/* Reads a value of any type but LIST into its field. False when something was reported. */
bool option_value(struct option_reader *reader, const struct mr_option *row, const json_t *value,
                  void *field);

bool option_is_bounded(const struct mr_option *row);
/* Whether `max` is a bound; 0 above a positive `min` is none. */
bool option_has_upper(const struct mr_option *row);
/* A bound as it would be written in the file. */
void option_bound_text(const struct mr_option *row, int64_t bound, char ret[32]);
/* The default as it would stand in the file; NULL (`err`) when it cannot. New reference. */
json_t *option_default(const struct mr_option *row, struct error *err);
