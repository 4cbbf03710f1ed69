/* Why a lane stands where it stands: its entry and who holds it, the workers of its queue, its time
 * among what is due, the jobs that it called. */
#include "base/mem.h"
#include "state/lane.h"
#include "state/why_inner.h"
#include <stdio.h>
#include <string.h>

#define AHEAD_MAX    "1000" /* entries before it are counted up to here */
#define CHILDREN_MAX 16u

/* The lane's text in its parts (docs/protocol.md). */
struct parts {
    char state;
    const char *queue, *class, *entry, *worker, *stages;
    uint64_t crashes, takeovers, refused;
};

static bool read_parts(char *text, struct parts *ret)
{
    const char *words[10] = {0};
    int count = 0;
    for (char *rest = text, *word; count < 10 && (word = strsep(&rest, " "));)
        words[count++] = word;
    if (count < 10 || strlen(words[0]) != 1 || !strchr("qrdh", words[0][0]) ||
        strlen(words[1]) >= STORE_NAME_BYTES || strlen(words[3]) >= STORE_ENTRY_BYTES ||
        strlen(words[5]) > 120 || queue_class_find(words[2]) == QUEUE_CLASSES)
        return false;
    *ret = (struct parts){.state = words[0][0],
                          .queue = words[1],
                          .class = words[2],
                          .entry = words[3],
                          .worker = words[5],
                          .stages = words[9],
                          .crashes = text_u64(words[6], strnlen(words[6], 9)),
                          .takeovers = text_u64(words[7], strnlen(words[7], 9)),
                          .refused = text_u64(words[8], strnlen(words[8], 9))};
    return true;
}

static void set_text(json_t *detail, const char *name, const char *text)
{
    json_object_set_new(detail, name, why_text(text));
}

static void set_number(json_t *detail, const char *name, uint64_t number)
{
    json_object_set_new(detail, name, json_integer((json_int_t)number));
}

/* ---- Workers ---- */

struct workers {
    uint32_t live;  /* that serve the queue */
    uint64_t slots; /* of them */
    uint64_t busy;  /* of their slots */
    bool is_told;   /* all of them have said what they serve */
    json_t *names;
};

static bool serves(const char *queues, const char *queue)
{
    size_t len = strlen(queue);
    for (const char *at = queues; (at = strstr(at, queue)); at += len)
        if ((at == queues || at[-1] == ',') && (at[len] == ',' || at[len] == '\0'))
            return true;
    return false;
}

static int ask_workers(struct why *why, const char *queue, struct workers *ret, struct error *err)
{
    struct store *store = why->store;
    char key[STORE_KEY_BYTES], now[24];
    struct reply names, row;
    *ret = (struct workers){.is_told = true, .names = json_array()};
    snprintf(now, sizeof(now), "%llu", (unsigned long long)why->now_ms);
    store_key(store, why->partition, "workers", NULL, key);
    int rc = redis_command(store->redis, &names, err, "ZRANGEBYSCORE", key, now, "+inf", NULL);
    if (rc != MR_OK)
        return rc;
    for (size_t i = 0; i < names.count && rc == MR_OK; i++) {
        const char *name = reply_text(&names, i);
        if (strlen(name) > 120)
            continue;
        store_key(store, why->partition, "worker", name, key);
        rc = redis_command(store->redis, &row, err, "HMGET", key, "instance", "queues", "slots",
                           "busy", NULL);
        if (rc != MR_OK)
            break;
        bool has_told = reply_text(&row, 1)[0] != '\0';
        if (reply_text(&row, 0)[0] && (!has_told || serves(reply_text(&row, 1), queue))) {
            ret->is_told = ret->is_told && has_told;
            ret->live++;
            ret->slots += reply_u64(&row, 2);
            ret->busy += reply_u64(&row, 3);
            json_array_append_new(ret->names, why_text(name));
        }
        reply_done(&row);
    }
    reply_done(&names);
    return rc;
}

static int is_registered(struct why *why, const char *worker, bool *ret, struct error *err)
{
    char key[STORE_KEY_BYTES];
    struct reply reply;
    store_key(why->store, why->partition, "worker", worker, key);
    int rc = redis_command(why->store->redis, &reply, err, "EXISTS", key, NULL);
    if (rc != MR_OK)
        return rc;
    *ret = reply.integer > 0;
    reply_done(&reply);
    return MR_OK;
}

/* ---- Queued ---- */

/* The last id that the group of a stream was given; "0-0" without one. */
static void read_up_to(struct why *why, const char *stream, char ret[STORE_ENTRY_BYTES])
{
    struct reply groups;
    snprintf(ret, STORE_ENTRY_BYTES, "0-0");
    if (redis_command(why->store->redis, &groups, NULL, "XINFO", "GROUPS", stream, NULL) != MR_OK)
        return;
    for (size_t i = 0; i < groups.count; i++)
        for (size_t k = 0; k + 1 < groups.items[i].count; k += 2)
            if (strcmp(reply_text(&groups.items[i], k), "last-delivered-id") == 0)
                snprintf(ret, STORE_ENTRY_BYTES, "%s", reply_text(&groups.items[i], k + 1));
    reply_done(&groups);
}

/* Entries that wait before `entry` in its class, and in the classes that are read before. */
static int count_ahead(struct why *why, const struct parts *lane, uint64_t *ret, struct error *err)
{
    struct store *store = why->store;
    *ret = 0;
    for (enum queue_class class = 0; class <= queue_class_find(lane->class); class ++) {
        char key[STORE_KEY_BYTES], read[STORE_ENTRY_BYTES];
        char from[STORE_ENTRY_BYTES + 1], to[STORE_ENTRY_BYTES + 1];
        struct reply rows;
        store_queue_key(store, why->partition, lane->queue, class, key);
        read_up_to(why, key, read);
        snprintf(from, sizeof(from), "(%s", read);
        bool is_own = class == queue_class_find(lane->class);
        snprintf(to, sizeof(to), "%s%s", is_own ? "(" : "", is_own ? lane->entry : "+");
        int rc = redis_command(store->redis, &rows, err, "XRANGE", key, from, to, "COUNT",
                               AHEAD_MAX, NULL);
        if (rc != MR_OK)
            return rc;
        *ret += rows.count;
        reply_done(&rows);
    }
    return MR_OK;
}

/* Who holds the lane's entry: the consumer's name ("" nobody) and for how long without renewing. */
static int ask_holder(struct why *why, const struct parts *lane, char ret_worker[128],
                      uint64_t *ret_idle_ms, bool *ret_there, struct error *err)
{
    struct store *store = why->store;
    char key[STORE_KEY_BYTES];
    struct reply reply;
    *ret_idle_ms = 0;
    ret_worker[0] = '\0';
    store_queue_key(store, why->partition, lane->queue, queue_class_find(lane->class), key);
    int rc =
        redis_command(store->redis, &reply, err, "XRANGE", key, lane->entry, lane->entry, NULL);
    if (rc != MR_OK)
        return rc;
    *ret_there = reply.count == 1;
    reply_done(&reply);
    if (redis_command(store->redis, &reply, NULL, "XPENDING", key, STORE_GROUP, lane->entry,
                      lane->entry, "1", NULL) != MR_OK)
        return MR_OK; /* no group: nobody has read it */
    if (reply.count == 1) {
        snprintf(ret_worker, 128, "%s", reply_text(&reply.items[0], 1));
        *ret_idle_ms = reply_u64(&reply.items[0], 2);
    }
    reply_done(&reply);
    return MR_OK;
}

static int queued(struct why *why, const struct parts *lane, struct why_said *said,
                  struct error *err)
{
    struct workers workers = {0};
    uint64_t ahead = 0;
    int rc = count_ahead(why, lane, &ahead, err);
    if (rc == MR_OK)
        rc = ask_workers(why, lane->queue, &workers, err);
    if (rc != MR_OK) {
        json_decref(workers.names);
        return rc;
    }
    said->reason = workers.live == 0 ? WHY_no_worker
                   : workers.is_told && workers.slots > 0 && workers.busy >= workers.slots
                       ? WHY_queue_full
                       : WHY_queued;
    set_number(said->detail, "ahead", ahead);
    set_number(said->detail, "slots", workers.slots);
    set_number(said->detail, "busy", workers.busy);
    json_object_set_new(said->detail, "workers", workers.names);
    return MR_OK;
}

/* In q or r: in its queue, or held by a worker that lives, or by one that does not. */
static int in_stream(struct why *why, const struct parts *lane, struct why_said *said,
                     struct error *err)
{
    char worker[128];
    uint64_t idle_ms = 0;
    bool is_there = false, is_live = false;
    int rc = ask_holder(why, lane, worker, &idle_ms, &is_there, err);
    if (rc != MR_OK)
        return rc;
    set_text(said->detail, "queue", lane->queue);
    set_text(said->detail, "class", lane->class);
    if (!is_there || (lane->state == 'r' && !worker[0])) {
        said->reason = WHY_damaged;
        return MR_OK;
    }
    if (!worker[0])
        return queued(why, lane, said, err);
    rc = is_registered(why, worker, &is_live, err);
    if (rc != MR_OK)
        return rc;
    set_text(said->detail, "worker", worker);
    set_number(said->detail, "renewed_ms_ago", idle_ms);
    uint64_t lease_ms = why->store->lease_ms;
    said->reason = lane->state == 'r' ? WHY_running : WHY_claimed;
    if (!is_live || idle_ms > lease_ms + lease_ms / 2) {
        said->reason = WHY_worker_gone;
        said->until_ms = why->now_ms + (idle_ms < lease_ms ? lease_ms - idle_ms : 0);
    }
    return MR_OK;
}

/* ---- Calls ---- */

/* The jobs that the lane's stages have called; WHY_calling when one of them has not ended. */
static int ask_children(struct why *why, const struct parts *lane, struct why_said *said,
                        struct error *err)
{
    json_hold json_t *children = json_array();
    bool is_waiting = false;
    mem_auto char *stages = mem_dup(lane->stages);
    char *rest = stages;
    for (char *stage; (stage = strsep(&rest, ","));) {
        mem_auto char *field = mem_format("calls:%.60s", stage);
        mem_auto char *noted = mem_dup(why_field(why, field));
        char *lines = noted;
        for (char *line; (line = strsep(&lines, "\n"));) {
            size_t len = strcspn(line, " ");
            json_t *child = NULL;
            enum why_reason reason = WHY_running;
            if (len == 0 || len >= ID_BYTES || json_array_size(children) >= CHILDREN_MAX)
                continue;
            line[len] = '\0';
            int rc = why_child(why, line, &child, &reason, err);
            if (rc != MR_OK)
                return rc;
            if (!child)
                continue;
            is_waiting = is_waiting || reason == WHY_not_found || reason >= WHY_cancelling ||
                         reason == WHY_failed_retry || reason == WHY_failed_budget;
            json_array_append_new(children, child);
        }
    }
    if (is_waiting && said->reason == WHY_running)
        said->reason = WHY_calling;
    if (json_array_size(children) > 0)
        json_object_set(said->detail, "children", children);
    return MR_OK;
}

/* ---- Due and held ---- */

/* What the log says last of an attempt of this stage: `{"stage","attempt","error","throttled",…}`;
 * NULL: nothing. */
static json_t *last_retry(struct why *why, const char *stage)
{
    char key[STORE_KEY_BYTES];
    struct reply rows;
    json_t *found = NULL;
    store_key(why->store, why->partition, "log", why->id, key);
    if (redis_command(why->store->redis, &rows, NULL, "LRANGE", key, "-50", "-1", NULL) != MR_OK)
        return NULL;
    for (size_t i = rows.count; i-- > 0 && !found;) {
        const char *text = reply_text(&rows, i), *body = strchr(text, '{');
        if (strncmp(text, "stage.retrying ", 15) != 0 || !body)
            continue;
        found = json_read(body, strlen(body), 0, NULL);
        if (strcmp(json_text_or(found, "stage", ""), stage) != 0) {
            json_decref(found);
            found = NULL;
        }
    }
    reply_done(&rows);
    return found;
}

/* Whether the job's revision is in Redis, for those that do not have it. */
static int has_revision(struct why *why, bool *ret, struct error *err)
{
    char key[STORE_KEY_BYTES];
    struct reply reply;
    const char *revision = why_field(why, "rev");
    *ret = true;
    if (!revision[0])
        return MR_OK;
    snprintf(key, sizeof(key), "%s:{rev:%.64s}", why->store->prefix, revision);
    int rc = redis_command(why->store->redis, &reply, err, "EXISTS", key, NULL);
    if (rc != MR_OK)
        return rc;
    *ret = reply.integer > 0;
    reply_done(&reply);
    return MR_OK;
}

static int due(struct why *why, const struct parts *lane, struct why_said *said, struct error *err)
{
    char stage[STORE_STAGE_BYTES];
    snprintf(stage, sizeof(stage), "%.*s", (int)strcspn(lane->stages, ","), lane->stages);
    said->until_ms = text_u64(lane->entry, strlen(lane->entry));
    set_text(said->detail, "queue", lane->queue);
    if (lane->refused > 0) {
        bool is_there = true;
        int rc = has_revision(why, &is_there, err);
        said->reason = is_there ? WHY_due_parked : WHY_revision_unknown;
        set_number(said->detail, "times", lane->refused);
        return rc;
    }
    json_hold json_t *retry = last_retry(why, stage);
    said->reason = !retry                                              ? WHY_due_delayed
                   : json_is_true(json_object_get(retry, "throttled")) ? WHY_due_throttled
                                                                       : WHY_due_retry;
    if (retry) {
        json_object_set(said->detail, "attempts", json_object_get(retry, "attempt"));
        json_object_set(said->detail, "error", json_object_get(retry, "error"));
    }
    return MR_OK;
}

/* What the due set or the held one has of it. */
static int check_member(struct why *why, const char *number, const struct parts *lane,
                        struct why_said *said, struct error *err)
{
    char key[STORE_KEY_BYTES];
    struct reply reply;
    mem_auto char *member = mem_format("l %s %.10s", why->id, number);
    if (strlen(why->pipeline) >= STORE_NAME_BYTES) {
        said->reason = WHY_damaged;
        return MR_OK;
    }
    if (lane->state == 'd')
        store_key(why->store, why->partition, "due", NULL, key);
    else
        store_key(why->store, why->partition, "held", why->pipeline, key);
    int rc = redis_command(why->store->redis, &reply, err, "ZSCORE", key, member, NULL);
    if (rc != MR_OK)
        return rc;
    if (reply.type != REPLY_TEXT || (lane->state == 'h' && !why->paused[0]))
        said->reason = WHY_damaged;
    reply_done(&reply);
    return MR_OK;
}

int why_lane(struct why *why, const char *number, const char *text, struct why_said *said,
             const char **ret_stages, char **ret_copy, struct error *err)
{
    struct parts lane;
    *ret_copy = mem_dup(text);
    said->reason = WHY_damaged;
    if (!read_parts(*ret_copy, &lane))
        return MR_OK;
    *ret_stages = lane.stages;
    if (lane.crashes)
        set_number(said->detail, "crashes", lane.crashes);
    if (lane.takeovers)
        set_number(said->detail, "takeovers", lane.takeovers);
    int rc = MR_OK;
    if (lane.state == 'd') {
        rc = due(why, &lane, said, err);
        if (rc == MR_OK)
            rc = check_member(why, number, &lane, said, err);
    } else if (lane.state == 'h') {
        said->reason = strcmp(why->paused, "0") == 0 ? WHY_resuming : WHY_held;
        rc = check_member(why, number, &lane, said, err);
    } else {
        rc = in_stream(why, &lane, said, err);
        if (rc == MR_OK)
            rc = ask_children(why, &lane, said, err);
    }
    if (rc == MR_OK && strcmp(lane.stages, "$after") == 0 && said->reason != WHY_damaged &&
        said->reason != WHY_no_worker)
        said->reason = WHY_follow_up;
    return rc;
}
