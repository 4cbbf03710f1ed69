/* One job under fsck: the script fsck_job with what it cannot know by itself: the graph of the
 * job's revision (from its source in Redis) and the digest of its input. */
#include "base/hash.h"
#include "base/json.h"
#include "base/limits.h"
#include "state/fsck_inner.h"
#include <stdio.h>
#include <string.h>

#define TURNS_MAX 3 /* repairs of one job: what one of them uncovers the next one mends */

/* Places in the script's reply. */
enum { AT_WORD, AT_REVISION, AT_ENDED, AT_QUARANTINED, AT_FIRST };

/* ---- Revisions ---- */

static char *needs_of(const json_t *stages, size_t index)
{
    const json_t *needs = json_object_get(json_array_get(stages, index), "needs");
    if (!json_is_array(needs)) /* a stage follows the one above it */
        return mem_dup(index > 0 ? json_text_or(json_array_get(stages, index - 1), "name", "")
                                 : "");
    struct buf buf;
    buf_init(&buf, LIMIT_STAGES * STORE_STAGE_BYTES);
    for (size_t i = 0; i < json_array_size(needs); i++) {
        const char *name = json_string_value(json_array_get(needs, i));
        buf_format(&buf, "%s%s", i > 0 ? "," : "", name ? name : "");
    }
    char *text = mem_dup(buf_text(&buf));
    buf_done(&buf);
    return text;
}

static void read_source(struct fsck_graph *graph, const char *text, size_t len)
{
    json_hold json_t *root = json_read(text, len, 0, NULL);
    const json_t *stages = json_object_get(root, "stages");
    size_t count = json_array_size(stages);
    if (count == 0 || count > LIMIT_STAGES)
        return;
    graph->is_there = true;
    graph->count = (uint32_t)count;
    graph->rows = mem_zalloc(count * sizeof(*graph->rows));
    for (size_t i = 0; i < count; i++) {
        const json_t *stage = json_array_get(stages, i);
        graph->rows[i][0] = mem_dup(json_text_or(stage, "name", ""));
        graph->rows[i][1] = mem_dup(json_text_or(stage, "queue", "default"));
        graph->rows[i][2] = needs_of(stages, i);
    }
}

static struct fsck_graph *graph_new(struct fsck *fsck, const char *revision)
{
    struct fsck_graph *graph = mem_zalloc(sizeof(*graph));
    graph->revision = mem_dup(revision);
    graph->next = fsck->graphs;
    fsck->graphs = graph;
    return graph;
}

/* Stores a revision that is not in Redis, when it is elsewhere; reports. */
static int revision_mend(struct fsck *fsck, const char *revision, struct fsck_graph *graph,
                         struct error *err)
{
    const struct fsck_options *options = fsck->options;
    const char *name = NULL;
    size_t len = 0;
    mem_auto char *text =
        options->find_source ? options->find_source(options->arg, revision, &len, &name) : NULL;
    enum fsck_outcome outcome = options->repair ? FSCK_LEFT : FSCK_FOUND;
    if (text && options->repair) {
        int rc = revision_put(fsck->store, name, revision, text, len, err);
        if (rc != MR_OK)
            return rc;
        outcome = FSCK_MENDED;
    }
    if (text && graph)
        read_source(graph, text, len);
    fsck_report(fsck, FSCK_revision_gone, outcome, revision, false,
                text ? "the configuration has it" : "nor do the configuration's pipelines have it");
    return MR_OK;
}

int fsck_revision(struct fsck *fsck, const char *revision, struct fsck_graph *graph,
                  bool *ret_there, struct error *err)
{
    mem_auto char *text = NULL;
    char hex[HASH_HEX_BYTES];
    size_t len = 0;
    int rc = revision_get(fsck->store, revision, &text, &len, err);
    *ret_there = true;
    if (rc == MR_E_STORE && redis_is_up(fsck->store->redis))
        return MR_OK; /* another type: reported, and deleted by the repair */
    if (rc != MR_OK)
        return rc;
    *ret_there = text != NULL;
    if (!text)
        return MR_OK;
    hash_text(text, len, hex);
    if (strcmp(hex, revision) == 0 || fsck->options->is_lenient) {
        if (graph)
            read_source(graph, text, len);
        return MR_OK;
    }
    if (fsck->options->repair) {
        char key[STORE_KEY_BYTES];
        struct reply reply;
        snprintf(key, sizeof(key), "%s:{rev:%.64s}", fsck->store->prefix, revision);
        rc = redis_command(fsck->store->redis, &reply, err, "DEL", key, NULL);
        if (rc != MR_OK)
            return rc;
        reply_done(&reply);
        *ret_there = false;
    }
    fsck_report(fsck, FSCK_revision_wrong, fsck->options->repair ? FSCK_MENDED : FSCK_FOUND,
                revision, false, "");
    return MR_OK;
}

/* Reads a revision once; one that is not in Redis is reported, and stored when it is elsewhere. */
static int graph_find(struct fsck *fsck, const char *revision, struct fsck_graph **ret,
                      struct error *err)
{
    for (struct fsck_graph *graph = fsck->graphs; graph; graph = graph->next)
        if (strcmp(graph->revision, revision) == 0) {
            *ret = graph;
            return MR_OK;
        }
    struct fsck_graph *graph = graph_new(fsck, revision);
    bool is_there = false;
    *ret = graph;
    int rc = fsck_revision(fsck, revision, graph, &is_there, err);
    if (rc != MR_OK || is_there || fsck->options->is_lenient)
        return rc;
    return revision_mend(fsck, revision, graph, err);
}

void fsck_job_done(struct fsck *fsck)
{
    while (fsck->graphs) {
        struct fsck_graph *graph = fsck->graphs;
        fsck->graphs = graph->next;
        for (uint32_t i = 0; i < graph->count; i++)
            for (int k = 0; k < 3; k++)
                free(graph->rows[i][k]);
        free(graph->rows);
        free(graph->revision);
        free(graph);
    }
}

/* ---- The job ---- */

/* The digest that a submission of the job's pipeline and input has; "" when it is not known. */
struct digest {
    char hex[HASH_HEX_BYTES];
    char created[24]; /* of the job that it was made with */
    bool is_wrong;    /* the job has another one */
};

static int run(struct fsck *fsck, const char *id, bool repair, const struct digest *digest,
               struct reply *ret_reply, struct error *err)
{
    struct store *store = fsck->store;
    const struct fsck_graph *graph = fsck->last;
    call_auto struct call call;
    call_init(&call, store, SCRIPT_fsck_job, store_partition(store, id));
    call_job(&call, id);
    call_key(&call, "jobs", NULL);
    call_key(&call, "quarantine", NULL);
    call_key(&call, "quarantined", id);
    call_key(&call, "paused", NULL);
    char name[STORE_KEY_BYTES];
    snprintf(name, sizeof(name), "out:%s", id);
    call_key(&call, "quarantined", name);
    snprintf(name, sizeof(name), "log:%s", id);
    call_key(&call, "quarantined", name);
    call_int(&call, repair);
    call_text(&call, store->priv->keep);
    call_text(&call, store->priv->conf);
    call_int(&call, !fsck->options->is_lenient);
    call_text(&call, digest->hex);
    call_text(&call, digest->created);
    bool has_graph = graph && graph->is_there;
    call_text(&call, has_graph ? graph->revision : "");
    for (uint32_t i = 0; has_graph && i < graph->count; i++)
        for (int k = 0; k < 3; k++)
            call_text(&call, graph->rows[i][k]);
    return call_run(&call, 0, ret_reply, err);
}

/* As run; again with the graph of the job's revision when that was another one. */
static int look(struct fsck *fsck, const char *id, bool repair, const struct digest *digest,
                struct reply *ret_reply, struct error *err)
{
    for (int turn = 0;; turn++) {
        struct reply reply;
        /* A repair without the right graph would give up what the graph could save: look first. */
        bool is_sure = turn > 0 || !repair;
        int rc = run(fsck, id, repair && is_sure, digest, &reply, err);
        if (rc != MR_OK)
            return rc;
        const char *revision = reply_text(&reply, AT_REVISION);
        bool is_open = reply_u64(&reply, AT_ENDED) == 0;
        bool is_right =
            !is_open || !revision[0] || (fsck->last && strcmp(fsck->last->revision, revision) == 0);
        if ((is_right && is_sure) || turn >= 3) {
            *ret_reply = reply;
            return MR_OK;
        }
        if (!is_right)
            rc = graph_find(fsck, revision, &fsck->last, err);
        reply_done(&reply);
        if (rc != MR_OK)
            return rc;
    }
}

static int digest_of(struct fsck *fsck, const char *id, struct digest *ret, struct error *err)
{
    char key[STORE_KEY_BYTES];
    struct reply reply;
    *ret = (struct digest){0};
    store_key(fsck->store, store_partition(fsck->store, id), "job", id, key);
    int rc = redis_command(fsck->store->redis, &reply, err, "HMGET", key, "pipeline", "input",
                           "digest", "created", NULL);
    if (rc == MR_E_STORE && redis_is_up(fsck->store->redis))
        return MR_OK; /* another type */
    if (rc != MR_OK)
        return rc;
    const struct reply *pipeline = reply_item(&reply, 0), *input = reply_item(&reply, 1);
    if (pipeline->type == REPLY_TEXT && input->type == REPLY_TEXT) {
        struct hash hash;
        hash_start(&hash);
        hash_add_part(&hash, pipeline->text, pipeline->len);
        hash_add_part(&hash, input->text, input->len);
        hash_end(&hash, ret->hex);
        snprintf(ret->created, sizeof(ret->created), "%s", reply_text(&reply, 3));
        ret->is_wrong = strcmp(reply_text(&reply, 2), ret->hex) != 0;
    }
    reply_done(&reply);
    return MR_OK;
}

static int report(struct fsck *fsck, const char *id, const struct reply *reply,
                  enum fsck_outcome outcome, struct error *err)
{
    if (reply_u64(reply, AT_QUARANTINED) == 1) {
        fsck->summary->quarantined++;
        outcome = FSCK_QUARANTINED;
    }
    return fsck_report_all(fsck, SCRIPT_fsck_job, reply, AT_FIRST, outcome, id, true, err);
}

/* Looks without touching anything. What an unfinished job is to work on has to be what was
 * submitted: its digest says so. */
static int look_only(struct fsck *fsck, const char *id, struct digest *digest,
                     struct reply *ret_reply, struct error *err)
{
    static const struct digest none = {0};
    int rc = look(fsck, id, false, &none, ret_reply, err);
    if (rc != MR_OK || fsck->options->is_lenient || reply_u64(ret_reply, AT_ENDED))
        return rc;
    rc = digest_of(fsck, id, digest, err);
    if (rc == MR_OK && !digest->is_wrong)
        return MR_OK;
    reply_done(ret_reply);
    return rc == MR_OK ? look(fsck, id, false, digest, ret_reply, err) : rc;
}

int fsck_job(struct fsck *fsck, const char *id, struct error *err)
{
    struct reply reply;
    struct digest digest = {0};
    int rc = look_only(fsck, id, &digest, &reply, err);
    fsck->summary->jobs++;
    for (int turn = 0; rc == MR_OK && reply.count > AT_FIRST; turn++) {
        if (!fsck->options->repair || turn == TURNS_MAX) {
            rc = report(fsck, id, &reply, fsck->options->repair ? FSCK_LEFT : FSCK_FOUND, err);
            break;
        }
        reply_done(&reply);
        /* The pipeline may be mended first: then the digest is judged by the next turn. */
        if (!digest.hex[0])
            rc = digest_of(fsck, id, &digest, err);
        if (rc == MR_OK)
            rc = look(fsck, id, true, &digest, &reply, err);
        if (rc != MR_OK)
            return rc;
        rc = report(fsck, id, &reply, FSCK_MENDED, err);
        reply_done(&reply);
        if (rc == MR_OK)
            rc = look_only(fsck, id, &digest, &reply, err);
        if (rc != MR_OK)
            return rc;
    }
    if (rc == MR_OK)
        reply_done(&reply);
    return rc;
}
