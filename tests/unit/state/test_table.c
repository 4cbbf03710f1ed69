/* Each row of core/state/table.h, driven by the real scripts against a real Redis: the lane's state
 * before and after, and the answer, are those of the row. A row without a function of its name here
 * does not compile, so that the table, which the model of tests/model believes, and the scripts
 * cannot part.
 *
 * A function brings about what its condition says, calls `look` at the lane, and does the one thing
 * whose answer it returns. */
#include "fixture.h"
#include "state/inner.h"
#include "state/table.h"

/* ---- One row ---- */

static struct {
    char job[ID_BYTES];
    unsigned lane;
    char before;
    char *hash; /* of the job */
} seen;

static char lane_state(void)
{
    char key[STORE_KEY_BYTES], field[16];
    snprintf(field, sizeof field, "l:%u", seen.lane);
    store_key(store, 0, "job", seen.job, key);
    mem_auto char *text = ask_field(key, field);
    return text ? text[0] : '-';
}

static char *job_text(void)
{
    char key[STORE_KEY_BYTES];
    store_key(store, 0, "job", seen.job, key);
    struct reply all = ask("HGETALL", key, NULL);
    struct buf text;
    buf_init(&text, 64 << 10);
    for (size_t i = 0; i < all.count; i++)
        buf_format(&text, "%s\n", all.items[i].text);
    reply_done(&all);
    return buf_take(&text);
}

static void look(const char *job, unsigned lane)
{
    snprintf(seen.job, sizeof seen.job, "%s", job);
    seen.lane = lane;
    seen.before = lane_state();
    free(seen.hash);
    seen.hash = job_text();
}

static const char *verdict_word(enum lane_verdict verdict)
{
    static const char *const words[] = {
#define X(NAME, word) [LANE_##NAME] = (word),
        STATE_VERDICTS(X)
#undef X
    };
    return words[verdict];
}
static const char *submit_word(struct job_submit job)
{
    static const char *const words[] = {
#define X(NAME, word) [JOB_##NAME] = (word),
        STATE_SUBMITTED(X)
#undef X
    };
    return words[submit(job).outcome];
}
static const char *cancel_word(const char *id, const char *req)
{
    static const char *const words[] = {
#define X(NAME, word) [CANCEL_##NAME] = (word),
        STATE_CANCELS(X)
#undef X
    };
    enum cancel_outcome outcome;
    OK(job_cancel(store, id, req, 60000, &outcome, &err));
    return words[outcome];
}
static const char *again_word(const char *id, const char *req)
{
    static const char *const words[] = {
#define X(NAME, word) [AGAIN_##NAME] = (word),
        STATE_AGAINS(X)
#undef X
    };
    struct job_again again = {.id = id, .req = req, .is_fresh = true};
    enum again_outcome outcome;
    OK(job_run_again(store, &again, &outcome, &err));
    return words[outcome];
}
static const char *erase_word(const char *id)
{
    static const char *const words[] = {
#define X(NAME, word) [ERASE_##NAME] = (word),
        STATE_ERASES(X)
#undef X
    };
    enum erase_outcome outcome;
    OK(job_erase(store, id, &outcome, &err));
    return words[outcome];
}
/* `held`: the key of a resumed pipeline, or "". */
static const char *wake_word(const char *member, const char *held)
{
    static char word[16];
    char id[ID_BYTES];
    assert_int_equal(sscanf(member, "%*c %36s", id), 1);
    call_auto struct call call;
    call_init(&call, store, SCRIPT_wake, 0);
    call_job(&call, id);
    if (held[0])
        call_key(&call, held, NULL);
    call_text(&call, member);
    call_text(&call, held);
    call_text(&call, store->priv->conf);
    call_u64(&call, store->dead_budget);
    struct reply reply;
    OK(call_run(&call, 0, &reply, &err));
    snprintf(word, sizeof word, "%s", reply_text(&reply, 0));
    reply_done(&reply);
    return word;
}
static const char *begin_word(struct lane *lane)
{
    return verdict_word(begin(lane, NULL));
}
static const char *begin_with(struct lane *lane, struct lane_begin how)
{
    struct lane_grant grant;
    how.revision = how.revision ? how.revision : "rev1";
    OK(lane_begin(store, lane, &how, &grant, &err));
    enum lane_verdict verdict = grant.verdict;
    lane_grant_done(&grant);
    return verdict_word(verdict);
}

/* ---- What conditions are made of ---- */

static struct lane_stream normal = {0, "default", QUEUE_NORMAL};

/* The entry passes to another worker, as when its lease was over. */
static struct lane claim_over(const char *worker)
{
    struct lane lane;
    size_t count = 0;
    free(store->worker);
    store->worker = mem_dup(worker);
    uint64_t lease = store->lease_ms;
    store->lease_ms = 0;
    OK(lane_reclaim(store, redis, &normal, 1, &lane, &count, NULL, &err));
    store->lease_ms = lease;
    assert_int_equal(count, 1);
    return lane;
}
static struct lane running(const char *id)
{
    submit_plain(id);
    return claim_and_begin("default");
}
/* A lane that this worker held until another took it over. */
static struct lane lost(const char *id)
{
    struct lane mine = running(id), other = claim_over("node/w2");
    assert_int_equal(begin(&other, NULL), LANE_OK);
    free(store->worker);
    store->worker = mem_dup("node/w1");
    return mine;
}
static struct lane cancelling(const char *id)
{
    struct lane lane = running(id);
    assert_string_equal(cancel_word(id, NULL), "CANCELLING");
    return lane;
}
static void note(const struct lane *lane)
{
    enum lane_verdict verdict;
    OK(lane_note(store, lane, "a", "kid", "job-1/a/t:1", 1000, &verdict, &err));
    assert_int_equal(verdict, LANE_OK);
}
static void fail_job(const char *id)
{
    struct lane lane = running(id);
    assert_int_equal(fail_as(&lane, "a", MR_CLASS_PERMANENT, "bad", 3, 0), LANE_END);
}
/* Two stages side by side in one lane, or in two. */
static struct lane two(const char *id, const char *second_queue)
{
    struct job_first first[2] = {{"a", "default"}, {"b", second_queue}};
    submit((struct job_submit){.id = id, .first = first, .first_count = 2});
    return claim_and_begin("default");
}
static struct job_submit child(const char *req)
{
    return (struct job_submit){.id = "kid", .mode = JOB_CALL, .req = req, .prio = QUEUE_CALL};
}
/* The mover would find it due now. */
static void make_due(const char *member)
{
    struct reply reply = ask("ZADD", "mr:{0}:due", "1", member, NULL);
    reply_done(&reply);
}

/* ---- submit ---- */

static const char *submit_new(void)
{
    look("job-1", 1);
    return submit_word((struct job_submit){.id = "job-1"});
}
static const char *submit_delayed(void)
{
    look("job-1", 1);
    return submit_word((struct job_submit){.id = "job-1", .delay_ms = 60000});
}
static const char *submit_there(void)
{
    running("job-1");
    look("job-1", 1);
    return submit_word((struct job_submit){.id = "job-1"});
}
static const char *submit_other_input(void)
{
    submit_plain("job-1");
    look("job-1", 1);
    return submit_word((struct job_submit){.id = "job-1", .digest = "other"});
}
static const char *submit_queue_full(void)
{
    submit_plain("job-1");
    look("job-2", 1);
    return submit_word((struct job_submit){.id = "job-2", .queue_max = 1});
}
static const char *submit_failed(void)
{
    fail_job("job-1");
    look("job-1", 2);
    return submit_word((struct job_submit){.id = "job-1"});
}
static const char *fail_child_and_submit(const char *req)
{
    submit(child("job-1/a/t:1"));
    struct lane lane = claim_and_begin("default");
    assert_int_equal(fail_as(&lane, "a", MR_CLASS_PERMANENT, "bad", 3, 0), LANE_END);
    look("kid", 2);
    return submit_word(child(req));
}
static const char *submit_child_of_later_round(void)
{
    return fail_child_and_submit("job-1/a/t:2");
}
static const char *submit_child_of_same_round(void)
{
    return fail_child_and_submit("job-1/a/t:1");
}
static const char *submit_tombstone(void)
{
    assert_string_equal(cancel_word("kid", "job-1/a/t:1"), "NONE");
    look("kid", 1);
    return submit_word(child("job-1/a/t:1"));
}
static const char *submit_tombstone_of_earlier_round(void)
{
    assert_string_equal(cancel_word("kid", "job-1/a/t:1"), "NONE");
    look("kid", 1);
    return submit_word(child("job-1/a/t:2"));
}

/* ---- begin ---- */

static const char *begin_queued(void)
{
    submit_plain("job-1");
    struct lane lane = claim("default");
    look("job-1", 1);
    return begin_word(&lane);
}
static const char *begin_taken_over(void)
{
    running("job-1");
    struct lane lane = claim_over("node/w2");
    look("job-1", 1);
    return begin_word(&lane);
}
static const char *begin_same_fence(void)
{
    struct lane lane = running("job-1");
    look("job-1", 1);
    return begin_word(&lane);
}
static const char *begin_stopped_with_children(void)
{
    struct lane lane = running("job-1");
    enum lane_verdict verdict;
    note(&lane);
    OK(lane_handback(store, &lane, &verdict, &err));
    assert_string_equal(cancel_word("job-1", NULL), "CANCELLING");
    lane = claim("default");
    look("job-1", 1);
    return begin_word(&lane);
}
static const char *begin_stopped(void)
{
    cancelling("job-1");
    struct lane lane = claim_over("node/w2");
    look("job-1", 1);
    return begin_word(&lane);
}
static const char *begin_unknown_revision(void)
{
    struct lane lane = running("job-1");
    enum lane_verdict verdict;
    OK(lane_handback(store, &lane, &verdict, &err));
    lane = claim("default");
    look("job-1", 1);
    return begin_with(&lane, (struct lane_begin){.revision = "rev2"});
}
static const char *begin_crashed_too_often(void)
{
    running("job-1");
    for (int i = 0; i < STATE_MAX_TAKEOVERS; i++) {
        struct lane lane = claim_over("node/w2");
        assert_int_equal(begin(&lane, NULL), LANE_OK);
    }
    struct lane lane = claim_over("node/w2");
    look("job-1", 1);
    return begin_word(&lane);
}
static struct lane suspect(void)
{
    running("job-1");
    struct lane lane = claim_over("node/w2");
    assert_int_equal(begin(&lane, NULL), LANE_OK);
    return claim_over("node/w3");
}
static const char *begin_suspect(void)
{
    struct lane lane = suspect();
    look("job-1", 1);
    return begin_with(&lane, (struct lane_begin){.takeovers_max = 1});
}
static const char *begin_suspect_put_off(void)
{
    struct lane lane = suspect();
    look("job-1", 1);
    return begin_with(&lane, (struct lane_begin){.takeovers_max = 1, .put_off_ms = 1000});
}
static const char *begin_paused(void)
{
    submit_plain("job-1");
    OK(pipeline_pause(store, "p", &err));
    struct lane lane = claim("default");
    look("job-1", 1);
    return begin_word(&lane);
}
static const char *begin_no_lane(void)
{
    submit_plain("job-1");
    struct lane lane = claim("default");
    assert_string_equal(cancel_word("job-1", NULL), "CANCELLED");
    look("job-1", 1);
    return begin_word(&lane);
}
static const char *begin_other_entry(void)
{
    running("job-1");
    struct reply reply =
        ask("XADD", "mr:{0}:queue:default:normal", "*", "j", "job-1", "l", "1", "p", "p", NULL);
    reply_done(&reply);
    struct lane extra = claim("default");
    look("job-1", 1);
    return begin_word(&extra);
}
static const char *begin_claimed_by_another(void)
{
    submit_plain("job-1");
    struct lane lane = claim("default");
    claim_over("node/w2");
    free(store->worker);
    store->worker = mem_dup("node/w1");
    look("job-1", 1);
    return begin_word(&lane);
}

/* ---- renew, note, step, tell ---- */

static const char *renew_word(const struct lane *lane)
{
    struct redis_config config = {.path = server.path};
    snprintf(store->instance, sizeof store->instance, "%s", "instance");
    struct lane_keeper *keeper = lane_keeper_new(store, &config);
    struct lane_renewal renewal = {.lane = *lane};
    OK(lane_renew(keeper, &renewal, 1, 5000, &err));
    lane_keeper_free(keeper);
    return verdict_word(renewal.verdict);
}
static const char *note_word(const struct lane *lane)
{
    enum lane_verdict verdict;
    OK(lane_note(store, lane, "a", "kid", "job-1/a/t:1", 1000, &verdict, &err));
    return verdict_word(verdict);
}
static const char *step_word(const struct lane *lane)
{
    enum lane_verdict verdict;
    OK(lane_step(store, lane, "a", "one", "1", 1, NULL, &verdict, &err));
    return verdict_word(verdict);
}
static const char *tell_word(const struct lane *lane)
{
    enum lane_verdict verdict;
    OK(lane_tell(store, lane, NULL, 0, 30, &verdict, &err));
    return verdict_word(verdict);
}
#define WHILE_RUNNING(script)                                                                      \
    static const char *script##_runs(void)                                                         \
    {                                                                                              \
        struct lane lane = running("job-1");                                                       \
        look("job-1", 1);                                                                          \
        return script##_word(&lane);                                                               \
    }                                                                                              \
    static const char *script##_not_mine(void)                                                     \
    {                                                                                              \
        struct lane lane = lost("job-1");                                                          \
        look("job-1", 1);                                                                          \
        return script##_word(&lane);                                                               \
    }
#define WHILE_STOPPED(script)                                                                      \
    static const char *script##_stopped(void)                                                      \
    {                                                                                              \
        struct lane lane = cancelling("job-1");                                                    \
        look("job-1", 1);                                                                          \
        return script##_word(&lane);                                                               \
    }
WHILE_RUNNING(renew)
WHILE_STOPPED(renew)
WHILE_RUNNING(note)
WHILE_STOPPED(note)
WHILE_RUNNING(step)
WHILE_STOPPED(step)
WHILE_RUNNING(tell)
WHILE_STOPPED(tell)

/* ---- commit and fail ---- */

static const char *commit_word(const struct lane *lane)
{
    return verdict_word(commit(lane, "a", "", 1, "{}", NULL));
}
static const char *commit_not_mine(void)
{
    struct lane lane = lost("job-1");
    look("job-1", 1);
    return commit_word(&lane);
}
WHILE_STOPPED(commit)
static const char *commit_more_to_do(void)
{
    struct lane lane = running("job-1");
    look("job-1", 1);
    return verdict_word(commit(&lane, "a", "b", 2, NULL, NULL));
}
static const char *commit_more_elsewhere(void)
{
    struct lane lane = running("job-1");
    look("job-1", 1);
    return verdict_word(commit_to(&lane, "a", "b", "other", 2, NULL, NULL));
}
static const char *commit_last_with_result(void)
{
    struct lane lane = running("job-1");
    look("job-1", 1);
    return commit_word(&lane);
}
static struct lane two_cancelling(void)
{
    struct lane lane = two("job-1", "default");
    assert_string_equal(cancel_word("job-1", NULL), "CANCELLING");
    return lane;
}
static const char *commit_stopped_with_more(void)
{
    struct lane lane = two_cancelling();
    look("job-1", 1);
    return verdict_word(commit(&lane, "a", "", 2, NULL, NULL));
}
static const char *commit_repeated(void)
{
    struct lane lane = running("job-1");
    commit(&lane, "a", "b", 2, NULL, NULL);
    look("job-1", 1);
    return verdict_word(commit(&lane, "a", "b", 2, NULL, NULL));
}
static const char *commit_repeated_and_stopped(void)
{
    struct lane lane = two_cancelling();
    commit(&lane, "a", "", 2, NULL, NULL);
    look("job-1", 1);
    return verdict_word(commit(&lane, "a", "", 2, NULL, NULL));
}
static const char *fail_word(const struct lane *lane)
{
    return verdict_word(fail_as(lane, "a", MR_CLASS_RETRY, "away", 3, 1000));
}
static const char *fail_not_mine(void)
{
    struct lane lane = lost("job-1");
    look("job-1", 1);
    return fail_word(&lane);
}
WHILE_STOPPED(fail)
static const char *fail_retry(void)
{
    struct lane lane = running("job-1");
    look("job-1", 1);
    return fail_word(&lane);
}
static const char *fail_permanent(void)
{
    struct lane lane = running("job-1");
    look("job-1", 1);
    return verdict_word(fail_as(&lane, "a", MR_CLASS_PERMANENT, "bad", 3, 0));
}
static const char *fail_with_sibling(void)
{
    struct lane lane = two("job-1", "default");
    look("job-1", 1);
    return verdict_word(fail_as(&lane, "a", MR_CLASS_PERMANENT, "bad", 3, 0));
}
static const char *fail_stopped_with_sibling(void)
{
    struct lane lane = two_cancelling();
    look("job-1", 1);
    return fail_word(&lane);
}

/* ---- park, handback, drop ---- */

static const char *park_word(const struct lane *lane)
{
    enum lane_verdict verdict;
    OK(lane_park(store, lane, 1000, &verdict, &err));
    return verdict_word(verdict);
}
static const char *handback_word(const struct lane *lane)
{
    enum lane_verdict verdict;
    OK(lane_handback(store, lane, &verdict, &err));
    return verdict_word(verdict);
}
static const char *drop_word(const struct lane *lane)
{
    enum lane_verdict verdict;
    OK(lane_drop(store, lane, &verdict, &err));
    return verdict_word(verdict);
}
WHILE_RUNNING(park)
WHILE_RUNNING(handback)
WHILE_RUNNING(drop)
WHILE_STOPPED(drop)
static const char *drop_stop_forgotten(void)
{
    return drop_runs();
}

/* ---- cancel ---- */

static const char *cancel_queued(void)
{
    submit_plain("job-1");
    look("job-1", 1);
    return cancel_word("job-1", NULL);
}
static const char *cancel_due(void)
{
    submit((struct job_submit){.id = "job-1", .delay_ms = 60000});
    look("job-1", 1);
    return cancel_word("job-1", NULL);
}
static const char *cancel_held(void)
{
    assert_string_equal(begin_paused(), "HELD");
    look("job-1", 1);
    return cancel_word("job-1", NULL);
}
static const char *cancel_running(void)
{
    running("job-1");
    look("job-1", 1);
    return cancel_word("job-1", NULL);
}
static const char *cancel_another_runs(void)
{
    two("job-1", "other");
    look("job-1", 2);
    return cancel_word("job-1", NULL);
}
static const char *cancel_another_lane_runs(void)
{
    struct lane lane = two("job-1", "default");
    assert_string_equal(fail_word(&lane), "OK"); /* `a` waits for its next attempt */
    look("job-1", 2);
    return cancel_word("job-1", NULL);
}
static void hand_back_with_child(void)
{
    struct lane lane = running("job-1");
    note(&lane);
    assert_string_equal(handback_word(&lane), "OK");
}
static const char *cancel_queued_with_children(void)
{
    hand_back_with_child();
    look("job-1", 1);
    return cancel_word("job-1", NULL);
}
static void park_with_child(void)
{
    struct lane lane = running("job-1");
    note(&lane);
    assert_string_equal(park_word(&lane), "OK");
}
static const char *cancel_due_with_children(void)
{
    park_with_child();
    look("job-1", 1);
    return cancel_word("job-1", NULL);
}
static const char *cancel_cancelled(void)
{
    assert_string_equal(cancel_queued(), "CANCELLED");
    look("job-1", 1);
    return cancel_word("job-1", NULL);
}
static const char *cancel_ended(void)
{
    struct lane lane = running("job-1");
    assert_string_equal(commit_word(&lane), "END");
    look("job-1", 1);
    return cancel_word("job-1", NULL);
}
static const char *cancel_absent(void)
{
    look("job-1", 1);
    return cancel_word("job-1", NULL);
}
static const char *cancel_of_later_round(void)
{
    submit(child("job-1/a/t:2"));
    look("kid", 1);
    return cancel_word("kid", "job-1/a/t:1");
}

/* ---- wake, again, erase ---- */

static const char *wake_due(void)
{
    submit((struct job_submit){.id = "job-1", .delay_ms = 60000});
    make_due("l job-1 1");
    look("job-1", 1);
    return wake_word("l job-1 1", "");
}
static const char *wake_early(void)
{
    submit((struct job_submit){.id = "job-1", .delay_ms = 60000});
    look("job-1", 1);
    return wake_word("l job-1 1", "");
}
static const char *wake_resumed(void)
{
    assert_string_equal(begin_paused(), "HELD");
    OK(pipeline_resume(store, "p", &err));
    look("job-1", 1);
    return wake_word("l job-1 1", "held:p");
}
static const char *wake_moved_on(void)
{
    running("job-1");
    make_due("l job-1 1");
    look("job-1", 1);
    return wake_word("l job-1 1", "");
}
static const char *deadline_of(const char *id)
{
    char member[64];
    snprintf(member, sizeof member, "x %s", id);
    make_due(member);
    look(id, 1);
    return wake_word(member, "");
}
static const char *wake_deadline(void)
{
    submit((struct job_submit){.id = "job-1", .ttl_ms = 60000});
    return deadline_of("job-1");
}
static const char *wake_deadline_while_due(void)
{
    submit((struct job_submit){.id = "job-1", .ttl_ms = 60000, .delay_ms = 60000});
    return deadline_of("job-1");
}
static const char *wake_deadline_while_running(void)
{
    submit((struct job_submit){.id = "job-1", .ttl_ms = 60000});
    claim_and_begin("default");
    return deadline_of("job-1");
}
static const char *wake_deadline_with_children(void)
{
    park_with_child();
    return deadline_of("job-1");
}
static const char *wake_deadline_with_children_queued(void)
{
    hand_back_with_child();
    return deadline_of("job-1");
}
static const char *wake_dead_letter(void)
{
    struct lane lane = running("job-1");
    assert_int_equal(fail_as(&lane, "a", MR_CLASS_RETRY, "away", 1, 0), LANE_END);
    make_due("d job-1");
    look("job-1", 2);
    return wake_word("d job-1", "");
}
static const char *again_failed(void)
{
    fail_job("job-1");
    look("job-1", 2);
    return again_word("job-1", "hand");
}
static const char *again_repeated(void)
{
    fail_job("job-1");
    assert_string_equal(again_word("job-1", "hand"), "AGAIN");
    look("job-1", 2);
    return again_word("job-1", "hand");
}
static const char *again_not_failed(void)
{
    running("job-1");
    look("job-1", 1);
    return again_word("job-1", "hand");
}
static const char *again_absent(void)
{
    look("job-1", 1);
    return again_word("job-1", "hand");
}
static const char *erase_queued(void)
{
    submit_plain("job-1");
    look("job-1", 1);
    return erase_word("job-1");
}
static const char *erase_running(void)
{
    running("job-1");
    look("job-1", 1);
    return erase_word("job-1");
}
static const char *erase_absent(void)
{
    look("job-1", 1);
    return erase_word("job-1");
}

/* ---- The table ---- */

/* Letters of the states; `*`: whatever it is, and nothing is written. */
enum {
    ROW_NONE = '-',
    ROW_ANY = '*',
#define X(NAME, letter, word) ROW_##NAME = (letter),
    STATE_LANES(X)
#undef X
};
struct row {
    const char *name;
    const char *(*run)(void);
    char before, after;
    const char *reply;
};
#define X(script, caller, BEFORE, AFTER, condition, REPLY)                                         \
    {#script ", " #condition, script##_##condition, ROW_##BEFORE, ROW_##AFTER, #REPLY},
static const struct row rows[] = {STATE_TRANSITIONS(X)};
#undef X
#define ROWS (sizeof rows / sizeof *rows)

static const struct row *this_row;

static void run_row(void *arg)
{
    (void)arg;
    const struct row *row = this_row;
    const char *reply = row->run();
    char after = lane_state();
    if (strcmp(reply, row->reply) != 0)
        fail_msg("%s: answered %s, the table says %s", row->name, reply, row->reply);
    if (row->before == ROW_ANY) {
        mem_auto char *hash = job_text();
        if (after != seen.before || strcmp(hash, seen.hash) != 0)
            fail_msg("%s: it has written:\n%s\nbefore it was:\n%s", row->name, hash, seen.hash);
    } else if (seen.before != row->before || after != row->after) {
        fail_msg("%s: lane %u went from %c to %c, the table says from %c to %c", row->name,
                 seen.lane, seen.before, after, row->before, row->after);
    }
    free(seen.hash);
    seen.hash = NULL;
    check_invariants();
}

static void test_row(void **state)
{
    this_row = *state;
    on_fiber(run_row);
}

static int row_setup(void **state)
{
    void *row = *state;
    int rc = fixture_setup(state);
    *state = row;
    return rc;
}

int main(void)
{
    struct CMUnitTest tests[ROWS];
    for (size_t i = 0; i < ROWS; i++)
        tests[i] = (struct CMUnitTest){.name = rows[i].name,
                                       .test_func = test_row,
                                       .setup_func = row_setup,
                                       .teardown_func = fixture_teardown,
                                       .initial_state = (void *)(uintptr_t)&rows[i]};
    return cmocka_run_group_tests(tests, fixture_server, fixture_server_end);
}
