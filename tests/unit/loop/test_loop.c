/* The loop: spawning, order and fairness of resumes, posts from threads, what keeps it alive. */
#include "base/clock.h"
#include "base/limits.h"
#include "fiber/sanitize.h"
#include "loop/loop.h"
#include "loop/wait.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
    struct fiber_stats stats;
    fiber_get_stats(&stats);
    return stats.live == 0 ? 0 : -1;
}

static char order[64];

static void note(char c)
{
    size_t len = strlen(order);
    assert_true(len + 1 < sizeof(order));
    order[len] = c;
}

static void writes_twice(void *arg)
{
    char c = *(const char *)arg;
    note(c);
    assert_int_equal(wait_yield(&loop), MR_OK);
    note(c);
}

static void test_spawn_order(void **state)
{
    (void)state;
    memset(order, 0, sizeof(order));
    assert_int_equal(loop_spawn(&loop, NULL, writes_twice, "a"), MR_OK);
    assert_int_equal(loop_spawn(&loop, NULL, writes_twice, "b"), MR_OK);
    assert_string_equal(order, "");
    assert_int_equal(loop.fibers, 2);
    loop_run_fibers(&loop);
    assert_string_equal(order, "abab");
    assert_int_equal(loop.fibers, 0);
}

static void spawns(void *arg)
{
    note('1');
    assert_int_equal(loop_spawn(&loop, NULL, writes_twice, arg), MR_OK);
    note('2');
}

static void test_spawn_from_fiber(void **state)
{
    (void)state;
    memset(order, 0, sizeof(order));
    loop_spawn(&loop, NULL, spawns, "x");
    loop_run_fibers(&loop);
    assert_string_equal(order, "12xx");
}

static void test_out_of_stacks(void **state)
{
    (void)state;
    memset(order, 0, sizeof(order));
    fiber_set_limit(1);
    assert_int_equal(loop_spawn(&loop, NULL, writes_twice, "a"), MR_OK);
    assert_int_equal(loop_spawn(&loop, NULL, writes_twice, "b"), MR_E_INTERNAL);
    assert_int_equal(loop.fibers, 1);
    fiber_set_limit(LIMIT_FIBERS);
    loop_run_fibers(&loop);
    assert_string_equal(order, "aa");
}

/* Fibers that never stop being ready must not keep libuv's own events from being seen. */
struct spin {
    bool stop;
    unsigned rounds;
};

static void spins(void *arg)
{
    struct spin *spin = arg;
    while (!spin->stop) {
        spin->rounds++;
        wait_yield(&loop);
    }
}

static void stop_spinning(void *arg)
{
    ((struct spin *)arg)->stop = true;
}

static void *posts_stop(void *arg)
{
    loop_post(&loop, stop_spinning, arg);
    return NULL;
}

static void test_io_is_not_starved(void **state)
{
    (void)state;
    struct spin spin = {0};
    for (int i = 0; i < 10; i++)
        loop_spawn(&loop, NULL, spins, &spin);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, posts_stop, &spin), 0);
    loop_run_fibers(&loop);
    pthread_join(thread, NULL);
    assert_true(spin.stop);
}

/* Posts: order kept within a thread, none lost, run on the loop's thread. */
enum { THREADS = 4, POSTS = 2000 };
static struct {
    pthread_t loop_thread;
    unsigned seen[THREADS];
    unsigned total;
    struct wait *wait;
} posts;

struct numbered {
    unsigned thread, number;
};

static void take_post(void *arg)
{
    struct numbered *numbered = arg;
    assert_true(pthread_equal(pthread_self(), posts.loop_thread));
    assert_null(fiber_self());
    assert_int_equal(numbered->number, posts.seen[numbered->thread]);
    posts.seen[numbered->thread]++;
    free(numbered);
    if (++posts.total == THREADS * POSTS)
        wait_wake(posts.wait, MR_OK);
}

static void *posts_many(void *arg)
{
    unsigned thread = *(unsigned *)arg;
    for (unsigned i = 0; i < POSTS; i++) {
        struct numbered *numbered = malloc(sizeof(*numbered));
        *numbered = (struct numbered){thread, i};
        loop_post(&loop, take_post, numbered);
    }
    return NULL;
}

static void awaits_posts(void *arg)
{
    (void)arg;
    struct wait wait;
    wait_init(&wait, &loop);
    posts.wait = &wait;
    pthread_t threads[THREADS];
    unsigned ids[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        ids[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, posts_many, &ids[i]), 0);
    }
    /* Nothing but the threads can end this: the waiting fiber keeps the loop alive. */
    assert_int_equal(wait_for(&wait, UINT64_MAX), MR_OK);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void test_posts(void **state)
{
    (void)state;
    memset(&posts, 0, sizeof(posts));
    posts.loop_thread = pthread_self();
    loop_spawn(&loop, NULL, awaits_posts, NULL);
    loop_run(&loop);
    assert_int_equal(posts.total, THREADS * POSTS);
}

static void test_posts_left_run_at_end(void **state)
{
    (void)state;
    struct loop other;
    struct spin spin = {0};
    assert_int_equal(loop_init(&other, NULL), MR_OK);
    loop_post(&other, stop_spinning, &spin);
    loop_done(&other);
    assert_true(spin.stop);
}

static void stops_loop(void *arg)
{
    (void)arg;
    loop_stop(&loop);
    wait_yield(&loop);
    note('r');
}

static void test_stop(void **state)
{
    (void)state;
    memset(order, 0, sizeof(order));
    loop_spawn(&loop, NULL, stops_loop, NULL);
    loop_run(&loop);
    assert_int_equal(loop.fibers, 1);
    assert_string_equal(order, "");
    loop_run(&loop);
    assert_int_equal(loop.fibers, 0);
    assert_string_equal(order, "r");
}

static void test_run_without_work_returns(void **state)
{
    (void)state;
    loop_run(&loop);
    loop_run_fibers(&loop);
}

/* Prints figures. */
static void yields(void *arg)
{
    unsigned rounds = *(unsigned *)arg;
    while (rounds-- > 0)
        wait_yield(&loop);
}

static void sleeps_long(void *arg)
{
    (void)arg;
    assert_int_equal(wait_sleep(&loop, 3600000), MR_E_CANCELLED);
}

static size_t rss_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    unsigned long size = 0, resident = 0;
    assert_int_equal(fscanf(file, "%lu %lu", &size, &resident), 2);
    fclose(file);
    return (size_t)resident * (size_t)sysconf(_SC_PAGESIZE);
}

static void test_figures(void **state)
{
    (void)state;
    unsigned rounds = 20000;
    uint64_t start_us = clock_now_us();
    loop_spawn(&loop, NULL, yields, &rounds);
    loop_run_fibers(&loop);
    double alone = (double)(clock_now_us() - start_us) / rounds;
    rounds = 200;
    start_us = clock_now_us();
    for (int i = 0; i < 100; i++)
        loop_spawn(&loop, NULL, yields, &rounds);
    loop_run_fibers(&loop);
    double crowd = (double)(clock_now_us() - start_us) / (100.0 * rounds);
    struct scope scope;
    scope_init(&scope, NULL);
    size_t count = sanitize_mappings_fit(20000) ? 20000 : 200;
    fiber_trim();
    size_t before = rss_bytes();
    for (size_t i = 0; i < count; i++)
        assert_int_equal(loop_spawn(&loop, &scope, sleeps_long, NULL), MR_OK);
    start_us = clock_now_us();
    uv_run(&loop.uv, UV_RUN_NOWAIT);
    double sleep = (double)(clock_now_us() - start_us) / (double)count;
    size_t each = (rss_bytes() - before) / count;
    scope_cancel(&scope, MR_E_CANCELLED);
    start_us = clock_now_us();
    loop_run_fibers(&loop);
    double wake = (double)(clock_now_us() - start_us) / (double)count;
    scope_done(&scope);
    print_message("yield: alone %.2f us, among 100 %.2f us; %zu fibers in a timed wait: %zu B each,"
                  " start and wait %.2f us, cancelled and ended %.2f us\n",
                  alone, crowd, count, each, sleep, wake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_spawn_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_spawn_from_fiber, setup, teardown),
        cmocka_unit_test_setup_teardown(test_out_of_stacks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_io_is_not_starved, setup, teardown),
        cmocka_unit_test_setup_teardown(test_posts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_posts_left_run_at_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_run_without_work_returns, setup, teardown),
        cmocka_unit_test_setup_teardown(test_figures, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
