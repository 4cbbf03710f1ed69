/* The small plugins: echo, transform, sleep, and the skeleton. */
#include "fake_host.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void test_echo(void **state)
{
    (void)state;
    fake_auto struct fake *fake = fake_new("echo", "{}");
    fake_set(fake, "input", "{'n': 12345678901234567, 'x': [null, 1.5]}");
    assert_int_equal(fake_run(fake), MR_OK);
    fake_assert_json(fake->task.output, "{'n': 12345678901234567, 'x': [null, 1.5]}");

    fake_auto struct fake *other =
        fake_new("echo", "{'output': {'a': 'n is {{ .input.n }}', 'b': '{{ .input.x }}'}}");
    fake_set(other, "input", "{'n': 5, 'x': [1]}");
    assert_int_equal(fake_run(other), MR_OK);
    fake_assert_json(other->task.output, "{'a': 'n is 5', 'b': [1]}");
}

static void test_transform(void **state)
{
    (void)state;
    fake_auto struct fake *fake =
        fake_new("transform", "{'output': {'sum': '{{ .a.n + .b.n }}', 'list': ['{{ .a }}', 1]}}");
    fake_set(fake, "a", "{'n': 2}");
    fake_set(fake, "b", "{'n': 3}");
    assert_int_equal(fake_run(fake), MR_OK);
    fake_assert_json(fake->task.output, "{'sum': 5, 'list': [{'n': 2}, 1]}");

    fake_auto struct fake *missing = fake_new("transform", "{'output': 'x {{ .input.gone }}'}");
    fake_set(missing, "input", "{}");
    assert_int_equal(fake_run(missing), MR_E_SCHEMA);
    fake_assert_check("transform", "{}", "error", "output", "required", NULL);
}

static void test_null_output(void **state)
{
    (void)state;
    fake_auto struct fake *fake = fake_new("transform", "{'output': null}");
    assert_int_equal(fake_run(fake), MR_OK);
    fake_assert_json(fake->task.output, "null");
}

static void test_sleep(void **state)
{
    (void)state;
    fake_auto struct fake *fake = fake_new("sleep", "{'for': '1.5s', 'output': 'after'}");
    uint64_t before = fake->clock_ms;
    assert_int_equal(fake_run(fake), MR_OK);
    fake_assert_json(fake->task.output, "'after'");
    assert_int_equal(fake->clock_ms - before, 1500);
    assert_int_equal(fake->plugin->default_timeout(fake->settings), 31500);

    fake_auto struct fake *plain = fake_new("sleep", "{'for': '1ms'}");
    assert_int_equal(fake_run(plain), MR_OK);
    fake_assert_json(plain->task.output, "null");

    fake_assert_check("sleep", "{}", "error", "for", "required", NULL);
    fake_assert_check("sleep", "{'for': '0s'}", "error", "/for", NULL);
    fake_assert_check("sleep", "{'for': 5}", "error", "/for", NULL);
}

static void test_sleep_is_ended(void **state)
{
    (void)state;
    fake_auto struct fake *fake = fake_new("sleep", "{'for': '1h'}");
    fake->torture_at = 1;
    fake->torture_code = MR_E_CANCELLED;
    assert_int_equal(fake_run(fake), MR_E_CANCELLED);
    assert_null(fake->task.output);
}

static void test_template(void **state)
{
    (void)state;
    fake_auto struct fake *fake = fake_new("template", "{'url': 'https://example.org/say'}");
    fake_set(fake, "input", "{'text': 'hello'}");
    fake_will_answer(fake, (struct fake_reply){.body = "{\"said\": true}"});
    assert_int_equal(fake_run(fake), MR_OK);
    fake_assert_json(fake->task.output, "{'said': true}");
    assert_string_equal(fake->requests[0].body, "hello");
    assert_int_equal(fake->requests[0].timeout_ms, 10000);

    fake_will_answer(fake, (struct fake_reply){.status = 502});
    assert_int_equal(fake_run(fake), MR_E_UPSTREAM_STATUS);
    assert_int_equal(error_class_of(&fake->task.error), MR_CLASS_RETRY);
    fake_will_answer(fake, (struct fake_reply){.status = 404});
    assert_int_equal(fake_run(fake), MR_E_UPSTREAM_STATUS);
    assert_int_equal(error_class_of(&fake->task.error), MR_CLASS_PERMANENT);
    fake_will_answer(fake, (struct fake_reply){.body = "no JSON"});
    assert_int_equal(fake_run(fake), MR_E_BAD_RESPONSE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo),           cmocka_unit_test(test_transform),
        cmocka_unit_test(test_null_output),    cmocka_unit_test(test_sleep),
        cmocka_unit_test(test_sleep_is_ended), cmocka_unit_test(test_template),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
