/* `durability` in a worker: before anything is built on what was written (a stage begins, an effect
 * follows a step, the end is told), it is waited for until it is as safe as the pipeline asks.
 *
 *   a lane begins      what other workers committed before, and the submission, is safe
 *   a checkpoint       so is it, before the next stage of the lane begins
 *   a step             before the stage goes on
 *   the end            the last checkpoint is sent without the job's result: Redis then opens
 * `$end` (docs/protocol.md), so all outputs are safe before the end is told, and an end that a
 * failover forgets is told again, the same a child            its submission, by what the child's
 * pipeline asks
 *
 * The job's hash notes what was had when that changes; a lane that cannot have it goes on. */
#include "work/work.h"

#include "base/log.h"
#include "state/durable.h"

_Static_assert((int)DURABLE_NONE == (int)PIPELINE_NONE && (int)DURABLE_AOF == (int)PIPELINE_AOF &&
                   (int)DURABLE_REPLICA == (int)PIPELINE_REPLICA,
               "levels are translated by value");

void work_durable(struct work_lane *lane)
{
    enum durable_level asked = (enum durable_level)lane->pipeline->durability;
    if (asked == DURABLE_NONE)
        return;
    struct durable_got got;
    durable_wait(lane->worker->store, asked, &got);
    if (lane->durability == (int)got.level + 1)
        return;
    if (got.level != asked)
        log_event(LOG_WARN, "durability was not had", "job", lane->lane.job, "pipeline",
                  lane->pipeline->name, "asked", durable_level_name(asked), "reason", got.why,
                  NULL);
    struct error err = {0};
    wait_shield(1);
    int rc = durable_note(lane->worker->store, lane->lane.job, asked, &got, &err);
    wait_shield(-1);
    if (rc == MR_OK)
        lane->durability = (int)got.level + 1;
    else
        log_error("a job's durability could not be noted", &err, "job", lane->lane.job, NULL);
}

static void durable_look(void *arg, struct pipeline *pipeline)
{
    enum durable_level *highest = arg;
    if ((enum durable_level)pipeline->durability == DURABLE_AOF)
        *highest = DURABLE_AOF;
}

void work_durable_check(struct worker *worker)
{
    enum durable_level asked = DURABLE_NONE;
    struct error err = {0};
    revision_each_own(worker->revisions, durable_look, &asked);
    if (durable_check(worker->store, asked, &err) == MR_E_SCHEMA)
        log_event(LOG_WARN, "durability cannot be had", "error", err.message, "hint", err.hint,
                  NULL);
}
