/* Running a job again by hand: one way for the front and for the command line. */
#pragma once

#include "run/pipeline.h"
#include "state/job.h"

enum rerun_outcome {
    RERUN_OK,          /* it runs (or this very request had begun the run before) */
    RERUN_NONE,        /* there is no such job (any more) */
    RERUN_OPEN,        /* it has not ended */
    RERUN_COMPLETED,   /* it has completed */
    RERUN_NO_STAGE,    /* `from` is no stage of its pipeline */
    RERUN_NOT_REACHED, /* `from` has not begun: the job goes on before it by itself */
    RERUN_NO_REVISION, /* its revision of the pipeline is not known any more: run it without `from`
                        */
    RERUN_EXPIRED,     /* outputs that it needs have expired */
};
struct rerun {
    const struct job_view *view; /* of the job, just read */
    const char *from; /* this stage and all after it run again too; NULL: where it failed */
    const struct pipeline *known; /* the job's pipeline as it is here, or NULL */
    const char *req;              /* as in struct job_again */
};
/* Outputs of finished stages stay, but for those of `from` and the stages that (through others)
 * need it in the job's own revision, which comes from Redis when it is not `known`. MR_OK with the
 * outcome; but for RERUN_OK the reason and a hint stand in `reason` (never NULL). */
MR_SUSPENDS int rerun_send(struct store *store, const struct rerun *rerun,
                           enum rerun_outcome *ret_outcome, struct error *reason,
                           struct error *err);
