/* Room: how many lanes this process may take on, and what happens when it is full.
 *
 * A lane uses a slot while a task of it works; while all it does is wait in a call its slot is
 * free. So waiting parents are bounded by fibers and memory only. A process that is full in that
 * sense claims nothing but recovered lanes and children of calls, and parks the parents that have
 * waited longest: they repeat the call when they are woken, and find the child as it then stands.
 * Without that a process full of parents would starve the children they wait for.
 *
 * Suspects. A job that brings its process down by a way that names nobody (it eats the memory until
 * the kernel kills) looks like its neighbours: all were taken over. So lanes that were taken over
 * twice or more since their last checkpoint share the process with fewer and fewer of their kind:
 * half of `concurrency` at once with two takeovers, a quarter with three, and so on down to one,
 * by the highest count among those in hand. Whoever was beside the culprit at one death is likely
 * not beside it at the next, makes a checkpoint and is none any more; after log2(concurrency) more
 * deaths the culprit is alone, and the twenty that make a job poison are far more than that.
 * Halving and not one at a time from the beginning: after three kills that were nobody's fault a
 * thousand waiting jobs go on two hundred and fifty at a time, not one by one. */
#include "work/work.h"

#include "base/clock.h"

static size_t room_fibers_over(const struct worker *worker)
{
    size_t fibers = worker->loop.fibers, max = worker->setup->fibers_max + worker->parking;
    return fibers > max ? fibers - max : 0;
}

static size_t room_bytes_over(const struct worker *worker)
{
    uint64_t max = worker->setup->memory_max + worker->parking_bytes;
    return worker->bytes > max ? (size_t)(worker->bytes - max) : 0;
}

size_t room_slots(const struct worker *worker, enum queue_class class)
{
    const struct worker_setup *setup = worker->setup;
    bool is_full = worker->loop.fibers > setup->fibers_max || worker->bytes > setup->memory_max;
    if (worker->draining || (is_full && class > QUEUE_CALL) || worker->busy >= setup->concurrency)
        return 0;
    return setup->concurrency - worker->busy;
}

void room_free(struct work_lane *lane)
{
    if (!lane->has_slot)
        return;
    lane->has_slot = false;
    lane->worker->busy--;
    atomic_store_explicit(&lane->worker->busy_seen, lane->worker->busy, memory_order_relaxed);
    struct worker *worker = lane->worker;
    struct wait *first = worker->owes ? worker->reclaim_wait : worker->claim_wait;
    if (first)
        wait_wake(first, MR_OK);
}

void room_take(struct work_lane *lane)
{
    if (lane->has_slot || lane->calls)
        return;
    lane->has_slot = true;
    lane->worker->busy++;
    atomic_store_explicit(&lane->worker->busy_seen, lane->worker->busy, memory_order_relaxed);
}

void room_call_begin(struct work_lane *lane)
{
    struct worker *worker = lane->worker;
    if (lane->calls++ == 0) {
        lane->waiting_next = NULL;
        lane->waiting_link = worker->waiting_end;
        *worker->waiting_end = lane;
        worker->waiting_end = &lane->waiting_next;
    }
    room_free(lane);
}

static void room_not_waiting(struct work_lane *lane)
{
    if (!lane->waiting_link)
        return;
    *lane->waiting_link = lane->waiting_next;
    if (lane->waiting_next)
        lane->waiting_next->waiting_link = lane->waiting_link;
    else
        lane->worker->waiting_end = lane->waiting_link;
    lane->waiting_link = NULL;
}

void room_call_end(struct work_lane *lane)
{
    if (--lane->calls == 0)
        room_not_waiting(lane);
    room_take(lane);
}

/* Whether nothing of the lane works: each stage that runs waits in a call. */
static bool room_is_idle(const struct work_lane *lane)
{
    uint32_t running = 0;
    for (size_t i = 0; i < LIMIT_STAGES / 64; i++)
        running += (uint32_t)__builtin_popcountll(lane->run.running[i]);
    return running == lane->calls && !lane->is_stopped && !lane->is_lost;
}

static void room_park_one(struct work_lane *lane)
{
    room_not_waiting(lane);
    lane->is_parked = true;
    lane->worker->parking++;
    lane->worker->parking_bytes += lane->bytes;
    scope_cancel(&lane->run.scope, MR_E_STOPPING);
}

void room_park(struct worker *worker)
{
    for (struct work_lane *lane = worker->waiting, *next; lane; lane = next) {
        next = lane->waiting_next;
        if (!room_fibers_over(worker) && !room_bytes_over(worker))
            return;
        if (room_is_idle(lane))
            room_park_one(lane);
    }
}

/* How many suspects may be in hand when one of them has that many takeovers. */
static size_t room_share(const struct worker *worker, uint32_t takeovers)
{
    size_t share = worker->setup->concurrency >> (takeovers - 1);
    return share ? share : 1;
}

bool room_suspect(struct work_lane *lane, uint32_t takeovers)
{
    struct worker *worker = lane->worker;
    size_t count = 0;
    uint32_t most = takeovers < WORK_TAKEOVERS ? takeovers : WORK_TAKEOVERS;
    uint32_t own = most;
    for (uint32_t i = WORK_SUSPECT; i <= WORK_TAKEOVERS; i++) {
        count += worker->suspects[i];
        if (worker->suspects[i] && i > most)
            most = i;
    }
    if (count < room_share(worker, most)) {
        room_trust(lane);
        lane->suspect = own;
        worker->suspects[own]++;
        return true;
    }
    /* Those that only wait in a call make room, or they would keep out the child they wait for. */
    for (struct work_lane *each = worker->waiting, *next; each; each = next) {
        next = each->waiting_next;
        if (each->suspect && room_is_idle(each))
            room_park_one(each);
    }
    return false;
}

void room_trust(struct work_lane *lane)
{
    if (lane->suspect)
        lane->worker->suspects[lane->suspect]--;
    lane->suspect = 0;
}

void room_count(struct work_lane *lane)
{
    size_t bytes = doc_bytes(lane->run.doc);
    lane->worker->bytes = lane->worker->bytes - lane->bytes + bytes;
    if (lane->is_parked)
        lane->worker->parking_bytes = lane->worker->parking_bytes - lane->bytes + bytes;
    lane->bytes = bytes;
}

void room_leave(struct work_lane *lane)
{
    room_trust(lane);
    lane->worker->bytes -= lane->bytes;
    if (lane->is_parked) {
        lane->worker->parking--;
        lane->worker->parking_bytes -= lane->bytes;
    }
    room_free(lane);
}
