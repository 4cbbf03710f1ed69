/* Progress and events of running tasks on their way to Redis: events in order, progress merged to
 * one a second and lane. A fiber of the lane sends while there is anything; the plugin's calls only
 * append. A checkpoint lets waiting deltas go first, so that a reader has a stage's text whole
 * before its end; progress that has not gone out when the lane ends is dropped: its end says more.
 */
#include "work/work.h"

#include "base/clock.h"
#include "base/limits.h"
#include <stdio.h>
#include <string.h>

#define TELL_EVERY_MS 1000u
#define TELL_QUEUE    1000u /* events that wait; beyond it deltas are dropped first, then all */

struct work_told {
    struct work_told *next;
    char kind[48];
    char *stage, *data;
    size_t len;
    bool is_live;
};

struct work_tell {
    struct work_lane *lane;
    struct scope scope;
    struct group group;
    struct work_told *first, **last;
    size_t count;
    uint32_t progress; /* of the job; UINT32_MAX: nothing new */
    uint64_t sent_ms;
    bool sending;
};

static struct work_tell *tell_of(struct work_lane *lane)
{
    if (!lane->tell) {
        struct work_tell *tell = mem_zalloc(sizeof *tell);
        tell->lane = lane;
        tell->last = &tell->first;
        tell->progress = UINT32_MAX;
        scope_init(&tell->scope, &lane->worker->lanes_scope);
        group_init(&tell->group, &lane->worker->loop);
        lane->tell = tell;
    }
    return lane->tell;
}

static void tell_free_list(struct work_told *told)
{
    while (told) {
        struct work_told *next = told->next;
        free(told->stage);
        free(told->data);
        free(told);
        told = next;
    }
}

/* Sends what is there; at most LIMIT_SCRIPT_ITEMS a call. */
static void tell_send(struct work_tell *tell)
{
    struct work_told *list = tell->first;
    struct lane_told events[LIMIT_SCRIPT_ITEMS / 4];
    uint32_t count = 0;
    struct work_told *at = list, *rest = list;
    for (; at && count < sizeof events / sizeof events[0]; at = at->next) {
        events[count++] = (struct lane_told){.kind = at->kind,
                                             .stage = at->stage,
                                             .data = at->data,
                                             .len = at->len,
                                             .is_live = at->is_live};
        rest = at->next;
    }
    tell->first = rest;
    if (!rest)
        tell->last = &tell->first;
    tell->count -= count;
    uint32_t progress = tell->progress;
    tell->progress = UINT32_MAX;
    tell->sent_ms = clock_now_ms();
    enum lane_verdict verdict = LANE_OK;
    if (!tell->lane->is_lost && (count || progress != UINT32_MAX) &&
        lane_tell(tell->lane->worker->store, &tell->lane->lane, events, count, progress, &verdict,
                  NULL) == MR_OK &&
        verdict == LANE_STOP)
        work_lane_stop(tell->lane);
    /* LANE_LOST says nothing here: a commit may have closed the lane meanwhile, and its reply says
     * so. */
    while (list != rest) {
        struct work_told *next = list->next;
        list->next = NULL;
        tell_free_list(list);
        list = next;
    }
}

static void tell_fiber(void *arg)
{
    struct work_tell *tell = arg;
    while (scope_error(&tell->scope) == MR_OK && (tell->first || tell->progress != UINT32_MAX)) {
        uint64_t now = clock_now_ms();
        bool only_progress = !tell->first || (strcmp(tell->first->kind, "stage.progress") == 0 &&
                                              !tell->first->next);
        if (only_progress && now - tell->sent_ms < TELL_EVERY_MS &&
            wait_sleep(&tell->lane->worker->loop, TELL_EVERY_MS - (now - tell->sent_ms)) != MR_OK)
            break;
        tell_send(tell);
    }
    tell->sending = false;
}

static void tell_start(struct work_tell *tell)
{
    if (tell->sending)
        return;
    tell->sending = true;
    if (group_spawn(&tell->group, &tell->scope, tell_fiber, tell) != MR_OK)
        tell->sending = false;
}

static void tell_add(struct work_tell *tell, const char *kind, const char *stage, const char *data,
                     size_t len, bool is_live)
{
    if (tell->count >= TELL_QUEUE || len > LIMIT_EVENT_BYTES)
        return;
    struct work_told *told = mem_zalloc(sizeof *told);
    snprintf(told->kind, sizeof told->kind, "%s", kind);
    told->stage = mem_dup(stage);
    told->data = data ? mem_ndup(data, len) : NULL;
    told->len = data ? len : 0;
    told->is_live = is_live;
    *tell->last = told;
    tell->last = &told->next;
    tell->count++;
}

void work_progress(struct run *run, struct stage *stage, int percent, const char *message)
{
    struct work_tell *tell = tell_of(run->data);
    uint32_t done = 0, share = percent < 0 ? 0 : percent > 100 ? 100 : (uint32_t)percent;
    for (uint32_t i = 0; i < run->pipeline->stage_count; i++)
        done += run->status[i] != 0;
    uint32_t total = run->pipeline->stage_count ? run->pipeline->stage_count : 1;
    tell->progress = (done * 100 + share) / total;
    struct buf buf_auto data;
    buf_init(&data, LIMIT_EVENT_BYTES);
    buf_format(&data, "{\"percent\":%u", share);
    if (message) {
        buf_add_text(&data, ",\"message\":");
        buf_add_json_string(&data, message, strlen(message));
    }
    buf_add_char(&data, '}');
    if (data.failed)
        return;
    /* The newest progress of a stage takes the place of one that has not gone out. */
    for (struct work_told *told = tell->first; told; told = told->next) {
        if (strcmp(told->kind, "stage.progress") == 0 && strcmp(told->stage, stage->name) == 0) {
            free(told->data);
            told->len = data.len;
            told->data = buf_take(&data);
            tell_start(tell);
            return;
        }
    }
    tell_add(tell, "stage.progress", stage->name, buf_text(&data), data.len, false);
    tell_start(tell);
}

void work_emit(struct run *run, struct stage *stage, const char *kind, const char *data, size_t len)
{
    struct work_tell *tell = tell_of(run->data);
    tell_add(tell, kind, stage->name, data, len, strcmp(kind, "stage.delta") == 0);
    tell_start(tell);
}

void work_tell_flush(struct work_lane *lane)
{
    struct work_tell *tell = lane->tell;
    struct work_told *told = tell ? tell->first : NULL;
    while (told && !told->is_live)
        told = told->next;
    while (told && tell->first && scope_error(&tell->scope) == MR_OK)
        tell_send(tell);
}

void work_tell_end(struct work_lane *lane)
{
    struct work_tell *tell = lane->tell;
    if (!tell)
        return;
    scope_cancel(&tell->scope, MR_E_STOPPING);
    group_wait(&tell->group);
    tell_free_list(tell->first);
    scope_done(&tell->scope);
    free(tell);
    lane->tell = NULL;
}
