/* What the files of why share: why.c is about a job, why_lane.c about one of its lanes. */
#pragma once

#include "state/inner.h"
#include "state/why.h"

/* A job as it was read. Texts point into `reply`. */
struct why {
    struct store *store;
    const char *id;
    uint32_t partition;
    unsigned depth;
    uint64_t now_ms;
    const struct reply *fields;
    const char *pipeline, *status, *stop, *paused;
    bool is_ended;
    struct reply reply;
};
/* A field of the job's hash; "" when it is not there. */
const char *why_field(const struct why *why, const char *name);
uint64_t why_number(const struct why *why, const char *name);
/* What is said of a lane, or of the job. */
struct why_said {
    enum why_reason reason;
    uint64_t until_ms;
    json_t *detail; /* an object, owned */
};
/* Why the lane `l:NUMBER` = `text` stands where it stands. */
MR_SUSPENDS int why_lane(struct why *why, const char *number, const char *text,
                         struct why_said *ret, const char **ret_stages, char **ret_copy,
                         struct error *err);
/* The answer about another job, one deeper (a called one). */
MR_SUSPENDS int why_child(const struct why *why, const char *id, json_t **ret,
                          enum why_reason *ret_reason, struct error *err);
json_t *why_time(uint64_t ms);
/* A string of what Redis holds, whatever the bytes: see utf8_plain. */
json_t *why_text(const char *text);
