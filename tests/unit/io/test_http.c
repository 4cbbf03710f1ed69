/* Calls over HTTP against a real server in a process of its own (tests/harness/httpd.h). What has
 * to do with time runs under a held clock: the test sees at the server how far a call has come,
 * then turns the clock. */
#include "httpd.c"

#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "fiber/sanitize.h"
#include "io/http.h"
#include "loop/wait.h"
#include <dirent.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>

static struct httpd server;
static struct loop loop;
static struct http *http;
static const char *const no_nets[] = {NULL};
static const char *const *allow = no_nets;
static size_t in_flight_max;

static int group_setup(void **state)
{
    (void)state;
    return httpd_start(&server) ? 0 : -1;
}

static int group_teardown(void **state)
{
    (void)state;
    httpd_stop(&server);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    struct http_config config = {.allow = allow, .in_flight_max = in_flight_max};
    if (loop_init(&loop, NULL) != MR_OK)
        return -1;
    return http_open(&loop, &config, &http, NULL);
}

static int teardown(void **state)
{
    (void)state;
    wait_torture(0, 0);
    clock_hold(0);
    size_t left = http_in_flight(http);
    http_close(http);
    loop_done(&loop);
    fiber_trim();
    return left == 0 ? 0 : -1;
}

/* A call on a fiber of its own. */
struct fetch {
    struct http_request request;
    struct http_reply reply;
    struct error err;
    int code;
    bool done;
    char url[256];
};

static void fetches(void *arg)
{
    struct fetch *fetch = arg;
    fetch->code = http_fetch(http, &fetch->request, &fetch->reply, &fetch->err);
    fetch->done = true;
}

static struct fetch of(const char *path)
{
    struct fetch fetch = {.code = 1};
    snprintf(fetch.url, sizeof(fetch.url), "http://127.0.0.1:%d%s", server.port, path);
    return fetch;
}

static void begin(struct fetch *fetch, struct scope *scope)
{
    if (!fetch->request.url)
        fetch->request.url = fetch->url;
    assert_int_equal(loop_spawn(&loop, scope, fetches, fetch), MR_OK);
}

static void run(struct fetch *fetch)
{
    begin(fetch, NULL);
    loop_run_fibers(&loop);
    assert_true(fetch->done);
}

static double real_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Turns the loop without moving the clock until `condition` holds; a minute is a failure. */
#define PUMP_UNTIL(condition)                                                                      \
    do {                                                                                           \
        double pump_start = real_s();                                                              \
        while (!(condition)) {                                                                     \
            uv_run(&loop.uv, UV_RUN_NOWAIT);                                                       \
            sched_yield();                                                                         \
            if (real_s() - pump_start > 60)                                                        \
                fail_msg("never: %s", #condition);                                                 \
        }                                                                                          \
    } while (0)

static void turn_clock(uint64_t ms)
{
    clock_turn(ms);
    timer_turn(&loop);
    for (int i = 0; i < 3; i++)
        uv_run(&loop.uv, UV_RUN_NOWAIT);
}

#define ASSERT_SAYS(fetch, text)                                                                   \
    do {                                                                                           \
        if (!strstr((fetch)->err.message, text))                                                   \
            fail_msg("\"%s\" does not say \"%s\"", (fetch)->err.message, text);                    \
    } while (0)

static void test_get(void **state)
{
    (void)state;
    struct fetch fetch = of("/ok");
    run(&fetch);
    assert_int_equal(fetch.code, MR_OK);
    assert_int_equal(fetch.reply.status, 200);
    assert_string_equal(fetch.reply.body, HTTPD_OK);
    assert_int_equal(fetch.reply.body_len, strlen(HTTPD_OK));
    assert_string_equal(http_reply_header(&fetch.reply, "content-length"), "11");
    assert_null(http_reply_header(&fetch.reply, "x-none"));
    http_reply_done(&fetch.reply);
}

static void test_request_as_sent(void **state)
{
    (void)state;
    struct fetch fetch = of("/echo?a=1");
    const struct http_header headers[] = {{"X-One", "eins"}, {"X-Empty", ""}};
    fetch.request.headers = headers;
    fetch.request.header_count = 2;
    fetch.request.bearer = "sk-secret";
    fetch.request.body = "{\"n\": 1}";
    fetch.request.body_len = 8;
    run(&fetch);
    assert_int_equal(fetch.code, MR_OK);
    const char *text = fetch.reply.body;
    assert_non_null(strstr(text, "POST /echo?a=1 HTTP/1.1\r\n"));
    assert_non_null(strstr(text, "\r\nX-One: eins\r\n"));
    assert_non_null(strstr(text, "\r\nX-Empty:"));
    assert_non_null(strstr(text, "\r\nAuthorization: Bearer sk-secret\r\n"));
    assert_non_null(strstr(text, "\r\nContent-Length: 8\r\n"));
    assert_non_null(strstr(text, "\r\n\r\n{\"n\": 1}"));
    assert_non_null(strstr(text, "\r\nUser-Agent: millrace/"));
    assert_null(strstr(text, "Expect"));
    assert_null(strstr(text, "Content-Type"));
    assert_null(strstr(text, "Accept-Encoding"));
    assert_string_equal(http_reply_header(&fetch.reply, "x-padded"), "two words");
    http_reply_done(&fetch.reply);
}

static void test_methods(void **state)
{
    (void)state;
    static const struct {
        const char *method, *body, *line, *length;
    } cases[] = {
        {NULL, NULL, "GET /echo ", NULL},
        {"GET", NULL, "GET /echo ", NULL},
        {"GET", "x", "GET /echo ", "Content-Length: 1\r\n"},
        {"POST", NULL, "POST /echo ", "Content-Length: 0\r\n"},
        {"POST", "", "POST /echo ", "Content-Length: 0\r\n"},
        {"PUT", "abc", "PUT /echo ", "Content-Length: 3\r\n"},
        {"PATCH", "abc", "PATCH /echo ", "Content-Length: 3\r\n"},
        {"DELETE", NULL, "DELETE /echo ", NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fetch fetch = of("/echo");
        fetch.request.method = cases[i].method;
        fetch.request.body = cases[i].body;
        fetch.request.body_len = cases[i].body ? strlen(cases[i].body) : 0;
        run(&fetch);
        assert_int_equal(fetch.code, MR_OK);
        assert_ptr_equal(strstr(fetch.reply.body, cases[i].line), fetch.reply.body);
        if (cases[i].length)
            assert_non_null(strstr(fetch.reply.body, cases[i].length));
        else
            assert_null(strstr(fetch.reply.body, "Content-Length"));
        http_reply_done(&fetch.reply);
    }
}

static void test_every_status_is_ok(void **state)
{
    (void)state;
    const int codes[] = {200, 202, 302, 401, 404, 429, 500, 503};
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        char path[32];
        snprintf(path, sizeof(path), "/status?%d", codes[i]);
        struct fetch fetch = of(path);
        run(&fetch);
        assert_int_equal(fetch.code, MR_OK);
        assert_int_equal(fetch.reply.status, codes[i]);
        assert_string_equal(fetch.reply.body, "");
        http_reply_done(&fetch.reply);
    }
}

static void test_interim_answer(void **state)
{
    (void)state;
    struct fetch fetch = of("/interim");
    run(&fetch);
    assert_int_equal(fetch.code, MR_OK);
    assert_int_equal(fetch.reply.status, 200);
    assert_null(http_reply_header(&fetch.reply, "x-early"));
    assert_string_equal(http_reply_header(&fetch.reply, "x-late"), "1");
    http_reply_done(&fetch.reply);
}

static void test_connection_is_kept(void **state)
{
    (void)state;
    unsigned before = atomic_load(&server.counts->connections);
    for (int i = 0; i < 30; i++) {
        struct fetch fetch = of("/ok");
        run(&fetch);
        assert_int_equal(fetch.code, MR_OK);
        http_reply_done(&fetch.reply);
    }
    assert_int_equal(atomic_load(&server.counts->connections) - before, 1);
    for (int i = 0; i < 2; i++) {
        struct fetch fetch = of("/last");
        run(&fetch);
        assert_int_equal(fetch.code, MR_OK);
        http_reply_done(&fetch.reply);
    }
    assert_int_equal(atomic_load(&server.counts->connections) - before, 2);
}

static void test_broken_connections(void **state)
{
    (void)state;
    const char *const paths[] = {"/reset", "/reset-mid", "/close", "/truncate"};
    for (size_t i = 0; i < 4; i++) {
        struct fetch fetch = of(paths[i]);
        run(&fetch);
        assert_int_equal(fetch.code, MR_E_RESET);
        assert_int_equal(fetch.err.code, MR_E_RESET);
        assert_null(fetch.reply.body);
    }
    struct fetch fetch = of("/garbage");
    run(&fetch);
    assert_int_equal(fetch.code, MR_E_BAD_RESPONSE);
}

static void test_refused_connection(void **state)
{
    (void)state;
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, len), 0); /* bound, but does not listen */
    assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
    struct fetch fetch = {0};
    snprintf(fetch.url, sizeof(fetch.url), "http://127.0.0.1:%d/v1?key=abc", ntohs(addr.sin_port));
    run(&fetch);
    assert_int_equal(fetch.code, MR_E_CONNECT);
    ASSERT_SAYS(&fetch, "http://127.0.0.1:");
    assert_null(strstr(fetch.err.message, "abc"));
    close(fd);
}

static void test_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        size_t max, len;
    } cases[] = {
        {"/bytes?1000", 1000, 1000}, {"/bytes?1001", 1000, 0},       {"/chunked?5000", 5000, 5000},
        {"/chunked?5001", 5000, 0},  {"/bytes?3000000", 0, 3000000}, {"/chunked?8388609", 0, 0},
        {"/bytes?0", 1, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fetch fetch = of(cases[i].path);
        fetch.request.max_bytes = cases[i].max;
        run(&fetch);
        if (cases[i].len || cases[i].max == 1) {
            assert_int_equal(fetch.code, MR_OK);
            assert_int_equal(fetch.reply.body_len, cases[i].len);
            assert_int_equal(strlen(fetch.reply.body), cases[i].len);
            http_reply_done(&fetch.reply);
        } else {
            assert_int_equal(fetch.code, MR_E_BAD_RESPONSE);
            ASSERT_SAYS(&fetch, "larger than");
        }
    }
}

static void test_many_headers(void **state)
{
    (void)state;
    struct fetch fetch = of("/headers?1000");
    run(&fetch);
    assert_int_equal(fetch.code, MR_OK);
    assert_int_equal(fetch.reply.header_count, 1001);
    assert_string_equal(http_reply_header(&fetch.reply, "x-999"),
                        "00000000000000000000000000000999");
    http_reply_done(&fetch.reply);
    struct fetch more = of("/headers?3000");
    run(&more);
    assert_int_equal(more.code, MR_E_BAD_RESPONSE);
    ASSERT_SAYS(&more, "header is larger");
}

static void test_bad_requests(void **state)
{
    (void)state;
    const char *const urls[] = {"ftp://127.0.0.1/", "file:///etc/passwd", "127.0.0.1/ok", "",
                                "http://",          "http://a b/",        "gopher://x/"};
    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        struct fetch fetch = {.request.url = urls[i]};
        run(&fetch);
        assert_int_equal(fetch.code, MR_E_SCHEMA);
    }
    const struct http_header bad[] = {
        {"X-A", "1\r\nX-B: 2"}, {"X A", "1"}, {"", "1"}, {"X-A:", ""}};
    for (size_t i = 0; i < 4; i++) {
        struct fetch fetch = of("/ok");
        fetch.request.headers = &bad[i];
        fetch.request.header_count = 1;
        run(&fetch);
        assert_int_equal(fetch.code, MR_E_SCHEMA);
    }
    struct fetch key = of("/ok"), method = of("/ok");
    key.request.bearer = "sk-secret\r\nX: y";
    run(&key);
    assert_int_equal(key.code, MR_E_SCHEMA);
    assert_null(strstr(key.err.message, "secret"));
    method.request.method = "GET /x HTTP/1.1\r\nA:";
    run(&method);
    assert_int_equal(method.code, MR_E_SCHEMA);
}

/* The limits of time */

static void test_limit_of_connect(void **state)
{
    (void)state;
    clock_hold(1000);
    struct fetch fetch = {0};
    /* The kernel accepts, nobody answers the handshake. */
    snprintf(fetch.url, sizeof(fetch.url), "https://127.0.0.1:%d/", server.mute_port);
    fetch.request.connect_ms = 300;
    begin(&fetch, NULL);
    for (int i = 0; i < 20; i++)
        turn_clock(0);
    turn_clock(299);
    assert_false(fetch.done);
    turn_clock(1);
    assert_true(fetch.done);
    assert_int_equal(fetch.code, MR_E_TIMEOUT);
    ASSERT_SAYS(&fetch, "connect limit");
}

static void test_limit_of_first_byte(void **state)
{
    (void)state;
    clock_hold(1000);
    unsigned before = atomic_load(&server.counts->requests);
    struct fetch fetch = of("/hang");
    fetch.request.first_byte_ms = 700;
    begin(&fetch, NULL);
    PUMP_UNTIL(atomic_load(&server.counts->requests) > before);
    turn_clock(699);
    assert_false(fetch.done);
    turn_clock(1);
    assert_int_equal(fetch.code, MR_E_TIMEOUT);
    ASSERT_SAYS(&fetch, "first byte limit");
    ASSERT_SAYS(&fetch, "700 ms");
}

static void test_limit_of_idle(void **state)
{
    (void)state;
    clock_hold(1000);
    unsigned before = atomic_load(&server.counts->requests);
    unsigned parts = atomic_load(&server.counts->parts);
    struct fetch fetch = of("/stall");
    fetch.request.first_byte_ms = 100;
    fetch.request.idle_ms = 400;
    begin(&fetch, NULL);
    PUMP_UNTIL(atomic_load(&server.counts->requests) > before);
    PUMP_UNTIL(atomic_load(&server.counts->parts) > parts);
    for (int i = 0; i < 50; i++)
        uv_run(&loop.uv, UV_RUN_NOWAIT);
    turn_clock(399);
    assert_false(fetch.done);
    turn_clock(1);
    assert_int_equal(fetch.code, MR_E_TIMEOUT);
    ASSERT_SAYS(&fetch, "idle limit");
}

static void test_limit_of_all(void **state)
{
    (void)state;
    clock_hold(1000);
    unsigned before = atomic_load(&server.counts->requests);
    struct fetch fetch = of("/hang");
    fetch.request.timeout_ms = 50;
    begin(&fetch, NULL);
    PUMP_UNTIL(atomic_load(&server.counts->requests) > before);
    turn_clock(49);
    assert_false(fetch.done);
    turn_clock(1);
    assert_int_equal(fetch.code, MR_E_TIMEOUT);
    ASSERT_SAYS(&fetch, "total limit");
}

/* A body that the other side does not take: idle; one that it takes slowly would go on. */
static void test_limit_of_sending(void **state)
{
    (void)state;
    clock_hold(1000);
    unsigned before = atomic_load(&server.counts->requests);
    struct fetch fetch = of("/unread");
    size_t len = 32u << 20; /* more than the sockets' buffers take */
    char *body = mem_zalloc(len);
    memset(body, 'b', len);
    fetch.request.body = body;
    fetch.request.body_len = len;
    fetch.request.idle_ms = 3000;
    fetch.request.first_byte_ms = 1;
    begin(&fetch, NULL);
    PUMP_UNTIL(atomic_load(&server.counts->requests) > before);
    for (int i = 0; i < 10000 && !fetch.done; i++)
        turn_clock(1000);
    assert_true(fetch.done);
    assert_int_equal(fetch.code, MR_E_TIMEOUT);
    ASSERT_SAYS(&fetch, "idle limit");
    free(body);
}

static void test_long_body_arrives(void **state)
{
    (void)state;
    struct fetch fetch = of("/echo");
    size_t len = 3u << 20;
    char *body = mem_alloc(len);
    memset(body, 'b', len);
    fetch.request.body = body;
    fetch.request.body_len = len;
    run(&fetch);
    assert_int_equal(fetch.code, MR_OK);
    assert_true(fetch.reply.body_len > len);
    assert_memory_equal(fetch.reply.body + fetch.reply.body_len - len, body, len);
    http_reply_done(&fetch.reply);
    free(body);
}

/* Ended by the scope, in each phase */

static void test_cancel(void **state)
{
    (void)state;
    const char *const paths[] = {"/hang", "/stall", "/unread", NULL};
    for (size_t i = 0; i < 4; i++) {
        for (int waits = 0; waits < 3; waits++) {
            struct scope scope;
            scope_init(&scope, NULL);
            unsigned before = atomic_load(&server.counts->requests);
            struct fetch fetch = paths[i] ? of(paths[i]) : (struct fetch){0};
            if (!paths[i])
                snprintf(fetch.url, sizeof(fetch.url), "https://127.0.0.1:%d/", server.mute_port);
            begin(&fetch, &scope);
            if (waits == 0) /* before anything has happened */
                scope_cancel(&scope, MR_E_CANCELLED);
            for (int k = 0; k < 3; k++)
                uv_run(&loop.uv, UV_RUN_NOWAIT);
            if (waits == 2 && paths[i])
                PUMP_UNTIL(atomic_load(&server.counts->requests) > before);
            scope_cancel(&scope, MR_E_CANCELLED);
            loop_run_fibers(&loop);
            assert_int_equal(fetch.code, MR_E_CANCELLED);
            assert_int_equal(fetch.err.code, MR_E_CANCELLED);
            scope_done(&scope);
        }
    }
    assert_int_equal(http_in_flight(http), 0);
    struct fetch fetch = of("/ok"); /* and all is well afterwards */
    run(&fetch);
    assert_int_equal(fetch.code, MR_OK);
    http_reply_done(&fetch.reply);
}

static void test_deadline_of_scope(void **state)
{
    (void)state;
    clock_hold(1000);
    struct scope scope;
    scope_init(&scope, NULL);
    scope.deadline_ms = clock_now_ms() + 60;
    scope.deadline_code = MR_E_DEADLINE;
    struct fetch fetch = of("/hang");
    begin(&fetch, &scope);
    turn_clock(0);
    turn_clock(60);
    assert_int_equal(fetch.code, MR_E_DEADLINE);
    scope_done(&scope);
}

static void test_torture(void **state)
{
    (void)state;
    const int codes[] = {MR_E_CANCELLED, MR_E_TIMEOUT, MR_E_RESET};
    const char *const paths[] = {"/ok", "/held", "/reset"};
    uint64_t before = wait_count();
    struct fetch once = of("/ok");
    run(&once);
    http_reply_done(&once.reply);
    uint64_t suspensions = wait_count() - before;
    assert_int_equal(suspensions, 1);
    for (size_t c = 0; c < 3; c++)
        for (size_t p = 0; p < 3; p++) {
            struct fetch fetch = of(paths[p]);
            wait_torture(1, codes[c]);
            run(&fetch);
            assert_int_equal(fetch.code, codes[c]);
            assert_int_equal(fetch.err.code, codes[c]);
            assert_null(fetch.reply.body);
        }
}

/* The guard */

static void test_guard(void **state)
{
    (void)state;
    const char *const hosts[] = {"127.0.0.1",  "localhost",          "[::1]", "0.0.0.0",
                                 "2130706433", "[::ffff:127.0.0.1]", "127.1"};
    /* A kept connection to the same place must not let the guarded call through. */
    struct fetch first = of("/ok");
    run(&first);
    assert_int_equal(first.code, MR_OK);
    http_reply_done(&first.reply);
    unsigned before = atomic_load(&server.counts->requests);
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        struct fetch fetch = {.request.guard = true};
        snprintf(fetch.url, sizeof(fetch.url), "http://%s:%d/ok", hosts[i], server.port);
        run(&fetch);
        assert_int_equal(fetch.code, MR_E_SCHEMA);
        ASSERT_SAYS(&fetch, "not open to calls from users");
    }
    assert_int_equal(atomic_load(&server.counts->requests), before);
}

static void test_guard_lets_through(void **state)
{
    (void)state;
    const char *const nets[] = {"127.0.0.0/8", NULL};
    struct http *open = http;
    struct http_config config = {.allow = nets};
    assert_int_equal(http_open(&loop, &config, &http, NULL), MR_OK);
    struct fetch fetch = of("/ok");
    fetch.request.guard = true;
    run(&fetch);
    assert_int_equal(fetch.code, MR_OK);
    http_reply_done(&fetch.reply);
    http_close(http);
    http = open;
    const char *const bad[] = {"everything", NULL};
    struct http *none = NULL;
    struct error err = {0};
    config.allow = bad;
    assert_int_equal(http_open(&loop, &config, &none, &err), MR_E_SCHEMA);
    assert_null(none);
}

/* Many */

static size_t threads_of_process(void)
{
    DIR *dir = opendir("/proc/self/task");
    assert_non_null(dir);
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

/* A name that needs the resolver: it is asked once, not once a call. */
static void test_one_resolver(void **state)
{
    (void)state;
    char name[128] = "";
    gethostname(name, sizeof(name) - 1);
    enum { COUNT = 60 };
    static struct fetch calls[COUNT];
    memset(calls, 0, sizeof(calls));
    for (int i = 0; i < COUNT; i++) {
        snprintf(calls[i].url, sizeof(calls[i].url), "http://%s:%d/ok", name, server.port);
        begin(&calls[i], NULL);
    }
    size_t most = 0;
    while (loop.fibers > 0) {
        uv_run(&loop.uv, UV_RUN_ONCE);
        size_t now = threads_of_process();
        most = now > most ? now : most;
    }
    for (int i = 0; i < COUNT; i++) {
        /* The server listens on 127.0.0.1 only, where this name may not lead; all fare alike. */
        assert_int_equal(calls[i].code, calls[0].code);
        if (calls[i].code == MR_OK)
            http_reply_done(&calls[i].reply);
    }
    assert_in_range(most, 1, 12);
}

static size_t rss_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    unsigned long size = 0, resident = 0;
    assert_int_equal(fscanf(file, "%lu %lu", &size, &resident), 2);
    fclose(file);
    return (size_t)resident * (size_t)sysconf(_SC_PAGESIZE);
}

static double run_many(size_t count, const char *path, size_t *ret_each)
{
    struct fetch *calls = mem_zalloc(count * sizeof(*calls));
    unsigned before = atomic_load(&server.counts->requests);
    struct fetch proto = of(path);
    proto.request.body = "{\"model\": \"m\", \"messages\": []}";
    proto.request.body_len = strlen(proto.request.body);
    for (size_t i = 0; i < count; i++) {
        calls[i] = proto;
        calls[i].request.url = calls[i].url;
    }
    size_t rss = rss_bytes();
    double start = real_s();
    for (size_t i = 0; i < count; i++)
        begin(&calls[i], NULL);
    PUMP_UNTIL(atomic_load(&server.counts->requests) - before == count);
    assert_int_equal(http_in_flight(http), count);
    *ret_each = rss_bytes() > rss ? (rss_bytes() - rss) / count : 0;
    httpd_release(&server);
    loop_run_fibers(&loop);
    double took = real_s() - start;
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(calls[i].code, MR_OK);
        assert_string_equal(calls[i].reply.body, HTTPD_OK);
        http_reply_done(&calls[i].reply);
    }
    free(calls);
    return took;
}

static void test_many(void **state)
{
    (void)state;
    size_t count = sanitize_mappings_fit(5000) ? 2000 : 100, each;
    unsigned before = atomic_load(&server.counts->connections);
    run_many(count, "/held", &each);
    unsigned cold = atomic_load(&server.counts->connections) - before;
    run_many(count, "/held", &each);
    assert_int_equal(cold, count);
    /* The second burst finds all its connections kept. */
    assert_int_equal(atomic_load(&server.counts->connections) - before, cold);
}

static int setup_many(void **state)
{
    in_flight_max = 2000;
    return setup(state);
}

static int setup_5000(void **state)
{
    in_flight_max = 5000;
    return setup(state);
}

static int teardown_many(void **state)
{
    in_flight_max = 0;
    return teardown(state);
}

static void test_figures(void **state)
{
    (void)state;
    size_t count = sanitize_mappings_fit(5000) ? 5000 : 100, each, again;
    clock_t cpu = clock();
    double took = run_many(count, "/held", &each);
    double cpu_us = (double)(clock() - cpu) * 1e6 / CLOCKS_PER_SEC / (double)count;
    cpu = clock();
    double warm = run_many(count, "/held", &again);
    double warm_us = (double)(clock() - cpu) * 1e6 / CLOCKS_PER_SEC / (double)count;
    print_message("%zu waiting calls: %zu B each with fiber, stack and connection; cold %.2f s, "
                  "%.0f us of CPU each; warm %.2f s, %.0f us\n",
                  count, each, took, cpu_us, warm, warm_us);
}

int main(void)
{
#define HTTP_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        HTTP_TEST(test_get),
        HTTP_TEST(test_request_as_sent),
        HTTP_TEST(test_methods),
        HTTP_TEST(test_every_status_is_ok),
        HTTP_TEST(test_interim_answer),
        HTTP_TEST(test_connection_is_kept),
        HTTP_TEST(test_broken_connections),
        HTTP_TEST(test_refused_connection),
        HTTP_TEST(test_sizes),
        HTTP_TEST(test_many_headers),
        HTTP_TEST(test_bad_requests),
        HTTP_TEST(test_limit_of_connect),
        HTTP_TEST(test_limit_of_first_byte),
        HTTP_TEST(test_limit_of_idle),
        HTTP_TEST(test_limit_of_all),
        HTTP_TEST(test_limit_of_sending),
        HTTP_TEST(test_long_body_arrives),
        HTTP_TEST(test_cancel),
        HTTP_TEST(test_deadline_of_scope),
        HTTP_TEST(test_torture),
        HTTP_TEST(test_guard),
        HTTP_TEST(test_guard_lets_through),
        HTTP_TEST(test_one_resolver),
        cmocka_unit_test_setup_teardown(test_many, setup_many, teardown_many),
        cmocka_unit_test_setup_teardown(test_figures, setup_5000, teardown_many),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
