/* Claiming: new entries by order of class, own ones that nobody holds, and those of others whose
 * lease is over. While there are such and no slot is free, each slot that becomes free is theirs:
 * nothing new is claimed before them.
 *
 * While there are at least as many free slots as streams, one blocking read on a connection of its
 * own waits for all of them; otherwise each stream is read for itself, as many entries as slots are
 * left, so that nothing is claimed that cannot be begun at once. Each eighth round goes in reverse
 * order, so that low priority is not starved. */
#include "work/work.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include <stdio.h>

#define CLAIM_BLOCK_MS 2000u /* at most */
#define CLAIM_TURN_MS  100u  /* between reads while slots are few */
#define CLAIM_PAUSE_MS 250u  /* after an error */
#define CLAIM_BATCH    256u  /* entries a command */
#define CLAIM_REVERSED 8u

/* The streams of one partition, in order of class; queues side by side within a class. */
static const struct lane_stream *claim_streams(const struct worker *worker, uint32_t partition,
                                               size_t *ret_count)
{
    size_t each = worker->stream_count / worker->store->partitions;
    *ret_count = each;
    return worker->streams + partition * each;
}

static bool claim_error(struct worker *worker, int rc, const struct error *err)
{
    if (rc == MR_OK)
        return false;
    if (scope_error(scope_current()) != MR_OK)
        return true;
    /* What the lost reply held is pending with this worker. */
    worker->look_at_own = true;
    worker_trouble(worker, TROUBLE_CLAIM, "queues cannot be read", err);
    wait_sleep(&worker->loop, CLAIM_PAUSE_MS);
    return true;
}

static void claim_start(struct worker *worker, const struct lane *lanes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        work_lane_start(worker, &lanes[i]);
}

/* Begins what is pending with this worker and not in hand. */
static void claim_own(struct worker *worker)
{
    worker->look_at_own = false;
    struct lane *lanes = mem_alloc(CLAIM_BATCH * sizeof *lanes);
    for (size_t i = 0; i < worker->stream_count; i++) {
        char cursor[STORE_ENTRY_BYTES] = "0";
        size_t count = 0;
        do {
            struct error err = {0};
            int rc = lane_claim_own(worker->store, worker->redis, &worker->streams[i], cursor,
                                    CLAIM_BATCH, lanes, &count, &err);
            if (claim_error(worker, rc, &err))
                break;
            claim_start(worker, lanes, count);
        } while (count == CLAIM_BATCH);
    }
    free(lanes);
}

/* Reads the streams of class recovered; true when anything came. The blocking read takes as many of
 * each class as there are slots for all: what others have begun goes before that. */
static bool claim_recovered(struct worker *worker, uint32_t partition, size_t free_slots)
{
    size_t stream_count, count = 0;
    const struct lane_stream *streams = claim_streams(worker, partition, &stream_count);
    stream_count /= QUEUE_CLASSES; /* they come first */
    if (stream_count == 0)
        return false;
    size_t each = free_slots / stream_count;
    if (each > CLAIM_BATCH)
        each = CLAIM_BATCH;
    struct lane *lanes = mem_alloc(stream_count * each * sizeof *lanes);
    struct error err = {0};
    int rc = lane_claim(worker->store, worker->redis, streams, stream_count, (uint32_t)each, 0,
                        lanes, &count, &err);
    if (!claim_error(worker, rc, &err))
        claim_start(worker, lanes, count);
    free(lanes);
    return count > 0 || rc != MR_OK;
}

/* Redis gives an entry to the reader that has waited longest. Lanes come back after multiples of
 * two seconds: with reads of that very length the worker that has parked one would always be the
 * one that is about to read again, and get it again, while others could run it. */
static uint64_t claim_block_ms(const struct worker *worker)
{
    if (worker->store->partitions > 1)
        return CLAIM_TURN_MS;
    uint32_t random;
    hash_random(&random, sizeof random);
    return CLAIM_BLOCK_MS / 2 + random % (CLAIM_BLOCK_MS / 2);
}

/* One blocking read of all streams of a partition. */
static void claim_block(struct worker *worker, uint32_t partition, size_t free_slots)
{
    size_t stream_count, count = 0;
    const struct lane_stream *streams = claim_streams(worker, partition, &stream_count);
    if (stream_count == 0)
        return;
    uint32_t each = (uint32_t)(free_slots / stream_count);
    if (each > CLAIM_BATCH)
        each = CLAIM_BATCH;
    struct lane *lanes = mem_alloc(stream_count * each * sizeof *lanes);
    struct error err = {0};
    int rc = lane_claim(worker->store, worker->blocking, streams, stream_count, each,
                        claim_block_ms(worker), lanes, &count, &err);
    if (!claim_error(worker, rc, &err))
        claim_start(worker, lanes, count);
    free(lanes);
}

/* Slots for new entries of a class. */
static size_t claim_slots(const struct worker *worker, enum queue_class class)
{
    return worker->owes && class > QUEUE_RECOVERED ? 0 : room_slots(worker, class);
}

/* Reads stream after stream while slots are left; true when anything came. */
static bool claim_each(struct worker *worker, uint32_t partition, bool reversed)
{
    size_t stream_count;
    const struct lane_stream *streams = claim_streams(worker, partition, &stream_count);
    struct lane *lanes = mem_alloc(CLAIM_BATCH * sizeof *lanes);
    bool any = false;
    for (size_t i = 0; i < stream_count; i++) {
        const struct lane_stream *stream = &streams[reversed ? stream_count - 1 - i : i];
        size_t slots = claim_slots(worker, stream->class), count = 0;
        if (slots == 0)
            continue;
        struct error err = {0};
        int rc = lane_claim(worker->store, worker->redis, stream, 1,
                            (uint32_t)(slots < CLAIM_BATCH ? slots : CLAIM_BATCH), 0, lanes, &count,
                            &err);
        if (claim_error(worker, rc, &err))
            break;
        claim_start(worker, lanes, count);
        any = any || count > 0;
    }
    free(lanes);
    return any;
}

void claim_fiber(void *arg)
{
    struct worker *worker = arg;
    uint64_t round = 0;
    while (scope_error(&worker->scope) == MR_OK) {
        if (worker->look_at_own)
            claim_own(worker);
        uint32_t partition = (uint32_t)(round % worker->store->partitions);
        bool reversed = ++round % CLAIM_REVERSED == 0;
        room_park(worker);
        size_t slots = claim_slots(worker, QUEUE_LOW),
               each = worker->stream_count / worker->store->partitions;
        if (slots >= each) {
            if (!claim_recovered(worker, partition, slots))
                claim_block(worker, partition, slots);
            continue;
        }
        if (claim_each(worker, partition, reversed))
            continue;
        struct wait wait;
        wait_init(&wait, &worker->loop);
        worker->claim_wait = &wait;
        wait_for(&wait, CLAIM_TURN_MS);
        worker->claim_wait = NULL;
    }
}

/* A third of the lease, anywhere from half to the whole of it. */
static uint64_t claim_sweep_ms(const struct worker *worker)
{
    uint32_t random;
    hash_random(&random, sizeof random);
    uint64_t third = worker->setup->lease_ms / 3;
    return third / 2 + random % (third / 2 + 1);
}

/* Waits for the next look, or for a slot when one is owed. */
static bool reclaim_pause(struct worker *worker, uint64_t ms)
{
    struct wait wait;
    wait_init(&wait, &worker->loop);
    worker->reclaim_wait = &wait;
    wait_for(&wait, ms);
    worker->reclaim_wait = NULL;
    return scope_error(&worker->scope) == MR_OK;
}

/* Takes over what it finds slots for; the milliseconds until the next look. */
static uint64_t reclaim_sweep(struct worker *worker, struct lane *lanes)
{
    bool owes = false;
    uint64_t next_ms = claim_sweep_ms(worker);
    for (size_t i = 0; i < worker->stream_count; i++) {
        size_t slots = room_slots(worker, QUEUE_RECOVERED), count = 0;
        struct lane_overdue overdue = {0};
        struct error err = {0};
        int rc = lane_reclaim(worker->store, worker->redis, &worker->streams[i],
                              (uint32_t)(slots < CLAIM_BATCH ? slots : CLAIM_BATCH), lanes, &count,
                              &overdue, &err);
        if (claim_error(worker, rc, &err))
            break;
        if (count > 0)
            log_line(LOG_WARN, "%zu lanes taken over whose lease was over", count);
        claim_start(worker, lanes, count);
        owes = owes || overdue.has_more;
        if (overdue.next_ms < next_ms)
            next_ms = overdue.next_ms;
    }
    if (owes && !worker->owes)
        log_line(LOG_INFO, "leases are over, and no slot is free: nothing new is claimed before");
    worker->owes = owes;
    if (!owes && worker->claim_wait)
        wait_wake(worker->claim_wait, MR_OK);
    return owes && room_slots(worker, QUEUE_RECOVERED) ? 0 : next_ms;
}

void reclaim_fiber(void *arg)
{
    struct worker *worker = arg;
    struct lane *lanes = mem_alloc(CLAIM_BATCH * sizeof *lanes);
    uint64_t pause_ms = claim_sweep_ms(worker);
    for (size_t turn = 0; reclaim_pause(worker, pause_ms + 1); turn++) {
        pause_ms = claim_sweep_ms(worker);
        /* After an outage every lease looks over: their holders get a full lease to renew them
         * first. */
        if (!worker->up_since_ms || clock_now_ms() - worker->up_since_ms < worker->setup->lease_ms)
            worker->owes = false;
        else
            pause_ms = reclaim_sweep(worker, lanes);
        /* One stream a look: consumers of workers that are gone for good. */
        uint32_t buried = 0;
        size_t which = worker->stream_count ? turn % worker->stream_count : 0;
        worker_bury(worker->store, &worker->streams[which], &buried, NULL);
    }
    worker->owes = false;
    free(lanes);
}

void claim_hand_back(struct worker *worker)
{
    struct lane *lanes = mem_alloc(CLAIM_BATCH * sizeof *lanes);
    for (size_t i = 0; i < worker->stream_count; i++) {
        char cursor[STORE_ENTRY_BYTES] = "0";
        size_t count = 0;
        do {
            struct error err = {0};
            if (lane_claim_own(worker->store, worker->redis, &worker->streams[i], cursor,
                               CLAIM_BATCH, lanes, &count, &err) != MR_OK) {
                free(lanes); /* Redis is away: each further stream would wait as long for nothing */
                return;
            }
            for (size_t k = 0; k < count; k++) {
                struct lane *lane = &lanes[k];
                if (work_lane_find(worker, lane->job, lane->number))
                    continue;
                lane->fence[0] = '\0';
                const struct pipeline *own = revision_find(worker->revisions, lane->pipeline, NULL);
                const struct lane_begin begin = {.revision = own ? own->revision : "", .known = ""};
                struct lane_grant grant = {0};
                enum lane_verdict verdict;
                if (lane_begin(worker->store, lane, &begin, &grant, &err) == MR_OK &&
                    (grant.verdict == LANE_OK || grant.verdict == LANE_REV ||
                     grant.verdict == LANE_STOP))
                    lane_handback(worker->store, lane, &verdict, &err);
                lane_grant_done(&grant);
            }
        } while (count == CLAIM_BATCH);
    }
    free(lanes);
}
