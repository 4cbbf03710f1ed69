/* mr_batch: items gathered by a fiber of the batch's own.
 *
 * A batch (stage and key) exists while it has items. Its fiber waits until the oldest item has
 * lingered or enough are there, takes up to `max` of them off the queue, and has `fn` handle those
 * on a thread; then it goes on with what has come meanwhile, so that batches of one key run one
 * after the other. Tasks wait for their item: before it is taken, a cancel takes it off the queue;
 * from then on the thread may be writing to it, and the wait is shielded. */
#include "run/batch.h"

#include "base/clock.h"
#include "base/mem.h"
#include "loop/offload.h"

#define BATCH_MAX 10000u

struct batch_item {
    struct wait wait;
    struct batch_item *next, **link; /* link NULL: taken off the queue */
    void *item;
    uint64_t due_ms;
    bool taken, done;
};

struct batch {
    struct batch *next;
    struct runner *runner;
    struct instance *instance;
    const void *key;
    void (*fn)(void **items, uint32_t count);
    uint32_t max;
    struct batch_item *queue, **end;
    uint32_t count;
    struct wait *idle; /* the fiber's wait for more */
};

struct batch_call {
    void (*fn)(void **items, uint32_t count);
    void **items;
    uint32_t count;
};

static void call_main(void *arg)
{
    struct batch_call *call = arg;
    call->fn(call->items, call->count);
}

static void item_unlink(struct batch *batch, struct batch_item *item)
{
    /* Items in a list have a link. NOLINTNEXTLINE(clang-analyzer-core.NullDereference) */
    *item->link = item->next;
    if (item->next != NULL)
        item->next->link = item->link;
    else
        batch->end = item->link;
    item->link = NULL;
    batch->count--;
}

/* Takes up to `max` items and has them handled. */
static void handle(struct batch *batch)
{
    uint32_t count = batch->count < batch->max ? batch->count : batch->max;
    struct batch_item **taken = mem_alloc(count * sizeof(struct batch_item *));
    void **items = mem_alloc(count * sizeof(void *));
    uint32_t n = 0;
    while (n < count) {
        struct batch_item *item = batch->queue;
        item_unlink(batch, item);
        item->taken = true;
        taken[n] = item;
        items[n++] = item->item;
    }
    struct batch_call call = {batch->fn, items, count};
    int rc = offload_run(batch->runner->loop, call_main, &call);
    for (uint32_t i = 0; i < count; i++) {
        taken[i]->done = true;
        wait_wake(&taken[i]->wait, rc);
    }
    free(items);
    free(taken);
}

/* Waits until the batch is to be handled. */
static void gather(struct batch *batch)
{
    while (batch->count > 0 && batch->count < batch->max) {
        uint64_t now_ms = clock_now_ms();
        uint64_t due_ms = batch->queue->due_ms;
        if (due_ms <= now_ms)
            return;
        struct wait wait;
        wait_init(&wait, batch->runner->loop);
        batch->idle = &wait;
        int rc = wait_for(&wait, due_ms - now_ms);
        batch->idle = NULL;
        if (rc != MR_OK)
            return;
    }
}

static void batch_main(void *arg)
{
    struct batch *batch = arg;
    while (batch->count > 0) {
        gather(batch);
        if (batch->count > 0)
            handle(batch);
    }
    struct batch **link = &batch->runner->priv->batches;
    while (*link != batch)
        link = &(*link)->next;
    *link = batch->next;
    free(batch);
}

static struct batch *batch_find(struct runner *runner, struct instance *instance, const void *key)
{
    for (struct batch *batch = runner->priv->batches; batch != NULL; batch = batch->next)
        if (batch->instance == instance && batch->key == key)
            return batch;
    return NULL;
}

static struct batch *batch_new(struct runner *runner, struct instance *instance, const void *key,
                               struct error *err)
{
    struct batch *batch = mem_zalloc(sizeof(*batch));
    batch->runner = runner;
    batch->instance = instance;
    batch->key = key;
    batch->end = &batch->queue;
    batch->next = runner->priv->batches;
    runner->priv->batches = batch;
    int rc = group_spawn(&runner->priv->helpers, NULL, batch_main, batch);
    if (rc == MR_OK)
        return batch;
    runner->priv->batches = batch->next;
    free(batch);
    error_set(err, rc, "no fiber to gather a batch on");
    return NULL;
}

int batch_run(struct runner *runner, struct instance *instance, const void *key,
              void (*fn)(void **items, uint32_t count), void *item, uint32_t max,
              uint64_t linger_ms, struct error *err)
{
    struct batch *batch = batch_find(runner, instance, key);
    if (batch == NULL)
        batch = batch_new(runner, instance, key, err);
    if (batch == NULL)
        return err->code;
    batch->fn = fn;
    batch->max = max == 0 ? 1 : max > BATCH_MAX ? BATCH_MAX : max;
    struct batch_item own = {
        .item = item, .due_ms = clock_now_ms() + linger_ms, .link = batch->end};
    wait_init(&own.wait, runner->loop);
    *batch->end = &own;
    batch->end = &own.next;
    batch->count++;
    if (batch->idle != NULL && batch->count >= batch->max)
        wait_wake(batch->idle, MR_OK);

    int rc = wait_for(&own.wait, UINT64_MAX);
    if (own.taken && !own.done) {
        /* Cancelled while the thread has it. */
        wait_init(&own.wait, runner->loop);
        wait_shield(1);
        wait_for(&own.wait, UINT64_MAX);
        wait_shield(-1);
    } else if (!own.taken) {
        item_unlink(batch, &own);
        if (batch->count == 0 && batch->idle != NULL)
            wait_wake(batch->idle, MR_OK);
    }
    if (rc != MR_OK)
        return error_set(err, rc, "while waiting for a batch: %s", error_text(rc));
    return MR_OK;
}
