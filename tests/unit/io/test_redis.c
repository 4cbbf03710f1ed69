/* The Redis client against real servers: what it does when they refuse, come late, die in the
 * middle of a command, forget scripts, are out of memory. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "io/redis.h"
#include "io/redis_sync.h"
#include "lossy.h"
#include "redis_server.h"
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct loop loop;
static struct redis_server server;
static struct redis *redis;

/* Runs fn on a fiber until it (and what it spawned) has ended. */
static void on_fiber(void (*fn)(void *arg))
{
    assert_int_equal(loop_spawn(&loop, NULL, fn, NULL), MR_OK);
    loop_run_fibers(&loop);
}

static void open_client(uint64_t command_ms)
{
    struct error err = {0};
    struct redis_config config;
    assert_int_equal(redis_config_parse(server.url, &config, &err), MR_OK);
    config.command_ms = command_ms;
    assert_int_equal(loop_init(&loop, &err), MR_OK);
    redis = redis_open(&loop, &config, "test");
    redis_config_done(&config);
}

static void close_client(void)
{
    redis_close(redis);
    redis = NULL;
    loop_done(&loop);
}

static int setup(void **state)
{
    (void)state;
    redis_server_start(&server);
    open_client(0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (redis)
        close_client();
    redis_server_stop(&server);
    fiber_trim();
    return 0;
}

static void expect_text(const struct reply *reply, const char *text)
{
    assert_true(reply->type == REPLY_TEXT || reply->type == REPLY_STATUS);
    assert_string_equal(reply->text, text);
}

/* ---- URL ---- */

static void test_url(void **state)
{
    (void)state;
    struct redis_config c;
    struct error err = {0};
    assert_int_equal(redis_config_parse("redis://127.0.0.1", &c, &err), MR_OK);
    assert_string_equal(c.host, "127.0.0.1");
    assert_int_equal(c.port, 6379);
    assert_int_equal(c.db, 0);
    redis_config_done(&c);
    assert_int_equal(redis_config_parse("redis://u%40x:p%2Fw@[::1]:7000/12", &c, &err), MR_OK);
    assert_string_equal(c.host, "::1");
    assert_string_equal(c.user, "u@x");
    assert_string_equal(c.password, "p/w");
    assert_int_equal(c.port, 7000);
    assert_int_equal(c.db, 12);
    redis_config_done(&c);
    assert_int_equal(redis_config_parse("redis://:secret@h", &c, &err), MR_OK);
    assert_null(c.user);
    assert_string_equal(c.password, "secret");
    redis_config_done(&c);
    assert_int_equal(redis_config_parse("unix:/run/redis.sock?db=3", &c, &err), MR_OK);
    assert_string_equal(c.path, "/run/redis.sock");
    assert_int_equal(c.db, 3);
    redis_config_done(&c);
    assert_int_equal(
        redis_config_parse("sentinel://u:p%40w@a,[::1]:7000,c.example:7001/my.set-1/4", &c, &err),
        MR_OK);
    assert_int_equal(c.sentinel_count, 3);
    assert_string_equal(c.sentinels[0].host, "a");
    assert_int_equal(c.sentinels[0].port, 26379);
    assert_string_equal(c.sentinels[1].host, "::1");
    assert_int_equal(c.sentinels[1].port, 7000);
    assert_string_equal(c.sentinels[2].host, "c.example");
    assert_string_equal(c.master, "my.set-1");
    assert_string_equal(c.user, "u");
    assert_string_equal(c.password, "p@w");
    assert_int_equal(c.db, 4);
    struct redis_config copy;
    redis_config_copy(&c, &copy);
    redis_config_done(&c);
    assert_string_equal(copy.sentinels[2].host, "c.example");
    redis_config_done(&copy);
    static const char *const bad[] = {"",
                                      "redis://",
                                      "redis://h:0",
                                      "redis://h:99999",
                                      "redis://h/x",
                                      "redis://h?x=1",
                                      "redis://u@h",
                                      "redis://u:%zz@h",
                                      "unix:rel",
                                      "unix:/a?x=1",
                                      "rediss://h",
                                      "sentinel://h",
                                      "sentinel://h/",
                                      "sentinel:///m",
                                      "sentinel://h,/m",
                                      "sentinel://,h/m",
                                      "sentinel://h:0/m",
                                      "sentinel://h:1x/m",
                                      "sentinel://u@h/m",
                                      "sentinel://h/m n",
                                      "sentinel://h/m/x",
                                      "sentinel://h/m?db=1",
                                      "sentinel://[::1/m",
                                      "sentinel://a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a/m",
                                      "cluster:h",
                                      "http://h",
                                      "redis://:%0@h",
                                      "redis://[::1",
                                      "unix:",
                                      "redis://:a%00b@h",
                                      "redis://:6379",
                                      "redis://h:12x"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        err = (struct error){0};
        if (redis_config_parse(bad[i], &c, &err) != MR_E_SCHEMA)
            fail_msg("accepted: %s", bad[i]);
        assert_non_null(strstr(err.hint, "redis://"));
    }
}

/* ---- Replies ---- */

static void replies(void *arg)
{
    (void)arg;
    struct error err = {0};
    struct reply reply;
    assert_int_equal(redis_command(redis, &reply, &err, "SET", "k", "v", NULL), MR_OK);
    assert_int_equal(reply.type, REPLY_STATUS);
    expect_text(&reply, "OK");
    reply_done(&reply);
    assert_int_equal(redis_command(redis, &reply, &err, "GET", "nothing", NULL), MR_OK);
    assert_int_equal(reply.type, REPLY_NIL);
    reply_done(&reply);
    assert_int_equal(redis_command(redis, &reply, &err, "INCR", "n", NULL), MR_OK);
    assert_int_equal(reply.type, REPLY_INT);
    assert_int_equal(reply.integer, 1);
    reply_done(&reply);
    assert_int_equal(
        redis_command(redis, &reply, &err, "EVAL", "return {1,{'a','b'},false}", "0", NULL), MR_OK);
    assert_int_equal(reply.type, REPLY_ARRAY);
    assert_int_equal(reply.count, 3);
    expect_text(&reply.items[1].items[1], "b");
    assert_int_equal(reply.items[2].type, REPLY_NIL);
    reply_done(&reply);
    assert_int_equal(redis_command(redis, &reply, &err, "INCR", "k", NULL), MR_E_STORE);
    assert_non_null(strstr(err.message, "not an integer"));
    struct arg zeros[3] = {arg_text("SET"), arg_text("z"), {"a\0b", 3}};
    assert_int_equal(redis_call(redis, 3, zeros, 0, &reply, &err), MR_OK);
    reply_done(&reply);
    assert_int_equal(redis_command(redis, &reply, &err, "GET", "z", NULL), MR_OK);
    assert_int_equal(reply.len, 3);
    assert_memory_equal(reply.text, "a\0b", 4);
    reply_done(&reply);
    assert_int_equal(redis_command(redis, &reply, &err, "CLIENT", "GETNAME", NULL), MR_OK);
    expect_text(&reply, "test");
    reply_done(&reply);
}

static void test_replies(void **state)
{
    (void)state;
    on_fiber(replies);
}

static void big(void *arg)
{
    (void)arg;
    enum { SIZE = 24 << 20 };
    struct error err = {0};
    struct reply reply;
    char *text = mem_alloc(SIZE);
    memset(text, 'x', SIZE);
    text[SIZE - 1] = 'e';
    struct arg words[3] = {arg_text("SET"), arg_text("big"), {text, SIZE}};
    assert_int_equal(redis_call(redis, 3, words, 0, &reply, &err), MR_OK);
    reply_done(&reply);
    assert_int_equal(redis_command(redis, &reply, &err, "GET", "big", NULL), MR_OK);
    assert_int_equal(reply.len, SIZE);
    assert_memory_equal(reply.text, text, SIZE);
    reply_done(&reply);
    free(text);
}

static void test_big(void **state)
{
    (void)state;
    on_fiber(big);
}

static size_t answered;
static void one_of_many(void *arg)
{
    size_t n = (size_t)arg;
    struct error err = {0};
    struct reply reply;
    char slot[24];
    for (int i = 0; i < 5; i++) {
        struct arg words[2] = {arg_text("ECHO"), arg_int(slot, (int64_t)(n * 10) + i)};
        assert_int_equal(redis_call(redis, 2, words, 0, &reply, &err), MR_OK);
        expect_text(&reply, slot);
        reply_done(&reply);
        answered++;
    }
}

static void many(void *arg)
{
    (void)arg;
    struct group group;
    group_init(&group, &loop);
    for (size_t i = 0; i < 1000; i++)
        assert_int_equal(group_spawn(&group, NULL, one_of_many, (void *)i), MR_OK);
    group_wait(&group);
}

static void test_many(void **state)
{
    (void)state;
    answered = 0;
    on_fiber(many);
    assert_int_equal(answered, 5000);
}

/* ---- Servers that are not there ---- */

static void refused(void *arg)
{
    (void)arg;
    struct error err = {0};
    struct reply reply;
    assert_int_equal(redis_command(redis, &reply, &err, "PING", NULL), MR_E_STORE);
    assert_non_null(strstr(err.detail, "not sent"));
    assert_false(redis_is_up(redis));
}

static void test_refused(void **state)
{
    (void)state;
    redis_server_prepare(&server);
    open_client(300);
    on_fiber(refused);
    close_client();
    /* TCP: a port that was bound and is closed again. */
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    snprintf(server.url, sizeof(server.url), "redis://127.0.0.1:%u", ntohs(address.sin_port));
    open_client(300);
    on_fiber(refused);
    close_client();
}

static void mute(void *arg)
{
    (void)arg;
    struct error err = {0};
    struct reply reply;
    uint64_t before = clock_now_ms();
    assert_int_equal(redis_command(redis, &reply, &err, "PING", NULL), MR_E_STORE);
    assert_in_range(clock_now_ms() - before, 290, 5000);
}

/* Accepts and never answers: the greeting has a limit too. */
static void test_mute(void **state)
{
    (void)state;
    redis_server_prepare(&server);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", server.path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 8), 0);
    open_client(300);
    on_fiber(mute);
    close_client();
    close(fd);
    unlink(server.path);
}

static void start_server(void *arg)
{
    (void)arg;
    redis_server_run(&server, NULL);
}

static void late(void *arg)
{
    (void)arg;
    struct error err = {0};
    struct reply reply;
    loop_post(&loop, start_server, NULL); /* runs while this fiber waits for a connection */
    assert_int_equal(redis_command(redis, &reply, &err, "PING", NULL), MR_OK);
    expect_text(&reply, "PONG");
    reply_done(&reply);
    assert_true(redis_is_up(redis));
}

static void test_late(void **state)
{
    (void)state;
    redis_server_prepare(&server);
    open_client(0);
    on_fiber(late);
}

static void password(void *arg)
{
    (void)arg;
    struct error err = {0};
    struct reply reply;
    assert_int_equal(redis_command(redis, &reply, &err, "SET", "k", "v", NULL), MR_OK);
    reply_done(&reply);
    assert_int_equal(redis_command(redis, &reply, &err, "CLIENT", "LIST", NULL), MR_OK);
    assert_non_null(strstr(reply.text, "db=3"));
    reply_done(&reply);
}

static void wrong_password(void *arg)
{
    (void)arg;
    struct error err = {0};
    struct reply reply;
    assert_int_equal(redis_command(redis, &reply, &err, "PING", NULL), MR_E_STORE);
    assert_non_null(strstr(err.detail, "WRONGPASS"));
    assert_null(strstr(err.detail, "sesame"));
}

static void test_password(void **state)
{
    (void)state;
    redis_server_prepare(&server);
    static const char *const more[] = {"--requirepass", "open", NULL};
    redis_server_run(&server, more);
    struct error err = {0};
    struct redis_config config = {.path = server.path, .password = (char *)"open", .db = 3};
    assert_int_equal(loop_init(&loop, &err), MR_OK);
    redis = redis_open(&loop, &config, "test");
    on_fiber(password);
    redis_close(redis);
    config.password = (char *)"sesame";
    config.command_ms = 300;
    redis = redis_open(&loop, &config, "test");
    on_fiber(wrong_password);
    config.password = (char *)"open";
    struct redis_sync *sync = redis_sync_open(&config, "sync");
    struct reply reply;
    struct arg ping = arg_text("PING");
    assert_int_equal(redis_sync_call(sync, 1, &ping, 0, &reply, &err), MR_OK);
    reply_done(&reply);
    redis_sync_close(sync);
}

/* ---- Servers that go away ---- */

static int blocked_code;
static struct error blocked_error;
static void blocked(void *arg)
{
    (void)arg;
    struct reply reply;
    blocked_code = redis_command(redis, &reply, &blocked_error, "BLPOP", "never", "0", NULL);
    if (blocked_code == MR_OK)
        reply_done(&reply);
}

/* Suspends until the server has `count` clients that are blocked. */
static void until_blocked(unsigned count)
{
    char want[64];
    snprintf(want, sizeof(want), "blocked_clients:%u\r", count);
    for (;;) {
        char info[4096];
        redis_server_ask(&server, "INFO clients", info, sizeof(info));
        if (strstr(info, want))
            return;
        assert_int_equal(wait_yield(&loop), MR_OK);
    }
}

static void killed(void *arg)
{
    (void)arg;
    struct group group;
    group_init(&group, &loop);
    struct error err = {0};
    struct reply reply;
    assert_int_equal(redis_command(redis, &reply, &err, "PING", NULL), MR_OK);
    reply_done(&reply);
    assert_int_equal(group_spawn(&group, NULL, blocked, NULL), MR_OK);
    until_blocked(1);
    redis_server_kill(&server);
    group_wait(&group);
    assert_int_equal(blocked_code, MR_E_STORE);
    assert_non_null(strstr(blocked_error.detail, "outcome unknown"));
    redis_server_run(&server, NULL);
    assert_int_equal(redis_command(redis, &reply, &err, "PING", NULL), MR_OK);
    reply_done(&reply);
}

static unsigned ups, downs;
static void count_state(void *arg, bool up)
{
    (void)arg;
    if (up)
        ups++;
    else
        downs++;
}

static void test_killed(void **state)
{
    (void)state;
    ups = downs = 0;
    redis_on_state(redis, count_state, NULL);
    on_fiber(killed);
    assert_int_equal(ups, 2);
    assert_int_equal(downs, 1);
}

static void hangs(void *arg)
{
    (void)arg;
    struct error err = {0};
    struct reply reply;
    assert_int_equal(redis_command(redis, &reply, &err, "PING", NULL), MR_OK);
    reply_done(&reply);
    redis_server_pause(&server);
    assert_int_equal(redis_command(redis, &reply, &err, "PING", NULL), MR_E_STORE);
    assert_non_null(strstr(err.detail, "outcome unknown"));
    redis_server_continue(&server);
    assert_int_equal(redis_command(redis, &reply, &err, "ECHO", "mine", NULL), MR_OK);
    expect_text(&reply, "mine"); /* and not the late PONG */
    reply_done(&reply);
}

static void test_hangs(void **state)
{
    (void)state;
    close_client();
    open_client(300);
    on_fiber(hangs);
}

static void cancelled(void *arg)
{
    (void)arg;
    struct group group;
    struct scope scope;
    group_init(&group, &loop);
    scope_init(&scope, NULL);
    assert_int_equal(group_spawn(&group, &scope, blocked, NULL), MR_OK);
    until_blocked(1);
    scope_cancel(&scope, MR_E_CANCELLED);
    group_wait(&group);
    scope_done(&scope);
    assert_int_equal(blocked_code, MR_E_CANCELLED);
    /* The reply that comes later belongs to nobody. */
    char reply_text[64];
    redis_server_ask(&server, "RPUSH never x", reply_text, sizeof(reply_text));
    struct error err = {0};
    struct reply reply;
    assert_int_equal(redis_command(redis, &reply, &err, "ECHO", "mine", NULL), MR_OK);
    expect_text(&reply, "mine");
    reply_done(&reply);
    /* Waiting for a connection ends by cancel too. */
    redis_server_kill(&server);
    scope_init(&scope, NULL);
    scope.deadline_ms = clock_now_ms() + 50;
    scope.deadline_code = MR_E_DEADLINE;
    assert_int_equal(group_spawn(&group, &scope, blocked, NULL), MR_OK);
    group_wait(&group);
    scope_done(&scope);
    assert_true(blocked_code == MR_E_DEADLINE || blocked_code == MR_E_STORE);
}

static void test_cancelled(void **state)
{
    (void)state;
    on_fiber(cancelled);
}

static void closer(void *arg)
{
    (void)arg;
    struct group group;
    group_init(&group, &loop);
    for (int i = 0; i < 3; i++)
        assert_int_equal(group_spawn(&group, NULL, blocked, NULL), MR_OK);
    until_blocked(1);
    redis_close(redis);
    redis = NULL;
    group_wait(&group);
    assert_int_equal(blocked_code, MR_E_STOPPING);
}

static void test_close(void **state)
{
    (void)state;
    on_fiber(closer);
    loop_done(&loop);
}

/* ---- Scripts ---- */

static struct redis_script count_script = {
    .name = "count", .text = "#!lua\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])"};

static void run_count(struct reply *reply, struct error *err)
{
    struct arg key = arg_text("counter"), by = arg_text("2");
    assert_int_equal(redis_run(redis, &count_script, 1, &key, 1, &by, 0, reply, err), MR_OK);
}

static void scripts(void *arg)
{
    (void)arg;
    struct error err = {0};
    struct reply reply;
    count_script.sha[0] = '\0';
    run_count(&reply, &err);
    assert_int_equal(reply.integer, 2);
    assert_int_equal(strlen(count_script.sha), 40);
    assert_int_equal(redis_command(redis, &reply, &err, "SCRIPT", "FLUSH", NULL), MR_OK);
    reply_done(&reply);
    run_count(&reply, &err);
    assert_int_equal(reply.integer, 4); /* ran once, although it was sent twice */
    struct redis_script bad = {.name = "bad", .text = "#!lua\nreturn nothing.there"};
    assert_int_equal(redis_run(redis, &bad, 0, NULL, 0, NULL, 0, &reply, &err), MR_E_INTERNAL);
    assert_non_null(strstr(err.message, "bad"));
    struct redis_script wrong = {.name = "wrong", .text = "#!lua\nthis is not lua"};
    assert_int_equal(redis_run(redis, &wrong, 0, NULL, 0, NULL, 0, &reply, &err), MR_E_INTERNAL);
}

static void test_scripts(void **state)
{
    (void)state;
    on_fiber(scripts);
}

static void out_of_memory(void *arg)
{
    (void)arg;
    struct error err = {0};
    struct reply reply;
    count_script.sha[0] = '\0';
    run_count(&reply, &err);
    assert_int_equal(redis_command(redis, &reply, &err, "CONFIG", "SET", "maxmemory", "1", NULL),
                     MR_OK);
    reply_done(&reply);
    struct arg key = arg_text("counter"), by = arg_text("2");
    uint64_t before = clock_now_ms();
    assert_int_equal(redis_run(redis, &count_script, 1, &key, 1, &by, 0, &reply, &err), MR_E_STORE);
    assert_in_range(clock_now_ms() - before, 0, 2000); /* not repeated until the time is up */
    assert_non_null(strstr(err.message, "OOM"));
    struct redis_script frees = {
        .name = "frees", .text = "#!lua flags=allow-oom\nreturn redis.call('INCR', KEYS[1])"};
    assert_int_equal(redis_run(redis, &frees, 1, &key, 0, NULL, 0, &reply, &err), MR_OK);
    assert_int_equal(reply.integer, 3);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    on_fiber(out_of_memory);
}

/* The connection breaks between the script and its reply: the script is sent again. */
static struct lossy lossy;
static void lost_reply(void *arg)
{
    (void)arg;
    struct error err = {0};
    struct reply reply;
    count_script.sha[0] = '\0';
    run_count(&reply, &err);
    assert_int_equal(reply.integer, 2);
    atomic_store(&lossy.lose_at, 1);
    run_count(&reply, &err);
    assert_int_equal(reply.integer, 6); /* ran twice */
    assert_int_equal(atomic_load(&lossy.lost), 1);
    /* A plain command is not: who sent it has to know. */
    atomic_store(&lossy.lose_at, 1);
    assert_int_equal(redis_command(redis, &reply, &err, "INCR", "counter", NULL), MR_E_STORE);
    assert_non_null(strstr(err.detail, "outcome unknown"));
    assert_int_equal(redis_command(redis, &reply, &err, "GET", "counter", NULL), MR_OK);
    expect_text(&reply, "7");
    reply_done(&reply);
}

static void test_lost_reply(void **state)
{
    (void)state;
    redis_server_start(&server);
    lossy_start(&lossy, &server);
    struct error err = {0};
    struct redis_config config = {.path = lossy.path};
    assert_int_equal(loop_init(&loop, &err), MR_OK);
    redis = redis_open(&loop, &config, "test");
    on_fiber(lost_reply);
    close_client();
    lossy_stop(&lossy);
}

static void patient(void *arg)
{
    (void)arg;
    struct error err = {0};
    struct reply reply;
    struct arg key = arg_text("counter"), by = arg_text("1");
    redis_server_kill(&server);
    loop_post(&loop, start_server, NULL);
    assert_int_equal(redis_run(redis, &count_script, 1, &key, 1, &by, UINT64_MAX, &reply, &err),
                     MR_OK);
    assert_int_equal(reply.integer, 1);
}

static void test_patient(void **state)
{
    (void)state;
    on_fiber(patient);
}

static void load_patiently(void *arg)
{
    struct error err = {0};
    struct reply reply;
    redis_run(redis, arg, 0, NULL, 0, NULL, 6000, &reply, &err);
}

/* Whoever waits for another's load waits no longer than for Redis itself. */
static void impatient(void *arg)
{
    (void)arg;
    struct error err = {0};
    struct reply reply;
    struct redis_script script = {.name = "one", .text = "return 1"};
    struct group group;
    group_init(&group, &loop);
    assert_int_equal(group_spawn(&group, NULL, load_patiently, &script), MR_OK);
    wait_yield(&loop);
    assert_true(script.is_loading);
    uint64_t begin = clock_now_ms();
    assert_int_equal(redis_run(redis, &script, 0, NULL, 0, NULL, 100, &reply, &err), MR_E_STORE);
    assert_non_null(strstr(err.message, "does not answer"));
    assert_true(clock_now_ms() - begin < 3000);
    group_wait(&group);
}

static void test_impatient(void **state)
{
    (void)state;
    redis_server_prepare(&server);
    open_client(6000);
    on_fiber(impatient);
}

/* ---- The blocking client ---- */

static void test_sync(void **state)
{
    (void)state;
    struct error err = {0};
    struct redis_config config;
    struct reply reply;
    assert_int_equal(redis_config_parse(server.url, &config, &err), MR_OK);
    struct redis_sync *sync = redis_sync_open(&config, "sync");
    redis_config_done(&config);
    struct arg ping = arg_text("PING");
    assert_int_equal(redis_sync_call(sync, 1, &ping, 0, &reply, &err), MR_OK);
    expect_text(&reply, "PONG");
    reply_done(&reply);
    struct redis_script script = {.name = "count", .text = count_script.text};
    struct arg key = arg_text("sync"), by = arg_text("2");
    for (int i = 1; i <= 2; i++) {
        assert_int_equal(redis_sync_run(sync, &script, 1, &key, 1, &by, 0, &reply, &err), MR_OK);
        assert_int_equal(reply.integer, 2 * i);
        char text[64];
        redis_server_ask(&server, "SCRIPT FLUSH", text, sizeof(text));
    }
    redis_server_pause(&server);
    uint64_t before = clock_now_ms();
    assert_int_equal(redis_sync_call(sync, 1, &ping, 200, &reply, &err), MR_E_STORE);
    assert_in_range(clock_now_ms() - before, 150, 3000);
    redis_server_continue(&server);
    redis_server_kill(&server);
    assert_int_equal(redis_sync_call(sync, 1, &ping, 200, &reply, &err), MR_E_STORE);
    redis_server_run(&server, NULL);
    assert_int_equal(redis_sync_run(sync, &script, 1, &key, 1, &by, 0, &reply, &err), MR_OK);
    assert_int_equal(reply.integer, 2);
    redis_sync_close(sync);
}

/* ---- Torture: each suspension ends with an error in turn ---- */

static int torture_code;
static unsigned tortured;
static void tortured_run(void *arg)
{
    (void)arg;
    struct error err = {0};
    struct reply reply;
    struct arg key = arg_text("counter"), by = arg_text("1");
    for (uint64_t n = 1; n < 100; n++) {
        uint64_t before = wait_count();
        count_script.sha[0] = '\0';
        wait_torture(n, torture_code);
        int rc = redis_run(redis, &count_script, 1, &key, 1, &by, 2000, &reply, &err);
        bool reached = wait_count() - before >= n;
        wait_torture(0, 0);
        if (rc == MR_OK)
            reply_done(&reply);
        else
            assert_true(rc == torture_code || rc == MR_E_STORE);
        if (!reached)
            return;
        tortured++;
    }
    fail_msg("no end of suspensions");
}

static void test_torture(void **state)
{
    (void)state;
    static const int codes[] = {MR_E_CANCELLED, MR_E_TIMEOUT, MR_E_STOPPING};
    for (size_t i = 0; i < 3; i++) {
        torture_code = codes[i];
        tortured = 0;
        on_fiber(tortured_run);
        assert_true(tortured >= 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_url),
        cmocka_unit_test_setup_teardown(test_replies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_big, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, NULL, teardown),
        cmocka_unit_test_setup_teardown(test_mute, NULL, teardown),
        cmocka_unit_test_setup_teardown(test_late, NULL, teardown),
        cmocka_unit_test_setup_teardown(test_password, NULL, teardown),
        cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hangs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancelled, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close, setup, teardown),
        cmocka_unit_test_setup_teardown(test_scripts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_out_of_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lost_reply, NULL, teardown),
        cmocka_unit_test_setup_teardown(test_patient, setup, teardown),
        cmocka_unit_test_setup_teardown(test_impatient, NULL, teardown),
        cmocka_unit_test_setup_teardown(test_sync, setup, teardown),
        cmocka_unit_test_setup_teardown(test_torture, setup, teardown),
    };
    return cmocka_run_group_tests_name("redis", tests, NULL, NULL);
}
