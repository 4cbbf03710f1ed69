/* Waiting for durability: what is had with a replica, without one, with one that hangs, from a
 * server that forgets, and that many wait as one. */
#include "fixture.h"

#include "state/durable.h"

#define JOB   "11111111-1111-5111-8111-111111111111"
#define OTHER "22222222-2222-5222-8222-222222222222"

static struct redis_server replica;
static struct redis_config where;
static char port[8];
static const char *const follows[] = {"--replicaof", "127.0.0.1", port, NULL};

static int durable_setup(void **state)
{
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    snprintf(port, sizeof(port), "%u", ntohs(address.sin_port));
    const char *const more[] = {"--port", port, "--repl-diskless-sync-delay", "0", NULL};
    redis_server_prepare(&server);
    redis_server_run(&server, more);
    redis_server_prepare(&replica);
    redis_server_run(&replica, follows);
    where = (struct redis_config){.path = server.path};
    struct store_config config = fixture_config();
    config.where = &where;
    fixture_open(server.path, &config);
    return 0;
}

static int durable_teardown(void **state)
{
    (void)state;
    fixture_close();
    redis_server_stop(&replica);
    redis_server_stop(&server);
    fiber_trim();
    return 0;
}

static void until_info(const char *section, const char *has)
{
    char info[8192] = "", command[64];
    snprintf(command, sizeof(command), "INFO %s", section);
    for (uint64_t stop = clock_now_ms() + 20000; !strstr(info, has);) {
        assert_true(clock_now_ms() < stop);
        assert_int_equal(wait_yield(&loop), MR_OK);
        redis_server_ask(&server, command, info, sizeof(info));
    }
}

static struct durable_got wait_replica(void)
{
    struct durable_got got;
    struct reply reply;
    OK(redis_command(redis, &reply, &err, "INCR", "write", NULL));
    reply_done(&reply);
    durable_wait(store, DURABLE_REPLICA, &got);
    return got;
}

static void had(void *arg)
{
    (void)arg;
    until_info("replication", "state=online");
    struct durable_got got = wait_replica();
    assert_string_equal(got.why, "");
    assert_int_equal(got.level, DURABLE_REPLICA);
    char text[64];
    redis_server_ask(&replica, "GET write", text, sizeof(text));
    assert_string_equal(text, "$1\r\n1\r\n");
    durable_wait(store, DURABLE_NONE, &got);
    assert_int_equal(got.level, DURABLE_NONE);
    assert_string_equal(got.why, "");
}

static void noted(void *arg)
{
    (void)arg;
    until_info("replication", "state=online");
    submit_plain(JOB);
    struct job_view *view = NULL;
    OK(job_read(store, JOB, 0, &view, &err));
    assert_string_equal(view->durability, "");
    job_view_free(view);
    durable_submitted(store, JOB, DURABLE_REPLICA);
    OK(job_read(store, JOB, 0, &view, &err));
    enum durable_level asked;
    struct durable_got got;
    assert_true(durable_parse(view->durability, &asked, &got));
    assert_int_equal(asked, DURABLE_REPLICA);
    assert_int_equal(got.level, DURABLE_REPLICA);
    assert_string_equal(got.why, "");
    job_view_free(view);
    redis_server_kill(&replica);
    durable_submitted(store, JOB, DURABLE_REPLICA);
    OK(job_read(store, JOB, 0, &view, &err));
    assert_true(durable_parse(view->durability, &asked, &got));
    assert_int_equal(asked, DURABLE_REPLICA);
    assert_int_equal(got.level, DURABLE_NONE);
    assert_string_equal(got.why, "no replica has confirmed it within 1000 ms");
    job_view_free(view);
    /* A job that is gone gets no hash by being noted. */
    durable_submitted(store, OTHER, DURABLE_REPLICA);
    OK(job_read(store, OTHER, 0, &view, &err));
    assert_null(view);
    static const char *const bad[] = {"", "replica", "replica some", "x none", "none"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_false(durable_parse(bad[i], &asked, &got));
}

static void without(void *arg)
{
    (void)arg;
    redis_server_kill(&replica);
    uint64_t before = clock_now_ms();
    struct durable_got got = wait_replica();
    assert_int_equal(got.level, DURABLE_NONE);
    assert_string_equal(got.why, "no replica has confirmed it within 1000 ms");
    assert_in_range(clock_now_ms() - before, 900, 10000);
    /* From then on nobody waits a second in vain … */
    before = clock_now_ms();
    for (int i = 0; i < 20; i++) {
        got = wait_replica();
        assert_int_equal(got.level, DURABLE_NONE);
        assert_string_equal(got.why, "no replica is connected");
    }
    assert_in_range(clock_now_ms() - before, 0, 10000);
    /* … until there is one. */
    redis_server_run(&replica, follows);
    until_info("replication", "state=online");
    assert_int_equal(wait_replica().level, DURABLE_REPLICA);
}

/* A replica that hangs confirms nothing; once it goes on it does. */
static void hangs(void *arg)
{
    (void)arg;
    until_info("replication", "state=online");
    redis_server_pause(&replica);
    struct durable_got got = wait_replica();
    assert_int_equal(got.level, DURABLE_NONE);
    redis_server_continue(&replica);
    got = wait_replica();
    assert_string_equal(got.why, "");
    assert_int_equal(got.level, DURABLE_REPLICA);
}

static unsigned safe;
static void one_of_many(void *arg)
{
    (void)arg;
    for (int i = 0; i < 3; i++)
        safe += wait_replica().level == DURABLE_REPLICA;
}

/* Three hundred waits are a few rounds. */
static void grouped(void *arg)
{
    (void)arg;
    until_info("replication", "state=online");
    wait_replica();
    char text[8192];
    redis_server_ask(&server, "CONFIG RESETSTAT", text, sizeof(text));
    struct group group;
    group_init(&group, &loop);
    safe = 0;
    for (int i = 0; i < 100; i++)
        assert_int_equal(group_spawn(&group, NULL, one_of_many, NULL), MR_OK);
    group_wait(&group);
    assert_int_equal(safe, 300);
    redis_server_ask(&server, "INFO commandstats", text, sizeof(text));
    const char *at = strstr(text, "cmdstat_wait:calls=");
    assert_non_null(at);
    assert_in_range(atoi(at + 19), 1, 30);
}

/* Those who come while a round is under way that gets nothing are answered too, each in its time.
 */
static unsigned missed;
static void one_without(void *arg)
{
    wait_sleep(&loop, (uint64_t)(uintptr_t)arg);
    uint64_t before = clock_now_ms();
    missed += wait_replica().level == DURABLE_NONE;
    assert_in_range(clock_now_ms() - before, 0, 8000);
}

static void many_without(void *arg)
{
    (void)arg;
    redis_server_kill(&replica);
    struct group group;
    group_init(&group, &loop);
    missed = 0;
    for (uintptr_t i = 0; i < 20; i++)
        assert_int_equal(group_spawn(&group, NULL, one_without, (void *)(i * 60)), MR_OK);
    group_wait(&group);
    assert_int_equal(missed, 20);
    wait_replica(); /* and nobody was left behind as the leader */
}

/* The command connection breaks between the write and the confirmation: a failover may lie between.
 */
static struct durable_got stray;
static void waits(void *arg)
{
    (void)arg;
    stray = wait_replica();
}

static void breaks(void *arg)
{
    (void)arg;
    until_info("replication", "state=online");
    assert_int_equal(wait_replica().level, DURABLE_REPLICA);
    redis_server_pause(&replica);
    struct group group;
    group_init(&group, &loop);
    assert_int_equal(group_spawn(&group, NULL, waits, NULL), MR_OK);
    until_info("clients", "blocked_clients:1\r");
    struct reply reply;
    char id[24], text[64];
    OK(redis_command(redis, &reply, &err, "CLIENT", "ID", NULL));
    snprintf(id, sizeof(id), "%lld", (long long)reply.integer);
    reply_done(&reply);
    char kill[64];
    snprintf(kill, sizeof(kill), "CLIENT KILL ID %s", id);
    redis_server_ask(&server, kill, text, sizeof(text));
    /* After the next connection has come. */
    struct error why;
    while (redis_command(redis, &reply, &why, "PING", NULL) != MR_OK)
        assert_int_equal(why.code, MR_E_STORE);
    reply_done(&reply);
    redis_server_continue(&replica);
    group_wait(&group);
    assert_int_equal(stray.level, DURABLE_NONE);
    assert_string_equal(stray.why, "the connection to Redis broke after it was written");
}

/* The connection that waits leads to another server (a former primary, say) than the one that was
 * written to. */
static void other_server(void *arg)
{
    (void)arg;
    until_info("replication", "state=online");
    char text[64];
    struct redis_server other;
    redis_server_start(&other);
    store_close(store);
    struct redis_config elsewhere = {.path = other.path};
    struct store_config config = fixture_config();
    config.where = &elsewhere;
    assert_int_equal(store_open(&config, &store, NULL), MR_OK);
    struct durable_got got = wait_replica();
    assert_int_equal(got.level, DURABLE_NONE);
    assert_string_equal(got.why, "a failover is under way");
    redis_server_ask(&other, "DBSIZE", text, sizeof(text));
    assert_string_equal(text, ":0\r\n"); /* and nothing was written there */
    store_close(store);
    redis_server_stop(&other);
    config.where = NULL;
    assert_int_equal(store_open(&config, &store, NULL), MR_OK);
    got = wait_replica();
    assert_int_equal(got.level, DURABLE_NONE);
    assert_string_equal(got.why, "this process does not wait for it");
}

/* Redis 7.0, the oldest we take, has no WAITAOF; newer ones: tests/fault/test_durability.py. */
static void no_waitaof(void *arg)
{
    (void)arg;
    struct durable_got got;
    struct error why = {0};
    struct reply reply;
    OK(redis_command(redis, &reply, &err, "COMMAND", "INFO", "WAITAOF", NULL));
    bool is_known = reply.items[0].type == REPLY_ARRAY;
    reply_done(&reply);
    durable_wait(store, DURABLE_AOF, &got);
    assert_int_equal(got.level, DURABLE_NONE);
    assert_string_equal(got.why, is_known ? "this server keeps no append-only file"
                                          : "WAITAOF is not known to this server");
    assert_int_equal(durable_check(store, DURABLE_AOF, &why), MR_E_SCHEMA);
    assert_non_null(strstr(why.message, is_known ? "append-only" : "WAITAOF"));
    OK(durable_check(store, DURABLE_REPLICA, &err));
    OK(durable_check(store, DURABLE_NONE, &err));
}

#define CASE_OF(name)                                                                              \
    static void run_##name(void **state)                                                           \
    {                                                                                              \
        (void)state;                                                                               \
        on_fiber(name);                                                                            \
    }
CASE_OF(had)
CASE_OF(noted)
CASE_OF(without)
CASE_OF(hangs)
CASE_OF(grouped)
CASE_OF(many_without)
CASE_OF(breaks)
CASE_OF(other_server)
CASE_OF(no_waitaof)

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(run_##name, durable_setup, durable_teardown)
    const struct CMUnitTest tests[] = {TEST(had),    TEST(noted),        TEST(without),
                                       TEST(hangs),  TEST(grouped),      TEST(many_without),
                                       TEST(breaks), TEST(other_server), TEST(no_waitaof)};
    return cmocka_run_group_tests_name("durable", tests, NULL, NULL);
}
