/* Every name that Millrace uses in Redis, in one table.
 *
 * Names with {P} begin with `PREFIX:{P}:`, where P is the partition of a job's id, so
 * that a job and what its scripts touch lie in one hash slot. */
#pragma once

/*  X(name, pattern, type, lifetime, who writes, sentence) */
#define STATE_KEYS(X)                                                                              \
    X(JOB, "{P}:job:ID", "hash", "retention.result from the job's end", "scripts",                 \
      "all state of one job: status, lanes with their fences, stages, input, result, error")       \
    X(OUT, "{P}:out:ID", "hash", "retention.status from the end (result when it failed)",          \
      "scripts", "outputs of stages, and STAGE#NAME for steps of stages that are open")            \
    X(LOG, "{P}:log:ID", "list", "retention.status from the end (result when it failed)",          \
      "scripts", "events by number; the position is the number")                                   \
    X(WATCH, "{P}:watch:ID", "channel", "", "scripts",                                             \
      "each event with its number, as it is appended to the log")                                  \
    X(BELL, "{P}:bell:WORKER", "channel", "", "scripts",                                           \
      "tells a worker that a lane it runs has to stop")                                            \
    X(QUEUE, "{P}:queue:NAME:CLASS", "stream", "none", "scripts",                                  \
      "one entry for each lane that waits or runs; classes recovered, call, high, normal, low")    \
    X(DUE, "{P}:due", "zset", "none", "scripts",                                                   \
      "what has to happen at a time: lanes, deadlines, reprocessing")                              \
    X(DEAD, "{P}:dead", "zset", "none; members leave with their job", "scripts",                   \
      "failed jobs, by the time they failed")                                                      \
    X(DEAD_INFO, "{P}:dead:info", "hash", "none", "scripts",                                       \
      "budget and breaker of automatic reprocessing")                                              \
    X(DEAD_HELD, "{P}:dead:held", "zset", "none; members leave with their job", "scripts",         \
      "dead letters that an open breaker keeps from running again, by fingerprint")                \
    X(JOBS, "{P}:jobs", "zset", "none; trimmed by the mover", "scripts",                           \
      "recent jobs, by the time they were submitted")                                              \
    X(HELD, "{P}:held:PIPELINE", "zset", "none", "scripts", "lanes of a paused pipeline")          \
    X(PAUSED, "{P}:paused", "hash", "none", "scripts",                                             \
      "pipelines that are paused (1) or being resumed (0)")                                        \
    X(REVS, "{P}:revs", "hash", "none", "workers",                                                 \
      "revisions of pipelines, numbered in the order in which they were loaded")                   \
    X(WORKER, "{P}:worker:NAME", "hash", "two leases, renewed", "workers",                         \
      "that a worker of this name lives, which instance it is, what it serves")                    \
    X(WORKERS, "{P}:workers", "zset", "none; renewals drop what has ended", "workers",             \
      "names of workers by the end of their registration")                                         \
    X(QUARANTINE, "{P}:quarantine", "zset", "none", "fsck",                                        \
      "ids of jobs that could not be mended, by the time they were moved aside")                   \
    X(QUARANTINED, "{P}:quarantined:NAME", "any", "none", "fsck",                                  \
      "such a job's hash (and out:ID, log:ID), or a key of another type than it had to be")        \
    X(VERSION, "version", "string", "none", "start-up", "version of this table")                   \
    X(DURABLE, "durable", "string", "none", "whoever waits for durability",                        \
      "the tiny write that is waited for: what came before it is as safe as it")                   \
    X(REVISION, "{rev:SHA}", "string", "none", "start-up", "the source of a revision")             \
    X(LIMIT, "{limit:NAME}", "hash", "5 min after its use", "workers",                             \
      "a rate limit shared by all workers: when the next call may begin")                          \
    X(LIMIT_HELD, "{limit:NAME}:held", "zset", "a minute after the last one's end", "workers",     \
      "calls in flight under a limit, by the end of their time")                                   \
    X(LIMIT_LOG, "{limit:NAME}:log", "list", "2 min after its use", "workers",                     \
      "beginnings of the last calls under a limit with a burst")                                   \
    X(CACHE, "{cache:SHA}", "string", "as asked for", "workers", "a result that is used again")

/* Raised when a key changes its meaning; a store with another version is refused at start. */
#define STATE_VERSION "1"
