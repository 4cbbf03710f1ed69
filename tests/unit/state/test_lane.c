/* begin, commit, fail, park, handback, drop: every row of the protocol, every reply, every script
 * repeated. */
#include "fixture.h"

static void chain(void)
{
    char open[256];
    submit_plain("job-1");
    struct lane lane = claim_and_begin("default");
    check_invariants();
    assert_int_equal(commit(&lane, "a", "b", 4, NULL, open), LANE_OK);
    assert_string_equal(open, "b");
    assert_int_equal(commit(&lane, "b", "c", 4, NULL, open), LANE_OK);
    check_invariants();
    struct job_view *job = view("job-1");
    assert_int_equal(job->progress, 50);
    assert_int_equal(job_view_stage(job, "a")->attempts, 1);
    assert_string_equal(job_view_stage(job, "a")->output, "\"a\"");
    assert_int_equal(job_view_stage(job, "c")->attempts, 1);
    assert_string_equal(job_view_current(job)->name, "c");
    assert_string_equal(job->revision, "rev1");
    job_view_free(job);
    assert_int_equal(ask_int("PTTL", "mr:{0}:out:job-1"), -1);
    assert_int_equal(commit(&lane, "c", "d", 4, NULL, open), LANE_OK);
    assert_int_equal(commit(&lane, "d", "", 4, "{\"r\":[1,2]}", open), LANE_END);
    job = view("job-1");
    assert_string_equal(job->status, "completed");
    assert_string_equal(job->result, "{\"r\":[1,2]}");
    assert_int_equal(job->progress, 100);
    assert_true(job->started_ms >= job->created_ms);
    assert_in_range(job->expires_ms - job->finished_ms, 604700000, 604800100);
    job_view_free(job);
    /* Retention: log and outputs a day, job and result a week. */
    assert_in_range(ask_int("PTTL", "mr:{0}:log:job-1"), 86300000, 86400000);
    assert_in_range(ask_int("PTTL", "mr:{0}:out:job-1"), 86300000, 86400000);
    assert_in_range(ask_int("PTTL", "mr:{0}:job:job-1"), 604700000, 604800000);
    assert_int_equal(ask_int("XLEN", "mr:{0}:queue:default:normal"), 0);
    EXPECT_EVENTS("job-1",
                  "job.queued;stage.started a;stage.completed a;stage.started b;stage.completed b;"
                  "stage.started c;stage.completed c;stage.started d;stage.completed d;"
                  "job.completed;");
    assert_int_equal(commit(&lane, "d", "", 4, "{}", open), LANE_LOST);
}
ON_FIBER(chain)

static void begin_checks(void)
{
    submit_plain("job-1");
    struct lane lane = claim("default"), stale = lane;
    struct lane_grant grant;
    assert_int_equal(begin(&lane, &grant), LANE_OK);
    assert_int_equal(grant.round, 1);
    assert_int_equal(grant.open_count, 1);
    assert_string_equal(grant.open[0].name, "a");
    assert_int_equal(grant.open[0].attempts, 0);
    assert_int_equal(grant.left_ms, UINT64_MAX);
    assert_true(grant.is_alone);
    lane_grant_done(&grant);
    /* Repeated: the same, nothing counted, no second event. */
    assert_int_equal(begin(&lane, &grant), LANE_OK);
    assert_int_equal(grant.takeovers, 0);
    lane_grant_done(&grant);
    EXPECT_EVENTS("job-1", "job.queued;stage.started a;");
    /* Another worker's fence without its claim. */
    free(store->worker);
    store->worker = mem_dup("node/w2");
    assert_int_equal(begin(&stale, NULL), LANE_LOST);
    free(store->worker);
    store->worker = mem_dup("node/w1");
    /* An entry that is no lane's. */
    struct reply reply =
        ask("XADD", "mr:{0}:queue:default:normal", "*", "j", "job-1", "l", "1", "p", "p", NULL);
    reply_done(&reply);
    struct lane extra = claim("default");
    assert_int_equal(begin(&extra, NULL), LANE_GONE);
    reply = ask("XADD", "mr:{0}:queue:default:normal", "*", "j", "ghost", "l", "1", "p", "p", NULL);
    reply_done(&reply);
    struct lane ghost = claim("default");
    assert_int_equal(begin(&ghost, NULL), LANE_GONE);
    assert_int_equal(ask_int("XLEN", "mr:{0}:queue:default:normal"), 1);
}
ON_FIBER(begin_checks)

/* Makes the entries of the normal stream look abandoned and claims them as another worker. */
static void take_over_all(const char *worker, struct lane *ret_lanes, size_t want)
{
    struct lane_stream stream = {0, "default", QUEUE_NORMAL};
    size_t count = 0;
    free(store->worker);
    store->worker = mem_dup(worker);
    uint64_t lease = store->lease_ms;
    store->lease_ms = 0;
    OK(lane_reclaim(store, redis, &stream, (uint32_t)want, ret_lanes, &count, NULL, &err));
    store->lease_ms = lease;
    assert_int_equal(count, want);
}

static struct lane take_over(const char *worker)
{
    struct lane lane;
    take_over_all(worker, &lane, 1);
    return lane;
}

static void fences(void)
{
    enum lane_verdict verdict;
    submit_plain("job-1");
    struct lane old = claim_and_begin("default");
    assert_int_equal(commit(&old, "a", "b", 3, NULL, NULL), LANE_OK);
    OK(lane_step(store, &old, "b", "first", "[1]", 3, NULL, &verdict, &err));
    struct lane lane = take_over("node/w2");
    struct lane_grant grant;
    assert_int_equal(begin(&lane, &grant), LANE_OK);
    assert_int_equal(grant.takeovers, 1);
    assert_int_equal(grant.crashes, 0);
    assert_string_equal(grant.open[0].name, "b");
    assert_int_equal(grant.output_count, 2);
    for (uint32_t i = 0; i < 2; i++) {
        bool is_step = strcmp(grant.outputs[i].name, "b#first") == 0;
        assert_string_equal(grant.outputs[i].text, is_step ? "[1]" : "\"a\"");
        assert_int_equal(grant.outputs[i].state, is_step ? 0 : 'd');
    }
    lane_grant_done(&grant);
    /* Whatever the former worker still sends changes nothing. */
    struct reply before = ask("HGETALL", "mr:{0}:job:job-1", NULL);
    assert_int_equal(commit(&old, "b", "c", 3, NULL, NULL), LANE_LOST);
    assert_int_equal(fail_as(&old, "b", MR_CLASS_RETRY, "timeout", 3, 100), LANE_LOST);
    OK(lane_park(store, &old, 100, &verdict, &err));
    assert_int_equal(verdict, LANE_LOST);
    OK(lane_handback(store, &old, &verdict, &err));
    assert_int_equal(verdict, LANE_LOST);
    OK(lane_drop(store, &old, &verdict, &err));
    assert_int_equal(verdict, LANE_LOST);
    OK(lane_step(store, &old, "b", "second", "[2]", 3, NULL, &verdict, &err));
    assert_int_equal(verdict, LANE_LOST);
    OK(lane_note(store, &old, "b", "child", "job-1/b/t:1", 60000, &verdict, &err));
    assert_int_equal(verdict, LANE_LOST);
    OK(lane_tell(store, &old, NULL, 0, 90, &verdict, &err));
    assert_int_equal(verdict, LANE_LOST);
    struct reply after = ask("HGETALL", "mr:{0}:job:job-1", NULL);
    assert_int_equal(before.count, after.count);
    for (size_t i = 0; i < after.count; i++)
        assert_string_equal(before.items[i].text, after.items[i].text);
    reply_done(&before);
    reply_done(&after);
    assert_int_equal(ask_int("HLEN", "mr:{0}:out:job-1"), 2);
    assert_int_equal(commit(&lane, "b", "", 2, "1", NULL), LANE_END);
    assert_int_equal(ask_int("HLEN", "mr:{0}:out:job-1"), 2); /* the step is gone */
}
ON_FIBER(fences)

static void commit_repeated(void)
{
    char open[256];
    submit_plain("job-1");
    struct lane lane = claim_and_begin("default");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(commit(&lane, "a", "b c", 3, NULL, open), LANE_OK);
        assert_string_equal(open, "b c");
    }
    assert_int_equal(commit(&lane, "b", "", 3, NULL, open), LANE_OK);
    assert_string_equal(open, "c");
    assert_int_equal(commit(&lane, "a", "b c", 3, NULL, open), LANE_OK);
    assert_string_equal(open, "c");
    struct job_view *job = view("job-1");
    assert_int_equal(job->stage_count, 3);
    assert_int_equal(job->progress, 66);
    job_view_free(job);
    EXPECT_EVENTS("job-1", "job.queued;stage.started a;stage.completed a;stage.started b;"
                           "stage.started c;stage.completed b;");
}
ON_FIBER(commit_repeated)

static enum lane_verdict commit_join(const struct lane *lane, const char *stage, const char *other,
                                     uint32_t known, const char *result, struct lane_next *ret)
{
    const char *needs[] = {stage, other};
    struct lane_successor join = {"join", "default", needs, 2};
    struct lane_commit commit = {.stage = stage,
                                 .output = "{\"from\":1}",
                                 .output_len = 10,
                                 .successors = &join,
                                 .successor_count = 1,
                                 .total = 4,
                                 .known = known,
                                 .have = "a",
                                 .result = result,
                                 .result_len = result ? strlen(result) : 0};
    OK(lane_commit(store, lane, &commit, ret, &err));
    return ret->verdict;
}

/* a → (b in llm, c in default) → join in default: exactly one commit is the last. */
static void join(const char *first)
{
    submit_plain("job-1");
    struct lane one = claim_and_begin("default"), two;
    const char *needs[] = {"a"};
    struct lane_successor successors[] = {{"b", "llm", needs, 1}, {"c", "default", needs, 1}};
    struct lane_commit commit_a = {.stage = "a",
                                   .output = "1",
                                   .output_len = 1,
                                   .successors = successors,
                                   .successor_count = 2,
                                   .total = 4,
                                   .known = 1};
    struct lane_next next;
    OK(lane_commit(store, &one, &commit_a, &next, &err));
    assert_int_equal(next.verdict, LANE_OK);
    assert_int_equal(next.open_count, 1);
    assert_string_equal(next.open[0], "c");
    lane_next_done(&next);
    check_invariants();
    two = claim("llm");
    struct lane_grant grant;
    assert_int_equal(begin(&two, &grant), LANE_OK);
    assert_int_equal(grant.output_count, 1);
    assert_false(grant.is_alone);
    assert_int_equal(grant.done, 1);
    lane_grant_done(&grant);
    if (first[0] == 'b') {
        assert_int_equal(commit_join(&two, "b", "c", 2, NULL, &next), LANE_END);
        lane_next_done(&next);
        check_invariants();
        /* The join stays in the lane of its queue, which gets the output it lacks. */
        assert_int_equal(commit_join(&one, "c", "b", 2, NULL, &next), LANE_OK);
        assert_int_equal(next.open_count, 1);
        assert_string_equal(next.open[0], "join");
        assert_int_equal(next.output_count, 1);
        assert_string_equal(next.outputs[0].name, "b");
        assert_string_equal(next.outputs[0].text, "{\"from\":1}");
        assert_int_equal(next.outputs[0].state, 'd');
        lane_next_done(&next);
        /* Repeated: the outputs once more. */
        assert_int_equal(commit_join(&one, "c", "b", 2, NULL, &next), LANE_OK);
        assert_int_equal(next.output_count, 1);
        lane_next_done(&next);
    } else {
        assert_int_equal(commit_join(&one, "c", "b", 2, NULL, &next), LANE_END);
        lane_next_done(&next);
        check_invariants();
        assert_int_equal(commit_join(&two, "b", "c", 2, NULL, &next), LANE_END);
        lane_next_done(&next);
        check_invariants();
        one = claim("default");
        assert_int_equal(begin(&one, &grant), LANE_OK);
        assert_int_equal(grant.output_count, 3);
        assert_int_equal(grant.done, 3);
        lane_grant_done(&grant);
    }
    assert_int_equal(commit(&one, "join", "", 4, "{}", NULL), LANE_END);
    EXPECT_STATUS("job-1", "completed");
}

static void join_in_lane(void)
{
    join("b");
}
ON_FIBER(join_in_lane)

static void join_in_new_lane(void)
{
    join("c");
}
ON_FIBER(join_in_new_lane)

static void end_stage(void)
{
    char open[256];
    submit_plain("job-1");
    struct lane lane = claim_and_begin("default");
    assert_int_equal(commit(&lane, "a", "", 1, NULL, open), LANE_OK);
    assert_string_equal(open, "$end");
    check_invariants();
    EXPECT_STATUS("job-1", "processing");
    struct job_view *job = view("job-1");
    assert_int_equal(job->progress, 99);
    assert_int_equal(job->stage_count, 1); /* `$end` is nobody's stage */
    job_view_free(job);
    /* Its worker dies; the next one gets all outputs and commits the result. */
    struct lane next = take_over("node/w2");
    struct lane_grant grant;
    assert_int_equal(begin(&next, &grant), LANE_OK);
    assert_string_equal(grant.open[0].name, "$end");
    assert_int_equal(grant.output_count, 1);
    lane_grant_done(&grant);
    assert_int_equal(commit(&next, "$end", "", 1, "[true]", open), LANE_END);
    job = view("job-1");
    assert_string_equal(job->status, "completed");
    assert_string_equal(job->result, "[true]");
    job_view_free(job);
}
ON_FIBER(end_stage)

static void skipped_and_usage(void)
{
    submit_plain("job-1");
    struct lane lane = claim_and_begin("default");
    const char *needs[] = {"a"};
    struct lane_successor successor = {"b", "default", needs, 1};
    struct lane_commit commit_a = {.stage = "a",
                                   .is_skipped = true,
                                   .output = "null",
                                   .output_len = 4,
                                   .successors = &successor,
                                   .successor_count = 1,
                                   .total = 2,
                                   .known = 1,
                                   .usage = {10, 20, 1500}};
    struct lane_next next;
    OK(lane_commit(store, &lane, &commit_a, &next, &err));
    lane_next_done(&next);
    struct lane_fail fail = {.stage = "b",
                             .class = MR_CLASS_RETRY,
                             .code = "timeout",
                             .message = "m",
                             .attempts = 2,
                             .delay_ms = 1,
                             .usage = {1, 2, 3}};
    OK(lane_fail(store, &lane, &fail, &next, &err));
    assert_int_equal(next.verdict, LANE_END);
    lane_next_done(&next);
    struct job_view *job = view("job-1");
    assert_int_equal(job_view_stage(job, "a")->state, 's');
    assert_int_equal(job_view_stage(job, "a")->attempts, 0);
    assert_int_equal(job->input_tokens, 11);
    assert_int_equal(job->output_tokens, 22);
    assert_int_equal(job->cost_micros, 1503);
    job_view_free(job);
}
ON_FIBER(skipped_and_usage)

static void retries(void)
{
    submit_plain("job-1");
    for (uint32_t attempt = 1; attempt <= 3; attempt++) {
        struct lane lane = claim("default");
        struct lane_grant grant;
        assert_int_equal(begin(&lane, &grant), LANE_OK);
        assert_int_equal(grant.open[0].attempts, attempt - 1);
        lane_grant_done(&grant);
        struct job_view *job = view("job-1");
        assert_int_equal(job_view_stage(job, "a")->attempts, attempt);
        job_view_free(job);
        assert_int_equal(fail_as(&lane, "a", MR_CLASS_RETRY, "timeout", 3, 1), LANE_END);
        assert_int_equal(fail_as(&lane, "a", MR_CLASS_RETRY, "timeout", 3, 1), LANE_LOST);
        check_invariants();
        if (attempt == 3)
            break;
        job = view("job-1");
        assert_string_equal(job->status, "waiting");
        assert_int_equal(job->lanes[0].number, attempt + 1);   /* never used again */
        assert_true(job->lanes[0].due_ms >= job->now_ms + 30); /* not sooner than 50 ms */
        job_view_free(job);
        move_until(queue_has_work, "default");
    }
    struct job_view *job = view("job-1");
    assert_string_equal(job->status, "failed");
    assert_int_equal(job_view_stage(job, "a")->state, 'f');
    assert_int_equal(job_view_stage(job, "a")->attempts, 3);
    json_t *error = json_loads(job->error, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(error, "code")), "timeout");
    assert_string_equal(json_string_value(json_object_get(error, "message")), "it \"failed\"\n");
    assert_string_equal(json_string_value(json_object_get(error, "stage")), "a");
    assert_true(json_is_true(json_object_get(error, "retryable")));
    json_decref(error);
    assert_true(job->next_retry_ms > job->finished_ms);
    job_view_free(job);
    /* Failed ones keep all of it: they may run again. */
    assert_in_range(ask_int("PTTL", "mr:{0}:log:job-1"), 604700000, 604800000);
    EXPECT_EVENTS("job-1", "job.queued;stage.started a;stage.retrying a;stage.started a;"
                           "stage.retrying a;stage.started a;stage.failed a;job.failed;");
}
ON_FIBER(retries)

static void throttled(void)
{
    submit_plain("job-1");
    for (int i = 0; i < 4; i++) {
        struct lane lane = claim_and_begin("default");
        assert_int_equal(fail_as(&lane, "a", MR_CLASS_THROTTLED, "rate_limited", 1, 1), LANE_END);
        move_until(queue_has_work, "default");
    }
    struct job_view *job = view("job-1");
    assert_int_equal(job_view_stage(job, "a")->attempts, 0);
    assert_int_equal(job_view_stage(job, "a")->throttled, 4);
    job_view_free(job);
}
ON_FIBER(throttled)

/* b fails for good while c, of another lane, runs: c finishes and is kept, d does not begin. */
static void failing_branch(void)
{
    static const struct job_first first[] = {{"b", "default"}, {"c", "llm"}, {"w", "slow"}};
    submit((struct job_submit){.id = "job-1", .first = first, .first_count = 3});
    struct lane b = claim_and_begin("default"), c = claim_and_begin("llm");
    assert_int_equal(fail_as(&b, "b", MR_CLASS_PERMANENT, "schema", 3, 0), LANE_END);
    check_invariants();
    struct job_view *job = view("job-1");
    assert_string_equal(job->status, "processing");
    assert_string_equal(job->stop, "failed");
    assert_int_equal(job->lane_count, 1); /* w, which waited, is closed */
    job_view_free(job);
    assert_false(is_claimable("slow"));
    assert_int_equal(commit(&c, "c", "d", 4, NULL, NULL), LANE_END);
    job = view("job-1");
    assert_string_equal(job->status, "failed");
    assert_int_equal(job_view_stage(job, "c")->state, 'd');
    assert_non_null(strstr(job->error, "schema"));
    assert_int_equal(job->next_retry_ms, 0);
    job_view_free(job);
    check_invariants();
    /* A replay runs what failed and what did not begin: b, w and d, and nothing twice. */
    struct job_again again = {.id = "job-1", .req = "by hand", .is_fresh = true};
    enum again_outcome outcome;
    for (int i = 0; i < 2; i++) {
        OK(job_run_again(store, &again, &outcome, &err));
        assert_int_equal(outcome, i ? AGAIN_SAME : AGAIN_OK);
        check_invariants();
    }
    b = claim_and_begin("default");
    struct lane w = claim_and_begin("slow");
    char open[256];
    assert_int_equal(commit(&b, "b", "", 4, NULL, open), LANE_OK);
    assert_string_equal(open, "d");
    assert_int_equal(commit(&b, "d", "", 4, NULL, open), LANE_END);
    assert_int_equal(commit_to(&w, "w", "", "slow", 4, "{}", open), LANE_END);
    EXPECT_STATUS("job-1", "completed");
    again.req = "once more";
    OK(job_run_again(store, &again, &outcome, &err));
    assert_int_equal(outcome, AGAIN_REFUSED);
    again.id = "nothing";
    OK(job_run_again(store, &again, &outcome, &err));
    assert_int_equal(outcome, AGAIN_NONE);
}
ON_FIBER(failing_branch)

/* Two stages of one lane, one fails: the other goes on in the lane. */
static void failing_in_lane(void)
{
    static const struct job_first first[] = {{"a", "default"}, {"b", "default"}};
    submit((struct job_submit){.id = "job-1", .first = first, .first_count = 2});
    struct lane lane = claim_and_begin("default");
    assert_int_equal(fail_as(&lane, "a", MR_CLASS_RETRY, "timeout", 2, 60000), LANE_OK);
    check_invariants();
    EXPECT_STATUS("job-1", "processing");
    assert_int_equal(fail_as(&lane, "a", MR_CLASS_RETRY, "timeout", 2, 60000), LANE_OK);
    assert_int_equal(fail_as(&lane, "b", MR_CLASS_BUG, "internal", 2, 0), LANE_END);
    struct job_view *job = view("job-1");
    assert_string_equal(job->status, "failed"); /* the lane that waited is closed */
    assert_int_equal(job->lane_count, 0);
    job_view_free(job);
    assert_int_equal(ask_int("ZCARD", "mr:{0}:due"), 0);
}
ON_FIBER(failing_in_lane)

static void from_a_stage(void)
{
    submit_plain("job-1");
    struct lane lane = claim_and_begin("default");
    commit(&lane, "a", "b", 3, NULL, NULL);
    commit(&lane, "b", "c", 3, NULL, NULL);
    fail_as(&lane, "c", MR_CLASS_PERMANENT, "schema", 1, 0);
    const char *reset[] = {"b", "c"};
    struct job_again again = {
        .id = "job-1", .req = "h", .is_fresh = true, .reset = reset, .reset_count = 2};
    enum again_outcome outcome;
    OK(job_run_again(store, &again, &outcome, &err));
    assert_int_equal(outcome, AGAIN_OK);
    check_invariants();
    lane = claim("default");
    struct lane_grant grant;
    assert_int_equal(begin(&lane, &grant), LANE_OK);
    assert_int_equal(grant.open_count, 1);
    assert_string_equal(grant.open[0].name, "b");
    assert_int_equal(grant.output_count, 1);
    assert_int_equal(grant.round, 2);
    lane_grant_done(&grant);
    commit(&lane, "b", "c", 3, NULL, NULL);
    assert_int_equal(commit(&lane, "c", "", 3, "1", NULL), LANE_END);
    EXPECT_STATUS("job-1", "completed");
}
ON_FIBER(from_a_stage)

static void park(void)
{
    enum lane_verdict verdict;
    submit_plain("job-1");
    struct lane lane = claim_and_begin("default");
    OK(lane_park(store, &lane, 1, &verdict, &err));
    assert_int_equal(verdict, LANE_OK);
    check_invariants();
    EXPECT_STATUS("job-1", "waiting");
    OK(lane_park(store, &lane, 1, &verdict, &err));
    assert_int_equal(verdict, LANE_LOST);
    move_until(queue_has_work, "default");
    struct lane again = claim("default");
    assert_int_equal(again.number, lane.number);
    struct lane_grant grant;
    assert_int_equal(begin(&again, &grant), LANE_OK);
    assert_int_equal(grant.takeovers, 0);
    lane_grant_done(&grant);
    assert_int_equal(commit(&lane, "a", "", 1, "1", NULL), LANE_LOST);
    assert_int_equal(commit(&again, "a", "", 1, "1", NULL), LANE_END);
}
ON_FIBER(park)

static void handback(void)
{
    enum lane_verdict verdict;
    submit((struct job_submit){.id = "job-1", .prio = QUEUE_LOW});
    struct lane lane = claim_and_begin("default");
    OK(lane_handback(store, &lane, &verdict, &err));
    assert_int_equal(verdict, LANE_OK);
    check_invariants();
    EXPECT_STATUS("job-1", "queued");
    OK(lane_handback(store, &lane, &verdict, &err));
    assert_int_equal(verdict, LANE_LOST);
    struct lane again;
    assert_true(claim_from("default", QUEUE_RECOVERED, &again));
    struct lane_grant grant;
    assert_int_equal(begin(&again, &grant), LANE_OK);
    assert_int_equal(grant.takeovers, 0);
    assert_string_equal(grant.prio, "low");
    lane_grant_done(&grant);
    assert_int_equal(again.prio, QUEUE_LOW);
    /* New lanes of a recovered one are of the job's own class. */
    assert_int_equal(commit_to(&again, "a", "b", "llm", 2, NULL, NULL), LANE_END);
    struct lane b;
    assert_true(claim_from("llm", QUEUE_LOW, &b));
}
ON_FIBER(handback)

/* What begins from here on is another instance's; `ret_died`: the one before. */
static void next_instance(char ret_died[static sizeof(store->instance)])
{
    static unsigned number;
    snprintf(ret_died, sizeof(store->instance), "%s", store->instance);
    snprintf(store->instance, sizeof(store->instance), "instance%u", ++number);
}

static enum lane_verdict begin_as(struct lane *lane, const struct lane_begin *how,
                                  uint32_t *ret_takeovers)
{
    struct lane_grant grant;
    OK(lane_begin(store, lane, how, &grant, &err));
    enum lane_verdict verdict = grant.verdict;
    if (ret_takeovers)
        *ret_takeovers = grant.takeovers;
    lane_grant_done(&grant);
    return verdict;
}

static void crashes(void)
{
    static const struct job_first first[] = {{"a", "default"}, {"b", "llm"}, {"c", "slow"}};
    submit((struct job_submit){.id = "job-1", .first = first, .first_count = 3});
    struct lane b = claim_and_begin("llm");
    claim_and_begin("default");
    char died[sizeof(store->instance)];
    for (int i = 1; i <= 4; i++) {
        next_instance(died);
        const struct lane_begin culprit = {
            .revision = "rev1", .dead = died, .is_culprit = true, .culprit_stage = "a"};
        struct lane lane = take_over("node/w1");
        struct lane_grant grant;
        for (int repeated = 0; repeated < 2 && i <= 3; repeated++) { /* its reply was lost */
            OK(lane_begin(store, &lane, &culprit, &grant, &err));
            assert_int_equal(grant.verdict, LANE_OK);
            assert_int_equal(grant.crashes, i);
            assert_int_equal(grant.takeovers, 0);
            lane_grant_done(&grant);
        }
        if (i == 4)
            assert_int_equal(begin_as(&lane, &culprit, NULL), LANE_POISON);
        check_invariants();
    }
    struct job_view *job = view("job-1");
    assert_string_equal(job->stop, "failed");
    assert_string_equal(job->status, "processing"); /* b finishes */
    job_view_free(job);
    assert_int_equal(commit_to(&b, "b", "", "llm", 3, NULL, NULL), LANE_END);
    job = view("job-1");
    assert_string_equal(job->status, "failed");
    assert_non_null(strstr(job->error, "poison"));
    assert_int_equal(job->next_retry_ms, 0); /* held */
    job_view_free(job);
}
ON_FIBER(crashes)

static void takeovers(void)
{
    submit_plain("job-1");
    claim_and_begin("default");
    for (int i = 1; i <= 21; i++) {
        struct lane lane = take_over("node/w1");
        assert_int_equal(begin(&lane, NULL), i <= 20 ? LANE_OK : LANE_POISON);
    }
    EXPECT_STATUS("job-1", "failed");
}
ON_FIBER(takeovers)

static void expect_counts(const char *id, uint32_t crashes, uint32_t takeovers, int line)
{
    struct job_view *job = view(id);
    if (job->lane_count != 1 || job->lanes[0].crashes != crashes ||
        job->lanes[0].takeovers != takeovers)
        fail_msg("line %d: %s has %u crashes and %u takeovers", line, id, job->lanes[0].crashes,
                 job->lanes[0].takeovers);
    job_view_free(job);
}
#define EXPECT_COUNTS(id, crashes, takeovers) expect_counts(id, crashes, takeovers, __LINE__)

/* A named culprit is charged by the one begin that takes its lane from the instance that died; what
 * else that instance had is charged nothing; what others lost counts as a takeover. */
static void whose_doing(void)
{
    char first[sizeof(store->instance)], second[sizeof(store->instance)];
    submit_plain("culprit");
    submit_plain("bystander");
    submit_plain("other");
    claim_and_begin("default");
    claim_and_begin("default");
    next_instance(first);
    claim_and_begin("default"); /* `other` is the second instance's */
    next_instance(second);
    struct lane lanes[3], lane;
    take_over_all("node/w1", lanes, 3);
    for (int i = 0; i < 3; i++) {
        const struct lane_begin named = {.revision = "rev1",
                                         .dead = first,
                                         .is_culprit = strcmp(lanes[i].job, "culprit") == 0,
                                         .culprit_stage = "a"};
        assert_int_equal(begin_as(&lanes[i], &named, NULL), LANE_OK);
    }
    EXPECT_COUNTS("culprit", 1, 0);
    EXPECT_COUNTS("bystander", 0, 0);
    EXPECT_COUNTS("other", 0, 1);
    /* The page still names it: taken once more, from another instance, it is a takeover. */
    take_over_all("node/w1", lanes, 3);
    lane = lanes[0];
    assert_string_equal(lane.job, "culprit");
    const struct lane_begin named = {
        .revision = "rev1", .dead = first, .is_culprit = true, .culprit_stage = "a"};
    assert_int_equal(begin_as(&lane, &named, NULL), LANE_OK);
    EXPECT_COUNTS("culprit", 1, 1);
    /* Parked and begun again by the same process: nothing more. */
    enum lane_verdict verdict;
    OK(lane_park(store, &lane, 1, &verdict, &err));
    assert_int_equal(verdict, LANE_OK);
    move_until(queue_has_work, "default");
    lane = claim("default");
    assert_int_equal(begin_as(&lane, &named, NULL), LANE_OK);
    EXPECT_COUNTS("culprit", 1, 1);
}
ON_FIBER(whose_doing)

/* The job's other lane was not what ran. */
static void whose_lane(void)
{
    static const struct job_first first[] = {{"a", "default"}, {"b", "llm"}};
    char died[sizeof(store->instance)];
    submit((struct job_submit){.id = "job-1", .first = first, .first_count = 2});
    claim_and_begin("llm");
    claim_and_begin("default");
    next_instance(died);
    struct lane lane = take_over("node/w1");
    const struct lane_begin named = {
        .revision = "rev1", .dead = died, .is_culprit = true, .culprit_stage = "b"};
    struct lane_grant grant;
    OK(lane_begin(store, &lane, &named, &grant, &err));
    assert_int_equal(grant.crashes, 0);
    assert_int_equal(grant.takeovers, 1);
    lane_grant_done(&grant);
}
ON_FIBER(whose_lane)

/* A lane with more takeovers than its worker may run is not granted: nothing is written, or it is
 * put off. A checkpoint clears it. */
static void suspects(void)
{
    uint32_t takeovers;
    struct lane_begin careful = {.revision = "rev1", .takeovers_max = 1};
    submit_plain("job-1");
    claim_and_begin("default");
    struct lane lane = take_over("node/w1");
    assert_int_equal(begin_as(&lane, &careful, NULL), LANE_OK);
    lane = take_over("node/w1");
    mem_auto char *before = ask_field("mr:{0}:job:job-1", "l:1");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(begin_as(&lane, &careful, &takeovers), LANE_SUSPECT);
        assert_int_equal(takeovers, 2);
    }
    mem_auto char *after = ask_field("mr:{0}:job:job-1", "l:1");
    assert_string_equal(before, after);
    check_invariants();
    /* Not now: it waits, in nobody's hand. */
    careful.put_off_ms = 1;
    assert_int_equal(begin_as(&lane, &careful, NULL), LANE_PUT_OFF);
    check_invariants();
    EXPECT_STATUS("job-1", "waiting");
    EXPECT_COUNTS("job-1", 0, 2);
    assert_int_equal(begin_as(&lane, &careful, NULL), LANE_GONE); /* the reply was lost */
    check_invariants();
    move_until(queue_has_work, "default");
    lane = claim("default");
    careful.put_off_ms = 0;
    assert_int_equal(begin_as(&lane, &careful, &takeovers), LANE_SUSPECT); /* not counted again */
    assert_int_equal(takeovers, 2);
    careful.takeovers_max = takeovers;
    assert_int_equal(begin_as(&lane, &careful, NULL), LANE_OK);
    assert_int_equal(begin_as(&lane, &careful, NULL), LANE_OK);
    EXPECT_COUNTS("job-1", 0, 2);
    assert_int_equal(commit(&lane, "a", "b", 2, NULL, NULL), LANE_OK);
    EXPECT_COUNTS("job-1", 0, 0);
    /* Held, cancelled and wound up like any other. */
    lane = take_over("node/w1");
    assert_int_equal(begin(&lane, NULL), LANE_OK);
    lane = take_over("node/w1");
    enum cancel_outcome outcome;
    OK(job_cancel(store, "job-1", NULL, 0, &outcome, &err));
    careful.takeovers_max = 1;
    assert_int_equal(begin_as(&lane, &careful, NULL), LANE_STOP); /* nothing of it will run */
    enum lane_verdict verdict;
    OK(lane_drop(store, &lane, &verdict, &err));
    assert_int_equal(verdict, LANE_END);
}
ON_FIBER(suspects)

/* Claimed and never begun: no crash is counted. */
static void claimed_only(void)
{
    submit_plain("job-1");
    claim("default");
    struct lane lane = take_over("node/w2");
    struct lane_grant grant;
    assert_int_equal(begin(&lane, &grant), LANE_OK);
    assert_int_equal(grant.takeovers + grant.crashes, 0);
    lane_grant_done(&grant);
}
ON_FIBER(claimed_only)

static void own_entries(void)
{
    submit_plain("job-1");
    submit_plain("job-2");
    struct lane lane = claim_and_begin("default");
    claim("default");
    struct lane_stream stream = {0, "default", QUEUE_NORMAL};
    struct lane lanes[8];
    char cursor[STORE_ENTRY_BYTES] = "0";
    size_t count;
    OK(lane_claim_own(store, redis, &stream, cursor, 1, lanes, &count, &err));
    assert_int_equal(count, 1);
    assert_string_equal(lanes[0].entry, lane.entry);
    OK(lane_claim_own(store, redis, &stream, cursor, 8, lanes, &count, &err));
    assert_int_equal(count, 1);
    assert_int_equal(begin(&lanes[0], NULL), LANE_OK);
    OK(lane_claim_own(store, redis, &stream, cursor, 8, lanes, &count, &err));
    assert_int_equal(count, 0);
    /* Several streams with one command, in their order. */
    submit((struct job_submit){.id = "job-3", .prio = QUEUE_LOW});
    submit((struct job_submit){.id = "job-4", .prio = QUEUE_HIGH});
    struct lane_stream both[] = {{0, "default", QUEUE_HIGH}, {0, "default", QUEUE_LOW}};
    OK(lane_claim(store, redis, both, 2, 4, 10, lanes, &count, &err));
    assert_int_equal(count, 2);
    assert_string_equal(lanes[0].job, "job-4");
    assert_int_equal(lanes[0].class, QUEUE_HIGH);
    assert_string_equal(lanes[1].job, "job-3");
    OK(lane_claim(store, redis, both, 2, 4, 10, lanes, &count, &err));
    assert_int_equal(count, 0);
}
ON_FIBER(own_entries)

static void unknown_revision(void)
{
    OK(revision_put(store, "p", "rev1", "1", 1, &err));
    OK(revision_put(store, "p", "rev2", "2", 1, &err));
    static const struct job_first first[] = {{"a", "default"}, {"b", "llm"}};
    submit((struct job_submit){.id = "job-1", .first = first, .first_count = 2});
    struct lane a = claim_and_begin("default"), b = claim("llm");
    struct lane_begin newer = {.revision = "rev2", .known = "rev0"};
    struct lane_grant grant;
    OK(lane_begin(store, &b, &newer, &grant, &err));
    assert_int_equal(grant.verdict, LANE_REV);
    assert_string_equal(grant.revision, "rev1");
    assert_int_equal(grant.revision_number, 1);
    assert_int_equal(grant.own_number, 2);
    assert_false(grant.is_alone);
    lane_grant_done(&grant);
    check_invariants();
    /* rev2 begins with a and b as well; c, which is new, waits for b. */
    const char *of_b[] = {"b"};
    struct lane_successor stages[] = {
        {"a", "default", NULL, 0}, {"b", "llm", NULL, 0}, {"c", "llm", of_b, 1}};
    newer.adopt = stages;
    newer.adopt_count = 3; /* not while a runs */
    OK(lane_begin(store, &b, &newer, &grant, &err));
    assert_int_equal(grant.verdict, LANE_REV);
    lane_grant_done(&grant);
    EXPECT_EVENTS("job-1", "job.queued;stage.started a;");
    assert_int_equal(commit(&a, "a", "", 2, NULL, NULL), LANE_END);
    /* Nor when the job stands where rev2 could not have brought it. */
    const char *of_a[] = {"a"}, *of_c[] = {"c"};
    const struct lane_successor odd[][3] = {
        {stages[0], {"b", "default", NULL, 0}, stages[2]},          /* another queue */
        {stages[0], {"z", "llm", NULL, 0}, stages[2]},              /* b is no stage of it */
        {stages[0], stages[1], {"c", "llm", of_a, 1}},              /* c would be open by now */
        {stages[0], stages[1], {"c", "llm", NULL, 0}},              /* the same */
        {stages[0], {"b", "llm", of_c, 1}, {"c", "llm", of_b, 1}}}; /* b would not be open yet */
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        newer.adopt = odd[i];
        assert_int_equal(begin_as(&b, &newer, NULL), LANE_REV);
    }
    newer.adopt = stages;
    OK(lane_begin(store, &b, &newer, &grant, &err));
    assert_int_equal(grant.verdict, LANE_OK);
    assert_string_equal(grant.revision, "rev2");
    lane_grant_done(&grant);
    EXPECT_EVENTS("job-1", "job.queued;stage.started a;stage.completed a;stage.started b;");
    newer.adopt_count = 0;
    newer.revision = "rev3";
    newer.known = "rev1,rev2";
    OK(lane_begin(store, &b, &newer, &grant, &err));
    assert_int_equal(grant.verdict, LANE_OK);
    lane_grant_done(&grant);
    assert_int_equal(fail_as(&b, "b", MR_CLASS_PERMANENT, "pipeline_changed", 1, 0), LANE_END);
}
ON_FIBER(unknown_revision)

static void paused(void)
{
    bool is_paused;
    submit_plain("job-1");
    submit_plain("job-2");
    struct lane running = claim_and_begin("default");
    OK(pipeline_pause(store, "p", &err));
    OK(pipeline_is_paused(store, "p", &is_paused, &err));
    assert_true(is_paused);
    struct lane held = claim("default");
    assert_int_equal(begin(&held, NULL), LANE_HELD);
    check_invariants();
    EXPECT_STATUS("job-2", "waiting");
    assert_int_equal(begin(&running, NULL), LANE_OK); /* goes on */
    submit_plain("job-3");
    held = claim("default");
    assert_int_equal(begin(&held, NULL), LANE_HELD);
    enum cancel_outcome outcome; /* a held one can be cancelled */
    OK(job_cancel(store, "job-3", NULL, 0, &outcome, &err));
    assert_int_equal(outcome, CANCEL_DONE);
    check_invariants();
    OK(pipeline_resume(store, "p", &err));
    OK(pipeline_is_paused(store, "p", &is_paused, &err));
    assert_false(is_paused);
    move_until(queue_has_work, "default");
    assert_int_equal(ask_int("EXISTS", "mr:{0}:paused"), 0);
    struct lane lane = claim_and_begin("default");
    assert_string_equal(lane.job, "job-2");
}
ON_FIBER(paused)

static void told(void)
{
    enum lane_verdict verdict;
    submit_plain("job-1");
    struct lane lane = claim_and_begin("default");
    struct lane_told events[] = {
        {"stage.progress", "a", "{\"percent\":30}", 14, false},
        {"stage.delta", "a", "{\"text\":\"x\"}", 12, true},
        {"mine", "a", NULL, 0, false},
    };
    OK(lane_tell(store, &lane, events, 3, 30, &verdict, &err));
    assert_int_equal(verdict, LANE_OK);
    struct job_view *job = view("job-1");
    assert_int_equal(job->progress, 30);
    job_view_free(job);
    OK(lane_tell(store, &lane, NULL, 0, 10, &verdict, &err));
    job = view("job-1");
    assert_int_equal(job->progress, 30); /* never falls */
    job_view_free(job);
    EXPECT_EVENTS("job-1", "job.queued;stage.started a;stage.progress a;mine a;");
    struct error why = {0};
    struct lane_told bad = {"a b", "a", NULL, 0, false};
    assert_int_equal(lane_tell(store, &lane, &bad, 1, 0, &verdict, &why), MR_E_SCHEMA);
    bad = (struct lane_told){"k", "a", "[]", 2, false};
    assert_int_equal(lane_tell(store, &lane, &bad, 1, 0, &verdict, &why), MR_E_SCHEMA);
    /* Beyond a thousand they go out without a number. */
    struct lane_told many[100];
    for (int i = 0; i < 100; i++)
        many[i] = events[2];
    for (int i = 0; i < 11; i++)
        OK(lane_tell(store, &lane, many, 100, UINT32_MAX, &verdict, &err));
    job = view("job-1");
    assert_int_equal(job->events, 2 + 1000);
    job_view_free(job);
}
ON_FIBER(told)

static void steps(void)
{
    enum lane_verdict verdict;
    submit_plain("job-1");
    struct lane lane = claim_and_begin("default");
    for (int i = 0; i < 2; i++)
        OK(lane_step(store, &lane, "a", "one", "1", 1, NULL, &verdict, &err));
    OK(lane_step(store, &lane, "a", "two", "2", 1, NULL, &verdict, &err));
    assert_int_equal(ask_int("HLEN", "mr:{0}:out:job-1"), 2);
    fail_as(&lane, "a", MR_CLASS_RETRY, "timeout", 5, 1);
    move_until(queue_has_work, "default");
    lane = claim("default");
    struct lane_grant grant;
    assert_int_equal(begin(&lane, &grant), LANE_OK);
    assert_int_equal(grant.output_count, 2); /* a retry reads its steps */
    lane_grant_done(&grant);
    assert_int_equal(commit(&lane, "a", "", 1, "1", NULL), LANE_END);
    assert_int_equal(ask_int("HLEN", "mr:{0}:out:job-1"), 1);
    struct error why = {0};
    assert_int_equal(lane_step(store, &lane, "a", "x,y", "1", 1, NULL, &verdict, &why),
                     MR_E_SCHEMA);
}
ON_FIBER(steps)

/* The follow-up of an ended job: a lane of its own that never changes the status. */
static void follow_up(void)
{
    char open[256];
    submit((struct job_submit){.id = "job-1", .after = "completed,failed"});
    struct lane lane = claim_and_begin("default");
    assert_int_equal(commit(&lane, "a", "", 1, "7", open), LANE_END);
    EXPECT_STATUS("job-1", "completed");
    check_invariants();
    struct lane after = claim("default");
    struct lane_grant grant;
    assert_int_equal(begin(&after, &grant), LANE_OK);
    assert_string_equal(grant.open[0].name, "$after");
    assert_string_equal(grant.status, "completed");
    assert_string_equal(grant.after, "completed,failed");
    lane_grant_done(&grant);
    EXPECT_STATUS("job-1", "completed");
    check_invariants();
    assert_int_equal(fail_as(&after, "$after", MR_CLASS_RETRY, "connect", 2, 1), LANE_END);
    check_invariants();
    move_until(queue_has_work, "default");
    after = claim_and_begin("default");
    assert_int_equal(commit(&after, "$after", "", 1, NULL, open), LANE_END);
    EXPECT_STATUS("job-1", "completed");
    struct job_view *job = view("job-1");
    assert_int_equal(job->lane_count, 0);
    job_view_free(job);
    EXPECT_EVENTS("job-1", "job.queued;stage.started a;stage.completed a;job.completed;");
    check_invariants();
    /* Nobody asked for cancelled ones. */
    submit((struct job_submit){.id = "job-2", .after = "failed"});
    enum cancel_outcome outcome;
    OK(job_cancel(store, "job-2", NULL, 0, &outcome, &err));
    assert_false(is_claimable("default"));
    /* One that fails for good; and a failed job that is run again drops it. */
    submit((struct job_submit){.id = "job-3", .after = "failed"});
    lane = claim("default");
    while (strcmp(lane.job, "job-3") != 0) {
        assert_int_equal(begin(&lane, NULL), LANE_GONE);
        lane = claim("default");
    }
    assert_int_equal(begin(&lane, NULL), LANE_OK);
    fail_as(&lane, "a", MR_CLASS_PERMANENT, "schema", 1, 0);
    after = claim_and_begin("default");
    struct job_again again = {.id = "job-3", .req = "h", .is_fresh = true};
    enum again_outcome ran;
    OK(job_run_again(store, &again, &ran, &err));
    assert_int_equal(ran, AGAIN_OK);
    check_invariants();
    assert_int_equal(commit(&after, "$after", "", 1, NULL, open), LANE_LOST);
    lane = claim_and_begin("default");
    fail_as(&lane, "a", MR_CLASS_PERMANENT, "schema", 1, 0);
    after = claim_and_begin("default");
    assert_int_equal(fail_as(&after, "$after", MR_CLASS_PERMANENT, "connect", 2, 1), LANE_END);
    EXPECT_STATUS("job-3", "failed");
}
ON_FIBER(follow_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(chain),
        CASE(begin_checks),
        CASE(fences),
        CASE(commit_repeated),
        CASE(join_in_lane),
        CASE(join_in_new_lane),
        CASE(end_stage),
        CASE(skipped_and_usage),
        CASE(retries),
        CASE(throttled),
        CASE(failing_branch),
        CASE(failing_in_lane),
        CASE(from_a_stage),
        CASE(park),
        CASE(handback),
        CASE(crashes),
        CASE(takeovers),
        CASE(whose_doing),
        CASE(whose_lane),
        CASE(suspects),
        CASE(claimed_only),
        CASE(own_entries),
        CASE(unknown_revision),
        CASE(paused),
        CASE(told),
        CASE(steps),
        CASE(follow_up),
    };
    int failed = cmocka_run_group_tests_name("lane", tests, fixture_server, fixture_server_end);
    return failed + cmocka_run_group_tests_name("lane, in a cluster", tests, fixture_cluster,
                                                fixture_server_end);
}
