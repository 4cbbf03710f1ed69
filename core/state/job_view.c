/* A job as it is read: the hash, field by field, to a struct. */
#include "state/inner.h"
#include "state/job.h"
#include "state/table.h"
#include <stdio.h>
#include <string.h>

#define BRIEF_AT_ONCE 50u /* jobs of a script: about half a millisecond of the server */

bool job_status_is_ended(const char *status)
{
#define X(NAME, word, is_end)                                                                      \
    if ((is_end) && strcmp(status, word) == 0)                                                     \
        return true;
    STATE_STATUSES(X)
#undef X
    return false;
}

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* Cuts `text` at its next space; returns what stands before it, "" at the end. */
static char *word(char **text)
{
    char *from = *text, *space = strchr(from, ' ');
    if (space) {
        *space = '\0';
        *text = space + 1;
    } else {
        *text = from + strlen(from);
    }
    return from;
}

static uint64_t number(char **text)
{
    char *from = word(text);
    return text_u64(from, strlen(from));
}

/* `state attempts throttled started finished queue` */
static void read_stage(struct job_view *view, const char *name, char *text)
{
    struct job_stage_view *stage = &view->stages[view->stage_count++];
    stage->name = name;
    stage->state = *word(&text);
    stage->attempts = (uint32_t)number(&text);
    stage->throttled = (uint32_t)number(&text);
    stage->started_ms = number(&text);
    stage->finished_ms = number(&text);
    stage->queue = word(&text);
}

/* `state queue class entry fence worker crashes takeovers refused stages` */
static void read_lane(struct job_view *view, const char *name, char *text)
{
    struct job_lane_view *lane = &view->lanes[view->lane_count++];
    lane->number = (uint32_t)text_u64(name, strlen(name));
    lane->state = *word(&text);
    lane->queue = word(&text);
    lane->class = queue_class_find(word(&text));
    lane->entry = word(&text);
    if (lane->state == 'd')
        lane->due_ms = text_u64(lane->entry, strlen(lane->entry));
    word(&text);
    lane->worker = word(&text);
    if (strcmp(lane->worker, "-") == 0)
        lane->worker = "";
    lane->crashes = (uint32_t)number(&text);
    lane->takeovers = (uint32_t)number(&text);
    number(&text);
    lane->stages = text;
}

static void read_usage(struct job_view *view, char *text)
{
    long long input = 0, output = 0, cost = 0;
    if (sscanf(text, "%lld %lld %lld", &input, &output, &cost) == 3) {
        view->input_tokens = input;
        view->output_tokens = output;
        view->cost_micros = cost;
    }
}

/* One field of the hash; false when it is none of those that are kept as they stand. */
static bool read_plain(struct job_view *view, const char *field, const struct reply *value)
{
    const struct {
        const char *name;
        const char **text;
        size_t *len;
    } texts[] = {{"pipeline", &view->pipeline, NULL},
                 {"rev", &view->revision, NULL},
                 {"status", &view->status, NULL},
                 {"stop", &view->stop, NULL},
                 {"prio", &view->prio, NULL},
                 {"digest", &view->digest, NULL},
                 {"owner", &view->owner, NULL},
                 {"durability", &view->durability, NULL},
                 {"meta", &view->metadata, NULL},
                 {"after", &view->after, NULL},
                 {"req", &view->req, NULL},
                 {"input", &view->input, &view->input_len},
                 {"result", &view->result, &view->result_len},
                 {"error", &view->error, &view->error_len}};
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
        if (strcmp(field, texts[i].name) == 0) {
            *texts[i].text = value->text;
            if (texts[i].len)
                *texts[i].len = value->len;
            return true;
        }
    const struct {
        const char *name;
        uint64_t *number;
    } numbers[] = {{"created", &view->created_ms},   {"started", &view->started_ms},
                   {"finished", &view->finished_ms}, {"deadline", &view->deadline_ms},
                   {"next", &view->next_retry_ms},   {"events", &view->events},
                   {"round", &view->round},          {"tries", &view->dead_tries}};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
        if (strcmp(field, numbers[i].name) == 0) {
            *numbers[i].number = text_u64(value->text, value->len);
            return true;
        }
    return false;
}

static int by_start(const void *a, const void *b)
{
    const struct job_stage_view *x = a, *y = b;
    uint64_t x_ms = x->started_ms ? x->started_ms : UINT64_MAX;
    uint64_t y_ms = y->started_ms ? y->started_ms : UINT64_MAX;
    if (x_ms != y_ms)
        return x_ms < y_ms ? -1 : 1;
    if (x->finished_ms != y->finished_ms && x->finished_ms && y->finished_ms)
        return x->finished_ms < y->finished_ms ? -1 : 1;
    return strcmp(x->name, y->name);
}

static bool lane_has(const struct job_lane_view *lane, const char *stage)
{
    size_t len = strlen(stage);
    for (const char *at = lane->stages; (at = strstr(at, stage)); at += len)
        if ((at == lane->stages || at[-1] == ',') && (at[len] == ',' || at[len] == '\0'))
            return true;
    return false;
}

/* Whatever needs more than one field. */
static void complete(struct job_view *view, const struct reply *outputs, uint64_t log_count,
                     int64_t expires_ms)
{
    view->is_ended = job_status_is_ended(view->status);
    view->has_log = log_count > 0;
    if (view->has_log)
        view->events = log_count;
    if (view->is_ended && expires_ms > 0)
        view->expires_ms = (uint64_t)expires_ms;
    if (strcmp(view->status, "completed") == 0)
        view->progress = 100;
    if (view->stage_count > 0)
        qsort(view->stages, view->stage_count, sizeof(*view->stages), by_start);
    for (uint32_t s = 0; s < view->stage_count; s++) {
        struct job_stage_view *stage = &view->stages[s];
        for (size_t i = 0; i + 1 < outputs->count; i += 2)
            if (strcmp(reply_text(outputs, i), stage->name) == 0) {
                stage->output = reply_text(outputs, i + 1);
                stage->output_len = outputs->items[i + 1].len;
            }
        for (uint32_t l = 0; l < view->lane_count && stage->state == 'o'; l++)
            if (view->lanes[l].state == 'r' && lane_has(&view->lanes[l], stage->name))
                stage->attempts++;
    }
}

/* A view of what the scripts `read` and `brief` say of a job: hash, outputs, length of the log,
 * now, when it expires. The reply becomes the view's. NULL: there is no such job. */
static struct job_view *view_make(const char *id, struct reply *reply)
{
    const struct reply *hash = reply_item(reply, 0);
    struct job_view *view = mem_zalloc(sizeof(*view));
    snprintf(view->id, sizeof(view->id), "%s", id);
    view->pipeline = view->revision = view->stop = view->prio = view->digest = "";
    view->owner = view->metadata = view->after = view->req = view->durability = "";
    view->reply = *reply;
    *reply = (struct reply){.type = REPLY_NIL};
    view->now_ms = reply_u64(&view->reply, 3);
    if (hash->count > 0) {
        view->stages = mem_zalloc(hash->count * sizeof(*view->stages));
        view->lanes = mem_zalloc(hash->count * sizeof(*view->lanes));
    }
    for (size_t i = 0; i + 1 < hash->count; i += 2) {
        const char *field = reply_text(hash, i);
        const struct reply *value = &hash->items[i + 1];
        if (read_plain(view, field, value))
            continue;
        if (starts(field, "s:") && field[2] != '$')
            read_stage(view, field + 2, value->text);
        else if (starts(field, "l:"))
            read_lane(view, field + 2, value->text);
        else if (strcmp(field, "progress") == 0)
            view->progress = (uint32_t)text_u64(value->text, value->len);
        else if (strcmp(field, "usage") == 0)
            read_usage(view, value->text);
    }
    if (!view->status) {
        job_view_free(view);
        return NULL;
    }
    const struct reply *expires = reply_item(&view->reply, 4);
    complete(view, reply_item(&view->reply, 1), reply_u64(&view->reply, 2), expires->integer);
    return view;
}

int job_read(struct store *store, const char *id, unsigned want, struct job_view **ret_view,
             struct error *err)
{
    call_auto struct call call;
    call_init(&call, store, SCRIPT_read, store_partition(store, id));
    call_key(&call, "job", id);
    call_key(&call, "out", id);
    call_key(&call, "log", id);
    call_int(&call, (want & JOB_WANT_OUTPUTS) != 0);
    struct reply reply;
    int rc = call_run(&call, store->ask_ms, &reply, err);
    if (rc != MR_OK)
        return rc;
    *ret_view = view_make(id, &reply);
    return MR_OK;
}

/* The jobs from `first` on that lie in its partition and were not read yet: at most BRIEF_AT_ONCE.
 */
static int read_briefs(struct store *store, const struct job_listed *items, size_t count,
                       size_t first, bool *was_read, struct job_view **views, struct error *err)
{
    uint32_t partition = store_partition(store, items[first].id);
    size_t which[BRIEF_AT_ONCE], number = 0;
    call_auto struct call call;
    call_init(&call, store, SCRIPT_brief, partition);
    for (size_t i = first; i < count && number < BRIEF_AT_ONCE; i++)
        if (!was_read[i] && store_partition(store, items[i].id) == partition) {
            call_key(&call, "job", items[i].id);
            call_key(&call, "log", items[i].id);
            was_read[i] = true;
            which[number++] = i;
        }
    struct reply reply;
    int rc = call_run(&call, 0, &reply, err);
    if (rc != MR_OK)
        return rc;
    for (size_t i = 0; i < number && i < reply.count; i++)
        views[which[i]] = view_make(items[which[i]].id, &reply.items[i]);
    reply_done(&reply);
    return MR_OK;
}

int job_read_briefs(struct store *store, const struct job_listed *items, size_t count,
                    struct job_view **ret_views, struct error *err)
{
    mem_auto bool *was_read = mem_zalloc(count + 1);
    memset(ret_views, 0, count * sizeof(*ret_views));
    for (size_t i = 0; i < count; i++) {
        int rc =
            was_read[i] ? MR_OK : read_briefs(store, items, count, i, was_read, ret_views, err);
        if (rc != MR_OK) {
            for (size_t k = 0; k < count; k++) {
                job_view_free(ret_views[k]);
                ret_views[k] = NULL;
            }
            return rc;
        }
    }
    return MR_OK;
}

void job_view_free(struct job_view *view)
{
    if (!view)
        return;
    free(view->stages);
    free(view->lanes);
    reply_done(&view->reply);
    free(view);
}

const struct job_stage_view *job_view_stage(const struct job_view *view, const char *name)
{
    for (uint32_t i = 0; i < view->stage_count; i++)
        if (strcmp(view->stages[i].name, name) == 0)
            return &view->stages[i];
    return NULL;
}

const struct job_stage_view *job_view_current(const struct job_view *view)
{
    for (uint32_t i = 0; i < view->stage_count; i++)
        if (view->stages[i].state == 'o')
            return &view->stages[i];
    return NULL;
}
