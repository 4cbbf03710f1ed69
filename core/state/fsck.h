/* fsck: is what stands in Redis what the protocol says? Looks at every key of the prefix beside
 * running workers, and mends what can be mended.
 *
 * The walk goes in small steps (SCAN, XRANGE and ZSCAN by the page) and decides nothing itself:
 * each finding is made by one script that looks at the job and its entry or member together, and
 * that, when asked to, mends in the same step. So a state that changes meanwhile gives no false
 * findings, and a repair meets no worker half-way. A job that cannot be mended goes into
 * quarantine: its hash is moved to `quarantined:ID`, out of everybody's way, and listed. */
#pragma once

#include "state/store.h"

/*  X(word, what is wrong, what the repair does) */
#define FSCK_FINDINGS(X)                                                                           \
    X(type_wrong, "a key is of another type than it has to be",                                    \
      "moves it to quarantine (of a job's outputs or events: deletes it) and makes it anew")       \
    X(version_missing, "the key with the version of the protocol is gone", "writes it")            \
    X(ttl_missing, "a key that has to expire would stay for ever", "sets the TTL")                 \
    X(ttl_running, "a key that has to stay would expire", "takes the TTL away")                    \
    X(value_unreadable, "a field of a list of pipelines, revisions or failures is no such value",  \
      "resumes the pipeline, numbers the revision anew, forgets the count")                        \
    X(revision_gone, "the source of an unfinished job's revision is not in Redis",                 \
      "stores it, when the configuration's folders have the pipeline in that revision")            \
    X(revision_wrong, "the source of a revision is not the text that its name is the digest of",   \
      "deletes it; see revision_gone")                                                             \
    X(field_unreadable, "a plain field of a job has no such value",                                \
      "puts back what can be told from the rest, or the default")                                  \
    X(status_wrong, "a job's status, stop, end or error contradict one another or its lanes",      \
      "makes them follow from lanes, stages and result")                                           \
    X(result_missing, "a completed job has no result that can be read",                            \
      "opens the job's end again, which makes the result from the outputs")                        \
    X(done_wrong, "the count of finished stages is wrong", "counts them")                          \
    X(lanes_list, "the list of a job's lanes is not that of its lanes", "writes it anew")          \
    X(lane_number, "the last lane number is below one that is there", "raises it")                 \
    X(lane_unreadable, "a lane cannot be read", "opens its stages in a new lane")                  \
    X(lane_empty, "a lane holds no stage", "closes it")                                            \
    X(lane_unclaimed, "a lane runs, but no worker holds its entry: nobody would take it over",     \
      "gives the lane back to its queue, in class recovered")                                      \
    X(ended_lane, "an ended job has a lane that is not its follow-up's", "closes it")              \
    X(job_unended, "a job is stopped and has no lane, but has not ended", "ends it")               \
    X(stage_unreadable, "the record of a stage cannot be read",                                    \
      "makes it done when its output is there, else open")                                         \
    X(stage_missing, "a stage that has to have a record has none",                                 \
      "makes it done when its output is there, else opens it")                                     \
    X(stage_unknown, "a lane holds a stage that the pipeline does not have", "takes it out")       \
    X(stage_state, "the record of a stage contradicts its lane, its output or the job",            \
      "makes it done when its output is there; takes it out of the lane")                          \
    X(stage_twice, "a stage is in two lanes", "leaves it in the one that runs, or the first")      \
    X(stage_unlaned, "a stage is open and in no lane", "opens a lane for it, in class recovered")  \
    X(output_missing, "the output of a finished stage is gone",                                    \
      "runs the stage again, and those that need it")                                              \
    X(step_left, "a step of a finished stage is still there", "deletes it")                        \
    X(entry_missing, "the entry that a lane names is not in its stream",                           \
      "makes a new one, in class recovered")                                                       \
    X(entry_wrong, "the entry that a lane names is another job's or lane's",                       \
      "makes a new one, in class recovered")                                                       \
    X(entry_unreachable, "an entry was read, and no worker has it: nobody would read it again",    \
      "makes a new one, in class recovered")                                                       \
    X(entry_orphan, "an entry belongs to no lane", "deletes it")                                   \
    X(entry_twice, "a second entry of one lane", "deletes it")                                     \
    X(entry_unreadable, "an entry of a queue is none of Millrace's", "deletes it")                 \
    X(due_missing, "what has to happen at a time is not in the set of what is due", "puts it in")  \
    X(due_time, "the set of what is due has another time than the job",                            \
      "takes the job's; of a job without one, the set's")                                          \
    X(held_missing, "a lane is held, but not in the set of its pipeline", "puts it in")            \
    X(held_unpaused, "a lane is held, but its pipeline is not paused, or the job is stopped",      \
      "gives the lane back to its queue, in class recovered")                                      \
    X(dead_missing, "a failed job is not among the dead letters, or not in its breaker's list",    \
      "puts it in")                                                                                \
    X(list_missing, "a job is not in the list of jobs", "puts it in")                              \
    X(member_orphan, "a member of a set stands for nothing", "deletes it")                         \
    X(member_unreadable, "a member of a set is none of Millrace's", "deletes it")                  \
    X(log_cut, "the events of a job do not begin at the beginning, or are gone",                   \
      "puts a first event in their place")                                                         \
    X(log_length, "an ended job does not have as many events as it says", "counts them")           \
    X(left_over, "outputs or events of a job that is not there", "deletes them")                   \
    X(job_beyond_repair, "a job lacks what it cannot do without", "moves it to quarantine")

/*  Facts that are no damage: reported, and not counted as findings.
 *  X(word, what it is, what the repair does) */
#define FSCK_NOTES(X)                                                                              \
    X(list_stale, "a list names a job that has expired: movers take such names out by and by",     \
      "takes it out")                                                                              \
    X(consumer_gone, "entries are held by a worker that is gone, for several leases already",      \
      "nothing: any worker that serves the queue takes them over")                                 \
    X(key_unknown, "a key under the prefix that is none of Millrace's",                            \
      "nothing: it is never touched")

enum fsck_kind {
#define FSCK_KIND(word, wrong, mends) FSCK_##word,
    FSCK_FINDINGS(FSCK_KIND) FSCK_FINDING_COUNT,
    FSCK_NOTES_FROM = FSCK_FINDING_COUNT - 1,
    FSCK_NOTES(FSCK_KIND) FSCK_KINDS
#undef FSCK_KIND
};
/* "entry_missing", and the sentences of the table. */
const char *fsck_word(enum fsck_kind kind);
const char *fsck_wrong(enum fsck_kind kind);
const char *fsck_mends(enum fsck_kind kind);
static inline bool fsck_is_note(enum fsck_kind kind)
{
    return kind >= FSCK_FINDING_COUNT;
}

enum fsck_outcome { FSCK_FOUND, FSCK_MENDED, FSCK_QUARANTINED, FSCK_LEFT };
struct fsck_finding {
    enum fsck_kind kind;
    enum fsck_outcome outcome; /* FOUND: only looked; LEFT: the repair did not help */
    const char *at;            /* the job's id, or the key; as `what`: see utf8_plain */
    bool is_job;
    const char *what; /* particulars */
};
struct fsck_options {
    bool repair;
    /* The version and revisions need not be in Redis, digests and revisions may be any text: tests
     * of the protocol. */
    bool is_lenient;
    void (*on_finding)(void *arg, const struct fsck_finding *finding); /* may be NULL */
    /* The source of a revision (malloc'ed) and its pipeline's name (borrowed), from elsewhere than
     * Redis; NULL: not there. May be NULL. */
    char *(*find_source)(void *arg, const char *revision, size_t *ret_len, const char **ret_name);
    void *arg;
};
struct fsck_summary {
    uint64_t jobs;        /* looked at */
    uint64_t findings;    /* without notes */
    uint64_t mended;      /* of them */
    uint64_t left;        /* of them: neither mended nor moved to quarantine */
    uint64_t quarantined; /* jobs moved by this run */
    uint64_t notes;
    uint64_t in_quarantine; /* now, moved keys included */
};
/* The whole walk. MR_OK also when there are findings; `ret` is filled with what was seen when it
 * fails, too. Does not need store_check before. */
MR_SUSPENDS int fsck_run(struct store *store, const struct fsck_options *options,
                         struct fsck_summary *ret, struct error *err);

/* ---- Quarantine ---- */

struct fsck_quarantined {
    char *name; /* a job's id, or `key NAME`: a key that was moved to quarantined:key:NAME */
    char *why;  /* "" when it is not known */
    uint64_t at_ms;
};
/* Everything in quarantine, oldest first, at most `max`. fsck_quarantine_free. */
MR_SUSPENDS int fsck_quarantine(struct store *store, uint32_t max,
                                struct fsck_quarantined **ret_items, size_t *ret_count,
                                struct error *err);
void fsck_quarantine_free(struct fsck_quarantined *items, size_t count);
