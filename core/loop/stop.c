/* See stop.h. The signal watchers are unreferenced: they do not keep a loop running that has
 * nothing else to do. */
#include "loop/stop.h"

#include "base/log.h"
#include <signal.h>

static const int stop_signals[] = {SIGTERM, SIGQUIT, SIGINT, SIGUSR1, SIGHUP, SIGUSR2};

static void stop_tell(struct stop *stop, enum stop_kind kind)
{
    if (kind <= (enum stop_kind)stop->kind)
        return;
    stop->kind = (int)kind;
    stop->fn(stop->arg, kind);
}

static void stop_on_signal(uv_signal_t *handle, int number)
{
    struct stop *stop = handle->data;
    if (number == SIGUSR1)
        log_reopen();
    else if (number == SIGINT)
        stop_tell(stop, STOP_NOW);
    else if (number != SIGHUP && number != SIGUSR2) /* the master's business: a reload */
        stop_tell(stop, STOP_DRAIN);
}

static void stop_on_lifeline(void *arg, int status, int events)
{
    struct stop *stop = arg;
    (void)status;
    (void)events;
    poll_close(stop->lifeline);
    stop->lifeline = NULL;
    log_event(LOG_WARN, "the master is gone: draining", NULL);
    stop_tell(stop, STOP_DRAIN);
}

int stop_watch(struct stop *stop, struct loop *loop, int lifeline_fd,
               void (*fn)(void *arg, enum stop_kind kind), void *arg, struct error *err)
{
    *stop = (struct stop){.loop = loop, .lifeline_fd = lifeline_fd, .fn = fn, .arg = arg};
    for (size_t i = 0; i < sizeof stop_signals / sizeof stop_signals[0]; i++) {
        uv_signal_t *handle = &stop->signals[i];
        int rc = uv_signal_init(&loop->uv, handle);
        handle->data = stop;
        if (rc == 0)
            rc = uv_signal_start(handle, stop_on_signal, stop_signals[i]);
        if (rc != 0)
            return error_set(err, MR_E_INTERNAL, "cannot watch signal %d: %s", stop_signals[i],
                             uv_strerror(rc));
        uv_unref((uv_handle_t *)handle);
    }
    if (lifeline_fd < 0)
        return MR_OK;
    stop->lifeline = poll_open(loop, lifeline_fd, stop_on_lifeline, stop);
    if (!stop->lifeline)
        return error_set(err, MR_E_INTERNAL, "cannot watch the lifeline");
    return poll_set(stop->lifeline, UV_READABLE | UV_DISCONNECT);
}

void stop_unwatch(struct stop *stop)
{
    for (size_t i = 0; i < sizeof stop_signals / sizeof stop_signals[0]; i++)
        if (!uv_is_closing((uv_handle_t *)&stop->signals[i]))
            uv_close((uv_handle_t *)&stop->signals[i], NULL);
    poll_close(stop->lifeline);
    stop->lifeline = NULL;
}
