/* One turn of the loop is one turn of libuv: timers, poll and its callbacks, then the drain.
 *
 * Callbacks never resume a fiber. They wake waits (wait.c), which puts fibers on the ready list;
 * the drain, in libuv's check phase right after the poll callbacks, resumes those that were on the
 * list when it began. What becomes ready meanwhile waits for the next turn, so that I/O is looked
 * at between any two resumes of a fiber. While the list is not empty an idle handle keeps libuv
 * from blocking in poll.
 *
 * Posts from other threads go through a locked list and one async handle. That handle counts as
 * active only while fibers are alive: a fiber may wait for a thread, and nothing else would keep
 * the loop running. */
#include "loop/loop.h"
#include "base/clock.h"
#include "base/mem.h"
#include "loop/inner.h"
#include <stdio.h>

_Noreturn void loop_misuse(const char *what)
{
    fprintf(stderr, "millrace: %s\n", what);
    abort();
}

/* Strands */

struct strand *strand_self(void)
{
    struct fiber *fiber = fiber_self();
    return fiber ? fiber_data(fiber) : NULL;
}

static void on_idle(uv_idle_t *handle)
{
    (void)handle;
}

void strand_ready(struct strand *strand)
{
    if (strand->ready)
        return;
    struct loop_private *priv = strand->loop->priv;
    if (!priv->ready)
        uv_idle_start(&priv->idle, on_idle);
    strand->ready = true;
    strand->next = NULL;
    *priv->ready_end = strand;
    priv->ready_end = &strand->next;
}

static void strand_main(void *arg)
{
    struct strand *strand = arg;
    struct loop *loop = strand->loop;
    strand->fn(strand->arg);
    if (strand->shield != 0)
        loop_misuse("a fiber ended inside wait_shield");
    free(strand);
    if (--loop->fibers == 0)
        uv_unref((uv_handle_t *)&loop->priv->async);
}

int loop_spawn(struct loop *loop, struct scope *scope, void (*fn)(void *arg), void *arg)
{
    struct strand *strand = mem_zalloc(sizeof(*strand));
    strand->fiber = fiber_new(strand_main, strand);
    if (!strand->fiber) {
        free(strand);
        return MR_E_INTERNAL;
    }
    fiber_set_data(strand->fiber, strand);
    strand->loop = loop;
    strand->fn = fn;
    strand->arg = arg;
    strand->scope = scope;
    if (loop->fibers++ == 0)
        uv_ref((uv_handle_t *)&loop->priv->async);
    strand_ready(strand);
    return MR_OK;
}

/* The turn */

static void on_prepare(uv_prepare_t *handle)
{
    struct loop *loop = handle->data;
    if (!loop->priv->ready)
        watchdog_note_poll(loop->priv);
}

static void drain(struct loop *loop)
{
    struct loop_private *priv = loop->priv;
    struct strand *list = priv->ready;
    priv->ready = NULL;
    priv->ready_end = &priv->ready;
    uint64_t begin_us = loop->turn_us;
    while (list) {
        struct strand *strand = list;
        list = strand->next;
        strand->ready = false;
        watchdog_note_resume(priv, strand);
        fiber_resume(strand->fiber); /* the strand may be gone now */
        uint64_t end_us = clock_now_us();
        watchdog_note_back(priv, begin_us, end_us);
        begin_us = end_us;
    }
    if (!priv->ready)
        uv_idle_stop(&priv->idle);
}

static void on_check(uv_check_t *handle)
{
    struct loop *loop = handle->data;
    loop->turn_us = clock_now_us();
    watchdog_note_work(loop->priv, loop->turn_us);
    drain(loop);
}

void loop_run(struct loop *loop)
{
    loop->priv->stopped = false;
    uv_run(&loop->uv, UV_RUN_DEFAULT);
}

void loop_run_fibers(struct loop *loop)
{
    loop->priv->stopped = false;
    while (loop->fibers > 0 && !loop->priv->stopped)
        uv_run(&loop->uv, UV_RUN_ONCE);
}

void loop_stop(struct loop *loop)
{
    loop->priv->stopped = true;
    uv_stop(&loop->uv);
}

/* Posts */

void loop_post(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    struct loop_private *priv = loop->priv;
    struct post *post = mem_alloc(sizeof(*post));
    *post = (struct post){.fn = fn, .arg = arg};
    pthread_mutex_lock(&priv->posts_lock);
    *priv->posts_end = post;
    priv->posts_end = &post->next;
    /* Under the lock: loop_done, which takes it too, cannot close the handle in between. */
    uv_async_send(&priv->async);
    pthread_mutex_unlock(&priv->posts_lock);
}

static void run_posts(struct loop_private *priv)
{
    pthread_mutex_lock(&priv->posts_lock);
    struct post *list = priv->posts;
    priv->posts = NULL;
    priv->posts_end = &priv->posts;
    pthread_mutex_unlock(&priv->posts_lock);
    while (list) {
        struct post *post = list;
        list = post->next;
        post->fn(post->arg);
        free(post);
    }
}

static void on_async(uv_async_t *handle)
{
    struct loop *loop = handle->data;
    watchdog_touch(loop);
    run_posts(loop->priv);
}

/* Life */

int loop_init(struct loop *loop, struct error *err)
{
    *loop = (struct loop){0};
    int rc = uv_loop_init(&loop->uv);
    if (rc != 0)
        return error_set(err, MR_E_INTERNAL, "no event loop: %s", uv_strerror(rc));
    struct loop_private *priv = mem_zalloc(sizeof(*priv));
    loop->priv = priv;
    rc = uv_async_init(&loop->uv, &priv->async, on_async);
    if (rc != 0) {
        uv_loop_close(&loop->uv);
        free(priv);
        loop->priv = NULL;
        return error_set(err, MR_E_INTERNAL, "no event loop: %s", uv_strerror(rc));
    }
    uv_prepare_init(&loop->uv, &priv->prepare);
    uv_check_init(&loop->uv, &priv->check);
    uv_idle_init(&loop->uv, &priv->idle);
    uv_timer_init(&loop->uv, &priv->timer);
    priv->async.data = priv->prepare.data = priv->check.data = priv->timer.data = loop;
    uv_prepare_start(&priv->prepare, on_prepare);
    uv_check_start(&priv->check, on_check);
    uv_unref((uv_handle_t *)&priv->async);
    uv_unref((uv_handle_t *)&priv->prepare);
    uv_unref((uv_handle_t *)&priv->check);
    priv->ready_end = &priv->ready;
    priv->posts_end = &priv->posts;
    pthread_mutex_init(&priv->posts_lock, NULL);
    priv->armed_ms = UINT64_MAX;
    loop->turn_us = clock_now_us();
    return MR_OK;
}

static void print_open(uv_handle_t *handle, void *arg)
{
    (void)arg;
    fprintf(stderr, "millrace: still open: %s%s\n", uv_handle_type_name(uv_handle_get_type(handle)),
            uv_is_closing(handle) ? " (closing)" : "");
}

void loop_done(struct loop *loop)
{
    struct loop_private *priv = loop->priv;
    if (!priv)
        return;
    if (loop->fibers != 0)
        loop_misuse("the loop ends while fibers are alive");
    run_posts(priv);
    uv_close((uv_handle_t *)&priv->async, NULL);
    uv_close((uv_handle_t *)&priv->prepare, NULL);
    uv_close((uv_handle_t *)&priv->check, NULL);
    uv_close((uv_handle_t *)&priv->idle, NULL);
    uv_close((uv_handle_t *)&priv->timer, NULL);
    /* Close callbacks run in turns of the loop; a handle of someone else that is still open must
     * not keep us here. */
    bool closed = false;
    for (int turn = 0; turn < 100 && !closed; turn++) {
        uv_run(&loop->uv, UV_RUN_NOWAIT);
        closed = uv_loop_close(&loop->uv) == 0;
    }
    if (!closed) {
        uv_walk(&loop->uv, print_open, NULL);
#ifndef NDEBUG
        loop_misuse("the loop ends with open handles");
#endif
    }
    pthread_mutex_destroy(&priv->posts_lock);
    free(priv->heap);
    free(priv);
    loop->priv = NULL;
}
