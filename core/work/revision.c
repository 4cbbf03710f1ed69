/* Pipelines by revision: those that this host offers, and older or newer ones that jobs brought
 * along. A job keeps the revision it began with; a worker that meets one it does not know takes its
 * source from Redis. Nothing is dropped while the process lives: revisions are few. */
#include "work/work.h"

#include "base/log.h"
#include <string.h>

struct revision_item {
    struct revision_item *next;
    struct pipeline *pipeline;
    bool is_own;
};

struct revision_table {
    struct revision_item *items;
};

struct revision_table *revision_table_new(void)
{
    return mem_zalloc(sizeof(struct revision_table));
}

void revision_table_free(struct revision_table *table)
{
    if (!table)
        return;
    while (table->items) {
        struct revision_item *item = table->items;
        table->items = item->next;
        pipeline_unref(item->pipeline);
        free(item);
    }
    free(table);
}

void revision_add(struct revision_table *table, struct pipeline *pipeline, bool is_own)
{
    struct revision_item *item = mem_zalloc(sizeof *item);
    *item = (struct revision_item){.next = table->items, .pipeline = pipeline, .is_own = is_own};
    table->items = item;
}

struct pipeline *revision_find(const struct revision_table *table, const char *name,
                               const char *revision)
{
    for (const struct revision_item *item = table->items; item; item = item->next)
        if (strcmp(item->pipeline->name, name) == 0 &&
            (revision ? strcmp(item->pipeline->revision, revision) == 0 : item->is_own))
            return item->pipeline;
    return NULL;
}

char *revision_known(const struct revision_table *table, const char *name)
{
    struct buf buf_auto known;
    buf_init(&known, LIMIT_PIPELINE_BYTES);
    for (const struct revision_item *item = table->items; item; item = item->next)
        if (!item->is_own && strcmp(item->pipeline->name, name) == 0)
            buf_format(&known, "%s%s", known.len ? "," : "", item->pipeline->revision);
    return mem_dup(buf_text(&known));
}

void revision_each_own(const struct revision_table *table,
                       void (*fn)(void *arg, struct pipeline *pipeline), void *arg)
{
    for (const struct revision_item *item = table->items; item; item = item->next)
        if (item->is_own)
            fn(arg, item->pipeline);
}

int revision_fetch(struct worker *worker, const char *name, const char *revision, struct error *err)
{
    mem_auto char *text = NULL;
    size_t len = 0;
    int rc = revision_get(worker->store, revision, &text, &len, err);
    if (rc != MR_OK)
        return rc;
    if (!text)
        return error_set(err, MR_E_PIPELINE_CHANGED,
                         "revision %.12s of pipeline %s is not in Redis any more", revision, name);
    if (revision_find(worker->revisions, name, revision))
        return MR_OK; /* another fiber was quicker */
    /* Paths in its options are this host's: relative to where the own pipeline of that name lies.
     */
    const struct pipeline *own = revision_find(worker->revisions, name, NULL);
    struct pipeline_source *source =
        pipeline_source_new(name, own ? own->file : name, own ? own->dir : ".", text, len);
    struct report report;
    report_init(&report);
    const struct pipeline_setup setup = {.plugins = worker->plugins,
                                         .has_endpoint = worker->setup->has_endpoint,
                                         .arg = worker->setup->arg};
    struct pipeline *pipeline = pipeline_build(source, &setup, &report);
    if (pipeline) {
        revision_add(worker->revisions, pipeline, false);
        log_event(LOG_INFO, "pipeline revision taken from Redis", "pipeline", name, "revision",
                  revision, NULL);
    } else {
        rc = error_set(err, MR_E_PIPELINE_CHANGED,
                       "revision %.12s of pipeline %s cannot be run here: %s", revision, name,
                       report.count ? report.items[0].message : "it was refused");
    }
    report_done(&report);
    pipeline_source_free(source);
    return rc;
}
