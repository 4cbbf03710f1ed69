/* Claiming: new entries by order of class, own ones that nobody holds, and those of others whose
 * lease is over.
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

#define CLAIM_BLOCK_MS 2000u
#define CLAIM_TURN_MS  100u /* between reads while slots are few */
#define CLAIM_PAUSE_MS 250u /* after an error */
#define CLAIM_BATCH    256u /* entries a command */
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
    log_error("queues cannot be read", err, NULL);
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

/* One blocking read of all streams of a partition. */
static void claim_block(struct worker *worker, uint32_t partition, size_t free_slots)
{
    size_t stream_count, count = 0;
    const struct lane_stream *streams = claim_streams(worker, partition, &stream_count);
    uint32_t each = (uint32_t)(free_slots / stream_count);
    if (each > CLAIM_BATCH)
        each = CLAIM_BATCH;
    struct lane *lanes = mem_alloc(stream_count * each * sizeof *lanes);
    struct error err = {0};
    uint64_t block_ms = worker->store->partitions > 1 ? CLAIM_TURN_MS : CLAIM_BLOCK_MS;
    int rc = lane_claim(worker->store, worker->blocking, streams, stream_count, each, block_ms,
                        lanes, &count, &err);
    if (!claim_error(worker, rc, &err))
        claim_start(worker, lanes, count);
    free(lanes);
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
        size_t slots = room_slots(worker, stream->class), count = 0;
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
        size_t slots = room_slots(worker, QUEUE_LOW),
               each = worker->stream_count / worker->store->partitions;
        if (slots >= each) {
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

void reclaim_fiber(void *arg)
{
    struct worker *worker = arg;
    struct lane *lanes = mem_alloc(CLAIM_BATCH * sizeof *lanes);
    char(*cursors)[STORE_ENTRY_BYTES] = mem_zalloc(worker->stream_count * sizeof *cursors);
    for (size_t i = 0; i < worker->stream_count; i++)
        snprintf(cursors[i], sizeof cursors[i], "0-0");
    for (size_t turn = 0; wait_sleep(&worker->loop, claim_sweep_ms(worker)) == MR_OK; turn++) {
        /* After an outage every lease looks over: their holders get a full lease to renew them
         * first. */
        if (!worker->up_since_ms || clock_now_ms() - worker->up_since_ms < worker->setup->lease_ms)
            continue;
        for (size_t i = 0; i < worker->stream_count; i++) {
            size_t slots = room_slots(worker, worker->streams[i].class), count = 0;
            if (slots == 0)
                continue;
            struct error err = {0};
            int rc = lane_reclaim(worker->store, worker->redis, &worker->streams[i], cursors[i],
                                  (uint32_t)(slots < CLAIM_BATCH ? slots : CLAIM_BATCH), lanes,
                                  &count, &err);
            if (claim_error(worker, rc, &err))
                break;
            if (count > 0)
                log_line(LOG_WARN, "%zu lanes taken over whose lease was over", count);
            claim_start(worker, lanes, count);
        }
        /* One stream a sweep: consumers of workers that are gone for good. */
        uint32_t buried = 0;
        size_t which = worker->stream_count ? turn % worker->stream_count : 0;
        worker_bury(worker->store, &worker->streams[which], &buried, NULL);
    }
    free(cursors);
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
