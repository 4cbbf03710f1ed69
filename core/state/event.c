/* Events as the log keeps them (`KIND AT[,NEXT] JSON`) to events as clients see them. */
#include "base/clock.h"
#include "base/limits.h"
#include "state/inner.h"
#include "state/job.h"
#include <stdio.h>
#include <string.h>

void job_event_done(struct job_event *event)
{
    free(event->data);
    *event = (struct job_event){0};
}

bool event_parse(const char *id, const char *text, size_t len, uint64_t number,
                 struct job_event *ret)
{
    const char *space = memchr(text, ' ', len);
    if (!space || (size_t)(space - text) >= sizeof(ret->kind))
        return false;
    const char *at = space + 1;
    size_t at_len = len - (size_t)(at - text);
    const char *body = memchr(at, ' ', at_len);
    if (!body || body + 1 >= text + len || body[1] != '{')
        return false;
    struct job_event event = {.number = number, .at_ms = text_u64(at, at_len)};
    memcpy(event.kind, text, (size_t)(space - text));
    const char *comma = memchr(at, ',', (size_t)(body - at));
    body += 2; /* after the { */
    size_t body_len = (size_t)(text + len - body);
    char when[25], next[64] = "";
    clock_format(event.at_ms, when);
    if (comma) {
        char due[25];
        clock_format(text_u64(comma + 1, (size_t)(text + len - comma - 1)), due);
        snprintf(next, sizeof(next), "\"next_retry_at\":\"%s\",", due);
    }
    event.data = mem_format("{\"job\":\"%s\",\"at\":\"%s\"%s%s%.*s", id, when,
                            body_len > 1 ? "," : "", next, (int)body_len, body);
    event.len = strlen(event.data);
    event.is_last = strcmp(event.kind, "job.completed") == 0 ||
                    strcmp(event.kind, "job.failed") == 0 ||
                    strcmp(event.kind, "job.cancelled") == 0;
    *ret = event;
    return true;
}

int job_events(struct store *store, const char *id, uint64_t after, uint32_t max,
               struct job_event **ret_events, size_t *ret_count, uint64_t *ret_total,
               struct error *err)
{
    call_auto struct call call;
    call_init(&call, store, SCRIPT_events, store_partition(store, id));
    call_key(&call, "log", id);
    call_u64(&call, after);
    call_u64(&call, after + (max ? max : 1) - 1);
    struct reply reply;
    int rc = call_run(&call, 0, &reply, err);
    if (rc != MR_OK)
        return rc;
    const struct reply *list = reply_item(&reply, 1);
    struct job_event *events = NULL;
    size_t count = 0;
    if (list->count > 0)
        events = mem_zalloc(list->count * sizeof(*events));
    for (size_t i = 0; i < list->count; i++)
        if (event_parse(id, reply_text(list, i), list->items[i].len, after + i + 1, &events[count]))
            count++;
    *ret_events = events;
    *ret_count = count;
    *ret_total = reply_u64(&reply, 0);
    reply_done(&reply);
    return MR_OK;
}
