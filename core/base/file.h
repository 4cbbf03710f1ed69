/* Files of people: whole texts and the names in folders, with errors that say what is wrong with
 * them. */
#pragma once

#include "base/error.h"

/* The whole of a file, NUL-ended (malloc'ed). NULL with MR_E_SCHEMA when it cannot be opened or
 * read, is a folder, or has more than `max_bytes`; the message does not name the path. Never waits
 * for a writer: an empty pipe reads as empty. */
char *file_read(const char *path, size_t max_bytes, size_t *ret_len, struct error *err);

/* The names NAME of all NAME`suffix` in the folders (NULL-ended), each once, sorted, NULL-ended;
 * free each and the array. `wants` NULL: all; else those it is true for. A folder that cannot be
 * read is passed over. */
char **file_names(const char *const *folders, const char *suffix,
                  bool (*wants)(void *arg, const char *folder, const char *name), void *arg);
