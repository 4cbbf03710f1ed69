/* The document of a job, as expressions see it: named members held as JSON text and parsed when
 * first read.
 *
 * `.input`, `.job`, `.stages`, each finished stage and what a task has bound. Texts travel, are
 * stored and spliced; a parsed tree is eleven times its text, so trees are dropped when the task
 * suspends (doc_forget) and read again from text if needed. A member that was set from a tree has
 * no text and is kept. */
#pragma once

#include "base/error.h"
#include "base/json.h"

struct doc;

struct doc *doc_new(void);
void doc_free(struct doc *doc);
/* Sets a member to JSON text (moved in: free()d with the doc). */
void doc_steal_text(struct doc *doc, const char *name, char *text, size_t len);
/* The same from borrowed text, copied. */
void doc_set_text(struct doc *doc, const char *name, const char *text, size_t len);
/* Sets a member to a value (reference moved in). */
void doc_steal_value(struct doc *doc, const char *name, json_t *value);
void doc_remove(struct doc *doc, const char *name);
bool doc_has(const struct doc *doc, const char *name);
/* A view with members of its own over a parent that it borrows and never changes: a task's bindings
 * over the job's document. */
struct doc *doc_view(struct doc *parent);

/* The parsed member, borrowed until doc_forget or the next doc_set of it; NULL and MR_OK when
 * absent; MR_E_BAD_RESPONSE when the text does not parse. */
int doc_member(struct doc *doc, const char *name, json_t **ret_value, struct error *err);
/* The text of a member, borrowed; NULL when absent. */
const char *doc_text(struct doc *doc, const char *name, size_t *ret_len);
/* Calls fn for each member's name. */
void doc_each(const struct doc *doc, void (*fn)(void *arg, const char *name), void *arg);
/* Drops parsed trees that can be read again from text. */
void doc_forget(struct doc *doc);
/* Bytes of text held, for limits.memory. */
size_t doc_bytes(const struct doc *doc);
