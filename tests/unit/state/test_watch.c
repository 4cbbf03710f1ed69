/* Watches: no gap, no duplicate, from any position, over broken connections; and the subscriber
 * they share. */
#include "fixture.h"

static struct redis_sub *sub;

static int setup(void **state)
{
    int rc = fixture_setup(state);
    struct redis_config at = {.path = server.path};
    sub = redis_sub_open(&loop, &at, "sub");
    return rc;
}

static int teardown(void **state)
{
    redis_sub_close(sub);
    return fixture_teardown(state);
}

static struct watch *open_watch(const char *id, uint64_t after)
{
    struct watch *watch;
    OK(watch_open(store, sub, id, after, &watch, &err));
    return watch;
}

static void expect_next(struct watch *watch, uint64_t number, const char *kind, int line)
{
    struct job_event event;
    struct error why = {0};
    int rc = watch_next(watch, 5000, &event, &why);
    if (rc != MR_OK)
        fail_msg("line %d: %d %s instead of %s", line, rc, why.message, kind);
    if (event.number != number || strcmp(event.kind, kind) != 0)
        fail_msg("line %d: %s %d instead of %s", line, event.kind, (int)event.number, kind);
    job_event_done(&event);
}
#define NEXT(watch, number, kind) expect_next(watch, number, kind, __LINE__)

static int next_code(struct watch *watch, uint64_t timeout_ms)
{
    struct job_event event;
    int rc = watch_next(watch, timeout_ms, &event, NULL);
    if (rc == MR_OK)
        job_event_done(&event);
    return rc;
}

static void follow(void)
{
    submit_plain("job-1");
    struct watch *watch = open_watch("job-1", 0), *second = open_watch("job-1", 1);
    NEXT(watch, 1, "job.queued");
    assert_int_equal(next_code(watch, 0), MR_E_TIMEOUT);
    struct lane lane = claim_and_begin("default");
    NEXT(watch, 2, "stage.started");
    NEXT(second, 2, "stage.started");
    commit(&lane, "a", "b", 2, NULL, NULL);
    NEXT(watch, 3, "stage.completed");
    NEXT(watch, 4, "stage.started");
    enum lane_verdict verdict;
    struct lane_told delta = {"stage.delta", "b", "{\"text\":\"x\"}", 12, true};
    OK(lane_tell(store, &lane, &delta, 1, UINT32_MAX, &verdict, &err));
    NEXT(watch, 0, "stage.delta");
    assert_int_equal(watch_position(watch), 4);
    commit(&lane, "b", "", 2, "1", NULL);
    NEXT(watch, 5, "stage.completed");
    struct job_event event;
    OK(watch_next(watch, 5000, &event, &err));
    assert_string_equal(event.kind, "job.completed");
    assert_true(event.is_last);
    job_event_done(&event);
    assert_int_equal(next_code(watch, 1000), MR_E_STOPPING);
    for (uint64_t n = 3; n <= 3; n++)
        NEXT(second, n, "stage.completed");
    watch_close(watch);
    watch_close(second);
    /* From any position, on any process. */
    watch = open_watch("job-1", 4);
    NEXT(watch, 5, "stage.completed");
    NEXT(watch, 6, "job.completed");
    assert_int_equal(next_code(watch, 1000), MR_E_STOPPING);
    watch_close(watch);
    watch = open_watch("job-1", 6);
    assert_int_equal(next_code(watch, 1000), MR_E_STOPPING);
    watch_close(watch);
    watch = open_watch("nothing", 0);
    assert_int_equal(next_code(watch, 1000), MR_E_LOST);
    watch_close(watch);
}
ON_FIBER(follow)

static void expired_log(void)
{
    submit_plain("job-1");
    struct lane lane = claim_and_begin("default");
    commit(&lane, "a", "", 1, "1", NULL);
    struct reply reply = ask("DEL", "mr:{0}:log:job-1", NULL);
    reply_done(&reply);
    struct watch *watch = open_watch("job-1", 0);
    struct job_event event;
    OK(watch_next(watch, 1000, &event, &err));
    assert_string_equal(event.kind, "job.completed");
    assert_int_equal(event.number, 4);
    assert_true(event.is_last);
    job_event_done(&event);
    assert_int_equal(next_code(watch, 1000), MR_E_STOPPING);
    watch_close(watch);
    watch = open_watch("job-1", 4);
    assert_int_equal(next_code(watch, 1000), MR_E_STOPPING);
    watch_close(watch);
}

ON_FIBER(expired_log)

static void erased(void)
{
    submit_plain("job-1");
    struct watch *watch = open_watch("job-1", 0);
    NEXT(watch, 1, "job.queued");
    enum erase_outcome outcome;
    OK(job_erase(store, "job-1", &outcome, &err));
    assert_int_equal(next_code(watch, 5000), MR_E_LOST);
    watch_close(watch);
}
ON_FIBER(erased)

/* An end with a retry due ends only an impatient watch. */
static void patience(void)
{
    submit_plain("job-1");
    struct watch *patient = open_watch("job-1", 0), *other = open_watch("job-1", 0);
    watch_set_patient(other, false);
    struct lane lane = claim_and_begin("default");
    fail_as(&lane, "a", MR_CLASS_RETRY, "timeout", 1, 0);
    NEXT(other, 1, "job.queued");
    NEXT(other, 2, "stage.started");
    NEXT(other, 3, "stage.failed");
    NEXT(other, 4, "job.failed");
    assert_int_equal(next_code(other, 100), MR_E_STOPPING);
    NEXT(patient, 1, "job.queued");
    NEXT(patient, 2, "stage.started");
    NEXT(patient, 3, "stage.failed");
    NEXT(patient, 4, "job.failed");
    assert_int_equal(next_code(patient, 20), MR_E_TIMEOUT);
    move_until(queue_has_work, "default");
    NEXT(patient, 5, "job.queued");
    lane = claim_and_begin("default");
    commit(&lane, "a", "", 1, "1", NULL);
    NEXT(patient, 6, "stage.started");
    NEXT(patient, 7, "stage.completed");
    NEXT(patient, 8, "job.completed");
    assert_int_equal(next_code(patient, 100), MR_E_STOPPING);
    watch_close(patient);
    watch_close(other);
    /* Opened late, the end in the middle is not the end. */
    other = open_watch("job-1", 0);
    for (uint64_t n = 1; n <= 8; n++) {
        struct job_event event;
        OK(watch_next(other, 1000, &event, &err));
        assert_int_equal(event.number, n);
        assert_int_equal(event.is_last, n == 8);
        job_event_done(&event);
    }
    watch_close(other);
}
ON_FIBER(patience)

/* The subscriber's connection is cut again and again while events happen. */
static void interrupted(void)
{
    char reply[64];
    submit_plain("job-1");
    struct watch *watch = open_watch("job-1", 0);
    struct lane lane = claim_and_begin("default");
    enum lane_verdict verdict;
    struct lane_told event = {"mine", "a", NULL, 0, false};
    uint64_t number = 0;
    for (int i = 0; i < 200; i++) {
        if (i % 20 == 3)
            redis_server_ask(&server, "CLIENT KILL TYPE pubsub", reply, sizeof(reply));
        OK(lane_tell(store, &lane, &event, 1, UINT32_MAX, &verdict, &err));
        struct job_event got;
        while (watch_next(watch, i % 7 == 0 ? 1 : 0, &got, NULL) == MR_OK) {
            assert_int_equal(got.number, ++number);
            job_event_done(&got);
        }
    }
    while (number < 202) {
        struct job_event got;
        OK(watch_next(watch, 10000, &got, &err));
        assert_int_equal(got.number, ++number);
        job_event_done(&got);
    }
    assert_int_equal(next_code(watch, 50), MR_E_TIMEOUT);
    watch_close(watch);
}
ON_FIBER(interrupted)

/* Redis has forgotten its last events: numbers are used again. */
static void forgotten(void)
{
    submit_plain("job-1");
    struct watch *watch = open_watch("job-1", 0);
    struct lane lane = claim_and_begin("default");
    NEXT(watch, 1, "job.queued");
    NEXT(watch, 2, "stage.started");
    struct reply reply = ask("RPOP", "mr:{0}:log:job-1", NULL);
    reply_done(&reply);
    char text[64];
    redis_server_ask(&server, "CLIENT KILL TYPE pubsub", text, sizeof(text));
    assert_int_equal(next_code(watch, 500), MR_E_TIMEOUT);
    assert_int_equal(watch_position(watch), 1);
    commit(&lane, "a", "b", 2, NULL, NULL);
    NEXT(watch, 2, "stage.completed");
    watch_close(watch);
}
ON_FIBER(forgotten)

static size_t heard, confirmed;
static void on_message(struct redis_listener *listener, const char *text, size_t len)
{
    (void)listener;
    heard += text ? len : 0;
    confirmed += !text; /* again, after an interruption */
}

/* Ten thousand channels on one connection, and again after it was cut. */
static void many(void)
{
    enum { COUNT = 10000 };
    struct redis_listener *listeners = mem_zalloc(COUNT * sizeof(*listeners));
    struct arg words[3] = {arg_text("PUBLISH"), {0}, arg_text("x")};
    char name[32], text[64];
    struct reply reply;
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "channel-%d", i);
        listeners[i].fn = on_message;
        OK(redis_listen(sub, name, &listeners[i], 0, &err));
    }
    for (int round = 0; round < 2; round++) {
        heard = 0;
        for (int i = 0; i < COUNT; i += 100) {
            snprintf(name, sizeof(name), "channel-%d", i);
            words[1] = arg_text(name);
            OK(redis_call(redis, 3, words, 0, &reply, &err));
            assert_int_equal(reply.integer, 1);
            reply_done(&reply);
        }
        for (uint64_t stop = clock_now_ms() + 5000; heard < 100 && clock_now_ms() < stop;)
            assert_int_equal(wait_yield(&loop), MR_OK);
        assert_int_equal(heard, 100);
        if (round == 0) {
            confirmed = 0;
            redis_server_ask(&server, "CLIENT KILL TYPE pubsub", text, sizeof(text));
            for (uint64_t stop = clock_now_ms() + 10000;
                 confirmed < COUNT && clock_now_ms() < stop;)
                assert_int_equal(wait_yield(&loop), MR_OK);
            assert_int_equal(confirmed, COUNT);
        }
    }
    for (int i = 0; i < COUNT; i++)
        redis_unlisten(sub, &listeners[i]);
    free(listeners);
    /* Leaving and coming back at once. */
    struct redis_listener one = {.fn = on_message};
    for (int i = 0; i < 20; i++) {
        heard = 0;
        OK(redis_listen(sub, "again", &one, 0, &err));
        reply = ask("PUBLISH", "again", "y", NULL);
        assert_int_equal(reply.integer, 1);
        reply_done(&reply);
        for (uint64_t stop = clock_now_ms() + 5000; heard < 1 && clock_now_ms() < stop;)
            assert_int_equal(wait_yield(&loop), MR_OK);
        assert_int_equal(heard, 1);
        redis_unlisten(sub, &one);
    }
}
ON_FIBER(many)

static void no_server(void)
{
    struct redis_config at = {.path = (char *)"/nonexistent/redis.sock", .command_ms = 100};
    struct redis_sub *lost = redis_sub_open(&loop, &at, "sub");
    struct redis_listener one = {.fn = on_message};
    struct error why = {0};
    assert_int_equal(redis_listen(lost, "x", &one, 0, &why), MR_E_STORE);
    redis_sub_close(lost);
}
ON_FIBER(no_server)

/* Redis does not answer, although connections stay: a silence, not an end.
 * Fails with: core/state/watch.c, watch_next: `if (true)` before `return away;`. */
static void away(void)
{
    struct redis_config at = {.path = server.path, .connect_ms = 300, .command_ms = 200};
    struct store_config config = fixture_config();
    struct store *other;
    config.redis = redis_open(&loop, &at, "short");
    OK(store_open(&config, &other, &err));
    submit_plain("job-1");
    struct watch *watch;
    OK(watch_open(other, sub, "job-1", 0, &watch, &err));
    kill(server.pid, SIGSTOP);
    int code = next_code(watch, 500);
    kill(server.pid, SIGCONT);
    assert_int_equal(code, MR_E_TIMEOUT);
    NEXT(watch, 1, "job.queued");
    watch_close(watch);
    store_close(other);
    redis_close(config.redis);
}
ON_FIBER(away)

#define WATCH(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        WATCH(follow),    WATCH(expired_log), WATCH(erased),    WATCH(patience), WATCH(interrupted),
        WATCH(forgotten), WATCH(many),        WATCH(no_server), WATCH(away),
    };
    return cmocka_run_group_tests_name("watch", tests, fixture_server, fixture_server_end);
}
