/* Events of a run as people see them: one line a stage, redrawn in place on a terminal, else one
 * line an event. */
#pragma once

#include "loop/timer.h"

struct progress;

/* `out` is stderr; `live`: redraw in place, with a clock. */
struct progress *progress_new(struct loop *loop, FILE *out, bool live);
/* Draws for the last time. */
void progress_free(struct progress *progress);
/* An event as in run/local.h; `pipeline` names the job's (known from "job.queued" on). */
void progress_event(struct progress *progress, const char *job, const char *kind, const char *stage,
                    const char *data);
