/* Expressions: jq conditions and `{{ }}` templates over one document (PLUGINS.md, Semantics). The
 * one seam to libjq.
 *
 * Plain paths (`.a.b[0]`) are walked here. All other expressions of a pipeline are compiled into
 * one jq program with a dispatch index (twenty compiled one by one take 380 ms, together 23 ms): an
 * expr_set collects them while the pipeline is read, expr_set_compile makes the program, and from
 * then on any template or expression of the set may be evaluated. One set is used by one thread. */
#pragma once

#include "base/doc.h"
#include "base/error.h"
#include "base/json.h"

struct expr_set;

/* Has everything that runs in jq (compiling too) called through `run`, which calls fn(arg) and
 * returns when it has returned: the layers above run it on the loop's stack, since jq's depth
 * depends on the data. NULL: a plain call. For the whole process, set once at its start. */
void expr_set_trampoline(void (*run)(void (*fn)(void *arg), void *arg));

struct expr_set *expr_set_new(void);
void expr_set_free(struct expr_set *set);

/* Compiles what was collected. Each expression that jq refuses is reported with the file and
 * pointer it was added with. Returns false when any was. */
bool expr_set_compile(struct expr_set *set, struct report *report, const char *file);

/* Adds a condition or expression; refused at once (NULL, reported at `pointer`) when it uses what
 * is not on the list of allowed builtins (with the word and what is allowed). The handle belongs to
 * the set. */
const mr_expr *expr_add(struct expr_set *set, const char *text, struct report *report,
                        const char *file, const char *pointer);
/* Adds a template: any JSON value, whose strings (not keys) are scanned for `{{ }}`. `flags`:
 * MR_NOT_EMPTY, MR_NO_COLON, MR_LENIENT. */
const mr_template *expr_add_template(struct expr_set *set, const json_t *value, uint32_t flags,
                                     struct report *report, const char *file, const char *pointer);

/* The top-level names of the document that an expression or a template reads ("vision", "input",
 * "job"), for checks of the graph: calls `fn` once for each. A bare `.` or a path that starts with
 * brackets gives "*". */
void expr_names(const mr_expr *expr, void (*fn)(void *arg, const char *name), void *arg);
void expr_template_names(const mr_template *tpl, void (*fn)(void *arg, const char *name),
                         void *arg);
/* True for a template without any `{{ }}`: it renders to a constant. */
bool expr_template_is_constant(const mr_template *tpl);

/* Values that are given out may share arrays and objects with the document's trees: a caller that
 * wants to change one copies it first (json_deep_copy). What stands in a template itself is copied.
 * A document whose text does not parse gives MR_E_BAD_RESPONSE from all of these. */

/* The value at a plain path (".input.url", ".a[0]"), borrowed as from doc_member; NULL when it is
 * missing, null, or `path` is no plain path. */
const json_t *expr_get(struct doc *doc, const char *path);
/* The one result (new reference); none, several, or an error: MR_E_SCHEMA. */
int expr_eval(const mr_expr *expr, struct doc *doc, json_t **ret_value, struct error *err);
/* As a condition: false and null are false. */
int expr_test(const mr_expr *expr, struct doc *doc, bool *ret_true, struct error *err);
/* Renders (new reference). With MR_LENIENT a missing part gives JSON null for that string. */
int expr_render(const mr_template *tpl, struct doc *doc, json_t **ret_value, struct error *err);
