/* The facts of the state protocol, each written once: words and letters as they stand in Redis,
 * what scripts answer, limits, and every transition of a lane.
 *
 * The C code takes its words from here; tests/unit/state/test_table.c drives each transition
 * against Redis, so that this table and the scripts agree; tests/model includes this file and
 * checks at each step of the model that the step is one of these rows. So this file holds macros
 * alone and includes nothing: the model's language has no other C.
 *
 * What the rows mean for the one who called is docs/protocol.md, "Transitions". */
#pragma once

/*  X(NAME, word, is it an end?) of a job */
#define STATE_STATUSES(X)                                                                          \
    X(QUEUED, "queued", 0)                                                                         \
    X(PROCESSING, "processing", 0)                                                                 \
    X(WAITING, "waiting", 0)                                                                       \
    X(COMPLETED, "completed", 1)                                                                   \
    X(FAILED, "failed", 1)                                                                         \
    X(CANCELLED, "cancelled", 1)

/*  X(NAME, letter, word) of a lane; no field at all: NONE */
#define STATE_LANES(X)                                                                             \
    X(QUEUED, 'q', "queued")                                                                       \
    X(RUNNING, 'r', "running")                                                                     \
    X(DUE, 'd', "due")                                                                             \
    X(HELD, 'h', "held")

/*  X(NAME, letter, word) of a stage; no field at all: not ready yet */
#define STATE_STAGES(X)                                                                            \
    X(OPEN, 'o', "open")                                                                           \
    X(DONE, 'd', "done")                                                                           \
    X(SKIPPED, 's', "skipped")                                                                     \
    X(FAILED, 'f', "failed")

/*  X(NAME, word, rank, must what runs wind up?): how a job will end; it only rises. No field at
 *  all: rank 0 */
#define STATE_STOPS(X)                                                                             \
    X(FAILED, "failed", 1, 0)                                                                      \
    X(DEADLINE, "deadline", 2, 1)                                                                  \
    X(CANCELLED, "cancelled", 3, 1)

/* ---- What scripts answer; the C names are LANE_, JOB_, CANCEL_, AGAIN_, ERASE_ and NAME ---- */

/*  X(NAME, word): begin, renew, note, step, commit, fail, tell, park, handback, drop */
#define STATE_VERDICTS(X)                                                                          \
    X(OK, "OK")                                                                                    \
    X(END, "END")                                                                                  \
    X(STOP, "STOP")                                                                                \
    X(LOST, "LOST")                                                                                \
    X(GONE, "GONE")                                                                                \
    X(HELD, "HELD")                                                                                \
    X(POISON, "POISON")                                                                            \
    X(SUSPECT, "SUSPECT")                                                                          \
    X(PUT_OFF, "PUT_OFF")                                                                          \
    X(REV, "REV")
/*  submit, child */
#define STATE_SUBMITTED(X)                                                                         \
    X(NEW, "NEW")                                                                                  \
    X(SAME, "SAME")                                                                                \
    X(AGAIN, "AGAIN")                                                                              \
    X(CONFLICT, "CONFLICT")                                                                        \
    X(FULL, "FULL")
/*  cancel */
#define STATE_CANCELS(X)                                                                           \
    X(NONE, "NONE")                                                                                \
    X(DONE, "CANCELLED")                                                                           \
    X(CANCELLING, "CANCELLING")                                                                    \
    X(ENDED, "ENDED")
/*  again */
#define STATE_AGAINS(X)                                                                            \
    X(NONE, "NONE")                                                                                \
    X(OK, "AGAIN")                                                                                 \
    X(SAME, "SAME")                                                                                \
    X(REFUSED, "ENDED")
/*  erase */
#define STATE_ERASES(X)                                                                            \
    X(OK, "ERASED")                                                                                \
    X(NONE, "NONE")                                                                                \
    X(BUSY, "BUSY")

/* ---- Limits ---- */

#define STATE_MAX_CRASHES   3  /* charges above which a job is poison, unless configured */
#define STATE_MAX_TAKEOVERS 20 /* takeovers without a commit above which it is, too */

/* ---- Transitions ---- */

/*  X(script, caller, lane state before, after, condition, reply): what each script does to the
 *  lane it is about. NONE: there is no such lane. ANY to ANY: whatever it is, nothing is written.
 *  For scripts on a whole job the lane is its lowest. `mine` is left out where it is meant:
 *  without it every worker's script answers LOST and writes nothing. */
#define STATE_TRANSITIONS(X)                                                                       \
    X(submit, client, NONE, QUEUED, new, NEW)                                                      \
    X(submit, client, NONE, DUE, delayed, NEW)                                                     \
    X(submit, client, ANY, ANY, there, SAME)                                                       \
    X(submit, client, ANY, ANY, other_input, CONFLICT)                                             \
    X(submit, client, NONE, NONE, queue_full, FULL)                                                \
    X(submit, client, NONE, QUEUED, failed, AGAIN)                                                 \
    X(submit, worker, NONE, QUEUED, child_of_later_round, AGAIN)                                   \
    X(submit, worker, NONE, NONE, child_of_same_round, SAME)                                       \
    X(submit, worker, NONE, NONE, tombstone, SAME)                                                 \
    X(submit, worker, NONE, QUEUED, tombstone_of_earlier_round, NEW)                               \
    X(begin, worker, QUEUED, RUNNING, queued, OK)                                                  \
    X(begin, worker, RUNNING, RUNNING, taken_over, OK)                                             \
    X(begin, worker, RUNNING, RUNNING, same_fence, OK)                                             \
    X(begin, worker, QUEUED, RUNNING, stopped_with_children, STOP)                                 \
    X(begin, worker, RUNNING, RUNNING, stopped, STOP)                                              \
    X(begin, worker, QUEUED, RUNNING, unknown_revision, REV)                                       \
    X(begin, worker, RUNNING, NONE, crashed_too_often, POISON)                                     \
    X(begin, worker, RUNNING, RUNNING, suspect, SUSPECT)                                           \
    X(begin, worker, RUNNING, DUE, suspect_put_off, PUT_OFF)                                       \
    X(begin, worker, QUEUED, HELD, paused, HELD)                                                   \
    X(begin, worker, NONE, NONE, no_lane, GONE)                                                    \
    X(begin, worker, ANY, ANY, other_entry, GONE)                                                  \
    X(begin, worker, ANY, ANY, claimed_by_another, LOST)                                           \
    X(renew, keeper, RUNNING, RUNNING, runs, OK)                                                   \
    X(renew, keeper, RUNNING, RUNNING, stopped, STOP)                                              \
    X(renew, keeper, ANY, ANY, not_mine, LOST)                                                     \
    X(note, worker, RUNNING, RUNNING, runs, OK)                                                    \
    X(note, worker, RUNNING, RUNNING, stopped, STOP)                                               \
    X(note, worker, ANY, ANY, not_mine, LOST)                                                      \
    X(step, worker, RUNNING, RUNNING, runs, OK)                                                    \
    X(step, worker, RUNNING, RUNNING, stopped, STOP)                                               \
    X(step, worker, ANY, ANY, not_mine, LOST)                                                      \
    X(tell, worker, RUNNING, RUNNING, runs, OK)                                                    \
    X(tell, worker, RUNNING, RUNNING, stopped, STOP)                                               \
    X(tell, worker, ANY, ANY, not_mine, LOST)                                                      \
    X(commit, worker, RUNNING, RUNNING, more_to_do, OK)                                            \
    X(commit, worker, RUNNING, NONE, more_elsewhere, END)                                          \
    X(commit, worker, RUNNING, NONE, last_with_result, END)                                        \
    X(commit, worker, RUNNING, NONE, stopped, END)                                                 \
    X(commit, worker, RUNNING, RUNNING, stopped_with_more, STOP)                                   \
    X(commit, worker, RUNNING, RUNNING, repeated, OK)                                              \
    X(commit, worker, RUNNING, RUNNING, repeated_and_stopped, STOP)                                \
    X(commit, worker, ANY, ANY, not_mine, LOST)                                                    \
    X(fail, worker, RUNNING, NONE, retry, END)                                                     \
    X(fail, worker, RUNNING, NONE, permanent, END)                                                 \
    X(fail, worker, RUNNING, NONE, stopped, END)                                                   \
    X(fail, worker, RUNNING, RUNNING, with_sibling, OK)                                            \
    X(fail, worker, RUNNING, RUNNING, stopped_with_sibling, STOP)                                  \
    X(fail, worker, ANY, ANY, not_mine, LOST)                                                      \
    X(park, worker, RUNNING, DUE, runs, OK)                                                        \
    X(park, worker, ANY, ANY, not_mine, LOST)                                                      \
    X(handback, worker, RUNNING, QUEUED, runs, OK)                                                 \
    X(handback, worker, ANY, ANY, not_mine, LOST)                                                  \
    X(drop, worker, RUNNING, NONE, stopped, END)                                                   \
    X(drop, worker, RUNNING, QUEUED, stop_forgotten, OK)                                           \
    X(drop, worker, ANY, ANY, not_mine, LOST)                                                      \
    X(cancel, anyone, QUEUED, NONE, queued, CANCELLED)                                             \
    X(cancel, anyone, DUE, NONE, due, CANCELLED)                                                   \
    X(cancel, anyone, HELD, NONE, held, CANCELLED)                                                 \
    X(cancel, anyone, RUNNING, RUNNING, running, CANCELLING)                                       \
    X(cancel, anyone, QUEUED, NONE, another_runs, CANCELLING)                                      \
    X(cancel, anyone, DUE, NONE, another_lane_runs, CANCELLING)                                    \
    X(cancel, anyone, QUEUED, QUEUED, queued_with_children, CANCELLING)                            \
    X(cancel, anyone, DUE, QUEUED, due_with_children, CANCELLING)                                  \
    X(cancel, anyone, NONE, NONE, cancelled, CANCELLED)                                            \
    X(cancel, anyone, NONE, NONE, ended, ENDED)                                                    \
    X(cancel, anyone, NONE, NONE, absent, NONE)                                                    \
    X(cancel, worker, ANY, ANY, of_later_round, ENDED)                                             \
    X(wake, mover, DUE, QUEUED, due, OK)                                                           \
    X(wake, mover, DUE, DUE, early, EARLY)                                                         \
    X(wake, mover, HELD, QUEUED, resumed, OK)                                                      \
    X(wake, mover, ANY, ANY, moved_on, GONE)                                                       \
    X(wake, mover, QUEUED, NONE, deadline, OK)                                                     \
    X(wake, mover, DUE, NONE, deadline_while_due, OK)                                              \
    X(wake, mover, DUE, QUEUED, deadline_with_children, OK)                                        \
    X(wake, mover, QUEUED, QUEUED, deadline_with_children_queued, OK)                              \
    X(wake, mover, RUNNING, RUNNING, deadline_while_running, OK)                                   \
    X(wake, mover, NONE, QUEUED, dead_letter, OK)                                                  \
    X(again, client, NONE, QUEUED, failed, AGAIN)                                                  \
    X(again, client, ANY, ANY, repeated, SAME)                                                     \
    X(again, client, ANY, ANY, not_failed, ENDED)                                                  \
    X(again, client, NONE, NONE, absent, NONE)                                                     \
    X(erase, client, QUEUED, NONE, queued, ERASED)                                                 \
    X(erase, client, RUNNING, RUNNING, running, BUSY)                                              \
    X(erase, client, NONE, NONE, absent, NONE)
