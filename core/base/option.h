/* Option rows (millrace/plugin.h) to a checked, typed settings struct. Collects every error;
 * suggests the nearest known word. The configuration uses the same rows as plugins do. */
#pragma once

#include "base/error.h"
#include "base/expr.h"
#include "base/json.h"
#include "base/mem.h"

/* Where a value stands and what it may refer to. */
struct option_source {
    const char *file;       /* for messages; may be NULL */
    const char *pointer;    /* of the object whose members are the options ("/stages/0/options") */
    const char *dir;        /* what paths are relative to */
    struct expr_set *exprs; /* for TEMPLATE and EXPR rows; NULL: such rows are not allowed */
    /* Whether an endpoint of that name is configured; NULL: not checked. */
    bool (*has_endpoint)(void *arg, const char *name);
    void *arg;
    const char *const *endpoints; /* names of the configured ones, for hints; NULL-ended, or NULL */
};

/* Rows as this host knows them: those of an older plugin, stepped through by its row size. */
struct option_rows {
    const struct mr_option *rows;
    uint32_t count;
    uint32_t row_size;
};

/* Row `index`, whatever the size of a row was where the plugin was built: what it does not have is
 * zero. */
void option_row(const struct option_rows *rows, uint32_t index, struct mr_option *ret_row);
/* The rows of a LIST option. */
struct option_rows option_row_items(const struct option_rows *rows, const struct mr_option *row);
/* The word for a type as people read it ("duration"), "unknown" for one that is not known here. */
const char *option_type_name(uint32_t type);

/* Fills `settings` (zeroed, `size` bytes) from the members of `object` (NULL: no options given).
 * Strings and lists live in `arena`, JSON values are referenced until option_release. Keys
 * beginning with `//` are comments. Returns true when nothing was reported as an error; when it
 * returns false option_release is due as well. A default that does not fit its own row is reported
 * as a bug of the plugin. */
bool option_read(const struct option_rows *rows, const json_t *object,
                 const struct option_source *source, void *settings, size_t size,
                 struct arena *arena, struct report *report);
/* Drops the references that option_read took (MR_OPT_JSON). */
void option_release(const struct option_rows *rows, void *settings);

/* What the rows say, for `millrace plugins NAME` and the documentation. */
bool option_describe_text(const struct option_rows *rows, struct buf *buf);
json_t *option_describe_json(const struct option_rows *rows);
