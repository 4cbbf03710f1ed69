/* Dead letters: see dead.h. */
#include "state/dead.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/utf8.h"
#include "state/inner.h"
#include <stdio.h>
#include <string.h>

#define PAGE_IDS LIMIT_SCRIPT_ITEMS

/* Where a scan has come to: the last letter that was looked at. */
struct scan {
    struct store *store;
    const struct dead_filter *filter;
    uint64_t at_ms; /* 0: at the newest */
    char id[ID_BYTES];
    bool has_id; /* else all of at_ms are passed */
    bool is_end;
};

static const char *keep(struct arena *arena, const char *text)
{
    return arena_ndup(arena, text, strlen(text));
}

/* Of a field that is no JSON, and so may hold any bytes when it was damaged. */
static const char *keep_plain(struct arena *arena, const char *text)
{
    mem_auto char *plain = utf8_plain(text);
    return keep(arena, plain);
}

bool dead_filter_before(struct dead_filter *filter, const char *before)
{
    int64_t at_ms = before ? clock_parse(before) : 0;
    if (at_ms < 0)
        return false;
    filter->before_ms = before && at_ms == 0 ? 1 : (uint64_t)at_ms;
    return true;
}

static bool matches(const struct dead_filter *filter, const struct dead_letter *letter)
{
    return (!filter->pipeline || strcmp(filter->pipeline, letter->pipeline) == 0) &&
           (!filter->stage || strcmp(filter->stage, letter->stage) == 0) &&
           (!filter->code || strcmp(filter->code, letter->code) == 0);
}

/* What dead.lua says of one job, if the filter meets it. */
static void add_letter(const struct scan *scan, const struct job_listed *item,
                       const struct reply *reply, struct dead_page *page)
{
    if (reply->count == 0)
        return;
    const struct reply *text = reply_item(reply, 3);
    json_hold json_t *error = text->text ? json_read(text->text, text->len, 0, NULL) : NULL;
    struct dead_letter letter = {.at_ms = item->at_ms,
                                 .next_retry_ms = reply_u64(reply, 4),
                                 .attempts = (uint32_t)reply_u64(reply, 5),
                                 .pipeline = reply_text(reply, 0),
                                 .stage = json_text_or(error, "stage", ""),
                                 .class = reply_text(reply, 1),
                                 .code = json_text_or(error, "code", "internal"),
                                 .message = json_text_or(error, "message", "")};
    if (!matches(scan->filter, &letter))
        return;
    if (!letter.class[0])
        letter.class = json_text_or(error, "class", "");
    memcpy(letter.id, item->id, sizeof(letter.id));
    struct arena *arena = &page->arena;
    letter.pipeline = keep_plain(arena, letter.pipeline);
    letter.stage = keep(arena, letter.stage);
    letter.class = keep_plain(arena, letter.class);
    letter.code = keep(arena, letter.code);
    letter.message = keep(arena, letter.message);
    /* The stored one stays from an earlier failure when this one has none (a deadline). */
    mem_auto char *own = mem_format("%s/%s/%s", letter.pipeline, letter.stage, letter.code);
    const char *stored = reply_text(reply, 2);
    letter.fingerprint = keep_plain(arena, strncmp(stored, own, strlen(own)) == 0 ? stored : own);
    if (page->count == page->cap) {
        page->cap = page->cap ? 2 * page->cap : 64;
        page->letters = mem_resize(page->letters, page->cap, sizeof(*page->letters));
    }
    page->letters[page->count++] = letter;
}

/* Reads the letters of `items` with a script for each partition among them; replies by index. */
static int read_items(struct store *store, const struct job_listed *items, size_t count,
                      struct reply *replies, struct error *err)
{
    mem_auto uint32_t *partitions = mem_alloc((count + 1) * sizeof(*partitions));
    mem_auto size_t *which = mem_alloc((count + 1) * sizeof(*which));
    for (size_t i = 0; i < count; i++)
        partitions[i] = store_partition(store, items[i].id);
    for (size_t first = 0; first < count; first++) {
        uint32_t partition = partitions[first];
        size_t number = 0;
        if (partition == UINT32_MAX)
            continue;
        call_auto struct call call;
        call_init(&call, store, SCRIPT_dead, partition);
        for (size_t i = first; i < count; i++)
            if (partitions[i] == partition) {
                call_key(&call, "job", items[i].id);
                partitions[i] = UINT32_MAX;
                which[number++] = i;
            }
        struct reply reply;
        int rc = call_run(&call, 0, &reply, err);
        if (rc != MR_OK)
            return rc;
        for (size_t i = 0; i < number && i < reply.count; i++) {
            replies[which[i]] = reply.items[i];
            reply.items[i] = (struct reply){.type = REPLY_NIL};
        }
        reply_done(&reply);
    }
    return MR_OK;
}

/* Looks at the next letters, at most `max`; those that the filter meets are added to the page. */
static int scan_step(struct scan *scan, uint32_t max, struct dead_page *page, struct error *err)
{
    struct job_listed *items = NULL;
    size_t count = 0;
    int rc = job_list(scan->store, true, scan->at_ms, scan->has_id ? scan->id : NULL, max, &items,
                      &count, err);
    if (rc != MR_OK)
        return rc;
    struct reply *replies = mem_zalloc((count + 1) * sizeof(*replies));
    rc = read_items(scan->store, items, count, replies, err);
    for (size_t i = 0; i < count; i++) {
        if (rc == MR_OK)
            add_letter(scan, &items[i], &replies[i], page);
        reply_done(&replies[i]);
    }
    free(replies);
    if (rc == MR_OK && count > 0) {
        scan->at_ms = items[count - 1].at_ms;
        memcpy(scan->id, items[count - 1].id, sizeof(scan->id));
        scan->has_id = true;
    }
    scan->is_end = count < max;
    free(items);
    return rc;
}

static void scan_init(struct scan *scan, struct store *store, const struct dead_filter *filter)
{
    *scan = (struct scan){.store = store, .filter = filter, .at_ms = filter->before_ms};
}

static void page_init(struct dead_page *page)
{
    *page = (struct dead_page){0};
    arena_init(&page->arena);
}

void dead_page_done(struct dead_page *page)
{
    free(page->letters);
    arena_done(&page->arena);
    *page = (struct dead_page){0};
}

int dead_list(struct store *store, const struct dead_filter *filter, const char *after_id,
              uint32_t max, uint64_t budget_ms, struct dead_page *ret_page, struct error *err)
{
    uint64_t since = clock_now_ms();
    bool is_wide = !filter->pipeline && !filter->stage && !filter->code;
    struct scan scan;
    scan_init(&scan, store, filter);
    if (after_id) {
        uint64_t at_ms = 0;
        int rc = job_find_listed(store, true, after_id, &at_ms, err);
        if (rc != MR_OK)
            return rc;
        if (at_ms == 0)
            return error_set(err, MR_E_LOST, "%.36s is not among the dead letters (any more)",
                             after_id);
        if (!filter->before_ms || at_ms < filter->before_ms) {
            scan.at_ms = at_ms;
            scan.has_id = true;
            snprintf(scan.id, sizeof(scan.id), "%s", after_id);
        }
    }
    struct dead_page page;
    page_init(&page);
    do {
        size_t step = is_wide && page.count <= max ? max - page.count + 1 : PAGE_IDS;
        int rc = scan_step(&scan, (uint32_t)(step < PAGE_IDS ? step : PAGE_IDS), &page, err);
        if (rc != MR_OK) {
            dead_page_done(&page);
            return rc;
        }
    } while (!scan.is_end && page.count <= max && clock_now_ms() - since < budget_ms);
    page.has_more = page.count > max || !scan.is_end;
    if (page.count > max) {
        page.count = max;
        memcpy(page.last_id, page.letters[max - 1].id, sizeof(page.last_id));
    } else {
        memcpy(page.last_id, scan.id, sizeof(page.last_id));
    }
    *ret_page = page;
    return MR_OK;
}

/* ---- Acting ---- */

/* The letters of one page, taken by several fibers one after the other. */
struct crew {
    struct store *store;
    enum dead_action action;
    const char *req;
    const struct dead_page *page;
    size_t next;
    uint64_t done;
    int rc;
    struct error err; /* of the first that could not be sent */
};

static int act(const struct crew *crew, const char *id, bool *ret_done, struct error *err)
{
    if (crew->action == DEAD_DISCARD)
        return dead_discard(crew->store, id, ret_done, err);
    const struct job_again again = {.id = id, .req = crew->req, .is_fresh = true};
    enum again_outcome outcome = AGAIN_NONE;
    int rc = job_run_again(crew->store, &again, &outcome, err);
    *ret_done = outcome == AGAIN_OK || outcome == AGAIN_SAME;
    return rc;
}

static void crew_member(void *arg)
{
    struct crew *crew = arg;
    while (crew->rc == MR_OK && crew->next < crew->page->count) {
        const char *id = crew->page->letters[crew->next++].id;
        bool is_done = false;
        struct error err = {0};
        int rc = act(crew, id, &is_done, &err);
        if (rc == MR_OK) {
            crew->done += is_done;
        } else if (rc == MR_E_INTERNAL) { /* a broken job must not hold up those behind it */
            log_error("a dead letter cannot be acted on", &err, "job", id, NULL);
        } else if (crew->rc == MR_OK) {
            crew->rc = rc;
            crew->err = err;
        }
    }
}

static int act_on_page(struct crew *crew, const struct dead_page *page, struct error *err)
{
    struct group group;
    crew->page = page;
    crew->next = 0;
    group_init(&group, crew->store->loop);
    for (size_t i = 1; i < page->count && i < DEAD_PARALLEL; i++)
        if (group_spawn(&group, scope_current(), crew_member, crew) != MR_OK)
            break;
    crew_member(crew);
    group_wait(&group);
    if (crew->rc != MR_OK && err)
        *err = crew->err;
    return crew->rc;
}

/* The server's time, in ms. */
static int server_time(struct store *store, uint64_t *ret_ms, struct error *err)
{
    struct reply reply;
    int rc = redis_command(store->redis, &reply, err, "TIME", NULL);
    if (rc != MR_OK)
        return rc;
    *ret_ms = reply_u64(&reply, 0) * 1000 + reply_u64(&reply, 1) / 1000;
    reply_done(&reply);
    return MR_OK;
}

int dead_sweep(struct store *store, const struct dead_filter *filter, enum dead_action action,
               const char *req, uint64_t max, uint64_t budget_ms, struct dead_sweep *ret,
               struct error *err)
{
    uint64_t since = clock_now_ms(), now_ms = 0;
    int rc = server_time(store, &now_ms, err);
    if (rc != MR_OK)
        return rc;
    struct dead_filter mine = *filter;
    if (!mine.before_ms || mine.before_ms > now_ms)
        mine.before_ms = now_ms + 1; /* what failed in this very millisecond too */
    struct scan scan;
    scan_init(&scan, store, &mine);
    struct crew crew = {.store = store, .action = action, .req = req};
    struct dead_sweep sweep = {.before_ms = mine.before_ms};
    bool has_room = true;
    while (rc == MR_OK && !scan.is_end && has_room) {
        uint64_t room = max ? max - sweep.matched : PAGE_IDS;
        struct dead_page page;
        page_init(&page);
        rc = scan_step(&scan, (uint32_t)(room < PAGE_IDS ? room : PAGE_IDS), &page, err);
        sweep.matched += page.count;
        if (rc == MR_OK && action != DEAD_COUNT)
            rc = act_on_page(&crew, &page, err);
        dead_page_done(&page);
        has_room = (!max || sweep.matched < max) && clock_now_ms() - since < budget_ms;
    }
    sweep.done = crew.done;
    sweep.has_more = !scan.is_end;
    if (sweep.has_more && scan.at_ms < sweep.before_ms)
        sweep.before_ms = scan.at_ms + 1; /* others of that millisecond may be behind it */
    if (rc == MR_OK)
        *ret = sweep;
    return rc;
}

int dead_count(struct store *store, uint64_t *ret_count, struct error *err)
{
    uint64_t count = 0;
    for (uint32_t partition = 0; partition < store->partitions; partition++) {
        char key[STORE_KEY_BYTES];
        struct reply reply;
        store_key(store, partition, "dead", NULL, key);
        int rc = redis_command(store->redis, &reply, err, "ZCARD", key, NULL);
        if (rc != MR_OK)
            return rc;
        count += reply.type == REPLY_INT ? (uint64_t)reply.integer : 0;
        reply_done(&reply);
    }
    *ret_count = count;
    return MR_OK;
}
