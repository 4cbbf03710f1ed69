/* The job object as JSON, its entity tag, and the answers that carry one. */
#pragma once

#include "fcgi/front.h"

#define JOB_ETAG_BYTES 80

/* Appends the object of API.md ("Job"). Outputs and the result are spliced as the texts they are
 * stored as. `pipeline` gives the stages their order; NULL: as they come. */
bool job_object_add(struct buf *text, const struct job_view *view, const struct pipeline *pipeline,
                    const char *prefix);
/* The same without `stages` and `result`, which may be megabytes: an entry of a list. */
bool job_object_add_brief(struct buf *text, const struct job_view *view, const char *prefix);
/* The entity tag, quotes included: changes with whatever the object shows. */
void job_etag(const struct job_view *view, char ret_etag[JOB_ETAG_BYTES]);
/* Seconds after which asking again makes sense, 1 to 60; 0 when the job has ended for good. */
unsigned job_retry_after(const struct job_view *view);
/* Fills the response with the object, ETag and (while it is open) Retry-After. `location`: the
 * Location header too. */
void job_answer(struct front *front, struct response *response, int status,
                const struct job_view *view, bool location);
/* Reads a job for an exchange. False when the response is the answer already (404, 503). */
MR_SUSPENDS bool job_fetch(struct front *front, struct exchange *exchange,
                           struct response *response, const char *id, unsigned want,
                           struct job_view **ret_view);
/* The members of the stored error: borrowed from *ret_root (a new reference, may be NULL). */
struct job_fault {
    const char *code, *message, *stage;
    bool is_retryable;
};
void job_fault_read(const struct job_view *view, json_t **ret_root, struct job_fault *ret_fault);
