/* Timers, under a clock that the test turns. */
#include "base/clock.h"
#include "loop/timer.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct loop loop;
static unsigned fired[64], fired_count;

static int setup(void **state)
{
    (void)state;
    clock_hold(1000);
    fired_count = 0;
    return loop_init(&loop, NULL);
}

static int teardown(void **state)
{
    (void)state;
    loop_done(&loop);
    clock_hold(0);
    return 0;
}

struct numbered {
    struct timer timer;
    unsigned number;
};

static void on_timer(struct timer *timer)
{
    assert_false(timer_is_running(timer));
    assert_true(fired_count < 64);
    fired[fired_count++] = *(unsigned *)timer->data;
}

static void start(struct numbered *numbered, unsigned number, uint64_t in_ms)
{
    numbered->number = number;
    numbered->timer.data = &numbered->number;
    timer_start(&numbered->timer, &loop, in_ms, on_timer);
}

static void turn(uint64_t ms)
{
    clock_turn(ms);
    timer_turn(&loop);
}

static void test_order(void **state)
{
    (void)state;
    struct numbered timers[4] = {0};
    start(&timers[0], 0, 30);
    start(&timers[1], 1, 10);
    start(&timers[2], 2, 20);
    start(&timers[3], 3, 10);
    turn(9);
    assert_int_equal(fired_count, 0);
    turn(1);
    assert_int_equal(fired_count, 2);
    assert_int_equal(fired[0], 1);
    assert_int_equal(fired[1], 3);
    turn(100);
    assert_int_equal(fired_count, 4);
    assert_int_equal(fired[2], 2);
    assert_int_equal(fired[3], 0);
}

static void test_stop_and_restart(void **state)
{
    (void)state;
    struct numbered timers[3] = {0};
    for (unsigned i = 0; i < 3; i++)
        start(&timers[i], i, 10);
    timer_stop(&timers[1].timer);
    timer_stop(&timers[1].timer);
    assert_false(timer_is_running(&timers[1].timer));
    start(&timers[0], 0, 50);
    turn(10);
    assert_int_equal(fired_count, 1);
    assert_int_equal(fired[0], 2);
    turn(40);
    assert_int_equal(fired_count, 2);
    assert_int_equal(fired[1], 0);
}

static struct numbered chain;

static void restarts(struct timer *timer)
{
    fired_count++;
    timer_start(timer, &loop, 0, restarts);
}

/* A timer that starts itself with 0 ms fires once a turn and does not hold the loop. */
static void test_restart_in_callback(void **state)
{
    (void)state;
    memset(&chain, 0, sizeof(chain));
    timer_start(&chain.timer, &loop, 5, restarts);
    turn(5);
    assert_int_equal(fired_count, 1);
    turn(0);
    assert_int_equal(fired_count, 2);
    timer_stop(&chain.timer);
}

static struct numbered victim;

static void stops_other(struct timer *timer)
{
    (void)timer;
    fired_count++;
    timer_stop(&victim.timer);
}

static void test_stop_in_callback(void **state)
{
    (void)state;
    struct timer killer = {0};
    memset(&victim, 0, sizeof(victim));
    timer_start(&killer, &loop, 5, stops_other);
    start(&victim, 7, 5);
    turn(10);
    assert_int_equal(fired_count, 1);
}

static void test_far_future(void **state)
{
    (void)state;
    struct numbered timers[2] = {0};
    start(&timers[0], 0, UINT64_MAX);
    start(&timers[1], 1, 1);
    turn(1);
    assert_int_equal(fired_count, 1);
    assert_true(timer_is_running(&timers[0].timer));
    timer_stop(&timers[0].timer);
}

/* Against a plain sorted list, with a thousand random starts and stops. */
static void count_up(struct timer *timer)
{
    ++*(unsigned *)timer->data;
}

static void test_model(void **state)
{
    (void)state;
    enum { COUNT = 300 };
    static struct timer timers[COUNT];
    static uint64_t due[COUNT]; /* the model: 0 = not running */
    static unsigned got[COUNT], want[COUNT];
    memset(timers, 0, sizeof(timers));
    unsigned seed = 42;
    for (int step = 0; step < 5000; step++) {
        size_t i = (size_t)rand_r(&seed) % COUNT;
        switch (rand_r(&seed) % 4) {
        case 0:
        case 1: {
            uint64_t in_ms = (uint64_t)(rand_r(&seed) % 200);
            timers[i].data = &got[i];
            timer_start(&timers[i], &loop, in_ms, count_up);
            due[i] = clock_now_ms() + in_ms;
            break;
        }
        case 2:
            timer_stop(&timers[i]);
            due[i] = 0;
            break;
        default:
            turn((uint64_t)(rand_r(&seed) % 20));
            for (size_t k = 0; k < COUNT; k++)
                if (due[k] && due[k] <= clock_now_ms()) {
                    want[k]++;
                    due[k] = 0;
                }
            assert_memory_equal(got, want, sizeof(got));
            for (size_t k = 0; k < COUNT; k++)
                assert_int_equal(timer_is_running(&timers[k]), due[k] != 0);
        }
    }
    for (size_t k = 0; k < COUNT; k++)
        timer_stop(&timers[k]);
}

/* With real time: the loop runs until the last timer has fired, and not before it is due. */
static void test_real_time(void **state)
{
    (void)state;
    clock_hold(0);
    uint64_t start_ms = clock_now_ms();
    struct numbered timers[2] = {0};
    start(&timers[0], 0, 30);
    start(&timers[1], 1, 10);
    loop_run(&loop);
    assert_int_equal(fired_count, 2);
    assert_int_equal(fired[0], 1);
    assert_true(clock_now_ms() - start_ms >= 30);
}

static void test_figures(void **state)
{
    (void)state;
    clock_hold(0);
    enum { COUNT = 10000 };
    static struct timer timers[COUNT];
    static unsigned count;
    memset(timers, 0, sizeof(timers));
    unsigned seed = 1;
    for (size_t i = 0; i < COUNT; i++) {
        timers[i].data = &count;
        timer_start(&timers[i], &loop, 100000 + (uint64_t)(rand_r(&seed) % 60000), count_up);
    }
    uint64_t start_us = clock_now_us();
    for (size_t i = 0; i < COUNT; i++)
        timer_start(&timers[i], &loop, 100000 + (uint64_t)(rand_r(&seed) % 60000), count_up);
    double restart = (double)(clock_now_us() - start_us) / COUNT;
    start_us = clock_now_us();
    for (size_t i = 0; i < COUNT; i++)
        timer_stop(&timers[i]);
    double stop = (double)(clock_now_us() - start_us) / COUNT;
    print_message("timers among 10,000: restart %.0f ns, stop %.0f ns\n", restart * 1e3,
                  stop * 1e3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_and_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restart_in_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_in_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_far_future, setup, teardown),
        cmocka_unit_test_setup_teardown(test_model, setup, teardown),
        cmocka_unit_test_setup_teardown(test_real_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_figures, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
