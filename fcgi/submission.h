/* A submission: from JSON that a client sent to what the store takes.
 *
 * Shape first (every fault with its pointer), then the pipeline, then the input against its schema;
 * then the canonical form, digest and id, on a thread when the input is long. The canonical text is
 * what is stored. */
#pragma once

#include "app/enqueue.h"
#include "fcgi/front.h"

struct submission {
    struct pipeline *pipeline;            /* borrowed */
    json_t *input;                        /* a reference */
    const char *priority;                 /* "high", "normal", "low" */
    uint64_t delay_ms, run_at_ms, ttl_ms; /* 0: none */
    bool is_fresh;
    char *metadata;                   /* JSON text or NULL */
    const struct config_token *token; /* who asks; set by the caller */
    size_t text_len;                  /* about how long the input is as text; set by the caller */
    uint64_t reserved;                /* of front->memory_bytes, given back by submission_forget */
    /* From submission_prepare. */
    struct enqueue job;
    const char *id; /* job.id */
};

void submission_init(struct submission *submission);
void submission_done(struct submission *submission);

enum submission_fault { SUBMISSION_OK, SUBMISSION_SHAPE, SUBMISSION_COUNT, SUBMISSION_NO_PIPELINE };
/* Reads the body of POST /api/v1/jobs. SHAPE: the report has the faults, /input's among them.
 * COUNT: too many members of something (413), the report's first entry says of what. NO_PIPELINE:
 * it names one that is not there. */
enum submission_fault submission_read(const struct front *front, const json_t *body,
                                      struct submission *ret, struct report *report);
/* Canonical text, digest and id. `key` NULL: the id comes from the input (or, fresh, from chance).
 * MR_E_SCHEMA for an input that has no canonical form. */
MR_SUSPENDS int submission_prepare(struct front *front, struct submission *submission,
                                   const char *key, struct error *err);
/* Submits, whatever becomes of the client meanwhile. */
MR_SUSPENDS int submission_send(struct front *front, struct submission *submission,
                                struct job_submitted *ret, struct error *err);

/* Frees the input in every form and gives back what was reserved for it: before the request waits
 * for the job. May be called again. */
void submission_forget(struct front *front, struct submission *submission);

/* Parses a body as JSON, on a thread when it is long. NULL: the response is the problem. The cost
 * of the tree is reserved in front->memory_bytes; `ret_reserved` is for front_release. */
MR_SUSPENDS json_t *submission_body(struct front *front, struct exchange *exchange,
                                    struct response *response, uint64_t *ret_reserved);
