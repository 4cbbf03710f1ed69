/* Dead letters: failed jobs, listed and acted on by what they failed of.
 *
 * They stand in a sorted set by the time of their failure; what a filter asks for stands in their
 * hashes. So a filter is a scan, newest first, of pages of ids and one script a page (dead.lua):
 * some microseconds of the server for each letter, never more than 200 at a time, so that a hundred
 * thousand of them disturb nobody. Every call has a time after which it answers with what it has.
 */
#pragma once

#include "base/mem.h"
#include "state/job.h"

struct dead_filter {
    const char *pipeline, *stage, *code; /* NULL: any */
    uint64_t before_ms;                  /* only what failed before, server time; 0: any */
};
/* Sets `before_ms` from a date and time of RFC 3339; NULL: any. The epoch itself stays a limit,
 * which no letter meets. False: it is no such time. */
bool dead_filter_before(struct dead_filter *filter, const char *before);

/* Texts live in the arena of their page; never NULL, "" when there is none. */
struct dead_letter {
    char id[ID_BYTES];
    uint64_t at_ms;         /* when it failed */
    uint64_t next_retry_ms; /* when it runs again by itself; 0: never */
    uint32_t attempts;      /* of the stage that failed, in its last run */
    const char *pipeline, *stage, *class, *code, *message;
    const char *fingerprint; /* PIPELINE/STAGE/CODE: what the breaker counts */
};
struct dead_page {
    struct dead_letter *letters;
    size_t count, cap;
    bool has_more;          /* there may be older ones */
    char last_id[ID_BYTES]; /* with has_more: go on after this one */
    struct arena arena;
};
/* Lists at most `max` letters, newest first, after the letter `after_id` (NULL: from the newest).
 * Stops after `budget_ms` with what it has found, has_more set. Jobs that have expired or run again
 * are passed over. MR_E_LOST when `after_id` is no dead letter (any more). */
MR_SUSPENDS int dead_list(struct store *store, const struct dead_filter *filter,
                          const char *after_id, uint32_t max, uint64_t budget_ms,
                          struct dead_page *ret_page, struct error *err);
void dead_page_done(struct dead_page *page);

enum dead_action { DEAD_COUNT, DEAD_RETRY, DEAD_DISCARD };
struct dead_sweep {
    uint64_t matched; /* letters that the filter meets, of those looked at */
    uint64_t done;    /* of these, run again or discarded */
    bool has_more;    /* not all were looked at: call again with `before_ms` */
    /* What was looked at failed before this: of the filter, else the time of the call. With
     * has_more: where the next call goes on, so that letters that cannot be acted on do not hold up
     * those behind them. A letter that is run again and fails anew is not met twice. */
    uint64_t before_ms;
};
/* Acts on every letter that the filter meets, DEAD_PARALLEL at a time, until `max` were matched
 * (0: no limit) or `budget_ms` have passed. DEAD_RETRY: by hand, with fresh attempts, from the
 * failed stage; `req` as in struct job_again. A letter whose script fails is logged and passed
 * over. After an error a part may have been done. */
MR_SUSPENDS int dead_sweep(struct store *store, const struct dead_filter *filter,
                           enum dead_action action, const char *req, uint64_t max,
                           uint64_t budget_ms, struct dead_sweep *ret, struct error *err);
#define DEAD_PARALLEL 16u

/* How many there are, over all partitions; expired ones that were not trimmed yet included. */
MR_SUSPENDS int dead_count(struct store *store, uint64_t *ret_count, struct error *err);
