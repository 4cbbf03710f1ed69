/* fsck: for each kind of finding a damage by hand, that is found, mended, and gone; and the job
 * goes on to its end. A worker of a few lines runs the jobs: pipeline a, then b and c side by side
 * (c in queue `other`), then d. */
#include "fixture.h"

#include "base/hash.h"
#include "state/fsck.h"

/* SHA-256 of `source`. */
#define REV "9b2a8ae31f94c90081ed4196f8782fc36a1830d9a146d995e9882a66b7b3a549"
static const char source[] =
    "{\"stages\":[{\"name\":\"a\"},{\"name\":\"b\"},{\"name\":\"c\",\"needs\":[\"a\"],\"queue\":"
    "\"other\"},{\"name\":\"d\",\"needs\":[\"b\",\"c\"]}]}";

/* ---- Short forms ---- */

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

static char *field(const char *name)
{
    return ask_field(key("job", "j"), name);
}

static void set_field(const char *name, const char *value)
{
    CMD("HSET", key("job", "j"), name, value);
}

static void drop_field(const char *name)
{
    CMD("HDEL", key("job", "j"), name);
}

/* The n-th word of a packed field, from 0. */
static char *word_of(const char *name, int n)
{
    mem_auto char *text = field(name);
    char *rest = text, *word = NULL;
    for (int i = 0; i <= n; i++)
        word = strsep(&rest, " ");
    return mem_dup(word ? word : "");
}

/* ---- A worker of a few lines ---- */

static const struct lane_begin own_begin = {.revision = REV};
static enum lane_verdict begin_own(struct lane *lane)
{
    struct lane_grant grant;
    OK(lane_begin(store, lane, &own_begin, &grant, &err));
    enum lane_verdict verdict = grant.verdict;
    lane_grant_done(&grant);
    return verdict;
}

static enum lane_verdict commit_one(const struct lane *lane, const char *stage)
{
    static const char *const need_a[] = {"a"};
    static const char *const need_bc[] = {"b", "c"};
    static const struct lane_successor after_a[] = {{"b", "default", need_a, 1},
                                                    {"c", "other", need_a, 1}};
    static const struct lane_successor after_bc[] = {{"d", "default", need_bc, 2}};
    bool is_end = stage[0] == '$';
    struct lane_commit commit = {
        .stage = stage,
        .output = is_end ? "" : "1",
        .output_len = is_end ? 0 : 1,
        .total = 4,
        .known = 256,
        .result = strcmp(stage, "d") == 0 || strcmp(stage, "$end") == 0 ? "{\"r\":1}" : NULL};
    commit.result_len = commit.result ? 7 : 0;
    if (strcmp(stage, "a") == 0) {
        commit.successors = after_a;
        commit.successor_count = 2;
    } else if (strcmp(stage, "b") == 0 || strcmp(stage, "c") == 0) {
        commit.successors = after_bc;
        commit.successor_count = 1;
    }
    struct lane_next next;
    OK(lane_commit(store, lane, &commit, &next, &err));
    enum lane_verdict verdict = next.verdict;
    lane_next_done(&next);
    return verdict;
}

static void run_lane(struct lane *lane)
{
    lane->fence[0] = '\0';
    struct lane_grant grant;
    OK(lane_begin(store, lane, &own_begin, &grant, &err));
    enum lane_verdict verdict = grant.verdict;
    if (verdict == LANE_STOP) {
        OK(lane_drop(store, lane, &verdict, &err));
        lane_grant_done(&grant);
        return;
    }
    mem_auto char *stages = NULL;
    lane_grant_done(&grant);
    for (int turn = 0; verdict == LANE_OK && turn < 10; turn++) {
        char name[16];
        snprintf(name, sizeof(name), "l:%u", lane->number);
        free(stages);
        stages = word_of(name, 9);
        char *rest = stages;
        verdict = commit_one(lane, strsep(&rest, ","));
    }
}

static bool job_has_ended(void)
{
    struct job_view *job = view("j");
    assert_non_null(job);
    bool is_ended = job->is_ended && job->lane_count == 0;
    job_view_free(job);
    return is_ended;
}

/* Runs whatever there is until the job has ended. */
static void run_to_end(const char *status)
{
    for (uint64_t stop = clock_now_ms() + 10000; !job_has_ended();) {
        for (int queue = 0; queue < 2; queue++)
            for (enum queue_class class = QUEUE_RECOVERED; class < QUEUE_CLASSES; class ++) {
                const struct lane_stream stream = {0, queue ? "other" : "default", class};
                struct lane lanes[8];
                char cursor[STORE_ENTRY_BYTES] = "0";
                size_t own, count = 0;
                OK(lane_claim_own(store, redis, &stream, cursor, 4, lanes, &own, &err));
                OK(lane_claim(store, redis, &stream, 1, 4, 0, lanes + own, &count, &err));
                for (size_t i = 0; i < own + count; i++)
                    run_lane(&lanes[i]);
            }
        uint64_t sleep_ms;
        uint32_t woken;
        OK(mover_turn(store, 0, &sleep_ms, &woken, &err));
        if (clock_now_ms() > stop) {
            mem_auto char *lanes = field("lanes"), *one = field("l:1"), *now = field("status");
            fail_msg("the job does not end: %s, lanes %s, %s", now, lanes, one ? one : "none");
        }
        assert_int_equal(wait_sleep(&loop, sleep_ms < 10 ? sleep_ms + 1 : 10), MR_OK);
    }
    if (status)
        EXPECT_STATUS("j", status);
}

/* ---- fsck ---- */

static bool seen[FSCK_KINDS], ever[FSCK_KINDS];
static char lines[16384];
static uint64_t quarantined;

static void on_finding(void *arg, const struct fsck_finding *finding)
{
    (void)arg;
    seen[finding->kind] = ever[finding->kind] = true;
    size_t used = strlen(lines);
    snprintf(lines + used, sizeof(lines) - used, "  %s %s: %s (%d)\n", fsck_word(finding->kind),
             finding->at, finding->what, (int)finding->outcome);
}

static char *find_source(void *arg, const char *revision, size_t *ret_len, const char **ret_name)
{
    (void)arg;
    if (strcmp(revision, REV) != 0)
        return NULL;
    *ret_name = "p";
    *ret_len = sizeof(source) - 1;
    return mem_dup(source);
}

static struct fsck_summary check(bool repair)
{
    const struct fsck_options options = {
        .repair = repair, .on_finding = on_finding, .find_source = find_source};
    struct fsck_summary summary;
    memset(seen, 0, sizeof(seen));
    lines[0] = '\0';
    OK(fsck_run(store, &options, &summary, &err));
    return summary;
}

static void expect_clean(const char *when, int line)
{
    struct fsck_summary summary = check(false);
    if (summary.findings != 0)
        fail_msg("line %d: findings %s:\n%s", line, when, lines);
}
#define EXPECT_CLEAN(when) expect_clean(when, __LINE__)

/* Looks: finds `kind` and changes nothing; repairs; is clean. */
static void expect_mended(enum fsck_kind kind, int line)
{
    struct fsck_summary first = check(false);
    if (!seen[kind])
        fail_msg("line %d: %s was not found, but:\n%s", line, fsck_word(kind), lines);
    assert_int_equal(first.mended, 0);
    assert_true(fsck_is_note(kind) || first.findings > 0);
    struct fsck_summary again = check(false);
    assert_int_equal(again.findings, first.findings);
    struct fsck_summary repair = check(true);
    if (!seen[kind] || repair.left != 0)
        fail_msg("line %d: the repair of %s left:\n%s", line, fsck_word(kind), lines);
    quarantined = repair.quarantined;
    EXPECT_CLEAN("after the repair");
}
#define EXPECT_MENDED(kind) expect_mended(FSCK_##kind, __LINE__)

/* ---- States ---- */

static void have_job(void)
{
    char digest[HASH_HEX_BYTES];
    struct hash hash;
    hash_start(&hash);
    hash_add_part(&hash, "p", 1);
    hash_add_part(&hash, "{}", 2);
    hash_end(&hash, digest);
    OK(revision_put(store, "p", REV, source, sizeof(source) - 1, &err));
    struct error err = {0};
    expect_ok(store_check(store, &err), &err, "store_check", __LINE__);
    assert_int_equal(submit((struct job_submit){.id = "j", .digest = digest}).outcome, JOB_NEW);
}

static struct lane have_running(void)
{
    have_job();
    struct lane lane = claim("default");
    assert_int_equal(begin_own(&lane), LANE_OK);
    return lane;
}

/* a is done, b runs in lane 1, c waits in lane 2. */
static struct lane have_branches(void)
{
    struct lane lane = have_running();
    assert_int_equal(commit_one(&lane, "a"), LANE_OK);
    return lane;
}

static void have_due(void)
{
    struct lane lane = have_running();
    fail_as(&lane, "a", MR_CLASS_RETRY, "timeout", 5, 150);
}

static void have_held(void)
{
    have_job();
    OK(pipeline_pause(store, "p", &err));
    struct lane lane = claim("default");
    assert_int_equal(begin_own(&lane), LANE_HELD);
}

static void have_completed(void)
{
    have_job();
    run_to_end("completed");
}

static void have_failed(void)
{
    struct lane lane = have_running();
    fail_as(&lane, "a", MR_CLASS_PERMANENT, "schema", 5, 0);
    EXPECT_STATUS("j", "failed");
}

static void run_again(void)
{
    const struct job_again again = {.id = "j", .req = "again", .is_fresh = true};
    enum again_outcome outcome;
    OK(job_run_again(store, &again, &outcome, &err));
    assert_int_equal(outcome, AGAIN_OK);
    run_to_end("completed");
}

/* ---- Healthy ---- */

static void healthy(void)
{
    have_job();
    EXPECT_CLEAN("of a queued job");
    run_to_end("completed");
    EXPECT_CLEAN("of a completed job");
    CMD("FLUSHALL");
    have_branches();
    EXPECT_CLEAN("of a running job");
    CMD("FLUSHALL");
    have_due();
    EXPECT_CLEAN("of a due job");
    CMD("FLUSHALL");
    have_held();
    EXPECT_CLEAN("of a held job");
    CMD("FLUSHALL");
    have_failed();
    EXPECT_CLEAN("of a failed job");
    bool done;
    OK(dead_discard(store, "j", &done, &err));
    EXPECT_CLEAN("of a discarded job");
    run_again();
    EXPECT_CLEAN("after another run");
}
ON_FIBER(healthy)

/* ---- Lanes, entries, members ---- */

static void entry_missing(void)
{
    have_job();
    mem_auto char *entry = word_of("l:1", 3);
    CMD("XDEL", key("queue", "default:normal"), entry);
    EXPECT_MENDED(entry_missing);
    run_to_end("completed");
    CMD("FLUSHALL");
    have_branches();
    CMD("DEL", key("queue", "default:normal"));
    EXPECT_MENDED(entry_missing);
    run_to_end("completed");
}
ON_FIBER(entry_missing)

static void entry_wrong(void)
{
    have_job();
    mem_auto char *entry = word_of("l:1", 3);
    CMD("DEL", key("queue", "default:normal"));
    CMD("XADD", key("queue", "default:normal"), entry, "j", "k", "l", "1", "p", "p");
    EXPECT_MENDED(entry_wrong);
    run_to_end("completed");
}
ON_FIBER(entry_wrong)

static void entry_unreachable(void)
{
    have_job();
    claim("default");
    mem_auto char *entry = word_of("l:1", 3);
    CMD("XACK", key("queue", "default:normal"), "workers", entry);
    EXPECT_MENDED(entry_unreachable);
    run_to_end("completed");
}
ON_FIBER(entry_unreachable)

static void entry_orphan(void)
{
    have_job();
    CMD("XADD", key("queue", "default:normal"), "*", "j", "nobody", "l", "1", "p", "p");
    CMD("XADD", key("queue", "other:call"), "*", "j", "j", "l", "9", "p", "p");
    EXPECT_MENDED(entry_orphan);
    assert_int_equal(ask_int("XLEN", key("queue", "other:call")), 0);
    run_to_end("completed");
}
ON_FIBER(entry_orphan)

static void entry_twice(void)
{
    have_job();
    CMD("XADD", key("queue", "default:normal"), "*", "j", "j", "l", "1", "p", "p");
    EXPECT_MENDED(entry_twice);
    assert_int_equal(ask_int("XLEN", key("queue", "default:normal")), 1);
    run_to_end("completed");
}
ON_FIBER(entry_twice)

static void entry_unreadable(void)
{
    have_job();
    CMD("XADD", key("queue", "default:normal"), "*", "what", "ever");
    EXPECT_MENDED(entry_unreadable);
    run_to_end("completed");
}
ON_FIBER(entry_unreadable)

static void lane_unclaimed(void)
{
    struct lane lane = have_running();
    CMD("XACK", key("queue", "default:normal"), "workers", lane.entry);
    EXPECT_MENDED(lane_unclaimed);
    assert_int_equal(commit_one(&lane, "a"), LANE_LOST);
    run_to_end("completed");
    CMD("FLUSHALL");
    have_running();
    CMD("XGROUP", "DESTROY", key("queue", "default:normal"), "workers");
    EXPECT_MENDED(lane_unclaimed);
    run_to_end("completed");
}
ON_FIBER(lane_unclaimed)

static void lane_unreadable(void)
{
    have_job();
    set_field("l:1", "garbage");
    EXPECT_MENDED(lane_unreadable);
    run_to_end("completed");
    CMD("FLUSHALL");
    have_branches();
    set_field("l:1", "r default normal");
    set_field("l:x", "q");
    EXPECT_MENDED(lane_unreadable);
    run_to_end("completed");
}
ON_FIBER(lane_unreadable)

static void lane_empty(void)
{
    have_branches();
    mem_auto char *entry = NULL;
    struct reply made =
        ask("XADD", key("queue", "other:low"), "*", "j", "j", "l", "3", "p", "p", NULL);
    entry = mem_dup(made.text);
    reply_done(&made);
    mem_auto char *lane = mem_format("q other low %s - - 0 0 0 ,", entry);
    set_field("l:3", lane);
    set_field("lanes", "1,2,3");
    set_field("n", "3");
    EXPECT_MENDED(lane_empty);
    run_to_end("completed");
}
ON_FIBER(lane_empty)

static void lanes_list(void)
{
    have_branches();
    set_field("lanes", "1,7");
    EXPECT_MENDED(lanes_list);
    run_to_end("completed");
    CMD("FLUSHALL");
    have_job();
    drop_field("lanes");
    EXPECT_MENDED(lanes_list);
    run_to_end("completed");
}
ON_FIBER(lanes_list)

static void lane_number(void)
{
    have_branches();
    set_field("n", "1");
    EXPECT_MENDED(lane_number);
    run_to_end("completed");
}
ON_FIBER(lane_number)

static void lanes_lost(void)
{
    have_branches();
    CMD("HDEL", key("job", "j"), "l:1", "l:2", "lanes");
    EXPECT_MENDED(stage_unlaned);
    run_to_end("completed");
}
ON_FIBER(lanes_lost)

static void ended_lane(void)
{
    have_completed();
    struct reply made =
        ask("XADD", key("queue", "default:low"), "*", "j", "j", "l", "9", "p", "p", NULL);
    mem_auto char *lane = mem_format("q default low %s - - 0 0 0 a", made.text);
    reply_done(&made);
    set_field("l:9", lane);
    set_field("lanes", "9");
    EXPECT_MENDED(ended_lane);
    assert_true(job_has_ended());
}
ON_FIBER(ended_lane)

static void due_member(void)
{
    have_due();
    CMD("ZREM", key("due", NULL), "l j 2");
    EXPECT_MENDED(due_missing);
    run_to_end("completed");
    CMD("FLUSHALL");
    have_due();
    CMD("ZADD", key("due", NULL), "99999999999999", "l j 2");
    EXPECT_MENDED(due_time);
    run_to_end("completed");
}
ON_FIBER(due_member)

static void held_member(void)
{
    have_held();
    CMD("ZREM", key("held", "p"), "l j 1");
    EXPECT_MENDED(held_missing);
    OK(pipeline_resume(store, "p", &err));
    run_to_end("completed");
    CMD("FLUSHALL");
    have_held();
    CMD("DEL", key("paused", NULL));
    EXPECT_MENDED(held_unpaused);
    run_to_end("completed");
}
ON_FIBER(held_member)

static void member_orphan(void)
{
    have_job();
    CMD("ZADD", key("due", NULL), "1", "l j 1", "2", "l nobody 1", "3", "x j", "4", "d j");
    CMD("ZADD", key("held", "p"), "1", "l j 1");
    CMD("ZADD", key("dead", NULL), "1", "j");
    EXPECT_MENDED(member_orphan);
    assert_int_equal(ask_int("ZCARD", key("due", NULL)), 0);
    run_to_end("completed");
}
ON_FIBER(member_orphan)

static void member_unreadable(void)
{
    have_job();
    CMD("ZADD", key("due", NULL), "1", "garbage", "2", "l j", "3", "l j x", "4", "");
    EXPECT_MENDED(member_unreadable);
    assert_int_equal(ask_int("ZCARD", key("due", NULL)), 0);
    run_to_end("completed");
}
ON_FIBER(member_unreadable)

static void deadline(void)
{
    OK(revision_put(store, "p", REV, source, sizeof(source) - 1, &err));
    have_job();
    drop_field("ttl");
    set_field("deadline", "99999999999999");
    EXPECT_MENDED(due_missing);
    set_field("ttl", "1000");
    drop_field("deadline");
    EXPECT_MENDED(due_time);
    mem_auto char *back = field("deadline");
    assert_string_equal(back, "99999999999999");
    run_to_end("completed");
}
ON_FIBER(deadline)

/* ---- Stages and outputs ---- */

static void stages(void)
{
    have_branches();
    set_field("s:a", "garbage");
    EXPECT_MENDED(stage_unreadable);
    mem_auto char *state = word_of("s:a", 0);
    assert_string_equal(state, "d");
    set_field("s:b", "o x");
    EXPECT_MENDED(stage_unreadable);
    drop_field("s:a");
    EXPECT_MENDED(stage_missing);
    drop_field("s:c");
    EXPECT_MENDED(stage_missing);
    set_field("s:a", "o 0 0 - - default");
    EXPECT_MENDED(stage_state);
    set_field("s:b", "d 0 0 - - default");
    EXPECT_MENDED(stage_state);
    run_to_end("completed");
}
ON_FIBER(stages)

/* Its record and its lane: only the graph tells that there was a stage. */
static void branch_lost(void)
{
    have_branches();
    mem_auto char *entry = word_of("l:2", 3);
    CMD("XDEL", key("queue", "other:normal"), entry);
    CMD("HDEL", key("job", "j"), "l:2", "s:c");
    set_field("lanes", "1");
    EXPECT_MENDED(stage_missing);
    run_to_end("completed");
}
ON_FIBER(branch_lost)

static void end_lost(void)
{
    struct lane lane = have_branches();
    assert_int_equal(commit_one(&lane, "b"), LANE_END);
    lane = claim("other");
    assert_int_equal(begin_own(&lane), LANE_OK);
    assert_int_equal(commit_one(&lane, "c"), LANE_END);
    lane = claim("default");
    assert_int_equal(begin_own(&lane), LANE_OK);
    CMD("HDEL", key("job", "j"), "l:3", "s:d");
    set_field("lanes", "");
    CMD("HSET", key("out", "j"), "d", "4");
    EXPECT_MENDED(stage_missing);
    run_to_end("completed");
}
ON_FIBER(end_lost)

static void stage_unknown(void)
{
    have_running();
    mem_auto char *lane = field("l:1");
    mem_auto char *more = mem_format("%s,nosuch", lane);
    set_field("l:1", more);
    EXPECT_MENDED(stage_unknown);
    run_to_end("completed");
}
ON_FIBER(stage_unknown)

static void stage_twice(void)
{
    have_branches();
    mem_auto char *lane = field("l:2");
    mem_auto char *more = mem_format("%s,b", lane);
    set_field("l:2", more);
    EXPECT_MENDED(stage_twice);
    run_to_end("completed");
}
ON_FIBER(stage_twice)

static void output_missing(void)
{
    struct lane lane = have_branches();
    CMD("DEL", key("out", "j"));
    EXPECT_MENDED(output_missing);
    /* b and c need what is to be made again. */
    mem_auto char *state = word_of("s:a", 0), *b = field("s:b"), *count = field("done");
    assert_string_equal(state, "o");
    assert_null(b);
    assert_string_equal(count, "0");
    assert_int_equal(commit_one(&lane, "b"), LANE_LOST);
    run_to_end("completed");
}
ON_FIBER(output_missing)

static void step_left(void)
{
    have_branches();
    CMD("HSET", key("out", "j"), "a#one", "1");
    EXPECT_MENDED(step_left);
    run_to_end("completed");
}
ON_FIBER(step_left)

static void done_wrong(void)
{
    have_branches();
    set_field("done", "3");
    EXPECT_MENDED(done_wrong);
    run_to_end("completed");
}
ON_FIBER(done_wrong)

/* ---- Fields ---- */

static void status_wrong(void)
{
    have_branches();
    set_field("status", "completed");
    EXPECT_MENDED(status_wrong);
    EXPECT_STATUS("j", "processing");
    drop_field("status");
    EXPECT_MENDED(status_wrong);
    set_field("finished", "17");
    EXPECT_MENDED(status_wrong);
    run_to_end("completed");
    set_field("status", "waiting");
    EXPECT_MENDED(status_wrong);
    EXPECT_STATUS("j", "completed");
    set_field("stop", "cancelled");
    EXPECT_MENDED(status_wrong);
    CMD("FLUSHALL");
    have_failed();
    drop_field("error");
    EXPECT_MENDED(status_wrong);
    drop_field("stop");
    EXPECT_MENDED(status_wrong);
    run_again();
}
ON_FIBER(status_wrong)

static void field_unreadable(void)
{
    static const char *const fields[] = {"created", "started", "round", "progress", "keep",
                                         "prio",    "digest",  "req",   "n",        "done"};
    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
        have_branches();
        set_field(fields[i], "no number, no word");
        EXPECT_MENDED(field_unreadable);
        run_to_end("completed");
        CMD("FLUSHALL");
    }
    have_job();
    mem_auto char *was = field("digest");
    drop_field("digest");
    EXPECT_MENDED(field_unreadable);
    mem_auto char *now = field("digest");
    assert_string_equal(now, was);
    CMD("FLUSHALL");
    have_job();
    set_field("pipeline", "another");
    EXPECT_MENDED(field_unreadable);
    drop_field("pipeline");
    EXPECT_MENDED(field_unreadable);
    set_field("rev", "what?");
    set_field("stop", "now");
    set_field("meta", "[");
    EXPECT_MENDED(field_unreadable);
    run_to_end("completed");
}
ON_FIBER(field_unreadable)

static void job_unended(void)
{
    struct lane lane = have_running();
    CMD("XDEL", key("queue", "default:normal"), lane.entry);
    CMD("HDEL", key("job", "j"), "l:1", "lanes");
    set_field("stop", "cancelled");
    EXPECT_MENDED(job_unended);
    EXPECT_STATUS("j", "cancelled");
    run_again();
    CMD("FLUSHALL");
    /* A failed stage without `stop`. */
    have_branches();
    CMD("HDEL", key("job", "j"), "l:1", "l:2", "lanes");
    set_field("s:b", "f 1 0 - - default");
    EXPECT_MENDED(job_unended);
    EXPECT_STATUS("j", "failed");
    run_again();
}
ON_FIBER(job_unended)

static void result_missing(void)
{
    have_completed();
    drop_field("result");
    EXPECT_MENDED(result_missing);
    EXPECT_STATUS("j", "queued");
    run_to_end("completed");
    set_field("result", "{\"half");
    EXPECT_MENDED(result_missing);
    run_to_end("completed");
    mem_auto char *result = field("result");
    assert_string_equal(result, "{\"r\":1}");
}
ON_FIBER(result_missing)

static void ttls(void)
{
    static const char *const kinds[] = {"job", "out", "log"};
    have_completed();
    for (int i = 0; i < 3; i++) {
        CMD("PERSIST", key(kinds[i], "j"));
        EXPECT_MENDED(ttl_missing);
        assert_true(ask_int("PTTL", key(kinds[i], "j")) > 1000000);
    }
    CMD("FLUSHALL");
    have_branches();
    for (int i = 0; i < 3; i++) {
        CMD("PEXPIRE", key(kinds[i], "j"), "90000");
        EXPECT_MENDED(ttl_running);
        assert_int_equal(ask_int("PTTL", key(kinds[i], "j")), -1);
    }
    CMD("PEXPIRE", key("queue", "default:normal"), "90000");
    EXPECT_MENDED(ttl_running);
    CMD("HSET", key("worker", "node/w7"), "instance", "x");
    EXPECT_MENDED(ttl_missing);
    run_to_end("completed");
}
ON_FIBER(ttls)

static void logs(void)
{
    have_branches();
    CMD("DEL", key("log", "j"));
    EXPECT_MENDED(log_cut);
    CMD("LTRIM", key("log", "j"), "1", "-1");
    EXPECT_MENDED(log_cut);
    run_to_end("completed");
    CMD("RPOP", key("log", "j"));
    EXPECT_MENDED(log_length);
    set_field("events", "900");
    EXPECT_MENDED(log_length);
}
ON_FIBER(logs)

static void lists(void)
{
    have_failed();
    CMD("ZREM", key("dead", NULL), "j");
    EXPECT_MENDED(dead_missing);
    set_field("held", "p/a/schema");
    EXPECT_MENDED(dead_missing);
    assert_int_equal(ask_int("ZCARD", key("dead:held", NULL)), 1);
    CMD("ZADD", key("dead:held", NULL), "0", "p/b/schema j", "0", "garbage");
    EXPECT_MENDED(member_orphan);
    assert_int_equal(ask_int("ZCARD", key("dead:held", NULL)), 1);
    CMD("ZREM", key("jobs", NULL), "j");
    EXPECT_MENDED(list_missing);
    CMD("ZADD", key("jobs", NULL), "1", "long-gone");
    EXPECT_MENDED(list_stale);
    assert_int_equal(ask_int("ZCARD", key("jobs", NULL)), 1);
    run_again();
}
ON_FIBER(lists)

/* ---- Keys ---- */

static void types(void)
{
    static const char *const names[] = {"due", "jobs", "dead", "paused", "revs", "dead:info"};
    have_due();
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        CMD("SET", key(names[i], NULL), "x");
        EXPECT_MENDED(type_wrong);
        CMD("DEL", key("quarantine", NULL));
    }
    CMD("SET", key("log", "j"), "x");
    EXPECT_MENDED(type_wrong);
    run_to_end("completed");
    CMD("FLUSHALL");
    have_branches();
    CMD("SET", key("queue", "default:normal"), "x");
    CMD("SET", key("out", "j"), "x");
    CMD("SET", key("quarantine", NULL), "x");
    EXPECT_MENDED(type_wrong);
    run_to_end("completed");
    struct fsck_quarantined *items;
    size_t count;
    OK(fsck_quarantine(store, 10, &items, &count, &err));
    assert_int_equal(count, 1);
    assert_string_equal(items[0].name, "key queue:default:normal");
    fsck_quarantine_free(items, count);
}
ON_FIBER(types)

static void values(void)
{
    have_held();
    CMD("HSET", key("paused", NULL), "p", "perhaps");
    EXPECT_MENDED(value_unreadable);
    run_to_end("completed");
    CMD("HSET", key("revs", NULL), "p:" REV, "first", "n", "0");
    EXPECT_MENDED(value_unreadable);
    CMD("HSET", key("dead:info", NULL), "fp:p/a/x", "many");
    EXPECT_MENDED(value_unreadable);
}
ON_FIBER(values)

static void version_missing(void)
{
    have_job();
    CMD("DEL", "mr:version");
    EXPECT_MENDED(version_missing);
    CMD("SET", "mr:version", "1/2");
    struct fsck_summary summary;
    const struct fsck_options options = {.repair = true};
    assert_int_equal(fsck_run(store, &options, &summary, NULL), MR_E_SCHEMA);
    CMD("DEL", "mr:version");
    CMD("RPUSH", "mr:version", "x");
    EXPECT_MENDED(type_wrong);
}
ON_FIBER(version_missing)

static void revision_gone(void)
{
    have_running();
    CMD("DEL", "mr:{rev:" REV "}");
    EXPECT_MENDED(revision_gone);
    CMD("SET", "mr:{rev:" REV "}", "x");
    EXPECT_MENDED(revision_wrong);
    CMD("DEL", "mr:{rev:" REV "}");
    CMD("RPUSH", "mr:{rev:" REV "}", "x");
    EXPECT_MENDED(type_wrong);
    run_to_end("completed");
}
ON_FIBER(revision_gone)

static void left_over(void)
{
    have_branches();
    CMD("HSET", key("out", "gone"), "a", "1");
    CMD("RPUSH", key("log", "gone"), "job.queued 1 {}");
    EXPECT_MENDED(left_over);
    assert_int_equal(ask_int("EXISTS", key("log", "gone")), 0);
    run_to_end("completed");
}
ON_FIBER(left_over)

static void notes(void)
{
    have_running();
    CMD("SET", "mr:mine", "x");
    CMD("SET", "mr:{0}:backup", "x");
    CMD("SET", "mr:{7}:due", "x");
    struct fsck_summary summary = check(true);
    assert_int_equal(summary.findings, 0);
    assert_int_equal(summary.notes, 3);
    assert_true(seen[FSCK_key_unknown]);
    assert_int_equal(ask_int("EXISTS", "mr:mine"), 1);
    CMD("DEL", "mr:{7}:due");
    /* Nobody has heard of node/w1 since; its registration was never made. */
    store->lease_ms = 10;
    assert_int_equal(wait_sleep(&loop, 60), MR_OK);
    summary = check(true);
    assert_true(seen[FSCK_consumer_gone]);
    assert_int_equal(summary.findings, 0);
    run_to_end("completed");
}
ON_FIBER(notes)

/* ---- Quarantine ---- */

static void expect_quarantined(void)
{
    EXPECT_MENDED(job_beyond_repair);
    assert_int_equal(quarantined, 1);
    struct fsck_quarantined *items;
    size_t count;
    OK(fsck_quarantine(store, 10, &items, &count, &err));
    assert_int_equal(count, 1);
    assert_string_equal(items[0].name, "j");
    assert_true(items[0].why[0] != '\0' && items[0].at_ms > 0);
    fsck_quarantine_free(items, count);
    assert_int_equal(ask_int("EXISTS", key("quarantined", "j")), 1);
    assert_int_equal(ask_int("EXISTS", key("job", "j")), 0);
    assert_null(view("j"));
    assert_false(is_claimable("default"));
    /* The same submission is a new job. */
    submit_plain("j");
    CMD("FLUSHALL");
}

static void quarantine(void)
{
    have_branches();
    drop_field("pipeline");
    CMD("LTRIM", key("log", "j"), "1", "-1");
    expect_quarantined();
    have_branches();
    set_field("input", "{\"another\":1}");
    expect_quarantined();
    have_branches();
    drop_field("input");
    expect_quarantined();
    have_job();
    set_field("input", "{\"a\":");
    expect_quarantined();
    have_due();
    CMD("SET", key("job", "j"), "x");
    expect_quarantined();
    have_running();
    CMD("HDEL", key("job", "j"), "s:a", "l:1", "rev");
    expect_quarantined();
    have_completed();
    drop_field("result");
    CMD("DEL", key("out", "j"));
    expect_quarantined();
}
ON_FIBER(quarantine)

/* A source that is nowhere: what comes next cannot be told. */
static void without_source(void)
{
    struct lane lane = have_branches();
    (void)lane;
    CMD("DEL", "mr:{rev:" REV "}");
    CMD("HDEL", key("job", "j"), "s:b", "l:1");
    CMD("DEL", key("out", "j"));
    const struct fsck_options options = {.repair = true, .on_finding = on_finding};
    struct fsck_summary summary;
    OK(fsck_run(store, &options, &summary, &err));
    assert_int_equal(summary.quarantined, 1);
    assert_true(summary.left > 0 && seen[FSCK_revision_gone]);
    CMD("FLUSHALL");
}
ON_FIBER(without_source)

/* Random damage to one job, from a seed: never an error, clean after one repair, and whatever is
 * not in quarantine ends. */
static void random_damage(void)
{
    static const char *const fields[] = {
        "pipeline", "rev",   "status",   "stop",   "prio", "round",  "req",     "keep",  "created",
        "n",        "done",  "lanes",    "l:1",    "l:2",  "s:a",    "s:b",     "s:c",   "s:d",
        "input",    "error", "progress", "digest", "tomb", "result", "calls:b", "s:$end"};
    static const char *const words[] = {"",
                                        "x",
                                        "7",
                                        "-1",
                                        "r default normal 1-1 - - 0 0 0 a",
                                        "d 1 0 - - default",
                                        "o 0 0 - - other",
                                        "cancelled",
                                        "completed",
                                        "1,2,3",
                                        "99999999999999999999",
                                        "a b c"};
    const char *given = getenv("MILLRACE_SEED");
    uint32_t seed = given ? (uint32_t)strtoul(given, NULL, 10) : 1;
    srandom(seed);
    for (int turn = 0; turn < 150; turn++) {
        CMD("FLUSHALL");
        int state = (int)(random() % 6);
        state == 0   ? have_job()
        : state == 1 ? (void)have_branches()
        : state == 2 ? have_due()
        : state == 3 ? have_held()
        : state == 4 ? have_completed()
                     : have_failed();
        char story[512] = "";
        for (long more = 1 + random() % 4; more > 0; more--) {
            const char *name = fields[(size_t)random() % (sizeof(fields) / sizeof(*fields))];
            const char *word = words[(size_t)random() % (sizeof(words) / sizeof(*words))];
            bool drop = random() % 2;
            drop ? drop_field(name) : set_field(name, word);
            size_t used = strlen(story);
            snprintf(story + used, sizeof(story) - used, " %s=%s", name, drop ? "(gone)" : word);
        }
        struct fsck_summary repair = check(true);
        if (repair.left > 0)
            fail_msg("seed %u, turn %d, state %d,%s: left:\n%s", seed, turn, state, story, lines);
        mem_auto char *first = mem_dup(lines);
        if (check(false).findings > 0)
            fail_msg("seed %u, turn %d, state %d,%s: not clean:\n%s first:\n%s", seed, turn, state,
                     story, lines, first);
        struct job_view *job = view("j");
        if (!job)
            continue;
        job_view_free(job);
        printf("seed %u, turn %d, state %d,%s\n", seed, turn, state, story);
        fflush(stdout); /* what runs next may abort */
        OK(pipeline_resume(store, "p", &err));
        run_to_end(NULL);
        if (check(false).findings > 0)
            fail_msg("seed %u, turn %d, state %d,%s: not clean at its end:\n%s first:\n%s", seed,
                     turn, state, story, lines, first);
    }
    CMD("FLUSHALL");
}
ON_FIBER(random_damage)

static void test_every_kind(void **state)
{
    (void)state;
    for (enum fsck_kind kind = 0; kind < FSCK_KINDS; kind++)
        if (!ever[kind])
            fail_msg("no test has seen %s", fsck_word(kind));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(healthy),
        CASE(entry_missing),
        CASE(entry_wrong),
        CASE(entry_unreachable),
        CASE(entry_orphan),
        CASE(entry_twice),
        CASE(entry_unreadable),
        CASE(lane_unclaimed),
        CASE(lane_unreadable),
        CASE(lane_empty),
        CASE(lanes_list),
        CASE(lane_number),
        CASE(lanes_lost),
        CASE(ended_lane),
        CASE(due_member),
        CASE(held_member),
        CASE(member_orphan),
        CASE(member_unreadable),
        CASE(deadline),
        CASE(stages),
        CASE(branch_lost),
        CASE(end_lost),
        CASE(stage_unknown),
        CASE(stage_twice),
        CASE(output_missing),
        CASE(step_left),
        CASE(done_wrong),
        CASE(status_wrong),
        CASE(field_unreadable),
        CASE(job_unended),
        CASE(result_missing),
        CASE(ttls),
        CASE(logs),
        CASE(lists),
        CASE(types),
        CASE(values),
        CASE(version_missing),
        CASE(revision_gone),
        CASE(left_over),
        CASE(notes),
        CASE(quarantine),
        CASE(without_source),
        CASE(random_damage),
        cmocka_unit_test(test_every_kind),
    };
    return cmocka_run_group_tests(tests, fixture_server, fixture_server_end);
}
