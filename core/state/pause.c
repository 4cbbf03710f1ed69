/* What is paused: see pause.h. */
#include "state/pause.h"
#include "state/inner.h"
#include <string.h>

int pause_get(struct store *store, const char *pipeline, struct pause *ret, struct error *err)
{
    struct pause pause = {.state = PAUSE_NONE};
    mem_auto char *held = mem_format("held:%s", pipeline);
    for (uint32_t partition = 0; partition < store->partitions; partition++) {
        char key[STORE_KEY_BYTES];
        struct reply reply;
        store_key(store, partition, "paused", NULL, key);
        int rc = redis_command(store->redis, &reply, err, "HGET", key, pipeline, NULL);
        if (rc != MR_OK)
            return rc;
        if (reply.type == REPLY_TEXT && strcmp(reply.text, "1") == 0)
            pause.state = PAUSE_ON;
        else if (reply.type == REPLY_TEXT && pause.state == PAUSE_NONE)
            pause.state = PAUSE_RESUMING;
        reply_done(&reply);
        store_key(store, partition, held, NULL, key);
        rc = redis_command(store->redis, &reply, err, "ZCARD", key, NULL);
        if (rc != MR_OK)
            return rc;
        pause.held += reply.type == REPLY_INT ? (uint64_t)reply.integer : 0;
        reply_done(&reply);
    }
    *ret = pause;
    return MR_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool has_name(char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

int pause_names(struct store *store, char ***ret_names, struct error *err)
{
    size_t count = 0;
    char **names = mem_zalloc(sizeof(*names));
    for (uint32_t partition = 0; partition < store->partitions; partition++) {
        char key[STORE_KEY_BYTES];
        struct reply reply;
        store_key(store, partition, "paused", NULL, key);
        int rc = redis_command(store->redis, &reply, err, "HKEYS", key, NULL);
        if (rc != MR_OK) {
            for (size_t i = 0; i < count; i++)
                free(names[i]);
            free(names);
            return rc;
        }
        names = mem_resize(names, count + reply.count + 1, sizeof(*names));
        for (size_t i = 0; i < reply.count; i++)
            if (!has_name(names, count, reply_text(&reply, i)))
                names[count++] = mem_dup(reply_text(&reply, i));
        reply_done(&reply);
    }
    qsort(names, count, sizeof(*names), by_name);
    names[count] = NULL;
    *ret_names = names;
    return MR_OK;
}
