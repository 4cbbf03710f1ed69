/* What the tests of this layer share: a server and a store, short forms of the calls, and a check
 * of the protocol's invariants over all keys. Include in one file of a program, before cmocka.h is
 * used; tests are functions that run on a fiber: `static void name(void *arg)`. */
#pragma once

#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "lossy.h"
#include "redis_server.h"
#include "state/fsck.h"
#include "state/job.h"
#include "state/lane.h"
#include "state/watch.h"
#include <inttypes.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct loop loop;
static struct redis_server server;
static struct redis *redis;
static struct store *store;
static uint64_t request; /* makes each req another */

/* ---- Set-up ---- */

static inline struct store_config fixture_config(void)
{
    return (struct store_config){.loop = &loop,
                                 .redis = redis,
                                 .lease_ms = 1000,
                                 .max_crashes = 3,
                                 .dead_schedule_ms = {60, 60},
                                 .dead_schedule_count = 2};
}

static inline void fixture_open(const char *path, const struct store_config *config)
{
    struct redis_config at = {.path = (char *)path};
    assert_int_equal(loop_init(&loop, NULL), MR_OK);
    redis = redis_open(&loop, &at, "test");
    struct store_config mine = config ? *config : fixture_config();
    mine.loop = &loop;
    mine.redis = redis;
    assert_int_equal(store_open(&mine, &store, NULL), MR_OK);
    store->patience_ms = 10000;
    store->worker = mem_dup("node/w1");
}

static inline void fixture_close(void)
{
    store_close(store);
    redis_close(redis);
    loop_done(&loop);
    store = NULL;
}

static inline int fixture_server(void **state)
{
    (void)state;
    redis_server_start(&server);
    return 0;
}

/* A cluster of one node: there a script that touches a key of another slot than it declared fails.
 */
static inline int fixture_cluster(void **state)
{
    (void)state;
    char port[16], reply[4096];
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&address, size) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        return -1;
    close(fd);
    snprintf(port, sizeof(port), "%u", ntohs(address.sin_port));
    const char *const more[] = {"--cluster-enabled", "yes", "--cluster-port", port, NULL};
    redis_server_prepare(&server);
    redis_server_run(&server, more);
    redis_server_ask(&server, "CLUSTER ADDSLOTSRANGE 0 16383", reply, sizeof(reply));
    for (uint64_t stop = clock_now_ms() + 20000; clock_now_ms() < stop;) {
        redis_server_ask(&server, "CLUSTER INFO", reply, sizeof(reply));
        if (strstr(reply, "cluster_state:ok"))
            return 0;
        poll(NULL, 0, 20);
    }
    return -1;
}

static inline int fixture_server_end(void **state)
{
    (void)state;
    char nodes[128];
    snprintf(nodes, sizeof(nodes), "%s/nodes.conf", server.dir);
    unlink(nodes);
    redis_server_stop(&server);
    fiber_trim();
    return 0;
}

static inline int fixture_setup(void **state)
{
    (void)state;
    char reply[64];
    redis_server_ask(&server, "FLUSHALL", reply, sizeof(reply));
    fixture_open(server.path, NULL);
    return 0;
}

static inline int fixture_teardown(void **state)
{
    (void)state;
    fixture_close();
    return 0;
}

static inline void on_fiber(void (*fn)(void *arg))
{
    assert_int_equal(loop_spawn(&loop, NULL, fn, NULL), MR_OK);
    loop_run_fibers(&loop);
}

static inline void expect_ok(int rc, const struct error *err, const char *what, int line)
{
    if (rc != MR_OK)
        fail_msg("%s at line %d: %d %s (%s)", what, line, rc, err->message, err->detail);
}
/* `call` uses `&err`. */
#define OK(call)                                                                                   \
    do {                                                                                           \
        struct error err = {0};                                                                    \
        expect_ok(call, &err, #call, __LINE__);                                                    \
    } while (0)

/* ---- Short forms ---- */

static inline struct reply ask(const char *first, ...)
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
    return reply;
}

static inline int64_t ask_int(const char *first, const char *second)
{
    struct reply reply = ask(first, second, NULL);
    assert_int_equal(reply.type, REPLY_INT);
    int64_t value = reply.integer;
    reply_done(&reply);
    return value;
}

static inline char *ask_field(const char *key, const char *field)
{
    struct reply reply = ask("HGET", key, field, NULL);
    char *text = reply.text;
    reply.text = NULL;
    reply_done(&reply);
    return text;
}

/* Ids without a req of their own get one. */
static inline struct job_submitted submit(struct job_submit job)
{
    static const struct job_first first = {"a", "default"};
    char req[32];
    snprintf(req, sizeof(req), "req-%" PRIu64, ++request);
    if (!job.pipeline)
        job.pipeline = "p";
    if (!job.digest)
        job.digest = "digest";
    if (!job.input) {
        job.input = "{}";
        job.input_len = 2;
    }
    if (!job.req)
        job.req = req;
    if (!job.prio)
        job.prio = QUEUE_NORMAL;
    if (!job.first) {
        job.first = &first;
        job.first_count = 1;
    }
    struct job_submitted submitted;
    OK(job_submit(store, &job, &submitted, &err));
    return submitted;
}

static inline void submit_plain(const char *id)
{
    assert_int_equal(submit((struct job_submit){.id = id}).outcome, JOB_NEW);
}

/* One entry of a stream, if there is one. */
static inline bool claim_from(const char *queue, enum queue_class class, struct lane *ret)
{
    struct lane_stream stream = {0, queue, class};
    size_t count;
    OK(lane_claim(store, redis, &stream, 1, 1, 0, ret, &count, &err));
    return count == 1;
}

static inline struct lane claim(const char *queue)
{
    struct lane lane;
    for (enum queue_class class = QUEUE_RECOVERED; class < QUEUE_CLASSES; class ++)
        if (claim_from(queue, class, &lane))
            return lane;
    fail_msg("nothing to claim in queue %s", queue);
    return lane;
}

static inline bool is_claimable(const char *queue)
{
    uint64_t entries = 0;
    for (unsigned class = 0; class < QUEUE_CLASSES; class ++) {
        char key[STORE_KEY_BYTES];
        store_queue_key(store, 0, queue, (enum queue_class) class, key);
        struct reply group = ask("EXISTS", key, NULL);
        if (group.integer == 0) {
            reply_done(&group);
            continue;
        }
        reply_done(&group);
        struct reply length = ask("XLEN", key, NULL), pending;
        uint64_t of_stream = (uint64_t)length.integer;
        reply_done(&length);
        if (redis_command(redis, &pending, NULL, "XPENDING", key, "workers", NULL) == MR_OK) {
            of_stream -= (uint64_t)pending.items[0].integer;
            reply_done(&pending);
        }
        entries += of_stream;
    }
    return entries > 0;
}

static const struct lane_begin plain_begin = {.revision = "rev1"};

static inline enum lane_verdict begin(struct lane *lane, struct lane_grant *ret)
{
    struct lane_grant grant;
    OK(lane_begin(store, lane, &plain_begin, &grant, &err));
    enum lane_verdict verdict = grant.verdict;
    if (ret)
        *ret = grant;
    else
        lane_grant_done(&grant);
    return verdict;
}

static inline struct lane claim_and_begin(const char *queue)
{
    struct lane lane = claim(queue);
    assert_int_equal(begin(&lane, NULL), LANE_OK);
    return lane;
}

/* Commits with output `"STAGE"`; `next`: names of stages in queue default that need only this one,
 * separated by a space; "" for none. Returns what is open, joined by a space. */
static inline enum lane_verdict commit_to(const struct lane *lane, const char *stage,
                                          const char *next, const char *queue, uint32_t total,
                                          const char *result, char ret_open[256])
{
    char names[8][STORE_STAGE_BYTES], output[64];
    struct lane_successor successors[8];
    const char *needs[1] = {stage};
    uint32_t count = 0;
    for (const char *at = next; *at; count++) {
        size_t len = strcspn(at, " ");
        snprintf(names[count], sizeof(names[count]), "%.*s", (int)len, at);
        successors[count] = (struct lane_successor){names[count], queue, needs, 1};
        at += len + (at[len] == ' ');
    }
    snprintf(output, sizeof(output), "\"%s\"", stage);
    struct lane_commit commit = {.stage = stage,
                                 .output = output,
                                 .output_len = strlen(output),
                                 .successors = successors,
                                 .successor_count = count,
                                 .total = total,
                                 .result = result,
                                 .result_len = result ? strlen(result) : 0,
                                 .known = 256};
    struct lane_next after;
    OK(lane_commit(store, lane, &commit, &after, &err));
    enum lane_verdict verdict = after.verdict;
    if (ret_open) {
        ret_open[0] = '\0';
        for (uint32_t i = 0; i < after.open_count; i++)
            snprintf(ret_open + strlen(ret_open), 256 - strlen(ret_open), "%s%s", i ? " " : "",
                     after.open[i]);
    }
    lane_next_done(&after);
    return verdict;
}

static inline enum lane_verdict commit(const struct lane *lane, const char *stage, const char *next,
                                       uint32_t total, const char *result, char ret_open[256])
{
    return commit_to(lane, stage, next, "default", total, result, ret_open);
}

static inline enum lane_verdict fail_as(const struct lane *lane, const char *stage,
                                        enum mr_class class, const char *code, uint32_t attempts,
                                        uint64_t delay_ms)
{
    struct lane_fail fail = {.stage = stage,
                             .class = class,
                             .code = code,
                             .message = "it \"failed\"\n",
                             .delay_ms = delay_ms,
                             .attempts = attempts};
    struct lane_next after;
    OK(lane_fail(store, lane, &fail, &after, &err));
    enum lane_verdict verdict = after.verdict;
    lane_next_done(&after);
    return verdict;
}

static inline struct job_view *view(const char *id)
{
    struct job_view *ret = NULL;
    OK(job_read(store, id, JOB_WANT_OUTPUTS, &ret, &err));
    return ret;
}

static inline void expect_status(const char *id, const char *status, int line)
{
    struct job_view *job = view(id);
    if (!job)
        fail_msg("line %d: there is no job %s", line, id);
    if (strcmp(job->status, status) != 0)
        fail_msg("line %d: job %s is %s, not %s", line, id, job->status, status);
    job_view_free(job);
}
#define EXPECT_STATUS(id, status) expect_status(id, status, __LINE__)

/* Kinds and stages of all events, "kind stage;…". */
static inline void expect_events(const char *id, const char *want, int line)
{
    struct job_event *events;
    size_t count;
    uint64_t total;
    char got[2048] = "";
    OK(job_events(store, id, 0, 200, &events, &count, &total, &err));
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(events[i].number, i + 1);
        json_t *data = json_loads(events[i].data, 0, NULL);
        if (!data)
            fail_msg("line %d: no JSON: %s", line, events[i].data);
        assert_string_equal(json_string_value(json_object_get(data, "job")), id);
        assert_int_equal(clock_parse(json_string_value(json_object_get(data, "at"))),
                         events[i].at_ms);
        assert_true(json_is_integer(json_object_get(data, "progress")));
        const char *stage = json_string_value(json_object_get(data, "stage"));
        snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s%s%s;", events[i].kind,
                 stage ? " " : "", stage ? stage : "");
        json_decref(data);
        job_event_done(&events[i]);
    }
    free(events);
    assert_int_equal(total, count);
    if (strcmp(got, want) != 0)
        fail_msg("line %d: events of %s\n got  %s\n want %s", line, id, got, want);
}
#define EXPECT_EVENTS(id, want) expect_events(id, want, __LINE__)

/* Runs movers until `until` is claimable or a job reaches a status; whatever is due within 5 s. */
static inline void move_until(bool (*is_there)(void *arg), void *arg)
{
    for (uint64_t stop = clock_now_ms() + 5000; clock_now_ms() < stop;) {
        uint64_t sleep_ms;
        uint32_t woken;
        OK(mover_turn(store, 0, &sleep_ms, &woken, &err));
        if (is_there(arg))
            return;
        assert_int_equal(wait_sleep(&loop, sleep_ms < 20 ? sleep_ms + 1 : 20), MR_OK);
    }
    fail_msg("nothing became due in 5 s");
}

static inline bool queue_has_work(void *queue)
{
    return is_claimable(queue);
}

/* ---- Invariants ---- */

static inline void check_lane(const struct job_view *job, const struct job_lane_view *lane)
{
    char member[80], key[STORE_KEY_BYTES];
    snprintf(member, sizeof(member), "l %s %u", job->id, lane->number);
    uint32_t partition = store_partition(store, job->id);
    if (lane->state == 'q' || lane->state == 'r') {
        store_queue_key(store, partition, lane->queue, lane->class, key);
        struct reply entry = ask("XRANGE", key, lane->entry, lane->entry, NULL);
        if (entry.count != 1)
            fail_msg("lane %s has no entry %s in %s", member, lane->entry, key);
        assert_string_equal(entry.items[0].items[1].items[1].text, job->id);
        reply_done(&entry);
    } else {
        mem_auto char *kind =
            lane->state == 'd' ? mem_dup("due") : mem_format("held:%s", job->pipeline);
        store_key(store, partition, kind, NULL, key);
        struct reply score = ask("ZSCORE", key, member, NULL);
        if (score.type != REPLY_TEXT)
            fail_msg("lane %s in %c is not in %s", member, lane->state, key);
        if (lane->state == 'd')
            assert_int_equal(strtoull(score.text, NULL, 10), lane->due_ms);
        reply_done(&score);
    }
}

static inline void check_job(const char *id)
{
    struct job_view *job = view(id);
    if (!job) /* a tombstone */
        return;
    uint32_t running = 0, queued = 0, after = 0, done = 0;
    for (uint32_t i = 0; i < job->lane_count; i++) {
        running += job->lanes[i].state == 'r';
        queued += job->lanes[i].state == 'q';
        after += strcmp(job->lanes[i].stages, "$after") == 0;
        assert_true(job->lanes[i].stages[0] != '\0');
        check_lane(job, &job->lanes[i]);
    }
    char key[STORE_KEY_BYTES];
    uint32_t partition = store_partition(store, id);
    int64_t ttl = ask_int("PTTL", store_key(store, partition, "job", id, key));
    mem_auto char *lanes = ask_field(key, "lanes");
    uint32_t listed = lanes[0] ? 1 : 0;
    for (const char *at = lanes; *at; at++)
        listed += *at == ',';
    assert_int_equal(listed, job->lane_count);
    if (job->is_ended) {
        assert_int_equal(job->lane_count, after);
        assert_true(ttl > 0);
        assert_true(job->finished_ms >= job->created_ms);
    } else {
        assert_true(job->lane_count > 0);
        assert_int_equal(after, 0);
        assert_int_equal(ttl, -1);
        const char *status = running ? "processing" : queued ? "queued" : "waiting";
        if (strcmp(job->status, status) != 0)
            fail_msg("job %s is %s, by its lanes %s", id, job->status, status);
        store_key(store, partition, "log", id, key);
        assert_int_equal(ask_int("PTTL", key), -1);
        assert_true(job->has_log);
    }
    for (uint32_t s = 0; s < job->stage_count; s++) {
        const struct job_stage_view *stage = &job->stages[s];
        uint32_t held_by = 0;
        for (uint32_t l = 0; l < job->lane_count; l++) {
            mem_auto char *list = mem_dup(job->lanes[l].stages);
            char *rest = list;
            for (char *name; (name = strsep(&rest, ","));)
                held_by += strcmp(name, stage->name) == 0;
        }
        done += stage->state == 'd' || stage->state == 's';
        assert_true(held_by <= 1);
        if (stage->state == 'o' && !job->stop[0] && !job->is_ended)
            assert_int_equal(held_by, 1);
        if (stage->state != 'o')
            assert_int_equal(held_by, 0);
        if (stage->state == 'd' && job->has_log)
            assert_non_null(stage->output);
    }
    store_key(store, partition, "job", id, key);
    mem_auto char *held = ask_field(key, "held"), *counted = ask_field(key, "done");
    if (held) {
        char list[STORE_KEY_BYTES];
        mem_auto char *member = mem_format("%s %s", held, id);
        struct reply score =
            ask("ZSCORE", store_key(store, partition, "dead:held", NULL, list), member, NULL);
        assert_int_equal(score.type, REPLY_TEXT);
        reply_done(&score);
    }
    assert_int_equal(counted ? atoi(counted) : 0, done);
    job_view_free(job);
}

/* Each entry is that of a lane; each member stands for something. */
static inline void check_stream(const char *key)
{
    struct reply entries = ask("XRANGE", key, "-", "+", NULL);
    for (size_t i = 0; i < entries.count; i++) {
        const struct reply *fields = &entries.items[i].items[1];
        struct job_view *job = view(fields->items[1].text);
        if (!job)
            fail_msg("%s: an entry of job %s, which is not there", key, fields->items[1].text);
        bool is_named = false;
        for (uint32_t l = 0; l < job->lane_count; l++)
            is_named |= job->lanes[l].number == (uint32_t)atoi(fields->items[3].text) &&
                        strcmp(job->lanes[l].entry, entries.items[i].items[0].text) == 0;
        if (!is_named)
            fail_msg("%s: entry %s of %s is no lane's", key, entries.items[i].items[0].text,
                     job->id);
        job_view_free(job);
    }
    reply_done(&entries);
}

static inline void check_members(const char *key, char lane_state)
{
    struct reply members = ask("ZRANGE", key, "0", "-1", NULL);
    for (size_t i = 0; i < members.count; i++) {
        char kind, id[40];
        unsigned number = 0;
        if (strncmp(members.items[i].text, "f ", 2) == 0) /* a breaker that has closed */
            continue;
        assert_true(sscanf(members.items[i].text, "%c %39s %u", &kind, id, &number) >= 2);
        struct job_view *job = view(id);
        if (!job)
            fail_msg("%s: %s of a job that is not there", key, members.items[i].text);
        bool stands = kind == 'x' ? !job->is_ended && job->deadline_ms > 0
                                  : kind == 'd' && strcmp(job->status, "failed") == 0;
        for (uint32_t l = 0; l < job->lane_count && kind == 'l'; l++)
            stands |= job->lanes[l].number == number && job->lanes[l].state == lane_state;
        if (!stands)
            fail_msg("%s: %s stands for nothing", key, members.items[i].text);
        job_view_free(job);
    }
    reply_done(&members);
}

/* What an open breaker holds: a failed job that says so and is not due to run by itself. */
static inline void check_dead_held(const char *key)
{
    struct reply members = ask("ZRANGE", key, "0", "-1", NULL);
    for (size_t i = 0; i < members.count; i++) {
        char *member = members.items[i].text, *id = strrchr(member, ' '), job[STORE_KEY_BYTES];
        assert_non_null(id);
        *id++ = '\0';
        store_key(store, store_partition(store, id), "job", id, job);
        mem_auto char *held = ask_field(job, "held"), *status = ask_field(job, "status"),
                      *next = ask_field(job, "next");
        if (!held || strcmp(held, member) != 0 || !status || strcmp(status, "failed") != 0 || next)
            fail_msg("%s: %s of %s stands for nothing", key, member, id);
    }
    reply_done(&members);
}

static inline void check_invariants(void)
{
    struct reply keys = ask("KEYS", "mr:*", NULL);
    for (size_t i = 0; i < keys.count; i++) {
        const char *key = keys.items[i].text, *kind = strchr(key, '}');
        if (!kind || kind[1] != ':')
            continue;
        kind += 2;
        if (strncmp(kind, "job:", 4) == 0)
            check_job(kind + 4);
        else if (strncmp(kind, "queue:", 6) == 0)
            check_stream(key);
        else if (strcmp(kind, "due") == 0)
            check_members(key, 'd');
        else if (strncmp(kind, "held:", 5) == 0)
            check_members(key, 'h');
        else if (strcmp(kind, "dead:held") == 0)
            check_dead_held(key);
    }
    reply_done(&keys);
}

static inline void fsck_finding(void *lines, const struct fsck_finding *finding)
{
    size_t used = strlen(lines);
    if (!fsck_is_note(finding->kind))
        snprintf((char *)lines + used, 2048 - used, "  %s %s: %s\n", fsck_word(finding->kind),
                 finding->at, finding->what);
}

/* The same, as people look at it; revisions are made up in these tests. */
static inline void check_with_fsck(void)
{
    char lines[2048] = "";
    const struct fsck_options options = {
        .is_lenient = true, .on_finding = fsck_finding, .arg = lines};
    struct fsck_summary summary;
    OK(fsck_run(store, &options, &summary, &err));
    if (summary.findings > 0)
        fail_msg("fsck found:\n%s", lines);
}

/* A test on a fiber, with the invariants looked at when it is done. */
#define ON_FIBER(name)                                                                             \
    static void name##_on_fiber(void *arg)                                                         \
    {                                                                                              \
        (void)arg;                                                                                 \
        name();                                                                                    \
        check_invariants();                                                                        \
        check_with_fsck();                                                                         \
    }                                                                                              \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        on_fiber(name##_on_fiber);                                                                 \
    }
#define CASE(name) cmocka_unit_test_setup_teardown(test_##name, fixture_setup, fixture_teardown)
