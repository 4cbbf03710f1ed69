/* What the files of the rule plugin share: a table of answers and the reading of it from files. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Keys with the JSON text of their values. Written once, on a thread; read-only from then on. */
struct rule_table;

/* Borrowed JSON text, or NULL when the key is not there. */
const char *rule_table_find(const struct rule_table *table, const char *key, size_t len,
                            size_t *ret_len);
size_t rule_table_count(const struct rule_table *table);
void rule_table_free(struct rule_table *table);

/* One look at a source, on a thread: whether its files have changed since `seen`, and if so, what
 * they hold. */
struct rule_read {
    const char *source;       /* a JSON file, or a folder of them */
    uint64_t seen;            /* in and out: fingerprint of the files; 0: never looked */
    struct rule_table *table; /* out: NULL when nothing changed or a file is broken */
    char problem[300];        /* out: "" or what is wrong, with the file's name */
};
void rule_read(void *arg);
