/* Pipelines: what there is, how their queues stand, pause and resume. */
#include "base/limits.h"
#include "base/unit.h"
#include "fcgi/front.h"
#include "fcgi/problem.h"
#include "run/pipeline.h"
#include "state/pause.h"
#include <string.h>

/* Figures that were read once for this request. A queue is shared by all stages that name it. */
struct figures {
    struct queue_figure {
        const char *name; /* borrowed from its pipeline */
        struct queue_stats stats;
    } * items;
    size_t count, cap;
};

static int figures_get(struct front *front, struct figures *figures, const char *queue,
                       const struct queue_stats **ret, struct error *err)
{
    for (size_t i = 0; i < figures->count; i++) {
        if (strcmp(figures->items[i].name, queue) == 0) {
            *ret = &figures->items[i].stats;
            return MR_OK;
        }
    }
    struct queue_figure item = {.name = queue};
    int rc = queue_get_stats(front->store, queue, &item.stats, err);
    if (rc != MR_OK) {
        return rc;
    }
    if (figures->count == figures->cap) {
        figures->cap = figures->cap > 0 ? 2 * figures->cap : 16;
        figures->items = mem_resize(figures->items, figures->cap, sizeof(*figures->items));
    }
    figures->items[figures->count] = item;
    *ret = &figures->items[figures->count++].stats;
    return MR_OK;
}

static json_t *stats_object(const struct queue_stats *stats)
{
    uint64_t waiting = 0;
    uint64_t running = 0;
    for (unsigned class = 0; class < QUEUE_CLASSES; class ++) {
        waiting += stats->waiting[class];
        running += stats->running[class];
    }
    return json_pack("{s:I, s:I, s:I}", "waiting", (json_int_t)waiting, "running",
                     (json_int_t)running, "oldest_ms", (json_int_t)stats->oldest_ms);
}

static json_t *duration(uint64_t ms)
{
    char text[32];
    unit_format_duration(ms, text);
    return ms > 0 ? json_string(text) : json_null();
}

static json_t *stages_array(const struct front *front, const struct pipeline *pipeline)
{
    json_t *stages = json_array();
    for (uint32_t i = 0; i < pipeline->stage_count; i++) {
        const struct stage *stage = &pipeline->stages[i];
        json_t *needs = json_array();
        for (uint32_t k = 0; k < stage->need_count; k++) {
            json_array_append_new(needs, json_string(pipeline->stages[stage->needs[k]].name));
        }
        const char *version = json_text_or(front->setup->plugins, stage->plugin_name, NULL);
        json_array_append_new(stages, json_pack("{s:s, s:s, s:s?, s:s, s:o, s:o, s:i}", "name",
                                                stage->name, "plugin", stage->plugin_name,
                                                "version", version, "queue", stage->queue, "needs",
                                                needs, "timeout", duration(stage->timeout_ms),
                                                "attempts", (int)stage->retry.attempts));
    }
    return stages;
}

/* Adds the figures of every queue of the pipeline to `queues`. */
static int add_queues(struct front *front, const struct pipeline *pipeline, struct figures *figures,
                      json_t *queues, struct error *err)
{
    for (uint32_t i = 0; i < pipeline->stage_count; i++) {
        const char *queue = pipeline->stages[i].queue;
        const struct queue_stats *stats = NULL;
        int rc = figures_get(front, figures, queue, &stats, err);
        if (rc != MR_OK) {
            return rc;
        }
        if (json_object_get(queues, queue) == NULL) {
            json_object_set_new(queues, queue, stats_object(stats));
        }
    }
    return MR_OK;
}

static json_t *paused_value(enum pause_state state)
{
    return state == PAUSE_RESUMING ? json_string("resuming") : json_boolean(state == PAUSE_ON);
}

/* The object of one pipeline, new reference; NULL with the error of Redis. */
static json_t *pipeline_object(struct front *front, const struct pipeline *pipeline,
                               struct figures *figures, struct error *err)
{
    struct pause pause;
    json_t *queues = json_object();
    if (pause_get(front->store, pipeline->name, &pause, err) != MR_OK ||
        add_queues(front, pipeline, figures, queues, err) != MR_OK) {
        json_decref(queues);
        return NULL;
    }
    return json_pack("{s:s, s:s, s:s?, s:s, s:o, s:I, s:o, s:o, s:O?, s:o}", "object", "pipeline",
                     "name", pipeline->name, "description", pipeline->description, "revision",
                     pipeline->revision, "paused", paused_value(pause.state), "held",
                     (json_int_t)pause.held, "deadline", duration(pipeline->deadline_ms), "stages",
                     stages_array(front, pipeline), "input", pipeline->input_schema, "queues",
                     queues);
}

void pipelines_list(struct front *front, struct exchange *exchange, struct response *response)
{
    if (!front_has_store(front, exchange, response)) {
        return;
    }
    struct figures figures = {0};
    struct error err;
    bool is_good = true;
    json_t *data = json_array();
    for (size_t i = 0; i < front->pipeline_count && is_good; i++) {
        json_t *object = pipeline_object(front, front->pipelines[i], &figures, &err);
        is_good = object != NULL && json_array_append_new(data, object) == 0;
    }
    json_hold json_t *body = json_pack("{s:s, s:o}", "object", "list", "data", data);
    if (is_good) {
        response_json(response, 200, body);
    } else {
        front_fail(exchange, response, &err);
    }
    free(figures.items);
}

/* The pipeline that the path names, or NULL with the 404. */
static struct pipeline *named(struct front *front, struct exchange *exchange,
                              struct response *response)
{
    const char *name = exchange->request.arg[0];
    struct pipeline *pipeline = front_pipeline(front, name);
    if (pipeline == NULL) {
        problem_format(response, PROBLEM_NOT_FOUND, exchange->request.id,
                       "there is no pipeline \"%s\"", name);
    }
    return pipeline;
}

static void answer(struct front *front, struct exchange *exchange, struct response *response,
                   const struct pipeline *pipeline)
{
    struct figures figures = {0};
    struct error err;
    json_hold json_t *object = pipeline_object(front, pipeline, &figures, &err);
    if (object != NULL) {
        response_json(response, 200, object);
    } else {
        front_fail(exchange, response, &err);
    }
    free(figures.items);
}

void pipelines_get(struct front *front, struct exchange *exchange, struct response *response)
{
    const struct pipeline *pipeline = named(front, exchange, response);
    if (pipeline != NULL && front_has_store(front, exchange, response)) {
        answer(front, exchange, response, pipeline);
    }
}

static void change(struct front *front, struct exchange *exchange, struct response *response,
                   int (*fn)(struct store *store, const char *pipeline, struct error *err))
{
    const struct pipeline *pipeline = named(front, exchange, response);
    if (pipeline == NULL || !front_has_store(front, exchange, response)) {
        return;
    }
    struct error err;
    wait_shield(1); /* a client that has left does not leave it half done */
    int rc = fn(front->store, pipeline->name, &err);
    wait_shield(-1);
    if (rc != MR_OK) {
        front_fail(exchange, response, &err);
    } else {
        answer(front, exchange, response, pipeline);
    }
}

void pipelines_pause(struct front *front, struct exchange *exchange, struct response *response)
{
    change(front, exchange, response, pipeline_pause);
}

void pipelines_resume(struct front *front, struct exchange *exchange, struct response *response)
{
    change(front, exchange, response, pipeline_resume);
}
