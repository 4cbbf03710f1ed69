/* What is wrong with Redis, from the error record of a call: for the answer to a client, for readyz
 * and for logs. Redis's own words stand in the record's message ("Redis refused NAME: WORDS", as
 * io/redis.h gives it); their first word decides. */
#pragma once

#include "base/error.h"

/*  X(name, title, sentence): what a client may be told */
#define OUTAGES(X)                                                                                 \
    X(AWAY, "Redis cannot be reached", "Redis does not answer")                                    \
    X(MEMORY, "Redis is out of memory",                                                            \
      "Redis is at its maxmemory and takes nothing new; jobs that run go on")                      \
    X(DISK, "Redis cannot write to its disk",                                                      \
      "Redis takes no writes because it cannot store them on its disk; running jobs wait with "    \
      "what they have")                                                                            \
    X(READ_ONLY, "Redis is read-only", "this Redis is a replica and takes no writes")              \
    X(REPLICAS, "Redis has too few replicas",                                                      \
      "Redis takes no writes while too few of its replicas follow (min-replicas-to-write)")        \
    X(ACCESS, "Redis refuses the login", "Redis does not accept the user or password")             \
    X(LOADING, "Redis is loading its data", "Redis has started and is still loading its data")     \
    X(BUSY, "Redis is busy", "Redis is busy with a script of somebody else's")                     \
    X(REFUSED, "Redis refuses the command", "Redis refuses the command; the log has its words")

enum outage {
#define OUTAGE_ENUM(name, title, sentence) OUTAGE_##name,
    OUTAGES(OUTAGE_ENUM)
#undef OUTAGE_ENUM
};

/* For an error of code MR_E_STORE (or a time limit that was reached while Redis was asked). */
enum outage outage_of(const struct error *err);
/* For words of Redis or of the connection alone ("OOM command not allowed …"); `otherwise` when
 * their first is none that is known. */
enum outage outage_of_words(const char *words, enum outage otherwise);
const char *outage_title(enum outage outage);
const char *outage_sentence(enum outage outage);
