/* Rate limits that hold over all workers: requests and tokens a minute, calls in flight.
 *
 * Requests are spaced evenly (GCRA: a time at which the next may begin, moved on by each), tokens
 * the same way by their number. A place is booked ahead: the caller sleeps until it. No window of
 * 60 s holds more than `rpm`, whatever the burst (with one, the last rpm beginnings are kept).
 * Calls in flight are names with an end, so that those of a dead worker leave by themselves. Names
 * and settings come from the configuration. */
#pragma once

#include "state/store.h"

struct limit_rule {
    const char *name;                 /* of an endpoint or a queue: at most 64 of `a-z0-9-` */
    uint32_t rpm, tpm, max_in_flight; /* 0: no such limit */
    uint32_t burst;                   /* requests at once; 0: 1; at most rpm */
};
enum limit_outcome {
    LIMIT_TAKEN, /* go on after wait_ms (0: at once); then limit_release */
    LIMIT_LATER, /* nothing was booked: a place is free in about wait_ms */
};
/* Asks for one call. `holder` names it (unique; kept until limit_release, or `hold_ms` after its
 * beginning at the latest). `tokens`: an estimate, settled later. A place further off than
 * `wait_max_ms` is not booked. Sent again after a lost reply: the same place. */
MR_SUSPENDS int limit_take(struct store *store, const struct limit_rule *rule, const char *holder,
                           uint32_t tokens, uint64_t hold_ms, uint64_t wait_max_ms,
                           enum limit_outcome *ret, uint64_t *ret_wait_ms, struct error *err);
/* The call is over. `tokens`: what it used beyond (or, negative, below) its estimate. */
MR_SUSPENDS int limit_release(struct store *store, const struct limit_rule *rule,
                              const char *holder, int64_t tokens, struct error *err);
/* The other side asks to wait (429): nobody begins a call for that long. At most 120 s count. */
MR_SUSPENDS int limit_cool(struct store *store, const struct limit_rule *rule, uint64_t ms,
                           struct error *err);
