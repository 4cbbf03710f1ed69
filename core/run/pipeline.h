/* A pipeline: from a file to a validated graph.
 *
 * Reading has two steps. pipeline_read takes the file, inlines `{"file": …}` and gives the
 * *source*: compact JSON text, members in the file's order, whose SHA-256 is the revision.
 * pipeline_build makes the graph of a source; it needs the plugins. The front builds without them
 * (registry NULL): names, needs, queues, input schema, templates, but no options. A source is what
 * is stored in Redis for other hosts. Every error is reported at once, with file and JSON Pointer.
 */
#pragma once

#include "base/expr.h"
#include "base/hash.h"
#include "base/mem.h"
#include "run/plugin.h"

struct pipeline_source {
    char *name;
    char *file; /* for messages */
    char *dir;  /* what paths in options are relative to */
    char *text; /* compact JSON, files inlined */
    size_t len;
    char revision[HASH_HEX_BYTES];
};
/* The grammar of names of pipelines, queues and endpoints: [a-z0-9][a-z0-9-]{0,63}. */
bool pipeline_name_is_valid(const char *name);
/* NULL when something was reported. The name in the file must be the file's name without .json. */
struct pipeline_source *pipeline_read(const char *path, struct report *report);
/* A source from text that was read elsewhere (Redis, the bundle that the master hands to its
 * children). */
struct pipeline_source *pipeline_source_new(const char *name, const char *file, const char *dir,
                                            const char *text, size_t len);
void pipeline_source_free(struct pipeline_source *source);

/* Index of a stage within its pipeline. */
typedef uint32_t stage_index;
#define STAGE_NONE UINT32_MAX

struct retry_policy {
    uint32_t attempts;
    uint64_t backoff_ms, max_backoff_ms;
};

struct stage {
    char *name;
    stage_index index;
    char *queue;
    const struct plugin *plugin; /* NULL in the front */
    char *plugin_name;
    void *settings;            /* checked options; NULL in the front */
    stage_index *needs, *next; /* what it waits for; what waits for it */
    uint32_t need_count, next_count;
    const mr_expr *when; /* NULL: always */
    char *otherwise;     /* `else`: output when skipped, JSON text; never NULL */
    char *on_failure;    /* output to go on with, JSON text; NULL: fail */
    uint64_t timeout_ms;
    uint32_t concurrency; /* per process; 0: no limit of its own */
    struct retry_policy retry;
    const json_t *options; /* as they stand in the source; NULL: none; borrowed from the root */
    /* The runner's: what `open` left, whether it ran, running tasks. Not touched here. */
    void *instance;
    void *host_data;
};

enum pipeline_durability { PIPELINE_NONE, PIPELINE_AOF, PIPELINE_REPLICA };

struct pipeline {
    char *name, *description;
    char revision[HASH_HEX_BYTES];
    char *file, *dir;
    struct stage *stages; /* the hidden ones behind the others, not counted */
    uint32_t stage_count;
    /* Hidden stages that run after the job's end (`on_complete`, `on_failure`): a `reward` whose
     * index is stage_count or the next, so that a run takes them like any other. NULL: none; in the
     * front they are there without plugin. */
    struct stage *on_complete, *on_failure;
    const mr_template *result; /* NULL: every stage's output by name */
    const mr_template *tasks_input;
    const json_t *input_schema;                        /* borrowed from `root`; NULL: anything */
    uint64_t deadline_ms;                              /* 0: none */
    uint64_t retention_status_ms, retention_result_ms; /* 0: the configuration's */
    int32_t durability;                                /* enum pipeline_durability */
    json_t *root;
    struct expr_set *exprs;
    struct arena arena;
    uint32_t refs;
};

struct pipeline_setup {
    struct plugin_registry *plugins; /* NULL: structure only */
    bool (*has_endpoint)(void *arg, const char *name);
    const char *const *endpoints; /* their names, for hints; NULL-ended, or NULL */
    bool (*has_pipeline)(void *arg, const char *name); /* for targets; NULL: not checked */
    void *arg;
};
struct pipeline *pipeline_build(const struct pipeline_source *source,
                                const struct pipeline_setup *setup, struct report *report);
struct pipeline *pipeline_ref(struct pipeline *pipeline);
/* NULL is fine. */
void pipeline_unref(struct pipeline *pipeline);

/* The stage of that name, or NULL. */
struct stage *pipeline_stage(const struct pipeline *pipeline, const char *name);
/* Checks an input against the pipeline's schema; each fault is reported with a pointer that begins
 * with /input. True when it fits. */
bool pipeline_check_input(const struct pipeline *pipeline, const json_t *input,
                          struct report *report);
/* The input of a prompt (simple task API), new reference. */
int pipeline_tasks_input(struct pipeline *pipeline, const char *prompt, json_t **ret_input,
                         struct error *err);
/* The job's result as JSON text (malloc'ed) from its document. */
int pipeline_result(struct pipeline *pipeline, struct doc *doc, char **ret_text, size_t *ret_len,
                    struct error *err);
