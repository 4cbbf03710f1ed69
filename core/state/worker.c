/* Registration: names of workers, and the channel on which they hear that a lane has to stop. */
#include "state/inner.h"
#include "state/lane.h"
#include <stdio.h>
#include <string.h>

#define SUFFIX_MAX 1000u

static int enroll_one(struct store *store, uint32_t partition, const char *name,
                      const char *instance, const char *reaped, bool *ret_taken, struct error *err)
{
    call_auto struct call call;
    call_init(&call, store, SCRIPT_enroll, partition);
    call_key(&call, "worker", name);
    call_key(&call, "workers", NULL);
    call_text(&call, instance);
    call_text(&call, reaped);
    call_u64(&call, store->lease_ms);
    call_text(&call, name);
    struct reply reply;
    int rc = call_run(&call, 0, &reply, err);
    if (rc != MR_OK)
        return rc;
    *ret_taken = reply.type == REPLY_INT && reply.integer == 0;
    reply_done(&reply);
    return MR_OK;
}

int worker_enroll(struct store *store, const char *name, const char *instance, const char *reaped,
                  struct error *err)
{
    if (!name[0] || strlen(name) > 100 || strpbrk(name, " \t\r\n{}"))
        return error_set(err, MR_E_SCHEMA, "\"%.100s\" is no name for a worker", name);
    for (unsigned suffix = 1; suffix <= SUFFIX_MAX; suffix++) {
        mem_auto char *full = suffix == 1 ? mem_dup(name) : mem_format("%s-%u", name, suffix);
        bool is_taken = false;
        /* Partition 0 decides; its holder has the name in the others too. */
        for (uint32_t partition = 0; partition < store->partitions && !is_taken; partition++) {
            int rc = enroll_one(store, partition, full, instance, reaped, &is_taken, err);
            if (rc != MR_OK)
                return rc;
        }
        if (is_taken)
            continue;
        free(store->worker);
        store->worker = full;
        full = NULL;
        snprintf(store->instance, sizeof(store->instance), "%s", instance);
        return MR_OK;
    }
    return error_set(err, MR_E_INTERNAL, "all of %u names after %s are taken", SUFFIX_MAX, name);
}

int worker_serve(struct store *store, const char *queues, uint32_t slots, struct error *err)
{
    free(store->queues);
    store->queues = mem_dup(queues);
    store->slots = slots;
    for (uint32_t partition = 0; store->worker && partition < store->partitions; partition++) {
        call_auto struct call call;
        call_init(&call, store, SCRIPT_serve, partition);
        call_key(&call, "worker", store->worker);
        call_text(&call, store->instance);
        call_text(&call, queues);
        call_u64(&call, slots);
        struct reply reply;
        int rc = call_run(&call, 0, &reply, err);
        if (rc != MR_OK)
            return rc;
        reply_done(&reply);
    }
    return MR_OK;
}

int worker_leave(struct store *store, struct error *err)
{
    for (uint32_t partition = 0; store->worker && partition < store->partitions; partition++) {
        call_auto struct call call;
        call_init(&call, store, SCRIPT_leave, partition);
        call_key(&call, "worker", store->worker);
        call_key(&call, "workers", NULL);
        call_text(&call, store->instance);
        call_text(&call, store->worker);
        struct reply reply;
        int rc = call_run(&call, 0, &reply, err);
        if (rc != MR_OK)
            return rc;
        reply_done(&reply);
    }
    return MR_OK;
}

int store_ready(struct store *store, uint64_t timeout_ms, uint64_t *ret_workers, struct error *err)
{
    call_auto struct call call;
    call_init(&call, store, SCRIPT_ready, 0);
    call_key(&call, "workers", NULL);
    struct reply reply;
    int rc = call_run(&call, timeout_ms, &reply, err);
    if (rc != MR_OK)
        return rc;
    *ret_workers = reply.type == REPLY_INT && reply.integer > 0 ? (uint64_t)reply.integer : 0;
    reply_done(&reply);
    return MR_OK;
}

/* The value of `name` in a flat list of names and values. */
static const char *field(const struct reply *list, const char *name)
{
    for (size_t i = 0; i + 1 < list->count; i += 2)
        if (strcmp(reply_text(list, i), name) == 0)
            return reply_text(list, i + 1);
    return "";
}

int worker_bury(struct store *store, const struct lane_stream *stream, uint32_t *ret_count,
                struct error *err)
{
    char key[STORE_KEY_BYTES], queue[STORE_KEY_BYTES];
    struct reply consumers;
    uint32_t count = 0;
    store_queue_key(store, stream->partition, stream->queue, stream->class, key);
    snprintf(queue, sizeof(queue), "%s:%s", stream->queue, queue_class_name(stream->class));
    struct error first = {0};
    int rc = redis_command(store->redis, &consumers, &first, "XINFO", "CONSUMERS", key, STORE_GROUP,
                           NULL);
    if (rc != MR_OK) {
        if (strstr(first.message, "no such key") || strstr(first.message, "NOGROUP")) {
            *ret_count = 0;
            return MR_OK;
        }
        if (err)
            *err = first;
        return rc;
    }
    for (size_t i = 0; i < consumers.count && rc == MR_OK; i++) {
        const char *name = field(&consumers.items[i], "name");
        if (!name[0] || (store->worker && strcmp(name, store->worker) == 0))
            continue;
        call_auto struct call call;
        call_init(&call, store, SCRIPT_bury, stream->partition);
        call_key(&call, "queue", queue);
        call_key(&call, "worker", name);
        call_text(&call, name);
        struct reply reply;
        rc = call_run(&call, 0, &reply, err);
        if (rc == MR_OK) {
            count += reply.type == REPLY_INT && reply.integer == 1;
            reply_done(&reply);
        }
    }
    reply_done(&consumers);
    if (rc == MR_OK)
        *ret_count = count;
    return rc;
}

const char *worker_bell(const struct store *store, uint32_t partition, char ret[STORE_KEY_BYTES])
{
    return store_key(store, partition, "bell", store->worker, ret);
}

bool worker_bell_parse(const char *text, size_t len, char ret_job[ID_BYTES], uint32_t *ret_lane)
{
    if (len < 7 || memcmp(text, "stop ", 5) != 0)
        return false;
    const char *id = text + 5, *space = memchr(id, ' ', len - 5);
    if (!space || (size_t)(space - id) >= ID_BYTES || space == id)
        return false;
    uint64_t number = text_u64(space + 1, len - (size_t)(space + 1 - text));
    if (number == 0 || number > UINT32_MAX)
        return false;
    memcpy(ret_job, id, (size_t)(space - id));
    ret_job[space - id] = '\0';
    *ret_lane = (uint32_t)number;
    return true;
}
