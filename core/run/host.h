/* What the files of the host table share. */
#pragma once

#include "run/task.h"

/* False, with the task's failure set, while an instance opens. */
bool host_needs_run(struct task *task, const char *call);
/* Names the task to the watchdog, on a fiber that works for it. */
void host_label(const struct task *task);

/* Rows of the table; contracts as in millrace/plugin.h. */
int host_http(mr_context *cx, const struct mr_http *request, struct mr_http_reply *reply);
int host_call(mr_context *cx, const struct mr_child *child, struct json_t **ret_result);
int host_dispatch(mr_context *cx, const struct mr_child *child, char ret_id[MR_ID_BYTES]);
int host_uuid(mr_context *cx, const char *name, char ret_id[MR_ID_BYTES]);
int host_child_id(mr_context *cx, const char *target, const char *name, char ret_id[MR_ID_BYTES]);
int host_sleep(mr_context *cx, uint64_t ms);
int host_offload(mr_context *cx, void (*fn)(void *arg), void *arg);
int host_batch(mr_context *cx, const void *key, void (*fn)(void **items, uint32_t count),
               void *item, uint32_t max, uint64_t linger_ms);
int host_parallel(mr_context *cx, int (*fn)(mr_context *cx, void *arg, uint32_t index), void *arg,
                  uint32_t count);
