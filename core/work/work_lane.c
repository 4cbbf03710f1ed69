/* One lane in hand, from its claim to its end, as a list of steps (work_lane_main): begin it
 * (work_begin.c), keep its lease, run it, and end it in the one way that is right: it closed by a
 * commit; it was lost, then nothing is written; it was stopped, then its children are cancelled and
 * it is dropped; the process ends, then it is handed back.
 *
 * The lane's fiber owns the struct. Others find it by job and number and only set flags and cancel
 * its scope. */
#include "work/work.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include <stdio.h>
#include <string.h>

#define WORK_DEADLINE_MS 2000u /* after the job's deadline, when the store has not said so */

static struct work_lane **work_lane_bucket(struct worker *worker, const char *job, uint32_t number)
{
    return &worker->buckets[(hash_fnv(job, strlen(job)) + number) % WORK_BUCKETS];
}

struct work_lane *work_lane_find(struct worker *worker, const char *job, uint32_t number)
{
    struct work_lane *lane = *work_lane_bucket(worker, job, number);
    while (lane && (lane->lane.number != number || strcmp(lane->lane.job, job) != 0))
        lane = lane->chain;
    return lane;
}

static void work_lane_link(struct work_lane *lane)
{
    struct worker *worker = lane->worker;
    struct work_lane **bucket = work_lane_bucket(worker, lane->lane.job, lane->lane.number);
    lane->chain = *bucket;
    *bucket = lane;
    lane->next = worker->lanes;
    lane->link = &worker->lanes;
    if (worker->lanes)
        worker->lanes->link = &lane->next;
    worker->lanes = lane;
    worker->held++;
    room_take(lane);
    atomic_store_explicit(&worker->setup->page->running, worker->held, memory_order_relaxed);
}

static void work_lane_unlink(struct work_lane *lane)
{
    struct worker *worker = lane->worker;
    struct work_lane **at = work_lane_bucket(worker, lane->lane.job, lane->lane.number);
    while (*at != lane)
        at = &(*at)->chain;
    *at = lane->chain;
    *lane->link = lane->next;
    if (lane->next)
        lane->next->link = lane->link;
    worker->held--;
    room_leave(lane);
    /* What is pending with this worker and not in hand is begun at once, not a lease later. */
    if (lane->is_lost || lane->is_claimed)
        worker->look_at_own = true;
    atomic_store_explicit(&worker->setup->page->running, worker->held, memory_order_relaxed);
    atomic_fetch_add_explicit(&worker->setup->page->served, 1, memory_order_relaxed);
    if (worker->held == 0 && worker->drain_wait)
        wait_wake(worker->drain_wait, MR_OK);
}

void work_lane_lose(struct work_lane *lane)
{
    if (lane->is_lost)
        return;
    lane->is_lost = true;
    log_event(LOG_WARN, "lane lost to another worker", "job", lane->lane.job, "queue",
              lane->lane.queue, NULL);
    if (lane->has_run)
        scope_cancel(&lane->run.scope, MR_E_LOST);
}

void work_lane_stop(struct work_lane *lane)
{
    lane->is_stopped = true;
    if (lane->has_run)
        scope_cancel(&lane->run.scope, MR_E_CANCELLED);
}

/* Makes run and document from what begin gave. */
static void work_lane_fill(struct work_lane *lane)
{
    struct run *run = &lane->run;
    const struct lane_grant *grant = &lane->grant;
    struct worker *worker = lane->worker;
    *run = (struct run){.runner = &worker->runner,
                        .ops = &work_ops,
                        .data = lane,
                        .pipeline = lane->pipeline,
                        .doc = doc_new(),
                        .job_id = lane->lane.job,
                        .created_ms = grant->created_ms};
    scope_init(&run->scope, &worker->lanes_scope);
    if (grant->left_ms != UINT64_MAX) {
        run->scope.deadline_ms = clock_now_ms() + grant->left_ms + WORK_DEADLINE_MS;
        run->scope.deadline_code = MR_E_DEADLINE;
    }
    lane->has_run = true;
    doc_set_text(run->doc, "input", grant->input ? grant->input : "null",
                 grant->input ? grant->input_len : 4);
    for (uint32_t i = 0; i < grant->output_count; i++) {
        const struct lane_output *output = &grant->outputs[i];
        if (!strchr(output->name, '#'))
            continue;
        struct work_step *step = mem_zalloc(sizeof *step);
        *step = (struct work_step){.next = lane->steps,
                                   .name = mem_dup(output->name),
                                   .text = mem_ndup(output->text, output->len),
                                   .len = output->len};
        lane->steps = step;
    }
    for (uint32_t i = 0; i < grant->open_count; i++) {
        const struct stage *stage = pipeline_stage(lane->pipeline, grant->open[i].name);
        if (stage)
            run->attempts[stage->index] = grant->open[i].attempts;
    }
}

/* Only `$end` is open: the job's result is wanted. */
static __attribute__((noinline)) enum run_verdict work_lane_end(struct work_lane *lane)
{
    struct run_next next = {0};
    struct error err = {0};
    int rc = work_end(lane, &next, &err);
    if (rc != MR_OK)
        log_error("end could not be stored", &err, "job", lane->lane.job, NULL);
    return rc == MR_OK ? next.verdict : RUN_ON;
}

/* Runs what is open until the lane is closed or has to be given up. */
static enum run_verdict work_lane_run(struct work_lane *lane)
{
    struct lane_grant *grant = &lane->grant;
    const char **names = mem_alloc((grant->open_count + 1) * sizeof *names);
    for (uint32_t i = 0; i < grant->open_count; i++)
        names[i] = grant->open[i].name;
    bool end = work_open(lane, names, grant->open_count, grant->outputs, grant->output_count,
                         lane->run.open);
    free(names);
    lane_grant_trim(grant); /* what is in the document now need not be held twice */
    lane->run.priority = grant->prio;
    lane->run.metadata = grant->metadata && *grant->metadata ? grant->metadata : NULL;
    room_count(lane);
    return end ? work_lane_end(lane) : runner_run(&lane->run);
}

/* What is left of a lane that did not close by a commit. Shielded: the process may be ending. */
static __attribute__((noinline)) void work_lane_give_up(struct work_lane *lane)
{
    struct worker *worker = lane->worker;
    enum lane_verdict verdict = LANE_LOST;
    struct error err = {0};
    int rc;
    lane->writing++;
    if (lane->is_stopped) {
        /* Begun again under the same fence it says which children were noted since. */
        const struct lane_begin begin = {.revision = "", .known = ""};
        if (lane->grant.verdict != LANE_STOP) {
            lane_grant_done(&lane->grant);
            rc = lane_begin(worker->store, &lane->lane, &begin, &lane->grant, &err);
            if (rc != MR_OK)
                log_error("children of a stopped job are not known", &err, "job", lane->lane.job,
                          NULL);
            /* Its entry was claimed by another meanwhile, or nothing is known: whoever begins the
             * lane next is told of the children. Dropped here they would run on. */
            lane->is_lost = lane->grant.verdict == LANE_LOST || lane->grant.verdict == LANE_GONE;
            if (rc != MR_OK || lane->is_lost)
                return;
        }
        if (!work_cancel_children(lane)) /* begun again when its lease is over */
            return;
        rc = lane_drop(worker->store, &lane->lane, &verdict, &err);
    } else if (lane->is_parked && !worker->draining) {
        rc = lane_park(worker->store, &lane->lane, WORK_AGAIN_MS, &verdict, &err);
    } else {
        rc = lane_handback(worker->store, &lane->lane, &verdict, &err);
    }
    if (rc != MR_OK)
        log_error(lane->is_stopped ? "lane could not be closed" : "lane could not be handed back",
                  &err, "job", lane->lane.job, NULL);
}

static void work_lane_free(struct work_lane *lane)
{
    if (lane->has_run) {
        doc_free(lane->run.doc);
        scope_done(&lane->run.scope);
    }
    while (lane->steps) {
        struct work_step *step = lane->steps;
        lane->steps = step->next;
        free(step->name);
        free(step->text);
        free(step);
    }
    lane_grant_done(&lane->grant);
    pipeline_unref(lane->pipeline);
    free(lane);
}

static void work_lane_main(void *arg)
{
    struct work_lane *lane = arg;
    struct worker *worker = lane->worker;
    if (work_lane_begin(lane)) {
        keeper_add(worker->keeper, lane);
        enum run_verdict verdict = RUN_STOP;
        if (!lane->is_stopped) {
            work_durable(lane);
            work_lane_fill(lane);
            verdict = work_lane_run(lane);
            wait_shield(1);
            work_tell_end(lane);
            wait_shield(-1);
        }
        /* A process that ends stops its tasks too, but its jobs go on elsewhere. */
        if (verdict == RUN_STOP && lane->has_run && scope_error(&lane->run.scope) != MR_E_STOPPING)
            lane->is_stopped = true;
        if (verdict == RUN_LOST)
            lane->is_lost = true;
        if (verdict != RUN_END && !lane->is_lost) {
            wait_shield(1);
            work_lane_give_up(lane);
            wait_shield(-1);
        }
        keeper_remove(worker->keeper, lane);
    }
    work_lane_unlink(lane);
    work_lane_free(lane);
}

void work_lane_start(struct worker *worker, const struct lane *given)
{
    struct work_lane *held = work_lane_find(worker, given->job, given->number);
    if (held) {
        held->is_claimed = held->is_claimed || strcmp(held->lane.entry, given->entry) != 0;
        return;
    }
    struct work_lane *lane = mem_zalloc(sizeof *lane);
    lane->worker = worker;
    lane->lane = *given;
    lane->lane.fence[0] = '\0';
    work_lane_link(lane);
    if (group_spawn(&worker->lanes_group, &worker->lanes_scope, work_lane_main, lane) != MR_OK) {
        /* No stack left: the entry stays pending with this worker and is looked at again. */
        worker->look_at_own = true;
        work_lane_unlink(lane);
        work_lane_free(lane);
    }
}
