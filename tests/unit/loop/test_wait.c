/* Waits, scopes, shields and groups, under a clock that the test turns; and the torture mode. */
#include "base/clock.h"
#include "fiber/sanitize.h"
#include "loop/wait.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct loop loop;

static int setup(void **state)
{
    (void)state;
    clock_hold(1000);
    return loop_init(&loop, NULL);
}

static int teardown(void **state)
{
    (void)state;
    wait_torture(0, 0);
    loop_done(&loop);
    clock_hold(0);
    fiber_trim();
    struct fiber_stats stats;
    fiber_get_stats(&stats);
    return stats.live == 0 ? 0 : -1;
}

/* A fiber that waits once, as told, and keeps what came of it. */
struct waiter {
    struct wait *wait; /* while it waits */
    uint64_t timeout_ms;
    bool shield;
    int code, after; /* of the wait; of a second one that is over at once */
    uint64_t ended_ms;
    bool ended;
};

static void waits_once(void *arg)
{
    struct waiter *waiter = arg;
    struct wait wait;
    if (waiter->shield)
        wait_shield(1);
    wait_init(&wait, &loop);
    waiter->wait = &wait;
    waiter->code = wait_for(&wait, waiter->timeout_ms);
    waiter->wait = NULL;
    waiter->ended_ms = clock_now_ms();
    if (waiter->shield)
        wait_shield(-1);
    struct wait second;
    wait_init(&second, &loop);
    wait_wake(&second, MR_OK);
    waiter->after = scope_error(scope_current());
    assert_int_equal(wait_for(&second, UINT64_MAX), MR_OK);
    waiter->ended = true;
}

/* One turn of the loop that does not block. */
static void turn(uint64_t ms)
{
    clock_turn(ms);
    timer_turn(&loop);
    uv_run(&loop.uv, UV_RUN_NOWAIT);
}

static void begin(struct waiter *waiter, struct scope *scope, uint64_t timeout_ms)
{
    *waiter = (struct waiter){.timeout_ms = timeout_ms};
    assert_int_equal(loop_spawn(&loop, scope, waits_once, waiter), MR_OK);
    turn(0);
}

static void test_wake(void **state)
{
    (void)state;
    struct waiter waiter;
    begin(&waiter, NULL, UINT64_MAX);
    assert_non_null(waiter.wait);
    wait_wake(waiter.wait, MR_E_RESET);
    wait_wake(waiter.wait, MR_OK); /* only the first counts */
    assert_false(waiter.ended);    /* runs in a turn, not inside wait_wake */
    turn(0);
    assert_true(waiter.ended);
    assert_int_equal(waiter.code, MR_E_RESET);
}

static void test_timeout(void **state)
{
    (void)state;
    struct waiter waiter;
    begin(&waiter, NULL, 50);
    turn(49);
    assert_false(waiter.ended);
    turn(1);
    assert_true(waiter.ended);
    assert_int_equal(waiter.code, MR_E_TIMEOUT);
    assert_int_equal(waiter.ended_ms, 1050);
}

static void test_wake_beats_timeout(void **state)
{
    (void)state;
    struct waiter waiter;
    begin(&waiter, NULL, 50);
    wait_wake(waiter.wait, MR_OK);
    turn(100);
    assert_int_equal(waiter.code, MR_OK);
}

static void wakes_itself(void *arg)
{
    struct wait wait;
    wait_init(&wait, &loop);
    wait.value = arg;
    wait_wake(&wait, MR_OK);
    uint64_t before = wait_count();
    *(int *)arg = wait_for(&wait, UINT64_MAX);
    assert_int_equal(wait_count(), before);
    struct wait poll;
    wait_init(&poll, &loop);
    assert_int_equal(wait_for(&poll, 0), MR_E_TIMEOUT);
    assert_true(poll.expired);
}

static void test_woken_before(void **state)
{
    (void)state;
    int code = 1;
    loop_spawn(&loop, NULL, wakes_itself, &code);
    turn(0);
    assert_int_equal(code, MR_OK);
    assert_int_equal(loop.fibers, 0);
}

static void test_cancel_is_sticky_and_goes_down(void **state)
{
    (void)state;
    struct scope top, middle, low, other;
    scope_init(&top, NULL);
    scope_init(&middle, &top);
    scope_init(&low, &middle);
    scope_init(&other, &top);
    struct waiter at_top, at_low, at_other;
    begin(&at_top, &top, UINT64_MAX);
    begin(&at_low, &low, 500);
    begin(&at_other, &other, UINT64_MAX);
    scope_cancel(&middle, MR_E_LOST);
    scope_cancel(&middle, MR_E_CANCELLED); /* the first code stands */
    turn(0);
    assert_false(at_top.ended);
    assert_false(at_other.ended);
    assert_int_equal(at_low.code, MR_E_LOST);
    assert_int_equal(at_low.after, MR_E_LOST);
    struct waiter late;
    begin(&late, &low, UINT64_MAX);
    assert_true(late.ended);
    assert_int_equal(late.code, MR_E_LOST);
    scope_cancel(&top, MR_E_STOPPING);
    turn(0);
    assert_int_equal(at_top.code, MR_E_STOPPING);
    assert_int_equal(at_other.code, MR_E_STOPPING);
    assert_int_equal(scope_error(&low), MR_E_LOST);
    assert_int_equal(scope_error(&other), MR_E_STOPPING);
    scope_done(&other);
    scope_done(&low);
    scope_done(&middle);
    scope_done(&top);
}

static void test_deadline_of_any_scope_above(void **state)
{
    (void)state;
    struct scope top, low;
    scope_init(&top, NULL);
    scope_init(&low, &top);
    top.deadline_ms = clock_now_ms() + 30;
    top.deadline_code = MR_E_DEADLINE;
    low.deadline_ms = clock_now_ms() + 80;
    assert_int_equal(scope_time_left(&low), 30);
    struct waiter first, second, shielded = {.timeout_ms = UINT64_MAX, .shield = true};
    begin(&first, &low, 100);
    begin(&second, &top, UINT64_MAX);
    assert_int_equal(loop_spawn(&loop, &low, waits_once, &shielded), MR_OK);
    turn(29);
    assert_false(first.ended);
    turn(1);
    assert_int_equal(first.code, MR_E_DEADLINE);
    assert_int_equal(second.code, MR_E_DEADLINE);
    assert_int_equal(top.code, MR_E_DEADLINE);
    /* A shielded fiber goes on; once out of the shield it sees what has come meanwhile. */
    assert_false(shielded.ended);
    turn(10);
    wait_wake(shielded.wait, MR_OK);
    turn(0);
    assert_int_equal(shielded.code, MR_OK);
    assert_int_equal(shielded.after, MR_E_DEADLINE);
    scope_done(&low);
    scope_done(&top);
}

static void test_own_timeout_before_deadline(void **state)
{
    (void)state;
    struct scope scope;
    scope_init(&scope, NULL);
    scope.deadline_ms = clock_now_ms() + 60;
    scope.deadline_code = MR_E_DEADLINE;
    struct waiter waiter;
    begin(&waiter, &scope, 40);
    turn(100); /* both have passed: the earlier one decides this wait, the later is there after */
    assert_int_equal(waiter.code, MR_E_TIMEOUT);
    assert_int_equal(waiter.after, MR_E_DEADLINE);
    scope_done(&scope);
}

static void test_deadline_without_wait(void **state)
{
    (void)state;
    struct scope scope;
    scope_init(&scope, NULL);
    scope.deadline_ms = clock_now_ms() + 10;
    assert_int_equal(scope_error(&scope), 0);
    clock_turn(10);
    assert_int_equal(scope_error(&scope), MR_E_TIMEOUT);
    assert_int_equal(scope_time_left(&scope), 0);
    struct waiter waiter;
    begin(&waiter, &scope, UINT64_MAX);
    assert_int_equal(waiter.code, MR_E_TIMEOUT);
    scope_done(&scope);
}

static void test_pause_shifts_deadline(void **state)
{
    (void)state;
    struct scope scope;
    scope_init(&scope, NULL);
    scope.deadline_ms = clock_now_ms() + 50;
    struct waiter before, during;
    begin(&before, &scope, UINT64_MAX);
    turn(20);
    scope_pause(&scope);
    scope_pause(&scope);
    begin(&during, &scope, UINT64_MAX);
    turn(100);
    assert_false(before.ended);
    assert_false(during.ended);
    assert_int_equal(scope_time_left(&scope), 30);
    scope_resume(&scope);
    turn(100);
    assert_false(before.ended); /* one pause is still on */
    scope_resume(&scope);
    turn(29);
    assert_false(before.ended);
    assert_false(during.ended);
    turn(1);
    assert_int_equal(before.code, MR_E_TIMEOUT);
    assert_int_equal(during.code, MR_E_TIMEOUT);
    scope_done(&scope);
}

static void test_pause_after_deadline(void **state)
{
    (void)state;
    struct scope scope;
    scope_init(&scope, NULL);
    scope.deadline_ms = clock_now_ms() + 50;
    clock_turn(50);
    scope_pause(&scope);
    scope_resume(&scope);
    assert_int_equal(scope_error(&scope), MR_E_TIMEOUT);
    scope_done(&scope);
}

static void test_deadline_moved(void **state)
{
    (void)state;
    struct scope scope;
    scope_init(&scope, NULL);
    struct waiter waiter;
    begin(&waiter, &scope, UINT64_MAX);
    scope_set_deadline(&scope, clock_now_ms() + 100, MR_E_DEADLINE);
    scope_set_deadline(&scope, clock_now_ms() + 10, MR_E_DEADLINE);
    turn(9);
    assert_false(waiter.ended);
    turn(1);
    assert_int_equal(waiter.code, MR_E_DEADLINE);
    scope_done(&scope);
}

static void test_shield_keeps_own_timeout(void **state)
{
    (void)state;
    struct scope scope;
    scope_init(&scope, NULL);
    struct waiter waiter = {.timeout_ms = 30, .shield = true};
    assert_int_equal(loop_spawn(&loop, &scope, waits_once, &waiter), MR_OK);
    turn(0);
    scope_cancel(&scope, MR_E_CANCELLED);
    turn(29);
    assert_false(waiter.ended);
    turn(1);
    assert_int_equal(waiter.code, MR_E_TIMEOUT);
    assert_int_equal(waiter.after, MR_E_CANCELLED);
    scope_done(&scope);
}

static void enters(void *arg)
{
    struct scope *scope = arg;
    assert_null(scope_current());
    assert_null(scope_enter(scope));
    assert_ptr_equal(scope_current(), scope);
    assert_int_equal(wait_sleep(&loop, 1000), MR_E_CANCELLED);
    assert_int_equal(wait_yield(&loop), MR_E_CANCELLED);
    wait_shield(1);
    wait_shield(1);
    assert_int_equal(wait_yield(&loop), MR_OK);
    assert_int_equal(wait_sleep(&loop, 5), MR_OK);
    wait_shield(-1);
    assert_int_equal(wait_yield(&loop), MR_OK);
    wait_shield(-1);
    assert_int_equal(wait_yield(&loop), MR_E_CANCELLED);
    assert_ptr_equal(scope_enter(NULL), scope);
    assert_int_equal(wait_yield(&loop), MR_OK);
}

static void test_enter_and_shield_nest(void **state)
{
    (void)state;
    struct scope scope;
    scope_init(&scope, NULL);
    loop_spawn(&loop, NULL, enters, &scope);
    turn(10);
    scope_cancel(&scope, MR_E_CANCELLED);
    for (int i = 0; i < 10; i++)
        turn(5);
    assert_int_equal(loop.fibers, 0);
    scope_done(&scope);
}

/* A time-out of the scope and the end of a sleep carry the same code; they must not be confused. */
static void sleeps_past_deadline(void *arg)
{
    struct scope scope;
    scope_init(&scope, NULL);
    scope.deadline_ms = clock_now_ms() + 20;
    scope_enter(&scope);
    int *codes = arg;
    codes[0] = wait_sleep(&loop, 10);
    codes[1] = wait_sleep(&loop, 50);
    scope_enter(NULL);
    scope_done(&scope);
}

static void test_sleep(void **state)
{
    (void)state;
    int codes[2] = {1, 1};
    loop_spawn(&loop, NULL, sleeps_past_deadline, codes);
    turn(0);
    turn(10);
    assert_int_equal(codes[0], MR_OK);
    turn(10);
    assert_int_equal(codes[1], MR_E_TIMEOUT);
}

static void sleeps(void *arg)
{
    wait_sleep(&loop, *(uint64_t *)arg);
    *(uint64_t *)arg = 0;
}

static void gathers(void *arg)
{
    uint64_t *times = arg;
    struct group group;
    group_init(&group, &loop);
    group_wait(&group); /* nothing to wait for */
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(group_spawn(&group, NULL, sleeps, &times[i]), MR_OK);
    group_wait(&group);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(times[i], 0);
    times[3] = 1;
}

static void test_group(void **state)
{
    (void)state;
    uint64_t times[4] = {10, 30, 20, 0};
    struct scope scope;
    scope_init(&scope, NULL);
    loop_spawn(&loop, &scope, gathers, times);
    turn(0);
    turn(0); /* the fibers of the group begin */
    turn(10);
    scope_cancel(&scope, MR_E_CANCELLED); /* joining is not ended by it */
    turn(10);
    turn(0);
    assert_int_equal(times[3], 0);
    turn(10);
    turn(0);
    assert_int_equal(times[3], 1);
    scope_done(&scope);
}

/* The torture mode itself: a small program of several waits is run with each of its suspensions
 * ended in turn, and must end each time with all of its parts undone. */
struct program {
    int code;
    unsigned open; /* what it has to undo */
    unsigned steps;
};

static int steps_of(struct program *program)
{
    for (program->steps = 0; program->steps < 3; program->steps++) {
        int code = wait_sleep(&loop, 10);
        if (code != MR_OK)
            return code;
        code = wait_yield(&loop);
        if (code != MR_OK)
            return code;
    }
    return MR_OK;
}

static void runs_program(void *arg)
{
    struct program *program = arg;
    program->open++;
    program->code = steps_of(program);
    wait_shield(1);
    int code = wait_sleep(&loop, 5); /* clean-up that may take time */
    assert_true(code == MR_OK || code == MR_E_TIMEOUT);
    wait_shield(-1);
    program->open--;
}

static uint64_t run_program(struct program *program)
{
    uint64_t before = wait_count();
    *program = (struct program){.code = 1};
    assert_int_equal(loop_spawn(&loop, NULL, runs_program, program), MR_OK);
    for (int i = 0; i < 100 && loop.fibers > 0; i++)
        turn(10);
    assert_int_equal(loop.fibers, 0);
    assert_int_equal(program->open, 0);
    return wait_count() - before;
}

static void test_torture(void **state)
{
    (void)state;
    struct program program;
    uint64_t suspensions = run_program(&program);
    assert_int_equal(program.code, MR_OK);
    assert_int_equal(suspensions, 7);
    const int codes[] = {MR_E_CANCELLED, MR_E_TIMEOUT, MR_E_RESET};
    for (size_t c = 0; c < 3; c++) {
        for (uint64_t nth = 1; nth <= suspensions; nth++) {
            wait_torture(nth, codes[c]);
            run_program(&program);
            if (nth < suspensions) {
                assert_int_equal(program.code, codes[c]);
                assert_int_equal(program.steps, (nth - 1) / 2);
            } else {
                assert_int_equal(program.code, MR_OK); /* the one in the shield */
            }
        }
    }
    wait_torture(suspensions + 1, MR_E_RESET);
    run_program(&program);
    assert_int_equal(program.code, MR_OK);
}

/* Waits that only their waker can end are left alone. */
static void test_torture_spares_joins(void **state)
{
    (void)state;
    uint64_t times[4] = {10, 10, 10, 0};
    uint64_t before = wait_count();
    loop_spawn(&loop, NULL, gathers, times);
    for (int i = 0; i < 5; i++)
        turn(10);
    assert_int_equal(times[3], 1);
    assert_int_equal(wait_count() - before, 3);
}

/* Cost of a wait among ten thousand that wait under a chain of three scopes with deadlines. */
static void waits_in_turn(void *arg)
{
    (void)arg;
    while (wait_sleep(&loop, 20) == MR_OK) {
    }
}

static void test_figures(void **state)
{
    (void)state;
    clock_hold(0);
    struct scope top, middle, low;
    scope_init(&top, NULL);
    scope_init(&middle, &top);
    scope_init(&low, &middle);
    low.deadline_ms = middle.deadline_ms = top.deadline_ms = clock_now_ms() + 600000;
    size_t count = sanitize_mappings_fit(10000) ? 10000 : 200;
    for (size_t i = 0; i < count; i++)
        assert_int_equal(loop_spawn(&loop, &low, waits_in_turn, NULL), MR_OK);
    uint64_t start_us = clock_now_us(), waits = wait_count();
    while (clock_now_us() - start_us < 300000)
        uv_run(&loop.uv, UV_RUN_ONCE);
    double each = (double)(clock_now_us() - start_us) / (double)(wait_count() - waits);
    top.deadline_ms = 0;
    scope_cancel(&top, MR_E_STOPPING);
    loop_run_fibers(&loop);
    scope_done(&low);
    scope_done(&middle);
    scope_done(&top);
    print_message("%zu fibers that sleep again and again: %.2f us of the loop for each wait\n",
                  count, each);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_wake, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timeout, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wake_beats_timeout, setup, teardown),
        cmocka_unit_test_setup_teardown(test_woken_before, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel_is_sticky_and_goes_down, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deadline_of_any_scope_above, setup, teardown),
        cmocka_unit_test_setup_teardown(test_own_timeout_before_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deadline_without_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pause_shifts_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pause_after_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deadline_moved, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shield_keeps_own_timeout, setup, teardown),
        cmocka_unit_test_setup_teardown(test_enter_and_shield_nest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sleep, setup, teardown),
        cmocka_unit_test_setup_teardown(test_group, setup, teardown),
        cmocka_unit_test_setup_teardown(test_torture, setup, teardown),
        cmocka_unit_test_setup_teardown(test_torture_spares_joins, setup, teardown),
        cmocka_unit_test_setup_teardown(test_figures, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
