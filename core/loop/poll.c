#include "loop/poll.h"
#include "base/mem.h"
#include "loop/watchdog.h"

struct poll {
    uv_poll_t uv;
    struct loop *loop;
    void (*fn)(void *arg, int status, int events);
    void *arg;
    int events;
};

static void on_event(uv_poll_t *handle, int status, int events)
{
    struct poll *poll = handle->data;
    watchdog_touch(poll->loop);
    if (status < 0)
        poll->events = 0; /* libuv stops a handle that failed */
    poll->fn(poll->arg, status, events);
}

struct poll *poll_open(struct loop *loop, int fd, void (*fn)(void *arg, int status, int events),
                       void *arg)
{
    struct poll *poll = mem_zalloc(sizeof(*poll));
    if (uv_poll_init(&loop->uv, &poll->uv, fd) != 0) {
        free(poll);
        return NULL;
    }
    poll->uv.data = poll;
    poll->loop = loop;
    poll->fn = fn;
    poll->arg = arg;
    return poll;
}

int poll_set(struct poll *poll, int events)
{
    if (events == poll->events)
        return MR_OK;
    int rc = events ? uv_poll_start(&poll->uv, events, on_event) : uv_poll_stop(&poll->uv);
    if (rc != 0)
        return MR_E_INTERNAL;
    poll->events = events;
    return MR_OK;
}

static void on_close(uv_handle_t *handle)
{
    free(handle->data);
}

void poll_close(struct poll *poll)
{
    if (poll)
        uv_close((uv_handle_t *)&poll->uv, on_close);
}
