#include "state/job.h"
#include "base/clock.h"
#include "base/limits.h"
#include "state/inner.h"
#include "state/table.h"
#include <stdio.h>
#include <string.h>

/* ---- Submit ---- */

char *job_call_req(const char *parent, const char *stage, const char *target, uint64_t round)
{
    return mem_format("%s/%s/%s:%llu", parent, stage, target, (unsigned long long)round);
}

int job_submit(struct store *store, const struct job_submit *submit, struct job_submitted *ret,
               struct error *err)
{
    static const char *const modes[] = {"plain", "dispatch", "call"};
#define X(NAME, word) [JOB_##NAME] = (word),
    static const char *const outcomes[] = {STATE_SUBMITTED(X)};
#undef X
    if (submit->first_count == 0 || submit->first_count > LIMIT_STAGES)
        return error_set(err, MR_E_INTERNAL, "a job with %u first stages", submit->first_count);
    call_auto struct call call;
    enum script script = submit->mode == JOB_PLAIN ? SCRIPT_submit : SCRIPT_child;
    call_init(&call, store, script, store_partition(store, submit->id));
    call_key(&call, "job", submit->id);
    call_key(&call, "out", submit->id);
    call_key(&call, "log", submit->id);
    call_key(&call, "jobs", NULL);
    if (submit->delay_ms || submit->run_at_ms || submit->ttl_ms)
        call_key(&call, "due", NULL);
    call_text(&call, submit->id);
    for (uint32_t i = 0; i < submit->first_count; i++) {
        call_queue(&call, submit->first[i].queue, submit->prio);
        if (submit->queue_max > 0 && submit->mode != JOB_CALL)
            for (enum queue_class class = QUEUE_HIGH; class <= QUEUE_LOW; class ++)
                call_queue(&call, submit->first[i].queue, class);
    }
    call_text(&call, submit->pipeline);
    call_text(&call, submit->digest);
    call_bytes(&call, submit->input, submit->input_len);
    call_text(&call, submit->req);
    call_text(&call, modes[submit->mode]);
    call_text(&call, queue_class_name(submit->prio));
    char run_at[24];
    snprintf(run_at, sizeof(run_at), "@%llu", (unsigned long long)submit->run_at_ms);
    if (submit->run_at_ms)
        call_text(&call, run_at);
    else
        call_u64(&call, submit->delay_ms);
    call_u64(&call, submit->ttl_ms);
    call_u64(&call, submit->queue_max);
    call_text(&call, submit->metadata);
    call_text(&call, submit->owner);
    call_text(&call, submit->ancestors);
    call_text(&call, submit->after);
    char keep[48];
    uint64_t status_ms =
        submit->retention_status_ms ? submit->retention_status_ms : store->retention_status_ms;
    uint64_t result_ms =
        submit->retention_result_ms ? submit->retention_result_ms : store->retention_result_ms;
    snprintf(keep, sizeof(keep), "%llu %llu", (unsigned long long)status_ms,
             (unsigned long long)result_ms);
    call_text(&call, keep);
    for (uint32_t i = 0; i < submit->first_count; i++) {
        call_text(&call, submit->first[i].name);
        call_text(&call, submit->first[i].queue);
    }
    struct reply reply;
    int rc = call_run(&call, store->ask_ms, &reply, err);
    if (rc != MR_OK)
        return rc;
    for (unsigned i = 0; i < sizeof(outcomes) / sizeof(*outcomes); i++)
        if (strcmp(reply_text(&reply, 0), outcomes[i]) == 0) {
            ret->outcome = (enum job_outcome)i;
            snprintf(ret->status, sizeof(ret->status), "%s", reply_text(&reply, 1));
            ret->round = reply_u64(&reply, 2);
            reply_done(&reply);
            return MR_OK;
        }
    rc = call_surprise(script, &reply, err);
    reply_done(&reply);
    return rc;
}

/* ---- Cancel, again, erase ---- */

/* The index of the reply's word among `words`; -1 with an error when it is none of them. */
static int run_for_word(struct call *call, const char *const *words, int count, struct error *err)
{
    struct reply reply;
    int rc = call_run(call, call->store->ask_ms, &reply, err);
    if (rc != MR_OK)
        return rc;
    rc = -1;
    for (int i = 0; i < count && rc < 0; i++)
        if (strcmp(reply_text(&reply, 0), words[i]) == 0)
            rc = i;
    if (rc < 0)
        rc = call_surprise(call->script, &reply, err);
    reply_done(&reply);
    return rc;
}

int job_cancel(struct store *store, const char *id, const char *req, uint64_t tomb_ms,
               enum cancel_outcome *ret, struct error *err)
{
#define X(NAME, word) [CANCEL_##NAME] = (word),
    static const char *const words[] = {STATE_CANCELS(X)};
#undef X
    call_auto struct call call;
    call_init(&call, store, SCRIPT_cancel, store_partition(store, id));
    call_job(&call, id);
    call_text(&call, req);
    call_u64(&call, tomb_ms ? tomb_ms : 60000);
    call_text(&call, store->priv->conf);
    int word = run_for_word(&call, words, 4, err);
    if (word < 0)
        return word;
    *ret = (enum cancel_outcome)word;
    return MR_OK;
}

int job_run_again(struct store *store, const struct job_again *again, enum again_outcome *ret,
                  struct error *err)
{
#define X(NAME, word) [AGAIN_##NAME] = (word),
    static const char *const words[] = {STATE_AGAINS(X)};
#undef X
    call_auto struct call call;
    call_init(&call, store, SCRIPT_again, store_partition(store, again->id));
    call_job(&call, again->id);
    call_text(&call, again->req);
    call_u64(&call, again->ttl_ms);
    call_int(&call, again->is_fresh);
    for (uint32_t i = 0; i < again->reset_count; i++)
        call_text(&call, again->reset[i]);
    int word = run_for_word(&call, words, 4, err);
    if (word < 0)
        return word;
    *ret = (enum again_outcome)word;
    return MR_OK;
}

int job_erase(struct store *store, const char *id, enum erase_outcome *ret, struct error *err)
{
#define X(NAME, word) [ERASE_##NAME] = (word),
    static const char *const words[] = {STATE_ERASES(X)};
#undef X
    call_auto struct call call;
    call_init(&call, store, SCRIPT_erase, store_partition(store, id));
    call_job(&call, id);
    call_key(&call, "jobs", NULL);
    int word = run_for_word(&call, words, 3, err);
    if (word < 0)
        return word;
    *ret = (enum erase_outcome)word;
    return MR_OK;
}

int dead_discard(struct store *store, const char *id, bool *ret_done, struct error *err)
{
    call_auto struct call call;
    call_init(&call, store, SCRIPT_discard, store_partition(store, id));
    call_job(&call, id);
    struct reply reply;
    int rc = call_run(&call, 0, &reply, err);
    if (rc != MR_OK)
        return rc;
    *ret_done = reply.type == REPLY_INT && reply.integer > 0;
    reply_done(&reply);
    return MR_OK;
}

/* ---- Lists ---- */

static int by_newest(const void *a, const void *b)
{
    const struct job_listed *x = a, *y = b;
    if (x->at_ms != y->at_ms)
        return x->at_ms < y->at_ms ? 1 : -1;
    return strcmp(y->id, x->id);
}

/* Appends a partition's newest ones before (before_ms, before_id). Members of one time come in
 * descending order of id, and are skipped up to the one that was listed last. */
static int list_partition(struct store *store, const char *kind, uint32_t partition,
                          uint64_t before_ms, const char *before_id, uint32_t max,
                          struct job_listed **items, size_t *count, struct error *err)
{
    char key[STORE_KEY_BYTES], top[24], offset[24], limit[24];
    size_t found = 0;
    store_key(store, partition, kind, NULL, key);
    for (uint64_t skip = 0; found < max; skip += max) {
        snprintf(top, sizeof(top), "%llu", (unsigned long long)before_ms);
        struct arg words[] = {arg_text("ZREVRANGEBYSCORE"),
                              arg_text(key),
                              arg_text(before_ms ? top : "+inf"),
                              arg_text("-inf"),
                              arg_text("WITHSCORES"),
                              arg_text("LIMIT"),
                              arg_int(offset, (int64_t)skip),
                              arg_int(limit, max)};
        struct reply reply;
        int rc = redis_call(store->redis, 8, words, 0, &reply, err);
        if (rc != MR_OK)
            return rc;
        *items = mem_resize(*items, *count + max + 1, sizeof(**items));
        for (size_t i = 0; i + 1 < reply.count && found < max; i += 2) {
            struct job_listed item = {.at_ms = reply_u64(&reply, i + 1)};
            snprintf(item.id, sizeof(item.id), "%s", reply_text(&reply, i));
            if (before_ms && item.at_ms == before_ms &&
                (!before_id || strcmp(item.id, before_id) >= 0))
                continue;
            (*items)[(*count)++] = item;
            found++;
        }
        bool is_end = reply.count < 2 * (size_t)max;
        reply_done(&reply);
        if (is_end)
            break;
    }
    return MR_OK;
}

int job_list(struct store *store, bool dead, uint64_t before_ms, const char *before_id,
             uint32_t max, struct job_listed **ret_items, size_t *ret_count, struct error *err)
{
    struct job_listed *items = NULL;
    size_t count = 0;
    if (max == 0)
        max = 1;
    for (uint32_t partition = 0; partition < store->partitions; partition++) {
        int rc = list_partition(store, dead ? "dead" : "jobs", partition, before_ms, before_id, max,
                                &items, &count, err);
        if (rc != MR_OK) {
            free(items);
            return rc;
        }
    }
    if (count > 0)
        qsort(items, count, sizeof(*items), by_newest);
    *ret_items = items;
    *ret_count = count < max ? count : max;
    return MR_OK;
}

int job_find_listed(struct store *store, bool dead, const char *id, uint64_t *ret_at_ms,
                    struct error *err)
{
    char key[STORE_KEY_BYTES];
    struct reply reply;
    store_key(store, store_partition(store, id), dead ? "dead" : "jobs", NULL, key);
    int rc = redis_command(store->redis, &reply, err, "ZSCORE", key, id, NULL);
    if (rc != MR_OK)
        return rc;
    *ret_at_ms = reply.type == REPLY_TEXT ? text_u64(reply.text, reply.len) : 0;
    reply_done(&reply);
    return MR_OK;
}
