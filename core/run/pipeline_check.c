/* Checks that need the whole pipeline: words, what expressions read, what options call, times.
 *
 * Plugins declare what an option is, so one walk over rows, settings and raw JSON together finds
 * all templates, expressions, names of pipelines and time-outs of any plugin. A name that an
 * expression reads must be `.input`, `.job`, `.stages`, a stage that has certainly ended (an
 * ancestor), or a target of the same stage. */
#include "run/pipeline_inner.h"

#include "base/unit.h"
#include <string.h>

#define STAGE_NAME_MAX 48u

static const char *const reserved[] = {"input", "job", "stages", "prompt", NULL};

static bool is_reserved(const char *name)
{
    for (const char *const *word = reserved; *word != NULL; word++)
        if (strcmp(name, *word) == 0)
            return true;
    return false;
}

static bool name_is_valid(const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || len > STAGE_NAME_MAX || name[0] < 'a' || name[0] > 'z')
        return false;
    return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == len;
}

/* Words: names of stages and of targets share the document. */

struct words {
    struct build *build;
    const char **names; /* borrowed from the root */
    size_t count;
};

static bool is_name_list(const struct mr_option *row)
{
    return row->type == MR_TYPE_LIST && (row->flags & MR_UNIQUE_NAMES) != 0;
}

static void add_word(struct words *words, const char *name, const char *pointer, const char *what)
{
    struct build *build = words->build;
    if (name == NULL || name[0] == '\0')
        return;
    if (!name_is_valid(name)) {
        error_hint(report_add(build->report, build->source->file, pointer,
                              "\"%.80s\" is not a name for a %s", name, what),
                   "a-z first, then a-z, 0-9 and _, at most %u characters", STAGE_NAME_MAX);
        return;
    }
    if (is_reserved(name)) {
        error_hint(report_add(build->report, build->source->file, pointer,
                              "\"%s\" cannot be the name of a %s", name, what),
                   "input, job, stages and prompt stand for other parts of the document");
        return;
    }
    for (size_t i = 0; i < words->count; i++) {
        if (strcmp(words->names[i], name) == 0) {
            error_hint(report_add(build->report, build->source->file, pointer,
                                  "the name \"%s\" is used twice", name),
                       "stages and targets have names of their own in the whole pipeline");
            return;
        }
    }
    words->names = mem_resize(words->names, words->count + 1, sizeof(char *));
    words->names[words->count++] = name;
}

static void add_targets(struct words *words, const struct stage *stage)
{
    if (stage->plugin == NULL)
        return;
    for (uint32_t i = 0; i < stage->plugin->options.count; i++) {
        struct mr_option row;
        option_row(&stage->plugin->options, i, &row);
        if (!is_name_list(&row))
            continue;
        const json_t *list = json_object_get(stage->options, row.name);
        for (size_t n = 0; n < json_array_size(list); n++) {
            mem_auto char *at =
                mem_format("/stages/%u/options/%s/%zu/name", (unsigned)stage->index, row.name, n);
            add_word(words, json_text_or(json_array_get(list, n), "name", NULL), at, "target");
        }
    }
}

void pipeline_check_words(struct build *build)
{
    struct words words = {.build = build};
    struct pipeline *pipeline = build->pipeline;
    for (uint32_t i = 0; i < pipeline->stage_count; i++) {
        mem_auto char *at = mem_format("/stages/%u/name", (unsigned)i);
        add_word(&words, pipeline->stages[i].name, at, "stage");
    }
    for (uint32_t i = 0; i < pipeline->stage_count; i++)
        add_targets(&words, &pipeline->stages[i]);
    free(words.names);
}

/* What an expression reads */

struct reader {
    struct build *build;
    const struct stage *stage; /* NULL: the pipeline's own templates, which see every stage */
    const char *pointer;
    bool prompt; /* `.prompt` instead of the document */
};

/* Whether the stage has a target of that name, which it binds while it runs. */
static bool binds(const struct stage *stage, const char *name)
{
    if (stage == NULL || stage->plugin == NULL)
        return false;
    for (uint32_t i = 0; i < stage->plugin->options.count; i++) {
        struct mr_option row;
        option_row(&stage->plugin->options, i, &row);
        const json_t *list = is_name_list(&row) ? json_object_get(stage->options, row.name) : NULL;
        for (size_t n = 0; n < json_array_size(list); n++)
            if (strcmp(json_text_or(json_array_get(list, n), "name", ""), name) == 0)
                return true;
    }
    return false;
}

static void fault_unknown(const struct reader *reader, const char *name)
{
    struct build *build = reader->build;
    const char *words[LIMIT_STAGES + 5] = {"input", "job", "stages"};
    size_t count = 3;
    if (reader->prompt) {
        words[0] = "prompt";
        words[1] = NULL;
    } else {
        for (uint32_t i = 0; i < build->pipeline->stage_count; i++)
            words[count++] = build->pipeline->stages[i].name;
    }
    struct error *err = report_add(build->report, build->source->file, reader->pointer,
                                   "there is nothing called .%.80s", name);
    const char *near = error_nearest(name, words);
    if (near != NULL)
        error_hint(err, "did you mean \".%s\"?", near);
    else
        error_hint(err, "%s",
                   reader->prompt ? "only .prompt can be read here"
                                  : "an expression reads .input, .job, .stages and "
                                    "stages by their names");
}

static void check_name(void *arg, const char *name)
{
    const struct reader *reader = arg;
    struct build *build = reader->build;
    if (strcmp(name, "*") == 0)
        return;
    if (reader->prompt) {
        if (strcmp(name, "prompt") != 0)
            fault_unknown(reader, name);
        return;
    }
    if ((is_reserved(name) && strcmp(name, "prompt") != 0) || binds(reader->stage, name))
        return;
    const struct stage *other = pipeline_stage(build->pipeline, name);
    if (other == NULL) {
        fault_unknown(reader, name);
        return;
    }
    if (reader->stage == NULL || build->circular ||
        stage_set_has(&build->stages[reader->stage->index].ancestors, other->index))
        return;
    if (other == reader->stage) {
        report_add(build->report, build->source->file, reader->pointer,
                   "reads .%s, which is the output of this very stage", name);
        return;
    }
    error_hint(report_add(build->report, build->source->file, reader->pointer,
                          "reads .%s, but does not wait for the stage \"%s\"", name, name),
               "add it to needs");
}

/* One walk over rows, settings and raw options */

struct options_walk {
    struct build *build;
    const struct stage *stage;
    struct buf pointer;
    const json_t *raw; /* the object that the rows describe */
};

static void read_field(const void *settings, uint32_t offset, void *ret, size_t size)
{
    memcpy(ret, (const char *)settings + offset, size);
}

static void check_pipeline_name(struct options_walk *walk, const char *name)
{
    const struct pipeline_setup *setup = walk->build->setup;
    if (name == NULL)
        return;
    if (!pipeline_name_is_valid(name))
        report_add(walk->build->report, walk->build->source->file, buf_text(&walk->pointer),
                   "\"%.80s\" is not the name of a pipeline", name);
    else if (setup->has_pipeline != NULL && !setup->has_pipeline(setup->arg, name))
        error_hint(report_add(walk->build->report, walk->build->source->file,
                              buf_text(&walk->pointer), "there is no pipeline \"%s\"", name),
                   "put %s.json into the folder of pipelines", name);
}

static void check_inner_timeout(struct options_walk *walk, const struct mr_option *row,
                                uint64_t inner_ms)
{
    char inner[32], outer[32];
    uint64_t outer_ms = walk->stage->timeout_ms;
    if (strncmp(row->name, "timeout", 7) != 0 || inner_ms <= outer_ms)
        return;
    unit_format_duration(inner_ms, inner);
    unit_format_duration(outer_ms, outer);
    error_hint(report_warn(walk->build->report, walk->build->source->file, buf_text(&walk->pointer),
                           "\"%s\" is %s, but the stage itself may take %s only", row->name, inner,
                           outer),
               "raise the stage's timeout");
}

static void walk_rows(struct options_walk *walk, const struct option_rows *rows,
                      const void *settings);

static void walk_list(struct options_walk *walk, const struct option_rows *rows,
                      const struct mr_option *row, const void *settings)
{
    struct mr_list list;
    read_field(settings, row->offset, &list, sizeof(list));
    struct option_rows inner = option_row_items(rows, row);
    const json_t *outer = walk->raw;
    for (uint32_t i = 0; i < list.count; i++) {
        size_t mark = walk->pointer.len;
        json_pointer_push_index(&walk->pointer, i);
        walk->raw = json_array_get(json_object_get(outer, row->name), i);
        walk_rows(walk, &inner, (const char *)list.items + (size_t)i * row->item_size);
        walk->pointer.len = mark;
        walk->pointer.data[mark] = '\0';
    }
    walk->raw = outer;
}

static void walk_row(struct options_walk *walk, const struct option_rows *rows,
                     const struct mr_option *row, const void *settings)
{
    struct reader reader = {
        .build = walk->build, .stage = walk->stage, .pointer = buf_text(&walk->pointer)};
    const void *pointer = NULL;
    uint64_t ms = 0;
    switch (row->type) {
    case MR_TYPE_TEMPLATE:
        read_field(settings, row->offset, &pointer, sizeof(pointer));
        if (pointer != NULL)
            expr_template_names(pointer, check_name, &reader);
        break;
    case MR_TYPE_EXPR:
        read_field(settings, row->offset, &pointer, sizeof(pointer));
        if (pointer != NULL)
            expr_names(pointer, check_name, &reader);
        break;
    case MR_TYPE_TEXT:
        read_field(settings, row->offset, &pointer, sizeof(pointer));
        if (row->flags & MR_PIPELINE)
            check_pipeline_name(walk, pointer);
        break;
    case MR_TYPE_DURATION:
        /* A default that does not fit is nobody's choice. */
        read_field(settings, row->offset, &ms, sizeof(ms));
        if (json_object_get(walk->raw, row->name) != NULL)
            check_inner_timeout(walk, row, ms);
        break;
    case MR_TYPE_LIST:
        walk_list(walk, rows, row, settings);
        break;
    default:
        break;
    }
}

static void walk_rows(struct options_walk *walk, const struct option_rows *rows,
                      const void *settings)
{
    for (uint32_t i = 0; i < rows->count; i++) {
        struct mr_option row;
        option_row(rows, i, &row);
        size_t mark = walk->pointer.len;
        json_pointer_push(&walk->pointer, row.name);
        walk_row(walk, rows, &row, settings);
        walk->pointer.len = mark;
        walk->pointer.data[mark] = '\0';
    }
}

static void check_stage(struct build *build, const struct stage *stage)
{
    bool hidden = stage->index >= build->pipeline->stage_count;
    if (stage->when != NULL) {
        mem_auto char *at = mem_format("/stages/%u/when", (unsigned)stage->index);
        struct reader reader = {.build = build, .stage = stage, .pointer = at};
        expr_names(stage->when, check_name, &reader);
    }
    if (stage->plugin == NULL)
        return;
    struct options_walk walk = {.build = build, .stage = stage, .raw = stage->options};
    buf_init(&walk.pointer, 4096);
    if (hidden)
        buf_format(&walk.pointer, "/%s", stage->name + 1);
    else
        buf_format(&walk.pointer, "/stages/%u/options", (unsigned)stage->index);
    walk_rows(&walk, &stage->plugin->options, stage->settings);
    buf_done(&walk.pointer);
}

/* Times that do not fit into one another */

static void check_stage_time(struct build *build, const struct stage *stage)
{
    const struct plugin *plugin = stage->plugin;
    if (plugin == NULL || plugin->about.default_timeout == NULL ||
        !build->stages[stage->index].timeout_given)
        return;
    uint64_t wanted_ms = plugin->about.default_timeout(stage->settings);
    if (wanted_ms <= stage->timeout_ms)
        return;
    char wanted[32], given[32];
    unit_format_duration(wanted_ms, wanted);
    unit_format_duration(stage->timeout_ms, given);
    mem_auto char *at = mem_format("/stages/%u/timeout", (unsigned)stage->index);
    error_hint(report_warn(build->report, build->source->file, at,
                           "the stage may take %s, but its options alone can take %s", given,
                           wanted),
               "raise the timeout, or leave it out");
}

static uint64_t longest_way_ms(struct build *build)
{
    struct pipeline *pipeline = build->pipeline;
    uint64_t *ways = mem_zalloc((pipeline->stage_count + 1) * sizeof(uint64_t));
    uint64_t longest = 0;
    /* Stages may stand in any order: as many rounds as the longest chain has links. */
    for (bool changed = true; changed;) {
        changed = false;
        for (uint32_t i = 0; i < pipeline->stage_count; i++) {
            const struct stage *stage = &pipeline->stages[i];
            uint64_t way = stage->timeout_ms;
            for (uint32_t n = 0; n < stage->need_count; n++)
                if (ways[stage->needs[n]] + stage->timeout_ms > way)
                    way = ways[stage->needs[n]] + stage->timeout_ms;
            changed = changed || way != ways[i];
            ways[i] = way;
            longest = way > longest ? way : longest;
        }
    }
    free(ways);
    return longest;
}

static void check_deadline(struct build *build)
{
    const struct pipeline *pipeline = build->pipeline;
    if (pipeline->deadline_ms == 0 || build->circular)
        return;
    uint64_t way_ms = longest_way_ms(build);
    if (way_ms <= pipeline->deadline_ms)
        return;
    char way[32], deadline[32];
    unit_format_duration(way_ms, way);
    unit_format_duration(pipeline->deadline_ms, deadline);
    error_hint(report_warn(build->report, build->source->file, "/deadline",
                           "the deadline is %s, but the stages' timeouts add up to %s", deadline,
                           way),
               "raise it, or shorten timeouts");
}

void pipeline_check_options(struct build *build)
{
    struct pipeline *pipeline = build->pipeline;
    for (uint32_t i = 0; i < build->stage_count; i++)
        check_stage(build, &pipeline->stages[i]);
    for (uint32_t i = 0; i < pipeline->stage_count; i++)
        check_stage_time(build, &pipeline->stages[i]);
    check_deadline(build);
    struct reader result = {.build = build, .pointer = "/result"};
    if (pipeline->result != NULL)
        expr_template_names(pipeline->result, check_name, &result);
    struct reader prompt = {.build = build, .pointer = "/tasks_input", .prompt = true};
    if (pipeline->tasks_input != NULL)
        expr_template_names(pipeline->tasks_input, check_name, &prompt);
}
