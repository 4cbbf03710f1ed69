/* What the files that build a pipeline share: the pipeline in the making and its raw JSON. */
#pragma once

#include "base/limits.h"
#include "run/pipeline.h"

struct stage_set {
    uint64_t bits[LIMIT_STAGES / 64];
};

struct build_stage {
    const json_t *raw;          /* the object in the file */
    struct stage_set ancestors; /* all it waits for, directly or not */
    bool timeout_given;
};

struct build {
    const struct pipeline_source *source;
    const struct pipeline_setup *setup;
    struct report *report;
    struct pipeline *pipeline;
    struct build_stage *stages; /* as many as the pipeline has, hidden ones too */
    uint32_t stage_count;       /* hidden ones too */
    bool circular;
};

/* Resolves `needs`, finds circles, fills next and ancestors. */
void pipeline_check_graph(struct build *build);
/* Names of stages and targets: grammar, uniqueness. */
void pipeline_check_words(struct build *build);
/* What expressions read, what options call, time-outs that do not fit. */
void pipeline_check_options(struct build *build);

static inline bool stage_set_has(const struct stage_set *set, stage_index i)
{
    return (set->bits[i / 64] >> (i % 64)) & 1;
}
static inline void stage_set_add(struct stage_set *set, stage_index i)
{
    set->bits[i / 64] |= (uint64_t)1 << (i % 64);
}
