/* why: each reason of the table, on a job that stands there for it. */
#include "fixture.h"

#include "state/fsck.h"
#include "state/why.h"

#define REV "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static bool ever[WHY_REASON_COUNT];
static json_t *last; /* the last answer */

static char key_text[8][STORE_KEY_BYTES];
static const char *key(const char *kind, const char *name)
{
    static unsigned turn;
    return store_key(store, 0, kind, name, key_text[turn++ % 8]);
}

#define CMD(...) cmd(__VA_ARGS__, NULL)
static __attribute__((sentinel)) void cmd(const char *first, ...)
{
    struct arg words[16] = {arg_text(first)};
    size_t count = 1;
    va_list args;
    va_start(args, first);
    for (const char *word; (word = va_arg(args, const char *));)
        words[count++] = arg_text(word);
    va_end(args);
    struct reply reply;
    OK(redis_call(redis, count, words, 0, &reply, &err));
    reply_done(&reply);
}

static void note_reason(const char *word)
{
    for (enum why_reason reason = 0; reason < WHY_REASON_COUNT; reason++)
        if (strcmp(why_word(reason), word) == 0) {
            ever[reason] = true;
            return;
        }
    fail_msg("\"%s\" is no reason", word);
}

/* Asks; the job's reason and, of its first lane, `lane` (NULL: whatever). */
static void expect_why(const char *id, enum why_reason reason, int lane, int line)
{
    struct why_answer answer;
    OK(why_job(store, id, &answer, &err));
    json_decref(last);
    last = json_incref(answer.object);
    mem_auto char *text = json_dumps(last, JSON_INDENT(1));
    if (answer.reason != reason)
        fail_msg("line %d: %s, not %s:\n%s", line, why_word(answer.reason), why_word(reason), text);
    assert_string_equal(json_string_value(json_object_get(last, "id")), id);
    assert_string_equal(json_string_value(json_object_get(last, "reason")), why_word(reason));
    assert_string_equal(json_string_value(json_object_get(last, "sentence")), why_sentence(reason));
    note_reason(why_word(reason));
    const json_t *first = json_array_get(json_object_get(last, "lanes"), 0);
    const char *word = json_text_or(first, "reason", "");
    if (word[0])
        note_reason(word);
    if (lane >= 0 && strcmp(word, why_word((enum why_reason)lane)) != 0)
        fail_msg("line %d: the lane is %s, not %s:\n%s", line, word,
                 why_word((enum why_reason)lane), text);
    why_done(&answer);
}
#define EXPECT_WHY(id, reason)            expect_why(id, WHY_##reason, -1, __LINE__)
#define EXPECT_LANE_WHY(id, reason, lane) expect_why(id, WHY_##reason, WHY_##lane, __LINE__)

static const json_t *detail(const char *name)
{
    const json_t *lane = json_array_get(json_object_get(last, "lanes"), 0);
    const json_t *value = json_object_get(json_object_get(lane, "detail"), name);
    if (!value)
        value = json_object_get(json_object_get(last, "detail"), name);
    assert_non_null(value);
    return value;
}

static uint64_t until_ms(void)
{
    const char *text = json_string_value(json_object_get(last, "until"));
    assert_non_null(text);
    return (uint64_t)clock_parse(text);
}

static void join_as(const char *queues, uint32_t slots)
{
    OK(worker_enroll(store, "node/w1", "instance-1", NULL, &err));
    OK(worker_serve(store, queues, slots, &err));
}

static struct lane begin_it(void)
{
    static const struct lane_begin own = {.revision = REV};
    struct lane lane = claim("default");
    struct lane_grant grant;
    OK(lane_begin(store, &lane, &own, &grant, &err));
    lane_grant_done(&grant);
    return lane;
}

/* ---- Not there ---- */

static void absent(void)
{
    EXPECT_WHY("j", not_found);
    enum cancel_outcome outcome;
    OK(job_cancel(store, "j", "parent/s/t:1", 60000, &outcome, &err));
    EXPECT_WHY("j", tombstone);
    assert_true(until_ms() > clock_wall_ms());
    CMD("DEL", key("job", "j"));
    submit_plain("j");
    CMD("HDEL", key("job", "j"), "input");
    const struct fsck_options repair = {.repair = true, .is_lenient = true};
    struct fsck_summary summary;
    OK(fsck_run(store, &repair, &summary, &err));
    EXPECT_WHY("j", quarantined);
    assert_string_equal(json_string_value(detail("why")), "it has no input");
}
ON_FIBER(absent)

/* ---- Queued ---- */

static void queued(void)
{
    submit_plain("i");
    submit_plain("j");
    EXPECT_WHY("j", no_worker);
    join_as("other", 4);
    EXPECT_WHY("j", no_worker);
    OK(worker_serve(store, "other,default", 4, &err));
    EXPECT_WHY("j", queued);
    assert_int_equal(json_integer_value(detail("ahead")), 1);
    assert_int_equal(json_integer_value(detail("slots")), 4);
    assert_string_equal(json_string_value(json_array_get(detail("workers"), 0)), "node/w1");
    submit((struct job_submit){.id = "h", .prio = QUEUE_HIGH});
    EXPECT_WHY("j", queued);
    assert_int_equal(json_integer_value(detail("ahead")), 2);
    CMD("HSET", key("worker", "node/w1"), "busy", "4");
    EXPECT_WHY("j", queue_full);
    CMD("HSET", key("worker", "node/w1"), "busy", "3");
    claim("default"); /* h */
    claim("default"); /* i */
    EXPECT_WHY("j", queued);
    assert_int_equal(json_integer_value(detail("ahead")), 0);
    EXPECT_WHY("i", claimed);
    assert_string_equal(json_string_value(detail("worker")), "node/w1");
}
ON_FIBER(queued)

/* ---- Running ---- */

static void running(void)
{
    join_as("default", 4);
    submit_plain("j");
    struct lane lane = begin_it();
    EXPECT_LANE_WHY("j", running, running);
    assert_string_equal(json_string_value(detail("worker")), "node/w1");
    assert_true(json_integer_value(detail("renewed_ms_ago")) < 60000);
    OK(worker_leave(store, &err));
    EXPECT_LANE_WHY("j", worker_gone, worker_gone);
    assert_true(until_ms() <= clock_wall_ms() + store->lease_ms + 1000);
    CMD("XACK", key("queue", "default:normal"), "workers", lane.entry);
    EXPECT_LANE_WHY("j", damaged, damaged);
    const struct fsck_options repair = {.repair = true, .is_lenient = true};
    struct fsck_summary summary;
    OK(fsck_run(store, &repair, &summary, &err));
    EXPECT_WHY("j", no_worker);
}
ON_FIBER(running)

static void calling(void)
{
    join_as("default", 4);
    submit_plain("j");
    struct lane lane = begin_it();
    enum lane_verdict verdict;
    OK(lane_note(store, &lane, "a", "child", "j/a/t:1", 1000, &verdict, &err));
    submit(
        (struct job_submit){.id = "child", .req = "j/a/t:1", .mode = JOB_CALL, .prio = QUEUE_CALL});
    EXPECT_LANE_WHY("j", calling, calling);
    const json_t *child = json_array_get(detail("children"), 0);
    assert_string_equal(json_string_value(json_object_get(child, "id")), "child");
    assert_string_equal(json_string_value(json_object_get(child, "reason")), "queued");
    /* A job that calls itself, as damage may have it: the depth is bounded. */
    OK(lane_note(store, &lane, "a", "j", "j/a/t:1", 1000, &verdict, &err));
    EXPECT_WHY("j", calling);
    struct lane own = claim("default");
    assert_string_equal(own.job, "child");
    begin(&own, NULL);
    commit(&own, "a", "", 1, "1", NULL);
    CMD("HDEL", key("job", "j"), "calls:a");
    OK(lane_note(store, &lane, "a", "child", "j/a/t:1", 1000, &verdict, &err));
    EXPECT_LANE_WHY("j", running, running);
    assert_string_equal(
        json_string_value(json_object_get(json_array_get(detail("children"), 0), "reason")),
        "completed");
}
ON_FIBER(calling)

static void joining(void)
{
    static const char source[] = "{\"stages\":[{\"name\":\"a\"},{\"name\":\"b\",\"needs\":[]},{"
                                 "\"name\":\"c\",\"needs\":[\"a\",\"b\"]}]}";
    static const struct job_first first[] = {{"a", "default"}, {"b", "other"}};
    OK(revision_put(store, "p", REV, source, sizeof(source) - 1, &err));
    join_as("default,other", 4);
    submit((struct job_submit){.id = "j", .first = first, .first_count = 2});
    struct lane lane = begin_it();
    static const char *const needs[] = {"a", "b"};
    static const struct lane_successor next[] = {{"c", "default", needs, 2}};
    const struct lane_commit commit = {.stage = "a",
                                       .output = "1",
                                       .output_len = 1,
                                       .successors = next,
                                       .successor_count = 1,
                                       .total = 3,
                                       .known = 256};
    struct lane_next after;
    OK(lane_commit(store, &lane, &commit, &after, &err));
    lane_next_done(&after);
    EXPECT_LANE_WHY("j", queued, queued);
    const json_t *join = json_array_get(json_object_get(last, "lanes"), 1);
    assert_string_equal(json_string_value(json_object_get(join, "reason")), "joining");
    note_reason("joining");
    assert_string_equal(json_string_value(json_array_get(
                            json_object_get(json_object_get(join, "detail"), "waits_for"), 0)),
                        "b");
}
ON_FIBER(joining)

/* ---- Due ---- */

static void due(void)
{
    join_as("default", 4);
    submit((struct job_submit){.id = "j", .delay_ms = 60000});
    EXPECT_LANE_WHY("j", due_delayed, due_delayed);
    assert_true(until_ms() > clock_wall_ms() + 30000);
    CMD("FLUSHALL");
    join_as("default", 4);
    submit_plain("j");
    struct lane lane = begin_it();
    fail_as(&lane, "a", MR_CLASS_RETRY, "timeout", 5, 60000);
    EXPECT_LANE_WHY("j", due_retry, due_retry);
    assert_string_equal(json_string_value(json_object_get(detail("error"), "code")), "timeout");
    CMD("FLUSHALL");
    join_as("default", 4);
    submit_plain("j");
    lane = begin_it();
    fail_as(&lane, "a", MR_CLASS_THROTTLED, "rate_limited", 5, 60000);
    EXPECT_LANE_WHY("j", due_throttled, due_throttled);
    CMD("FLUSHALL");
    join_as("default", 4);
    submit_plain("j");
    lane = begin_it();
    enum lane_verdict verdict;
    OK(lane_park(store, &lane, 5000, &verdict, &err));
    EXPECT_LANE_WHY("j", revision_unknown, revision_unknown);
    CMD("SET", "mr:{rev:" REV "}", "{}");
    EXPECT_LANE_WHY("j", due_parked, due_parked);
    CMD("ZREM", key("due", NULL), "l j 1");
    EXPECT_LANE_WHY("j", damaged, damaged);
    CMD("FLUSHALL");
}
ON_FIBER(due)

/* ---- Held ---- */

static void held(void)
{
    join_as("default", 4);
    submit_plain("j");
    OK(pipeline_pause(store, "p", &err));
    struct lane lane = claim("default");
    assert_int_equal(begin(&lane, NULL), LANE_HELD);
    EXPECT_LANE_WHY("j", held, held);
    OK(pipeline_resume(store, "p", &err));
    EXPECT_LANE_WHY("j", resuming, resuming);
}
ON_FIBER(held)

/* ---- Stopped ---- */

static void stopping(void)
{
    join_as("default", 4);
    submit_plain("j");
    struct lane lane = begin_it();
    enum cancel_outcome outcome;
    OK(job_cancel(store, "j", NULL, 0, &outcome, &err));
    EXPECT_LANE_WHY("j", cancelling, running);
    enum lane_verdict verdict;
    OK(lane_drop(store, &lane, &verdict, &err));
    EXPECT_WHY("j", cancelled);
    CMD("FLUSHALL");
    join_as("default", 4);
    submit((struct job_submit){.id = "j", .ttl_ms = 60});
    lane = begin_it();
    uint64_t sleep_ms;
    uint32_t woken = 0;
    while (woken == 0) {
        OK(mover_turn(store, 0, &sleep_ms, &woken, &err));
        assert_int_equal(wait_sleep(&loop, 10), MR_OK);
    }
    EXPECT_LANE_WHY("j", deadline_passed, running);
    OK(lane_drop(store, &lane, &verdict, &err));
    EXPECT_WHY("j", failed_deadline);
    CMD("FLUSHALL");
    static const struct job_first first[] = {{"a", "default"}, {"b", "other"}};
    join_as("default,other", 4);
    submit((struct job_submit){.id = "j", .first = first, .first_count = 2});
    lane = begin_it();
    struct lane other = claim("other");
    begin(&other, NULL);
    fail_as(&lane, "a", MR_CLASS_PERMANENT, "schema", 1, 0);
    EXPECT_LANE_WHY("j", failing, running);
}
ON_FIBER(stopping)

/* ---- Ended ---- */

static void completed(void)
{
    submit((struct job_submit){.id = "j", .after = "completed"});
    struct lane lane = begin_it();
    assert_int_equal(commit(&lane, "a", "", 1, "1", NULL), LANE_END);
    join_as("default", 4);
    EXPECT_LANE_WHY("j", completed, follow_up);
    lane = claim("default");
    begin(&lane, NULL);
    assert_int_equal(commit(&lane, "$after", "", 1, NULL, NULL), LANE_END);
    EXPECT_WHY("j", completed);
    CMD("DEL", key("log", "j"));
    EXPECT_WHY("j", completed_expired);
}
ON_FIBER(completed)

static void fail_once(enum mr_class class)
{
    CMD("FLUSHALL");
    submit_plain("j");
    struct lane lane = begin_it();
    fail_as(&lane, "a", class, "timeout", 1, 0);
}

static void failed(void)
{
    fail_once(MR_CLASS_PERMANENT);
    EXPECT_WHY("j", failed_permanent);
    assert_string_equal(json_string_value(json_object_get(detail("error"), "code")), "timeout");
    bool done;
    OK(dead_discard(store, "j", &done, &err));
    EXPECT_WHY("j", failed_discarded);
    fail_once(MR_CLASS_CRASH);
    EXPECT_WHY("j", failed_poison);
    fail_once(MR_CLASS_RETRY);
    EXPECT_WHY("j", failed_retry);
    assert_true(until_ms() > 0);
    char minute[24];
    snprintf(minute, sizeof(minute), "%llu", (unsigned long long)(clock_wall_ms() / 60000));
    CMD("HSET", key("dead:info", NULL), "minute", minute, "count", "60");
    EXPECT_WHY("j", failed_budget);
    CMD("HDEL", key("job", "j"), "next");
    CMD("ZREM", key("due", NULL), "d j");
    EXPECT_WHY("j", failed_exhausted);
    mem_auto char *fingerprint = ask_field(key("job", "j"), "fp");
    mem_auto char *field = mem_format("fp:%s", fingerprint);
    CMD("HSET", key("dead:info", NULL), field, "20");
    EXPECT_WHY("j", failed_breaker);
    CMD("FLUSHALL");
}
ON_FIBER(failed)

/* What damage makes of a job is said, and breaks nothing. */
static void damaged(void)
{
    static const char *const words[] = {"",
                                        "x",
                                        "r a b",
                                        "q default normal - - - 0 0 0 a",
                                        "d default normal x - - 0 0 0 a",
                                        "h default normal - - - 0 0 0 a"};
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        submit_plain("j");
        CMD("HSET", key("job", "j"), "l:1", words[i], "calls:a", "x\n\n y \n");
        EXPECT_WHY("j", damaged);
        CMD("FLUSHALL");
    }
    submit_plain("j");
    CMD("HDEL", key("job", "j"), "l:1");
    EXPECT_WHY("j", damaged);
    CMD("SET", key("job", "j"), "x");
    EXPECT_WHY("j", damaged);
    CMD("FLUSHALL");
}
ON_FIBER(damaged)

static void test_every_reason(void **state)
{
    (void)state;
    for (enum why_reason reason = 0; reason < WHY_REASON_COUNT; reason++)
        if (!ever[reason])
            fail_msg("no test has seen %s", why_word(reason));
    json_decref(last);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(absent),    CASE(queued), CASE(running), CASE(calling),
        CASE(joining),   CASE(due),    CASE(held),    CASE(stopping),
        CASE(completed), CASE(failed), CASE(damaged), cmocka_unit_test(test_every_reason),
    };
    return cmocka_run_group_tests(tests, fixture_server, fixture_server_end);
}
