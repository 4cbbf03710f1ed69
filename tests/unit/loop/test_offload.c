/* Work on threads: results, what a cancelled scope does before and after it began, JSON. */
#include "base/clock.h"
#include "base/mem.h"
#include "loop/offload.h"
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

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
    wait_torture(0, 0);
    loop_done(&loop);
    fiber_trim();
    return 0;
}

struct sum {
    unsigned from, to;
    unsigned long total;
    int code;
};

static void add_up(void *arg)
{
    struct sum *sum = arg;
    for (unsigned i = sum->from; i <= sum->to; i++)
        sum->total += i;
}

static void offloads_sum(void *arg)
{
    struct sum *sum = arg;
    sum->code = offload_run(&loop, add_up, sum);
}

static void test_result(void **state)
{
    (void)state;
    struct sum sums[20];
    for (unsigned i = 0; i < 20; i++) {
        sums[i] = (struct sum){.from = 1, .to = i * 10, .code = 1};
        loop_spawn(&loop, NULL, offloads_sum, &sums[i]);
    }
    loop_run_fibers(&loop);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(sums[i].code, MR_OK);
        assert_int_equal(sums[i].total, 10ul * i * (10ul * i + 1) / 2);
    }
}

/* Threads held by a semaphore, so that it is known what has begun and what has not. */
static sem_t begun, gate;

static void waits_at_gate(void *arg)
{
    sem_post(&begun);
    while (sem_wait(&gate) != 0) {
    }
    *(int *)arg = 1;
}

struct job {
    struct scope *scope;
    int ran, code;
};

static void offloads_job(void *arg)
{
    struct job *job = arg;
    job->code = offload_run(&loop, waits_at_gate, &job->ran);
}

static void test_cancel(void **state)
{
    (void)state;
    sem_init(&begun, 0, 0);
    sem_init(&gate, 0, 0);
    struct scope scope;
    scope_init(&scope, NULL);
    /* More than the pool has threads: libuv's default is 4, and at most 1024. */
    const char *size = getenv("UV_THREADPOOL_SIZE");
    unsigned threads = size ? (unsigned)atoi(size) : 4, count = threads + 5;
    struct job *jobs = mem_zalloc(count * sizeof(*jobs));
    for (unsigned i = 0; i < count; i++)
        loop_spawn(&loop, &scope, offloads_job, &jobs[i]);
    uv_run(&loop.uv, UV_RUN_NOWAIT);
    for (unsigned i = 0; i < threads; i++)
        sem_wait(&begun);
    scope_cancel(&scope, MR_E_CANCELLED);
    uv_run(&loop.uv, UV_RUN_NOWAIT); /* they call their work off */
    for (unsigned i = 0; i < threads; i++)
        sem_post(&gate);
    loop_run_fibers(&loop);
    unsigned ran = 0;
    for (unsigned i = 0; i < count; i++) {
        /* What had begun was waited for and counts; the others never ran. */
        assert_int_equal(jobs[i].code, jobs[i].ran ? MR_OK : MR_E_CANCELLED);
        ran += (unsigned)jobs[i].ran;
    }
    assert_int_equal(ran, threads);
    struct job late = {0};
    loop_spawn(&loop, &scope, offloads_job, &late);
    loop_run_fibers(&loop);
    assert_int_equal(late.code, MR_E_CANCELLED);
    assert_int_equal(late.ran, 0);
    scope_done(&scope);
    free(jobs);
    sem_destroy(&begun);
    sem_destroy(&gate);
}

static void test_torture(void **state)
{
    (void)state;
    const int codes[] = {MR_E_CANCELLED, MR_E_TIMEOUT, MR_E_RESET};
    for (size_t i = 0; i < 3; i++) {
        struct sum sum = {.from = 1, .to = 4, .code = 1};
        wait_torture(1, codes[i]);
        loop_spawn(&loop, NULL, offloads_sum, &sum);
        loop_run_fibers(&loop);
        /* Either it was called off in time, or it ran and counts. */
        assert_true((sum.code == codes[i] && sum.total == 0) ||
                    (sum.code == MR_OK && sum.total == 10));
    }
}

struct reading {
    const char *text;
    size_t len;
    json_t *value;
    int code;
    struct error error;
};

static void reads(void *arg)
{
    struct reading *reading = arg;
    reading->code =
        offload_json_read(&loop, reading->text, reading->len, &reading->value, &reading->error);
}

static void test_json(void **state)
{
    (void)state;
    enum { LONG = 40000 };
    char *text = mem_alloc(2 * LONG + 4);
    char *end = text;
    *end++ = '[';
    for (int i = 0; i < LONG; i++) {
        *end++ = i ? ',' : '1';
        *end++ = '2';
    }
    *end++ = ']';
    struct reading small = {.text = "{\"a\": 1}", .len = 8}, bad = {.text = "{\"a\": ", .len = 6},
                   big = {.text = text, .len = (size_t)(end - text)},
                   big_bad = {.text = text, .len = (size_t)(end - text) - 1};
    assert_true(big_bad.len > OFFLOAD_JSON_BYTES);
    loop_spawn(&loop, NULL, reads, &small);
    loop_spawn(&loop, NULL, reads, &bad);
    loop_spawn(&loop, NULL, reads, &big);
    loop_spawn(&loop, NULL, reads, &big_bad);
    loop_run_fibers(&loop);
    assert_int_equal(small.code, MR_OK);
    assert_int_equal(json_integer_value(json_object_get(small.value, "a")), 1);
    assert_int_equal(bad.code, MR_E_BAD_RESPONSE);
    assert_int_equal(bad.error.code, MR_E_BAD_RESPONSE);
    assert_null(bad.value);
    assert_int_equal(big.code, MR_OK);
    assert_int_equal(json_array_size(big.value), LONG);
    assert_int_equal(big_bad.code, MR_E_BAD_RESPONSE);
    assert_null(big_bad.value);
    json_decref(small.value);
    json_decref(big.value);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_result, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_torture, setup, teardown),
        cmocka_unit_test_setup_teardown(test_json, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
