/* why: where a job stands, for what reason, and until when, in words.
 *
 * Reads only, a few commands a lane; what it says is as old as the reading. A job in several lanes
 * has a reason for each, and for itself the one that stands most in its way. */
#pragma once

#include "base/json.h"
#include "state/store.h"

/*  X(word, sentence). `until` in the answer: when that changes by itself, where it is known.
 *  First what a job can be, then what a lane can wait for, from the hardest to the mildest. */
#define WHY_REASONS(X)                                                                             \
    X(not_found, "there is no such job: it was never submitted, or its retention is over")         \
    X(tombstone, "it was cancelled before it was submitted: a call that comes late will not run")  \
    X(quarantined, "fsck has moved it aside, for it could not be mended")                          \
    X(completed, "it has completed")                                                               \
    X(completed_expired, "it has completed; its events and outputs have expired, its result not")  \
    X(cancelled, "it was cancelled")                                                               \
    X(failed_deadline, "its deadline passed before it was done")                                   \
    X(failed_poison, "it brought its process down, or lost its worker, too often")                 \
    X(failed_discarded, "it failed, and was taken out of the dead letters by hand")                \
    X(failed_retry, "it failed, and is due to run again by itself")                                \
    X(failed_budget, "it failed, and waits for the budget of automatic runs")                      \
    X(failed_breaker, "it failed as many before it: the breaker holds it until one succeeds")      \
    X(failed_exhausted, "it failed, and its automatic runs are used up: it waits for a retry")     \
    X(failed_permanent, "it failed in a way that another run would not change: it waits for a "    \
                        "retry")                                                                   \
    X(cancelling, "it is being cancelled: its running tasks and their calls are ending")           \
    X(deadline_passed, "its deadline has passed: its running tasks and their calls are ending")    \
    X(failing, "a stage has failed: what still runs beside it goes on to its end")                 \
    X(damaged, "its state contradicts itself: run millrace fsck")                                  \
    X(no_worker, "no live worker serves its queue")                                                \
    X(worker_gone, "its worker is gone: another takes it over when the lease is over")             \
    X(revision_unknown, "no worker has the pipeline's revision, and it is not in Redis")           \
    X(held, "its pipeline is paused")                                                              \
    X(resuming, "its pipeline is being resumed, and its turn comes")                               \
    X(due_delayed, "it was submitted for a later time")                                            \
    X(due_retry, "an attempt failed, and the next one is due")                                     \
    X(due_throttled, "a limit does not let it through yet")                                        \
    X(due_parked,                                                                                  \
      "its worker was full, or did not have its pipeline (new? reload it): it comes back")         \
    X(queue_full, "all slots of the workers that serve its queue are taken")                       \
    X(queued, "it is in its queue")                                                                \
    X(claimed, "a worker has taken it from its queue and is about to begin it")                    \
    X(calling, "it waits for a job that it called")                                                \
    X(joining, "it waits for other stages that it needs")                                          \
    X(follow_up, "the job has ended; its follow-up is on its way")                                 \
    X(running, "a worker runs it")

enum why_reason {
#define WHY_REASON(word, sentence) WHY_##word,
    WHY_REASONS(WHY_REASON) WHY_REASON_COUNT
#undef WHY_REASON
};
const char *why_word(enum why_reason reason);
const char *why_sentence(enum why_reason reason);

struct why_answer {
    enum why_reason reason;
    uint64_t until_ms; /* server time; 0: not known */
    /* `{"id","reason","sentence","until","detail":{…},"lanes":[{"lane","stages","reason",
     * "sentence","until","detail":{…}}]}`; of jobs that it called: `"children"` with objects of the
     * same kind, WHY_DEPTH_MAX deep. */
    json_t *object;
};
#define WHY_DEPTH_MAX 4

/* MR_E_STORE when Redis is away. why_done. */
MR_SUSPENDS int why_job(struct store *store, const char *id, struct why_answer *ret,
                        struct error *err);
void why_done(struct why_answer *answer);
