/* The runner: order of stages, what counts as which failure, winding up. */
#include "lane.h"

#define STAGE(name, more) "{\"name\":\"" name "\",\"plugin\":\"echo\"" more "}"

/* Runs a pipeline and expects the log of its callbacks. */
static void expect(const char *stages, const char *input, const char *log)
{
    struct rig rig;
    struct lane lane;
    char text[2048];
    rig_open(&rig);
    snprintf(text, sizeof(text), "{\"stages\":[%s]}", stages);
    struct pipeline *pipeline = lane_go(&lane, &rig, text, input);
    assert_string_equal(lane.log, log);
    assert_int_equal(lane.end, RUN_END);
    lane_done(&lane);
    pipeline_unref(pipeline);
    rig_close(&rig);
}

static void test_chain(void **state)
{
    (void)state;
    expect(STAGE("a", "") "," STAGE("b", ",\"options\":{\"output\":{\"x\":\"{{ .a.n }}\"}}"),
           "{\"n\":7}", "commit a={\"n\":7}; commit b={\"x\":7}; ");
}

static void test_branches_run_side_by_side(void **state)
{
    (void)state;
    expect("{\"name\":\"a\",\"plugin\":\"sleep\",\"options\":{\"for\":\"60ms\"}},"
           "{\"name\":\"b\",\"plugin\":\"sleep\",\"needs\":[],\"options\":{\"for\":\"30ms\"}},"
           "{\"name\":\"c\",\"plugin\":\"sleep\",\"needs\":[],\"options\":{\"for\":\"5ms\"}}," //
           STAGE("d", ",\"needs\":[\"a\",\"b\",\"c\"],\"options\":{\"output\":1}"),
           "null", "commit c=null; commit b=null; commit a=null; commit d=1; ");
}

static void test_when(void **state)
{
    (void)state;
    expect(STAGE("a", ",\"when\":\".input.x\",\"else\":[9]") "," //
           STAGE("b", ",\"when\":\".stages.a.status == \\\"skipped\\\" and .a[0] == 9\","
                      "\"options\":{\"output\":\"{{ .stages.a.status }}\"}"),
           "{}", "skip a=[9]; commit b=\"skipped\"; ");
}

static void test_when_that_fails(void **state)
{
    (void)state;
    expect(STAGE("a", ",\"when\":\".input.x[]\""), "{\"x\":[1,2]}", "fail a schema/permanent; ");
    expect(STAGE("a", ",\"when\":\".input.x + 1 > 2\""), "{\"x\":\"a\"}",
           "fail a schema/permanent; ");
}

static void test_job_member(void **state)
{
    (void)state;
    expect(STAGE("a", ",\"options\":{\"output\":\"{{ .job.pipeline }} {{ .job.attempt }} "
                      "{{ .job.priority }}\"}"),
           "1", "commit a=\"test 1 normal\"; ");
}

static void test_on_failure(void **state)
{
    (void)state;
    expect(
        STAGE("a",
              ",\"on_failure\":{\"x\":0},\"options\":{\"output\":\"{{ .input.no.way }}!\"}") "," //
        STAGE("b",
              ",\"options\":{\"output\":\"{{ .stages.a.status }} {{ .stages.a.error.code }}\"}"),
        "{}",
        "log a 2 failed, going on with its on_failure: schema: expression \".input.no.way\" gives "
        "null, but text stands around it; commit a={\"x\":0}; commit b=\"failed schema\"; ");
}

/* Failures of a stage of the test's own. */

static int code_to_return;

static int run_code(mr_context *cx, const void *settings)
{
    (void)cx, (void)settings;
    return code_to_return;
}

static int run_message(mr_context *cx, const void *settings)
{
    (void)settings;
    mr_fail(cx, MR_E_CONNECT, "something that was got over");
    return mr_fail_as(cx, MR_E_RATE_LIMITED, MR_CLASS_RETRY, 1234, "limit of %d", 5);
}

static int run_ignored(mr_context *cx, const void *settings)
{
    (void)settings;
    mr_fail(cx, MR_E_CONNECT, "something that was got over");
    return MR_OK;
}

/* One stage "a" with a function of the test; `more` are members of the stage. */
static void one(struct rig *rig, struct lane *lane, const char *more,
                int (*run)(mr_context *, const void *), unsigned retries)
{
    char text[1024];
    rig_open(rig);
    snprintf(text, sizeof(text), "{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\"%s}]}", more);
    struct pipeline *pipeline = rig_must(rig, "test", text);
    rig_fake(pipeline, "a", run);
    lane_init(lane, rig, pipeline, "{\"n\":[1,{\"m\":\"x\"}]}");
    lane->retries = retries;
    rig_run(rig, lane_main, lane);
}

static void one_done(struct rig *rig, struct lane *lane)
{
    struct pipeline *pipeline = lane->run.pipeline;
    lane_done(lane);
    pipeline_unref(pipeline);
    rig_close(rig);
}

static void test_codes(void **state)
{
    (void)state;
    static const struct {
        int code;
        const char *log, *message;
    } rows[] = {
        {MR_OK, "commit a=null; ", ""},
        {MR_E_CONNECT, "fail a connect/retry; ", "plugin \"echo\": no connection"},
        {MR_E_QUOTA, "fail a quota/permanent; ", "plugin \"echo\""},
        {MR_E_TIMEOUT, "fail a timeout/retry; ", "a time limit was reached"},
        {MR_E_INTERNAL, "fail a internal/bug; ", "plugin \"echo\""},
        {7, "fail a internal/bug; ", "returned 7, which is no code"},
        {-999, "fail a internal/bug; ", "returned -999"},
        {MR_E_CANCELLED, "fail a internal/bug; ", "nothing was cancelled"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct rig rig;
        struct lane lane;
        code_to_return = rows[i].code;
        one(&rig, &lane, "", run_code, 0);
        assert_string_equal(lane.log, rows[i].log);
        assert_non_null(strstr(lane.last.message, rows[i].message));
        one_done(&rig, &lane);
    }
}

static void test_messages(void **state)
{
    (void)state;
    struct rig rig;
    struct lane lane;
    one(&rig, &lane, "", run_message, 0);
    assert_string_equal(lane.log, "fail a rate_limited/retry; ");
    assert_string_equal(lane.last.message, "limit of 5");
    assert_string_equal(lane.last.where, "test, stage a");
    assert_int_equal(lane.last.retry_in_ms, 1234);
    one_done(&rig, &lane);
    one(&rig, &lane, "", run_ignored, 0);
    assert_string_equal(lane.log, "commit a=null; ");
    one_done(&rig, &lane);
}

static void test_attempts_and_on_failure(void **state)
{
    (void)state;
    struct rig rig;
    struct lane lane;
    code_to_return = MR_E_CONNECT;
    one(&rig, &lane, ",\"retry\":{\"attempts\":3},\"on_failure\":0", run_code, 9);
    assert_string_equal(
        lane.log, "fail a connect/retry; fail a connect/retry; log a 2 failed, going on with its "
                  "on_failure: connect: plugin \"echo\": no connection; commit a=0; ");
    assert_int_equal(lane.run.status[0], 3);
    assert_int_equal(lane.run.attempts[0], 2);
    one_done(&rig, &lane);
    /* Throttling uses no attempt and is never final. */
    code_to_return = MR_E_RATE_LIMITED;
    one(&rig, &lane, ",\"retry\":{\"attempts\":1},\"on_failure\":0", run_code, 0);
    assert_string_equal(lane.log, "fail a rate_limited/throttled; ");
    one_done(&rig, &lane);
}

static int run_sleep_long(mr_context *cx, const void *settings)
{
    (void)settings;
    return mr_sleep(cx, 3600000);
}

static void test_timeout(void **state)
{
    (void)state;
    struct rig rig;
    struct lane lane;
    one(&rig, &lane, ",\"timeout\":\"20ms\"", run_sleep_long, 0);
    assert_string_equal(lane.log, "fail a timeout/retry; ");
    assert_string_equal(lane.last.message, "the stage took longer than its timeout of 20ms");
    one_done(&rig, &lane);
}

static int run_finish_late(mr_context *cx, const void *settings)
{
    (void)settings;
    mr_sleep(cx, 3600000);
    return mr_output(cx, json_integer(1));
}

static void test_output_after_timeout_counts(void **state)
{
    (void)state;
    struct rig rig;
    struct lane lane;
    one(&rig, &lane, ",\"timeout\":\"20ms\"", run_finish_late, 0);
    assert_string_equal(lane.log, "commit a=1; ");
    one_done(&rig, &lane);
}

/* Winding up */

struct ending {
    struct lane *lane;
    struct timer timer;
    int code;
};

static void end_scope(struct timer *timer)
{
    struct ending *ending = timer->data;
    scope_cancel(&ending->lane->run.scope, ending->code);
}

/* Two branches, one of which sleeps; the scope ends with `code` meanwhile. */
static void wound_up(int code, int (*run)(mr_context *, const void *), const char *log,
                     enum run_verdict verdict)
{
    struct rig rig;
    struct lane lane;
    rig_open(&rig);
    struct pipeline *pipeline =
        rig_must(&rig, "test",
                 "{\"stages\":[" STAGE("a", "") "," STAGE("b", ",\"needs\":[]") "," //
                 STAGE("c", ",\"needs\":[\"a\"]") "]}");
    rig_fake(pipeline, "a", run);
    rig_fake(pipeline, "b", run);
    lane_init(&lane, &rig, pipeline, "1");
    struct ending ending = {.lane = &lane, .code = code};
    ending.timer.data = &ending;
    timer_start(&ending.timer, &rig.loop, 10, end_scope);
    rig_run(&rig, lane_main, &lane);
    assert_string_equal(lane.log, log);
    assert_int_equal(lane.end, verdict);
    lane_done(&lane);
    pipeline_unref(pipeline);
    rig_close(&rig);
}

static void test_scope_ends(void **state)
{
    (void)state;
    wound_up(MR_E_CANCELLED, run_sleep_long, "", RUN_STOP);
    wound_up(MR_E_STOPPING, run_sleep_long, "", RUN_STOP);
    wound_up(MR_E_LOST, run_sleep_long, "", RUN_LOST);
    /* What was finished all the same is stored, but never by one who has lost the lane. */
    wound_up(MR_E_LOST, run_finish_late, "", RUN_LOST);
    wound_up(MR_E_CANCELLED, run_finish_late, "commit b=1; commit a=1; ", RUN_STOP);
}

static void test_deadline_of_the_job(void **state)
{
    (void)state;
    struct rig rig;
    struct lane lane;
    rig_open(&rig);
    struct pipeline *pipeline =
        rig_must(&rig, "test", "{\"stages\":[" STAGE("a", ",\"on_failure\":1") "]}");
    rig_fake(pipeline, "a", run_sleep_long);
    lane_init(&lane, &rig, pipeline, "1");
    scope_set_deadline(&lane.run.scope, clock_now_ms() + 10, MR_E_DEADLINE);
    rig_run(&rig, lane_main, &lane);
    assert_string_equal(lane.log, "fail a deadline/permanent; ");
    lane_done(&lane);
    pipeline_unref(pipeline);
    rig_close(&rig);
}

/* A commit (or its answer) that says how the lane goes on. */
static void verdict_after(enum run_verdict said, int rc, enum run_verdict end, const char *log)
{
    struct rig rig;
    struct lane lane;
    rig_open(&rig);
    struct pipeline *pipeline =
        rig_must(&rig, "test",
                 "{\"stages\":[" STAGE("a", "") "," STAGE("b", ",\"needs\":[]") "," //
                 STAGE("c", ",\"needs\":[\"a\"]") "]}");
    rig_fake(pipeline, "b", run_sleep_long);
    lane_init(&lane, &rig, pipeline, "1");
    lane.verdict = said;
    lane.commit_rc = rc;
    rig_run(&rig, lane_main, &lane);
    assert_string_equal(lane.log, log);
    assert_int_equal(lane.end, end);
    lane_done(&lane);
    pipeline_unref(pipeline);
    rig_close(&rig);
}

static void test_verdicts(void **state)
{
    (void)state;
    verdict_after(RUN_STOP, MR_OK, RUN_STOP, "commit a=1; ");
    verdict_after(RUN_LOST, MR_OK, RUN_LOST, "commit a=1; ");
    verdict_after(RUN_ON, MR_E_STORE, RUN_LOST, "commit a=1; ");
}

static void test_result_that_cannot_be_made(void **state)
{
    (void)state;
    struct rig rig;
    struct lane lane;
    rig_open(&rig);
    struct pipeline *pipeline = rig_must(&rig, "test", "{\"stages\":[" STAGE("a", "") "]}");
    lane_init(&lane, &rig, pipeline, "1");
    lane.commit_rc = MR_E_SCHEMA;
    rig_run(&rig, lane_main, &lane);
    assert_string_equal(lane.log, "commit a=1; fail a schema/permanent; ");
    assert_int_equal(lane.run.status[0], 0);
    assert_false(doc_has(lane.run.doc, "a"));
    lane_done(&lane);
    pipeline_unref(pipeline);
    rig_close(&rig);
}

static void test_stopping_process(void **state)
{
    (void)state;
    struct rig rig;
    struct lane lane;
    rig_open(&rig);
    rig.runner.stopping = true;
    struct pipeline *pipeline = lane_go(&lane, &rig, "{\"stages\":[" STAGE("a", "") "]}", "1");
    assert_string_equal(lane.log, "");
    assert_int_equal(lane.end, RUN_STOP);
    lane_done(&lane);
    pipeline_unref(pipeline);
    rig_close(&rig);
}

/* Places and opening */

static unsigned now_running, most_running, opened, closed;

static int run_counted(mr_context *cx, const void *settings)
{
    (void)settings;
    now_running++;
    most_running = now_running > most_running ? now_running : most_running;
    int rc = mr_sleep(cx, 2);
    now_running--;
    return rc;
}

struct crowd {
    struct rig *rig;
    struct pipeline *pipeline;
    struct lane lanes[20];
    int cancel; /* every other one, after the beginning */
};

static void crowd_main(void *arg)
{
    struct crowd *crowd = arg;
    struct group group;
    group_init(&group, &crowd->rig->loop);
    for (size_t i = 0; i < 20; i++) {
        lane_init(&crowd->lanes[i], crowd->rig, crowd->pipeline, "1");
        assert_int_equal(group_spawn(&group, NULL, lane_main, &crowd->lanes[i]), MR_OK);
    }
    if (crowd->cancel != 0) {
        assert_int_equal(wait_yield(&crowd->rig->loop), MR_OK);
        assert_int_equal(wait_yield(&crowd->rig->loop), MR_OK);
        for (size_t i = 0; i < 20; i += 2)
            scope_cancel(&crowd->lanes[i].run.scope, MR_E_CANCELLED);
    }
    group_wait(&group);
}

static void places(int cancel)
{
    struct rig rig;
    struct crowd crowd = {.rig = &rig, .cancel = cancel};
    now_running = most_running = 0;
    rig_open(&rig);
    crowd.pipeline = rig_must(&rig, "test", "{\"stages\":[" STAGE("a", ",\"concurrency\":3") "]}");
    rig_fake(crowd.pipeline, "a", run_counted);
    rig_run(&rig, crowd_main, &crowd);
    assert_int_equal(most_running, 3);
    assert_int_equal(now_running, 0);
    for (size_t i = 0; i < 20; i++) {
        bool gone = cancel != 0 && i % 2 == 0;
        assert_string_equal(crowd.lanes[i].log, gone ? "" : "commit a=null; ");
        lane_done(&crowd.lanes[i]);
    }
    pipeline_unref(crowd.pipeline);
    rig_close(&rig);
}

static void test_places(void **state)
{
    (void)state;
    places(0);
    places(1);
}

static int opens_at; /* fails before that one */

static int open_slowly(mr_context *cx, const void *settings, void **ret_instance)
{
    (void)settings;
    char *kept = mr_alloc(cx, 8);
    memcpy(kept, "shared", 7);
    int rc = mr_sleep(cx, 5);
    if (rc != MR_OK)
        return rc;
    if ((int)++opened < opens_at)
        return mr_fail(cx, MR_E_CONNECT, "not yet");
    assert_int_equal(mr_emit(cx, "stage.delta", NULL), MR_E_PLUGIN);
    *ret_instance = kept;
    return MR_OK;
}

static void close_counted(void *instance)
{
    assert_string_equal(instance, "shared");
    closed++;
}

static int run_instance(mr_context *cx, const void *settings)
{
    (void)settings;
    return mr_output(cx, json_string(mr_instance(cx)));
}

static void test_opens_once(void **state)
{
    (void)state;
    struct rig rig;
    struct crowd crowd = {.rig = &rig};
    opened = closed = 0;
    opens_at = 0;
    rig_open(&rig);
    crowd.pipeline = rig_must(&rig, "test", "{\"stages\":[" STAGE("a", "") "]}");
    struct plugin *fake = rig_fake(crowd.pipeline, "a", run_instance);
    fake->about.open = open_slowly;
    fake->about.close = close_counted;
    rig_run(&rig, crowd_main, &crowd);
    for (size_t i = 0; i < 20; i++) {
        assert_string_equal(crowd.lanes[i].log, "commit a=\"shared\"; ");
        lane_done(&crowd.lanes[i]);
    }
    assert_int_equal(opened, 1);
    assert_int_equal(closed, 0);
    pipeline_unref(crowd.pipeline);
    rig_close(&rig);
    assert_int_equal(closed, 1);
}

static void test_open_fails_first(void **state)
{
    (void)state;
    struct rig rig;
    struct lane lane;
    opened = closed = 0;
    opens_at = 2;
    rig_open(&rig);
    struct pipeline *pipeline = rig_must(&rig, "test", "{\"stages\":[" STAGE("a", "") "]}");
    struct plugin *fake = rig_fake(pipeline, "a", run_instance);
    fake->about.open = open_slowly;
    fake->about.close = close_counted;
    lane_init(&lane, &rig, pipeline, "1");
    lane.retries = 1;
    rig_run(&rig, lane_main, &lane);
    assert_string_equal(lane.log, "fail a connect/retry; commit a=\"shared\"; ");
    lane_done(&lane);
    pipeline_unref(pipeline);
    rig_close(&rig);
    assert_int_equal(closed, 1);
}

static int open_forever(mr_context *cx, const void *settings, void **ret_instance)
{
    (void)settings, (void)ret_instance;
    int rc = mr_sleep(cx, 3600000);
    opened += rc == MR_E_STOPPING ? 100 : 1;
    return rc;
}

static void test_opening_is_ended_by_settle(void **state)
{
    (void)state;
    struct rig rig;
    struct lane lane;
    rig_open(&rig);
    struct pipeline *pipeline = rig_must(&rig, "test", "{\"stages\":[" STAGE("a", "") "]}");
    struct plugin *fake = rig_fake(pipeline, "a", run_instance);
    fake->about.open = open_forever;
    fake->about.close = close_counted;
    opened = closed = 0;
    lane_init(&lane, &rig, pipeline, "1");
    struct ending ending = {.lane = &lane, .code = MR_E_STOPPING};
    ending.timer.data = &ending;
    timer_start(&ending.timer, &rig.loop, 1, end_scope);
    rig_run(&rig, lane_main, &lane);
    assert_string_equal(lane.log, "");
    assert_int_equal(opened, 100);
    assert_int_equal(closed, 0);
    lane_done(&lane);
    pipeline_unref(pipeline);
    rig_close(&rig);
}

/* A task that waits in a call gives its place to others. */

static unsigned now_calling, most_calling;

static int call_slowly(struct run *run, struct stage *stage, const struct run_child *child,
                       char **ret_text, size_t *ret_len, struct error *err)
{
    (void)stage, (void)child, (void)err;
    struct lane *lane = run->data;
    now_calling++;
    most_calling = now_calling > most_calling ? now_calling : most_calling;
    int rc = wait_sleep(&lane->rig->loop, 5);
    now_calling--;
    *ret_text = mem_dup("1");
    *ret_len = 1;
    return rc;
}

static int run_caller(mr_context *cx, const void *settings)
{
    (void)settings;
    struct mr_child child = {.size = sizeof(child), .pipeline = "p", .target = "t"};
    json_t *input = json_object(), *result = NULL;
    child.input = input;
    int rc = mr_call(cx, &child, &result);
    json_decref(input);
    return rc == MR_OK ? mr_output(cx, result) : rc;
}

static void many_callers(void *arg)
{
    static struct runner_ops ops;
    struct crowd *crowd = arg;
    struct group group;
    ops = lane_ops;
    ops.call = call_slowly;
    group_init(&group, &crowd->rig->loop);
    for (size_t i = 0; i < 20; i++) {
        lane_init(&crowd->lanes[i], crowd->rig, crowd->pipeline, "1");
        crowd->lanes[i].run.ops = &ops;
        assert_int_equal(group_spawn(&group, NULL, lane_main, &crowd->lanes[i]), MR_OK);
    }
    group_wait(&group);
}

static void test_calls_give_their_place(void **state)
{
    (void)state;
    struct rig rig;
    struct crowd crowd = {.rig = &rig};
    now_calling = most_calling = 0;
    rig_open(&rig);
    crowd.pipeline = rig_must(&rig, "test", "{\"stages\":[" STAGE("a", ",\"concurrency\":1") "]}");
    rig_fake(crowd.pipeline, "a", run_caller);
    rig_run(&rig, many_callers, &crowd);
    assert_int_equal(most_calling, 20);
    for (size_t i = 0; i < 20; i++) {
        assert_string_equal(crowd.lanes[i].log, "commit a=1; ");
        lane_done(&crowd.lanes[i]);
    }
    pipeline_unref(crowd.pipeline);
    rig_close(&rig);
}

/* Every suspension of a pipeline ended in turn: nothing leaks, nothing hangs, and the lane ends. */
static int run_all_calls(mr_context *cx, const void *settings)
{
    (void)settings;
    struct mr_child child = {.size = sizeof(child), .pipeline = "p", .target = "t"};
    json_t *input = json_object(), *result = NULL;
    char id[MR_ID_BYTES];
    child.input = input;
    int rc = mr_sleep(cx, 1);
    if (rc == MR_OK)
        rc = mr_step_put(cx, "1", "{}", 2);
    if (rc == MR_OK)
        rc = mr_call(cx, &child, &result);
    if (rc == MR_OK)
        rc = mr_dispatch(cx, &child, id);
    json_decref(input);
    if (result != NULL)
        mr_output(cx, result);
    return rc;
}

static void test_torture(void **state)
{
    (void)state;
    static const int codes[] = {MR_E_CANCELLED, MR_E_TIMEOUT, MR_E_STORE};
    for (size_t c = 0; c < sizeof(codes) / sizeof(codes[0]); c++) {
        bool tortured = true;
        for (uint64_t nth = 1; tortured && nth < 100; nth++) {
            struct rig rig;
            struct lane lane;
            rig_open(&rig);
            struct pipeline *pipeline = rig_must(
                &rig, "test",
                "{\"stages\":[" STAGE("a", ",\"concurrency\":1") "," //
                STAGE("b", ",\"needs\":[]") "," STAGE("c", ",\"needs\":[\"a\",\"b\"]") "]}");
            struct plugin *fake = rig_fake(pipeline, "a", run_all_calls);
            fake->about.open = open_slowly;
            rig_fake(pipeline, "b", run_all_calls);
            opens_at = 0;
            lane_init(&lane, &rig, pipeline, "1");
            lane.retries = 3;
            uint64_t before = wait_count();
            wait_torture(nth, codes[c]);
            rig_run(&rig, lane_main, &lane);
            wait_torture(0, 0);
            tortured = wait_count() - before >= nth;
            assert_int_equal(lane.end, RUN_END);
            assert_true(strstr(lane.log, "commit c=") != NULL || lane.last.code != 0);
            lane_done(&lane);
            pipeline_unref(pipeline);
            rig_close(&rig);
        }
        assert_false(tortured);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_branches_run_side_by_side),
        cmocka_unit_test(test_when),
        cmocka_unit_test(test_when_that_fails),
        cmocka_unit_test(test_job_member),
        cmocka_unit_test(test_on_failure),
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_attempts_and_on_failure),
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_output_after_timeout_counts),
        cmocka_unit_test(test_scope_ends),
        cmocka_unit_test(test_deadline_of_the_job),
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_result_that_cannot_be_made),
        cmocka_unit_test(test_stopping_process),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_opens_once),
        cmocka_unit_test(test_open_fails_first),
        cmocka_unit_test(test_opening_is_ended_by_settle),
        cmocka_unit_test(test_calls_give_their_place),
        cmocka_unit_test(test_torture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
