/* What fsck has moved out of the way: the list for people. */
#include "base/mem.h"
#include "base/utf8.h"
#include "state/fsck.h"
#include "state/inner.h"
#include <stdio.h>
#include <string.h>

static int by_time(const void *a, const void *b)
{
    const struct fsck_quarantined *x = a, *y = b;
    if (x->at_ms != y->at_ms)
        return x->at_ms < y->at_ms ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Why it is there: a field of the job's hash, when it is a hash. */
static char *why_of(struct store *store, uint32_t partition, const char *name)
{
    char key[STORE_KEY_BYTES];
    struct reply reply;
    if (strncmp(name, "key ", 4) == 0)
        return mem_dup("it is of another type than it has to be");
    if (strlen(name) >= ID_BYTES)
        return mem_dup("");
    store_key(store, partition, "quarantined", name, key);
    if (redis_command(store->redis, &reply, NULL, "HGET", key, "quarantine", NULL) != MR_OK)
        return mem_dup("it is not a hash");
    char *why = utf8_plain(reply.type == REPLY_TEXT ? reply.text : "");
    reply_done(&reply);
    return why;
}

int fsck_quarantine(struct store *store, uint32_t max, struct fsck_quarantined **ret_items,
                    size_t *ret_count, struct error *err)
{
    struct fsck_quarantined *items = NULL;
    size_t count = 0;
    char last[16];
    snprintf(last, sizeof(last), "%u", max ? max - 1 : 0);
    for (uint32_t partition = 0; partition < store->partitions && count < max; partition++) {
        char key[STORE_KEY_BYTES];
        struct reply reply;
        store_key(store, partition, "quarantine", NULL, key);
        int rc =
            redis_command(store->redis, &reply, err, "ZRANGE", key, "0", last, "WITHSCORES", NULL);
        if (rc != MR_OK) {
            fsck_quarantine_free(items, count);
            return rc;
        }
        items = mem_resize(items, count + reply.count / 2 + 1, sizeof(*items));
        for (size_t i = 0; i + 1 < reply.count && count < max; i += 2) {
            const char *name = reply_text(&reply, i);
            items[count++] = (struct fsck_quarantined){.name = utf8_plain(name),
                                                       .why = why_of(store, partition, name),
                                                       .at_ms = reply_u64(&reply, i + 1)};
        }
        reply_done(&reply);
    }
    if (count > 1)
        qsort(items, count, sizeof(*items), by_time);
    *ret_items = items;
    *ret_count = count;
    return MR_OK;
}

void fsck_quarantine_free(struct fsck_quarantined *items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(items[i].name);
        free(items[i].why);
    }
    free(items);
}
