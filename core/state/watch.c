/* Watches.
 *
 * A watch keeps the number of the last event given (`position`) and events that arrived and were
 * not taken yet, in order. The channel's messages are appended while they continue the numbering;
 * a gap, an interruption or too long a silence only sets `must_read`, and the reader then fetches
 * from the log what is newer than what it has.
 *
 * While Redis is away, or refuses to answer, a watch waits for it: an outage is a silence, not an
 * end. Whoever cannot wait gives watch_next a time. */
#include "state/watch.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/limits.h"
#include "state/inner.h"
#include <stdio.h>
#include <string.h>

#define READ_AT_ONCE 200u
#define SILENCE_MS   5000u
#define AGAIN_MS     250u       /* between reads that Redis refuses */
#define BACKLOG_MAX  (4u << 20) /* beyond it messages are dropped and read from the log later */

struct queued {
    struct job_event event;
    struct queued *next;
};
struct watch {
    struct redis_listener listener;
    struct store *store;
    struct redis_sub *sub;
    char id[ID_BYTES];
    uint64_t position; /* of the last event given */
    uint64_t seen;     /* of the last event queued */
    struct queued *first, **end;
    size_t backlog;
    bool must_read, is_gone, is_over, is_patient, was_read;
    struct wait *waiter;
};

static void push(struct watch *watch, struct job_event *event)
{
    struct queued *queued = mem_zalloc(sizeof(*queued));
    queued->event = *event;
    *watch->end = queued;
    watch->end = &queued->next;
    watch->backlog += event->len + sizeof(*queued);
}

static void pop(struct watch *watch, struct job_event *ret)
{
    struct queued *queued = watch->first;
    watch->first = queued->next;
    if (!watch->first)
        watch->end = &watch->first;
    watch->backlog -= queued->event.len + sizeof(*queued);
    *ret = queued->event;
    free(queued);
}

/* One event of a message. */
static void receive(struct watch *watch, const char *text, size_t len, uint64_t number)
{
    struct job_event event;
    if (number != 0 && number <= watch->seen)
        return;
    if (number > watch->seen + 1 || watch->must_read || watch->backlog > BACKLOG_MAX) {
        if (number != 0)
            watch->must_read = true; /* live ones are lost to a slow reader */
        return;
    }
    if (!event_parse(watch->id, text, len, number, &event))
        return;
    if (number != 0)
        watch->seen = number;
    push(watch, &event);
}

static void on_message(struct redis_listener *listener, const char *text, size_t len)
{
    struct watch *watch = listener->data;
    if (!text) {
        watch->must_read = true;
    } else if (len == 4 && memcmp(text, "gone", 4) == 0) {
        watch->is_gone = true;
    } else {
        uint64_t number = text_u64(text, len);
        const char *line = memchr(text, '\n', len), *end = text + len;
        while (line && ++line < end) {
            const char *next = memchr(line, '\n', (size_t)(end - line));
            receive(watch, line, (size_t)((next ? next : end) - line), number);
            if (number != 0)
                number++;
            line = next;
        }
    }
    if (watch->waiter)
        wait_wake(watch->waiter, MR_OK);
}

int watch_open(struct store *store, struct redis_sub *sub, const char *id, uint64_t after,
               struct watch **ret_watch, struct error *err)
{
    struct watch *watch = mem_zalloc(sizeof(*watch));
    char channel[STORE_KEY_BYTES];
    watch->store = store;
    watch->sub = sub;
    snprintf(watch->id, sizeof(watch->id), "%s", id);
    watch->position = watch->seen = after;
    watch->end = &watch->first;
    watch->must_read = watch->is_patient = true;
    watch->listener.fn = on_message;
    watch->listener.data = watch;
    store_key(store, store_partition(store, id), "watch", id, channel);
    int rc = redis_listen(sub, channel, &watch->listener, 0, err);
    if (rc != MR_OK) {
        free(watch);
        return rc;
    }
    *ret_watch = watch;
    return MR_OK;
}

void watch_close(struct watch *watch)
{
    if (!watch)
        return;
    redis_unlisten(watch->sub, &watch->listener);
    while (watch->first) {
        struct job_event event;
        pop(watch, &event);
        job_event_done(&event);
    }
    free(watch);
}

void watch_set_patient(struct watch *watch, bool is_patient)
{
    watch->is_patient = is_patient;
}

uint64_t watch_position(const struct watch *watch)
{
    return watch->position;
}

size_t watch_backlog(const struct watch *watch)
{
    return watch->backlog;
}

/* The end of a job whose log has expired, as one event. */
static void push_end(struct watch *watch, const struct job_view *view)
{
    char when[25];
    clock_format(view->finished_ms, when);
    struct job_event event = {.number = view->events, .at_ms = view->finished_ms, .is_last = true};
    snprintf(event.kind, sizeof(event.kind), "job.%s", view->status);
    event.data = view->error
                     ? mem_format("{\"job\":\"%s\",\"at\":\"%s\",\"error\":%s,\"progress\":%u}",
                                  view->id, when, view->error, view->progress)
                     : mem_format("{\"job\":\"%s\",\"at\":\"%s\",\"progress\":%u}", view->id, when,
                                  view->progress);
    event.len = strlen(event.data);
    watch->seen = view->events;
    push(watch, &event);
}

/* Nothing is newer in the log: is the job over, or gone? The end is decided by its status. */
static int look_at_job(struct watch *watch, struct error *err)
{
    struct job_view *view;
    int rc = job_read(watch->store, watch->id, 0, &view, err);
    if (rc != MR_OK)
        return rc;
    if (!view) {
        watch->is_gone = true;
        return MR_OK;
    }
    bool is_final = view->is_ended && !(watch->is_patient && view->next_retry_ms > 0);
    if (is_final && !view->has_log && view->events > watch->seen)
        push_end(watch, view);
    else if (is_final && (!view->has_log || view->events <= watch->seen))
        watch->is_over = true;
    job_view_free(view);
    return MR_OK;
}

/* Reads what is newer than `seen` from the log. */
static int read_log(struct watch *watch, struct error *err)
{
    struct job_event *events;
    size_t count;
    uint64_t total, after = watch->seen;
    watch->must_read = false; /* what arrives while reading counts again */
    int rc = job_events(watch->store, watch->id, after, READ_AT_ONCE, &events, &count, &total, err);
    if (rc != MR_OK) {
        watch->must_read = true;
        return rc;
    }
    for (size_t i = 0; i < count; i++) {
        if (events[i].number == watch->seen + 1) {
            watch->seen = events[i].number;
            push(watch, &events[i]);
        } else {
            job_event_done(&events[i]);
        }
    }
    free(events);
    if (watch->seen < total)
        watch->must_read = true;
    else if (total > 0 && total < after && watch->seen == after)
        watch->position = watch->seen = total; /* Redis has forgotten its last events */
    if (count == 0)
        rc = look_at_job(watch, err);
    if (rc != MR_OK)
        watch->must_read = true;
    return rc;
}

static bool ends_watch(const struct watch *watch, const struct job_event *event)
{
    if (!event->is_last)
        return false;
    return !(watch->is_patient && strcmp(event->kind, "job.failed") == 0 &&
             strstr(event->data, "\"next_retry_at\""));
}

/* Whether the log goes on after this end: the job was run again. */
int watch_next(struct watch *watch, uint64_t timeout_ms, struct job_event *ret_event,
               struct error *err)
{
    uint64_t now = clock_now_ms();
    uint64_t due_ms = timeout_ms < UINT64_MAX - now ? now + timeout_ms : UINT64_MAX;
    for (;;) {
        if (watch->first) {
            pop(watch, ret_event);
            if (ret_event->number != 0)
                watch->position = ret_event->number;
            /* An end in the middle of the log belongs to an earlier run. */
            ret_event->is_last = ends_watch(watch, ret_event) && !watch->first && !watch->must_read;
            if (ret_event->is_last)
                watch->is_over = true;
            return MR_OK;
        }
        if (watch->is_over)
            return MR_E_STOPPING;
        if (watch->is_gone)
            return error_set(err, MR_E_LOST, "there is no job %s", watch->id);
        int away = MR_OK;
        if (watch->must_read) {
            away = read_log(watch, err);
            if (away == MR_OK)
                continue;
            if (away != MR_E_STORE || scope_error(scope_current()) != MR_OK)
                return away;
        }
        now = clock_now_ms();
        if (now >= due_ms)
            return MR_E_TIMEOUT;
        uint16_t dice;
        hash_random(&dice, sizeof(dice));
        uint64_t silence = SILENCE_MS + dice % 2500u, left = due_ms - now;
        struct wait wait;
        wait_init(&wait, watch->store->loop);
        watch->waiter = &wait;
        if (away != MR_OK)
            silence = AGAIN_MS;
        int rc = wait_for(&wait, left < silence ? left : silence);
        watch->waiter = NULL;
        if (wait.expired) {
            if (left > silence)
                watch->must_read = true; /* the backstop */
        } else if (rc != MR_OK) {
            return error_set(err, rc, "ended while watching job %s", watch->id);
        }
    }
}
