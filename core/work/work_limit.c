/* An endpoint's limits, which hold over all workers: asked for before each request of a task to it,
 * given back afterwards. The runner calls both around the exchange, on the task's fiber, while the
 * stage's clock stands still.
 *
 * A place is waited for at most LIMIT_AWAIT_MS; one that is further off parks the task as
 * throttled, which costs no attempt. A 429 is told to all workers. */
#include "work/work.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "state/limit.h"
#include <stdio.h>
#include <string.h>

#define LIMIT_AWAIT_MS  5000u   /* PLUGINS: a limit is waited for on the fiber for at most 5 s */
#define LIMIT_LOOK_MS   500u    /* between two looks at a full endpoint */
#define LIMIT_KEPT_MS   600000u /* a call of a dead worker counts no longer */
#define LIMIT_COOL_MS   1000u   /* a 429 that names no time */
#define LIMIT_COOL_MAX  120000u
#define LIMIT_TEXT_UNIT 4u   /* bytes of a request a token, about */
#define LIMIT_ANSWER    256u /* tokens of an answer, before it is known */

struct work_ticket {
    struct limit_rule rule;
    char holder[ID_BYTES + 24];
    uint32_t tokens; /* estimated */
};

/* A task that waits for a place: a call of this process that ends wakes the oldest one, and all
 * look again now and then, since calls of other processes end too. */
struct work_place {
    struct work_place *next;
    const char *endpoint;
    struct wait wait;
};

static void work_place_leave(struct worker *worker, const struct work_place *place)
{
    struct work_place **at = &worker->places;
    while (*at != place)
        at = &(*at)->next;
    *at = place->next;
}

static int work_place_wait(struct worker *worker, const char *endpoint, uint64_t most_ms)
{
    struct work_place place = {.endpoint = endpoint}, **end = &worker->places;
    while (*end)
        end = &(*end)->next;
    *end = &place;
    wait_init(&place.wait, &worker->loop);
    uint32_t random;
    hash_random(&random, sizeof random);
    uint64_t look_ms = LIMIT_LOOK_MS / 2 + random % LIMIT_LOOK_MS;
    int rc = wait_for(&place.wait, look_ms < most_ms ? look_ms : most_ms);
    work_place_leave(worker, &place);
    return place.wait.expired ? MR_OK : rc;
}

static void work_place_wake(struct worker *worker, const char *endpoint)
{
    for (struct work_place *place = worker->places; place; place = place->next) {
        if (place->wait.done || strcmp(place->endpoint, endpoint) != 0)
            continue;
        wait_wake(&place->wait, MR_OK);
        return;
    }
}

/* Takes a place, waiting for one at most LIMIT_AWAIT_MS. */
static int work_take(struct worker *worker, const struct work_ticket *ticket, struct error *err)
{
    const struct limit_rule *rule = &ticket->rule;
    uint64_t until_ms = clock_now_ms() + LIMIT_AWAIT_MS;
    for (;;) {
        enum limit_outcome outcome = LIMIT_LATER;
        uint64_t wait_ms = 0, now_ms = clock_now_ms();
        uint64_t rest_ms = until_ms > now_ms ? until_ms - now_ms : 0;
        int rc = limit_take(worker->store, rule, ticket->holder, ticket->tokens, LIMIT_KEPT_MS,
                            rest_ms, &outcome, &wait_ms, err);
        if (rc != MR_OK)
            return rc;
        if (outcome == LIMIT_TAKEN) {
            rc = wait_ms ? wait_sleep(&worker->loop, wait_ms) : MR_OK;
            if (rc == MR_OK)
                return MR_OK;
            wait_shield(1);
            limit_release(worker->store, rule, ticket->holder, -(int64_t)ticket->tokens, NULL);
            wait_shield(-1);
        } else if (!rule->max_in_flight || rest_ms == 0) {
            error_set(err, MR_E_RATE_LIMITED, "the limit of endpoint %s is reached", rule->name);
            err->class = MR_CLASS_THROTTLED;
            err->retry_in_ms = wait_ms ? wait_ms : LIMIT_COOL_MS;
            return MR_E_RATE_LIMITED;
        } else {
            rc = work_place_wait(worker, rule->name, rest_ms);
        }
        if (rc != MR_OK)
            return error_set(err, rc, "while waiting for the limit of endpoint %s: %s", rule->name,
                             error_text(rc));
    }
}

int work_http_begin(void *arg, struct run *run, const struct endpoint *endpoint, size_t body_len,
                    void **ret_ticket, struct error *err)
{
    struct work_lane *lane = run->data;
    struct worker *worker = lane->worker;
    struct limit_rule rule = {0};
    if (!worker->setup->find_limit || !worker->setup->find_limit(arg, endpoint->name, &rule))
        return MR_OK;
    struct work_ticket *ticket = mem_zalloc(sizeof *ticket);
    ticket->rule = rule;
    ticket->tokens = rule.tpm ? (uint32_t)(body_len / LIMIT_TEXT_UNIT) + LIMIT_ANSWER : 0;
    char random[17];
    hash_random_hex(random, 8);
    snprintf(ticket->holder, sizeof ticket->holder, "%s.%s", run->job_id, random);
    int rc = work_take(worker, ticket, err);
    if (rc == MR_OK)
        *ret_ticket = ticket;
    else
        free(ticket);
    return rc;
}

/* What a 429 asks for, in ms: retry-after-ms, else Retry-After in seconds (RFC 9110 section 10.2.3;
 * a date is not worth a clock's trust here). */
static uint64_t work_cooling_ms(const struct http_reply *reply)
{
    const char *ms = http_reply_header(reply, "retry-after-ms"),
               *s = http_reply_header(reply, "retry-after");
    double value = ms ? strtod(ms, NULL) : s ? strtod(s, NULL) * 1000 : 0;
    if (!(value >= 1))
        return LIMIT_COOL_MS;
    return value > LIMIT_COOL_MAX ? LIMIT_COOL_MAX : (uint64_t)value;
}

/* Tokens beyond the estimate, by what the answer says of its usage; 0 when it says nothing. */
static int64_t work_settle(const struct work_ticket *ticket, const struct http_reply *reply)
{
    if (!ticket->rule.tpm || !reply)
        return 0;
    json_hold json_t *answer = json_read(reply->body, reply->body_len, 0, NULL);
    const json_t *usage = json_object_get(answer, "usage");
    int64_t total = usage ? json_int_or(usage, "total_tokens", -1) : -1;
    return total < 0 ? 0 : total - (int64_t)ticket->tokens;
}

void work_http_end(void *arg, struct run *run, void *ticket_of_begin,
                   const struct http_reply *reply)
{
    (void)arg;
    struct work_ticket *ticket = ticket_of_begin;
    if (!ticket)
        return;
    struct worker *worker = ((struct work_lane *)run->data)->worker;
    struct store *store = worker->store;
    struct error err = {0};
    wait_shield(1);
    int rc = limit_release(store, &ticket->rule, ticket->holder, work_settle(ticket, reply), &err);
    work_place_wake(worker, ticket->rule.name);
    if (rc == MR_OK && reply && reply->status == 429)
        rc = limit_cool(store, &ticket->rule, work_cooling_ms(reply), &err);
    wait_shield(-1);
    if (rc != MR_OK)
        log_error("limit could not be settled", &err, "endpoint", ticket->rule.name, NULL);
    free(ticket);
}
