/* cancel, deadline, children; dead letters; leases and registration. */
#include "fixture.h"

static enum cancel_outcome cancel(const char *id, const char *req)
{
    enum cancel_outcome outcome;
    OK(job_cancel(store, id, req, 0, &outcome, &err));
    return outcome;
}

static void cancel_waiting(void)
{
    submit((struct job_submit){.id = "job-1", .ttl_ms = 60000});
    assert_int_equal(cancel("job-1", NULL), CANCEL_DONE);
    EXPECT_STATUS("job-1", "cancelled");
    assert_int_equal(cancel("job-1", NULL), CANCEL_DONE);
    assert_int_equal(ask_int("XLEN", "mr:{0}:queue:default:normal"), 0);
    assert_int_equal(ask_int("ZCARD", "mr:{0}:due"), 0);
    submit((struct job_submit){.id = "job-2", .delay_ms = 60000});
    assert_int_equal(cancel("job-2", NULL), CANCEL_DONE);
    assert_int_equal(ask_int("ZCARD", "mr:{0}:due"), 0);
    /* Claimed and not begun: the claimer finds out by begin. */
    submit_plain("job-3");
    struct lane lane = claim("default");
    assert_int_equal(cancel("job-3", NULL), CANCEL_DONE);
    assert_int_equal(begin(&lane, NULL), LANE_GONE);
    assert_int_equal(cancel("nothing", NULL), CANCEL_NONE);
    submit_plain("job-4");
    lane = claim_and_begin("default");
    commit(&lane, "a", "", 1, "1", NULL);
    assert_int_equal(cancel("job-4", NULL), CANCEL_ENDED);
    EXPECT_EVENTS("job-1", "job.queued;job.cancelled;");
    /* It may run again by hand. */
    struct job_again again = {.id = "job-1", .req = "h", .is_fresh = true};
    enum again_outcome ran;
    OK(job_run_again(store, &again, &ran, &err));
    assert_int_equal(ran, AGAIN_OK);
    struct job_view *job = view("job-1");
    assert_true(job->deadline_ms > job->now_ms + 50000); /* a new one, as long as the first */
    job_view_free(job);
}
ON_FIBER(cancel_waiting)

static unsigned bells;
static void on_bell(struct redis_listener *listener, const char *text, size_t len)
{
    char job[ID_BYTES];
    uint32_t number;
    (void)listener;
    if (text && worker_bell_parse(text, len, job, &number)) {
        assert_string_equal(job, "job-1");
        assert_int_equal(number, 1);
        bells++;
    }
}

static void cancel_running(void)
{
    enum lane_verdict verdict;
    struct redis_config at = {.path = server.path};
    struct redis_sub *sub = redis_sub_open(&loop, &at, "sub");
    struct redis_listener listener = {.fn = on_bell};
    char bell[STORE_KEY_BYTES];
    bells = 0;
    OK(redis_listen(sub, worker_bell(store, 0, bell), &listener, 0, &err));
    static const struct job_first first[] = {{"a", "default"}, {"b", "default"}, {"w", "slow"}};
    submit((struct job_submit){.id = "job-1", .first = first, .first_count = 3});
    struct lane lane = claim_and_begin("default");
    assert_int_equal(cancel("job-1", NULL), CANCEL_CANCELLING);
    assert_int_equal(cancel("job-1", NULL), CANCEL_CANCELLING);
    check_invariants();
    assert_false(is_claimable("slow"));
    for (uint64_t stop = clock_now_ms() + 5000; bells < 2 && clock_now_ms() < stop;)
        assert_int_equal(wait_yield(&loop), MR_OK);
    assert_int_equal(bells, 2);
    redis_unlisten(sub, &listener);
    redis_sub_close(sub);
    /* An output that was paid for is still kept, but nothing follows. */
    char open[256];
    assert_int_equal(commit(&lane, "a", "c", 4, NULL, open), LANE_STOP);
    assert_string_equal(open, "b");
    OK(lane_note(store, &lane, "b", "child", "job-1/b/t:1", &verdict, &err));
    assert_int_equal(verdict, LANE_STOP);
    OK(lane_step(store, &lane, "b", "s", "1", 1, &verdict, &err));
    assert_int_equal(verdict, LANE_STOP);
    OK(lane_drop(store, &lane, &verdict, &err));
    assert_int_equal(verdict, LANE_END);
    OK(lane_drop(store, &lane, &verdict, &err));
    assert_int_equal(verdict, LANE_LOST);
    EXPECT_STATUS("job-1", "cancelled");
    struct job_view *job = view("job-1");
    assert_string_equal(job_view_stage(job, "a")->output, "\"a\"");
    job_view_free(job);
    EXPECT_EVENTS("job-1", "job.queued;stage.started a;stage.started b;stage.completed a;"
                           "job.cancelled;");
}
ON_FIBER(cancel_running)

/* The last commit comes after the cancel: 202 cancelling always ends cancelled. */
static void cancel_before_last(void)
{
    submit_plain("job-1");
    struct lane lane = claim_and_begin("default");
    assert_int_equal(cancel("job-1", NULL), CANCEL_CANCELLING);
    assert_int_equal(commit(&lane, "a", "", 1, "1", NULL), LANE_END);
    struct job_view *job = view("job-1");
    assert_string_equal(job->status, "cancelled");
    assert_null(job->result);
    job_view_free(job);
    /* Run again there is only the result to compute. */
    struct job_again again = {.id = "job-1", .req = "h", .is_fresh = true};
    enum again_outcome ran;
    OK(job_run_again(store, &again, &ran, &err));
    assert_int_equal(ran, AGAIN_OK);
    check_invariants();
    lane = claim("default");
    struct lane_grant grant;
    assert_int_equal(begin(&lane, &grant), LANE_OK);
    assert_string_equal(grant.open[0].name, "$end");
    lane_grant_done(&grant);
    assert_int_equal(commit(&lane, "$end", "", 1, "5", NULL), LANE_END);
    EXPECT_STATUS("job-1", "completed");
}
ON_FIBER(cancel_before_last)

static void deadline(void)
{
    submit((struct job_submit){.id = "job-1", .ttl_ms = 60});
    submit((struct job_submit){.id = "job-2", .ttl_ms = 60});
    struct lane lane = claim_and_begin("default");
    assert_string_equal(lane.job, "job-1");
    for (uint64_t stop = clock_now_ms() + 5000; clock_now_ms() < stop;) {
        uint64_t sleep_ms;
        uint32_t woken;
        OK(mover_turn(store, 0, &sleep_ms, &woken, &err));
        check_invariants();
        if (ask_int("ZCARD", "mr:{0}:due") == 0)
            break;
        assert_int_equal(wait_sleep(&loop, 5), MR_OK);
    }
    EXPECT_STATUS("job-2", "failed");
    EXPECT_STATUS("job-1", "processing");
    assert_int_equal(fail_as(&lane, "a", MR_CLASS_RETRY, "timeout", 5, 100), LANE_END);
    struct job_view *job = view("job-1");
    assert_string_equal(job->status, "failed");
    assert_non_null(strstr(job->error, "\"deadline\""));
    assert_int_equal(job->next_retry_ms, 0);
    job_view_free(job);
    struct reply score = ask("ZSCORE", "mr:{0}:dead", "job-1", NULL);
    assert_int_equal(score.type, REPLY_TEXT);
    reply_done(&score);
}
ON_FIBER(deadline)

/* A parent that is cancelled while it waits for a call: its children are cancelled by whoever
 * winds it up, even after a crash in between. */
static void children(void)
{
    enum lane_verdict verdict;
    struct lane_grant grant;
    submit_plain("job-1");
    struct lane lane = claim_and_begin("default");
    mem_auto char *req = job_call_req("job-1", "a", "t", 1);
    for (int i = 0; i < 2; i++) {
        OK(lane_note(store, &lane, "a", "child", req, &verdict, &err));
        assert_int_equal(verdict, LANE_OK);
    }
    OK(lane_note(store, &lane, "a", "late", "job-1/a/u:1", &verdict, &err));
    assert_int_equal(
        submit((struct job_submit){.id = "child", .mode = JOB_CALL, .req = req, .prio = QUEUE_CALL})
            .outcome,
        JOB_NEW);
    OK(lane_park(store, &lane, 60000, &verdict, &err)); /* waiting, and not running */
    assert_int_equal(cancel("job-1", NULL), CANCEL_CANCELLING);
    check_invariants();
    assert_int_equal(ask_int("ZCARD", "mr:{0}:due"), 0);
    for (int crash = 0; crash < 2; crash++) {
        if (crash == 0) {
            assert_true(claim_from("default", QUEUE_RECOVERED, &lane));
        } else {
            struct lane_stream stream = {0, "default", QUEUE_RECOVERED};
            char cursor[STORE_ENTRY_BYTES] = "0-0";
            size_t count;
            store->lease_ms = 0;
            OK(lane_reclaim(store, redis, &stream, cursor, 1, &lane, &count, &err));
            assert_int_equal(count, 1);
        }
        assert_int_equal(begin(&lane, &grant), LANE_STOP);
        assert_int_equal(grant.child_count, 2);
        assert_string_equal(grant.children[0].id, "child");
        assert_string_equal(grant.children[0].req, req);
        assert_string_equal(grant.children[1].id, "late");
        lane_grant_done(&grant);
        check_invariants();
    }
    assert_int_equal(cancel("child", "other/a/t:1"), CANCEL_ENDED); /* not its parent */
    EXPECT_STATUS("child", "queued");
    assert_int_equal(cancel("child", req), CANCEL_DONE);
    assert_int_equal(cancel("child", req), CANCEL_DONE);
    assert_int_equal(cancel("late", "job-1/a/u:1"), CANCEL_NONE);
    OK(lane_drop(store, &lane, &verdict, &err));
    assert_int_equal(verdict, LANE_END);
    EXPECT_STATUS("job-1", "cancelled");
    /* The paused former worker submits late. */
    struct job_submitted late =
        submit((struct job_submit){.id = "late", .mode = JOB_CALL, .req = "job-1/a/u:1"});
    assert_int_equal(late.outcome, JOB_SAME);
    assert_string_equal(late.status, "cancelled");
    assert_int_equal(
        submit((struct job_submit){.id = "child", .mode = JOB_CALL, .req = req}).outcome, JOB_SAME);
}
ON_FIBER(children)

/* `req` of a later run is stored in an ended child, so that an earlier one cannot begin it. */
static void later_request(void)
{
    submit((struct job_submit){.id = "child", .mode = JOB_CALL, .req = "p/s/t:1"});
    struct lane lane = claim_and_begin("default");
    fail_as(&lane, "a", MR_CLASS_PERMANENT, "schema", 1, 0);
    assert_int_equal(cancel("child", "p/s/t:2"), CANCEL_ENDED);
    assert_int_equal(
        submit((struct job_submit){.id = "child", .mode = JOB_CALL, .req = "p/s/t:2"}).outcome,
        JOB_SAME);
    assert_int_equal(
        submit((struct job_submit){.id = "child", .mode = JOB_CALL, .req = "p/s/t:3"}).outcome,
        JOB_AGAIN);
    /* A cancel of an earlier run does not reach the later one. */
    assert_int_equal(cancel("child", "p/s/t:2"), CANCEL_ENDED);
    EXPECT_STATUS("child", "queued");
}
ON_FIBER(later_request)

/* Redis has forgotten the cancel: the lane goes back, the job keeps a lane. */
static void drop_forgotten(void)
{
    enum lane_verdict verdict;
    submit_plain("job-1");
    struct lane lane = claim_and_begin("default");
    OK(lane_drop(store, &lane, &verdict, &err));
    assert_int_equal(verdict, LANE_OK);
    check_invariants();
    struct lane again;
    assert_true(claim_from("default", QUEUE_RECOVERED, &again));
    assert_int_equal(begin(&again, NULL), LANE_OK);
}
ON_FIBER(drop_forgotten)

/* ---- Dead letters ---- */

static void fail_once(const char *id)
{
    struct lane lane = claim_and_begin("default");
    assert_string_equal(lane.job, id);
    assert_int_equal(fail_as(&lane, "a", MR_CLASS_RETRY, "timeout", 1, 0), LANE_END);
    EXPECT_STATUS(id, "failed");
    check_invariants();
}

static void reprocessed(void)
{
    submit_plain("job-1");
    fail_once("job-1");
    for (int i = 0; i < 2; i++) {
        struct job_view *job = view("job-1");
        assert_true(job->next_retry_ms >= job->finished_ms + 50);
        assert_int_equal(job->dead_tries, i);
        job_view_free(job);
        move_until(queue_has_work, "default");
        EXPECT_STATUS("job-1", "queued");
        fail_once("job-1");
    }
    struct job_view *job = view("job-1");
    assert_int_equal(job->next_retry_ms, 0); /* the schedule is used up: held */
    assert_int_equal(job->dead_tries, 2);
    assert_int_equal(job->round, 3);
    job_view_free(job);
    struct job_event *events;
    size_t count;
    uint64_t total;
    OK(job_events(store, "job-1", 3, 1, &events, &count, &total, &err));
    assert_string_equal(events[0].kind, "job.failed");
    assert_non_null(strstr(events[0].data, "\"next_retry_at\":\"20"));
    job_event_done(&events[0]);
    free(events);
    OK(job_events(store, "job-1", total - 1, 1, &events, &count, &total, &err));
    assert_string_equal(events[0].kind, "job.failed");
    assert_null(strstr(events[0].data, "next_retry_at"));
    assert_true(events[0].is_last);
    job_event_done(&events[0]);
    free(events);
    mem_auto char *failures = ask_field("mr:{0}:dead:info", "fp:p/a/timeout");
    assert_string_equal(failures, "3");
    /* One success resets the breaker. */
    struct job_again again = {.id = "job-1", .req = "h", .is_fresh = true};
    enum again_outcome ran;
    OK(job_run_again(store, &again, &ran, &err));
    struct lane lane = claim_and_begin("default");
    assert_int_equal(commit(&lane, "a", "", 1, "1", NULL), LANE_END);
    assert_null(ask_field("mr:{0}:dead:info", "fp:p/a/timeout"));
    assert_int_equal(ask_int("ZCARD", "mr:{0}:dead"), 0);
}
ON_FIBER(reprocessed)

/* While a reprocessing is due it is not the end: no follow-up before the last one has failed. */
static void follow_up_last(void)
{
    submit((struct job_submit){.id = "job-1", .after = "failed"});
    for (int i = 0; i < 3; i++) {
        fail_once("job-1");
        assert_int_equal(is_claimable("default"), i == 2);
        if (i < 2)
            move_until(queue_has_work, "default");
    }
    struct lane lane = claim("default");
    struct lane_grant grant;
    assert_int_equal(begin(&lane, &grant), LANE_OK);
    assert_string_equal(grant.open[0].name, "$after");
    assert_string_equal(grant.status, "failed");
    lane_grant_done(&grant);
    assert_int_equal(commit(&lane, "$after", "", 1, NULL, NULL), LANE_END);
}
ON_FIBER(follow_up_last)

static bool nothing_due_now(void *arg)
{
    (void)arg;
    struct reply reply = ask("ZRANGEBYSCORE", "mr:{0}:due", "-inf", "+inf", "WITHSCORES", NULL);
    bool is_late = reply.count > 0;
    uint64_t soon = clock_wall_ms() + 30000;
    for (size_t i = 1; i < reply.count; i += 2)
        is_late &= strtoull(reply.items[i].text, NULL, 10) > soon;
    reply_done(&reply);
    return is_late;
}

static void budget(void)
{
    store->dead_budget = 1;
    submit_plain("job-1");
    fail_once("job-1");
    submit_plain("job-2");
    fail_once("job-2");
    move_until(nothing_due_now, NULL); /* one ran, the other is due again in a minute */
    struct job_view *one = view("job-1"), *two = view("job-2");
    assert_true((strcmp(one->status, "queued") == 0) != (strcmp(two->status, "queued") == 0));
    struct job_view *later = strcmp(one->status, "failed") == 0 ? one : two;
    assert_in_range(later->next_retry_ms - later->now_ms, 55000, 60000);
    job_view_free(one);
    job_view_free(two);
}
ON_FIBER(budget)

static void breaker(void)
{
    struct store_config config = fixture_config();
    config.dead_breaker = 2;
    struct store *old = store;
    OK(store_open(&config, &store, &err));
    store->worker = mem_dup(old->worker);
    submit_plain("job-1");
    fail_once("job-1");
    submit_plain("job-2");
    fail_once("job-2");
    struct job_view *job = view("job-2");
    assert_int_equal(job->next_retry_ms, 0); /* two in a row */
    job_view_free(job);
    for (uint64_t stop = clock_now_ms() + 5000; clock_now_ms() < stop;) {
        uint64_t sleep_ms;
        uint32_t woken;
        OK(mover_turn(store, 0, &sleep_ms, &woken, &err));
        assert_int_equal(woken, 0);
        if (ask_int("ZCARD", "mr:{0}:due") == 0)
            break;
        assert_int_equal(wait_sleep(&loop, 5), MR_OK);
    }
    EXPECT_STATUS("job-1", "failed"); /* held too */
    store_close(old);
}
ON_FIBER(breaker)

/* ---- Leases and names ---- */

static void leases(void)
{
    enum lane_verdict verdict;
    struct redis_config at = {.path = server.path};
    struct lane_keeper *keeper = lane_keeper_new(store, &at);
    struct lane_renewal renewals[450];
    char id[16];
    for (int i = 0; i < 450; i++) {
        snprintf(id, sizeof(id), "job-%d", i);
        submit_plain(id);
        renewals[i].lane = claim_and_begin("default");
    }
    OK(lane_park(store, &renewals[7].lane, 60000, &verdict, &err));
    assert_int_equal(cancel(renewals[300].lane.job, NULL), CANCEL_CANCELLING);
    struct error why = {0};
    assert_int_equal(lane_renew(keeper, renewals, 450, 5000, &why), MR_OK);
    for (int i = 0; i < 450; i++)
        assert_int_equal(renewals[i].verdict, i == 7 ? LANE_LOST : i == 300 ? LANE_STOP : LANE_OK);
    assert_in_range(ask_int("PTTL", "mr:{0}:worker:node/w1"), 1000, 2000);
    /* A renewed entry is young, whoever looks. */
    free(store->worker);
    store->worker = mem_dup("node/w2");
    struct lane_stream stream = {0, "default", QUEUE_NORMAL};
    struct lane lanes[10];
    char cursor[STORE_ENTRY_BYTES] = "0-0";
    size_t count;
    OK(lane_reclaim(store, redis, &stream, cursor, 10, lanes, &count, &err));
    assert_int_equal(count, 0);
    /* Taken over: the former worker's renewal does not take it back. */
    store->lease_ms = 0;
    OK(lane_reclaim(store, redis, &stream, cursor, 1, lanes, &count, &err));
    store->lease_ms = 1000;
    assert_int_equal(count, 1);
    assert_int_equal(begin(&lanes[0], NULL), LANE_OK);
    assert_int_equal(lane_renew(keeper, renewals, 450, 5000, &why), MR_OK);
    unsigned lost = 0;
    for (int i = 0; i < 450; i++)
        lost += renewals[i].verdict == LANE_LOST;
    assert_int_equal(lost, 2);
    assert_int_equal(begin(&lanes[0], NULL), LANE_OK);
    lane_keeper_free(keeper);
}
ON_FIBER(leases)

static void names(void)
{
    struct store_config config = fixture_config();
    struct store *other;
    uint32_t buried;
    OK(store_open(&config, &other, &err));
    OK(worker_enroll(store, "node/w1", "instance-a", NULL, &err));
    assert_string_equal(store->worker, "node/w1");
    OK(worker_enroll(store, "node/w1", "instance-a", NULL, &err)); /* repeated */
    assert_string_equal(store->worker, "node/w1");
    OK(worker_enroll(other, "node/w1", "instance-b", NULL, &err));
    assert_string_equal(other->worker, "node/w1-2");
    submit_plain("job-1");
    claim("default");
    /* The master has reaped a: its name, and what it had claimed, pass on at once. */
    OK(worker_enroll(other, "node/w1", "instance-c", "instance-a", &err));
    assert_string_equal(other->worker, "node/w1");
    struct lane_stream stream = {0, "default", QUEUE_NORMAL};
    struct lane lane;
    char cursor[STORE_ENTRY_BYTES] = "0";
    size_t count;
    OK(lane_claim_own(other, redis, &stream, cursor, 1, &lane, &count, &err));
    assert_int_equal(count, 1);
    OK(worker_leave(store, &err)); /* another instance's registration stays */
    assert_int_equal(ask_int("EXISTS", "mr:{0}:worker:node/w1"), 1);
    /* A consumer with something pending is not buried, nor one that is registered. */
    free(store->worker);
    store->worker = mem_dup("node/w9");
    OK(worker_bury(store, &stream, &buried, &err));
    assert_int_equal(buried, 0);
    OK(worker_leave(other, &err));
    OK(worker_bury(store, &stream, &buried, &err));
    assert_int_equal(buried, 0);
    struct lane taken;
    strcpy(cursor, "0-0");
    store->lease_ms = 0;
    OK(lane_reclaim(store, redis, &stream, cursor, 1, &taken, &count, &err));
    assert_int_equal(count, 1);
    OK(worker_bury(store, &stream, &buried, &err));
    assert_int_equal(buried, 1);
    struct lane_stream none = {0, "nothing", QUEUE_NORMAL};
    OK(worker_bury(store, &none, &buried, &err));
    assert_int_equal(buried, 0);
    store_close(other);
}
ON_FIBER(names)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(cancel_waiting), CASE(cancel_running), CASE(cancel_before_last),
        CASE(deadline),       CASE(children),       CASE(later_request),
        CASE(drop_forgotten), CASE(reprocessed),    CASE(follow_up_last),
        CASE(budget),         CASE(breaker),        CASE(leases),
        CASE(names),
    };
    return cmocka_run_group_tests_name("stop", tests, fixture_server, fixture_server_end);
}
