/* `millrace run`: whole jobs in memory, with children, retries, deadlines. */
#include "rig.h"

#include "run/local.h"

struct job {
    struct rig rig;
    struct pipeline *pipelines[8];
    size_t count;
    char log[8192]; /* kinds of events with stages */
    char *result;
    size_t len;
    struct error err;
    int rc;
    json_t *input;
    struct scope scope;
};

static struct pipeline *find(void *arg, const char *name, struct error *err)
{
    struct job *job = arg;
    for (size_t i = 0; i < job->count; i++)
        if (strcmp(job->pipelines[i]->name, name) == 0)
            return job->pipelines[i];
    error_set(err, MR_E_PLUGIN, "there is no pipeline \"%s\"", name);
    return NULL;
}

static void on_event(void *arg, const char *id, const char *kind, const char *stage,
                     const char *data)
{
    (void)id;
    struct job *job = arg;
    size_t len = strlen(job->log);
    if (data != NULL && data[0] == '{')
        json_decref(json_read(data, strlen(data), 0, NULL));
    snprintf(job->log + len, sizeof(job->log) - len, "%s%s%s; ", kind, stage != NULL ? " " : "",
             stage != NULL ? stage : "");
}

static void job_open(struct job *job)
{
    memset(job, 0, sizeof(*job));
    rig_open(&job->rig);
}

static struct pipeline *add(struct job *job, const char *name, const char *text)
{
    job->pipelines[job->count++] = rig_must(&job->rig, name, text);
    return job->pipelines[job->count - 1];
}

static void job_main(void *arg)
{
    struct job *job = arg;
    const struct local_setup setup = {
        .runner = &job->rig.runner, .find_pipeline = find, .arg = job, .on_event = on_event};
    struct scope *before = scope_enter(&job->scope);
    job->rc = local_run(&setup, job->pipelines[0], job->input, &job->result, &job->len, &job->err);
    scope_enter(before);
}

static void job_run(struct job *job, const char *input)
{
    job->input = json_read(input, strlen(input), 0, NULL);
    assert_non_null(job->input);
    scope_init(&job->scope, NULL);
    rig_run(&job->rig, job_main, job);
    scope_done(&job->scope);
}

static void job_close(struct job *job)
{
    free(job->result);
    json_decref(job->input);
    for (size_t i = 0; i < job->count; i++)
        pipeline_unref(job->pipelines[i]);
    rig_close(&job->rig);
}

static unsigned count(const char *text, const char *word)
{
    unsigned n = 0;
    for (; (text = strstr(text, word)) != NULL; text++)
        n++;
    return n;
}

static void test_result(void **state)
{
    (void)state;
    struct job job;
    job_open(&job);
    add(&job, "main",
        "{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\"},"
        "{\"name\":\"b\",\"plugin\":\"echo\",\"when\":\"false\",\"else\":3}],"
        "\"result\":[\"{{ .a.x }}\",\"{{ .b }}\"]}");
    job_run(&job, "{\"x\":1}");
    assert_int_equal(job.rc, MR_OK);
    assert_string_equal(job.result, "[1,3]");
    assert_string_equal(job.log, "job.queued; stage.started a; stage.completed a; "
                                 "stage.completed b; job.completed; ");
    job_close(&job);
}

static void test_failure(void **state)
{
    (void)state;
    struct job job;
    job_open(&job);
    /* The other branch ends and is stored; what comes after it does not begin. */
    add(&job, "main",
        "{\"stages\":[{\"name\":\"b\",\"plugin\":\"sleep\",\"options\":{\"for\":\"20ms\"}},"
        "{\"name\":\"c\",\"plugin\":\"echo\"},{\"name\":\"s\",\"plugin\":\"sleep\",\"needs\":[],"
        "\"options\":{\"for\":\"1ms\"}},{\"name\":\"a\",\"plugin\":\"echo\",\"needs\":[\"s\"],"
        "\"options\":{\"output\":\"{{ .input.y }}!\"}}]}");
    job_run(&job, "{\"x\":1}");
    assert_int_equal(job.rc, MR_E_SCHEMA);
    assert_int_equal(job.err.code, MR_E_SCHEMA);
    assert_null(job.result);
    assert_string_equal(job.log, "job.queued; stage.started b; stage.started s; stage.completed s; "
                                 "stage.started a; stage.failed a; stage.completed b; "
                                 "job.failed; ");
    job_close(&job);
}

static unsigned runs;

static int run_third_time(mr_context *cx, const void *settings)
{
    (void)settings;
    if (++runs < 3)
        return mr_fail(cx, MR_E_CONNECT, "not yet");
    return mr_output(cx, json_integer(runs));
}

static int run_throttled(mr_context *cx, const void *settings)
{
    (void)settings;
    if (++runs < 6)
        return mr_fail_as(cx, MR_E_RATE_LIMITED, MR_CLASS_DEFAULT, 1, "wait");
    return mr_output(cx, json_integer(runs));
}

static int run_never(mr_context *cx, const void *settings)
{
    (void)settings;
    runs++;
    return mr_fail(cx, MR_E_CONNECT, "never");
}

static void retried(int (*run)(mr_context *, const void *), const char *result, unsigned attempts)
{
    struct job job;
    job_open(&job);
    runs = 0;
    struct pipeline *pipeline =
        add(&job, "main",
            "{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\",\"retry\":{\"attempts\":3,"
            "\"backoff\":\"2ms\",\"max_backoff\":\"4ms\"}}],\"result\":\"{{ .a }}\"}");
    rig_fake(pipeline, "a", run);
    job_run(&job, "1");
    assert_int_equal(runs, attempts);
    assert_int_equal(count(job.log, "stage.retrying"), result != NULL ? attempts - 1 : 2);
    if (result != NULL) {
        assert_string_equal(job.result, result);
    } else {
        assert_int_equal(job.rc, MR_E_CONNECT);
        assert_string_equal(job.err.message, "never");
    }
    job_close(&job);
}

static void test_retries(void **state)
{
    (void)state;
    retried(run_third_time, "3", 3);
    retried(run_throttled, "6", 6);
    retried(run_never, NULL, 3);
}

static void test_steps_survive_a_retry(void **state)
{
    (void)state;
    struct job job;
    job_open(&job);
    /* A target that fails after another one was dispatched: that one is not submitted again. */
    add(&job, "main",
        "{\"stages\":[{\"name\":\"r\",\"plugin\":\"reward\",\"retry\":{\"attempts\":2,\"backoff\":"
        "\"1ms\","
        "\"max_backoff\":\"1ms\"},\"options\":{\"targets\":["
        "{\"name\":\"one\",\"mode\":\"dispatch\",\"pipeline\":\"child\"},"
        "{\"name\":\"two\",\"mode\":\"call\",\"pipeline\":\"broken\"}]}}]}");
    add(&job, "child", "{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\"}]}");
    struct pipeline *broken =
        add(&job, "broken",
            "{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\",\"retry\":{\"attempts\":1}}]}");
    rig_fake(broken, "a", run_never);
    job_run(&job, "{}");
    assert_int_equal(job.rc, MR_E_CALL_FAILED);
    assert_non_null(strstr(job.err.message, "broken"));
    assert_int_equal(count(job.log, "stage.started r;"), 2);
    /* The two children and the job itself, each once. */
    assert_int_equal(count(job.log, "job.queued"), 3);
    job_close(&job);
}

static void test_children(void **state)
{
    (void)state;
    struct job job;
    job_open(&job);
    add(&job, "main",
        "{\"stages\":[{\"name\":\"r\",\"plugin\":\"reward\",\"options\":{\"targets\":["
        "{\"name\":\"one\",\"mode\":\"call\",\"pipeline\":\"child\",\"input\":{\"n\":\"{{ .input.n "
        "}}\"}},"
        "{\"name\":\"two\",\"mode\":\"dispatch\",\"pipeline\":\"child\",\"id\":\"same:{{ .one }}\","
        "\"input\":\"{{ .one }}\"},"
        "{\"name\":\"three\",\"mode\":\"dispatch\",\"pipeline\":\"child\",\"id\":\"same:{{ .one "
        "}}\"},"
        "{\"name\":\"four\",\"mode\":\"dispatch\",\"pipeline\":\"other\",\"id\":\"same:{{ .one "
        "}}\","
        "\"on_failure\":\"conflict\"}"
        "]}}],\"result\":\"{{ .r }}\"}");
    add(&job, "child",
        "{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\"}],\"result\":\"{{ .a.n // 0 }}\"}");
    add(&job, "other", "{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\"}]}");
    job_run(&job, "{\"n\":8}");
    assert_int_equal(job.rc, MR_OK);
    json_hold json_t *result = json_read(job.result, job.len, 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(result, "one")), 8);
    const char *two = json_string_value(json_object_get(result, "two"));
    assert_non_null(two);
    assert_string_equal(two, json_string_value(json_object_get(result, "three")));
    assert_string_equal(json_string_value(json_object_get(result, "four")), "conflict");
    /* main, the call, and one job for the two dispatches with one id. */
    assert_int_equal(count(job.log, "job.queued"), 3);
    assert_int_equal(count(job.log, "job.failed"), 1);
    job_close(&job);
}

static void test_call_that_takes_too_long(void **state)
{
    (void)state;
    struct job job;
    job_open(&job);
    add(&job, "main",
        "{\"stages\":[{\"name\":\"r\",\"plugin\":\"reward\",\"options\":{\"targets\":["
        "{\"name\":\"one\",\"mode\":\"call\",\"pipeline\":\"slow\",\"timeout\":\"20ms\","
        "\"on_timeout\":\"late\"}]}}],\"result\":\"{{ .r.one }}\"}");
    add(&job, "slow",
        "{\"stages\":[{\"name\":\"a\",\"plugin\":\"sleep\",\"timeout\":\"2h\",\"options\":{\"for\":"
        "\"1h\"}}]}");
    job_run(&job, "1");
    assert_int_equal(job.rc, MR_OK);
    assert_string_equal(job.result, "\"late\"");
    job_close(&job);
}

static void test_calls_in_a_circle(void **state)
{
    (void)state;
    struct job job;
    job_open(&job);
    static const char again[] =
        "{\"stages\":[{\"name\":\"r\",\"plugin\":\"reward\",\"options\":{\"targets\":["
        "{\"name\":\"one\",\"mode\":\"call\",\"pipeline\":\"main\",\"id\":\"fixed\"}]}}]}";
    add(&job, "main", again);
    job_run(&job, "1");
    assert_int_equal(job.rc, MR_E_CALL_FAILED);
    assert_non_null(strstr(job.err.message, "waits for the one that calls it"));
    job_close(&job);
    job_open(&job);
    /* Without a declared id each level is another job. */
    add(&job, "main",
        "{\"stages\":[{\"name\":\"r\",\"plugin\":\"reward\",\"options\":{\"targets\":["
        "{\"name\":\"one\",\"mode\":\"call\",\"pipeline\":\"main\"}]}}]}");
    job_run(&job, "1");
    assert_int_equal(job.rc, MR_E_CALL_FAILED);
    assert_int_equal(count(job.log, "job.queued"), LIMIT_ANCESTORS + 1);
    job_close(&job);
}

static void test_unknown_and_unfit_children(void **state)
{
    (void)state;
    struct job job;
    job_open(&job);
    add(&job, "main",
        "{\"stages\":[{\"name\":\"r\",\"plugin\":\"reward\",\"options\":{\"targets\":["
        "{\"name\":\"one\",\"mode\":\"call\",\"pipeline\":\"strict\",\"on_failure\":\"unfit\"},"
        "{\"name\":\"two\",\"mode\":\"dispatch\",\"pipeline\":\"nobody\",\"on_failure\":"
        "\"unknown\"}"
        "]}}],\"result\":\"{{ .r.one }} {{ .r.two }}\"}");
    add(&job, "strict",
        "{\"input\":{\"required\":[\"k\"]},\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\"}]}");
    job_run(&job, "{}");
    assert_int_equal(job.rc, MR_OK);
    assert_string_equal(job.result, "\"unfit unknown\"");
    job_close(&job);
}

static void test_deadline(void **state)
{
    (void)state;
    struct job job;
    job_open(&job);
    add(&job, "main",
        "{\"deadline\":\"20ms\",\"stages\":[{\"name\":\"a\",\"plugin\":\"sleep\",\"timeout\":"
        "\"2h\","
        "\"options\":{\"for\":\"1h\"}}]}");
    job_run(&job, "1");
    assert_int_equal(job.rc, MR_E_DEADLINE);
    job_close(&job);
    /* Also while a retry waits. */
    job_open(&job);
    runs = 0;
    struct pipeline *pipeline =
        add(&job, "main",
            "{\"deadline\":\"20ms\",\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\",\"retry\":"
            "{\"attempts\":1000,\"backoff\":\"1h\",\"max_backoff\":\"1h\"}}]}");
    rig_fake(pipeline, "a", run_never);
    job_run(&job, "1");
    assert_int_equal(job.rc, MR_E_DEADLINE);
    job_close(&job);
}

static int run_cancel(mr_context *cx, const void *settings)
{
    (void)settings;
    struct scope *scope = scope_current();
    while (scope->parent != NULL)
        scope = scope->parent;
    scope_cancel(scope, MR_E_CANCELLED);
    return mr_sleep(cx, 3600000);
}

static void test_cancel(void **state)
{
    (void)state;
    struct job job;
    job_open(&job);
    struct pipeline *pipeline = add(
        &job, "main",
        "{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\"},{\"name\":\"b\",\"plugin\":\"sleep\","
        "\"needs\":[],\"timeout\":\"2h\",\"options\":{\"for\":\"1h\"}}],\"on_failure\":["
        "{\"name\":\"t\",\"mode\":\"dispatch\",\"pipeline\":\"main\"}]}");
    rig_fake(pipeline, "a", run_cancel);
    job_run(&job, "1");
    assert_int_equal(job.rc, MR_E_CANCELLED);
    assert_int_equal(count(job.log, "job.cancelled"), 1);
    assert_int_equal(count(job.log, "job.queued"), 1);
    job_close(&job);
}

static void test_after_the_end(void **state)
{
    (void)state;
    struct job job;
    job_open(&job);
    add(&job, "main",
        "{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\"}],\"on_complete\":["
        "{\"name\":\"told\",\"mode\":\"dispatch\",\"pipeline\":\"child\",\"input\":\"{{ .a }}\"}],"
        "\"on_failure\":[{\"name\":\"cried\",\"mode\":\"dispatch\",\"pipeline\":\"nobody\"}]}");
    add(&job, "child", "{\"stages\":[{\"name\":\"c\",\"plugin\":\"echo\"}]}");
    job_run(&job, "1");
    assert_int_equal(job.rc, MR_OK);
    assert_string_equal(job.result, "{\"a\":1}");
    assert_int_equal(count(job.log, "stage.completed c"), 1);
    assert_int_equal(count(job.log, "job.completed"), 2);
    job_close(&job);
}

/* Every suspension of a job with children ended in turn: it ends, with a result or an error. */
static void test_torture(void **state)
{
    (void)state;
    static const int codes[] = {MR_E_CANCELLED, MR_E_TIMEOUT, MR_E_STORE};
    for (size_t c = 0; c < sizeof(codes) / sizeof(codes[0]); c++) {
        bool tortured = true;
        for (uint64_t nth = 1; tortured && nth < 200; nth++) {
            struct job job;
            job_open(&job);
            add(&job, "main",
                "{\"stages\":[{\"name\":\"s\",\"plugin\":\"sleep\",\"options\":{\"for\":\"1ms\"}},"
                "{\"name\":\"t\",\"plugin\":\"sleep\",\"needs\":[],\"options\":{\"for\":\"1ms\"}},"
                "{\"name\":\"r\",\"plugin\":\"reward\",\"needs\":[\"s\",\"t\"],\"retry\":{"
                "\"attempts\":2,"
                "\"backoff\":\"1ms\",\"max_backoff\":\"1ms\"},\"options\":{\"targets\":["
                "{\"name\":\"one\",\"mode\":\"call\",\"pipeline\":\"child\"},"
                "{\"name\":\"two\",\"mode\":\"dispatch\",\"pipeline\":\"child\"}]}}],\"result\":"
                "1}");
            add(&job, "child",
                "{\"stages\":[{\"name\":\"a\",\"plugin\":\"sleep\",\"options\":{\"for\":\"1ms\"}}]"
                "}");
            uint64_t before = wait_count();
            wait_torture(nth, codes[c]);
            job_run(&job, "1");
            wait_torture(0, 0);
            tortured = wait_count() - before >= nth;
            assert_int_equal(job.rc == MR_OK, job.result != NULL);
            assert_int_equal(job.rc, job.rc == MR_OK ? MR_OK : job.err.code);
            assert_true(strstr(job.log, "job.completed; ") != NULL ||
                        strstr(job.log, "job.failed; ") != NULL);
            job_close(&job);
        }
        assert_false(tortured);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_result),
        cmocka_unit_test(test_failure),
        cmocka_unit_test(test_retries),
        cmocka_unit_test(test_steps_survive_a_retry),
        cmocka_unit_test(test_children),
        cmocka_unit_test(test_call_that_takes_too_long),
        cmocka_unit_test(test_calls_in_a_circle),
        cmocka_unit_test(test_unknown_and_unfit_children),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_after_the_end),
        cmocka_unit_test(test_torture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
