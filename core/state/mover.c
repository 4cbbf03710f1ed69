/* The mover: any worker moves what is due. Peeking is one script, waking each member another that
 * looks again, so that any number of movers may run at once. */
#include "base/hash.h"
#include "base/log.h"
#include "state/inner.h"
#include "state/lane.h"
#include <stdio.h>
#include <string.h>

#define SLEEP_MAX_MS 1000u
#define TRIM_EACH    64u    /* turns */
#define PUT_OFF_MS   60000u /* what cannot be woken */

/* The id inside a member: `l ID N`, `x ID`, `d ID`. */
static bool member_id(const char *member, char ret_id[ID_BYTES])
{
    if (strlen(member) < 3 || member[1] != ' ')
        return false;
    size_t len = strcspn(member + 2, " ");
    if (len == 0 || len >= ID_BYTES)
        return false;
    memcpy(ret_id, member + 2, len);
    ret_id[len] = '\0';
    return true;
}

/* `held`: "held:PIPELINE" for lanes of a resumed pipeline, NULL for the due set. */
static int wake(struct store *store, uint32_t partition, const char *member, const char *held,
                uint32_t *woken, struct error *err)
{
    char id[ID_BYTES];
    struct reply reply;
    if (!member_id(member, id)) {
        char key[STORE_KEY_BYTES];
        log_event(LOG_ERROR, "a member of the due set is none of ours", "member", member, NULL);
        store_key(store, partition, held ? held : "due", NULL, key);
        int rc = redis_command(store->redis, &reply, err, "ZREM", key, member, NULL);
        if (rc == MR_OK)
            reply_done(&reply);
        return rc;
    }
    call_auto struct call call;
    call_init(&call, store, SCRIPT_wake, partition);
    call_job(&call, id);
    if (held)
        call_key(&call, held, NULL);
    call_text(&call, member);
    call_text(&call, held);
    call_text(&call, store->priv->conf);
    call_u64(&call, store->dead_budget);
    int rc = call_run(&call, 0, &reply, err);
    if (rc != MR_OK)
        return rc;
    *woken += strcmp(reply_text(&reply, 0), "OK") == 0;
    reply_done(&reply);
    return MR_OK;
}

/* A breaker has closed (`f FP` in the due set): what it held is due again, 100 a turn. */
static int release(struct store *store, uint32_t partition, const char *fp, bool *ret_more,
                   struct error *err)
{
    char key[STORE_KEY_BYTES];
    mem_auto char *from = mem_format("[%s ", fp), *to = mem_format("(%s!", fp);
    struct reply members, reply;
    store_key(store, partition, "dead:held", NULL, key);
    int rc = redis_command(store->redis, &members, err, "ZRANGEBYLEX", key, from, to, "LIMIT", "0",
                           "100", NULL);
    if (rc != MR_OK)
        return rc;
    for (size_t i = 0; i < members.count && rc == MR_OK; i++) {
        const char *id = strrchr(reply_text(&members, i), ' ');
        call_auto struct call call;
        call_init(&call, store, SCRIPT_release, partition);
        call_job(&call, id ? id + 1 : "");
        call_key(&call, "dead:held", NULL);
        call_text(&call, fp);
        rc = call_run(&call, 0, &reply, err);
        if (rc == MR_OK)
            reply_done(&reply);
    }
    if (members.count >= 100)
        *ret_more = true;
    reply_done(&members);
    if (rc != MR_OK)
        return rc;
    call_auto struct call call;
    call_init(&call, store, SCRIPT_released, partition);
    call_key(&call, "due", NULL);
    call_key(&call, "dead:held", NULL);
    call_key(&call, "dead:info", NULL);
    call_text(&call, fp);
    call_u64(&call, store->dead_breaker);
    rc = call_run(&call, 0, &reply, err);
    if (rc == MR_OK)
        reply_done(&reply);
    return rc;
}

/* A member whose job's state makes no sense is looked at again later: it stays for fsck. */
static int put_off(struct store *store, uint32_t partition, const char *member, struct error *err)
{
    char key[STORE_KEY_BYTES], at[24];
    struct reply reply;
    log_error("what is due cannot be woken", err, "member", member, NULL);
    store_key(store, partition, "due", NULL, key);
    snprintf(at, sizeof(at), "%u", PUT_OFF_MS);
    int rc = redis_command(store->redis, &reply, err, "ZADD", key, "XX", "INCR", at, member, NULL);
    if (rc == MR_OK)
        reply_done(&reply);
    return rc;
}

/* Lanes of one resumed pipeline; `ret_more` when there may be more. */
static int resume(struct store *store, uint32_t partition, const char *pipeline, bool *ret_more,
                  uint32_t *woken, struct error *err)
{
    char key[STORE_KEY_BYTES];
    mem_auto char *held = mem_format("held:%s", pipeline);
    struct reply members, reply;
    store_key(store, partition, held, NULL, key);
    int rc = redis_command(store->redis, &members, err, "ZRANGE", key, "0", "99", NULL);
    if (rc != MR_OK)
        return rc;
    for (size_t i = 0; i < members.count && rc == MR_OK; i++)
        rc = wake(store, partition, reply_text(&members, i), held, woken, err);
    if (members.count >= 100)
        *ret_more = true;
    reply_done(&members);
    if (rc != MR_OK)
        return rc;
    call_auto struct call call;
    call_init(&call, store, SCRIPT_resumed, partition);
    call_key(&call, "paused", NULL);
    call_key(&call, held, NULL);
    call_text(&call, pipeline);
    rc = call_run(&call, 0, &reply, err);
    if (rc == MR_OK)
        reply_done(&reply);
    return rc;
}

/* Members of `jobs` and `dead` whose jobs have expired. The oldest are looked at; a job that is
 * still open after so long is left. */
static int trim(struct store *store, uint32_t partition, const char *kind, struct error *err)
{
    call_auto struct call call;
    call_init(&call, store, SCRIPT_oldest, partition);
    call_key(&call, kind, NULL);
    call_u64(&call, store->retention_status_ms < store->retention_result_ms
                        ? store->retention_status_ms
                        : store->retention_result_ms);
    struct reply ids, reply;
    int rc = call_run(&call, 0, &ids, err);
    if (rc != MR_OK)
        return rc;
    char list[STORE_KEY_BYTES], job[STORE_KEY_BYTES];
    store_key(store, partition, kind, NULL, list);
    for (size_t i = 0; i < ids.count && rc == MR_OK; i++) {
        const char *id = reply_text(&ids, i);
        store_key(store, partition, "job", id, job);
        rc = redis_command(store->redis, &reply, err, "EXISTS", job, NULL);
        if (rc != MR_OK)
            break;
        bool is_gone = reply.type == REPLY_INT && reply.integer == 0;
        reply_done(&reply);
        if (!is_gone)
            continue;
        rc = redis_command(store->redis, &reply, err, "ZREM", list, id, NULL);
        if (rc == MR_OK)
            reply_done(&reply);
    }
    reply_done(&ids);
    return rc;
}

/* The same for `dead:held`, which has no times: any twenty are looked at. */
static int trim_held(struct store *store, uint32_t partition, struct error *err)
{
    char key[STORE_KEY_BYTES], job[STORE_KEY_BYTES];
    struct reply members, reply;
    store_key(store, partition, "dead:held", NULL, key);
    int rc = redis_command(store->redis, &members, err, "ZRANDMEMBER", key, "20", NULL);
    if (rc != MR_OK)
        return rc;
    for (size_t i = 0; i < members.count && rc == MR_OK; i++) {
        const char *member = reply_text(&members, i), *id = strrchr(member, ' ');
        store_key(store, partition, "job", id ? id + 1 : "", job);
        rc = redis_command(store->redis, &reply, err, "EXISTS", job, NULL);
        if (rc != MR_OK)
            break;
        bool is_gone = reply.type == REPLY_INT && reply.integer == 0;
        reply_done(&reply);
        if (!is_gone)
            continue;
        rc = redis_command(store->redis, &reply, err, "ZREM", key, member, NULL);
        if (rc == MR_OK)
            reply_done(&reply);
    }
    reply_done(&members);
    return rc;
}

int mover_turn(struct store *store, uint32_t partition, uint64_t *ret_sleep_ms, uint32_t *ret_woken,
               struct error *err)
{
    call_auto struct call call;
    call_init(&call, store, SCRIPT_due, partition);
    call_key(&call, "due", NULL);
    call_key(&call, "paused", NULL);
    struct reply due;
    int rc = call_run(&call, 0, &due, err);
    if (rc != MR_OK)
        return rc;
    const struct reply *next = reply_item(&due, 0), *resumed = reply_item(&due, 1),
                       *members = reply_item(&due, 2);
    uint32_t woken = 0;
    bool is_more = members->count >= 100;
    for (size_t i = 0; i < members->count && rc == MR_OK; i++) {
        const char *member = reply_text(members, i);
        rc = strncmp(member, "f ", 2) == 0 ? release(store, partition, member + 2, &is_more, err)
                                           : wake(store, partition, member, NULL, &woken, err);
        if (rc == MR_E_INTERNAL) /* a broken job must not hold up those behind it */
            rc = put_off(store, partition, reply_text(members, i), err);
    }
    for (size_t i = 0; i < resumed->count && rc == MR_OK; i++)
        rc = resume(store, partition, reply_text(resumed, i), &is_more, &woken, err);
    uint16_t dice;
    hash_random(&dice, sizeof(dice));
    if (rc == MR_OK && dice % TRIM_EACH == 0)
        rc = trim(store, partition, "jobs", err);
    if (rc == MR_OK && dice % TRIM_EACH == 1)
        rc = trim(store, partition, "dead", err);
    if (rc == MR_OK && dice % TRIM_EACH == 2)
        rc = trim_held(store, partition, err);
    uint64_t sleep_ms = SLEEP_MAX_MS;
    if (next->type == REPLY_INT && next->integer >= 0 && (uint64_t)next->integer < sleep_ms)
        sleep_ms = (uint64_t)next->integer;
    reply_done(&due);
    if (rc != MR_OK)
        return rc;
    /* Up to 25 ms or an eighth later, so that movers do not all come at once. */
    uint64_t spread = sleep_ms / 8 > 25 ? 25 : sleep_ms / 8 + 1;
    *ret_sleep_ms = is_more ? 0 : sleep_ms + dice / TRIM_EACH % (spread + 1);
    if (*ret_sleep_ms > SLEEP_MAX_MS)
        *ret_sleep_ms = SLEEP_MAX_MS - dice / TRIM_EACH % 125;
    *ret_woken = woken;
    return MR_OK;
}
