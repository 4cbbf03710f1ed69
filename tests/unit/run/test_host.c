/* The host's table: what a plugin gets from each call. The stage's `run` is a function of the test.
 */
#include "httpd.c"
#include "lane.h"

#include "base/id.h"

struct job {
    struct rig rig;
    struct lane lane;
};

/* Runs one stage "a" whose `run` is the function given; options are those of `transform`, so that
 * there is a template: settings begin with it. */
static void go(struct job *job, int (*run)(mr_context *, const void *), const char *output)
{
    char text[1024];
    rig_open(&job->rig);
    snprintf(text, sizeof(text),
             "{\"stages\":[{\"name\":\"a\",\"plugin\":\"transform\",\"timeout\":\"20s\","
             "\"options\":{\"output\":%s}}]}",
             output);
    struct pipeline *pipeline = rig_must(&job->rig, "test", text);
    rig_fake(pipeline, "a", run);
    lane_init(&job->lane, &job->rig, pipeline,
              "{\"n\":[1,{\"m\":\"x\"}],\"big\":9007199254740993}");
    rig_run(&job->rig, lane_main, &job->lane);
}

static void end(struct job *job)
{
    struct pipeline *pipeline = job->lane.run.pipeline;
    lane_done(&job->lane);
    pipeline_unref(pipeline);
    rig_close(&job->rig);
}

/* The same, and expects the log. */
static void expect(int (*run)(mr_context *, const void *), const char *output, const char *log)
{
    struct job job;
    go(&job, run, output);
    assert_string_equal(job.lane.log, log);
    end(&job);
}

static const mr_template *template_of(const void *settings)
{
    const mr_template *tpl;
    memcpy(&tpl, settings, sizeof(tpl));
    return tpl;
}

static int run_get(mr_context *cx, const void *settings)
{
    (void)settings;
    assert_int_equal(json_integer_value(mr_get(cx, ".input.n[0]")), 1);
    assert_string_equal(json_string_value(mr_get(cx, ".input.n[1].m")), "x");
    assert_string_equal(json_string_value(mr_get(cx, ".job.pipeline")), "test");
    assert_true(json_is_object(mr_get(cx, ".input")));
    static const char *const none[] = {".input.x",  ".nope",   ".input.n[9]", "input", ".",
                                       ".input..n", ".input[", ".input.n[x]", "",      NULL};
    for (size_t i = 0; none[i] != NULL; i++)
        assert_null(mr_get(cx, none[i]));
    return mr_output(cx, json_incref((json_t *)mr_get(cx, ".input.big")));
}

static void test_get(void **state)
{
    (void)state;
    expect(run_get, "1", "commit a=9007199254740993; ");
}

static int run_render(mr_context *cx, const void *settings)
{
    json_t *value = NULL;
    const char *text = NULL;
    uint64_t len = 0;
    json_t *bound = json_pack("{s:i}", "v", 5);
    assert_int_equal(mr_render(cx, template_of(settings), &value), MR_E_SCHEMA);
    assert_true(strlen(mr_error_text(cx)) > 0);
    assert_int_equal(mr_bind(cx, "input", bound), MR_OK);
    json_decref(bound);
    assert_int_equal(mr_render(cx, template_of(settings), &value), MR_OK);
    assert_int_equal(mr_sleep(cx, 1), MR_OK);
    assert_int_equal(mr_render_text(cx, template_of(settings), &text, &len), MR_OK);
    assert_string_equal(text, "{\"k\":\"5!\"}");
    assert_int_equal(len, strlen(text));
    return mr_output(cx, value);
}

static void test_render(void **state)
{
    (void)state;
    struct job job;
    go(&job, run_render, "{\"k\":\"{{ .input.v }}!\"}");
    assert_string_equal(job.lane.log, "commit a={\"k\":\"5!\"}; ");
    /* What a task binds is its own. */
    size_t len;
    assert_non_null(strstr(doc_text(job.lane.run.doc, "input", &len), "\"big\""));
    end(&job);
}

static int run_outputs(mr_context *cx, const void *settings)
{
    (void)settings;
    assert_int_equal(mr_output_text(cx, "[1, 2", 5), MR_E_BAD_RESPONSE);
    assert_int_equal(mr_output_text(cx, "[1,\n 2]", 7), MR_OK);
    return MR_OK;
}

static int run_large(mr_context *cx, const void *settings)
{
    (void)settings;
    char *text = mr_alloc(cx, 2u << 20);
    memset(text, 'x', (2u << 20) - 1);
    return mr_output(cx, json_string(text));
}

static int run_deep(mr_context *cx, const void *settings)
{
    (void)settings;
    json_t *value = json_array();
    for (int i = 0; i < 200; i++) {
        json_t *outer = json_array();
        json_array_append_new(outer, value);
        value = outer;
    }
    return mr_output(cx, value);
}

static void test_outputs(void **state)
{
    (void)state;
    expect(run_outputs, "1", "commit a=[1,2]; ");
    expect(run_large, "1", "fail a schema/permanent; ");
    expect(run_deep, "1", "fail a schema/permanent; ");
}

static int run_parse(mr_context *cx, const void *settings)
{
    (void)settings;
    json_t *value = NULL;
    const char *text = NULL;
    uint64_t len = 0;
    assert_int_equal(mr_parse(cx, "{\"a\":1,\"a\":2}", 13, &value), MR_E_BAD_RESPONSE);
    size_t size = 200000;
    char *big = mr_alloc(cx, size + 8);
    memset(big, ' ', size);
    memcpy(big + size, "[true]", 6);
    assert_int_equal(mr_parse(cx, big, size + 6, &value), MR_OK);
    assert_int_equal(mr_print(cx, value, &text, &len), MR_OK);
    json_decref(value);
    assert_string_equal(text, "[true]");
    return mr_output_text(cx, text, len);
}

static void test_parse_and_print(void **state)
{
    (void)state;
    expect(run_parse, "1", "commit a=[true]; ");
}

static int run_steps(mr_context *cx, const void *settings)
{
    (void)settings;
    const char *text = "x";
    uint64_t len = 9;
    assert_int_equal(mr_step_get(cx, "1", &text, &len), MR_OK);
    assert_null(text);
    assert_int_equal(len, 0);
    assert_int_equal(mr_step_put(cx, "1", "{\"s\":1}", 7), MR_OK);
    assert_int_equal(mr_step_get(cx, "1", &text, &len), MR_OK);
    assert_int_equal(mr_step_put(cx, "UPPER", "1", 1), MR_E_PLUGIN);
    assert_non_null(strstr(mr_error_text(cx), "not the name of a step"));
    assert_int_equal(mr_step_get(cx, "", &text, &len), MR_E_PLUGIN);
    return mr_output_text(cx, "{\"s\":1}", 7);
}

static void test_steps(void **state)
{
    (void)state;
    expect(run_steps, "1", "commit a={\"s\":1}; ");
}

static int run_children(mr_context *cx, const void *settings)
{
    (void)settings;
    char id[MR_ID_BYTES], same[MR_ID_BYTES];
    json_t *input = json_pack("{s:i, s:i}", "b", 1, "a", 2), *result = NULL;
    struct mr_child child = {.size = sizeof(child), .pipeline = "p", .target = "t", .input = input};
    assert_int_equal(mr_call(cx, &child, &result), MR_OK);
    assert_true(json_is_true(json_object_get(result, "called")));
    json_decref(result);
    child.id = "ownership:u1:c1";
    assert_int_equal(mr_dispatch(cx, &child, id), MR_OK);
    assert_int_equal(mr_child_id(cx, "t", "ownership:u1:c1", same), MR_OK);
    assert_string_equal(id, same);
    assert_int_equal(mr_uuid(cx, "ownership:u1:c1", same), MR_OK);
    assert_string_equal(id, same);
    assert_int_equal(mr_uuid(cx, "", same), MR_E_SCHEMA);
    child.pipeline = NULL;
    assert_int_equal(mr_dispatch(cx, &child, id), MR_E_PLUGIN);
    json_decref(input);
    return MR_OK;
}

static void test_children(void **state)
{
    (void)state;
    char child[ID_BYTES], log[512];
    id_of_child("11111111-2222-5333-8444-555555555555", "a", "t", child);
    /* Canonical input; the second id as Python's uuid5(NAMESPACE_DNS, "ownership:u1:c1"). */
    snprintf(log, sizeof(log), "call a p %s {\"a\":2,\"b\":1} 0; dispatch a p %s; commit a=null; ",
             child, "3195dbdd-39af-546a-a5db-8310ec5684da");
    expect(run_children, "1", log);
}

static int run_events(mr_context *cx, const void *settings)
{
    (void)settings;
    json_t *data = json_pack("{s:s}", "text", "to");
    assert_int_equal(mr_progress(cx, 250, "half"), MR_OK);
    assert_int_equal(mr_emit(cx, "stage.delta", data), MR_OK);
    assert_int_equal(mr_emit(cx, "job.completed", data), MR_E_PLUGIN);
    json_decref(data);
    mr_log(cx, MR_LOG_WARN, "odd: %d", 3);
    mr_usage(cx, 10, 20);
    mr_usage(cx, 1, -5);
    mr_usage(cx, 0, INT64_MAX);
    mr_usage(cx, 0, INT64_MAX);
    return mr_fail(cx, MR_E_QUOTA, "none left");
}

static void test_events_and_usage(void **state)
{
    (void)state;
    struct job job;
    go(&job, run_events, "1");
    assert_string_equal(job.lane.log, "progress a 100 half; emit a stage.delta {\"text\":\"to\"}; "
                                      "log a 2 odd: 3; fail a quota/permanent; ");
    /* What a failed attempt has used was paid for as well. */
    assert_int_equal(job.lane.run.input_tokens, 11);
    assert_int_equal(job.lane.run.output_tokens, (int64_t)1 << 50);
    end(&job);
}

static char order[32];

static void note(void *arg)
{
    strcat(order, arg);
}

static int run_defer(mr_context *cx, const void *settings)
{
    (void)settings;
    order[0] = '\0';
    mr_defer(cx, note, "1");
    mr_defer(cx, note, "2");
    unsigned char *memory = mr_alloc(cx, 100);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(memory[i], 0);
    assert_false(mr_cancelled(cx));
    assert_in_range(mr_time_left(cx), 1, 20000);
    assert_string_equal(mr_dir(cx), "/tmp");
    assert_int_equal(json_integer_value(json_object_get(mr_options(cx), "output")), 1);
    assert_true(mr_has(cx, offsetof(struct mr_host, now)));
    assert_true(mr_now(cx) > 0);
    return mr_fail(cx, MR_E_CONNECT, "whatever");
}

static void test_defer_and_facts(void **state)
{
    (void)state;
    expect(run_defer, "1", "fail a connect/retry; ");
    assert_string_equal(order, "21");
}

static int branch(mr_context *cx, void *arg, uint32_t index)
{
    int *sum = arg;
    /* The later ones fail first. */
    assert_int_equal(mr_sleep(cx, 10 - index), MR_OK);
    *sum += (int)index;
    if (index >= 2)
        return mr_fail(cx, MR_E_BAD_RESPONSE, "number %u", index);
    return MR_OK;
}

static int run_parallel(mr_context *cx, const void *settings)
{
    (void)settings;
    int sum = 0;
    assert_int_equal(mr_parallel(cx, branch, &sum, 0), MR_OK);
    assert_int_equal(mr_parallel(cx, branch, &sum, 2), MR_OK);
    assert_int_equal(sum, 1);
    int rc = mr_parallel(cx, branch, &sum, 4);
    assert_int_equal(sum, 7);
    assert_string_equal(mr_error_text(cx), "number 2");
    assert_int_equal(mr_parallel(cx, branch, &sum, 5000), MR_E_PLUGIN);
    return mr_fail(cx, rc, "after all");
}

static void test_parallel(void **state)
{
    (void)state;
    expect(run_parallel, "1", "fail a bad_response/retry; ");
}

/* Batches */

static unsigned batch_calls, batch_items, batch_most;

static void handle_batch(void **items, uint32_t count)
{
    batch_calls++;
    batch_items += count;
    batch_most = count > batch_most ? count : batch_most;
    for (uint32_t i = 0; i < count; i++)
        *(int *)items[i] += 1;
}

static uint32_t batch_max = 4;
static uint64_t batch_linger = 5;

static int run_batch(mr_context *cx, const void *settings)
{
    (void)settings;
    int item = 41;
    int rc = mr_batch(cx, &batch_calls, handle_batch, &item, batch_max, batch_linger);
    if (rc != MR_OK)
        return rc;
    return mr_output(cx, json_integer(item));
}

struct crowd {
    struct rig *rig;
    struct pipeline *pipeline;
    struct lane lanes[10];
    bool cancel;
};

static void crowd_main(void *arg)
{
    struct crowd *crowd = arg;
    struct group group;
    group_init(&group, &crowd->rig->loop);
    for (size_t i = 0; i < 10; i++) {
        lane_init(&crowd->lanes[i], crowd->rig, crowd->pipeline, "1");
        assert_int_equal(group_spawn(&group, NULL, lane_main, &crowd->lanes[i]), MR_OK);
    }
    for (int turns = 0; crowd->cancel && turns < 3; turns++)
        assert_int_equal(wait_yield(&crowd->rig->loop), MR_OK);
    for (size_t i = 0; crowd->cancel && i < 10; i++)
        scope_cancel(&crowd->lanes[i].run.scope, MR_E_CANCELLED);
    group_wait(&group);
}

static void batches(bool cancel)
{
    struct rig rig;
    struct crowd crowd = {.rig = &rig, .cancel = cancel};
    batch_calls = batch_items = batch_most = 0;
    rig_open(&rig);
    crowd.pipeline = rig_must(&rig, "test", "{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\"}]}");
    rig_fake(crowd.pipeline, "a", run_batch);
    rig_run(&rig, crowd_main, &crowd);
    for (size_t i = 0; i < 10; i++) {
        if (!cancel)
            assert_string_equal(crowd.lanes[i].log, "commit a=42; ");
        lane_done(&crowd.lanes[i]);
    }
    pipeline_unref(crowd.pipeline);
    rig_close(&rig);
}

static void test_batch(void **state)
{
    (void)state;
    batch_linger = 5;
    batches(false);
    assert_int_equal(batch_items, 10);
    assert_int_equal(batch_most, 4);
    assert_int_equal(batch_calls, 3);
}

static void test_batch_cancelled(void **state)
{
    (void)state;
    /* Cancelled while they linger: nothing is handled, and nobody waits for the hour to pass. */
    batch_linger = 3600000;
    batch_max = 100;
    batches(true);
    assert_int_equal(batch_items, 0);
    /* Cancelled while the thread has some of them: those are waited for. */
    batch_max = 4;
    batches(true);
    assert_true(batch_items <= 10);
    batch_linger = 5;
}

/* HTTP */

static struct endpoint endpoint = {.name = "model", .api_key = "sk-very-secret"};
static char base_url[64];

static const struct endpoint *find_endpoint(void *arg, const char *name)
{
    (void)arg;
    return strcmp(name, "model") == 0 ? &endpoint : NULL;
}

static int run_http(mr_context *cx, const void *settings)
{
    (void)settings;
    struct mr_http_reply reply = {.size = sizeof(reply)};
    struct mr_http request = {.size = sizeof(request), .endpoint = "nope", .url = "/echo"};
    assert_int_equal(mr_http(cx, &request, &reply), MR_E_PLUGIN);
    request.endpoint = "model";
    request.body = "hello";
    request.body_len = 5;
    assert_int_equal(mr_http(cx, &request, &reply), MR_OK);
    assert_int_equal(reply.status, 200);
    assert_non_null(strstr(reply.body, "POST /echo"));
    assert_non_null(strstr(reply.body, "Bearer sk-very-secret"));
    assert_non_null(strstr(reply.body, "hello"));
    assert_true(reply.header_count > 0);
    /* A provider that echoes the key must not bring it into the job's error. */
    mr_log(cx, MR_LOG_INFO, "key sk-very-secret");
    return mr_fail(cx, MR_E_UPSTREAM_STATUS, "bad key: sk-very-secret! and cut off: sk-very-secr");
}

struct limits {
    unsigned begun, ended;
    bool refuse;
};

static int http_begin(void *arg, struct run *run, const struct endpoint *asked, size_t body_len,
                      void **ret_ticket, struct error *err)
{
    struct limits *limits = arg;
    assert_non_null(run);
    assert_ptr_equal(asked, &endpoint);
    assert_int_equal(body_len, 5);
    limits->begun++;
    *ret_ticket = &limits->ended;
    if (!limits->refuse)
        return MR_OK;
    error_set(err, MR_E_RATE_LIMITED, "full");
    err->retry_in_ms = 77;
    return err->code;
}

static void http_end(void *arg, struct run *run, void *ticket, const struct http_reply *reply)
{
    (void)run;
    struct limits *limits = arg;
    assert_ptr_equal(ticket, &limits->ended);
    assert_non_null(reply);
    limits->ended++;
}

static void open_http(struct rig *rig, struct http **ret_http, struct limits *limits)
{
    static const char *const allow[] = {"127.0.0.0/8", NULL};
    const struct http_config config = {.handles = 1, .allow = allow};
    assert_int_equal(http_open(&rig->loop, &config, ret_http, NULL), MR_OK);
    rig->runner.http = *ret_http;
    rig->runner.find_endpoint = find_endpoint;
    rig->runner.http_begin = http_begin;
    rig->runner.http_end = http_end;
    rig->runner.arg = limits;
}

static void http_case(int (*run)(mr_context *, const void *), struct limits *limits,
                      const char *log, const char *message)
{
    struct rig rig;
    struct lane lane;
    struct http *http = NULL;
    rig_open(&rig);
    open_http(&rig, &http, limits);
    struct pipeline *pipeline = rig_must(
        &rig, "test", "{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\",\"timeout\":\"10s\"}]}");
    rig_fake(pipeline, "a", run);
    lane_init(&lane, &rig, pipeline, "1");
    rig_run(&rig, lane_main, &lane);
    assert_string_equal(lane.log, log);
    assert_string_equal(lane.last.message, message);
    assert_null(strstr(lane.last.detail, "sk-very"));
    lane_done(&lane);
    pipeline_unref(pipeline);
    http_close(http);
    rig_close(&rig);
}

static int run_refused(mr_context *cx, const void *settings)
{
    (void)settings;
    struct mr_http_reply reply = {.size = sizeof(reply)};
    struct mr_http request = {.size = sizeof(request),
                              .endpoint = "model",
                              .url = "echo",
                              .body = "hello",
                              .body_len = 5};
    return mr_http(cx, &request, &reply);
}

static int run_guarded(mr_context *cx, const void *settings)
{
    (void)settings;
    struct mr_http_reply reply = {.size = sizeof(reply)};
    struct mr_http request = {
        .size = sizeof(request), .url = "http://10.0.0.1/x", .flags = MR_HTTP_GUARD};
    assert_int_equal(mr_http(cx, &request, &reply), MR_E_SCHEMA);
    return MR_OK;
}

static void test_http(void **state)
{
    (void)state;
    struct httpd httpd;
    assert_true(httpd_start(&httpd));
    snprintf(base_url, sizeof(base_url), "http://127.0.0.1:%d/", httpd.port);
    endpoint.base_url = base_url;
    struct limits limits = {0};
    http_case(run_http, &limits, "log a 1 key ***; fail a upstream_status/retry; ",
              "bad key: ***! and cut off: ***");
    assert_int_equal(limits.begun, 1);
    assert_int_equal(limits.ended, 1);
    limits = (struct limits){.refuse = true};
    http_case(run_refused, &limits, "fail a rate_limited/throttled; ", "full");
    assert_int_equal(limits.ended, 0);
    http_case(run_guarded, &limits, "commit a=null; ", "");
    httpd_stop(&httpd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get),
        cmocka_unit_test(test_render),
        cmocka_unit_test(test_outputs),
        cmocka_unit_test(test_parse_and_print),
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_children),
        cmocka_unit_test(test_events_and_usage),
        cmocka_unit_test(test_defer_and_facts),
        cmocka_unit_test(test_parallel),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_batch_cancelled),
        cmocka_unit_test(test_http),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
