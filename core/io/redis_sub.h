/* The subscriber connection of a process: channels with listeners, resubscribed after a reconnect.
 */
#pragma once

#include "io/redis.h"

struct redis_sub;
struct redis_listener {
    char *channel;
    /* A message, on the loop's stack; the text is borrowed. `text` NULL: the subscription was
     * interrupted and is confirmed again, messages may be missing. */
    void (*fn)(struct redis_listener *listener, const char *text, size_t len);
    void *data;
    struct redis_listener *next, **link;
};
struct redis_sub *redis_sub_open(struct loop *loop, const struct redis_config *config,
                                 const char *name);
void redis_sub_close(struct redis_sub *sub);
/* Adds a listener (a part of its owner's struct; `channel` is copied) and returns when the
 * subscription is confirmed. */
MR_SUSPENDS int redis_listen(struct redis_sub *sub, const char *channel,
                             struct redis_listener *listener, uint64_t timeout_ms,
                             struct error *err);
void redis_unlisten(struct redis_sub *sub, struct redis_listener *listener);
