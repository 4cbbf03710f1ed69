/* submit, read, again by submit: every reply, and what it leaves. */
#include "fixture.h"

static void new_job(void)
{
    static const struct job_first first[3] = {{"a", "default"}, {"b", "llm"}, {"c", "default"}};
    struct job_submit job = {.id = "job-1",
                             .pipeline = "pipe",
                             .input = "{\"x\":1}",
                             .input_len = 7,
                             .metadata = "{\"m\":\"1\"}",
                             .owner = "me",
                             .prio = QUEUE_HIGH,
                             .ttl_ms = 60000,
                             .first = first,
                             .first_count = 3};
    struct job_submitted submitted = submit(job);
    assert_int_equal(submitted.outcome, JOB_NEW);
    assert_string_equal(submitted.status, "queued");
    assert_int_equal(submitted.round, 1);
    struct job_view *read = view("job-1");
    assert_string_equal(read->pipeline, "pipe");
    assert_string_equal(read->revision, "");
    assert_string_equal(read->status, "queued");
    assert_string_equal(read->prio, "high");
    assert_string_equal(read->input, "{\"x\":1}");
    assert_string_equal(read->metadata, "{\"m\":\"1\"}");
    assert_string_equal(read->owner, "me");
    assert_null(read->result);
    assert_null(read->error);
    assert_int_equal(read->lane_count, 2);
    assert_int_equal(read->stage_count, 3);
    assert_int_equal(read->deadline_ms, read->created_ms + 60000);
    assert_int_equal(read->events, 1);
    assert_int_equal(read->progress, 0);
    assert_false(read->is_ended);
    job_view_free(read);
    EXPECT_EVENTS("job-1", "job.queued;");
    /* One entry for both stages of a queue. */
    struct lane lane = claim("default");
    assert_int_equal(lane.class, QUEUE_HIGH);
    assert_string_equal(lane.pipeline, "pipe");
    struct lane_grant grant;
    assert_int_equal(begin(&lane, &grant), LANE_OK);
    assert_int_equal(grant.open_count, 2);
    assert_string_equal(grant.input, "{\"x\":1}");
    assert_in_range(grant.left_ms, 50000, 60000);
    lane_grant_done(&grant);
}
ON_FIBER(new_job)

static void same_and_conflict(void)
{
    submit_plain("job-1");
    struct job_submitted again = submit((struct job_submit){.id = "job-1"});
    assert_int_equal(again.outcome, JOB_SAME);
    assert_string_equal(again.status, "queued");
    assert_int_equal(submit((struct job_submit){.id = "job-1", .digest = "other"}).outcome,
                     JOB_CONFLICT);
    assert_int_equal(submit((struct job_submit){.id = "job-1", .pipeline = "other"}).outcome,
                     JOB_CONFLICT);
    /* Children take what is there, unless it is another pipeline's. */
    for (enum job_mode mode = JOB_DISPATCH; mode <= JOB_CALL; mode++) {
        struct job_submit child = {
            .id = "job-1", .digest = "other", .mode = mode, .req = "p/s/t:1"};
        assert_int_equal(submit(child).outcome, JOB_SAME);
        child.pipeline = "other";
        assert_int_equal(submit(child).outcome, JOB_CONFLICT);
    }
    EXPECT_EVENTS("job-1", "job.queued;");
}
ON_FIBER(same_and_conflict)

static void delayed(void)
{
    struct job_submitted submitted = submit((struct job_submit){.id = "job-1", .delay_ms = 80});
    assert_string_equal(submitted.status, "waiting");
    assert_false(is_claimable("default"));
    check_invariants();
    move_until(queue_has_work, "default");
    EXPECT_STATUS("job-1", "queued");
    claim_and_begin("default");
}
ON_FIBER(delayed)

/* An instant: by the server's clock, whatever this host's says. */
static void run_at(void)
{
    struct reply now;
    assert_int_equal(redis_command(redis, &now, NULL, "TIME", NULL), MR_OK);
    uint64_t now_ms = strtoull(now.items[0].text, NULL, 10) * 1000;
    reply_done(&now);
    struct job_submitted past =
        submit((struct job_submit){.id = "job-1", .run_at_ms = now_ms - 3600000});
    assert_string_equal(past.status, "queued");
    claim_and_begin("default");
    struct job_submitted future =
        submit((struct job_submit){.id = "job-2", .run_at_ms = now_ms + 3600000});
    assert_string_equal(future.status, "waiting");
    assert_false(is_claimable("default"));
    struct job_view *waits = view("job-2");
    assert_int_equal(waits->lanes[0].due_ms, now_ms + 3600000);
    job_view_free(waits);
    check_invariants();
}
ON_FIBER(run_at)

static void full(void)
{
    submit((struct job_submit){.id = "job-1", .prio = QUEUE_HIGH});
    submit((struct job_submit){.id = "job-2", .prio = QUEUE_LOW});
    struct job_submit third = {.id = "job-3", .queue_max = 2};
    assert_int_equal(submit(third).outcome, JOB_FULL);
    assert_null(view("job-3"));
    third.mode = JOB_CALL;
    third.prio = QUEUE_CALL;
    third.req = "p/s/t:1";
    assert_int_equal(submit(third).outcome, JOB_NEW);
    struct lane lane = claim_and_begin("default");
    assert_string_equal(lane.job, "job-3");
    lane = claim_and_begin("default");
    assert_int_equal(commit(&lane, "a", "", 1, "1", NULL), LANE_END);
    struct job_submit fourth = {.id = "job-4", .queue_max = 2};
    assert_int_equal(submit(fourth).outcome, JOB_NEW);
}
ON_FIBER(full)

/* Ends job-1 as failed. */
static void fail_job(const char *id)
{
    struct lane lane = claim_and_begin("default");
    assert_string_equal(lane.job, id);
    assert_int_equal(fail_as(&lane, "a", MR_CLASS_PERMANENT, "schema", 3, 0), LANE_END);
    EXPECT_STATUS(id, "failed");
}

static void resubmitted(void)
{
    assert_int_equal(submit((struct job_submit){.id = "job-1", .req = "one"}).outcome, JOB_NEW);
    fail_job("job-1");
    /* The request that began it, come late. */
    assert_int_equal(submit((struct job_submit){.id = "job-1", .req = "one"}).outcome, JOB_SAME);
    assert_int_equal(submit((struct job_submit){.id = "job-1", .mode = JOB_DISPATCH}).outcome,
                     JOB_SAME);
    struct job_submitted again = submit((struct job_submit){.id = "job-1", .req = "two"});
    assert_int_equal(again.outcome, JOB_AGAIN);
    assert_int_equal(again.round, 2);
    assert_int_equal(submit((struct job_submit){.id = "job-1", .req = "two"}).outcome, JOB_SAME);
    EXPECT_STATUS("job-1", "queued");
    check_invariants();
    struct reply dead = ask("ZSCORE", "mr:{0}:dead", "job-1", NULL);
    assert_int_equal(dead.type, REPLY_NIL);
    reply_done(&dead);
    struct lane lane = claim_and_begin("default");
    assert_int_equal(commit(&lane, "a", "", 1, "{\"r\":1}", NULL), LANE_END);
    EXPECT_STATUS("job-1", "completed");
    assert_int_equal(submit((struct job_submit){.id = "job-1"}).outcome, JOB_SAME);
    EXPECT_EVENTS("job-1", "job.queued;stage.started a;stage.failed a;job.failed;job.queued;"
                           "stage.started a;stage.completed a;job.completed;");
}
ON_FIBER(resubmitted)

static enum job_outcome call_child(const char *req)
{
    return submit((struct job_submit){.id = "child", .mode = JOB_CALL, .req = req}).outcome;
}

static void called_again(void)
{
    assert_int_equal(call_child("p/s/t:1"), JOB_NEW);
    assert_int_equal(call_child("p/s/t:1"), JOB_SAME);
    fail_job("child");
    assert_int_equal(call_child("p/s/t:1"), JOB_SAME); /* same run of the parent */
    assert_int_equal(call_child("p/s/t:2"), JOB_AGAIN);
    assert_int_equal(call_child("p/s/t:2"), JOB_SAME);
    assert_int_equal(call_child("p/s/t:1"), JOB_SAME); /* a paused former worker */
    fail_job("child");
    assert_int_equal(call_child("p/s/t:1"), JOB_SAME);
    assert_int_equal(call_child("q/s/t:1"), JOB_AGAIN); /* another parent */
    enum cancel_outcome outcome;
    OK(job_cancel(store, "child", NULL, 0, &outcome, &err));
    assert_int_equal(outcome, CANCEL_DONE);
    assert_int_equal(submit((struct job_submit){.id = "child"}).outcome, JOB_SAME);
    assert_int_equal(call_child("q/s/t:2"), JOB_AGAIN); /* cancelled ones run again for a call */
}
ON_FIBER(called_again)

static void tombstone(void)
{
    enum cancel_outcome outcome;
    OK(job_cancel(store, "child", NULL, 0, &outcome, &err));
    assert_int_equal(outcome, CANCEL_NONE);
    assert_int_equal(ask_int("EXISTS", "mr:{0}:job:child"), 0);
    OK(job_cancel(store, "child", "p/s/t:1", 30000, &outcome, &err));
    assert_int_equal(outcome, CANCEL_NONE);
    assert_in_range(ask_int("PTTL", "mr:{0}:job:child"), 20000, 30000);
    assert_null(view("child"));
    struct job_submitted late =
        submit((struct job_submit){.id = "child", .mode = JOB_CALL, .req = "p/s/t:1"});
    assert_int_equal(late.outcome, JOB_SAME);
    assert_string_equal(late.status, "cancelled");
    assert_null(view("child"));
    assert_int_equal(call_child("p/s/t:2"), JOB_NEW);
    assert_int_equal(ask_int("PTTL", "mr:{0}:job:child"), -1);
}
ON_FIBER(tombstone)

static void lists(void)
{
    struct job_listed *items;
    size_t count;
    char id[16];
    for (int i = 0; i < 7; i++) {
        snprintf(id, sizeof(id), "job-%d", i);
        submit_plain(id);
    }
    unsigned seen = 0;
    uint64_t before = 0;
    char before_id[ID_BYTES] = "";
    for (int page = 0; page < 10; page++) {
        OK(job_list(store, false, before, before_id, 2, &items, &count, &err));
        for (size_t i = 0; i < count; i++) {
            unsigned bit = 1u << atoi(items[i].id + 4);
            assert_int_equal(seen & bit, 0);
            seen |= bit;
        }
        if (count > 0) {
            before = items[count - 1].at_ms;
            snprintf(before_id, sizeof(before_id), "%s", items[count - 1].id);
        }
        free(items);
        if (count == 0)
            break;
    }
    assert_int_equal(seen, 127);
    for (int i = 0; i < 2; i++) {
        struct lane lane = claim_and_begin("default");
        fail_as(&lane, "a", MR_CLASS_PERMANENT, "schema", 1, 0);
    }
    OK(job_list(store, true, 0, NULL, 10, &items, &count, &err));
    assert_int_equal(count, 2);
    bool done;
    OK(dead_discard(store, items[0].id, &done, &err));
    assert_true(done);
    OK(dead_discard(store, items[0].id, &done, &err));
    assert_false(done);
    EXPECT_STATUS(items[0].id, "failed");
    free(items);
    OK(job_list(store, true, 0, NULL, 10, &items, &count, &err));
    assert_int_equal(count, 1);
    free(items);
}
ON_FIBER(lists)

static void erase(void)
{
    enum erase_outcome outcome;
    submit((struct job_submit){.id = "job-1", .ttl_ms = 60000});
    submit_plain("job-2");
    submit((struct job_submit){.id = "job-3", .delay_ms = 60000});
    OK(job_erase(store, "nothing", &outcome, &err));
    assert_int_equal(outcome, ERASE_NONE);
    struct lane lane = claim_and_begin("default");
    OK(job_erase(store, lane.job, &outcome, &err));
    assert_int_equal(outcome, ERASE_BUSY);
    assert_int_equal(commit(&lane, "a", "", 1, "1", NULL), LANE_END);
    static const char *const ids[] = {"job-1", "job-2", "job-3"};
    for (int i = 0; i < 3; i++) {
        OK(job_erase(store, ids[i], &outcome, &err));
        assert_int_equal(outcome, ERASE_OK);
        assert_null(view(ids[i]));
    }
    assert_int_equal(ask_int("ZCARD", "mr:{0}:due"), 0);
    assert_int_equal(ask_int("ZCARD", "mr:{0}:jobs"), 0);
    assert_int_equal(ask_int("XLEN", "mr:{0}:queue:default:normal"), 0);
}
ON_FIBER(erase)

static void checks(void)
{
    OK(store_check(store, &err));
    OK(store_check(store, &err));
    struct store_config config = fixture_config();
    struct store *other;
    struct error why = {0};
    config.partitions = 4;
    assert_int_equal(store_open(&config, &other, &why), MR_OK);
    assert_int_equal(store_check(other, &why), MR_E_SCHEMA);
    assert_non_null(strstr(why.message, "1/4"));
    store_close(other);
    config.partitions = 1;
    config.prefix = "a b";
    assert_int_equal(store_open(&config, &other, &why), MR_E_SCHEMA);
    struct reply reply = ask("CONFIG", "SET", "maxmemory", "100mb", NULL);
    reply_done(&reply);
    reply = ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru", NULL);
    reply_done(&reply);
    assert_int_equal(store_check(store, &why), MR_E_SCHEMA);
    assert_non_null(strstr(why.hint, "noeviction"));
    reply = ask("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "0", NULL);
    reply_done(&reply);
    OK(store_check(store, &err));
}
ON_FIBER(checks)

static void full_memory(void)
{
    submit_plain("job-1");
    submit_plain("job-2");
    struct reply reply = ask("CONFIG", "SET", "maxmemory", "1", NULL);
    reply_done(&reply);
    struct error why = {0};
    static const struct job_first first = {"a", "default"};
    struct job_submit job = {.id = "job-3",
                             .pipeline = "p",
                             .digest = "d",
                             .input = "{}",
                             .input_len = 2,
                             .req = "r",
                             .prio = QUEUE_NORMAL,
                             .first = &first,
                             .first_count = 1};
    struct job_submitted submitted;
    assert_int_equal(job_submit(store, &job, &submitted, &why), MR_E_STORE);
    reply = ask("CONFIG", "SET", "maxmemory", "0", NULL);
    reply_done(&reply);
    struct lane lane = claim("default"); /* XREADGROUP is no script: the worker retries it */
    reply = ask("CONFIG", "SET", "maxmemory", "1", NULL);
    reply_done(&reply);
    assert_int_equal(begin(&lane, NULL), LANE_OK);
    assert_int_equal(commit(&lane, "a", "b", 2, NULL, NULL), LANE_OK);
    assert_int_equal(commit(&lane, "b", "", 2, "1", NULL), LANE_END);
    reply = ask("CONFIG", "SET", "maxmemory", "0", NULL);
    reply_done(&reply);
}
ON_FIBER(full_memory)

static void revisions(void)
{
    char *text;
    size_t len;
    OK(revision_get(store, "rev1", &text, &len, &err));
    assert_null(text);
    OK(revision_put(store, "p", "rev1", "{\"a\":1}", 7, &err));
    OK(revision_put(store, "p", "rev1", "{\"a\":1}", 7, &err));
    OK(revision_put(store, "p", "rev2", "{}", 2, &err));
    OK(revision_get(store, "rev1", &text, &len, &err));
    assert_string_equal(text, "{\"a\":1}");
    free(text);
    mem_auto char *number = ask_field("mr:{0}:revs", "p:rev2");
    assert_string_equal(number, "2");
}
ON_FIBER(revisions)

static void figures(void)
{
    struct queue_stats stats;
    OK(queue_get_stats(store, "default", &stats, &err));
    assert_int_equal(stats.waiting[QUEUE_NORMAL], 0);
    for (int i = 0; i < 3; i++)
        submit_plain((const char *[]){"job-1", "job-2", "job-3"}[i]);
    claim_and_begin("default");
    OK(queue_get_stats(store, "default", &stats, &err));
    assert_int_equal(stats.waiting[QUEUE_NORMAL], 2);
    assert_int_equal(stats.running[QUEUE_NORMAL], 1);
}
ON_FIBER(figures)

/* Jobs spread over partitions, each with streams and lists of its own. */
static void partitions(void)
{
    struct store *plain = store;
    struct store_config config = fixture_config();
    config.prefix = "other";
    config.partitions = 3;
    OK(store_open(&config, &store, &err));
    store->worker = mem_dup("node/w1");
    OK(store_check(store, &err));
    char id[16];
    unsigned used = 0, ended = 0;
    for (int i = 0; i < 12; i++) {
        snprintf(id, sizeof(id), "job-%d", i);
        submit_plain(id);
        used |= 1u << store_partition(store, id);
    }
    assert_int_equal(used, 7);
    for (uint32_t partition = 0; partition < 3; partition++) {
        struct lane_stream stream = {partition, "default", QUEUE_NORMAL};
        struct lane lanes[12];
        size_t count;
        OK(lane_claim(store, redis, &stream, 1, 12, 0, lanes, &count, &err));
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(store_partition(store, lanes[i].job), partition);
            assert_int_equal(begin(&lanes[i], NULL), LANE_OK);
            assert_int_equal(commit(&lanes[i], "a", "", 1, "1", NULL), LANE_END);
            ended++;
        }
    }
    assert_int_equal(ended, 12);
    struct job_listed *items;
    size_t count;
    OK(job_list(store, false, 0, NULL, 100, &items, &count, &err));
    assert_int_equal(count, 12);
    for (size_t i = 1; i < count; i++)
        assert_true(items[i - 1].at_ms >= items[i].at_ms);
    free(items);
    struct queue_stats stats;
    OK(queue_get_stats(store, "default", &stats, &err));
    assert_int_equal(stats.waiting[QUEUE_NORMAL] + stats.running[QUEUE_NORMAL], 0);
    store_close(store);
    store = plain;
}
ON_FIBER(partitions)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(new_job),      CASE(same_and_conflict),
        CASE(delayed),      CASE(run_at),
        CASE(full),         CASE(resubmitted),
        CASE(called_again), CASE(tombstone),
        CASE(lists),        CASE(erase),
        CASE(checks),       CASE(full_memory),
        CASE(revisions),    CASE(figures),
        CASE(partitions),
    };
    return cmocka_run_group_tests_name("submit", tests, fixture_server, fixture_server_end);
}
