/* Work for threads: libuv's pool. The function touches its argument only; it cannot be cancelled
 * once begun, the fiber waits for it (shielded). */
#pragma once

#include "base/json.h"
#include "loop/wait.h"

/* Runs fn(arg) on a pool thread. MR_OK, or the scope's error when it was cancelled before it began.
 */
MR_SUSPENDS int offload_run(struct loop *loop, void (*fn)(void *arg), void *arg);
/* Texts longer than this are parsed and printed on a thread. */
#define OFFLOAD_JSON_BYTES (64u << 10)
/* json_read, on a thread when the text is long. */
MR_SUSPENDS int offload_json_read(struct loop *loop, const char *text, size_t len,
                                  json_t **ret_value, struct error *err);
