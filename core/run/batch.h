/* mr_batch: items of concurrent tasks of one stage, handled together on a thread. */
#pragma once

#include "run/runner_inner.h"

/* As mr_batch. `instance` and `key` say whose items come together. The item must stay where it is
 * until this returns: a task that is cancelled while a thread has its item waits for the thread. */
MR_SUSPENDS int batch_run(struct runner *runner, struct instance *instance, const void *key,
                          void (*fn)(void **items, uint32_t count), void *item, uint32_t max,
                          uint64_t linger_ms, struct error *err);
