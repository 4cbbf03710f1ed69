/* One resolver at a time: pioneers and those who wait for them, under a clock that the test turns.
 */
#include "base/clock.h"
#include "io/resolve.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct loop loop;
static struct resolve resolve;

static int setup(void **state)
{
    (void)state;
    clock_hold(1000);
    resolve_init(&resolve, &loop);
    return loop_init(&loop, NULL);
}

static int teardown(void **state)
{
    (void)state;
    wait_torture(0, 0);
    resolve_done(&resolve);
    loop_done(&loop);
    clock_hold(0);
    fiber_trim();
    return resolve.hosts == 0 ? 0 : -1;
}

struct call {
    const char *name;
    uint64_t timeout_ms;
    struct resolve_host *host; /* while it is the pioneer */
    int code;
    bool begun;
};

static void calls(void *arg)
{
    struct call *call = arg;
    call->code = resolve_begin(&resolve, call->name, call->timeout_ms, &call->host);
    call->begun = true;
}

static void turn(uint64_t ms)
{
    clock_turn(ms);
    timer_turn(&loop);
    uv_run(&loop.uv, UV_RUN_NOWAIT);
}

static void begin(struct call *call, struct scope *scope, const char *name, uint64_t timeout_ms)
{
    *call = (struct call){.name = name, .timeout_ms = timeout_ms, .code = 1};
    assert_int_equal(loop_spawn(&loop, scope, calls, call), MR_OK);
    turn(0);
}

static void test_known(void **state)
{
    (void)state;
    struct call first, second, third, other;
    begin(&first, NULL, "a.example", 100);
    assert_true(first.begun);
    assert_non_null(first.host);
    begin(&second, NULL, "a.example", 100);
    begin(&third, NULL, "a.example", 100);
    begin(&other, NULL, "b.example", 100);
    assert_false(second.begun);
    assert_non_null(other.host); /* another name does not wait */
    resolve_end(other.host, RESOLVE_KNOWN);
    resolve_end(first.host, RESOLVE_KNOWN);
    turn(0);
    assert_int_equal(second.code, MR_OK);
    assert_null(second.host);
    assert_int_equal(third.code, MR_OK);
    begin(&second, NULL, "a.example", 100);
    assert_true(second.begun);
    assert_null(second.host);
    turn(RESOLVE_KNOWN_MS);
    begin(&third, NULL, "a.example", 100); /* known no longer */
    assert_non_null(third.host);
    resolve_end(third.host, RESOLVE_KNOWN);
}

static void test_addresses_do_not_wait(void **state)
{
    (void)state;
    const char *const names[] = {"127.0.0.1", "[::1]", "::1", "localhost", "LOCALHOST"};
    for (size_t i = 0; i < 5; i++) {
        struct call call;
        begin(&call, NULL, names[i], 100);
        assert_true(call.begun);
        assert_null(call.host);
    }
    assert_int_equal(resolve.hosts, 0);
}

static void test_failure_is_shared(void **state)
{
    (void)state;
    struct call first, second, third, later;
    begin(&first, NULL, "a.example", 100);
    begin(&second, NULL, "a.example", 100);
    begin(&third, NULL, "a.example", 100);
    resolve_end(first.host, RESOLVE_FAILED);
    turn(0);
    assert_int_equal(second.code, MR_E_CONNECT);
    assert_int_equal(third.code, MR_E_CONNECT);
    begin(&later, NULL, "a.example", 100); /* tries anew */
    assert_non_null(later.host);
    resolve_end(later.host, RESOLVE_OPEN);
}

static void test_pioneer_without_news(void **state)
{
    (void)state;
    struct scope scope;
    scope_init(&scope, NULL);
    struct call first, second, third, fourth;
    begin(&first, NULL, "a.example", 100);
    begin(&second, NULL, "a.example", 30);
    begin(&third, &scope, "a.example", 100);
    begin(&fourth, NULL, "a.example", 100);
    /* The second times out and the third is cancelled in the turn in which the pioneer gives up:
     * the fourth must be the one that goes ahead. */
    clock_turn(30);
    timer_turn(&loop);
    scope_cancel(&scope, MR_E_CANCELLED);
    resolve_end(first.host, RESOLVE_OPEN);
    turn(0);
    assert_int_equal(second.code, MR_E_TIMEOUT);
    assert_int_equal(third.code, MR_E_CANCELLED);
    assert_int_equal(fourth.code, MR_OK);
    assert_non_null(fourth.host);
    resolve_end(fourth.host, RESOLVE_KNOWN);
    scope_done(&scope);
}

static void test_torture(void **state)
{
    (void)state;
    const int codes[] = {MR_E_CANCELLED, MR_E_TIMEOUT, MR_E_RESET};
    for (size_t i = 0; i < 3; i++) {
        struct call first, second, third;
        begin(&first, NULL, "a.example", 100);
        wait_torture(1, codes[i]);
        begin(&second, NULL, "a.example", 100);
        assert_int_equal(second.code, codes[i]);
        begin(&third, NULL, "a.example", 100);
        resolve_end(first.host, RESOLVE_OPEN);
        turn(0);
        assert_non_null(third.host);
        resolve_end(third.host, RESOLVE_OPEN);
    }
}

/* Names come from users too: their number is bounded, and old ones make room. */
static void test_bound(void **state)
{
    (void)state;
    for (unsigned i = 0; i < RESOLVE_HOSTS_MAX + 10; i++) {
        char name[32];
        snprintf(name, sizeof(name), "h%u.example", i);
        struct call call;
        begin(&call, NULL, name, 100);
        assert_int_equal(call.code, MR_OK);
        assert_int_equal(call.host != NULL, i < RESOLVE_HOSTS_MAX);
        if (call.host)
            resolve_end(call.host, RESOLVE_KNOWN);
    }
    assert_int_equal(resolve.hosts, RESOLVE_HOSTS_MAX);
    turn(RESOLVE_KNOWN_MS);
    struct call call;
    begin(&call, NULL, "new.example", 100);
    assert_non_null(call.host);
    resolve_end(call.host, RESOLVE_KNOWN);
    assert_int_equal(resolve.hosts, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_known, setup, teardown),
        cmocka_unit_test_setup_teardown(test_addresses_do_not_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failure_is_shared, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pioneer_without_news, setup, teardown),
        cmocka_unit_test_setup_teardown(test_torture, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bound, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
