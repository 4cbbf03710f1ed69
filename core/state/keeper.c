/* Renewing leases from the keeper's thread: over a connection of its own, with copies of all that
 * it reads. */
#include "base/limits.h"
#include "state/inner.h"
#include "state/lane.h"
#include <stdio.h>
#include <string.h>

struct lane_keeper {
    uint64_t busy; /* slots, as told last */
    struct redis_sync *sync;
    struct redis_script script;
    /* Copies; only what names keys is filled. */
    struct store store;
};

struct lane_keeper *lane_keeper_new(const struct store *store, const struct redis_config *config)
{
    struct lane_keeper *keeper = mem_zalloc(sizeof(*keeper));
    keeper->sync = redis_sync_open(config, "keeper");
    keeper->script.name = script_name(SCRIPT_renew);
    keeper->script.text = script_text(SCRIPT_renew);
    keeper->store.prefix = mem_dup(store->prefix);
    keeper->store.worker = mem_dup(store->worker);
    keeper->store.queues = mem_dup(store->queues ? store->queues : "");
    keeper->store.slots = store->slots;
    keeper->store.partitions = store->partitions;
    keeper->store.lease_ms = store->lease_ms;
    memcpy(keeper->store.instance, store->instance, sizeof(store->instance));
    return keeper;
}

void lane_keeper_free(struct lane_keeper *keeper)
{
    if (!keeper)
        return;
    redis_sync_close(keeper->sync);
    free(keeper->store.prefix);
    free(keeper->store.worker);
    free(keeper->store.queues);
    free(keeper);
}

void lane_keeper_set_busy(struct lane_keeper *keeper, uint64_t busy)
{
    keeper->busy = busy;
}

/* Renews `count` lanes of one partition with one script. */
static int renew_batch(struct lane_keeper *keeper, uint32_t partition,
                       struct lane_renewal *const *batch, size_t count, uint64_t timeout_ms,
                       struct error *err)
{
    struct store *store = &keeper->store;
    call_auto struct call call;
    call_init(&call, store, SCRIPT_renew, partition);
    call_key(&call, "worker", store->worker);
    call_key(&call, "workers", NULL);
    call_text(&call, store->worker);
    call_text(&call, store->instance);
    call_u64(&call, store->lease_ms);
    call_text(&call, store->queues);
    call_u64(&call, store->slots);
    call_u64(&call, keeper->busy);
    for (size_t i = 0; i < count; i++) {
        const struct lane *lane = &batch[i]->lane;
        char queue[STORE_KEY_BYTES];
        snprintf(queue, sizeof(queue), "%s:%s", lane->queue, queue_class_name(lane->class));
        call_key(&call, "job", lane->job);
        call_key(&call, "queue", queue);
        call_u64(&call, lane->number);
        call_text(&call, lane->fence);
        call_text(&call, lane->entry);
    }
    struct reply reply;
    int rc = redis_sync_run(keeper->sync, &keeper->script, call.key_count, call.keys,
                            call.arg_count, call.args, timeout_ms, &reply, err);
    if (rc != MR_OK)
        return rc;
    for (size_t i = 0; i < count; i++) {
        const char *word = reply_text(&reply, i);
        batch[i]->verdict = strcmp(word, "LOST") == 0   ? LANE_LOST
                            : strcmp(word, "STOP") == 0 ? LANE_STOP
                                                        : LANE_OK;
    }
    reply_done(&reply);
    return MR_OK;
}

int lane_renew(struct lane_keeper *keeper, struct lane_renewal *renewals, size_t count,
               uint64_t timeout_ms, struct error *err)
{
    struct lane_renewal *batch[LIMIT_SCRIPT_ITEMS];
    for (size_t i = 0; i < count; i++)
        renewals[i].verdict = LANE_OK;
    for (uint32_t partition = 0; partition < keeper->store.partitions; partition++) {
        size_t next = 0, scripts = 0;
        do {
            size_t size = 0;
            for (; next < count && size < LIMIT_SCRIPT_ITEMS; next++)
                if (renewals[next].lane.partition == partition)
                    batch[size++] = &renewals[next];
            if (size == 0 && scripts > 0)
                break;
            int rc = renew_batch(keeper, partition, batch, size, timeout_ms, err);
            if (rc != MR_OK)
                return rc;
            scripts++;
        } while (next < count);
    }
    return MR_OK;
}
