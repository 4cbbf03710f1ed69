/* One work request of libuv a call, on the waiting fiber's stack.
 *
 * The fiber waits unshielded first. When its scope ends it, the request is called off; libuv agrees
 * only while no thread has begun it, and reports it as cancelled in a later turn. In either case
 * the second, shielded wait is for libuv to let go of the request. */
#include "loop/offload.h"
#include "loop/inner.h"

struct offload {
    uv_work_t work;
    void (*fn)(void *arg);
    void *arg;
    struct wait *waiter;
    const struct strand *strand;
    bool done; /* libuv let go of it */
    bool ran;
};

static void on_thread(uv_work_t *work)
{
    struct offload *offload = work->data;
    watchdog_note_thread(offload->strand);
    offload->fn(offload->arg);
    watchdog_note_thread(NULL);
}

static void on_done(uv_work_t *work, int status)
{
    struct offload *offload = work->data;
    watchdog_touch(offload->waiter->loop);
    offload->done = true;
    offload->ran = status == 0;
    wait_wake(offload->waiter, MR_OK);
}

int offload_run(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    struct offload offload = {.fn = fn, .arg = arg, .strand = strand_self()};
    struct wait wait, rest;
    wait_init(&wait, loop);
    int code = scope_error(wait.scope);
    if (code != 0 && strand_self()->shield == 0)
        return code;
    offload.work.data = &offload;
    offload.waiter = &wait;
    if (uv_queue_work(&loop->uv, &offload.work, on_thread, on_done) != 0)
        return MR_E_INTERNAL;
    code = wait_for(&wait, UINT64_MAX);
    if (!offload.done) {
        uv_cancel((uv_req_t *)&offload.work);
        wait_init(&rest, loop);
        offload.waiter = &rest;
        wait_shield(1);
        wait_for(&rest, UINT64_MAX);
        wait_shield(-1);
    }
    return offload.ran ? MR_OK : code;
}

struct reading {
    const char *text;
    size_t len;
    json_t *value;
    struct error error;
};

static void read_text(void *arg)
{
    struct reading *reading = arg;
    reading->value = json_read(reading->text, reading->len, 0, &reading->error);
}

int offload_json_read(struct loop *loop, const char *text, size_t len, json_t **ret_value,
                      struct error *err)
{
    struct reading reading = {.text = text, .len = len};
    if (len > OFFLOAD_JSON_BYTES) {
        int rc = offload_run(loop, read_text, &reading);
        if (rc != MR_OK)
            return error_set(err, rc, "%s", "stopped before the JSON text was read");
    } else {
        fiber_on_loop(read_text, &reading);
    }
    if (!reading.value) {
        if (err)
            *err = reading.error;
        return reading.error.code != MR_OK ? reading.error.code : MR_E_BAD_RESPONSE;
    }
    *ret_value = reading.value;
    return MR_OK;
}
