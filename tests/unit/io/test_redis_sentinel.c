/* Finding the master through sentinels: ones that are away, silent, late, wrong or lie, and servers
 * that stop being masters. */
#include "base/clock.h"
#include "base/mem.h"
#include "io/redis.h"
#include "io/redis_sub.h"
#include "io/redis_switch.h"
#include "io/redis_sync.h"
#include "redis_server.h"

#include "false_sentinel.h"
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct loop loop;
static struct redis_server master, replica;
static int master_port, replica_port;
static struct false_sentinel sentinels[2];
static struct redis_config config;
static struct redis *redis;
static struct error err;

/* ---- Set-up: a master, a replica, two sentinels that know the master ---- */

static int setup(void **state)
{
    (void)state;
    char port[8], other[8];
    redis_server_prepare(&master);
    redis_server_prepare(&replica);
    master_port = free_port();
    snprintf(port, sizeof(port), "%d", master_port);
    const char *alone[] = {"--port", port, NULL};
    redis_server_run(&master, alone);
    replica_port = free_port();
    snprintf(other, sizeof(other), "%d", replica_port);
    const char *follows[] = {"--port", other, "--replicaof", "127.0.0.1", port, NULL};
    redis_server_run(&replica, follows);
    char url[128];
    for (int i = 0; i < 2; i++) {
        false_sentinel_start(&sentinels[i], 0);
        false_sentinel_point(&sentinels[i], "127.0.0.1", master_port);
    }
    snprintf(url, sizeof(url), "sentinel://127.0.0.1:%d,localhost:%d/main/2", sentinels[0].port,
             sentinels[1].port);
    assert_int_equal(redis_config_parse(url, &config, &err), MR_OK);
    config.command_ms = 20000;
    assert_int_equal(loop_init(&loop, &err), MR_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    redis_close(redis);
    redis = NULL;
    loop_done(&loop);
    fiber_trim();
    redis_config_done(&config);
    for (int i = 0; i < 2; i++)
        false_sentinel_stop(&sentinels[i]);
    redis_server_stop(&replica);
    redis_server_stop(&master);
    return 0;
}

static void on_fiber(void (*fn)(void *arg))
{
    assert_int_equal(loop_spawn(&loop, NULL, fn, NULL), MR_OK);
    loop_run_fibers(&loop);
}

static void set(const char *key, const char *value)
{
    struct reply reply;
    int rc = redis_command(redis, &reply, &err, "SET", key, value, NULL);
    if (rc != MR_OK)
        fail_msg("SET %s: %s (%s)", key, err.message, err.detail);
    reply_done(&reply);
}

/* In database 2, which both clients select. */
static void expect(const struct redis_server *server, const char *key, const char *value)
{
    char command[64], reply[64];
    snprintf(command, sizeof(command), "SELECT 2\r\nGET %s", key);
    int fd = redis_server_connect(server);
    dprintf(fd, "%s\r\nQUIT\r\n", command);
    size_t len = 0;
    for (ssize_t got;
         len < sizeof(reply) - 1 && (got = read(fd, reply + len, sizeof(reply) - 1 - len)) > 0;)
        len += (size_t)got;
    reply[len] = '\0';
    close(fd);
    char want[64];
    snprintf(want, sizeof(want), "+OK\r\n$%zu\r\n%s\r\n+OK\r\n", strlen(value), value);
    assert_string_equal(reply, want);
}

static int sync_port(struct redis_sync *sync, uint64_t timeout_ms)
{
    struct reply reply;
    struct arg words[3] = {arg_text("CONFIG"), arg_text("GET"), arg_text("port")};
    err = (struct error){0};
    if (redis_sync_call(sync, 3, words, timeout_ms, &reply, &err) != MR_OK)
        return -1;
    int port = atoi(reply.items[1].text);
    reply_done(&reply);
    return port;
}

/* ---- What is found ---- */

static void found(void *arg)
{
    (void)arg;
    set("k", "v");
    struct reply reply;
    assert_int_equal(redis_command(redis, &reply, &err, "CONFIG", "GET", "port", NULL), MR_OK);
    assert_int_equal(atoi(reply.items[1].text), master_port);
    reply_done(&reply);
    assert_int_equal(redis_command(redis, &reply, &err, "CLIENT", "LIST", NULL), MR_OK);
    assert_non_null(strstr(reply.text, "db=2"));
    reply_done(&reply);
}

static void test_found(void **state)
{
    (void)state;
    redis = redis_open(&loop, &config, "test");
    on_fiber(found);
    struct redis_sync *sync = redis_sync_open(&config, "sync");
    assert_int_equal(sync_port(sync, 5000), master_port);
    redis_sync_close(sync);
}

/* The first sentinel is away, the second is known by name: both clients get through. */
static void test_first_is_away(void **state)
{
    (void)state;
    false_sentinel_stop(&sentinels[0]);
    test_found(state);
}

/* The first accepts and says nothing: it has a second. */
static void test_first_is_silent(void **state)
{
    (void)state;
    false_sentinel_say(&sentinels[0], "");
    test_found(state);
}

/* Sentinels that fall silent while the server is well: looking for a switch costs no call its time
 * (a lease is renewed within a third of it). */
static void test_look_leaves_time(void **state)
{
    (void)state;
    struct redis_sync *sync = redis_sync_open(&config, "sync");
    assert_int_equal(sync_port(sync, 5000), master_port);
    unsigned asked = 0;
    for (int i = 0; i < 2; i++) {
        false_sentinel_say(&sentinels[i], "");
        asked += atomic_load(&sentinels[i].asked);
    }
    for (uint64_t stop = clock_now_ms() + 20000; clock_now_ms() < stop; poll(NULL, 0, 20)) {
        uint64_t begin = clock_now_ms();
        assert_int_equal(sync_port(sync, 1000), master_port);
        assert_true(clock_now_ms() - begin < 900);
        if (atomic_load(&sentinels[0].asked) + atomic_load(&sentinels[1].asked) > asked)
            break;
    }
    assert_true(atomic_load(&sentinels[0].asked) + atomic_load(&sentinels[1].asked) > asked);
    redis_sync_close(sync);
}

static uint64_t spent_ms;
static void not_found(void *arg)
{
    (void)arg;
    struct reply reply;
    uint64_t before = clock_now_ms();
    err = (struct error){0};
    assert_int_equal(redis_command(redis, &reply, &err, "PING", NULL), MR_E_STORE);
    spent_ms = clock_now_ms() - before;
    assert_non_null(strstr(err.detail, "not sent"));
    assert_false(redis_is_up(redis));
    assert_int_equal(redis_connection(redis), 0);
}

/* Nobody is connected to; the error says `why`, as that of the blocking client does. */
static void expect_none(const char *why)
{
    config.command_ms = 600;
    redis = redis_open(&loop, &config, "test");
    on_fiber(not_found);
    assert_in_range(spent_ms, 500, 10000);
    if (!strstr(err.detail, why))
        fail_msg("no \"%s\" in \"%s\"", why, err.detail);
    assert_non_null(strstr(err.message, "master main of the sentinels 127.0.0.1:"));
    struct redis_sync *sync = redis_sync_open(&config, "sync");
    assert_int_equal(sync_port(sync, 600), -1);
    assert_int_equal(err.code, MR_E_STORE);
    if (!strstr(err.detail, why))
        fail_msg("no \"%s\" in \"%s\"", why, err.detail);
    redis_sync_close(sync);
}

static void test_none_reachable(void **state)
{
    (void)state;
    false_sentinel_stop(&sentinels[0]);
    false_sentinel_stop(&sentinels[1]);
    expect_none("Connection refused");
}

static void test_wrong_name(void **state)
{
    (void)state;
    false_sentinel_say(&sentinels[0], "*-1\r\n");
    false_sentinel_say(&sentinels[1], "*-1\r\n");
    expect_none("it knows no master \"main\"");
}

static void test_refusing(void **state)
{
    (void)state;
    false_sentinel_say(&sentinels[0], "-NOAUTH Authentication required.\r\n");
    false_sentinel_say(&sentinels[1], "-NOAUTH Authentication required.\r\n");
    expect_none("NOAUTH");
}

/* Answers that are none: nothing is connected to, nothing breaks. */
static void test_nonsense(void **state)
{
    (void)state;
    char long_host[600];
    memset(long_host, 'a', sizeof(long_host));
    int len = snprintf(long_host, sizeof(long_host), "*2\r\n$300\r\n");
    long_host[len] = 'a';
    snprintf(long_host + len + 300, sizeof(long_host) - (size_t)len - 300, "\r\n$1\r\n1\r\n");
    const char *const answers[] = {
        "$3\r\nabc\r\n",
        ":1\r\n",
        "*0\r\n",
        "*1\r\n$9\r\n127.0.0.1\r\n",
        "*2\r\n:1\r\n:2\r\n",
        "*2\r\n$9\r\n127.0.0.1\r\n$1\r\n0\r\n",
        "*2\r\n$9\r\n127.0.0.1\r\n$5\r\n70000\r\n",
        "*2\r\n$9\r\n127.0.0.1\r\n$3\r\n6x9\r\n",
        "*2\r\n$0\r\n\r\n$4\r\n6379\r\n",
        "*2\r\n$5\r\na b c\r\n$4\r\n6379\r\n",
        "*2\r\n$-1\r\n$4\r\n6379\r\n",
        "*2\r\n*1\r\n$1\r\na\r\n$4\r\n6379\r\n",
        long_host,
        "HTTP/1.1 400 Bad Request\r\n\r\n",
    };
    config.command_ms = 150;
    for (size_t i = 0; i < sizeof(answers) / sizeof(*answers); i++) {
        false_sentinel_say(&sentinels[0], answers[i]);
        false_sentinel_say(&sentinels[1], answers[i]);
        redis = redis_open(&loop, &config, "test");
        on_fiber(not_found);
        redis_close(redis);
        redis = NULL;
        struct redis_sync *sync = redis_sync_open(&config, "sync");
        assert_int_equal(sync_port(sync, 150), -1);
        redis_sync_close(sync);
    }
}

/* A sentinel that points to a replica is not believed; the other one is. */
static void test_one_lies(void **state)
{
    (void)state;
    false_sentinel_point(&sentinels[0], "127.0.0.1", replica_port);
    redis = redis_open(&loop, &config, "test");
    on_fiber(found);
    struct redis_sync *sync = redis_sync_open(&config, "sync");
    assert_int_equal(sync_port(sync, 5000), master_port);
    redis_sync_close(sync);
}

static void test_all_lie(void **state)
{
    (void)state;
    false_sentinel_point(&sentinels[0], "127.0.0.1", replica_port);
    false_sentinel_point(&sentinels[1], "127.0.0.1", replica_port);
    expect_none("it is no master (role slave)");
}

static void start_late(void *arg)
{
    false_sentinel_start(&sentinels[0], (int)(intptr_t)arg);
    false_sentinel_point(&sentinels[0], "localhost", master_port); /* a name: looked up */
}

static void late(void *arg)
{
    struct reply reply;
    assert_int_equal(redis_call(redis, 1, (struct arg[]){arg_text("PING")}, 200, &reply, &err),
                     MR_E_STORE);
    loop_post(&loop, start_late, arg);
    found(NULL);
}

static void test_back_after_a_while(void **state)
{
    (void)state;
    int port = sentinels[0].port;
    false_sentinel_stop(&sentinels[0]); /* before anybody could ask it */
    false_sentinel_stop(&sentinels[1]);
    redis = redis_open(&loop, &config, "test");
    assert_int_equal(loop_spawn(&loop, NULL, late, (void *)(intptr_t)port), MR_OK);
    loop_run_fibers(&loop);
}

/* ---- Failover ---- */

static void switch_roles(void)
{
    char text[128], command[64];
    redis_server_ask(&replica, "REPLICAOF NO ONE", text, sizeof(text));
    assert_non_null(strstr(text, "OK"));
    snprintf(command, sizeof(command), "REPLICAOF 127.0.0.1 %d", replica_port);
    redis_server_ask(&master, command, text, sizeof(text));
    assert_non_null(strstr(text, "OK"));
    for (int i = 0; i < 2; i++)
        false_sentinel_point(&sentinels[i], "127.0.0.1", replica_port);
}

static struct redis_script put_script = {
    .name = "put", .text = "#!lua\nreturn redis.call('SET', KEYS[1], ARGV[1])"};

static void demoted(void *arg)
{
    (void)arg;
    set("before", "1");
    switch_roles();
    /* A plain command has READONLY for an answer; a script is taken to the new master by itself. */
    struct reply reply;
    uint64_t first = redis_connection(redis);
    assert_int_equal(redis_command(redis, &reply, &err, "SET", "during", "1", NULL), MR_E_STORE);
    assert_non_null(strstr(err.message, "READONLY"));
    assert_string_equal(err.detail, "answered");
    struct arg key = arg_text("after"), value = arg_text("2");
    assert_int_equal(redis_run(redis, &put_script, 1, &key, 1, &value, 0, &reply, &err), MR_OK);
    reply_done(&reply);
    assert_true(redis_connection(redis) > first);
    expect(&replica, "after", "2");
}

static void test_demoted(void **state)
{
    (void)state;
    redis = redis_open(&loop, &config, "test");
    struct redis_sync *sync = redis_sync_open(&config, "sync");
    assert_int_equal(sync_port(sync, 5000), master_port);
    on_fiber(demoted);
    struct redis_script script = {.name = "put", .text = put_script.text};
    struct arg key = arg_text("sync"), value = arg_text("3");
    struct reply reply;
    assert_int_equal(redis_sync_run(sync, &script, 1, &key, 1, &value, 5000, &reply, &err), MR_OK);
    reply_done(&reply);
    expect(&replica, "sync", "3");
    redis_sync_close(sync);
}

/* The sentinels switch while the old master goes on answering as one: nobody stays with it. */
static void pass_on(void *arg)
{
    (void)arg;
    set("before", "1");
    uint64_t first = redis_connection(redis), asked = atomic_load(&sentinels[0].asked);
    /* The sentinel has been heard to agree. */
    while (atomic_load(&sentinels[0].asked) < asked + 2)
        assert_int_equal(wait_sleep(&loop, 20), MR_OK);
    char text[64];
    redis_server_ask(&replica, "REPLICAOF NO ONE", text, sizeof(text));
    for (int i = 0; i < 2; i++)
        false_sentinel_point(&sentinels[i], "127.0.0.1", replica_port);
    uint64_t before = clock_now_ms();
    while (redis_connection(redis) == first || !redis_is_up(redis))
        assert_int_equal(wait_sleep(&loop, 20), MR_OK);
    assert_in_range(clock_now_ms() - before, 0, SWITCH_DOUBT_MS - 1000);
    set("after", "5");
    expect(&replica, "after", "5");
}

static void test_switched(void **state)
{
    (void)state;
    redis = redis_open(&loop, &config, "test");
    struct redis_sync *sync = redis_sync_open(&config, "sync");
    assert_int_equal(sync_port(sync, 5000), master_port);
    on_fiber(pass_on);
    for (uint64_t stop = clock_now_ms() + 20000; sync_port(sync, 5000) != replica_port;)
        assert_true(clock_now_ms() < stop);
    redis_sync_close(sync);
}

/* One sentinel names another master from the beginning: it alone is not believed. */
static void doubtful(void *arg)
{
    (void)arg;
    set("before", "1");
    uint64_t first = redis_connection(redis), begin = clock_now_ms();
    while (clock_now_ms() < begin + SWITCH_DOUBT_MS + 1000) {
        assert_int_equal(wait_sleep(&loop, 50), MR_OK);
        assert_int_equal(redis_connection(redis), first);
    }
}

static void test_one_never_agrees(void **state)
{
    (void)state;
    false_sentinel_point(&sentinels[0], "127.0.0.1", replica_port);
    redis = redis_open(&loop, &config, "test");
    on_fiber(doubtful);
}

static int blocked_code;
static void blocked(void *arg)
{
    (void)arg;
    struct reply reply;
    blocked_code = redis_command(redis, &reply, &err, "BLPOP", "never", "0", NULL);
}

/* Who is blocked when the server is demoted is told so, and goes to the new master. */
static void unblocked(void *arg)
{
    (void)arg;
    struct group group;
    group_init(&group, &loop);
    set("before", "1");
    assert_int_equal(group_spawn(&group, NULL, blocked, NULL), MR_OK);
    char info[4096] = "";
    while (!strstr(info, "blocked_clients:1\r")) {
        assert_int_equal(wait_yield(&loop), MR_OK);
        redis_server_ask(&master, "INFO clients", info, sizeof(info));
    }
    switch_roles();
    group_wait(&group);
    assert_int_equal(blocked_code, MR_E_STORE);
    assert_non_null(strstr(err.message, "UNBLOCKED"));
    set("after", "4");
    expect(&replica, "after", "4");
}

static void test_unblocked(void **state)
{
    (void)state;
    redis = redis_open(&loop, &config, "test");
    on_fiber(unblocked);
}

/* Subscriptions are renewed on the new master, and the listener is told that it may have missed
 * something. */
static struct redis_sub *sub;
static struct wait *heard_wait;
static char heard[64];
static void on_heard(struct redis_listener *listener, const char *text, size_t len)
{
    (void)listener;
    snprintf(heard, sizeof(heard), "%.*s", text ? (int)len : 6, text ? text : "(gap)");
    if (heard_wait)
        wait_wake(heard_wait, MR_OK);
}

static void hear(const char *what)
{
    while (strcmp(heard, what) != 0) {
        struct wait wait;
        wait_init(&wait, &loop);
        heard_wait = &wait;
        assert_int_equal(wait_for(&wait, 20000), MR_OK);
        heard_wait = NULL;
    }
}

static void subscribed(void *arg)
{
    (void)arg;
    char text[128];
    struct redis_listener listener = {.fn = on_heard};
    assert_int_equal(redis_listen(sub, "news", &listener, 0, &err), MR_OK);
    redis_server_ask(&master, "PUBLISH news one", text, sizeof(text));
    hear("one");
    switch_roles();
    redis_server_kill(&master);
    hear("(gap)");
    redis_server_ask(&replica, "PUBLISH news two", text, sizeof(text));
    hear("two");
    redis_unlisten(sub, &listener);
}

static void test_subscribed(void **state)
{
    (void)state;
    sub = redis_sub_open(&loop, &config, "sub");
    on_fiber(subscribed);
    redis_sub_close(sub);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_found, setup, teardown),
        cmocka_unit_test_setup_teardown(test_first_is_away, setup, teardown),
        cmocka_unit_test_setup_teardown(test_first_is_silent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_none_reachable, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_name, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nonsense, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_lies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_all_lie, setup, teardown),
        cmocka_unit_test_setup_teardown(test_back_after_a_while, setup, teardown),
        cmocka_unit_test_setup_teardown(test_demoted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_look_leaves_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_switched, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_never_agrees, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unblocked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_subscribed, setup, teardown),
    };
    return cmocka_run_group_tests_name("redis_sentinel", tests, NULL, NULL);
}
