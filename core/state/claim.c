/* Claiming: entries of streams to lanes. */
#include "state/inner.h"
#include "state/lane.h"
#include <stdio.h>
#include <string.h>

/* Reads `[ID, [j, JOB, l, N, p, PIPELINE]]`; false for an entry whose fields are gone or are not
 * ours. */
static bool read_entry(const struct reply *entry, const struct lane_stream *stream,
                       struct lane *ret)
{
    struct lane lane = {.class = stream->class, .prio = stream->class};
    lane.partition = stream->partition;
    snprintf(lane.queue, sizeof(lane.queue), "%s", stream->queue);
    snprintf(lane.entry, sizeof(lane.entry), "%s", reply_text(entry, 0));
    const struct reply *fields = reply_item(entry, 1);
    for (size_t i = 0; i + 1 < fields->count; i += 2) {
        const char *name = reply_text(fields, i), *value = reply_text(fields, i + 1);
        if (strcmp(name, "j") == 0)
            snprintf(lane.job, sizeof(lane.job), "%s", value);
        else if (strcmp(name, "l") == 0)
            lane.number = (uint32_t)text_u64(value, strlen(value));
        else if (strcmp(name, "p") == 0)
            snprintf(lane.pipeline, sizeof(lane.pipeline), "%s", value);
    }
    if (!lane.job[0] || lane.number == 0 || !lane.entry[0])
        return false;
    *ret = lane;
    return true;
}

/* Entries of one stream; those that hold nothing are ended at once: no lane is theirs. */
static void read_entries(struct redis *redis, const struct reply *list,
                         const struct lane_stream *stream, const char *key, struct lane *lanes,
                         size_t room, size_t *count)
{
    for (size_t i = 0; i < list->count && room > 0; i++) {
        if (read_entry(&list->items[i], stream, &lanes[*count])) {
            (*count)++;
            room--;
            continue;
        }
        struct reply reply;
        const char *entry = reply_text(&list->items[i], 0);
        if (entry[0] &&
            redis_command(redis, &reply, NULL, "XACK", key, STORE_GROUP, entry, NULL) == MR_OK)
            reply_done(&reply);
        if (entry[0] && redis_command(redis, &reply, NULL, "XDEL", key, entry, NULL) == MR_OK)
            reply_done(&reply);
    }
}

static bool is_no_group(const struct error *err)
{
    return strstr(err->message, "NOGROUP") != NULL;
}

/* Makes the group of a stream, at 0 and with the stream where there is none yet. */
static int make_group(struct redis *redis, const char *key, struct error *err)
{
    struct reply reply;
    int rc = redis_command(redis, &reply, err, "EVAL", script_text(SCRIPT_group), "1", key,
                           STORE_GROUP, NULL);
    if (rc == MR_OK)
        reply_done(&reply);
    return rc;
}

/* Runs a command on streams; groups that are missing are made, then it is repeated. */
static int run(struct redis *redis, size_t argc, const struct arg *argv, uint64_t timeout_ms,
               const struct arg *keys, size_t key_count, struct reply *ret_reply, struct error *err)
{
    struct error first = {0};
    int rc = redis_call(redis, argc, argv, timeout_ms, ret_reply, &first);
    if (rc == MR_E_STORE && is_no_group(&first)) {
        for (size_t i = 0; i < key_count; i++) {
            rc = make_group(redis, keys[i].data, err);
            if (rc != MR_OK)
                return rc;
        }
        return redis_call(redis, argc, argv, timeout_ms, ret_reply, err);
    }
    if (rc != MR_OK && err)
        *err = first;
    return rc;
}

#define COMMAND_MS   10000u
#define OVERDUE_LOOK 256u /* entries of a stream at a look */

int lane_claim(struct store *store, struct redis *redis, const struct lane_stream *streams,
               size_t stream_count, uint32_t per_stream, uint64_t block_ms, struct lane *ret_lanes,
               size_t *ret_count, struct error *err)
{
    *ret_count = 0;
    if (stream_count == 0 || per_stream == 0)
        return MR_OK;
    struct arena arena;
    arena_init(&arena);
    struct arg *words = arena_alloc(&arena, (10 + 2 * stream_count) * sizeof(*words));
    char count_slot[24], block_slot[24];
    size_t argc = 0;
    words[argc++] = arg_text("XREADGROUP");
    words[argc++] = arg_text("GROUP");
    words[argc++] = arg_text(STORE_GROUP);
    words[argc++] = arg_text(store->worker);
    words[argc++] = arg_text("COUNT");
    words[argc++] = arg_int(count_slot, per_stream);
    if (block_ms > 0) {
        words[argc++] = arg_text("BLOCK");
        words[argc++] = arg_int(block_slot, (int64_t)block_ms);
    }
    words[argc++] = arg_text("STREAMS");
    struct arg *keys = &words[argc];
    for (size_t i = 0; i < stream_count; i++) {
        char key[STORE_KEY_BYTES];
        store_queue_key(store, streams[i].partition, streams[i].queue, streams[i].class, key);
        size_t len = strlen(key);
        words[argc++] = (struct arg){arena_ndup(&arena, key, len), len};
    }
    for (size_t i = 0; i < stream_count; i++)
        words[argc++] = arg_text(">");
    struct reply reply;
    int rc = run(redis, argc, words, block_ms > 0 ? block_ms + COMMAND_MS : 0, keys, stream_count,
                 &reply, err);
    if (rc == MR_OK) {
        size_t count = 0, room = stream_count * per_stream;
        for (size_t i = 0; i < reply.count; i++)
            for (size_t s = 0; s < stream_count; s++)
                if (strcmp(reply_text(&reply.items[i], 0), keys[s].data) == 0)
                    read_entries(redis, reply_item(&reply.items[i], 1), &streams[s], keys[s].data,
                                 ret_lanes, room - count, &count);
        *ret_count = count;
        reply_done(&reply);
    }
    arena_done(&arena);
    return rc;
}

int lane_claim_own(struct store *store, struct redis *redis, const struct lane_stream *stream,
                   char cursor[STORE_ENTRY_BYTES], uint32_t max, struct lane *ret_lanes,
                   size_t *ret_count, struct error *err)
{
    char key[STORE_KEY_BYTES], count_slot[24];
    store_queue_key(store, stream->partition, stream->queue, stream->class, key);
    *ret_count = 0;
    struct arg words[] = {arg_text("XREADGROUP"),  arg_text("GROUP"), arg_text(STORE_GROUP),
                          arg_text(store->worker), arg_text("COUNT"), arg_int(count_slot, max),
                          arg_text("STREAMS"),     arg_text(key),     arg_text(cursor)};
    struct arg key_arg = arg_text(key);
    struct reply reply;
    int rc = run(redis, 9, words, 0, &key_arg, 1, &reply, err);
    if (rc != MR_OK)
        return rc;
    const struct reply *list = reply_item(reply_item(&reply, 0), 1);
    if (list->count > 0)
        snprintf(cursor, STORE_ENTRY_BYTES, "%s", reply_text(&list->items[list->count - 1], 0));
    read_entries(redis, list, stream, key, ret_lanes, max, ret_count);
    reply_done(&reply);
    return MR_OK;
}

/* Takes the named entries, unless somebody has renewed them meanwhile, or this worker may not judge
 * (sweep.lua). */
static int take(struct store *store, struct redis *redis, const struct lane_stream *stream,
                const char *key, const struct arg *ids, size_t id_count, struct lane *ret_lanes,
                size_t *ret_count, struct error *err)
{
    call_auto struct call call;
    call_init(&call, store, SCRIPT_sweep, stream->partition);
    call_key_text(&call, key);
    call_key(&call, "worker", store->worker);
    call_text(&call, store->worker);
    call_u64(&call, store->lease_ms);
    for (size_t i = 0; i < id_count; i++)
        call_bytes(&call, ids[i].data, ids[i].len);
    struct reply reply;
    int rc = call_run(&call, 0, &reply, err);
    if (rc != MR_OK)
        return rc;
    read_entries(redis, &reply, stream, key, ret_lanes, id_count, ret_count);
    reply_done(&reply);
    return MR_OK;
}

/* Healthy entries are young: they are renewed each third of a lease. So only those that have missed
 * a renewal are listed, and a stream with any number of them is looked through in one command
 * (XAUTOCLAIM looks at ten a free slot, and says nothing of those behind). */
int lane_reclaim(struct store *store, struct redis *redis, const struct lane_stream *stream,
                 uint32_t max, struct lane *ret_lanes, size_t *ret_count, struct lane_overdue *ret,
                 struct error *err)
{
    char key[STORE_KEY_BYTES], idle_slot[24], count_slot[24];
    store_queue_key(store, stream->partition, stream->queue, stream->class, key);
    struct lane_overdue overdue = {.next_ms = UINT64_MAX};
    *ret_count = 0;
    struct arg words[] = {arg_text("XPENDING"),
                          arg_text(key),
                          arg_text(STORE_GROUP),
                          arg_text("IDLE"),
                          arg_int(idle_slot, (int64_t)(store->lease_ms / 2)),
                          arg_text("-"),
                          arg_text("+"),
                          arg_int(count_slot, OVERDUE_LOOK)};
    struct arg key_arg = arg_text(key), ids[OVERDUE_LOOK];
    struct reply list;
    int rc = run(redis, sizeof(words) / sizeof(words[0]), words, 0, &key_arg, 1, &list, err);
    if (rc != MR_OK)
        return rc;
    size_t id_count = 0, over = 0;
    for (size_t i = 0; i < list.count && i < OVERDUE_LOOK; i++) {
        const struct reply *idle = reply_item(&list.items[i], 2);
        uint64_t idle_ms =
            idle->type == REPLY_INT && idle->integer > 0 ? (uint64_t)idle->integer : 0;
        if (idle_ms < store->lease_ms) {
            uint64_t left_ms = store->lease_ms - idle_ms;
            overdue.next_ms = left_ms < overdue.next_ms ? left_ms : overdue.next_ms;
        } else if (over++ < max) {
            ids[id_count++] = arg_text(reply_text(&list.items[i], 0));
        }
    }
    if (id_count > 0)
        rc = take(store, redis, stream, key, ids, id_count, ret_lanes, ret_count, err);
    /* Who gets none of what it asked for may not judge now, or others were quicker. */
    overdue.has_more = (over > id_count || over == OVERDUE_LOOK) && (id_count == 0 || *ret_count);
    reply_done(&list);
    if (rc == MR_OK && ret)
        *ret = overdue;
    return rc;
}
