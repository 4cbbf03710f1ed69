#include "state/limit.h"
#include "state/inner.h"
#include <stdio.h>
#include <string.h>

#define COOL_MAX_MS 120000u
#define HOLD_MAX_MS 3600000u

static int run(struct store *store, const struct limit_rule *rule, const char *what,
               const char *holder, int64_t tokens, uint64_t hold_ms, uint64_t wait_max_ms,
               struct reply *ret_reply, struct error *err)
{
    char limit[STORE_KEY_BYTES], held[STORE_KEY_BYTES], log[STORE_KEY_BYTES];
    call_auto struct call call;
    call_init(&call, store, SCRIPT_limit, 0);
    /* One slot a limit, whatever partition its jobs are in. */
    snprintf(limit, sizeof(limit), "%s:{limit:%.64s}", store->prefix, rule->name);
    snprintf(held, sizeof(held), "%s:{limit:%.64s}:held", store->prefix, rule->name);
    snprintf(log, sizeof(log), "%s:{limit:%.64s}:log", store->prefix, rule->name);
    call_key_text(&call, limit);
    call_key_text(&call, held);
    call_key_text(&call, log);
    call_text(&call, what);
    call_text(&call, holder);
    call_u64(&call, rule->rpm);
    call_u64(&call, rule->burst ? rule->burst : 1);
    call_u64(&call, rule->tpm);
    call_u64(&call, rule->max_in_flight);
    call_int(&call, tokens);
    call_u64(&call, hold_ms < HOLD_MAX_MS ? hold_ms : HOLD_MAX_MS);
    call_u64(&call, wait_max_ms);
    return call_run(&call, store->ask_ms, ret_reply, err);
}

int limit_take(struct store *store, const struct limit_rule *rule, const char *holder,
               uint32_t tokens, uint64_t hold_ms, uint64_t wait_max_ms, enum limit_outcome *ret,
               uint64_t *ret_wait_ms, struct error *err)
{
    struct reply reply;
    int rc = run(store, rule, "take", holder, tokens, hold_ms, wait_max_ms, &reply, err);
    if (rc != MR_OK)
        return rc;
    bool is_taken = strcmp(reply_text(&reply, 0), "TAKEN") == 0;
    if (is_taken || strcmp(reply_text(&reply, 0), "LATER") == 0) {
        *ret = is_taken ? LIMIT_TAKEN : LIMIT_LATER;
        *ret_wait_ms = reply_u64(&reply, 1);
    } else {
        rc = call_surprise(SCRIPT_limit, &reply, err);
    }
    reply_done(&reply);
    return rc;
}

static int run_for_ok(struct store *store, const struct limit_rule *rule, const char *what,
                      const char *holder, int64_t tokens, uint64_t hold_ms, struct error *err)
{
    struct reply reply;
    int rc = run(store, rule, what, holder, tokens, hold_ms, 0, &reply, err);
    if (rc == MR_OK)
        reply_done(&reply);
    return rc;
}

int limit_release(struct store *store, const struct limit_rule *rule, const char *holder,
                  int64_t tokens, struct error *err)
{
    return run_for_ok(store, rule, "release", holder, tokens, 0, err);
}

int limit_cool(struct store *store, const struct limit_rule *rule, uint64_t ms, struct error *err)
{
    return run_for_ok(store, rule, "cool", "", 0, ms < COOL_MAX_MS ? ms : COOL_MAX_MS, err);
}
