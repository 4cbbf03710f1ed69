/* The list of recent jobs. A token sees its own, and is told of no other: not by an `after` that
 * names one, nor by the last_id of a page that ended before anything was found (a time, then). */
#include "base/clock.h"
#include "fcgi/api_job_object.h"
#include "fcgi/paging.h"
#include "fcgi/problem.h"
#include <stdio.h>
#include <string.h>

#define LIST_STEP  100u        /* jobs looked at in one go */
#define LIST_BYTES (4u << 20)  /* a page that is longer ends early */
#define LIST_ROOM  (16u << 20) /* the last entry may go beyond it */

struct list {
    struct front *front;
    const struct config_token *token;
    const char *pipeline, *status; /* NULL: any */
    struct paging paging;
    uint32_t count;
    struct buf text;
    uint64_t at_ms; /* of the last job that was looked at */
    char id[ID_BYTES];
    char last_id[ID_BYTES]; /* of the last one that was added */
    bool is_end, is_full;
};

static bool is_wanted(const struct list *list, const struct job_view *view)
{
    return view != NULL && auth_sees(list->token, view->owner) &&
           (list->pipeline == NULL || strcmp(list->pipeline, view->pipeline) == 0) &&
           (list->status == NULL || strcmp(list->status, view->status) == 0);
}

static void add_job(struct list *list, const struct job_listed *item, const struct job_view *view)
{
    if (is_wanted(list, view)) {
        if (list->count == list->paging.limit || list->text.len > LIST_BYTES) {
            list->is_full = true;
            return;
        }
        if (list->count > 0) {
            buf_add_char(&list->text, ',');
        }
        job_object_add_brief(&list->text, view, list->front->config->prefix);
        list->count++;
        memcpy(list->last_id, item->id, sizeof(list->last_id));
    }
    list->at_ms = item->at_ms;
    memcpy(list->id, item->id, sizeof(list->id));
}

/* Looks at the next jobs. */
static int list_step(struct list *list, struct error *err)
{
    struct store *store = list->front->store;
    struct job_listed *items = NULL;
    size_t count = 0;
    int rc = job_list(store, false, list->at_ms, list->id[0] != '\0' ? list->id : NULL, LIST_STEP,
                      &items, &count, err);
    if (rc != MR_OK) {
        return rc;
    }
    struct job_view *views[LIST_STEP] = {NULL};
    rc = job_read_briefs(store, items, count, views, err);
    for (size_t i = 0; rc == MR_OK && i < count && !list->is_full; i++) {
        add_job(list, &items[i], views[i]);
    }
    for (size_t i = 0; i < count; i++) {
        job_view_free(views[i]);
    }
    list->is_end = count < LIST_STEP;
    free(items);
    return rc;
}

/* The place of `after`; false when the response is a problem. */
static bool list_find(struct list *list, struct exchange *exchange, struct response *response)
{
    struct store *store = list->front->store;
    struct job_listed item = {.at_ms = 0};
    struct job_view *view = NULL;
    struct error err;
    memcpy(item.id, list->paging.after, sizeof(item.id));
    int rc = job_find_listed(store, false, item.id, &item.at_ms, &err);
    if (rc == MR_OK && item.at_ms != 0) {
        rc = job_read_briefs(store, &item, 1, &view, &err);
    }
    bool is_there = rc == MR_OK && view != NULL && auth_sees(list->token, view->owner);
    job_view_free(view);
    if (rc != MR_OK) {
        front_fail(exchange, response, &err);
    } else if (!is_there) {
        paging_expired(exchange, response);
    }
    list->at_ms = item.at_ms;
    memcpy(list->id, item.id, sizeof(list->id));
    return is_there;
}

/* `after` and `status`; false when the response is a problem. */
static bool list_begin(struct list *list, struct exchange *exchange, struct response *response)
{
    static const char *const states[] = {"queued", "processing", "waiting", "completed",
                                         "failed", "cancelled",  NULL};
    const struct request *request = &exchange->request;
    list->pipeline = request_query(request, "pipeline");
    list->status = request_query(request, "status");
    bool is_known = list->status == NULL;
    for (size_t i = 0; states[i] != NULL && !is_known; i++) {
        is_known = strcmp(states[i], list->status) == 0;
    }
    if (!is_known) {
        problem_make(response, PROBLEM_BAD_JSON, request->id,
                     "status must be queued, processing, waiting, completed, failed or cancelled");
        return false;
    }
    if (!paging_read(request, response, &list->paging) ||
        !front_has_store(list->front, exchange, response)) {
        return false;
    }
    list->at_ms = list->paging.before_ms;
    return list->paging.after == NULL || list_find(list, exchange, response);
}

void jobs_list(struct front *front, struct exchange *exchange, struct response *response)
{
    uint64_t since = clock_now_ms();
    struct list list = {.front = front, .token = exchange->token};
    if (!list_begin(&list, exchange, response)) {
        return;
    }
    buf_init(&list.text, LIST_ROOM);
    paging_begin(&list.text);
    struct error err;
    int rc = MR_OK;
    do {
        rc = list_step(&list, &err);
    } while (rc == MR_OK && !list.is_end && !list.is_full && clock_now_ms() - since < PAGING_MS);
    if (rc != MR_OK) {
        front_fail(exchange, response, &err);
    } else {
        bool has_more = list.is_full || !list.is_end;
        char last[ID_BYTES + 24];
        snprintf(last, sizeof(last), "%s", list.last_id);
        if (has_more && list.count == 0) { /* all of this millisecond are looked at again */
            snprintf(last, sizeof(last), "@%llu", (unsigned long long)list.at_ms + 1);
        }
        paging_end(&list.text, has_more, last);
        response_json_text(response, 200, &list.text);
    }
    buf_done(&list.text);
}
