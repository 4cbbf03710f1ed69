/* Dead letters: list by filter, in pages, over partitions; run again and discard many. Jobs read in
 * short, and what is paused, are here too. */
#include "fixture.h"

#include "state/dead.h"
#include "state/pause.h"

static void fail_job(const char *id, const char *pipeline, const char *stage, enum mr_class class,
                     const char *code)
{
    struct job_first first = {stage, "default"};
    submit((struct job_submit){.id = id, .pipeline = pipeline, .first = &first, .first_count = 1});
    struct lane lane = claim_and_begin("default");
    assert_string_equal(lane.job, id);
    assert_int_equal(fail_as(&lane, stage, class, code, 1, 0), LANE_END);
}

/* Ids of a page, joined by a space. */
static void expect_page(const struct dead_filter *filter, const char *after, uint32_t max,
                        const char *want, bool has_more, int line)
{
    struct dead_page page;
    char got[512] = "";
    OK(dead_list(store, filter, after, max, 10000, &page, &err));
    for (size_t i = 0; i < page.count; i++)
        snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s%s", i ? " " : "",
                 page.letters[i].id);
    if (strcmp(got, want) != 0 || page.has_more != has_more)
        fail_msg("line %d: got \"%s\" more %d, not \"%s\"", line, got, page.has_more, want);
    if (has_more)
        assert_string_equal(page.last_id, page.letters[page.count - 1].id);
    dead_page_done(&page);
}
#define EXPECT_PAGE(filter, after, max, want, has_more)                                            \
    expect_page(&(struct dead_filter)filter, after, max, want, has_more, __LINE__)
#define FILTER(...)                                                                                \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

/* Five failures, a millisecond or more apart. */
static void five(void)
{
    static const struct {
        const char *id, *pipeline, *stage, *code;
        enum mr_class class;
    } rows[] = {{"job-1", "p", "a", "timeout", MR_CLASS_RETRY},
                {"job-2", "p", "a", "schema", MR_CLASS_PERMANENT},
                {"job-3", "p", "b", "timeout", MR_CLASS_PERMANENT},
                {"job-4", "q", "a", "timeout", MR_CLASS_PERMANENT},
                {"job-5", "q", "b", "schema", MR_CLASS_PERMANENT}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        fail_job(rows[i].id, rows[i].pipeline, rows[i].stage, rows[i].class, rows[i].code);
        assert_int_equal(wait_sleep(&loop, 2), MR_OK);
    }
}

static void filters(void)
{
    five();
    EXPECT_PAGE(FILTER(0), NULL, 10, "job-5 job-4 job-3 job-2 job-1", false);
    EXPECT_PAGE(FILTER(.pipeline = "p"), NULL, 10, "job-3 job-2 job-1", false);
    EXPECT_PAGE(FILTER(.stage = "b"), NULL, 10, "job-5 job-3", false);
    EXPECT_PAGE(FILTER(.code = "timeout"), NULL, 10, "job-4 job-3 job-1", false);
    EXPECT_PAGE(FILTER(.pipeline = "p", .stage = "a", .code = "schema"), NULL, 10, "job-2", false);
    EXPECT_PAGE(FILTER(.pipeline = "r"), NULL, 10, "", false);
    EXPECT_PAGE(FILTER(0), NULL, 2, "job-5 job-4", true);
    EXPECT_PAGE(FILTER(0), "job-4", 2, "job-3 job-2", true);
    EXPECT_PAGE(FILTER(0), "job-2", 2, "job-1", false);
    EXPECT_PAGE(FILTER(0), NULL, 5, "job-5 job-4 job-3 job-2 job-1", false);
    EXPECT_PAGE(FILTER(.code = "timeout"), NULL, 2, "job-4 job-3", true);
    EXPECT_PAGE(FILTER(.code = "timeout"), "job-3", 2, "job-1", false);
    struct dead_page page;
    OK(dead_list(store, &(struct dead_filter){0}, NULL, 5, 10000, &page, &err));
    EXPECT_PAGE(FILTER(.before_ms = page.letters[2].at_ms), NULL, 10, "job-2 job-1", false);
    /* The earlier of two places counts. */
    EXPECT_PAGE(FILTER(.before_ms = page.letters[2].at_ms), "job-5", 10, "job-2 job-1", false);
    EXPECT_PAGE(FILTER(.before_ms = page.letters[2].at_ms), "job-2", 10, "job-1", false);
    dead_page_done(&page);
    struct error err;
    assert_int_equal(dead_list(store, &(struct dead_filter){0}, "job-9", 5, 1000, &page, &err),
                     MR_E_LOST);
}
ON_FIBER(filters)

static void what_a_letter_tells(void)
{
    struct dead_page page;
    fail_job("job-1", "p", "a", MR_CLASS_RETRY, "timeout");
    OK(dead_list(store, &(struct dead_filter){0}, NULL, 5, 10000, &page, &err));
    assert_int_equal(page.count, 1);
    const struct dead_letter *letter = &page.letters[0];
    struct job_view *job = view("job-1");
    assert_int_equal(letter->at_ms, job->finished_ms);
    assert_int_equal(letter->next_retry_ms, job->next_retry_ms);
    assert_true(letter->next_retry_ms > letter->at_ms);
    assert_int_equal(letter->attempts, 1);
    assert_string_equal(letter->pipeline, "p");
    assert_string_equal(letter->stage, "a");
    assert_string_equal(letter->class, "retry");
    assert_string_equal(letter->code, "timeout");
    assert_string_equal(letter->message, "it \"failed\"\n");
    assert_string_equal(letter->fingerprint, "p/a/timeout");
    job_view_free(job);
    dead_page_done(&page);
    /* Out of time: no stage failed. */
    enum again_outcome ran;
    struct job_again again = {.id = "job-1", .req = "x", .ttl_ms = 50, .is_fresh = true};
    OK(job_run_again(store, &again, &ran, &err));
    for (uint64_t stop = clock_now_ms() + 5000; clock_now_ms() < stop;) {
        uint64_t sleep_ms, count;
        uint32_t woken;
        OK(mover_turn(store, 0, &sleep_ms, &woken, &err));
        OK(dead_count(store, &count, &err));
        if (count == 1)
            break;
        assert_int_equal(wait_sleep(&loop, 10), MR_OK);
    }
    OK(dead_list(store, &(struct dead_filter){.code = "deadline"}, NULL, 5, 10000, &page, &err));
    assert_int_equal(page.count, 1);
    assert_string_equal(page.letters[0].stage, "");
    assert_string_equal(page.letters[0].class, "permanent");
    assert_string_equal(page.letters[0].fingerprint, "p//deadline");
    assert_int_equal(page.letters[0].attempts, 0);
    assert_int_equal(page.letters[0].next_retry_ms, 0);
    dead_page_done(&page);
}
ON_FIBER(what_a_letter_tells)

/* Members that stand for nothing any more: the hash is gone, the job runs again. */
static void passed_over(void)
{
    struct dead_sweep swept;
    five();
    ask_int("DEL", "mr:{0}:job:job-5");
    ask_int("DEL", "mr:{0}:job:job-3");
    enum again_outcome ran;
    struct job_again again = {.id = "job-4", .req = "x", .is_fresh = true};
    OK(job_run_again(store, &again, &ran, &err));
    struct reply reply = ask("ZADD", "mr:{0}:dead", "9999999999999", "job-4", NULL);
    reply_done(&reply);
    EXPECT_PAGE(FILTER(0), NULL, 1, "job-2", true);
    EXPECT_PAGE(FILTER(0), NULL, 2, "job-2 job-1", false);
    OK(dead_sweep(store, &(struct dead_filter){0}, DEAD_RETRY, "r", 0, 10000, &swept, &err));
    assert_int_equal(swept.matched, 2);
    assert_int_equal(swept.done, 2);
    EXPECT_STATUS("job-1", "queued");
    EXPECT_STATUS("job-2", "queued");
    reply = ask("ZREM", "mr:{0}:dead", "job-3", "job-4", "job-5", NULL);
    reply_done(&reply);
    reply = ask("DEL", "mr:{0}:log:job-3", "mr:{0}:log:job-5", "mr:{0}:out:job-3", NULL);
    reply_done(&reply);
}
ON_FIBER(passed_over)

/* The epoch is a limit that no letter meets, not the absence of one. */
static void before_the_epoch(void)
{
    struct dead_filter filter = {0};
    struct dead_sweep swept;
    five();
    assert_true(dead_filter_before(&filter, NULL));
    assert_int_equal(filter.before_ms, 0);
    assert_true(dead_filter_before(&filter, "1970-01-01T00:00:00Z"));
    EXPECT_PAGE(FILTER(.before_ms = filter.before_ms), NULL, 10, "", false);
    OK(dead_sweep(store, &filter, DEAD_DISCARD, NULL, 0, 10000, &swept, &err));
    assert_int_equal(swept.matched, 0);
    EXPECT_PAGE(FILTER(0), NULL, 10, "job-5 job-4 job-3 job-2 job-1", false);
    assert_false(dead_filter_before(&filter, "1969-12-31T23:59:59Z"));
    assert_false(dead_filter_before(&filter, "soon"));
}
ON_FIBER(before_the_epoch)

/* A key of another type in the place of a job hides that job alone. */
static void of_another_type(void)
{
    struct job_listed items[2] = {{.id = "job-5"}, {.id = "job-4"}};
    struct job_view *views[2];
    five();
    struct reply reply = ask("SET", "mr:{0}:job:job-5", "x", NULL);
    reply_done(&reply);
    EXPECT_PAGE(FILTER(0), NULL, 10, "job-4 job-3 job-2 job-1", false);
    OK(job_read_briefs(store, items, 2, views, &err));
    assert_null(views[0]);
    assert_string_equal(views[1]->status, "failed");
    job_view_free(views[1]);
    ask_int("DEL", "mr:{0}:job:job-5");
    reply = ask("ZREM", "mr:{0}:dead", "job-5", NULL);
    reply_done(&reply);
    reply = ask("DEL", "mr:{0}:log:job-5", "mr:{0}:out:job-5", NULL);
    reply_done(&reply);
}
ON_FIBER(of_another_type)

/* Letters that cannot run again (their outputs have expired) are passed in parts, too: the next
 * call does not meet them for ever. */
static void sweeps_past_what_cannot_run(void)
{
    struct dead_sweep swept;
    struct dead_filter rest = {0};
    uint64_t matched = 0, done = 0;
    int calls = 0;
    five();
    for (int i = 5; i >= 3; i--) {
        char key[32];
        snprintf(key, sizeof(key), "mr:{0}:job:job-%d", i);
        struct reply reply = ask("HSET", key, "done", "1", NULL);
        reply_done(&reply);
        snprintf(key, sizeof(key), "mr:{0}:out:job-%d", i);
        ask_int("DEL", key);
    }
    do {
        OK(dead_sweep(store, &rest, DEAD_RETRY, "r", 2, 10000, &swept, &err));
        rest.before_ms = swept.before_ms;
        matched += swept.matched;
        done += swept.done;
    } while (swept.has_more && ++calls < 10);
    assert_false(swept.has_more);
    assert_int_equal(done, 2);
    assert_true(matched >= 5);
    EXPECT_STATUS("job-1", "queued");
    EXPECT_STATUS("job-2", "queued");
    for (int i = 3; i <= 5; i++) {
        char key[32];
        snprintf(key, sizeof(key), "mr:{0}:job:job-%d", i);
        struct reply reply = ask("HSET", key, "done", "0", NULL);
        reply_done(&reply);
    }
}
ON_FIBER(sweeps_past_what_cannot_run)

/* Many of one millisecond, in several partitions: pages neither repeat nor leave out. */
static void pages_over_partitions(void)
{
    struct store *plain = store;
    struct store_config config = fixture_config();
    config.partitions = 3;
    config.prefix = "other";
    OK(store_open(&config, &store, &err));
    store->worker = mem_dup("node/w1");
    unsigned used = 0;
    char id[16], key[STORE_KEY_BYTES];
    for (int i = 0; i < 60; i++) {
        snprintf(id, sizeof(id), "job-%02d", i);
        submit_plain(id);
        uint32_t partition = store_partition(store, id);
        used |= 1u << partition;
        struct lane_stream stream = {partition, "default", QUEUE_NORMAL};
        struct lane lane;
        size_t count;
        OK(lane_claim(store, redis, &stream, 1, 1, 0, &lane, &count, &err));
        assert_int_equal(count, 1);
        assert_int_equal(begin(&lane, NULL), LANE_OK);
        fail_as(&lane, "a", MR_CLASS_PERMANENT, i % 2 ? "schema" : "timeout", 1, 0);
        struct reply reply =
            ask("ZADD", store_key(store, partition, "dead", NULL, key), "XX", "1000", id, NULL);
        reply_done(&reply);
    }
    assert_int_equal(used, 7);
    for (uint32_t max = 1; max < 70; max += 23) {
        char after[ID_BYTES] = "", last[ID_BYTES] = "job-60";
        uint32_t seen = 0;
        for (bool has_more = true; has_more;) {
            struct dead_page page;
            OK(dead_list(store, &(struct dead_filter){.code = "schema"}, after[0] ? after : NULL,
                         max, 10000, &page, &err));
            for (size_t i = 0; i < page.count; i++) {
                assert_true(strcmp(page.letters[i].id, last) < 0);
                snprintf(last, sizeof(last), "%s", page.letters[i].id);
                seen++;
            }
            has_more = page.has_more;
            memcpy(after, page.last_id, sizeof(after));
            dead_page_done(&page);
        }
        assert_int_equal(seen, 30);
    }
    struct dead_sweep swept;
    OK(dead_sweep(store, &(struct dead_filter){.code = "schema"}, DEAD_DISCARD, "r", 0, 10000,
                  &swept, &err));
    assert_int_equal(swept.matched, 30);
    assert_int_equal(swept.done, 30);
    uint64_t count;
    OK(dead_count(store, &count, &err));
    assert_int_equal(count, 30);
    store_close(store);
    store = plain;
}
ON_FIBER(pages_over_partitions)

static void sweeps_in_parts(void)
{
    struct dead_sweep swept;
    five();
    OK(dead_sweep(store, &(struct dead_filter){0}, DEAD_COUNT, NULL, 0, 10000, &swept, &err));
    assert_int_equal(swept.matched, 5);
    assert_int_equal(swept.done, 0);
    assert_false(swept.has_more);
    OK(dead_sweep(store, &(struct dead_filter){0}, DEAD_RETRY, "r", 2, 10000, &swept, &err));
    assert_int_equal(swept.matched, 2);
    assert_int_equal(swept.done, 2);
    assert_true(swept.has_more);
    assert_true(swept.before_ms > 0);
    EXPECT_STATUS("job-5", "queued");
    EXPECT_STATUS("job-4", "queued");
    EXPECT_PAGE(FILTER(0), NULL, 10, "job-3 job-2 job-1", false);
    /* One fails anew before the rest is asked for: it is not met again. */
    assert_int_equal(wait_sleep(&loop, 2), MR_OK);
    for (int i = 0; i < 2; i++) {
        struct lane lane = claim_and_begin("default");
        bool is_last = strcmp(lane.job, "job-5") == 0;
        fail_as(&lane, is_last ? "b" : "a", MR_CLASS_PERMANENT, "schema", 1, 0);
    }
    struct dead_filter rest = {.before_ms = swept.before_ms};
    OK(dead_sweep(store, &rest, DEAD_RETRY, "r", 0, 10000, &swept, &err));
    assert_int_equal(swept.matched, 3);
    assert_int_equal(swept.done, 3);
    assert_false(swept.has_more);
    assert_int_equal(swept.before_ms, rest.before_ms);
    EXPECT_STATUS("job-1", "queued");
    EXPECT_STATUS("job-5", "failed");
    /* Out of time: what was looked at, and that there is more. */
    char id[16];
    for (int i = 0; i < 3; i++)
        (void)claim_and_begin("default");
    for (int i = 0; i < 220; i++) {
        snprintf(id, sizeof(id), "many-%d", i);
        fail_job(id, "p", "a", MR_CLASS_PERMANENT, "schema");
    }
    OK(dead_sweep(store, &(struct dead_filter){0}, DEAD_DISCARD, NULL, 0, 0, &swept, &err));
    assert_int_equal(swept.matched, 200);
    assert_int_equal(swept.done, 200);
    assert_true(swept.has_more);
    struct dead_page page;
    OK(dead_list(store, &(struct dead_filter){.pipeline = "r"}, NULL, 5, 0, &page, &err));
    assert_int_equal(page.count, 0);
    dead_page_done(&page);
}
ON_FIBER(sweeps_in_parts)

/* A discard of one that was due is its end: the event without a next time, the follow-up. */
static void discarded_while_due(void)
{
    bool is_done;
    submit((struct job_submit){.id = "job-1", .after = "completed,failed"});
    struct lane lane = claim_and_begin("default");
    fail_as(&lane, "a", MR_CLASS_RETRY, "timeout", 1, 0);
    assert_false(is_claimable("default"));
    OK(dead_discard(store, "job-1", &is_done, &err));
    assert_true(is_done);
    check_invariants();
    EXPECT_EVENTS("job-1", "job.queued;stage.started a;stage.failed a;job.failed;job.failed;");
    assert_int_equal(ask_int("ZCARD", "mr:{0}:due"), 0);
    struct job_view *job = view("job-1");
    assert_int_equal(job->next_retry_ms, 0);
    assert_int_equal(job->events, 5);
    job_view_free(job);
    lane = claim_and_begin("default");
    assert_int_equal(commit(&lane, "$after", "", 1, NULL, NULL), LANE_END);
    EXPECT_STATUS("job-1", "failed");
    /* Twice changes nothing; nor does one of a job that has no retry due. */
    OK(dead_discard(store, "job-1", &is_done, &err));
    assert_false(is_done);
    EXPECT_EVENTS("job-1", "job.queued;stage.started a;stage.failed a;job.failed;job.failed;");
    fail_job("job-2", "p", "a", MR_CLASS_PERMANENT, "schema");
    OK(dead_discard(store, "job-2", &is_done, &err));
    assert_true(is_done);
    EXPECT_EVENTS("job-2", "job.queued;stage.started a;stage.failed a;job.failed;");
    OK(dead_discard(store, "nothing", &is_done, &err));
    assert_false(is_done);
    assert_int_equal(ask_int("EXISTS", "mr:{0}:job:nothing"), 0);
}
ON_FIBER(discarded_while_due)

static void briefs(void)
{
    enum { COUNT = 120 };
    struct job_listed items[COUNT];
    struct job_view *views[COUNT];
    for (int i = 0; i < COUNT; i++) {
        snprintf(items[i].id, sizeof(items[i].id), "job-%d", i);
        if (i != 7)
            submit_plain(items[i].id);
    }
    struct lane lane = claim_and_begin("default");
    assert_int_equal(commit(&lane, "a", "", 1, "\"long\"", NULL), LANE_END);
    OK(job_read_briefs(store, items, COUNT, views, &err));
    for (int i = 0; i < COUNT; i++) {
        if (i == 7) {
            assert_null(views[i]);
            continue;
        }
        struct job_view *whole = view(items[i].id);
        assert_string_equal(views[i]->id, items[i].id);
        assert_string_equal(views[i]->status, whole->status);
        assert_string_equal(views[i]->pipeline, "p");
        assert_int_equal(views[i]->created_ms, whole->created_ms);
        assert_int_equal(views[i]->events, whole->events);
        assert_int_equal(views[i]->stage_count, whole->stage_count);
        assert_int_equal(views[i]->lane_count, whole->lane_count);
        assert_int_equal(views[i]->expires_ms, whole->expires_ms);
        assert_null(views[i]->input);
        assert_null(views[i]->result);
        job_view_free(whole);
        job_view_free(views[i]);
    }
}
ON_FIBER(briefs)

static void pauses(void)
{
    struct pause pause;
    char **names = NULL;
    OK(pause_get(store, "p", &pause, &err));
    assert_int_equal(pause.state, PAUSE_NONE);
    OK(pipeline_pause(store, "p", &err));
    OK(pipeline_pause(store, "another", &err));
    submit_plain("job-1");
    struct lane lane = claim("default");
    assert_int_equal(begin(&lane, NULL), LANE_HELD);
    OK(pause_get(store, "p", &pause, &err));
    assert_int_equal(pause.state, PAUSE_ON);
    assert_int_equal(pause.held, 1);
    OK(pipeline_resume(store, "p", &err));
    OK(pause_get(store, "p", &pause, &err));
    assert_int_equal(pause.state, PAUSE_RESUMING);
    OK(pause_names(store, &names, &err));
    assert_string_equal(names[0], "another");
    assert_string_equal(names[1], "p");
    assert_null(names[2]);
    free(names[0]);
    free(names[1]);
    free(names);
    move_until(queue_has_work, "default");
    OK(pause_get(store, "p", &pause, &err));
    assert_int_equal(pause.state, PAUSE_NONE);
    assert_int_equal(pause.held, 0);
}
ON_FIBER(pauses)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(filters),
        CASE(what_a_letter_tells),
        CASE(passed_over),
        CASE(sweeps_in_parts),
        CASE(before_the_epoch),
        CASE(of_another_type),
        CASE(sweeps_past_what_cannot_run),
        CASE(pages_over_partitions),
        CASE(discarded_while_due),
        CASE(briefs),
        CASE(pauses),
    };
    return cmocka_run_group_tests_name("dead", tests, fixture_server, fixture_server_end);
}
