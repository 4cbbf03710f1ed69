/* What is said to sentinels and what their answers, and a server's ROLE, mean: no I/O here. The
 * asking is done by redis_link.c on the loop and by redis_sync.c on threads, the same way:
 *
 *   each sentinel of the list in turn (the one that answered last is the first), SENTINEL_MS each:
 *   where is the master?   nobody knows: a pause, then round again
 *   connect there, and ask its ROLE: a server that is not a master (the sentinel was late, or lies)
 *   is left alone, and the next round begins with the next sentinel
 *
 * So nothing is ever sent to a server that does not call itself the master. A sentinel's answer is
 * data from outside: an address that cannot be one is refused. */
#pragma once

#include "io/redis_link.h"

#define SENTINEL_MS 1000u /* to connect to a sentinel and to be answered */

/* Appends `AUTH` (with redis.sentinel_password) and the question; the number of replies to come. */
unsigned sentinel_ask(redisContext *context, const struct redis_config *config);
/* The last of those replies; an earlier one is only looked at when it is an error. False with why
 * in `reason`. */
bool sentinel_answer(const redisReply *reply, const struct redis_config *config,
                     char ret_host[REDIS_HOST_BYTES], int *ret_port, char *reason, size_t size);
/* The reply to ROLE: a master? */
bool sentinel_is_master(const redisReply *reply, char *reason, size_t size);
