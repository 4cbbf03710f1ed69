/* The reward plugin: order, fallbacks, steps, parallel neighbours, services. */
#include "fake_host.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* The example of ARCHITECTURE.md. */
#define EXAMPLE                                                                                    \
    "{'targets': ["                                                                                \
    " {'name': 'match', 'mode': 'call', 'pipeline': 'character-match', 'timeout': '10s',"          \
    "  'on_timeout': null, 'input': {'label': '{{ .vision.middle }}'}},"                           \
    " {'name': 'save_ownership', 'mode': 'dispatch', 'pipeline': 'save-ownership',"                \
    "  'when': '.match.received',"                                                                 \
    "  'id': 'ownership:{{ .input.user_id }}:{{ .match.character_id }}',"                          \
    "  'input': {'user_id': '{{ .input.user_id }}',"                                               \
    "            'character_id': '{{ .match.character_id }}'}}]}"

static struct fake *make(const char *options)
{
    struct fake *fake = fake_new("reward", options);
    fake_set(fake, "input", "{'user_id': 'u1', 'kind': 'a'}");
    fake_set(fake, "vision", "{'middle': 'can'}");
    return fake;
}

static void test_example(void **state)
{
    (void)state;
    fake_auto struct fake *fake = make(EXAMPLE);
    fake_will_end(fake, "match", MR_OK, "{'received': true, 'character_id': 'c1'}");
    assert_int_equal(fake_run(fake), MR_OK);
    /* The id is Python's uuid5(NAMESPACE_DNS, "ownership:u1:c1"). */
    fake_assert_json(fake->task.output,
                     "{'match': {'received': true, 'character_id': 'c1'},"
                     " 'save_ownership': '3195dbdd-39af-546a-a5db-8310ec5684da'}");
    mem_auto char *want =
        fake_json("call match character-match id=- {'label':'can'}\n"
                  "step_put target.match {'received':true,'character_id':'c1'}\n"
                  "bind match {'received':true,'character_id':'c1'}\n"
                  "progress 50\n"
                  "dispatch save_ownership save-ownership id=ownership:u1:c1"
                  " {'user_id':'u1','character_id':'c1'}\n"
                  "step_put target.save_ownership '3195dbdd-39af-546a-a5db-8310ec5684da'\n"
                  "bind save_ownership '3195dbdd-39af-546a-a5db-8310ec5684da'\n"
                  "progress 100\n");
    assert_string_equal(buf_text(&fake->trace), want);
}

static void test_skipped(void **state)
{
    (void)state;
    fake_auto struct fake *fake = make(EXAMPLE);
    fake_will_end(fake, "match", MR_OK, "{'received': false}");
    assert_int_equal(fake_run(fake), MR_OK);
    fake_assert_json(fake->task.output, "{'match': {'received': false}, 'save_ownership': null}");
    assert_null(strstr(buf_text(&fake->trace), "dispatch"));
    assert_non_null(strstr(buf_text(&fake->trace), "bind save_ownership null\n"));
}

/* on_timeout null is an outcome: the dependent target is skipped, nothing fails. */
static void test_timeout(void **state)
{
    (void)state;
    fake_auto struct fake *fake = make(EXAMPLE);
    fake_will_end(fake, "match", MR_E_CALL_TIMEOUT, NULL);
    assert_int_equal(fake_run(fake), MR_OK);
    fake_assert_json(fake->task.output, "{'match': null, 'save_ownership': null}");
    assert_string_equal(fake_step(fake, "target.match"), "null");
}

/* After a fallback was stored, a second run stands by it, even though the child has ended. */
static void test_fallback_survives_crash(void **state)
{
    (void)state;
    fake_auto struct fake *fake = make(
        "{'targets': [{'name': 'prize', 'mode': 'call', 'pipeline': 'p', 'on_timeout': null},"
        " {'name': 'give', 'mode': 'dispatch', 'pipeline': 'g', 'when': '.prize != null'},"
        " {'name': 'console', 'mode': 'dispatch', 'pipeline': 'c', 'when': '.prize == null'}]}");
    fake_will_end(fake, "prize", MR_E_CALL_TIMEOUT, NULL);
    fake->torture_at = 4; /* call, step, step of the skipped, dispatch */
    fake->torture_code = MR_E_LOST;
    fake->torture_after = true;
    assert_int_equal(fake_run(fake), MR_E_LOST);
    assert_non_null(strstr(buf_text(&fake->trace), "dispatch console"));

    fake->torture_at = 0;
    fake_clear_trace(fake);
    fake_will_end(fake, "prize", MR_OK, "{'n': 1}"); /* it would be there by now */
    assert_int_equal(fake_run(fake), MR_OK);
    assert_null(strstr(buf_text(&fake->trace), "call prize"));
    assert_null(strstr(buf_text(&fake->trace), "dispatch give"));
    assert_non_null(strstr(buf_text(&fake->trace), "dispatch console"));
}

/* Wherever a run breaks off, the next one ends with the same outcome, and what is stored is not
 * done again. */
static void test_replay_everywhere(void **state)
{
    (void)state;
    for (unsigned at = 1;; at++)
        for (int after = 0; after < 2; after++) {
            fake_auto struct fake *fake = make(EXAMPLE);
            /* The first run and a repeat of it meet the same child. */
            fake_will_end(fake, "match", MR_OK, "{'received': true, 'character_id': 'c1'}");
            fake_will_end(fake, "match", MR_OK, "{'received': true, 'character_id': 'c1'}");
            fake->torture_at = at;
            fake->torture_code = MR_E_LOST;
            fake->torture_after = after;
            int rc = fake_run(fake);
            bool was_hit = fake->task.suspensions >= at;
            assert_int_equal(rc, was_hit ? MR_E_LOST : MR_OK);
            bool match_is_stored = fake_step(fake, "target.match") != NULL;
            fake->torture_at = 0;
            fake_clear_trace(fake);
            assert_int_equal(fake_run(fake), MR_OK);
            fake_assert_json(fake->task.output,
                             "{'match': {'received': true, 'character_id': 'c1'},"
                             " 'save_ownership': '3195dbdd-39af-546a-a5db-8310ec5684da'}");
            assert_int_equal(strstr(buf_text(&fake->trace), "call match") == NULL, match_is_stored);
            if (!was_hit)
                return;
        }
}

static void test_which_fallback(void **state)
{
    (void)state;
    static const struct {
        const char *options;
        int code;   /* how the call ends */
        int result; /* of the task */
        const char *outcome;
    } rows[] = {
        {"", MR_E_CALL_TIMEOUT, MR_E_CALL_TIMEOUT, NULL},
        {"", MR_E_CALL_FAILED, MR_E_CALL_FAILED, NULL},
        {", 'on_timeout': 'fail', 'on_failure': 1", MR_E_CALL_TIMEOUT, MR_E_CALL_TIMEOUT, NULL},
        {", 'on_timeout': {'n': 0}", MR_E_CALL_TIMEOUT, MR_OK, "{'n': 0}"},
        {", 'on_timeout': {'n': 0}", MR_E_CALL_FAILED, MR_E_CALL_FAILED, NULL},
        {", 'on_failure': 'sorry'", MR_E_CALL_FAILED, MR_OK, "'sorry'"},
        {", 'on_failure': 'fail'", MR_E_CALL_FAILED, MR_E_CALL_FAILED, NULL},
        {", 'on_failure': null", MR_E_CALL_TIMEOUT, MR_OK, "null"},
        {", 'on_failure': null", MR_E_ID_CONFLICT, MR_OK, "null"},
        {", 'on_failure': 2, 'on_timeout': 1", MR_E_CALL_TIMEOUT, MR_OK, "1"},
        {", 'on_failure': 2, 'on_timeout': 1", MR_E_CALL_FAILED, MR_OK, "2"},
        /* What ends the task is nobody's failure. */
        {", 'on_failure': 2, 'on_timeout': 1", MR_E_CANCELLED, MR_E_CANCELLED, NULL},
        {", 'on_failure': 2, 'on_timeout': 1", MR_E_LOST, MR_E_LOST, NULL},
        {", 'on_failure': 2, 'on_timeout': 1", MR_E_STOPPING, MR_E_STOPPING, NULL},
        {", 'on_failure': 2, 'on_timeout': 1", MR_E_STORE, MR_E_STORE, NULL},
        {", 'on_failure': 2, 'on_timeout': 1", MR_E_RATE_LIMITED, MR_E_RATE_LIMITED, NULL},
        {", 'on_failure': 2, 'on_timeout': 1", MR_E_DEADLINE, MR_E_DEADLINE, NULL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        mem_auto char *options = mem_format(
            "{'targets': [{'name': 't', 'mode': 'call', 'pipeline': 'p'%s}]}", rows[i].options);
        fake_auto struct fake *fake = make(options);
        fake_will_end(fake, "t", rows[i].code, NULL);
        print_message("row %zu\n", i);
        assert_int_equal(fake_run(fake), rows[i].result);
        if (rows[i].outcome) {
            mem_auto char *want = mem_format("{'t': %s}", rows[i].outcome);
            fake_assert_json(fake->task.output, want);
        } else
            assert_null(fake_step(fake, "target.t"));
    }
}

/* The stage's own time is up: that is no time-out of the target. */
static void test_own_timeout(void **state)
{
    (void)state;
    fake_auto struct fake *fake = make("{'targets': [{'name': 't', 'mode': 'call',"
                                       " 'pipeline': 'p', 'on_timeout': 1, 'on_failure': 2}]}");
    fake_will_end(fake, "t", MR_E_TIMEOUT, NULL);
    fake->time_left_ms = 0;
    assert_int_equal(fake_run(fake), MR_E_TIMEOUT);
    assert_null(fake_step(fake, "target.t"));
}

static void test_dispatch_fails(void **state)
{
    (void)state;
    fake_auto struct fake *fake = make("{'targets': [{'name': 't', 'mode': 'dispatch',"
                                       " 'pipeline': 'p', 'on_failure': null}]}");
    fake_will_end(fake, "t", MR_E_ID_CONFLICT, NULL);
    assert_int_equal(fake_run(fake), MR_OK);
    fake_assert_json(fake->task.output, "{'t': null}");
}

/* Input and id by default: the job's input, and no name. */
static void test_defaults(void **state)
{
    (void)state;
    fake_auto struct fake *fake = make("{'targets': [{'name': 't', 'mode': 'dispatch',"
                                       " 'pipeline': 'p'}]}");
    assert_int_equal(fake_run(fake), MR_OK);
    mem_auto char *want = fake_json("dispatch t p id=- {'user_id':'u1','kind':'a'}\n");
    assert_non_null(strstr(buf_text(&fake->trace), want));
}

static void test_bad_ids(void **state)
{
    (void)state;
    static const char *const inputs[] = {"{'user_id': ''}", "{'user_id': null}", "{}",
                                         "{'user_id': 'a:b'}"};
    fake_auto struct fake *fake =
        make("{'targets': [{'name': 't', 'mode': 'dispatch', 'pipeline': 'p',"
             " 'id': 'x:{{ .input.user_id }}', 'input': {}}]}");
    for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++) {
        fake_set(fake, "input", inputs[i]);
        assert_int_equal(fake_run(fake), MR_E_SCHEMA);
        assert_null(strstr(buf_text(&fake->trace), "dispatch"));
    }
}

#define PARALLEL                                                                                   \
    "{'targets': ["                                                                                \
    " {'name': 'a', 'mode': 'call', 'pipeline': 'p', 'parallel': true},"                           \
    " {'name': 'b', 'mode': 'call', 'pipeline': 'p', 'parallel': true, 'on_failure': 0},"          \
    " {'name': 'c', 'mode': 'call', 'pipeline': 'p', 'input': {'a': '{{ .a }}', 'b': '{{ .b "      \
    "}}'}}]}"

static void test_parallel(void **state)
{
    (void)state;
    fake_auto struct fake *fake = make(PARALLEL);
    fake_will_end(fake, "a", MR_OK, "1");
    fake_will_end(fake, "b", MR_E_CALL_FAILED, NULL);
    fake_will_end(fake, "c", MR_OK, "3");
    assert_int_equal(fake_run(fake), MR_OK);
    fake_assert_json(fake->task.output, "{'a': 1, 'b': 0, 'c': 3}");
    const char *trace = buf_text(&fake->trace);
    mem_auto char *third = fake_json("call c p id=- {'a':1,'b':0}\n");
    const char *begin = strstr(trace, "parallel 2\n");
    const char *end = strstr(trace, "parallel end\n");
    assert_true(begin && end && strstr(begin, "call a") < end && strstr(begin, "call b") < end);
    assert_true(strstr(trace, "bind a 1\nbind b 0\n") > end);
    assert_non_null(strstr(end, third));
}

/* One of two neighbours fails: the other's outcome is stored all the same, and stands. */
static void test_parallel_failure(void **state)
{
    (void)state;
    fake_auto struct fake *fake = make(PARALLEL);
    fake_will_end(fake, "a", MR_E_CALL_FAILED, NULL);
    fake_will_end(fake, "b", MR_OK, "2");
    assert_int_equal(fake_run(fake), MR_E_CALL_FAILED);
    assert_string_equal(fake_step(fake, "target.b"), "2");
    assert_null(fake_step(fake, "target.a"));
    fake_will_end(fake, "a", MR_OK, "1");
    fake_will_end(fake, "c", MR_OK, "3");
    fake_clear_trace(fake);
    assert_int_equal(fake_run(fake), MR_OK);
    assert_null(strstr(buf_text(&fake->trace), "call b"));
    fake_assert_json(fake->task.output, "{'a': 1, 'b': 2, 'c': 3}");
}

static void test_url_call(void **state)
{
    (void)state;
    fake_auto struct fake *fake =
        make("{'targets': [{'name': 't', 'mode': 'call', 'timeout': '7s',"
             " 'url': 'http://points.internal/u/{{ .input.user_id }}',"
             " 'id': 'points:{{ .input.user_id }}', 'input': {'n': 5}}]}");
    fake_will_answer(fake, (struct fake_reply){.status = 201, .body = "{\"total\": 12}"});
    assert_int_equal(fake_run(fake), MR_OK);
    fake_assert_json(fake->task.output, "{'t': {'total': 12}}");
    const struct fake_request *request = &fake->requests[0];
    assert_string_equal(request->method, "POST");
    assert_string_equal(request->url, "http://points.internal/u/u1");
    fake_assert_json(request->body, "{'n': 5}");
    assert_int_equal(request->timeout_ms, 7000);
    assert_int_equal(request->flags, 0); /* the host part is the pipeline's own */
    char id[MR_ID_BYTES];
    assert_int_equal(fake_table.uuid(&fake->task.cx, "points:u1", id), MR_OK);
    mem_auto char *header = mem_format("Idempotency-Key: %s\n", id);
    assert_non_null(strstr(request->headers, header));
}

/* A host that a user chooses is guarded. */
static void test_url_guard(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        uint32_t flags;
    } rows[] = {
        {"http://a.internal", 0},
        {"http://a.internal/x", 0},
        {"http://a.internal?u={{ .input.user_id }}", 0},
        {"{{ .input.url }}", MR_HTTP_GUARD},
        {"http://{{ .input.user_id }}/x", MR_HTTP_GUARD},
        {"http://a{{ .input.user_id }}/x", MR_HTTP_GUARD},
        {"http://a.internal{{ .input.user_id }}", MR_HTTP_GUARD},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        mem_auto char *options =
            mem_format("{'targets': [{'name': 't', 'mode': 'call', 'url': '%s'}]}", rows[i].url);
        fake_auto struct fake *fake = make(options);
        fake_set(fake, "input", "{'user_id': 'u1', 'url': 'http://10.0.0.1/'}");
        fake_will_answer(fake, (struct fake_reply){.status = 204});
        assert_int_equal(fake_run(fake), MR_OK);
        fake_assert_json(fake->task.output, "{'t': null}");
        assert_int_equal(fake->requests[0].flags, rows[i].flags);
    }
}

static void test_url_dispatch(void **state)
{
    (void)state;
    fake_auto struct fake *fake =
        make("{'targets': [{'name': 't', 'mode': 'dispatch', 'url': 'http://a.internal/'}]}");
    fake_will_answer(fake, (struct fake_reply){.status = 202, .body = "whatever, not JSON"});
    assert_int_equal(fake_run(fake), MR_OK);
    char id[MR_ID_BYTES];
    fake_table.child_id(&fake->task.cx, "t", NULL, id);
    mem_auto char *want = mem_format("{'t': '%s'}", id);
    fake_assert_json(fake->task.output, want);
}

static void test_url_errors(void **state)
{
    (void)state;
    static const struct {
        struct fake_reply reply;
        int code, cls;
        uint64_t retry_in_ms;
        bool falls_back;
    } rows[] = {
        {{.status = 500}, MR_E_UPSTREAM_STATUS, MR_CLASS_RETRY, 0, true},
        {{.status = 503, .headers = "retry-after: 2"},
         MR_E_UPSTREAM_STATUS,
         MR_CLASS_RETRY,
         2000,
         true},
        {{.status = 404}, MR_E_UPSTREAM_STATUS, MR_CLASS_PERMANENT, 0, true},
        {{.status = 401}, MR_E_AUTH, MR_CLASS_PERMANENT, 0, true},
        {{.status = 429, .headers = "retry-after: 5"},
         MR_E_RATE_LIMITED,
         MR_CLASS_THROTTLED,
         5000,
         false},
        {{.body = "not json"}, MR_E_BAD_RESPONSE, MR_CLASS_RETRY, 0, true},
        {{.code = MR_E_CONNECT}, MR_E_CONNECT, MR_CLASS_RETRY, 0, true},
        {{.code = MR_E_TIMEOUT}, MR_E_TIMEOUT, MR_CLASS_RETRY, 0, true},
        {{.code = MR_E_CANCELLED}, MR_E_CANCELLED, MR_CLASS_CANCELLED, 0, false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        print_message("row %zu\n", i);
        fake_auto struct fake *fake =
            make("{'targets': [{'name': 't', 'mode': 'call', 'url': 'http://a.internal/'}]}");
        fake_will_answer(fake, rows[i].reply);
        assert_int_equal(fake_run(fake), rows[i].code);
        assert_int_equal(error_class_of(&fake->task.error), rows[i].cls);
        assert_int_equal(fake->task.error.retry_in_ms, rows[i].retry_in_ms);

        fake_auto struct fake *soft = make("{'targets': [{'name': 't', 'mode': 'call',"
                                           " 'url': 'http://a.internal/', 'on_failure': 0}]}");
        fake_will_answer(soft, rows[i].reply);
        assert_int_equal(fake_run(soft), rows[i].falls_back ? MR_OK : rows[i].code);
    }
}

static void test_check(void **state)
{
    (void)state;
#define TARGET(members) "{'targets': [{'name': 't', " members "}]}"
    mem_auto char *none = fake_check("reward", EXAMPLE);
    assert_string_equal(none, "");
    fake_assert_check("reward", "{}", "error", "targets", "required", NULL);
    fake_assert_check("reward", "{'targets': []}", "error", "/targets", NULL);
    fake_assert_check("reward", TARGET("'mode': 'call'"), "error", "/targets/0", "neither", NULL);
    fake_assert_check("reward", TARGET("'mode': 'call', 'pipeline': 'p', 'url': 'http://a/'"),
                      "error", "/targets/0", "both", NULL);
    fake_assert_check("reward", TARGET("'mode': 'dispatch', 'pipeline': 'p', 'on_timeout': null"),
                      "error", "/targets/0/on_timeout", "dispatch", NULL);
    fake_assert_check("reward", TARGET("'mode': 'call', 'url': null"), "error", "/targets/0/url",
                      "not a string", NULL);
    fake_assert_check("reward", TARGET("'mode': 'call', 'pipeline': 'p', 'id': ['x']"), "error",
                      "/targets/0/id", "not a string", NULL);
    fake_assert_check("reward", TARGET("'pipeline': 'p'"), "error", "/targets/0", "mode", NULL);
    fake_assert_check("reward", TARGET("'mode': 'ask', 'pipeline': 'p'"), "error",
                      "/targets/0/mode", "dispatch", NULL);
    fake_assert_check("reward", TARGET("'mode': 'call', 'pipeline': 'p', 'timeout': '0s'"), "error",
                      "/targets/0/timeout", NULL);
    fake_assert_check("reward", TARGET("'mode': 'call', 'pipeline': 'p', 'on_timout': 1"), "error",
                      "/targets/0/on_timout", "on_timeout", NULL);
    fake_assert_check("reward", "{'targets': [{'name': 'input', 'mode': 'call', 'pipeline': 'p'}]}",
                      "error", "/targets/0/name", NULL);
    fake_assert_check("reward",
                      "{'targets': [{'name': 't', 'mode': 'call', 'pipeline': 'p'},"
                      " {'name': 't', 'mode': 'call', 'pipeline': 'p'}]}",
                      "error", "/targets/1/name", NULL);
    fake_assert_check("reward", TARGET("'mode': 'call', 'pipeline': 'p', 'when': '.a |'"), "error",
                      "/targets/0/when", NULL);
}

static void test_default_timeout(void **state)
{
    (void)state;
    fake_auto struct fake *fake =
        make("{'targets': [{'name': 'a', 'mode': 'call', 'pipeline': 'p'},"
             " {'name': 'b', 'mode': 'call', 'pipeline': 'p', 'timeout': '2500ms'},"
             " {'name': 'c', 'mode': 'dispatch', 'pipeline': 'p'}]}");
    assert_int_equal(fake->plugin->default_timeout(fake->settings), 10000 + 2500 + 5000);
}

static struct fake *prepare_torture(void)
{
    struct fake *fake =
        make("{'targets': [{'name': 'a', 'mode': 'call', 'pipeline': 'p', 'parallel': true},"
             " {'name': 'b', 'mode': 'dispatch', 'pipeline': 'p', 'parallel': true},"
             " {'name': 'c', 'mode': 'call', 'url': 'http://a.internal/{{ .a }}'}]}");
    fake_will_end(fake, "a", MR_OK, "{'x': [1]}");
    fake_will_answer(fake, (struct fake_reply){.body = "{\"y\": 1}"});
    return fake;
}

static void check_torture(struct fake *fake)
{
    assert_int_equal(fake->task.code, fake->torture_code);
}

static void test_torture(void **state)
{
    (void)state;
    assert_int_equal(fake_torture(prepare_torture, check_torture), 5 * 2 * 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_example),
        cmocka_unit_test(test_skipped),
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_fallback_survives_crash),
        cmocka_unit_test(test_replay_everywhere),
        cmocka_unit_test(test_which_fallback),
        cmocka_unit_test(test_own_timeout),
        cmocka_unit_test(test_dispatch_fails),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_bad_ids),
        cmocka_unit_test(test_parallel),
        cmocka_unit_test(test_parallel_failure),
        cmocka_unit_test(test_url_call),
        cmocka_unit_test(test_url_guard),
        cmocka_unit_test(test_url_dispatch),
        cmocka_unit_test(test_url_errors),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_default_timeout),
        cmocka_unit_test(test_torture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
