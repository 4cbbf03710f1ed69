/* Fibers: the order of switches, the pool, the guard page, calls on the loop's stack. */
#include "base/limits.h"
#include "fiber/fiber.h"
#include "fiber/sanitize.h"
#include "fiber/stack.h"
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

struct trace {
    char text[64];
    struct fiber *self;
};

static void note(struct trace *trace, char c)
{
    size_t len = strlen(trace->text);
    assert_true(len + 1 < sizeof(trace->text));
    trace->text[len] = c;
}

static void three_steps(void *arg)
{
    struct trace *trace = arg;
    trace->self = fiber_self();
    note(trace, 'a');
    fiber_suspend();
    note(trace, 'b');
    fiber_suspend();
    note(trace, 'c');
}

static void test_order(void **state)
{
    (void)state;
    struct trace trace = {0};
    struct fiber *fiber = fiber_new(three_steps, &trace);
    assert_non_null(fiber);
    assert_null(fiber_self());
    fiber_resume(fiber);
    assert_ptr_equal(trace.self, fiber);
    assert_null(fiber_self());
    note(&trace, '1');
    fiber_resume(fiber);
    note(&trace, '2');
    fiber_resume(fiber);
    assert_string_equal(trace.text, "a1b2c");
    struct fiber_stats stats;
    fiber_get_stats(&stats);
    assert_int_equal(stats.live, 0);
}

static void test_data(void **state)
{
    (void)state;
    struct trace trace = {0};
    int value = 0;
    struct fiber *fiber = fiber_new(three_steps, &trace);
    assert_null(fiber_data(fiber));
    fiber_set_data(fiber, &value);
    assert_ptr_equal(fiber_data(fiber), &value);
    for (int i = 0; i < 3; i++)
        fiber_resume(fiber);
}

static void test_many_interleaved(void **state)
{
    (void)state;
    enum { COUNT = 500 };
    static struct trace traces[COUNT];
    struct fiber *fibers[COUNT];
    memset(traces, 0, sizeof(traces));
    for (int i = 0; i < COUNT; i++)
        fibers[i] = fiber_new(three_steps, &traces[i]);
    struct fiber_stats stats;
    fiber_get_stats(&stats);
    assert_int_equal(stats.live, COUNT);
    for (int step = 0; step < 3; step++)
        for (int i = 0; i < COUNT; i++)
            fiber_resume(fibers[(i * 7) % COUNT]);
    for (int i = 0; i < COUNT; i++)
        assert_string_equal(traces[i].text, "abc");
    fiber_get_stats(&stats);
    assert_int_equal(stats.live, 0);
    assert_int_equal(stats.pooled, COUNT);
    assert_true(stats.peak >= COUNT);
    fiber_trim();
    fiber_get_stats(&stats);
    assert_int_equal(stats.pooled, 0);
}

static void test_limit(void **state)
{
    (void)state;
    struct trace traces[2] = {0};
    fiber_set_limit(1);
    struct fiber *fiber = fiber_new(three_steps, &traces[0]);
    assert_non_null(fiber);
    assert_null(fiber_new(three_steps, &traces[1]));
    for (int i = 0; i < 3; i++)
        fiber_resume(fiber);
    fiber = fiber_new(three_steps, &traces[1]);
    assert_non_null(fiber);
    for (int i = 0; i < 3; i++)
        fiber_resume(fiber);
    fiber_set_limit(LIMIT_FIBERS);
}

static void where_am_i(void *arg)
{
    char mark = 0;
    *(char **)arg = &mark;
    assert_null(fiber_self());
}

static void calls_on_loop(void *arg)
{
    char **where = arg;
    char mark = 0;
    fiber_on_loop(where_am_i, &where[0]);
    where[1] = &mark;
    fiber_suspend();
    fiber_on_loop(where_am_i, &where[2]);
    assert_non_null(fiber_self());
}

static size_t distance(const char *a, const char *b)
{
    return a > b ? (size_t)(a - b) : (size_t)(b - a);
}

static void test_on_loop(void **state)
{
    (void)state;
    char *where[3] = {0};
    struct fiber *fiber = fiber_new(calls_on_loop, where);
    fiber_resume(fiber);
    fiber_resume(fiber);
    assert_true(distance(where[0], where[1]) > LIMIT_STACK_BYTES);
    assert_true(distance(where[2], where[1]) > LIMIT_STACK_BYTES);
    fiber_on_loop(where_am_i, &where[0]);
    assert_non_null(where[0]);
}

__attribute__((noinline)) static int use_stack(volatile char *above, size_t bytes)
{
    volatile char frame[1024];
    frame[0] = frame[1023] = above[0];
    if (bytes <= sizeof(frame))
        return frame[1023];
    return use_stack(frame, bytes - sizeof(frame)) + frame[0];
}

static void goes_deep(void *arg)
{
    volatile char start = 1;
    use_stack(&start, *(size_t *)arg);
}

static void test_high_water(void **state)
{
    (void)state;
    fiber_trim();
    size_t bytes = 100u << 10;
    struct fiber *fiber = fiber_new(goes_deep, &bytes);
    fiber_resume(fiber);
    struct fiber_stats stats;
    fiber_get_stats(&stats);
    assert_in_range(stats.stack_high_bytes, bytes, LIMIT_STACK_BYTES);
    /* The deep pages went back to the kernel: a fresh pool's worth, seen on the next release. */
    struct stack_pool pool = {0};
    struct stack *stack = stack_open(&pool, 64);
    memset(stack->low, 1, stack->size);
    stack_close(&pool, stack);
    assert_int_equal(pool.high_bytes, LIMIT_STACK_BYTES);
    pool.high_bytes = 0;
    struct stack *again = stack_open(&pool, 64);
    assert_ptr_equal(again, stack);
    stack_close(&pool, again);
    assert_true(pool.high_bytes <= STACK_KEEP_BYTES);
    stack_trim(&pool);
}

static void test_pool_shrinks(void **state)
{
    (void)state;
    enum { COUNT = 4 * STACK_KEEP };
    static struct stack *stacks[COUNT];
    struct stack_pool pool = {0};
    for (size_t i = 0; i < COUNT; i++) {
        stacks[i] = stack_open(&pool, 64);
        assert_non_null(stacks[i]);
    }
    for (size_t i = 0; i < COUNT; i++)
        stack_close(&pool, stacks[i]);
    assert_int_equal(pool.open, 0);
    assert_true(pool.pooled <= COUNT / 2 + 1);
    stack_trim(&pool);
    assert_int_equal(pool.pooled, 0);
}

static void suspends_then_overflows(void *arg)
{
    volatile char start = 1;
    fiber_suspend();
    *(int *)arg = use_stack(&start, 8u << 20);
}

/* Overflowing a fiber's stack ends the process at once, also after a suspension. */
static void test_guard_page(void **state)
{
    (void)state;
    fflush(stdout);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGSEGV, SIG_DFL);
        if (!freopen("/dev/null", "w", stderr))
            _exit(9);
        int sum = 0;
        struct fiber *fiber = fiber_new(suspends_then_overflows, &sum);
        fiber_resume(fiber);
        fiber_resume(fiber);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 9);
}

static double now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void suspends_forever(void *arg)
{
    const bool *stop = arg;
    while (!*stop)
        fiber_suspend();
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

/* Prints figures; what it asserts holds on any machine. */
static void test_figures(void **state)
{
    (void)state;
    bool stop = false;
    enum { ALIVE = LIMIT_FIBERS - 1 }; /* and `one` */
    size_t alive = sanitize_mappings_fit(ALIVE) ? ALIVE : 500;
    int pairs = alive == ALIVE ? 200000 : 2000;
    struct fiber *one = fiber_new(suspends_forever, &stop);
    double start = now_s();
    for (int i = 0; i < pairs; i++)
        fiber_resume(one);
    double pair = (now_s() - start) / pairs;
    start = now_s();
    stop = true;
    for (int i = 0; i < pairs / 4; i++)
        fiber_resume(fiber_new(suspends_forever, &stop));
    double life = (now_s() - start) / (pairs / 4);
    stop = false;
    static struct fiber *fibers[ALIVE];
    fiber_trim();
    size_t before = rss_bytes();
    for (size_t i = 0; i < alive; i++) {
        fibers[i] = fiber_new(suspends_forever, &stop);
        assert_non_null(fibers[i]);
        fiber_resume(fibers[i]);
    }
    size_t each = (rss_bytes() - before) / alive;
    stop = true;
    for (size_t i = 0; i < alive; i++)
        fiber_resume(fibers[i]);
    fiber_resume(one);
    fiber_trim();
    print_message("resume+suspend %.0f ns, new+run+end %.0f ns, %zu suspended: %zu B each\n",
                  pair * 1e9, life * 1e9, alive, each);
    struct fiber_stats stats;
    fiber_get_stats(&stats);
    assert_int_equal(stats.live, 0);
    assert_int_equal(stats.pooled, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_data),
        cmocka_unit_test(test_many_interleaved),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_on_loop),
        cmocka_unit_test(test_high_water),
        cmocka_unit_test(test_pool_shrinks),
        cmocka_unit_test(test_guard_page),
        cmocka_unit_test(test_figures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
