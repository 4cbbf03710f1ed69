/* Entries of queues and members of sets under fsck: read by the page, and each page judged by a
 * script that looks at the entries or members again together with their jobs. */
#include "base/mem.h"
#include "state/fsck_inner.h"
#include <stdio.h>
#include <string.h>

#define ITEMS_MAX 64 /* entries or members a script looks at */

/* ---- Entries ---- */

static const char *field_of(const struct reply *fields, const char *name)
{
    for (size_t i = 0; i + 1 < fields->count; i += 2)
        if (strcmp(reply_text(fields, i), name) == 0)
            return reply_text(fields, i + 1);
    return "";
}

/* An id that a key may be made of. */
static bool id_is_plain(const char *id)
{
    return id[0] && strlen(id) < ID_BYTES && !strpbrk(id, " \n");
}

static int check_entries(struct fsck *fsck, const struct fsck_key *key, const struct reply *rows,
                         size_t from, struct error *err)
{
    call_auto struct call call;
    call_init(&call, fsck->store, SCRIPT_fsck_entry, key->partition);
    call_key_text(&call, key->text);
    call_int(&call, fsck->options->repair);
    call_text(&call, key->name);
    for (size_t i = from; i < rows->count && i < from + ITEMS_MAX; i++) {
        const struct reply *fields = reply_item(&rows->items[i], 1);
        const char *id = field_of(fields, "j"), *lane = field_of(fields, "l");
        bool is_ours = id_is_plain(id) && lane[0] && strspn(lane, "0123456789") == strlen(lane) &&
                       strlen(lane) < 12;
        call_key(&call, "job", is_ours ? id : "-");
        call_text(&call, reply_text(&rows->items[i], 0));
        call_text(&call, is_ours ? id : "");
        call_text(&call, lane);
    }
    struct reply reply;
    int rc = call_run(&call, 0, &reply, err);
    if (rc != MR_OK)
        return rc;
    rc = fsck_report_all(fsck, SCRIPT_fsck_entry, &reply, 1, fsck_mended(fsck), key->text, false,
                         err);
    reply_done(&reply);
    return rc;
}

static int check_stream(struct fsck *fsck, const struct fsck_key *key, struct error *err)
{
    char from[STORE_ENTRY_BYTES + 2] = "-";
    for (bool is_more = true; is_more;) {
        struct reply rows;
        struct error why = {0};
        int rc = redis_command(fsck->store->redis, &rows, &why, "XRANGE", key->text, from, "+",
                               "COUNT", FSCK_PAGE, NULL);
        if (rc != MR_OK && strstr(why.message, "WRONGTYPE"))
            return MR_OK; /* reported before */
        if (rc != MR_OK) {
            if (err)
                *err = why;
            return rc;
        }
        for (size_t i = 0; i < rows.count && rc == MR_OK; i += ITEMS_MAX)
            rc = check_entries(fsck, key, &rows, i, err);
        is_more = rows.count > 0;
        if (is_more)
            snprintf(from, sizeof(from), "(%s", reply_text(&rows.items[rows.count - 1], 0));
        reply_done(&rows);
        if (rc != MR_OK)
            return rc;
    }
    return MR_OK;
}

/* Consumers without registration that hold entries for longer than the next worker would need. */
static int check_consumers(struct fsck *fsck, const struct fsck_key *key, struct error *err)
{
    struct store *store = fsck->store;
    struct reply rows, reply;
    int rc = redis_command(store->redis, &rows, NULL, "XINFO", "CONSUMERS", key->text, STORE_GROUP,
                           NULL);
    if (rc != MR_OK) /* no group: nobody has read it yet */
        return MR_OK;
    for (size_t i = 0; i < rows.count && rc == MR_OK; i++) {
        const struct reply *row = &rows.items[i];
        const char *name = field_of(row, "name");
        uint64_t pending = 0, idle_ms = 0;
        for (size_t k = 0; k + 1 < row->count; k += 2) {
            if (strcmp(reply_text(row, k), "pending") == 0)
                pending = reply_u64(row, k + 1);
            if (strcmp(reply_text(row, k), "idle") == 0)
                idle_ms = reply_u64(row, k + 1);
        }
        if (pending == 0 || idle_ms < 4 * store->lease_ms || strlen(name) > 120)
            continue;
        char worker[STORE_KEY_BYTES];
        store_key(store, key->partition, "worker", name, worker);
        rc = redis_command(store->redis, &reply, err, "EXISTS", worker, NULL);
        if (rc != MR_OK)
            break;
        if (reply.integer == 0) {
            mem_auto char *what =
                mem_format("%llu of %s, which has not been heard of for %llu s",
                           (unsigned long long)pending, name, (unsigned long long)idle_ms / 1000);
            fsck_report(fsck, FSCK_consumer_gone, FSCK_FOUND, key->text, false, what);
        }
        reply_done(&reply);
    }
    reply_done(&rows);
    return rc;
}

int fsck_stream(struct fsck *fsck, const struct fsck_key *key, struct error *err)
{
    int rc = check_stream(fsck, key, err);
    return rc == MR_OK ? check_consumers(fsck, key, err) : rc;
}

/* ---- Members ---- */

/* Cuts a member into the job's id and what else it names. False: none of ours. `l ID N`, `x ID`,
 * `d ID`; `ID` in lists; `FINGERPRINT ID` of a breaker. */
static bool member_cut(const char *set, const char *member, char ret_id[ID_BYTES],
                       const char **ret_more, char *more, size_t more_size)
{
    const char *id = member, *end = member + strlen(member);
    *ret_more = "0";
    if (strcmp(set, "broken") == 0) {
        const char *space = strrchr(member, ' ');
        if (!space)
            return false;
        snprintf(more, more_size, "%.*s", (int)(space - member), member);
        *ret_more = more;
        id = space + 1;
    } else if (strcmp(set, "due") == 0 || strcmp(set, "held") == 0) {
        bool is_lane = member[0] == 'l';
        if (!member[0] || !strchr(strcmp(set, "due") == 0 ? "lxd" : "l", member[0]) ||
            member[1] != ' ')
            return false;
        id = member + 2;
        const char *space = strchr(id, ' ');
        if (is_lane != (space != NULL))
            return false;
        if (space) {
            end = space;
            *ret_more = space + 1;
            size_t digits = strspn(*ret_more, "0123456789");
            if (digits == 0 || digits > 10 || (*ret_more)[digits] != '\0')
                return false;
        }
    }
    size_t len = (size_t)(end - id);
    if (len == 0 || len >= ID_BYTES)
        return false;
    memcpy(ret_id, id, len);
    ret_id[len] = '\0';
    return id_is_plain(ret_id);
}

static int check_members(struct fsck *fsck, const struct fsck_key *key, const char *set,
                         const struct reply *members, size_t from, struct error *err)
{
    call_auto struct call call;
    call_init(&call, fsck->store, SCRIPT_fsck_member, key->partition);
    call_key_text(&call, key->text);
    call_int(&call, fsck->options->repair);
    call_text(&call, set);
    call_text(&call, strcmp(set, "held") == 0 ? key->name : "");
    for (size_t i = from; i + 1 < members->count && i < from + (size_t)2 * ITEMS_MAX; i += 2) {
        const struct reply *member = &members->items[i];
        char id[ID_BYTES];
        char *room = arena_alloc(&call.arena, member->len + 1);
        const char *more = "0", *text = reply_text(members, i);
        if (strcmp(set, "due") == 0 && text[0] == 'f' && text[1] == ' ')
            continue; /* a breaker that has closed: of no job */
        bool is_ours =
            strlen(text) == member->len && member_cut(set, text, id, &more, room, member->len + 1);
        call_key(&call, "job", is_ours ? id : "-");
        call_bytes(&call, text, member->len);
        call_text(&call, is_ours ? arena_ndup(&call.arena, id, strlen(id)) : "");
        call_text(&call, more);
    }
    if (call.key_count == 1)
        return MR_OK;
    struct reply reply;
    int rc = call_run(&call, 0, &reply, err);
    if (rc != MR_OK)
        return rc;
    rc = fsck_report_all(fsck, SCRIPT_fsck_member, &reply, 1, fsck_mended(fsck), key->text, false,
                         err);
    reply_done(&reply);
    return rc;
}

/* The sets whose members stand for jobs. */
static const char *set_of(const struct fsck_key *key)
{
    if (strcmp(key->rest, "dead:held") == 0)
        return "broken";
    switch (key->kind) {
    case FSCK_KEY_DUE:
        return "due";
    case FSCK_KEY_HELD:
        return "held";
    case FSCK_KEY_DEAD:
        return "dead";
    case FSCK_KEY_JOBS:
        return "jobs";
    default:
        return NULL;
    }
}

int fsck_set(struct fsck *fsck, const struct fsck_key *key, struct error *err)
{
    char cursor[24] = "0";
    const char *set = set_of(key);
    if (!set)
        return MR_OK;
    do {
        struct reply reply;
        struct error why = {0};
        int rc = redis_command(fsck->store->redis, &reply, &why, "ZSCAN", key->text, cursor,
                               "COUNT", FSCK_PAGE, NULL);
        if (rc != MR_OK && strstr(why.message, "WRONGTYPE"))
            return MR_OK; /* reported before */
        if (rc != MR_OK) {
            if (err)
                *err = why;
            return rc;
        }
        snprintf(cursor, sizeof(cursor), "%s", reply_text(&reply, 0));
        const struct reply *members = reply_item(&reply, 1);
        for (size_t i = 0; i < members->count && rc == MR_OK; i += (size_t)2 * ITEMS_MAX)
            rc = check_members(fsck, key, set, members, i, err);
        reply_done(&reply);
        if (rc != MR_OK)
            return rc;
    } while (strcmp(cursor, "0") != 0);
    return MR_OK;
}
