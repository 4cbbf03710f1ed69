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

static bool nothing_is_due(void *arg)
{
    (void)arg;
    return ask_int("ZCARD", "mr:{0}:due") == 0;
}

/* What stopped a job does not stop its follow-up, which adds nothing to the job's log. */
static void follow_up_of_a_deadline(void)
{
    enum lane_verdict verdict;
    struct lane_grant grant;
    submit((struct job_submit){.id = "job-1", .ttl_ms = 60, .after = "failed"});
    move_until(nothing_is_due, NULL);
    EXPECT_STATUS("job-1", "failed");
    for (int turn = 0; turn < 2; turn++) {
        struct lane lane = claim("default");
        assert_int_equal(begin(&lane, &grant), LANE_OK);
        assert_string_equal(grant.open[0].name, "$after");
        assert_int_equal(grant.left_ms, UINT64_MAX);
        lane_grant_done(&grant);
        OK(lane_note(store, &lane, "$after", "child", "job-1/t/t:1", 1000, &verdict, &err));
        assert_int_equal(verdict, LANE_OK);
        OK(lane_step(store, &lane, "$after", "one", "1", 1, NULL, &verdict, &err));
        assert_int_equal(verdict, LANE_OK);
        assert_in_range(ask_int("PTTL", "mr:{0}:out:job-1"), 1000, 604800000);
        const struct lane_told told = {"stage.progress", "$after", NULL, 0, false};
        OK(lane_tell(store, &lane, &told, 1, 50, &verdict, &err));
        assert_int_equal(verdict, LANE_OK);
        check_invariants();
        if (turn == 0) { /* its worker is told to stop, by mistake: it goes on elsewhere */
            OK(lane_drop(store, &lane, &verdict, &err));
            assert_int_equal(verdict, LANE_OK);
            check_invariants();
        } else {
            assert_int_equal(commit(&lane, "$after", "", 1, NULL, NULL), LANE_END);
        }
    }
    EXPECT_EVENTS("job-1", "job.queued;job.failed;");
    EXPECT_STATUS("job-1", "failed");
    assert_int_equal(ask_int("ZCARD", "mr:{0}:dead"), 1);
    assert_int_equal(ask_int("HLEN", "mr:{0}:out:job-1"), 0);
    /* Run again while a follow-up is under way: that of the next round begins with nothing. */
    struct job_again again = {.id = "job-1", .req = "g", .is_fresh = true};
    enum again_outcome ran;
    for (int round = 0; round < 2; round++) {
        OK(job_run_again(store, &again, &ran, &err));
        assert_int_equal(ran, AGAIN_OK);
        check_invariants();
        struct lane lane = claim_and_begin("default");
        fail_as(&lane, "a", MR_CLASS_PERMANENT, "schema", 1, 0);
        lane = claim("default");
        assert_int_equal(begin(&lane, &grant), LANE_OK);
        assert_string_equal(grant.open[0].name, "$after");
        assert_int_equal(grant.output_count, 0);
        lane_grant_done(&grant);
        OK(lane_step(store, &lane, "$after", "one", "1", 1, NULL, &verdict, &err));
        again.req = "h";
    }
}
ON_FIBER(follow_up_of_a_deadline)

/* Parked while the job is being stopped: it comes back at once, to be wound up. */
static void park_while_stopping(void)
{
    enum lane_verdict verdict;
    submit_plain("job-1");
    struct lane lane = claim_and_begin("default");
    assert_int_equal(cancel("job-1", NULL), CANCEL_CANCELLING);
    OK(lane_park(store, &lane, 30000, &verdict, &err));
    assert_int_equal(verdict, LANE_OK);
    check_invariants();
    move_until(queue_has_work, "default");
    lane = claim("default");
    assert_int_equal(begin(&lane, NULL), LANE_STOP);
    OK(lane_drop(store, &lane, &verdict, &err));
    assert_int_equal(verdict, LANE_END);
    EXPECT_STATUS("job-1", "cancelled");
}
ON_FIBER(park_while_stopping)

/* What stopped the job does not hurry its follow-up: it waits as long as it was put off, and is not
 * begun and parked again twenty times a second. */
static void park_follow_up(void)
{
    enum lane_verdict verdict;
    submit((struct job_submit){.id = "job-1", .after = "cancelled"});
    assert_int_equal(cancel("job-1", NULL), CANCEL_DONE);
    struct lane lane = claim_and_begin("default");
    OK(lane_park(store, &lane, 30000, &verdict, &err));
    assert_int_equal(verdict, LANE_OK);
    struct reply time = ask("TIME", NULL), due = ask("ZSCORE", "mr:{0}:due", "l job-1 2", NULL);
    assert_true(strtoull(due.text, NULL, 10) >
                strtoull(time.items[0].text, NULL, 10) * 1000 + 15000);
    reply_done(&time);
    reply_done(&due);
}
ON_FIBER(park_follow_up)

/* Lanes in every state: queued, due with noted children, held; deadline and cancel close them all.
 */
static void stop_in_every_state(bool by_deadline)
{
    static const struct job_first first[] = {{"a", "default"}, {"b", "llm"}, {"c", "slow"}};
    enum lane_verdict verdict;
    struct lane_grant grant;
    submit((struct job_submit){
        .id = "job-1", .first = first, .first_count = 3, .ttl_ms = by_deadline ? 300 : 0});
    struct lane a = claim_and_begin("default"), c = claim("slow");
    OK(lane_note(store, &a, "a", "child", "job-1/a/t:1", 1000, &verdict, &err));
    assert_int_equal(fail_as(&a, "a", MR_CLASS_RETRY, "timeout", 5, 60000), LANE_END); /* due */
    OK(pipeline_pause(store, "p", &err));
    assert_int_equal(begin(&c, NULL), LANE_HELD);
    check_invariants();
    if (by_deadline)
        move_until(queue_has_work, "default");
    else
        assert_int_equal(cancel("job-1", NULL), CANCEL_CANCELLING);
    check_invariants();
    assert_false(is_claimable("llm"));
    assert_int_equal(ask_int("ZCARD", "mr:{0}:held:p"), 0);
    a = claim("default"); /* somebody has to look after the child */
    assert_int_equal(a.class, QUEUE_RECOVERED);
    assert_int_equal(begin(&a, &grant), LANE_STOP);
    assert_int_equal(grant.child_count, 1);
    assert_int_equal(grant.children[0].timeout_ms, 1000);
    lane_grant_done(&grant);
    OK(lane_drop(store, &a, &verdict, &err));
    assert_int_equal(verdict, LANE_END);
    EXPECT_STATUS("job-1", by_deadline ? "failed" : "cancelled");
    assert_int_equal(ask_int("ZCARD", "mr:{0}:due"), 0);
    OK(pipeline_resume(store, "p", &err));
}

static void cancel_in_every_state(void)
{
    stop_in_every_state(false);
}
ON_FIBER(cancel_in_every_state)

static void deadline_in_every_state(void)
{
    stop_in_every_state(true);
}
ON_FIBER(deadline_in_every_state)

/* Wakes that come too late, erase of what waits, a job that is gone while its log is not. */
static void too_late(void)
{
    enum erase_outcome erased;
    enum again_outcome ran;
    submit((struct job_submit){.id = "job-1", .delay_ms = 50, .ttl_ms = 60000});
    OK(job_erase(store, "job-1", &erased, &err));
    assert_int_equal(erased, ERASE_OK);
    assert_int_equal(ask_int("ZCARD", "mr:{0}:due"), 0);
    /* A member whose lane was closed, as a peek just before the cancel would have seen it. */
    submit((struct job_submit){.id = "job-2", .delay_ms = 50});
    assert_int_equal(cancel("job-2", NULL), CANCEL_DONE);
    struct reply reply = ask("ZADD", "mr:{0}:due", "1", "l job-2 1", "1", "x job-2", NULL);
    reply_done(&reply);
    reply = ask("ZADD", "mr:{0}:due", "1", "d job-2", "1", "l ghost 1", NULL);
    reply_done(&reply);
    move_until(nothing_is_due, NULL);
    EXPECT_STATUS("job-2", "cancelled");
    EXPECT_EVENTS("job-2", "job.queued;job.cancelled;");
    /* Outputs have expired before the job: it cannot go on from where it failed. */
    submit_plain("job-3");
    struct lane lane = claim_and_begin("default");
    commit(&lane, "a", "b", 2, NULL, NULL);
    fail_as(&lane, "b", MR_CLASS_PERMANENT, "schema", 1, 0);
    reply = ask("DEL", "mr:{0}:out:job-3", "mr:{0}:log:job-3", NULL);
    reply_done(&reply);
    struct job_again again = {.id = "job-3", .req = "h", .is_fresh = true};
    OK(job_run_again(store, &again, &ran, &err));
    assert_int_equal(ran, AGAIN_REFUSED);
    EXPECT_STATUS("job-3", "failed");
    assert_int_equal(submit((struct job_submit){.id = "job-3"}).outcome, JOB_SAME);
    /* The hash is gone, what belongs to it is not: a new job of that id begins with nothing. */
    submit_plain("job-4");
    lane = claim_and_begin("default");
    commit(&lane, "a", "", 1, "1", NULL);
    reply = ask("DEL", "mr:{0}:job:job-4", NULL);
    reply_done(&reply);
    submit_plain("job-4");
    EXPECT_EVENTS("job-4", "job.queued;");
    assert_int_equal(ask_int("EXISTS", "mr:{0}:out:job-4"), 0);
}
ON_FIBER(too_late)

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
    OK(lane_note(store, &lane, "b", "child", "job-1/b/t:1", 60000, &verdict, &err));
    assert_int_equal(verdict, LANE_STOP);
    OK(lane_step(store, &lane, "b", "s", "1", 1, NULL, &verdict, &err));
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
        OK(lane_note(store, &lane, "a", "child", req, 60000, &verdict, &err));
        assert_int_equal(verdict, LANE_OK);
    }
    OK(lane_note(store, &lane, "a", "late", "job-1/a/u:1", 60000, &verdict, &err));
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
            size_t count;
            store->lease_ms = 0;
            OK(lane_reclaim(store, redis, &stream, 1, &lane, &count, NULL, &err));
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

static void open_breaker(uint32_t failures)
{
    struct store_config config = fixture_config();
    config.dead_breaker = failures;
    struct store *old = store;
    OK(store_open(&config, &store, &err));
    store->worker = mem_dup(old->worker);
    store->patience_ms = old->patience_ms;
    store_close(old);
}

static uint64_t next_retry(const char *id)
{
    struct job_view *job = view(id);
    uint64_t next_ms = job->next_retry_ms;
    job_view_free(job);
    return next_ms;
}

/* Failures in a row hold dead letters; one that succeeds lets all of them go. */
static void breaker(void)
{
    enum again_outcome ran;
    open_breaker(2);
    submit((struct job_submit){.id = "job-1", .after = "failed"});
    fail_once("job-1");
    assert_true(next_retry("job-1") > 0);
    submit_plain("job-2");
    fail_once("job-2");
    assert_int_equal(next_retry("job-2"), 0); /* two in a row */
    move_until(nothing_is_due, NULL);
    check_invariants();
    EXPECT_STATUS("job-1", "failed"); /* held too, which is its end for now */
    assert_int_equal(next_retry("job-1"), 0);
    assert_int_equal(ask_int("ZCARD", "mr:{0}:dead:held"), 2);
    EXPECT_EVENTS("job-1", "job.queued;stage.started a;stage.failed a;job.failed;job.failed;");
    struct lane lane = claim_and_begin("default");
    assert_int_equal(commit(&lane, "$after", "", 1, NULL, NULL), LANE_END);
    /* By hand, and it succeeds: the other runs by itself. */
    struct job_again again = {.id = "job-2", .req = "h", .is_fresh = true};
    OK(job_run_again(store, &again, &ran, &err));
    check_invariants();
    assert_int_equal(ask_int("ZCARD", "mr:{0}:dead:held"), 1);
    lane = claim_and_begin("default");
    assert_int_equal(commit(&lane, "a", "", 1, "1", NULL), LANE_END);
    check_invariants();
    move_until(queue_has_work, "default");
    move_until(nothing_is_due, NULL);
    check_invariants();
    assert_int_equal(ask_int("ZCARD", "mr:{0}:dead:held"), 0);
    lane = claim_and_begin("default");
    assert_string_equal(lane.job, "job-1");
    assert_int_equal(commit(&lane, "a", "", 1, "1", NULL), LANE_END);
    EXPECT_STATUS("job-1", "completed");
}
ON_FIBER(breaker)

/* More than a turn holds; another fingerprint's stay; what is erased or discarded leaves. */
static void breaker_holds_many(void)
{
    enum again_outcome ran;
    enum erase_outcome erased;
    bool is_done;
    char id[16];
    open_breaker(1);
    for (int i = 0; i < 130; i++) {
        snprintf(id, sizeof(id), "job-%d", i);
        submit_plain(id);
        struct lane lane = claim_and_begin("default");
        fail_as(&lane, "a", MR_CLASS_RETRY, i < 128 ? "timeout" : "connect", 1, 0);
    }
    check_invariants();
    assert_int_equal(ask_int("ZCARD", "mr:{0}:dead:held"), 130);
    OK(job_erase(store, "job-0", &erased, &err));
    assert_int_equal(erased, ERASE_OK);
    OK(dead_discard(store, "job-1", &is_done, &err));
    assert_true(is_done);
    check_invariants();
    assert_int_equal(ask_int("ZCARD", "mr:{0}:dead:held"), 128);
    struct job_again again = {.id = "job-2", .req = "h", .is_fresh = true};
    OK(job_run_again(store, &again, &ran, &err));
    struct lane lane = claim_and_begin("default");
    assert_int_equal(commit(&lane, "a", "", 1, "1", NULL), LANE_END);
    store->dead_budget = 1; /* the rest is due later, but due */
    move_until(nothing_due_now, NULL);
    check_invariants();
    assert_int_equal(ask_int("ZCARD", "mr:{0}:dead:held"), 2);
    assert_true(next_retry("job-127") > 0);
    assert_int_equal(next_retry("job-128"), 0);
}
ON_FIBER(breaker_holds_many)

/* Three partitions: each job's keys lie in its own; a mover sees to each; a breaker is one
 * partition's. */
static void partitions(void)
{
    struct store_config config = fixture_config();
    config.partitions = 3;
    config.dead_breaker = 1;
    struct store *old = store;
    OK(store_open(&config, &store, &err));
    store->worker = mem_dup(old->worker);
    unsigned of[3] = {0}, succeeded = 0;
    for (int i = 0; i < 12; i++) {
        char id[16];
        snprintf(id, sizeof(id), "job-%d", i);
        submit((struct job_submit){.id = id, .delay_ms = 50});
        of[store_partition(store, id)]++;
    }
    check_invariants();
    for (uint32_t p = 0; p < 3; p++) {
        assert_true(of[p] > 0);
        struct lane_stream stream = {p, "default", QUEUE_NORMAL};
        struct lane lanes[12];
        size_t count = 0, claimed = 0;
        for (uint64_t stop = clock_now_ms() + 5000; claimed < of[p] && clock_now_ms() < stop;) {
            uint64_t sleep_ms;
            uint32_t woken;
            OK(mover_turn(store, p, &sleep_ms, &woken, &err));
            OK(lane_claim(store, redis, &stream, 1, 12, 0, lanes + claimed, &count, &err));
            claimed += count;
            assert_int_equal(wait_sleep(&loop, 2), MR_OK);
        }
        assert_int_equal(claimed, of[p]);
        for (size_t i = 0; i < claimed; i++) {
            assert_int_equal(store_partition(store, lanes[i].job), p);
            assert_int_equal(begin(&lanes[i], NULL), LANE_OK);
            fail_as(&lanes[i], "a", MR_CLASS_RETRY, "timeout", 1, 0);
        }
        check_invariants();
        /* One of them succeeds: those of this partition are due, the others' are not. */
        struct job_again again = {.id = lanes[0].job, .req = "h", .is_fresh = true};
        enum again_outcome ran;
        OK(job_run_again(store, &again, &ran, &err));
        OK(lane_claim(store, redis, &stream, 1, 1, 0, lanes, &count, &err));
        assert_int_equal(count, 1);
        assert_int_equal(begin(&lanes[0], NULL), LANE_OK);
        assert_int_equal(commit(&lanes[0], "a", "", 1, "1", NULL), LANE_END);
        succeeded++;
        check_invariants();
    }
    assert_int_equal(succeeded, 3);
    char key[STORE_KEY_BYTES];
    for (uint32_t p = 0; p < 3; p++)
        assert_int_equal(ask_int("ZCARD", store_key(store, p, "dead:held", NULL, key)), of[p] - 1);
    store_close(old);
}
ON_FIBER(partitions)

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
    size_t count;
    OK(lane_reclaim(store, redis, &stream, 10, lanes, &count, NULL, &err));
    assert_int_equal(count, 0);
    /* Taken over: the former worker's renewal does not take it back. */
    store->lease_ms = 0;
    OK(lane_reclaim(store, redis, &stream, 1, lanes, &count, NULL, &err));
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
    store->lease_ms = 0;
    OK(lane_reclaim(store, redis, &stream, 1, &taken, &count, NULL, &err));
    assert_int_equal(count, 1);
    OK(worker_bury(store, &stream, &buried, &err));
    assert_int_equal(buried, 1);
    struct lane_stream none = {0, "nothing", QUEUE_NORMAL};
    OK(worker_bury(store, &none, &buried, &err));
    assert_int_equal(buried, 0);
    store_close(other);
}
ON_FIBER(names)

/* When Redis comes back every lease looks over. Whoever has not renewed its own registration lately
 * (its TTL says so), or not without a pause for a lease (`since`), takes nothing.
 * Fails with: core/state/sweep.lua: `if false then` for `if lease > 0 then`, and with
 * core/state/renew.lua, `since` set never again. */
static void after_an_outage(void)
{
    static const char own[] = "mr:{0}:worker:node/w2";
    struct lane_stream stream = {0, "default", QUEUE_NORMAL};
    struct lane lanes[2];
    size_t count = 0;
    store->lease_ms = 2000;
    submit_plain("job-1");
    claim_and_begin("default");
    OK(wait_sleep(&loop, 2100));
    free(store->worker);
    store->worker = NULL;
    OK(worker_enroll(store, "node/w2", "instance-b", NULL, &err));
    OK(lane_reclaim(store, redis, &stream, 2, lanes, &count, NULL, &err));
    assert_int_equal(count, 0); /* it has only come */
    struct reply reply = ask("HSET", own, "since", "1", NULL);
    reply_done(&reply);
    reply = ask("PEXPIRE", own, "2600", NULL);
    reply_done(&reply);
    OK(lane_reclaim(store, redis, &stream, 2, lanes, &count, NULL, &err));
    assert_int_equal(count, 0); /* its last renewal is 0.7 leases ago */
    struct redis_config at = {.path = server.path};
    struct lane_keeper *keeper = lane_keeper_new(store, &at);
    OK(lane_renew(keeper, NULL, 0, 5000, &err));
    OK(lane_reclaim(store, redis, &stream, 2, lanes, &count, NULL, &err));
    assert_int_equal(count, 0); /* renewed, after a pause: the others get a lease to do so */
    reply = ask("HSET", own, "since", "1", NULL);
    reply_done(&reply);
    OK(lane_renew(keeper, NULL, 0, 5000, &err));
    char *since = ask_field(own, "since");
    assert_string_equal(since, "1"); /* without a pause */
    free(since);
    OK(lane_reclaim(store, redis, &stream, 2, lanes, &count, NULL, &err));
    assert_int_equal(count, 1);
    lane_keeper_free(keeper);
}
ON_FIBER(after_an_outage)

/* After a failover to a host whose clock is behind (what is left to live has grown), the time since
 * when it renews begins anew: it would not judge before that clock has caught up. */
static void clock_behind(void)
{
    static const char own[] = "mr:{0}:worker:node/w2";
    free(store->worker);
    store->worker = NULL;
    OK(worker_enroll(store, "node/w2", "instance-b", NULL, &err));
    struct reply reply = ask("HSET", own, "since", "9999999999999", NULL);
    reply_done(&reply);
    reply = ask("PEXPIRE", own, "60000", NULL);
    reply_done(&reply);
    struct redis_config at = {.path = server.path};
    struct lane_keeper *keeper = lane_keeper_new(store, &at);
    OK(lane_renew(keeper, NULL, 0, 5000, &err));
    lane_keeper_free(keeper);
    char *since = ask_field(own, "since");
    reply = ask("TIME", NULL);
    assert_true(strtoull(since, NULL, 10) / 1000 <= strtoull(reply.items[0].text, NULL, 10));
    reply_done(&reply);
    free(since);
}
ON_FIBER(clock_behind)

/* One job whose key is damaged is lost to its worker; the leases of the others are renewed. */
static void lease_of_a_damaged_job(void)
{
    struct redis_config at = {.path = server.path};
    struct lane_renewal renewals[3];
    static const char *const ids[3] = {"job-0", "job-1", "job-2"};
    for (int i = 0; i < 3; i++) {
        submit_plain(ids[i]);
        renewals[i].lane = claim_and_begin("default");
    }
    struct reply reply = ask("SET", "mr:{0}:job:job-1", "damaged", NULL);
    reply_done(&reply);
    struct lane_keeper *keeper = lane_keeper_new(store, &at);
    OK(lane_renew(keeper, renewals, 3, 5000, &err));
    for (int i = 0; i < 3; i++)
        assert_int_equal(renewals[i].verdict, i == 1 ? LANE_LOST : LANE_OK);
    lane_keeper_free(keeper);
    reply = ask("FLUSHALL", NULL);
    reply_done(&reply);
}
ON_FIBER(lease_of_a_damaged_job)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(cancel_waiting),
        CASE(cancel_running),
        CASE(cancel_before_last),
        CASE(deadline),
        CASE(children),
        CASE(later_request),
        CASE(drop_forgotten),
        CASE(reprocessed),
        CASE(follow_up_last),
        CASE(budget),
        CASE(breaker),
        CASE(breaker_holds_many),
        CASE(follow_up_of_a_deadline),
        CASE(park_while_stopping),
        CASE(park_follow_up),
        CASE(cancel_in_every_state),
        CASE(deadline_in_every_state),
        CASE(too_late),
        CASE(partitions),
        CASE(leases),
        CASE(names),
        CASE(after_an_outage),
        CASE(clock_behind),
        CASE(lease_of_a_damaged_job),
    };
    return cmocka_run_group_tests_name("stop", tests, fixture_server, fixture_server_end);
}
