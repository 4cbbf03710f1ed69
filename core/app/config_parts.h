/* What the files of the configuration share: the state of a load, and small readers. */
#pragma once

#include "app/config.h"
#include "app/config_rows.h"

struct load {
    struct config *config;
    struct report *report;
    const char *file; /* for messages */
};

/* Reads a section (an object, or NULL for defaults) into a zeroed form. The JSON in it is borrowed
 * from the value. */
bool config_read_section(struct load *load, const struct option_rows *rows, const json_t *value,
                         const char *pointer, void *form, size_t size);
struct error *config_fault(struct load *load, const char *pointer, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A NULL-ended array in the arena of a JSON string or array of strings. `add` may change each
 * (NULL: as they are) and returns NULL to leave it out. */
const char *const *config_words(struct load *load, const json_t *value, const char *pointer,
                                const char *(*add)(struct load *load, const char *word));
const char *config_dup(struct load *load, const char *text);
/* An absolute path of one that is relative to the configuration's folder. */
const char *config_path(struct load *load, const char *path);
/* The section `auth`. */
void config_read_auth(struct load *load, const json_t *value);
/* Default folders, when none is configured. */
const char *const *config_default_pipelines(struct load *load);
const char *const *config_default_plugins(struct load *load);
/* Warns of settings that were given and have no effect in this version. */
void config_warn_pending(const struct config *config, struct report *report);
/* Whether redis.url is one that this version speaks. */
bool config_check_redis(const struct config *config, struct report *report);
