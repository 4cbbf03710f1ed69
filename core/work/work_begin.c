/* Beginning a claimed lane: who is charged for the end of its former holder, whether a suspect may
 * run here now, and which revision of its pipeline it runs with.
 *
 * Begin is asked in turns under one fence, so that each repeats or goes on from the one before:
 * - SUSPECT: nothing is written yet; with room for it (room.c) it is begun with leave, else put off
 *   in Redis. So a suspect that waits for its turn is in nobody's hand when a process dies.
 * - REV: granted, but the job's revision is unknown here. Its source is taken from Redis and built.
 *   What cannot be built here (a plugin is missing) waits when this host is behind, for another
 *   host has it. When this host is ahead, the job moves to this host's revision if it stands where
 *   that one could have brought it, else it fails: `pipeline_changed`. */
#include "work/work.h"

#include "base/clock.h"
#include "base/log.h"
#include <stdio.h>
#include <string.h>

#define WORK_BEHIND_MS 5000u /* parked when this host has not loaded a newer revision yet */
#define WORK_TURNS     8

struct work_beginning {
    struct work_lane *lane;
    struct lane_begin begin;
    struct pipeline *own;         /* this host's; NULL: it has none of that name */
    struct lane_successor *adopt; /* stages of `own`, when the job is to move to it */
    struct error why;             /* why the job's revision cannot be built here */
};

/* Parks a lane whose revision this host cannot run yet. */
static void work_begin_park(struct work_lane *lane, uint64_t ms)
{
    enum lane_verdict verdict;
    struct error err = {0};
    wait_shield(1);
    if (lane_park(lane->worker->store, &lane->lane, ms, &verdict, &err) != MR_OK)
        log_error("lane could not be parked", &err, "job", lane->lane.job, NULL);
    wait_shield(-1);
}

/* The job has a revision that cannot be run here, nor can it move to this host's: it fails. */
static void work_begin_refuse(struct work_lane *lane, const struct error *why)
{
    log_error("lane refused", why, "job", lane->lane.job, NULL);
    for (uint32_t i = 0; i < lane->grant.open_count; i++) {
        const struct lane_fail fail = {.stage = lane->grant.open[i].name,
                                       .class = MR_CLASS_PERMANENT,
                                       .code = error_name(MR_E_PIPELINE_CHANGED),
                                       .message = why->message};
        struct lane_next next = {0};
        struct error err = {0};
        if (lane_fail(lane->worker->store, &lane->lane, &fail, &next, &err) != MR_OK)
            log_error("failure could not be stored", &err, "job", lane->lane.job, NULL);
        lane_next_done(&next);
    }
}

/* The stages of a pipeline with their needs, for lane_begin; borrowed names, free() the array. */
static struct lane_successor *work_begin_stages(const struct pipeline *pipeline)
{
    size_t need_count = 0;
    for (uint32_t i = 0; i < pipeline->stage_count; i++)
        need_count += pipeline->stages[i].need_count;
    struct lane_successor *all =
        mem_alloc(pipeline->stage_count * sizeof *all + need_count * sizeof(char *) + 1);
    const char **needs = (const char **)(void *)(all + pipeline->stage_count);
    for (uint32_t i = 0; i < pipeline->stage_count; i++) {
        const struct stage *stage = &pipeline->stages[i];
        all[i] = (struct lane_successor){.name = stage->name,
                                         .queue = stage->queue,
                                         .needs = needs,
                                         .need_count = stage->need_count};
        for (uint32_t k = 0; k < stage->need_count; k++)
            *needs++ = pipeline->stages[stage->needs[k]].name;
    }
    return all;
}

/* The job's revision is not known here. True: begin again; else the lane was given up in the way
 * that is right. */
static bool work_begin_revision(struct work_beginning *at)
{
    struct work_lane *lane = at->lane;
    const struct lane_grant *grant = &lane->grant;
    const char *name = lane->lane.pipeline, *revision = grant->revision ? grant->revision : "";
    if (!*revision) {
        log_event(LOG_INFO,
                  "lane parked: this host does not have its pipeline; when it is new, reload (HUP)",
                  "job", lane->lane.job, "pipeline", name, NULL);
        work_begin_park(lane, WORK_BEHIND_MS);
        return false;
    }
    if (at->adopt) { /* it could not move */
        if (grant->is_alone)
            work_begin_refuse(lane, &at->why);
        else
            work_begin_park(lane, WORK_BEHIND_MS); /* another lane of it runs elsewhere */
        return false;
    }
    int rc = revision_fetch(lane->worker, name, revision, &at->why);
    if (rc == MR_OK)
        return true;
    if (rc != MR_E_PIPELINE_CHANGED) { /* nothing is known of the revision: the lane comes back */
        log_error("revision could not be read", &at->why, "job", lane->lane.job, NULL);
        work_begin_park(lane, WORK_AGAIN_MS);
        return false;
    }
    if (!at->own || grant->revision_number == 0 || grant->own_number <= grant->revision_number) {
        log_failure(LOG_WARN, "lane parked: this host cannot run its revision", &at->why, "job",
                    lane->lane.job, NULL);
        work_begin_park(lane, WORK_BEHIND_MS);
        return false;
    }
    at->adopt = work_begin_stages(at->own);
    at->begin.adopt = at->adopt;
    at->begin.adopt_count = at->own->stage_count;
    return true;
}

/* What the grant says; true: begin again. Else `*ret_granted` says whether the lane is to run. */
static bool work_begin_take(struct work_beginning *at, bool *ret_granted)
{
    struct work_lane *lane = at->lane;
    const struct lane_grant *grant = &lane->grant;
    const char *name = lane->lane.pipeline, *revision = grant->revision;
    struct pipeline *found;
    switch (grant->verdict) {
    case LANE_SUSPECT:
        if (room_suspect(lane, grant->takeovers))
            at->begin.takeovers_max = grant->takeovers;
        else
            at->begin.put_off_ms = WORK_AGAIN_MS;
        return true;
    case LANE_STOP:
        lane->is_stopped = true;
        *ret_granted = true;
        return false;
    case LANE_OK:
        found = revision && *revision ? revision_find(lane->worker->revisions, name, revision)
                                      : at->own;
        if (!found)
            return work_begin_revision(at);
        if (at->adopt)
            log_event(LOG_WARN, "job moved to this host's revision of its pipeline", "job",
                      lane->lane.job, "pipeline", name, "revision", found->revision, NULL);
        lane->pipeline = pipeline_ref(found);
        *ret_granted = true;
        return false;
    case LANE_REV:
        return work_begin_revision(at);
    case LANE_POISON:
        log_event(LOG_ERROR, "job is poison: it brought its process down too often", "job",
                  lane->lane.job, "pipeline", name, "culprit", at->begin.culprit, NULL);
        return false;
    default:
        return false;
    }
}

/* One turn; true: another one. */
static bool work_begin_turn(struct work_beginning *at, bool *ret_granted, bool is_last)
{
    struct work_lane *lane = at->lane;
    struct worker *worker = lane->worker;
    mem_auto char *known = revision_known(worker->revisions, lane->lane.pipeline);
    struct error err = {0};
    at->begin.known = known;
    lane_grant_done(&lane->grant);
    uint64_t sent_ms = clock_now_ms();
    int rc = lane_begin(worker->store, &lane->lane, &at->begin, &lane->grant, &err);
    if (rc != MR_OK) {
        /* The entry stays pending with this worker: it is looked at again, but a job that is broken
         * (the script fails) only when its lease is over, or it would hold up those behind it. */
        if (rc != MR_E_INTERNAL)
            worker->look_at_own = true;
        if (scope_error(scope_current()) == MR_OK)
            worker_trouble(worker, TROUBLE_BEGIN, "lane could not be begun", &err);
        return false;
    }
    /* A reply that was long on its way says how the lane stood then: begun again under the same
     * fence it says how it stands now. */
    if (lane->grant.verdict == LANE_OK && !is_last &&
        clock_now_ms() - sent_ms > worker->setup->lease_ms / 2)
        return true;
    return work_begin_take(at, ret_granted);
}

/* Not inlined: its frame is no part of what a waiting lane costs. */
__attribute__((noinline)) bool work_lane_begin(struct work_lane *lane)
{
    struct worker *worker = lane->worker;
    const struct page_slot *page = worker->setup->page;
    struct work_beginning at = {.lane = lane,
                                .own = revision_find(worker->revisions, lane->lane.pipeline, NULL)};
    const char *sig = page->reaped_signal ? sigabbrev_np(page->reaped_signal) : NULL;
    mem_auto char *culprit = NULL;
    at.begin.revision = at.own ? at.own->revision : "";
    at.begin.takeovers_max = WORK_SUSPECT - 1;
    if (page->culprit_job[0]) {
        at.begin.dead = page->reaped;
        at.begin.is_culprit = strcmp(page->culprit_job, lane->lane.job) == 0;
        at.begin.culprit_stage = page->culprit_stage;
    }
    if (at.begin.is_culprit)
        culprit = mem_format("plugin %s, %s%s", page->culprit_plugin, sig ? "SIG" : "exit",
                             sig ? sig : "");
    at.begin.culprit = culprit;
    bool granted = false;
    for (int turn = 1; turn <= WORK_TURNS; turn++)
        if (!work_begin_turn(&at, &granted, turn == WORK_TURNS))
            break;
    free(at.adopt);
    return granted;
}
