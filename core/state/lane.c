/* What a worker does with a lane it has claimed: one script each.
 *
 * Over 500 lines: one short function for each script, side by side. */
#include "state/lane.h"
#include "base/limits.h"
#include "state/inner.h"
#include "state/table.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const verdicts[] = {
#define X(NAME, word) [LANE_##NAME] = (word),
    STATE_VERDICTS(X)
#undef X
};

static bool find_verdict(const char *word, enum lane_verdict *ret)
{
    for (unsigned i = 0; i < sizeof(verdicts) / sizeof(*verdicts); i++)
        if (strcmp(word, verdicts[i]) == 0) {
            *ret = (enum lane_verdict)i;
            return true;
        }
    return false;
}

/* A script on a lane: job's keys, the lane's own stream; id, number and fence. */
static void open_call(struct call *call, struct store *store, enum script script,
                      const struct lane *lane)
{
    call_init(call, store, script, lane->partition);
    call_job(call, lane->job);
    call_queue(call, lane->queue, lane->class);
    call_u64(call, lane->number);
    call_text(call, lane->fence);
}

/* Keys job, out and log alone; argument 1, the id. */
static void open_small(struct call *call, struct store *store, enum script script,
                       const struct lane *lane)
{
    call_init(call, store, script, lane->partition);
    call_key(call, "job", lane->job);
    call_key(call, "out", lane->job);
    call_key(call, "log", lane->job);
    call_text(call, lane->job);
}

/* Runs a call whose reply is one verdict. */
static int run_simple(struct call *call, enum lane_verdict *ret, struct error *err)
{
    struct reply reply;
    int rc = call_run(call, call->store->patience_ms, &reply, err);
    if (rc != MR_OK)
        return rc;
    if (!find_verdict(reply_text(&reply, 0), ret))
        rc = call_surprise(call->script, &reply, err);
    reply_done(&reply);
    return rc;
}

/* Cuts "a,b" into its words, in place; the array is malloc'ed, NULL when there is none. */
static const char **split(const struct reply *item, uint32_t *ret_count)
{
    uint32_t count = 0;
    *ret_count = 0;
    if (item->type != REPLY_TEXT || item->len == 0)
        return NULL;
    for (size_t i = 0; i < item->len; i++)
        count += item->text[i] == ',';
    const char **words = mem_alloc((count + 1) * sizeof(*words));
    char *rest = item->text;
    for (uint32_t i = 0; i <= count; i++)
        words[i] = strsep(&rest, ",");
    *ret_count = count + 1;
    return words;
}

/* name, state, text; … */
static struct lane_output *read_outputs(const struct reply *list, uint32_t *ret_count)
{
    *ret_count = (uint32_t)(list->count / 3);
    if (*ret_count == 0)
        return NULL;
    struct lane_output *outputs = mem_zalloc(*ret_count * sizeof(*outputs));
    for (uint32_t i = 0; i < *ret_count; i++) {
        const char *state = reply_text(list, 3 * i + 1);
        outputs[i].name = reply_text(list, 3 * i);
        outputs[i].state = strchr(outputs[i].name, '#') ? '\0' : state[0];
        outputs[i].text = reply_text(list, 3 * i + 2);
        outputs[i].len = list->items[3 * i + 2].len;
    }
    return outputs;
}

/* ---- Begin ---- */

/* Places in begin's reply. */
enum {
    B_VERDICT,
    B_ROUND,
    B_LEFT,
    B_CRASHES,
    B_TAKEOVERS,
    B_DONE,
    B_CREATED,
    B_PRIO,
    B_STATUS,
    B_STOP,
    B_ALONE,
    B_REV,
    B_STAGES,
    B_ATTEMPTS,
    B_INPUT,
    B_META,
    B_OWNER,
    B_ANCESTORS,
    B_AFTER,
    B_OUTPUTS,
    B_CHILDREN
};

static void read_open(struct lane_grant *grant, const struct reply *reply)
{
    uint32_t attempts = 0;
    const char **names = split(reply_item(reply, B_STAGES), &grant->open_count);
    const char **used = split(reply_item(reply, B_ATTEMPTS), &attempts);
    if (grant->open_count > 0)
        grant->open = mem_zalloc(grant->open_count * sizeof(*grant->open));
    for (uint32_t i = 0; i < grant->open_count; i++) {
        grant->open[i].name = names[i];
        if (i < attempts)
            sscanf(used[i], "%" SCNu32 "/%" SCNu32, &grant->open[i].attempts,
                   &grant->open[i].throttled);
    }
    free(names);
    free(used);
}

static void read_children(struct lane_grant *grant, const struct reply *list)
{
    grant->child_count = (uint32_t)(list->count / 4);
    if (grant->child_count == 0)
        return;
    grant->children = mem_zalloc(grant->child_count * sizeof(*grant->children));
    for (uint32_t i = 0; i < grant->child_count; i++)
        grant->children[i] =
            (struct lane_child){reply_text(list, 4 * i), reply_text(list, 4 * i + 1),
                                reply_text(list, 4 * i + 2), reply_u64(list, 4 * i + 3)};
}

static void read_grant(struct lane_grant *grant, const struct reply *reply)
{
    const char *left = reply_text(reply, B_LEFT);
    grant->round = reply_u64(reply, B_ROUND);
    grant->left_ms = left[0] ? text_u64(left, strlen(left)) : UINT64_MAX;
    grant->crashes = (uint32_t)reply_u64(reply, B_CRASHES);
    grant->takeovers = (uint32_t)reply_u64(reply, B_TAKEOVERS);
    grant->done = (uint32_t)reply_u64(reply, B_DONE);
    grant->created_ms = reply_u64(reply, B_CREATED);
    grant->prio = reply_text(reply, B_PRIO);
    grant->status = reply_text(reply, B_STATUS);
    grant->stop = reply_text(reply, B_STOP);
    grant->is_alone = reply_u64(reply, B_ALONE) == 1;
    grant->revision = reply_text(reply, B_REV);
    grant->input = reply_text(reply, B_INPUT);
    grant->input_len = reply_item(reply, B_INPUT)->len;
    grant->metadata = reply_text(reply, B_META);
    grant->owner = reply_text(reply, B_OWNER);
    grant->ancestors = reply_text(reply, B_ANCESTORS);
    grant->after = reply_text(reply, B_AFTER);
    read_open(grant, reply);
    grant->outputs = read_outputs(reply_item(reply, B_OUTPUTS), &grant->output_count);
    read_children(grant, reply_item(reply, B_CHILDREN));
}

/* The needs of a stage but for `except` (NULL: all), separated by `,`. */
static void add_needs(struct call *call, const struct lane_successor *successor, const char *except)
{
    char *text = arena_alloc(&call->arena, successor->need_count * STORE_STAGE_BYTES + 1);
    size_t len = 0;
    for (uint32_t i = 0; i < successor->need_count; i++) {
        if (except && strcmp(successor->needs[i], except) == 0)
            continue;
        size_t size = strnlen(successor->needs[i], STORE_STAGE_BYTES - 1);
        if (len > 0)
            text[len++] = ',';
        memcpy(text + len, successor->needs[i], size);
        len += size;
    }
    call_bytes(call, text, len);
}

/* The load numbers of the job's revision and of ours. */
static int read_numbers(struct store *store, const struct lane *lane, const char *own,
                        struct lane_grant *grant, struct error *err)
{
    char key[STORE_KEY_BYTES];
    mem_auto char *theirs = mem_format("%s:%s", lane->pipeline, grant->revision);
    mem_auto char *ours = mem_format("%s:%s", lane->pipeline, own);
    struct reply reply;
    store_key(store, lane->partition, "revs", NULL, key);
    int rc = redis_command(store->redis, &reply, err, "HMGET", key, theirs, ours, NULL);
    if (rc != MR_OK)
        return rc;
    grant->revision_number = reply_u64(&reply, 0);
    grant->own_number = reply_u64(&reply, 1);
    reply_done(&reply);
    return MR_OK;
}

int lane_begin(struct store *store, struct lane *lane, const struct lane_begin *begin,
               struct lane_grant *ret, struct error *err)
{
    if (!lane->fence[0])
        snprintf(lane->fence, sizeof(lane->fence), "%s.%" PRIu64, store->instance, ++store->begins);
    call_auto struct call call;
    open_small(&call, store, SCRIPT_begin, lane);
    call_queue(&call, lane->queue, lane->class);
    call_key(&call, "paused", NULL);
    call_u64(&call, lane->number);
    call_text(&call, lane->entry);
    call_text(&call, lane->fence);
    call_text(&call, store->worker);
    call_text(&call, begin->revision);
    call_text(&call, begin->known);
    call_int(&call, begin->adopt_count > 0);
    call_text(&call, begin->dead);
    call_u64(&call, store->max_crashes);
    call_text(&call, store->priv->conf);
    call_text(&call, begin->culprit);
    const char *stage =
        begin->culprit_stage && begin->culprit_stage[0] ? begin->culprit_stage : "*";
    call_text(&call, begin->is_culprit ? stage : "");
    call_u64(&call, begin->takeovers_max);
    call_u64(&call, begin->put_off_ms);
    for (uint32_t i = 0; i < begin->adopt_count; i++) {
        call_text(&call, begin->adopt[i].name);
        call_text(&call, begin->adopt[i].queue);
        add_needs(&call, &begin->adopt[i], NULL);
    }
    struct lane_grant grant = {0};
    int rc = call_run(&call, store->patience_ms, &grant.reply, err);
    if (rc != MR_OK)
        return rc;
    if (!find_verdict(reply_text(&grant.reply, B_VERDICT), &grant.verdict)) {
        rc = call_surprise(SCRIPT_begin, &grant.reply, err);
        reply_done(&grant.reply);
        return rc;
    }
    if (grant.reply.count > B_CHILDREN) {
        read_grant(&grant, &grant.reply);
        enum queue_class prio = queue_class_find(grant.prio);
        if (prio != QUEUE_CLASSES)
            lane->prio = prio;
    }
    if (grant.verdict == LANE_SUSPECT)
        grant.takeovers = (uint32_t)reply_u64(&grant.reply, B_ROUND);
    if (grant.verdict == LANE_REV) {
        rc = read_numbers(store, lane, begin->revision, &grant, err);
        if (rc != MR_OK) {
            lane_grant_done(&grant);
            return rc;
        }
    }
    *ret = grant;
    return MR_OK;
}

void lane_grant_done(struct lane_grant *grant)
{
    free(grant->open);
    free(grant->outputs);
    free(grant->children);
    reply_done(&grant->reply);
    free(grant->kept);
    *grant = (struct lane_grant){0};
}

void lane_grant_trim(struct lane_grant *grant)
{
    struct lane_grant kept = *grant;
    const char **const texts[] = {&kept.revision, &kept.status, &kept.stop,      &kept.prio,
                                  &kept.metadata, &kept.owner,  &kept.ancestors, &kept.after};
    size_t count = sizeof(texts) / sizeof(texts[0]), bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += *texts[i] ? strlen(*texts[i]) + 1 : 0;
    kept.kept = mem_alloc(bytes);
    char *at = kept.kept;
    for (size_t i = 0; i < count; i++) {
        if (!*texts[i])
            continue;
        size_t len = strlen(*texts[i]) + 1;
        memcpy(at, *texts[i], len);
        *texts[i] = at;
        at += len;
    }
    kept.open = NULL;
    kept.outputs = NULL;
    kept.children = NULL;
    kept.open_count = kept.output_count = kept.child_count = 0;
    kept.input = NULL;
    kept.input_len = 0;
    kept.reply = (struct reply){0};
    lane_grant_done(grant);
    *grant = kept;
}

/* ---- Checkpoints ---- */

static int run_next(struct call *call, struct lane_next *ret, struct error *err)
{
    struct lane_next next = {0};
    int rc = call_run(call, call->store->patience_ms, &next.reply, err);
    if (rc != MR_OK)
        return rc;
    if (!find_verdict(reply_text(&next.reply, 0), &next.verdict)) {
        rc = call_surprise(call->script, &next.reply, err);
        reply_done(&next.reply);
        return rc;
    }
    next.order = ++call->store->answers;
    next.open = split(reply_item(&next.reply, 1), &next.open_count);
    next.outputs = read_outputs(reply_item(&next.reply, 2), &next.output_count);
    *ret = next;
    return MR_OK;
}

void lane_next_done(struct lane_next *next)
{
    free(next->open);
    free(next->outputs);
    reply_done(&next->reply);
    *next = (struct lane_next){0};
}

static void add_usage(struct call *call, const struct lane_usage *usage)
{
    if (usage->input_tokens == 0 && usage->output_tokens == 0 && usage->cost_micros == 0) {
        call_text(call, "");
        return;
    }
    char text[80];
    int len = snprintf(text, sizeof(text), "%" PRId64 " %" PRId64 " %" PRId64, usage->input_tokens,
                       usage->output_tokens, usage->cost_micros);
    call_bytes(call, arena_ndup(&call->arena, text, (size_t)len), (size_t)len);
}

int lane_commit(struct store *store, const struct lane *lane, const struct lane_commit *commit,
                struct lane_next *ret, struct error *err)
{
    call_auto struct call call;
    open_small(&call, store, SCRIPT_commit, lane);
    call_queue(&call, lane->queue, lane->class);
    enum queue_class prio = lane->prio == QUEUE_RECOVERED ? QUEUE_NORMAL : lane->prio;
    for (uint32_t i = 0; i < commit->successor_count; i++)
        if (strcmp(commit->successors[i].queue, lane->queue) != 0)
            call_queue(&call, commit->successors[i].queue, prio);
    call_u64(&call, lane->number);
    call_text(&call, lane->fence);
    call_text(&call, commit->stage);
    call_text(&call, commit->is_skipped ? "s" : "d");
    call_bytes(&call, commit->output, commit->output_len);
    call_u64(&call, commit->total);
    call_u64(&call, commit->known);
    call_u64(&call, commit->successor_count);
    for (uint32_t i = 0; i < commit->successor_count; i++) {
        call_text(&call, commit->successors[i].name);
        call_text(&call, commit->successors[i].queue);
        add_needs(&call, &commit->successors[i], commit->stage);
    }
    add_usage(&call, &commit->usage);
    call_text(&call, store->priv->conf);
    call_text(&call, commit->have);
    if (commit->result)
        call_bytes(&call, commit->result, commit->result_len);
    return run_next(&call, ret, err);
}

int lane_fail(struct store *store, const struct lane *lane, const struct lane_fail *fail,
              struct lane_next *ret, struct error *err)
{
    const char *class = error_class_name(fail->class);
    bool retryable = fail->class == MR_CLASS_RETRY || fail->class == MR_CLASS_THROTTLED;
    mem_auto char *error = error_json(fail->code, fail->message, fail->stage, class, retryable);
    if (!error)
        return error_set(err, MR_E_INTERNAL, "an error of %s that cannot be printed", fail->stage);
    call_auto struct call call;
    open_call(&call, store, SCRIPT_fail, lane);
    call_key(&call, "dead:held", NULL);
    call_text(&call, fail->stage);
    call_text(&call, class);
    call_text(&call, fail->code);
    call_text(&call, error);
    call_u64(&call, fail->delay_ms);
    call_u64(&call, fail->attempts);
    add_usage(&call, &fail->usage);
    call_text(&call, store->priv->conf);
    return run_next(&call, ret, err);
}

/* ---- While it runs ---- */

int lane_step(struct store *store, const struct lane *lane, const char *stage, const char *name,
              const char *text, size_t len, uint32_t *ret_count, enum lane_verdict *ret,
              struct error *err)
{
    if (!name[0] || strpbrk(name, ",# \n"))
        return error_set(err, MR_E_SCHEMA,
                         "the name of a step may not be empty or hold , # or "
                         "spaces: \"%.60s\"",
                         name);
    call_auto struct call call;
    open_small(&call, store, SCRIPT_step, lane);
    call_u64(&call, lane->number);
    call_text(&call, lane->fence);
    call_text(&call, stage);
    call_text(&call, name);
    call_bytes(&call, text, len);
    struct reply reply;
    int rc = call_run(&call, store->patience_ms, &reply, err);
    if (rc != MR_OK)
        return rc;
    if (!find_verdict(reply_text(&reply, 0), ret))
        rc = call_surprise(SCRIPT_step, &reply, err);
    else if (ret_count)
        *ret_count = (uint32_t)reply_u64(&reply, 1);
    reply_done(&reply);
    return rc;
}

int lane_note(struct store *store, const struct lane *lane, const char *stage, const char *child,
              const char *req, uint64_t timeout_ms, enum lane_verdict *ret, struct error *err)
{
    call_auto struct call call;
    open_small(&call, store, SCRIPT_note, lane);
    call_u64(&call, lane->number);
    call_text(&call, lane->fence);
    call_text(&call, stage);
    call_text(&call, child);
    call_text(&call, req);
    call_u64(&call, timeout_ms);
    return run_simple(&call, ret, err);
}

/* The data of an event with its stage in front, on one line. */
static int add_told(struct call *call, const struct lane_told *told, struct error *err)
{
    if (!told->kind[0] || strlen(told->kind) > 40 || strpbrk(told->kind, " \n\r"))
        return error_set(err, MR_E_SCHEMA, "the kind of an event is 1 to 40 bytes without spaces");
    if (told->data && (told->len < 2 || told->data[0] != '{' || told->data[told->len - 1] != '}'))
        return error_set(err, MR_E_SCHEMA, "the data of event %s is no JSON object", told->kind);
    if (told->len > LIMIT_EVENT_BYTES)
        return error_set(err, MR_E_SCHEMA, "event %s is longer than %u bytes", told->kind,
                         LIMIT_EVENT_BYTES);
    const char *rest = "}";
    size_t len = 1;
    if (told->data && told->len > 2) {
        rest = told->data + 1;
        len = told->len - 1;
    }
    size_t size = len + STORE_STAGE_BYTES + 16;
    char *text = arena_alloc(&call->arena, size);
    int head = snprintf(text, size, "{\"stage\":\"%.48s\"%s", told->stage, len > 1 ? "," : "");
    memcpy(text + head, rest, len);
    len += (size_t)head;
    for (size_t i = 0; i < len; i++) /* raw ones stand between tokens only (RFC 8259 section 7) */
        if (text[i] == '\n' || text[i] == '\r')
            text[i] = ' ';
    call_int(call, told->is_live);
    call_text(call, told->kind);
    call_bytes(call, text, len);
    return MR_OK;
}

int lane_tell(struct store *store, const struct lane *lane, const struct lane_told *events,
              uint32_t count, uint32_t progress, enum lane_verdict *ret, struct error *err)
{
    if (count > LIMIT_SCRIPT_ITEMS)
        return error_set(err, MR_E_INTERNAL, "%u events at once, at most %u", count,
                         LIMIT_SCRIPT_ITEMS);
    call_auto struct call call;
    open_small(&call, store, SCRIPT_tell, lane);
    call_u64(&call, lane->number);
    call_text(&call, lane->fence);
    call_int(&call, progress <= 100 ? (int64_t)progress : -1);
    for (uint32_t i = 0; i < count; i++) {
        int rc = add_told(&call, &events[i], err);
        if (rc != MR_OK)
            return rc;
    }
    /* Not redis_run's repetition: an event that was sent twice would have two numbers. */
    struct reply reply;
    struct redis_script *script = &store->priv->scripts[SCRIPT_tell];
    struct arg *words =
        arena_alloc(&call.arena, (3 + call.key_count + call.arg_count) * sizeof(*words));
    char slot[24];
    size_t argc = 0;
    bool by_sha = script->sha[0] != '\0';
    words[argc++] = arg_text(by_sha ? "EVALSHA" : "EVAL");
    words[argc++] = arg_text(by_sha ? script->sha : script->text);
    words[argc++] = arg_int(slot, (int64_t)call.key_count);
    memcpy(words + argc, call.keys, call.key_count * sizeof(*words));
    memcpy(words + argc + call.key_count, call.args, call.arg_count * sizeof(*words));
    argc += call.key_count + call.arg_count;
    int rc = redis_call(store->redis, argc, words, 0, &reply, err);
    if (rc != MR_OK)
        return rc;
    if (!find_verdict(reply_text(&reply, 0), ret))
        rc = call_surprise(SCRIPT_tell, &reply, err);
    reply_done(&reply);
    return rc;
}

/* ---- Giving it up ---- */

int lane_park(struct store *store, const struct lane *lane, uint64_t delay_ms,
              enum lane_verdict *ret, struct error *err)
{
    call_auto struct call call;
    open_call(&call, store, SCRIPT_park, lane);
    call_u64(&call, delay_ms);
    return run_simple(&call, ret, err);
}

int lane_handback(struct store *store, const struct lane *lane, enum lane_verdict *ret,
                  struct error *err)
{
    call_auto struct call call;
    open_call(&call, store, SCRIPT_handback, lane);
    call_queue(&call, lane->queue, QUEUE_RECOVERED);
    return run_simple(&call, ret, err);
}

int lane_drop(struct store *store, const struct lane *lane, enum lane_verdict *ret,
              struct error *err)
{
    call_auto struct call call;
    open_call(&call, store, SCRIPT_drop, lane);
    call_queue(&call, lane->queue, QUEUE_RECOVERED);
    call_text(&call, store->priv->conf);
    return run_simple(&call, ret, err);
}
