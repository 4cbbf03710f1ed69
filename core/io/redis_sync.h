/* A blocking connection for threads (the keeper) and for start-up: no loop, no fiber. */
#pragma once

#include "io/redis.h"

struct redis_sync;
/* Not connected yet; each call connects when it has to. */
struct redis_sync *redis_sync_open(const struct redis_config *config, const char *name);
void redis_sync_close(struct redis_sync *sync);
/* As redis_call, on the calling thread, for at most timeout_ms. */
int redis_sync_call(struct redis_sync *sync, size_t argc, const struct arg *argv,
                    uint64_t timeout_ms, struct reply *ret_reply, struct error *err);
int redis_sync_run(struct redis_sync *sync, struct redis_script *script, size_t keys,
                   const struct arg *key, size_t argc, const struct arg *argv, uint64_t timeout_ms,
                   struct reply *ret_reply, struct error *err);
