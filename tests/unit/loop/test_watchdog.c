/* The watchdog's mark: who runs, since when, and what a reader on another thread sees. */
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "loop/wait.h"
#include "loop/watchdog.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct loop loop;
static struct watchdog_mark mark;

static int setup(void **state)
{
    (void)state;
    clock_hold(1000);
    memset(&mark, 0, sizeof(mark));
    int rc = loop_init(&loop, NULL);
    watchdog_start(&loop, &mark);
    return rc;
}

static int teardown(void **state)
{
    (void)state;
    loop_done(&loop);
    clock_hold(0);
    fiber_trim();
    return 0;
}

struct seen {
    bool any;
    char job[40], stage[WATCHDOG_TEXT], plugin[WATCHDOG_TEXT];
};

static struct seen look(void)
{
    struct seen seen = {0};
    seen.any = watchdog_read(&mark, seen.job, seen.stage, seen.plugin);
    return seen;
}

#define LONG_NAME "a-name-that-is-longer-than-the-mark-can-hold-and-has-to-be-cut-somewhere-here"

static void labelled(void *arg)
{
    assert_false(look().any);
    watchdog_label("job-1", arg, "echo");
    struct seen seen = look();
    assert_true(seen.any);
    assert_string_equal(seen.job, "job-1");
    assert_true(strncmp(seen.stage, arg, WATCHDOG_TEXT - 1) == 0);
    assert_string_equal(seen.plugin, "echo");
    wait_yield(&loop);
    seen = look();
    assert_true(seen.any);
    assert_true(strncmp(seen.stage, arg, WATCHDOG_TEXT - 1) == 0);
    watchdog_label("job-2", NULL, NULL);
    seen = look();
    assert_string_equal(seen.job, "job-2");
    assert_string_equal(seen.stage, "");
    wait_yield(&loop);
    watchdog_label(NULL, NULL, NULL);
    assert_false(look().any);
    wait_yield(&loop);
    assert_false(look().any);
}

static void unlabelled(void *arg)
{
    (void)arg;
    for (int i = 0; i < 5; i++) {
        assert_false(look().any);
        wait_yield(&loop);
    }
}

static void test_who_runs(void **state)
{
    (void)state;
    loop_spawn(&loop, NULL, labelled, "one");
    loop_spawn(&loop, NULL, unlabelled, NULL);
    loop_spawn(&loop, NULL, labelled, LONG_NAME);
    loop_run_fibers(&loop);
    assert_false(look().any);
}

static void holds(void *arg)
{
    watchdog_label("job-1", "slow", "echo");
    assert_int_equal(watchdog_standing_ms(&mark), 0);
    clock_turn(*(uint64_t *)arg); /* as if it had computed for that long */
    assert_int_equal(watchdog_standing_ms(&mark), *(uint64_t *)arg);
    wait_yield(&loop);
    assert_int_equal(watchdog_standing_ms(&mark), 0);
}

static void test_standing(void **state)
{
    (void)state;
    assert_int_equal(log_open("/dev/null", LOG_TEXT, LOG_WARN, "test", NULL), MR_OK);
    uint64_t ms = LIMIT_HOLD_MS + 1, longest_ms = 7;
    loop_spawn(&loop, NULL, holds, &ms);
    loop_run_fibers(&loop);
    assert_int_equal(watchdog_holds(&loop, &longest_ms), 1);
    assert_int_equal(longest_ms, ms);
    ms = LIMIT_HOLD_MS;
    loop_spawn(&loop, NULL, holds, &ms);
    loop_run_fibers(&loop);
    assert_int_equal(watchdog_holds(&loop, NULL), 1);
}

static void unlabelled_hold(void *arg)
{
    clock_turn(*(uint64_t *)arg);
}

static void holds_to_its_end(void *arg)
{
    watchdog_label("job-2", "slow", "echo");
    clock_turn(*(uint64_t *)arg);
    watchdog_label(NULL, NULL, NULL);
}

/* The line names who held the loop although its work was done before the resume was over; a later
 * hold of nobody in particular names nobody. */
static void test_hold_is_named(void **state)
{
    (void)state;
    char file[] = "/tmp/test_watchdog.XXXXXX", text[600] = "";
    int fd = mkstemp(file);
    assert_true(fd >= 0);
    assert_int_equal(log_open(file, LOG_TEXT, LOG_WARN, "test", NULL), MR_OK);
    uint64_t ms = LIMIT_HOLD_MS + 1;
    loop_spawn(&loop, NULL, holds_to_its_end, &ms);
    loop_run_fibers(&loop);
    loop_spawn(&loop, NULL, unlabelled_hold, &ms);
    loop_run_fibers(&loop);
    assert_int_equal(log_open("/dev/null", LOG_TEXT, LOG_WARN, "test", NULL), MR_OK);
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    unlink(file);
    char *second = strchr(text, '\n');
    assert_non_null(second);
    assert_non_null(strstr(second, "held the loop"));
    assert_null(strstr(second, "job="));
    *second = '\0';
    assert_non_null(strstr(text, "job=job-2 stage=slow plugin=echo"));
}

/* While the loop waits in poll it does not stand still, however long. */
static struct wait *waiting;

static void wake_waiting(void *unused)
{
    (void)unused;
    wait_wake(waiting, MR_OK);
}

static void *wakes_later(void *arg)
{
    /* The loop has nothing to do: it reaches its poll, where the mark is 0. */
    while (atomic_load(&mark.since_us) != 0) {
    }
    clock_turn(5000);
    *(uint64_t *)arg = watchdog_standing_ms(&mark);
    loop_post(&loop, wake_waiting, NULL);
    return NULL;
}

static void waits(void *arg)
{
    (void)arg;
    struct wait wait;
    wait_init(&wait, &loop);
    waiting = &wait;
    assert_int_equal(wait_for(&wait, UINT64_MAX), MR_OK);
}

static void test_poll_is_no_standing(void **state)
{
    (void)state;
    uint64_t standing_ms = 1;
    loop_spawn(&loop, NULL, waits, NULL);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wakes_later, &standing_ms), 0);
    loop_run_fibers(&loop);
    pthread_join(thread, NULL);
    assert_int_equal(standing_ms, 0);
}

/* A reader never sees texts of two labels mixed. */
static _Atomic bool stop_reading;

static void *reads_always(void *arg)
{
    unsigned *mixed = arg;
    while (!atomic_load(&stop_reading)) {
        struct seen seen = look();
        if (seen.any && (strcmp(seen.job, seen.stage) != 0 || strcmp(seen.job, seen.plugin) != 0))
            ++*mixed;
    }
    return NULL;
}

static void relabels(void *arg)
{
    for (int i = 0; i < 2000; i++) {
        watchdog_label(arg, arg, arg);
        wait_yield(&loop);
    }
}

static void test_reader_sees_whole_labels(void **state)
{
    (void)state;
    unsigned mixed = 0;
    atomic_store(&stop_reading, false);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, reads_always, &mixed), 0);
    loop_spawn(&loop, NULL, relabels, "alpha");
    loop_spawn(&loop, NULL, relabels, "beta-beta-beta-beta");
    loop_run_fibers(&loop);
    atomic_store(&stop_reading, true);
    pthread_join(thread, NULL);
    assert_int_equal(mixed, 0);
}

static void yields_labelled(void *arg)
{
    if (*(bool *)arg)
        watchdog_label("4a6f62", "answer", "llm");
    for (int i = 0; i < 500; i++)
        wait_yield(&loop);
}

static void test_figures(void **state)
{
    (void)state;
    clock_hold(0);
    double each[3];
    for (int round = 0; round < 3; round++) {
        watchdog_start(&loop, round == 0 ? NULL : &mark);
        bool labels = round == 2;
        for (int i = 0; i < 100; i++)
            loop_spawn(&loop, NULL, yields_labelled, &labels);
        uint64_t start_us = clock_now_us();
        loop_run_fibers(&loop);
        each[round] = (double)(clock_now_us() - start_us) / 50.0;
    }
    print_message("a resume: %.0f ns without a mark, %.0f with, %.0f with labels that alternate\n",
                  each[0], each[1], each[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_who_runs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_standing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hold_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_poll_is_no_standing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reader_sees_whole_labels, setup, teardown),
        cmocka_unit_test_setup_teardown(test_figures, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
