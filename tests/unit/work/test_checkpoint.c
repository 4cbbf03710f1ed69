/* Checkpoints of stages that run side by side in a lane, against a Redis of its own: what a reply
 * opens finds all outputs that it needs, in whatever order commits arrive. */
#include "work/submit.h"
#include "work/work.h"

#include "redis_server.h"
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct redis_server server;
static struct loop loop;
static struct redis *redis;
static struct store *store;
static struct pipeline *pipeline;

static const char *const folders[] = {MR_BUILD_DIR "/plugins", NULL};

static void claim(const char *queue, struct lane *ret_lane, struct lane_grant *ret_grant)
{
    const struct lane_stream stream = {0, queue, QUEUE_NORMAL};
    const struct lane_begin begin = {.revision = pipeline->revision, .known = ""};
    size_t count = 0;
    assert_int_equal(lane_claim(store, redis, &stream, 1, 1, 0, ret_lane, &count, NULL), MR_OK);
    assert_int_equal(count, 1);
    assert_int_equal(lane_begin(store, ret_lane, &begin, ret_grant, NULL), MR_OK);
    assert_int_equal(ret_grant->verdict, LANE_OK);
}

/* A stage of another lane ends. */
static void commit_elsewhere(const char *queue, const char *name)
{
    struct lane lane;
    struct lane_grant grant;
    struct lane_next next;
    claim(queue, &lane, &grant);
    lane_grant_done(&grant);
    const char *const needs[] = {"side", "far"};
    const struct lane_successor join = {"join", "default", needs, 2};
    const struct lane_commit commit = {.stage = name,
                                       .output = "\"from far\"",
                                       .output_len = 10,
                                       .successors = &join,
                                       .successor_count = 1,
                                       .total = pipeline->stage_count,
                                       .known = 1,
                                       .have = name};
    assert_int_equal(lane_commit(store, &lane, &commit, &next, NULL), MR_OK);
    assert_int_equal(next.verdict, LANE_END);
    lane_next_done(&next);
}

static struct stage *finish(struct run *run, const char *name)
{
    struct stage *stage = (struct stage *)(uintptr_t)pipeline_stage(pipeline, name);
    run_set_bit(run->running, stage->index);
    run->status[stage->index] = 1;
    doc_set_text(run->doc, name, "\"out\"", 5);
    return stage;
}

/* `slow` has ended, but its commit waits (its deltas go first, or its reply was lost and it is sent
 * again) while that of `side`, in the same lane, goes out. */
static void fiber(void *arg)
{
    (void)arg;
    char after[SUBMIT_AFTER_BYTES];
    struct job_submit submit = {.id = "job-1",
                                .digest = "0",
                                .input = "{}",
                                .input_len = 2,
                                .req = "test",
                                .prio = QUEUE_NORMAL};
    mem_auto struct job_first *first = NULL;
    submit_fill(&submit, pipeline, 0, after, &first);
    struct job_submitted done;
    assert_int_equal(job_submit(store, &submit, &done, NULL), MR_OK);

    const struct worker_setup setup = {.lease_ms = 60000, .concurrency = 4};
    struct worker *worker = mem_zalloc(sizeof *worker);
    worker->setup = &setup;
    worker->store = store;
    struct work_lane lane = {.worker = worker, .pipeline = pipeline};
    claim("default", &lane.lane, &lane.grant);
    struct run *run = &lane.run;
    *run = (struct run){
        .ops = &work_ops, .data = &lane, .pipeline = pipeline, .doc = doc_new(), .job_id = "job-1"};
    commit_elsewhere("other", "far");
    finish(run, "slow");
    struct stage *side = finish(run, "side");
    struct run_next next = {0};
    assert_int_equal(work_ops.commit(run, side, STAGE_DONE, "\"out\"", 5, &next, NULL), MR_OK);
    assert_int_equal(next.verdict, RUN_ON);
    assert_true(run_bit(next.open, pipeline_stage(pipeline, "join")->index));
    size_t len = 0;
    const char *far = doc_text(run->doc, "far", &len);
    assert_non_null(far);
    assert_string_equal(far, "\"from far\"");
    doc_free(run->doc);
    lane_grant_done(&lane.grant);
    free(worker);
    loop_stop(&loop);
}

static void what_a_reply_opens_has_its_needs(void **state)
{
    (void)state;
    assert_int_equal(loop_spawn(&loop, NULL, fiber, NULL), MR_OK);
    loop_run(&loop);
}

static struct plugin_registry *plugins;
static struct pipeline_source *source;

static int set_up(void **state)
{
    (void)state;
    static const char text[] =
        "{\"name\":\"t\",\"stages\":["
        "{\"name\":\"side\",\"plugin\":\"sleep\",\"needs\":[],\"options\":{\"for\":\"1s\"}},"
        "{\"name\":\"slow\",\"plugin\":\"sleep\",\"needs\":[],\"options\":{\"for\":\"1s\"}},"
        "{\"name\":\"far\",\"plugin\":\"sleep\",\"needs\":[],\"queue\":\"other\","
        "\"options\":{\"for\":\"1s\"}},"
        "{\"name\":\"join\",\"plugin\":\"sleep\",\"needs\":[\"side\",\"far\"],"
        "\"options\":{\"for\":\"1s\"}}]}";
    struct report report;
    redis_server_start(&server);
    plugins = plugin_registry_new(folders);
    source = pipeline_source_new("t", "t.json", "/", text, strlen(text));
    report_init(&report);
    const struct pipeline_setup setup = {.plugins = plugins};
    pipeline = pipeline_build(source, &setup, &report);
    if (!pipeline)
        fail_msg("%s", report.items[0].message);
    report_done(&report);
    struct redis_config at = {.path = server.path};
    assert_int_equal(loop_init(&loop, NULL), MR_OK);
    redis = redis_open(&loop, &at, "test");
    const struct store_config config = {.loop = &loop, .redis = redis, .prefix = "mr"};
    assert_int_equal(store_open(&config, &store, NULL), MR_OK);
    store->worker = mem_dup("node/w1");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    store_close(store);
    redis_close(redis);
    loop_done(&loop);
    pipeline_unref(pipeline);
    pipeline_source_free(source);
    plugin_registry_free(plugins);
    redis_server_stop(&server);
    fiber_trim();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_a_reply_opens_has_its_needs)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
