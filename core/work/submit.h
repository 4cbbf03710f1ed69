/* What a submission takes from its pipeline, whoever submits: clients, calls and dispatches. */
#pragma once

#include "run/pipeline.h"
#include "state/job.h"

#define SUBMIT_AFTER_BYTES 24

/* The digest that tells submissions of one id apart: SHA-256 over the pipeline's name and the
 * canonical input, each with its length before it. */
void submit_digest(const char *pipeline, const char *input, size_t len,
                   char ret_hex[HASH_HEX_BYTES]);
/* Fills name, first stages, follow-ups and retention, and the deadline: the nearer one of the
 * pipeline's and of `ttl_ms` (0: none). Borrows from `pipeline` and `after`; `*ret_first` is the
 * array of first stages, free() it after the submission. */
void submit_fill(struct job_submit *submit, const struct pipeline *pipeline, uint64_t ttl_ms,
                 char after[SUBMIT_AFTER_BYTES], struct job_first **ret_first);
