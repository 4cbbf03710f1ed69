/* Watching descriptors: events, changes of what is watched, closing from the callback, errors. */
#include "loop/poll.h"
#include "loop/wait.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static struct loop loop;

static int setup(void **state)
{
    (void)state;
    return loop_init(&loop, NULL);
}

static int teardown(void **state)
{
    (void)state;
    loop_done(&loop);
    fiber_trim();
    return 0;
}

struct end {
    struct poll *poll;
    int fd, status, events;
    unsigned calls;
    struct wait *wait;
};

static void on_event(void *arg, int status, int events)
{
    struct end *end = arg;
    end->status = status;
    end->events = events;
    end->calls++;
    poll_set(end->poll, 0);
    wait_wake(end->wait, MR_OK);
}

static int await(struct end *end, int events, uint64_t timeout_ms)
{
    struct wait wait;
    wait_init(&wait, &loop);
    end->wait = &wait;
    assert_int_equal(poll_set(end->poll, events), MR_OK);
    int code = wait_for(&wait, timeout_ms);
    poll_set(end->poll, 0);
    return code;
}

static void talks(void *arg)
{
    (void)arg;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    struct end end = {.fd = fds[0]};
    end.poll = poll_open(&loop, fds[0], on_event, &end);
    assert_non_null(end.poll);
    assert_int_equal(await(&end, UV_READABLE, 5), MR_E_TIMEOUT);
    assert_int_equal(end.calls, 0);
    assert_int_equal(await(&end, UV_WRITABLE, 1000), MR_OK);
    assert_int_equal(end.events, UV_WRITABLE);
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_int_equal(await(&end, UV_READABLE, 1000), MR_OK);
    assert_true(end.events & UV_READABLE);
    assert_int_equal(end.status, 0);
    char c;
    assert_int_equal(read(fds[0], &c, 1), 1);
    close(fds[1]);
    assert_int_equal(await(&end, UV_READABLE | UV_DISCONNECT, 1000), MR_OK);
    assert_int_equal(read(fds[0], &c, 1), 0);
    unsigned calls = end.calls;
    poll_close(end.poll);
    close(fds[0]);
    wait_yield(&loop);
    assert_int_equal(end.calls, calls);
}

static void test_events(void **state)
{
    (void)state;
    loop_spawn(&loop, NULL, talks, NULL);
    loop_run_fibers(&loop);
}

static void test_cannot_watch(void **state)
{
    (void)state;
    struct end end = {0};
    assert_null(poll_open(&loop, -1, on_event, &end));
    FILE *file = tmpfile();
    assert_non_null(file);
    assert_null(poll_open(&loop, fileno(file), on_event, &end));
    fclose(file);
    poll_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_events, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cannot_watch, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
