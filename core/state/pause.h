/* What is paused: reading it. Pausing and resuming themselves are in store.h. */
#pragma once

#include "state/store.h"

enum pause_state {
    PAUSE_NONE,
    PAUSE_ON,       /* lanes are held when a worker begins them */
    PAUSE_RESUMING, /* held lanes are being woken */
};
struct pause {
    enum pause_state state;
    uint64_t held; /* lanes */
};
/* Of one pipeline, over all partitions; on in one of them counts as on. */
MR_SUSPENDS int pause_get(struct store *store, const char *pipeline, struct pause *ret,
                          struct error *err);
/* Names of all pipelines that are paused or being resumed, sorted, NULL-ended (free each and the
 * array). */
MR_SUSPENDS int pause_names(struct store *store, char ***ret_names, struct error *err);
