/* The walk of fsck, as a list of passes (fsck_run). Later passes rely on what earlier ones mended:
 * first the keys that belong to no job (another type there would break every script), then the jobs
 * (which make what their lanes lack), then entries and members (of which what no lane names is too
 * much). SCAN, XRANGE and ZSCAN go by pages of FSCK_PAGE, so that Redis is never held for long. */
#include "state/fsck.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "state/fsck_inner.h"
#include <stdio.h>
#include <string.h>

/* ---- The table ---- */

static const struct {
    const char *word, *wrong, *mends;
} kinds[FSCK_KINDS] = {
#define FSCK_ROW(word, wrong, mends) [FSCK_##word] = {#word, wrong, mends},
    FSCK_FINDINGS(FSCK_ROW) FSCK_NOTES(FSCK_ROW)
#undef FSCK_ROW
};

const char *fsck_word(enum fsck_kind kind)
{
    return kinds[kind].word;
}

const char *fsck_wrong(enum fsck_kind kind)
{
    return kinds[kind].wrong;
}

const char *fsck_mends(enum fsck_kind kind)
{
    return kinds[kind].mends;
}

/* ---- Reporting ---- */

void fsck_report(struct fsck *fsck, enum fsck_kind kind, enum fsck_outcome outcome, const char *at,
                 bool is_job, const char *what)
{
    struct fsck_summary *summary = fsck->summary;
    if (fsck_is_note(kind)) {
        summary->notes++;
    } else {
        summary->findings++;
        summary->mended += outcome == FSCK_MENDED;
        summary->left += outcome == FSCK_FOUND || outcome == FSCK_LEFT;
    }
    mem_auto char *plain_at = utf8_plain(at), *plain_what = utf8_plain(what);
    const struct fsck_finding finding = {kind, outcome, plain_at, is_job, plain_what};
    if (fsck->options->on_finding)
        fsck->options->on_finding(fsck->options->arg, &finding);
}

int fsck_report_all(struct fsck *fsck, enum script script, const struct reply *reply, size_t from,
                    enum fsck_outcome outcome, const char *at, bool is_job, struct error *err)
{
    if (reply->type != REPLY_ARRAY || strcmp(reply_text(reply, 0), "OK") != 0)
        return call_surprise(script, reply, err);
    for (size_t i = from; i + 1 < reply->count; i += 2) {
        enum fsck_kind kind = 0;
        while (kind < FSCK_KINDS && strcmp(kinds[kind].word, reply_text(reply, i)) != 0)
            kind++;
        if (kind == FSCK_KINDS)
            return error_set(err, MR_E_INTERNAL, "script %s has a finding \"%.40s\"",
                             script_name(script), reply_text(reply, i));
        fsck_report(fsck, kind, outcome, at, is_job, reply_text(reply, i + 1));
    }
    return MR_OK;
}

enum fsck_outcome fsck_mended(const struct fsck *fsck)
{
    return fsck->options->repair ? FSCK_MENDED : FSCK_FOUND;
}

/* ---- Keys of no job ---- */

/* What fsck_key asks of a key: which TTL (-1 none, 0 any, else at least one) and content. */
static int64_t ttl_of(const struct fsck *fsck, enum fsck_key_kind kind, const char **ret_content)
{
    *ret_content = kind == FSCK_KEY_PAUSED      ? "paused"
                   : kind == FSCK_KEY_REVS      ? "revs"
                   : kind == FSCK_KEY_DEAD_INFO ? "info"
                                                : "";
    switch (kind) {
    case FSCK_KEY_WORKER:
        return (int64_t)(2 * fsck->store->lease_ms);
    case FSCK_KEY_LIMIT:
    case FSCK_KEY_LIMIT_HELD:
    case FSCK_KEY_LIMIT_LOG:
        return 300000;
    case FSCK_KEY_CACHE:
    case FSCK_KEY_WORKERS:
    case FSCK_KEY_DURABLE:
        return 0;
    default:
        return -1;
    }
}

static int check_key(struct fsck *fsck, const struct fsck_key *key, struct error *err)
{
    if (!fsck_key_type(key->kind))
        return MR_OK;
    const char *content;
    int64_t ttl = ttl_of(fsck, key->kind, &content);
    call_auto struct call call;
    call_init(&call, fsck->store, SCRIPT_fsck_key, key->partition);
    call_key_text(&call, key->text);
    mem_auto char *aside = mem_format("key:%.200s", key->rest);
    mem_auto char *listed = mem_format("key %.200s", key->rest);
    if (key->rest[0] && key->kind != FSCK_KEY_WORKER && key->kind != FSCK_KEY_WORKERS) {
        call_key(&call, "quarantine", NULL);
        if (strlen(key->text) + 16 < STORE_KEY_BYTES)
            call_key(&call, "quarantined", aside);
    }
    if (key->kind == FSCK_KEY_QUARANTINE || call.key_count == 2)
        call.key_count = 1; /* cannot be listed in itself: it is deleted */
    call_int(&call, fsck->options->repair);
    call_text(&call, fsck_key_type(key->kind));
    call_int(&call, ttl);
    call_text(&call, content);
    call_text(&call, listed);
    struct reply reply;
    int rc = call_run(&call, 0, &reply, err);
    if (rc != MR_OK)
        return rc;
    rc =
        fsck_report_all(fsck, SCRIPT_fsck_key, &reply, 1, fsck_mended(fsck), key->text, false, err);
    reply_done(&reply);
    return rc;
}

static int keep_key(struct fsck *fsck, struct fsck_key *key, struct error *err)
{
    if (key->kind == FSCK_KEY_UNKNOWN) {
        fsck_report(fsck, FSCK_key_unknown, FSCK_FOUND, key->text, false, "");
        fsck_key_done(key);
        return MR_OK;
    }
    int rc = key->kind == FSCK_KEY_QUARANTINE ? MR_OK : check_key(fsck, key, err);
    if (fsck->key_count == fsck->key_cap) {
        fsck->key_cap = fsck->key_cap ? 2 * fsck->key_cap : 64;
        fsck->keys = mem_resize(fsck->keys, fsck->key_cap, sizeof(*fsck->keys));
    }
    fsck->keys[fsck->key_count++] = *key;
    if (rc == MR_OK && key->kind == FSCK_KEY_REVISION) {
        char revision[65];
        bool is_there;
        const char *sha = strchr(key->text, '{') + sizeof("{rev:") - 1;
        snprintf(revision, sizeof(revision), "%.*s", (int)strcspn(sha, "}"), sha);
        rc = fsck_revision(fsck, revision, NULL, &is_there, err);
    }
    return rc;
}

/* What a damaged installation may lack altogether. */
static int check_version(struct fsck *fsck, struct error *err)
{
    struct store *store = fsck->store;
    char key[STORE_KEY_BYTES], want[64];
    snprintf(key, sizeof(key), "%s:version", store->prefix);
    snprintf(want, sizeof(want), "%s/%u", STATE_VERSION, store->partitions);
    struct reply reply;
    int rc = redis_command(store->redis, &reply, err, "EXISTS", key, NULL);
    if (rc != MR_OK)
        return rc;
    bool is_there = reply.type == REPLY_INT && reply.integer > 0;
    reply_done(&reply);
    if (is_there)
        return MR_OK;
    if (fsck->options->repair) {
        rc = redis_command(store->redis, &reply, err, "SET", key, want, "NX", NULL);
        if (rc != MR_OK)
            return rc;
        reply_done(&reply);
    }
    fsck_report(fsck, FSCK_version_missing, fsck_mended(fsck), key, false, want);
    return MR_OK;
}

/* A prefix that stores jobs for another number of partitions would be taken apart. */
static int check_partitions(struct fsck *fsck, struct error *err)
{
    struct store *store = fsck->store;
    char key[STORE_KEY_BYTES], want[64];
    snprintf(key, sizeof(key), "%s:version", store->prefix);
    snprintf(want, sizeof(want), "%s/%u", STATE_VERSION, store->partitions);
    struct reply reply;
    int rc = redis_command(store->redis, &reply, NULL, "GET", key, NULL);
    if (rc != MR_OK) /* another type: reported below */
        return redis_is_up(store->redis) ? MR_OK
                                         : error_set(err, MR_E_STORE, "Redis does not answer");
    if (reply.type == REPLY_TEXT && strcmp(reply.text, want) != 0) {
        rc = error_set(err, MR_E_SCHEMA,
                       "the keys %s:* in Redis are of version/partitions %.40s, this program's "
                       "are %s",
                       store->prefix, reply.text, want);
        error_hint(err, "another redis.prefix or database, or redis.partitions as before");
    }
    reply_done(&reply);
    return rc;
}

/* ---- Scanning ---- */

static bool is_of_job(enum fsck_key_kind kind)
{
    return kind == FSCK_KEY_JOB || kind == FSCK_KEY_OUT || kind == FSCK_KEY_LOG;
}

/* Outputs or events without their job. */
static int check_left(struct fsck *fsck, const struct fsck_key *key, struct error *err)
{
    call_auto struct call call;
    call_init(&call, fsck->store, SCRIPT_fsck_left, key->partition);
    call_key(&call, "job", key->name);
    call_key_text(&call, key->text);
    call_int(&call, fsck->options->repair);
    struct reply reply;
    int rc = call_run(&call, 0, &reply, err);
    if (rc != MR_OK)
        return rc;
    if (reply.type == REPLY_INT && reply.integer == 1)
        fsck_report(fsck, FSCK_left_over, fsck_mended(fsck), key->text, false, "");
    reply_done(&reply);
    return MR_OK;
}

/* A pass over all keys: `jobs` false: those of no job, else the jobs' own. */
static int scan(struct fsck *fsck, bool jobs, struct error *err)
{
    char cursor[24] = "0";
    mem_auto char *match = mem_format("%s:*", fsck->store->prefix);
    do {
        struct reply reply;
        int rc = redis_command(fsck->store->redis, &reply, err, "SCAN", cursor, "MATCH", match,
                               "COUNT", FSCK_PAGE, NULL);
        if (rc != MR_OK)
            return rc;
        snprintf(cursor, sizeof(cursor), "%s", reply_text(&reply, 0));
        const struct reply *keys = reply_item(&reply, 1);
        for (size_t i = 0; i < keys->count && rc == MR_OK; i++) {
            struct fsck_key key;
            fsck_key_read(fsck->store, reply_text(keys, i), keys->items[i].len, &key);
            if (!jobs && !is_of_job(key.kind)) {
                rc = keep_key(fsck, &key, err);
                continue; /* its text is kept, or done */
            }
            if (jobs && key.kind == FSCK_KEY_JOB)
                rc = fsck_job(fsck, key.name, err);
            else if (jobs && is_of_job(key.kind))
                rc = check_left(fsck, &key, err);
            fsck_key_done(&key);
        }
        reply_done(&reply);
        if (rc != MR_OK)
            return rc;
    } while (strcmp(cursor, "0") != 0);
    return MR_OK;
}

/* ---- The whole ---- */

static int count_quarantine(struct fsck *fsck, struct error *err)
{
    for (uint32_t partition = 0; partition < fsck->store->partitions; partition++) {
        char key[STORE_KEY_BYTES];
        struct reply reply;
        store_key(fsck->store, partition, "quarantine", NULL, key);
        struct error why = {0};
        int rc = redis_command(fsck->store->redis, &reply, &why, "ZCARD", key, NULL);
        if (rc != MR_OK && strstr(why.message, "WRONGTYPE"))
            continue; /* reported */
        if (rc != MR_OK) {
            if (err)
                *err = why;
            return rc;
        }
        fsck->summary->in_quarantine += reply.type == REPLY_INT ? (uint64_t)reply.integer : 0;
        reply_done(&reply);
    }
    return MR_OK;
}

/* Before all others: what is moved aside is listed there. */
static int check_quarantine(struct fsck *fsck, struct error *err)
{
    int rc = MR_OK;
    for (uint32_t partition = 0; partition < fsck->store->partitions && rc == MR_OK; partition++) {
        char text[STORE_KEY_BYTES];
        struct fsck_key key;
        store_key(fsck->store, partition, "quarantine", NULL, text);
        fsck_key_read(fsck->store, text, strlen(text), &key);
        rc = check_key(fsck, &key, err);
        fsck_key_done(&key);
    }
    return rc;
}

static int run(struct fsck *fsck, struct error *err)
{
    int rc = check_partitions(fsck, err);
    if (rc == MR_OK)
        rc = check_quarantine(fsck, err);
    if (rc == MR_OK)
        rc = scan(fsck, false, err);
    if (rc == MR_OK && !fsck->options->is_lenient)
        rc = check_version(fsck, err);
    if (rc == MR_OK)
        rc = scan(fsck, true, err);
    for (size_t i = 0; i < fsck->key_count && rc == MR_OK; i++) {
        const struct fsck_key *key = &fsck->keys[i];
        if (key->kind == FSCK_KEY_QUEUE)
            rc = fsck_stream(fsck, key, err);
        else
            rc = fsck_set(fsck, key, err);
    }
    return rc == MR_OK ? count_quarantine(fsck, err) : rc;
}

int fsck_run(struct store *store, const struct fsck_options *options, struct fsck_summary *ret,
             struct error *err)
{
    *ret = (struct fsck_summary){0};
    struct fsck fsck = {.store = store, .options = options, .summary = ret};
    int rc = run(&fsck, err);
    for (size_t i = 0; i < fsck.key_count; i++)
        fsck_key_done(&fsck.keys[i]);
    free(fsck.keys);
    fsck_job_done(&fsck);
    return rc;
}
