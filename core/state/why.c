/* Why a job stands where it stands: the job itself. An ended one is told by its hash; of one that
 * has not ended each lane is asked (why_lane.c), and the reason that stands most in the way, by the
 * order of the table, is the job's. */
#include "state/why.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/unit.h"
#include "base/utf8.h"
#include "state/why_inner.h"
#include <stdio.h>
#include <string.h>

static const struct {
    const char *word, *sentence;
} reasons[WHY_REASON_COUNT] = {
#define WHY_ROW(word, sentence) [WHY_##word] = {#word, sentence},
    WHY_REASONS(WHY_ROW)
#undef WHY_ROW
};

const char *why_word(enum why_reason reason)
{
    return reasons[reason].word;
}

const char *why_sentence(enum why_reason reason)
{
    return reasons[reason].sentence;
}

/* ---- Reading ---- */

/* Places in the reply of the script. */
enum {
    W_NOW,
    W_TYPE,
    W_FIELDS,
    W_QUARANTINED,
    W_PAUSED,
    W_DEAD,
    W_MINUTE,
    W_COUNT,
    W_FAILURES,
    W_TTL
};

const char *why_field(const struct why *why, const char *name)
{
    for (size_t i = 0; i + 1 < why->fields->count; i += 2)
        if (strcmp(reply_text(why->fields, i), name) == 0)
            return reply_text(why->fields, i + 1);
    return "";
}

uint64_t why_number(const struct why *why, const char *name)
{
    const char *text = why_field(why, name);
    return text_u64(text, strnlen(text, 19));
}

json_t *why_time(uint64_t ms)
{
    char text[25];
    clock_format(ms, text);
    return ms ? json_string(text) : json_null();
}

json_t *why_text(const char *text)
{
    mem_auto char *plain = utf8_plain(text);
    return json_string(plain);
}

static int read_job(struct why *why, struct error *err)
{
    call_auto struct call call;
    call_init(&call, why->store, SCRIPT_why, why->partition);
    call_key(&call, "job", why->id);
    call_key(&call, "quarantine", NULL);
    call_key(&call, "paused", NULL);
    call_key(&call, "dead", NULL);
    call_key(&call, "dead:info", NULL);
    call_text(&call, why->id);
    int rc = call_run(&call, 0, &why->reply, err);
    if (rc != MR_OK)
        return rc;
    why->now_ms = reply_u64(&why->reply, W_NOW);
    why->fields = reply_item(&why->reply, W_FIELDS);
    why->pipeline = why_field(why, "pipeline");
    why->status = why_field(why, "status");
    why->stop = why_field(why, "stop");
    why->paused = reply_text(&why->reply, W_PAUSED);
    why->is_ended = strcmp(why->status, "completed") == 0 || strcmp(why->status, "failed") == 0 ||
                    strcmp(why->status, "cancelled") == 0;
    return MR_OK;
}

/* ---- Ended ---- */

static void add_error(const struct why *why, json_t *detail)
{
    const char *error = why_field(why, "error");
    json_t *value = error[0] ? json_read(error, strlen(error), 0, NULL) : NULL;
    if (value)
        json_object_set_new(detail, "error", value);
}

/* Which of the failures it is. */
static enum why_reason failed(const struct why *why, uint64_t *ret_until_ms)
{
    const struct reply *reply = &why->reply;
    const char *class = why_field(why, "class");
    uint64_t next_ms = why_number(why, "next");
    if (next_ms > 0) {
        bool is_full = reply_u64(reply, W_MINUTE) == why->now_ms / 60000 &&
                       reply_u64(reply, W_COUNT) >= why->store->dead_budget;
        *ret_until_ms = next_ms;
        return is_full && next_ms < why->now_ms + 60000 ? WHY_failed_budget : WHY_failed_retry;
    }
    if (strcmp(why->stop, "deadline") == 0)
        return WHY_failed_deadline;
    if (strcmp(class, "crash") == 0)
        return WHY_failed_poison;
    if (why_field(why, "discarded")[0])
        return WHY_failed_discarded;
    if (why_field(why, "held")[0] ||
        (strcmp(class, "retry") == 0 && reply_u64(reply, W_FAILURES) >= why->store->dead_breaker))
        return WHY_failed_breaker;
    return strcmp(class, "retry") == 0 ? WHY_failed_exhausted : WHY_failed_permanent;
}

static int ended(struct why *why, struct why_said *said, struct error *err)
{
    const struct reply *ttl = reply_item(&why->reply, W_TTL);
    json_t *detail = said->detail;
    json_object_set_new(detail, "finished_at", why_time(why_number(why, "finished")));
    if (ttl->type == REPLY_INT && ttl->integer > 0)
        json_object_set_new(detail, "expires_at", why_time(why->now_ms + (uint64_t)ttl->integer));
    if (strcmp(why->status, "cancelled") == 0) {
        said->reason = WHY_cancelled;
    } else if (strcmp(why->status, "failed") == 0) {
        said->reason = failed(why, &said->until_ms);
        add_error(why, detail);
        const char *fingerprint = why_field(why, "fp");
        if (fingerprint[0])
            json_object_set_new(detail, "fingerprint", why_text(fingerprint));
        json_object_set_new(detail, "is_dead_letter",
                            json_boolean(reply_text(&why->reply, W_DEAD)[0] != '\0'));
        json_object_set_new(detail, "automatic_runs",
                            json_integer((json_int_t)why_number(why, "tries")));
    } else {
        char key[STORE_KEY_BYTES];
        struct reply reply;
        store_key(why->store, why->partition, "log", why->id, key);
        int rc = redis_command(why->store->redis, &reply, err, "EXISTS", key, NULL);
        if (rc != MR_OK)
            return rc;
        said->reason = reply.integer ? WHY_completed : WHY_completed_expired;
        reply_done(&reply);
    }
    return MR_OK;
}

/* ---- Lanes ---- */

static json_t *words(const char *list)
{
    json_t *array = json_array();
    mem_auto char *copy = mem_dup(list);
    char *rest = copy;
    for (char *word; (word = strsep(&rest, ","));)
        if (*word)
            json_array_append_new(array, why_text(word));
    return array;
}

static json_t *said_object(const struct why_said *said)
{
    json_t *object = json_object();
    json_object_set_new(object, "reason", json_string(why_word(said->reason)));
    json_object_set_new(object, "sentence", json_string(why_sentence(said->reason)));
    json_object_set_new(object, "until", why_time(said->until_ms));
    json_object_set(object, "detail", said->detail);
    return object;
}

/* Asks each lane; `worst` becomes the one that stands most in the way. */
static int ask_lanes(struct why *why, json_t *lanes, struct why_said *worst, struct error *err)
{
    for (size_t i = 0; i + 1 < why->fields->count; i += 2) {
        const char *name = reply_text(why->fields, i);
        if (strncmp(name, "l:", 2) != 0)
            continue;
        struct why_said said = {.detail = json_object()};
        const char *stages = "";
        mem_auto char *copy = NULL;
        int rc =
            why_lane(why, name + 2, reply_text(why->fields, i + 1), &said, &stages, &copy, err);
        if (rc != MR_OK) {
            json_decref(said.detail);
            return rc;
        }
        json_t *object = json_object();
        json_object_set_new(object, "lane",
                            json_integer((json_int_t)text_u64(name + 2, strnlen(name + 2, 9))));
        json_object_set_new(object, "stages", words(stages));
        json_hold json_t *rest = said_object(&said);
        json_object_update(object, rest);
        json_array_append_new(lanes, object);
        if (json_array_size(lanes) == 1 || said.reason < worst->reason) {
            worst->reason = said.reason;
            worst->until_ms = said.until_ms;
        }
        json_decref(said.detail);
    }
    return MR_OK;
}

/* Stages whose needs are done in part: by the source of the revision, when it is there. */
static int ask_joins(struct why *why, json_t *lanes, struct error *err)
{
    const char *revision = why_field(why, "rev");
    mem_auto char *text = NULL;
    size_t len = 0;
    if (strlen(revision) != 64)
        return MR_OK;
    int rc = revision_get(why->store, revision, &text, &len, err);
    json_hold json_t *root = rc == MR_OK && text ? json_read(text, len, 0, NULL) : NULL;
    const json_t *stages = json_object_get(root, "stages");
    for (size_t i = 0; i < json_array_size(stages); i++) {
        const json_t *stage = json_array_get(stages, i), *needs = json_object_get(stage, "needs");
        const char *name = json_text_or(stage, "name", "");
        mem_auto char *field = mem_format("s:%.60s", name);
        if (why_field(why, field)[0] || json_array_size(needs) < 2)
            continue;
        json_hold json_t *open = json_array();
        size_t done = 0;
        for (size_t n = 0; n < json_array_size(needs); n++) {
            const char *need = json_string_value(json_array_get(needs, n));
            mem_auto char *record = mem_format("s:%.60s", need ? need : "");
            char state = why_field(why, record)[0];
            done += state == 'd' || state == 's';
            if (state != 'd' && state != 's')
                json_array_append_new(open, json_string(need ? need : ""));
        }
        if (done == 0)
            continue;
        json_array_append_new(lanes, json_pack("{s:n, s:[s], s:s, s:s, s:n, s:{s:O}}", "lane",
                                               "stages", name, "reason", why_word(WHY_joining),
                                               "sentence", why_sentence(WHY_joining), "until",
                                               "detail", "waits_for", open));
    }
    return rc;
}

/* ---- The job ---- */

static int open_job(struct why *why, json_t *lanes, struct why_said *said, struct error *err)
{
    said->reason = WHY_damaged; /* without a lane it would wait for ever */
    int rc = ask_lanes(why, lanes, said, err);
    if (rc != MR_OK)
        return rc;
    bool is_stuck = said->reason >= WHY_damaged && said->reason <= WHY_worker_gone;
    if (!is_stuck && strcmp(why->stop, "cancelled") == 0)
        said->reason = WHY_cancelling;
    else if (!is_stuck && strcmp(why->stop, "deadline") == 0)
        said->reason = WHY_deadline_passed;
    else if (!is_stuck && why->stop[0])
        said->reason = WHY_failing;
    if (why->stop[0])
        said->until_ms = 0;
    if (why->stop[0])
        json_object_set_new(said->detail, "stop", why_text(why->stop));
    if (why_number(why, "deadline"))
        json_object_set_new(said->detail, "deadline", why_time(why_number(why, "deadline")));
    add_error(why, said->detail);
    return why->stop[0] ? MR_OK : ask_joins(why, lanes, err);
}

static int ask_job(struct why *why, json_t *lanes, struct why_said *said, struct error *err)
{
    const struct reply *quarantined = reply_item(&why->reply, W_QUARANTINED);
    if (!why->pipeline[0] && !why->status[0] && quarantined->type == REPLY_TEXT) {
        said->reason = WHY_quarantined;
        json_object_set_new(said->detail, "since",
                            why_time(text_u64(quarantined->text, quarantined->len)));
        char key[STORE_KEY_BYTES];
        struct reply reply;
        store_key(why->store, why->partition, "quarantined", why->id, key);
        if (redis_command(why->store->redis, &reply, NULL, "HGET", key, "quarantine", NULL) ==
            MR_OK) {
            json_object_set_new(said->detail, "why", why_text(reply.text ? reply.text : ""));
            reply_done(&reply);
        }
        return MR_OK;
    }
    if (strcmp(reply_text(&why->reply, W_TYPE), "none") == 0)
        return MR_OK;
    if (why_field(why, "tomb")[0] && !why->status[0]) {
        const struct reply *ttl = reply_item(&why->reply, W_TTL);
        said->reason = WHY_tombstone;
        if (ttl->type == REPLY_INT && ttl->integer > 0)
            said->until_ms = why->now_ms + (uint64_t)ttl->integer;
        return MR_OK;
    }
    said->reason = WHY_damaged;
    if (!why->pipeline[0] || !why->status[0])
        return MR_OK;
    if (!why->is_ended)
        return open_job(why, lanes, said, err);
    struct why_said worst = {.reason = WHY_running};
    int rc = ask_lanes(why, lanes, &worst, err);
    return rc == MR_OK ? ended(why, said, err) : rc;
}

static int ask(struct store *store, const char *id, unsigned depth, struct why_answer *ret,
               struct error *err)
{
    struct why why = {
        .store = store, .id = id, .partition = store_partition(store, id), .depth = depth};
    int rc = read_job(&why, err);
    if (rc != MR_OK)
        return rc;
    struct why_said said = {.reason = WHY_not_found, .detail = json_object()};
    json_hold json_t *lanes = json_array();
    rc = ask_job(&why, lanes, &said, err);
    if (rc == MR_OK) {
        *ret = (struct why_answer){.reason = said.reason, .until_ms = said.until_ms};
        ret->object = json_pack("{s:o, s:o, s:o}", "id", why_text(id), "pipeline",
                                why.pipeline[0] ? why_text(why.pipeline) : json_null(), "status",
                                why.status[0] ? why_text(why.status) : json_null());
        json_hold json_t *rest = said_object(&said);
        json_object_update(ret->object, rest);
        json_object_set(ret->object, "lanes", lanes);
    }
    json_decref(said.detail);
    reply_done(&why.reply);
    return rc;
}

int why_child(const struct why *why, const char *id, json_t **ret, enum why_reason *ret_reason,
              struct error *err)
{
    struct why_answer answer;
    *ret = NULL;
    *ret_reason = WHY_running;
    if (why->depth >= WHY_DEPTH_MAX)
        return MR_OK;
    int rc = ask(why->store, id, why->depth + 1, &answer, err);
    if (rc != MR_OK)
        return rc;
    *ret = answer.object;
    *ret_reason = answer.reason;
    return MR_OK;
}

int why_job(struct store *store, const char *id, struct why_answer *ret, struct error *err)
{
    if (strlen(id) >= ID_BYTES)
        return error_set(err, MR_E_SCHEMA, "\"%.60s\" is no id of a job", id);
    return ask(store, id, 0, ret, err);
}

void why_done(struct why_answer *answer)
{
    json_decref(answer->object);
    *answer = (struct why_answer){0};
}
