/* The acceptor over a real unix socket, with a raw FastCGI client on a thread: what web servers do,
 * what broken and hostile peers do, and that nobody is kept from being served meanwhile. */
#include "base/mem.h"
#include "fcgi/acceptor.h"
#include "fcgi/sse.h"
#include "fcgi_client.h"
#include <pthread.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include <cmocka.h>

static struct loop loop;
static struct acceptor *acceptor;
static struct acceptor_setup setup;
static char folder[64], path[96];
static const char *failure;       /* first CHECK that failed on the client's thread */
static _Atomic int gone;          /* handlers that were cancelled because their client left */
static _Atomic int waiting;       /* handlers that wait */
static _Atomic int cut_streams;   /* streams that ended with a stalled reader */
static _Atomic int ended_streams; /* streams that ended otherwise */
static struct wait *client_ended;
static bool client_has_ended;
static uint64_t stream_stall_ms;

#define TEXT2(x) #x
#define TEXT(x)  TEXT2(x)
#define CHECK(expression)                                                                          \
    do {                                                                                           \
        if (!(expression) && failure == NULL) {                                                    \
            failure = "line " TEXT(__LINE__) ": " #expression;                                     \
        }                                                                                          \
    } while (0)

/* ---- The server's side ---- */

static void answer_text(struct exchange *exchange, int status, const char *text, size_t len)
{
    struct response response;
    response_init(&response);
    response.status = status;
    char *body = mem_alloc(len + 1);
    memcpy(body, text, len);
    response_steal(&response, "text/plain", body, len);
    exchange_respond(exchange, &response);
}

static void handle_wait(void *arg)
{
    struct exchange *exchange = arg;
    atomic_fetch_add(&waiting, 1);
    if (wait_sleep(&loop, 60000) == MR_E_CANCELLED) {
        atomic_fetch_add(&gone, 1);
    }
    scope_enter(NULL);
    answer_text(exchange, 503, "", 0);
}

/* Events without end until the peer stalls or leaves; `?n=N`: so many. */
static void handle_stream(void *arg)
{
    struct exchange *exchange = arg;
    const char *n = request_query(&exchange->request, "n");
    struct sse sse;
    int rc = sse_open(&sse, &loop, exchange);
    sse.stall_ms = stream_stall_ms;
    char data[4001];
    memset(data, 'd', sizeof(data) - 1);
    data[4000] = '\0';
    for (uint64_t i = 1; rc == MR_OK && (n == NULL || i <= strtoull(n, NULL, 10)); i++) {
        rc = sse_event(&sse, i, "tick", data, n != NULL ? 10 : 4000);
        if (rc == MR_OK) {
            rc = wait_yield(&loop);
        }
    }
    if (n != NULL && rc == MR_OK) {
        rc = sse_comment(&sse, "beat");
    }
    if (rc == MR_E_TIMEOUT) {
        atomic_fetch_add(&cut_streams, 1);
    } else {
        atomic_fetch_add(&ended_streams, 1);
    }
    sse_close(&sse);
}

static void on_request(void *arg, struct exchange *exchange)
{
    (void)arg;
    const struct request *request = &exchange->request;
    if (exchange->refusal != 0) {
        answer_text(exchange, exchange->refusal, exchange->refusal_text,
                    strlen(exchange->refusal_text));
    } else if (strcmp(request->path, "/wait") == 0) {
        assert_int_equal(loop_spawn(&loop, &exchange->scope, handle_wait, exchange), MR_OK);
    } else if (strcmp(request->path, "/stream") == 0) {
        assert_int_equal(loop_spawn(&loop, &exchange->scope, handle_stream, exchange), MR_OK);
    } else if (strcmp(request->path, "/big") == 0) {
        size_t len = 4u << 20;
        mem_auto char *big = mem_alloc(len);
        memset(big, 'b', len);
        answer_text(exchange, 200, big, len);
    } else if (request->body.len > 0) {
        answer_text(exchange, 200, request->body.data, request->body.len);
    } else {
        answer_text(exchange, 200, request->path, strlen(request->path));
    }
}

static int listen_at(const char *at)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", at);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 1024), 0);
    return fd;
}

static void on_client_ended(void *arg)
{
    (void)arg;
    client_has_ended = true;
    if (client_ended != NULL) {
        wait_wake(client_ended, MR_OK);
    }
}

static void *client_main(void *arg)
{
    void (*const *client)(void) = arg;
    (*client)();
    loop_post(&loop, on_client_ended, NULL);
    return NULL;
}

static void serve(void *arg)
{
    (void)arg;
    if (!client_has_ended) {
        struct wait wait;
        wait_init(&wait, &loop);
        client_ended = &wait;
        wait_for(&wait, UINT64_MAX);
        client_ended = NULL;
    }
    acceptor_close(acceptor);
}

static void prepare(void)
{
    memset(&setup, 0, sizeof(setup));
    setup.prefix = "";
    setup.body_max_bytes = 1u << 20;
    setup.on_request = on_request;
    stream_stall_ms = 300;
}

/* Runs a client against an acceptor with `setup`. */
static void run(void (*client)(void))
{
    struct error err;
    snprintf(folder, sizeof(folder), "/tmp/mr-acceptor-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/socket", folder);
    assert_int_equal(loop_init(&loop, &err), MR_OK);
    setup.listen_fd = listen_at(path);
    setup.loop = &loop;
    failure = NULL;
    gone = waiting = cut_streams = ended_streams = 0;
    client_has_ended = false;
    acceptor = acceptor_open(&setup, &err);
    assert_non_null(acceptor);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, client_main, &client), 0);
    assert_int_equal(loop_spawn(&loop, NULL, serve, NULL), MR_OK);
    loop_run_fibers(&loop);
    pthread_join(thread, NULL);
    close(setup.listen_fd);
    loop_done(&loop);
    fiber_trim();
    unlink(path);
    rmdir(folder);
    if (failure != NULL) {
        fail_msg("client: %s", failure);
    }
}

/* ---- Clients ---- */

static void plain_client(void)
{
    char body[64];
    CHECK(client_once(path, "GET", "/hello?x=1", "", body, sizeof(body)) == 200);
    CHECK(strcmp(body, "/hello") == 0);
    CHECK(client_once(path, "POST", "/x", "some body", body, sizeof(body)) == 200);
    CHECK(strcmp(body, "some body") == 0);
    CHECK(client_once(path, "HEAD", "/hello", "", body, sizeof(body)) == 200);
    CHECK(strcmp(body, "") == 0);
    CHECK(client_once(path, "GET", "/%zz", "", NULL, 0) == 400);
}

static void plain(void **state)
{
    (void)state;
    prepare();
    run(plain_client);
}

/* The FastCGI client that comes with libfcgi; its answer, or "none" where it is not installed. */
static void cgi_fcgi(char *ret, size_t size)
{
    int out[2];
    snprintf(ret, size, "none");
    if (pipe(out) != 0) {
        return;
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_addclose(&actions, out[0]);
    char *const argv[] = {"cgi-fcgi", "-bind", "-connect", path, NULL};
    char *const env[] = {"REQUEST_METHOD=GET", "REQUEST_URI=/by/cgi-fcgi", "PATH=/usr/bin:/bin",
                         NULL};
    pid_t pid = 0;
    int rc = posix_spawnp(&pid, argv[0], &actions, NULL, argv, env);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    size_t len = 0;
    ssize_t got = 0;
    while (rc == 0 && len + 1 < size && (got = read(out[0], ret + len, size - 1 - len)) > 0) {
        len += (size_t)got;
        ret[len] = '\0';
    }
    close(out[0]);
    if (rc == 0) {
        waitpid(pid, NULL, 0);
    }
}

static void cgi_fcgi_client(void)
{
    char answer[2048];
    cgi_fcgi(answer, sizeof(answer));
    if (strcmp(answer, "none") != 0) {
        CHECK(strstr(answer, "Status: 200 OK\r\n") == answer);
        CHECK(strstr(answer, "\r\n\r\n/by/cgi-fcgi") != NULL);
    }
}

static void by_cgi_fcgi(void **state)
{
    (void)state;
    prepare();
    run(cgi_fcgi_client);
}

static void kept_client(void)
{
    /* Two kept connections take turns over one thread, then one more idles beside a new one. */
    int fd[2] = {client_connect(path), client_connect(path)};
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 2; i++) {
            struct client client;
            client_init(&client, fd[i]);
            CHECK(client_request(fd[i], true, "POST", "/x", i == 0 ? "zero" : "one"));
            CHECK(client_answer(&client) == 200);
            CHECK(strcmp(client_body(&client), i == 0 ? "zero" : "one") == 0);
            client_done(&client);
        }
    }
    CHECK(client_once(path, "GET", "/beside", "", NULL, 0) == 200);
    close(fd[0]);
    close(fd[1]);
}

static void kept(void **state)
{
    (void)state;
    prepare();
    setup.threads_max = 1;
    run(kept_client);
}

static void hostile_client(void)
{
    int silent = client_connect(path);
    int half = client_connect(path);
    client_send(half, "\1\1\0\1\0", 5);
    int half_params = client_connect(path);
    unsigned char begin[8] = {0, 1, 0};
    client_record(half_params, 1, begin, 8);
    client_send(half_params, "\1\4\0\1\1\0\0\0abc", 11);
    int garbage = client_connect(path);
    client_send(garbage, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 28);
    int lying = client_connect(path);
    client_record(lying, 1, begin, 8);
    client_record(lying, 4, "\xff\xff\xff\xff\xff\xff\xff\xff", 8); /* a name of 2 GiB */
    /* Others are served at once all the while. */
    for (int i = 0; i < 20; i++) {
        CHECK(client_once(path, "GET", "/ok", "", NULL, 0) == 200);
    }
    /* Those that stalled are broken off at the deadline: the read ends. */
    char byte;
    CHECK(recv(half, &byte, 1, 0) <= 0);
    CHECK(recv(half_params, &byte, 1, 0) <= 0);
    CHECK(recv(garbage, &byte, 1, 0) <= 0);
    CHECK(client_once(path, "GET", "/ok", "", NULL, 0) == 200);
    close(silent);
    close(half);
    close(half_params);
    close(garbage);
    close(lying);
}

static void hostile(void **state)
{
    (void)state;
    prepare();
    setup.threads_max = 8;
    setup.request_ms = 300;
    run(hostile_client);
}

static void slow_body_client(void)
{
    /* Sixteen peers that never end their body, over four threads: each is cut off, and others are
     * served within the deadline's time. */
    int slow[16];
    for (int i = 0; i < 16; i++) {
        slow[i] = client_connect(path);
        client_begin(slow[i], false, "POST", "/x", "1000");
        client_record(slow[i], 5, "abc", 3);
    }
    CHECK(client_once(path, "GET", "/ok", "", NULL, 0) == 200);
    for (int i = 0; i < 16; i++) {
        char byte;
        CHECK(recv(slow[i], &byte, 1, 0) <= 0);
        close(slow[i]);
    }
}

static void slow_body(void **state)
{
    (void)state;
    prepare();
    setup.threads_max = 4;
    setup.request_ms = 200;
    run(slow_body_client);
}

static int with_body(const char *length, const char *body, bool end)
{
    int fd = client_connect(path);
    struct client client;
    client_init(&client, fd);
    client_begin(fd, false, "POST", "/x", length);
    client_record(fd, 5, body, strlen(body));
    if (end) {
        client_record(fd, 5, NULL, 0);
    } else {
        shutdown(fd, SHUT_WR);
    }
    int status = client_answer(&client);
    client_done(&client);
    close(fd);
    return status;
}

static void bodies_client(void)
{
    CHECK(with_body("5", "12345", true) == 200);
    CHECK(with_body(NULL, "12345", true) == 200); /* Apache, chunked */
    CHECK(with_body("-1", "12345", true) == 200); /* Caddy */
    CHECK(with_body("", "12345", true) == 200);
    CHECK(with_body("6", "12345", true) == 400);
    CHECK(with_body("4", "12345", true) == 400);
    CHECK(with_body("five", "12345", true) == 400);
    CHECK(with_body("1000", "12345", false) == 400); /* truncated */
    CHECK(with_body("99999999999999999999", "12345", true) == 400);
    /* Over the limit, announced or not: the whole body is read, the answer arrives. */
    for (int announced = 0; announced < 2; announced++) {
        int fd = client_connect(path);
        struct client client;
        client_init(&client, fd);
        client_begin(fd, true, "POST", "/x", announced ? "3200000" : NULL);
        char part[32000];
        memset(part, 'x', sizeof(part));
        bool sent = true;
        for (int i = 0; i < 100; i++) {
            sent = sent && client_record(fd, 5, part, sizeof(part));
        }
        CHECK(sent && client_record(fd, 5, NULL, 0));
        CHECK(client_answer(&client) == 413);
        client_done(&client);
        /* The connection is whole: it may be used again. */
        client_init(&client, fd);
        CHECK(client_request(fd, false, "GET", "/again", ""));
        CHECK(client_answer(&client) == 200);
        client_done(&client);
        close(fd);
    }
}

static void bodies(void **state)
{
    (void)state;
    prepare();
    run(bodies_client);
}

static void full_client(void)
{
    char body[60001];
    memset(body, 'x', 60000);
    body[60000] = '\0';
    CHECK(client_once(path, "POST", "/x", body, NULL, 0) == 503);
    CHECK(client_once(path, "POST", "/x", "small", NULL, 0) == 200);
}

static void full(void **state)
{
    (void)state;
    prepare();
    setup.memory_max_bytes = 50000;
    run(full_client);
}

static void params_client(void)
{
    int fd = client_connect(path);
    struct client client;
    client_init(&client, fd);
    unsigned char begin[8] = {0, 1, 0};
    client_record(fd, 1, begin, 8);
    unsigned char params[200];
    char value[121];
    memset(value, 'v', 120);
    value[120] = '\0';
    client_record(fd, 4, params, client_param(params, "REQUEST_METHOD", "GET"));
    client_record(fd, 4, params, client_param(params, "REQUEST_URI", "/"));
    size_t len = client_param(params, "HTTP_X", value);
    for (int i = 0; i < 1000; i++) {
        client_record(fd, 4, params, len);
    }
    client_record(fd, 4, NULL, 0);
    client_record(fd, 5, NULL, 0);
    CHECK(client_answer(&client) == 413);
    client_done(&client);
    close(fd);
}

static void huge_params(void **state)
{
    (void)state;
    prepare();
    run(params_client);
}

static void *one_of_many(void *arg)
{
    size_t *served = arg;
    for (int i = 0; i < 20; i++) {
        char body[32];
        if (client_once(path, "POST", "/x", "body of mine", body, sizeof(body)) == 200 &&
            strcmp(body, "body of mine") == 0) {
            (*served)++;
        }
    }
    return NULL;
}

static void many_client(void)
{
    pthread_t thread[64];
    size_t served[64] = {0};
    for (int i = 0; i < 64; i++) {
        pthread_create(&thread[i], NULL, one_of_many, &served[i]);
    }
    for (int i = 0; i < 64; i++) {
        pthread_join(thread[i], NULL);
        CHECK(served[i] == 20);
    }
}

static void many(void **state)
{
    (void)state;
    prepare();
    run(many_client);
}

static void big_client(void)
{
    int fd = client_connect(path);
    struct client client;
    client_init(&client, fd);
    client_request(fd, false, "GET", "/big", "");
    CHECK(client_answer(&client) == 200);
    CHECK(strlen(client_body(&client)) == 4u << 20);
    client_done(&client);
    close(fd);
    /* One who does not read his answer is cut off; the thread is free again. */
    int stalled = client_connect(path);
    client_request(stalled, true, "GET", "/big", "");
    for (int i = 0; i < 10; i++) {
        CHECK(client_once(path, "GET", "/ok", "", NULL, 0) == 200);
    }
    struct pollfd hang_up = {.fd = stalled};
    CHECK(poll(&hang_up, 1, 20000) == 1);
    client_init(&client, stalled);
    while (client_read(&client)) {
    }
    CHECK(!client.ended);
    client_done(&client);
    close(stalled);
}

static void big_answers(void **state)
{
    (void)state;
    prepare();
    setup.threads_max = 2;
    setup.request_ms = 200;
    setup.mib_ms = 1;
    run(big_client);
}

static void await(_Atomic int *counter, int value)
{
    for (int i = 0; i < 10000 && atomic_load(counter) < value; i++) {
        struct pollfd none = {.fd = -1};
        poll(&none, 0, 1);
    }
    CHECK(atomic_load(counter) >= value);
}

static void leaving_client(void)
{
    int fd = client_connect(path);
    client_request(fd, false, "GET", "/wait", "");
    await(&waiting, 1);
    CHECK(atomic_load(&gone) == 0);
    close(fd);
    await(&gone, 1);
    /* An abort record does the same on a connection that stays. */
    fd = client_connect(path);
    client_request(fd, true, "GET", "/wait", "");
    await(&waiting, 2);
    client_record(fd, 2, NULL, 0);
    await(&gone, 2);
    close(fd);
    /* Half-closing a unix socket is not leaving. */
    fd = client_connect(path);
    client_request(fd, false, "GET", "/wait", "");
    shutdown(fd, SHUT_WR);
    await(&waiting, 3);
    CHECK(client_once(path, "GET", "/ok", "", NULL, 0) == 200);
    CHECK(atomic_load(&gone) == 2);
    close(fd);
    await(&gone, 3);
}

static void leaving(void **state)
{
    (void)state;
    prepare();
    run(leaving_client);
}

static void stream_client(void)
{
    /* A stream with an end, on a kept connection that is then used again. */
    int fd = client_connect(path);
    struct client client;
    client_init(&client, fd);
    client_request(fd, true, "GET", "/stream?n=3", "");
    CHECK(client_answer(&client) == 200);
    CHECK(strstr(client.out, "Content-Type: text/event-stream") != NULL);
    CHECK(strstr(client.out, "X-Accel-Buffering: no") != NULL);
    CHECK(strstr(client.out, "Content-Length") == NULL);
    CHECK(strcmp(client_body(&client), "retry: 3000\n\n"
                                       "id: 1\nevent: tick\ndata: dddddddddd\n\n"
                                       "id: 2\nevent: tick\ndata: dddddddddd\n\n"
                                       "id: 3\nevent: tick\ndata: dddddddddd\n\n"
                                       ": beat\n\n") == 0);
    client_done(&client);
    client_init(&client, fd);
    CHECK(client_request(fd, false, "GET", "/again", ""));
    CHECK(client_answer(&client) == 200);
    client_done(&client);
    close(fd);
}

static void streams(void **state)
{
    (void)state;
    prepare();
    run(stream_client);
    assert_int_equal(ended_streams, 1);
}

static void stalled_client(void)
{
    int stalled = client_connect(path);
    client_request(stalled, false, "GET", "/stream", "");
    int reading = client_connect(path);
    client_request(reading, false, "GET", "/stream", "");
    struct client client;
    client_init(&client, reading);
    /* The reader gets its events until the one who does not read has been cut off. */
    size_t before = 0;
    while (atomic_load(&cut_streams) == 0 && client_read(&client)) {
        before = client.len;
        client.len = 0;
    }
    CHECK(atomic_load(&cut_streams) == 1);
    CHECK(before > 0);
    CHECK(client_read(&client)); /* and goes on afterwards */
    CHECK(client_once(path, "GET", "/ok", "", NULL, 0) == 200);
    CHECK(atomic_load(&ended_streams) == 0);
    client_done(&client);
    close(reading);
    await(&ended_streams, 1);
    close(stalled);
}

static void stalled_stream(void **state)
{
    (void)state;
    prepare();
    run(stalled_client);
}

static int left_waiting, left_streaming, left_idle, left_half;

static void shutdown_client(void)
{
    left_waiting = client_connect(path);
    client_request(left_waiting, true, "GET", "/wait", "");
    left_streaming = client_connect(path);
    client_request(left_streaming, true, "GET", "/stream", "");
    left_idle = client_connect(path);
    left_half = client_connect(path);
    client_begin(left_half, false, "POST", "/x", "10");
    await(&waiting, 1);
}

static void shuts_down(void **state)
{
    (void)state;
    prepare();
    stream_stall_ms = 200;
    run(shutdown_client); /* returns when everything has ended, whatever peers do */
    struct client client;
    client_init(&client, left_waiting);
    assert_int_equal(client_answer(&client), 503);
    client_done(&client);
    assert_int_equal(gone, 0); /* it was told that we stop, not that its client left */
    close(left_waiting);
    close(left_streaming);
    close(left_idle);
    close(left_half);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain),          cmocka_unit_test(by_cgi_fcgi), cmocka_unit_test(kept),
        cmocka_unit_test(hostile),        cmocka_unit_test(slow_body),   cmocka_unit_test(bodies),
        cmocka_unit_test(full),           cmocka_unit_test(huge_params), cmocka_unit_test(many),
        cmocka_unit_test(big_answers),    cmocka_unit_test(leaving),     cmocka_unit_test(streams),
        cmocka_unit_test(stalled_stream), cmocka_unit_test(shuts_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
