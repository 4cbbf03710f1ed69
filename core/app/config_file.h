/* The configuration as JSON: files, includes, `${…}` and the environment, before anything of it is
 * checked. */
#pragma once

#include "base/error.h"
#include "base/json.h"

/* What the overlay needs to know of a key: how a text from the environment becomes a value. */
enum config_kind {
    CONFIG_UNKNOWN, /* no such key */
    CONFIG_TEXT,
    CONFIG_NUMBER, /* or boolean: written as JSON */
    CONFIG_LIST,   /* JSON array, or words parted by commas */
    CONFIG_SECTION,
};
/* `path` is a NULL-ended list of keys from the root. */
typedef enum config_kind config_kind_of(const char *const *path);

/* New reference to an object; NULL when something was reported. `file` NULL: only the environment.
 */
json_t *config_file_read(const char *file, config_kind_of *kind_of, struct report *report);
