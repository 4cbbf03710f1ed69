/* The graph of a pipeline: `needs` resolved, circles named, who waits for whom.
 *
 * A depth-first walk along `needs` with three colours finds a circle and, from the stack of the
 * walk, the way around it; the order in which it leaves stages is one in which ancestors come
 * first. At most LIMIT_STAGES stages, so its depth is bounded. */
#include "run/pipeline_inner.h"

#include <string.h>

enum colour { WHITE, GREY, BLACK };

struct walk {
    struct build *build;
    enum colour colours[LIMIT_STAGES];
    stage_index way[LIMIT_STAGES];
    uint32_t depth;
};

static struct error *fault(struct build *build, stage_index stage, size_t need, const char *message,
                           const char *name)
{
    mem_auto char *at = mem_format("/stages/%u/needs/%zu", (unsigned)stage, need);
    return report_add(build->report, build->source->file, at, "%s \"%.80s\"", message, name);
}

static void hint_stage(struct build *build, struct error *err, const char *name)
{
    const char *words[LIMIT_STAGES + 1] = {0};
    for (uint32_t i = 0; i < build->pipeline->stage_count; i++)
        words[i] = build->pipeline->stages[i].name;
    const char *near = error_nearest(name, words);
    if (near != NULL)
        error_hint(err, "did you mean \"%s\"?", near);
    else
        error_hint(err, "`needs` holds names of stages of this pipeline");
}

static void add_need(struct stage *stage, stage_index need)
{
    stage->needs = mem_resize(stage->needs, stage->need_count + 1, sizeof(stage_index));
    stage->needs[stage->need_count++] = need;
}

static void read_need(struct build *build, struct stage *stage, size_t index, const json_t *value)
{
    const char *name = json_string_value(value);
    if (name == NULL) {
        fault(build, stage->index, index, "must be the name of a stage, not", "?");
        return;
    }
    const struct stage *other = pipeline_stage(build->pipeline, name);
    if (other == NULL) {
        hint_stage(build, fault(build, stage->index, index, "there is no stage", name), name);
        return;
    }
    for (uint32_t i = 0; i < stage->need_count; i++) {
        if (stage->needs[i] == other->index) {
            fault(build, stage->index, index, "names twice the stage", name);
            return;
        }
    }
    add_need(stage, other->index);
}

static void read_needs(struct build *build, struct stage *stage)
{
    const json_t *needs = json_object_get(build->stages[stage->index].raw, "needs");
    if (needs == NULL) {
        if (stage->index > 0)
            add_need(stage, stage->index - 1);
        return;
    }
    if (!json_is_array(needs)) {
        mem_auto char *at = mem_format("/stages/%u/needs", (unsigned)stage->index);
        error_hint(report_add(build->report, build->source->file, at, "must be an array of names"),
                   "[] starts at once; without `needs` a stage follows the one above it");
        return;
    }
    for (size_t i = 0; i < json_array_size(needs); i++)
        read_need(build, stage, i, json_array_get(needs, i));
}

/* Says which way the circle goes: from where `to` is on the way to its end, and back to `to`. */
static void report_circle(struct walk *walk, stage_index to)
{
    struct build *build = walk->build;
    struct stage *stages = build->pipeline->stages;
    struct buf buf;
    buf_init(&buf, 300);
    uint32_t from = 0;
    while (walk->way[from] != to)
        from++;
    /* The way follows `needs`; read backwards it is the order of running. */
    buf_add_text(&buf, stages[to].name);
    for (uint32_t i = walk->depth; i-- > from;)
        buf_format(&buf, " -> %s", stages[walk->way[i]].name);
    mem_auto char *at = mem_format("/stages/%u/needs", (unsigned)to);
    error_hint(report_add(build->report, build->source->file, at, "stages wait for one another: %s",
                          buf_text(&buf)),
               "take one of them out of the other's `needs`");
    buf_done(&buf);
    build->circular = true;
}

static void visit(struct walk *walk, stage_index index)
{
    struct build *build = walk->build;
    struct stage *stage = &build->pipeline->stages[index];
    struct stage_set *own = &build->stages[index].ancestors;
    walk->colours[index] = GREY;
    walk->way[walk->depth++] = index;
    for (uint32_t i = 0; i < stage->need_count; i++) {
        stage_index need = stage->needs[i];
        if (walk->colours[need] == GREY) {
            report_circle(walk, need);
            continue;
        }
        if (walk->colours[need] == WHITE)
            visit(walk, need);
        stage_set_add(own, need);
        for (size_t word = 0; word < LIMIT_STAGES / 64; word++)
            own->bits[word] |= build->stages[need].ancestors.bits[word];
    }
    walk->depth--;
    walk->colours[index] = BLACK;
}

void pipeline_check_graph(struct build *build)
{
    struct pipeline *pipeline = build->pipeline;
    for (uint32_t i = 0; i < pipeline->stage_count; i++)
        read_needs(build, &pipeline->stages[i]);
    struct walk walk = {.build = build};
    for (uint32_t i = 0; i < pipeline->stage_count; i++)
        if (walk.colours[i] == WHITE)
            visit(&walk, i);
    for (uint32_t i = 0; i < pipeline->stage_count; i++) {
        const struct stage *stage = &pipeline->stages[i];
        for (uint32_t n = 0; n < stage->need_count; n++) {
            struct stage *need = &pipeline->stages[stage->needs[n]];
            need->next = mem_resize(need->next, need->next_count + 1, sizeof(stage_index));
            need->next[need->next_count++] = i;
        }
    }
    /* What runs after the end sees every stage. */
    for (uint32_t i = pipeline->stage_count; i < build->stage_count; i++)
        for (uint32_t n = 0; n < pipeline->stage_count; n++)
            stage_set_add(&build->stages[i].ancestors, n);
}
