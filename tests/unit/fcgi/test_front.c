/* The front's process against a real Redis: the whole HTTP API over the socket. No worker runs;
 * what happens to a job is what a client can make happen: it waits, and it is cancelled. */
#include "app/config.h"
#include "base/id.h"
#include "base/json.h"
#include "base/mem.h"
#include "fcgi/front_main.h"
#include "fcgi_client.h"
#include "redis_server.h"
#include "run/pipeline.h"
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

static struct redis_server redis_server;
static char path[96];
static pid_t front_pid;

static const char greet[] =
    "{\"name\":\"greet\",\"input\":{\"required\":[\"user\"]},\"stages\":[{\"name\":\"say\","
    "\"plugin\":\"echo\"},{\"name\":\"then\",\"plugin\":\"echo\"}]}";
static const char prompt[] =
    "{\"name\":\"prompt\",\"stages\":[{\"name\":\"say\",\"plugin\":\"echo\"}]}";

/* ---- Processes ---- */

static void pause_ms(int ms)
{
    struct pollfd none = {.fd = -1};
    poll(&none, 0, ms);
}

static void stop(pid_t *pid, int signal)
{
    if (*pid > 0) {
        kill(*pid, signal);
        int status = 0;
        waitpid(*pid, &status, 0);
        *pid = 0;
        if (signal == SIGTERM) {
            assert_true(WIFEXITED(status));
            assert_int_equal(WEXITSTATUS(status), 0);
        }
    }
}

static struct config *make_config(void)
{
    char file[128];
    snprintf(file, sizeof(file), "%s/millrace.json", redis_server.dir);
    FILE *out = fopen(file, "w");
    fprintf(out,
            "{\"redis\":{\"url\":\"%s\"},\"limits\":{\"body_max\":\"1MiB\",\"streams_max\":2,"
            "\"prompt_max\":\"1KiB\",\"queue_max\":50,\"json_depth\":20},\"role\":\"front\","
            "\"drain\":\"2s\"}",
            redis_server.url);
    fclose(out);
    struct report report;
    report_init(&report);
    struct config *config = config_load(file, &report);
    for (size_t i = 0; i < report.count; i++) {
        fprintf(stderr, "%s: %s\n", report.items[i].where, report.items[i].message);
    }
    report_done(&report);
    return config;
}

/* In the child: never returns. */
static void be_front(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct error err;
    struct config *config = make_config();
    struct redis_config redis = {0};
    if (config == NULL || redis_config_parse(config->redis.url, &redis, &err) != MR_OK) {
        _exit(9);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    unlink(path);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 512) != 0) {
        _exit(8);
    }
    struct pipeline_source *sources[] = {
        pipeline_source_new("greet", "greet.json", "/", greet, sizeof(greet) - 1),
        pipeline_source_new("prompt", "prompt.json", "/", prompt, sizeof(prompt) - 1), NULL};
    const struct front_setup setup = {
        .config = config,
        .redis = &redis,
        .listen_fd = fd,
        .lifeline_fd = -1,
        .sources = (const struct pipeline_source *const *)sources,
    };
    int code = front_run(&setup);
    pipeline_source_free(sources[0]);
    pipeline_source_free(sources[1]);
    redis_config_done(&redis);
    config_free(config);
    close(fd);
    exit(code);
}

static int status_of(const char *method, const char *uri, const char *body);

static void await_status(const char *uri, int status)
{
    for (int i = 0; i < 4000; i++) {
        if (status_of("GET", uri, "") == status) {
            return;
        }
        pause_ms(5);
    }
    fail_msg("%s does not become %d", uri, status);
}

static int setup(void **state)
{
    (void)state;
    redis_server_start(&redis_server);
    snprintf(path, sizeof(path), "%s/front.sock", redis_server.dir);
    front_pid = fork();
    if (front_pid == 0) {
        be_front();
    }
    await_status("/readyz", 200);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stop(&front_pid, SIGTERM);
    unlink(path);
    char file[128];
    snprintf(file, sizeof(file), "%s/millrace.json", redis_server.dir);
    unlink(file);
    redis_server_stop(&redis_server);
    return 0;
}

/* ---- Requests ---- */

static struct client client; /* of the last request */
static json_t *body_json;    /* of its body, NULL when there is none */

static bool send_with(int fd, bool keep, const char *method, const char *uri, const char *body,
                      const char *const *headers)
{
    unsigned char begin[8] = {0, 1, keep ? 1 : 0};
    unsigned char params[4096];
    size_t len = client_param(params, "REQUEST_METHOD", method);
    len += client_param(params + len, "REQUEST_URI", uri);
    for (; headers != NULL && *headers != NULL; headers += 2) {
        len += client_param(params + len, headers[0], headers[1]);
    }
    bool sent = client_record(fd, 1, begin, 8) && client_record(fd, 4, params, len) &&
                client_record(fd, 4, NULL, 0);
    for (size_t at = 0, all = strlen(body); sent && at < all;) {
        size_t part = all - at < 60000 ? all - at : 60000;
        sent = client_record(fd, 5, body + at, part);
        at += part;
    }
    return sent && client_record(fd, 5, NULL, 0);
}

static void forget(void)
{
    json_decref(body_json);
    body_json = NULL;
    client_done(&client);
}

/* Reads the answer to what was sent on `fd`. */
static int receive(int fd)
{
    forget();
    client_init(&client, fd);
    int status = client_answer(&client);
    close(fd);
    body_json = json_loads(client_body(&client), JSON_DECODE_ANY, NULL);
    return status;
}

static int request(const char *method, const char *uri, const char *body,
                   const char *const *headers)
{
    int fd = client_connect(path);
    if (fd < 0 || !send_with(fd, false, method, uri, body, headers)) {
        return -1;
    }
    return receive(fd);
}

static int status_of(const char *method, const char *uri, const char *body)
{
    return request(method, uri, body, NULL);
}

static int with(const char *method, const char *uri, const char *body, const char *name,
                const char *value)
{
    const char *headers[] = {name, value, NULL};
    return request(method, uri, body, headers);
}

static const char *text_of(const char *member)
{
    return json_text_or(body_json, member, "(none)");
}

static const char *slug(void)
{
    const char *type = text_of("type");
    return strncmp(type, "urn:millrace:problem:", 21) == 0 ? type + 21 : type;
}

/* A header of the last answer, or "". */
static const char *header(const char *name)
{
    static char value[256];
    char line[64];
    snprintf(line, sizeof(line), "\r\n%s: ", name);
    const char *at = strstr(client.out, line);
    value[0] = '\0';
    if (at != NULL) {
        at += strlen(line);
        snprintf(value, sizeof(value), "%.*s", (int)strcspn(at, "\r"), at);
    }
    return value;
}

static char job[ID_BYTES];

static void submit(const char *user)
{
    char body[128];
    snprintf(body, sizeof(body), "{\"pipeline\":\"greet\",\"input\":{\"user\":\"%s\"}}", user);
    assert_int_equal(status_of("POST", "/api/v1/jobs", body), 202);
    snprintf(job, sizeof(job), "%s", text_of("id"));
}

static const char *at_job(const char *rest)
{
    static _Thread_local char uri[128];
    snprintf(uri, sizeof(uri), "/api/v1/jobs/%s%s", job, rest);
    return uri;
}

/* ---- Tests ---- */

static void health(void **state)
{
    (void)state;
    assert_int_equal(status_of("GET", "/healthz", ""), 200);
    assert_string_equal(header("Cache-Control"), "no-store");
    assert_int_equal(strlen(header("X-Request-Id")), 32);
    assert_int_equal(status_of("GET", "/version", ""), 200);
    assert_string_equal(text_of("version"), MR_VERSION);
    assert_int_equal(with("GET", "/readyz", "", "HTTP_X_REQUEST_ID", "mine"), 200);
    assert_string_equal(header("X-Request-Id"), "mine");
}

static void routing(void **state)
{
    (void)state;
    assert_int_equal(status_of("GET", "/nothing", ""), 404);
    assert_string_equal(slug(), "not-found");
    assert_int_equal(status_of("DELETE", "/api/tasks", ""), 405);
    assert_string_equal(header("Allow"), "POST, GET, HEAD");
    assert_int_equal(status_of("GET", "/api/v1/jobs/not-an-id", ""), 404);
    assert_int_equal(status_of("GET", "/api/v1/jobs/00000000-0000-5000-8000-000000000000", ""),
                     404);
    assert_int_equal(status_of("GET", "/%ff", ""), 400);
    assert_int_equal(status_of("HEAD", "/healthz", ""), 200);
    assert_string_equal(client_body(&client), "");
    assert_string_not_equal(header("Content-Length"), "0");
}

static void submits(void **state)
{
    (void)state;
    submit("a");
    assert_string_equal(text_of("object"), "job");
    assert_string_equal(text_of("pipeline"), "greet");
    assert_string_equal(text_of("status"), "queued");
    assert_non_null(json_object_get(body_json, "created_at"));
    assert_true(json_is_null(json_object_get(body_json, "result")));
    assert_string_equal(json_text_or(json_at(body_json, "/stages/say"), "status", ""), "queued");
    assert_string_equal(json_text_or(json_object_get(body_json, "links"), "self", ""), at_job(""));
    assert_string_equal(header("Location"), at_job(""));
    assert_string_not_equal(header("ETag"), "");
    assert_string_not_equal(header("Retry-After"), "");
    assert_string_equal(header("Idempotent-Replayed"), "");
    /* The id is the one that anybody can compute. */
    json_t *input = json_pack("{s:s}", "user", "a");
    char id[ID_BYTES];
    assert_int_equal(id_of_job(ID_NAMESPACE_DEFAULT, "greet", NULL, input, id, NULL), MR_OK);
    json_decref(input);
    assert_string_equal(job, id);
    /* Again: the same job. */
    submit("a");
    assert_string_equal(job, id);
    assert_string_equal(header("Idempotent-Replayed"), "true");
    assert_int_equal(status_of("GET", at_job(""), ""), 200);
    assert_string_equal(text_of("id"), id);
}

static void keys(void **state)
{
    (void)state;
    const char *one = "{\"pipeline\":\"greet\",\"input\":{\"user\":\"k1\"}}";
    const char *two = "{\"pipeline\":\"greet\",\"input\":{\"user\":\"k2\"}}";
    assert_int_equal(with("POST", "/api/v1/jobs", one, "HTTP_IDEMPOTENCY_KEY", "the-key"), 202);
    assert_int_equal(with("POST", "/api/v1/jobs", one, "HTTP_IDEMPOTENCY_KEY", "\"the-key\""), 202);
    assert_string_equal(header("Idempotent-Replayed"), "true");
    assert_int_equal(with("POST", "/api/v1/jobs", two, "HTTP_IDEMPOTENCY_KEY", "the-key"), 422);
    assert_string_equal(slug(), "idempotency-key-reuse");
    assert_int_equal(with("POST", "/api/v1/jobs", one, "HTTP_IDEMPOTENCY_KEY", ""), 400);
    char id[ID_BYTES];
    const char *fresh = "{\"pipeline\":\"greet\",\"input\":{\"user\":\"k1\"},\"fresh\":true}";
    assert_int_equal(status_of("POST", "/api/v1/jobs", fresh), 202);
    snprintf(id, sizeof(id), "%s", text_of("id"));
    assert_int_equal(status_of("POST", "/api/v1/jobs", fresh), 202);
    assert_string_not_equal(text_of("id"), id);
}

static void which_status_for_what(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        int status;
        const char *slug;
    } rows[] = {
        {"", 400, "bad-json"},
        {"{", 400, "bad-json"},
        {"{\"a\":1,\"a\":2}", 400, "bad-json"},
        {"{\"a\":\"\xff\"}", 400, "bad-json"},
        {"{\"a\":\"\\ud800\"}", 400, "bad-json"},
        {"{\"a\":1e999}", 400, "bad-json"},
        {"{\"a\":123456789012345678901234567890}", 400, "bad-json"},
        {"[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]", 400, "bad-json"},
        {"[]", 422, "validation"},
        {"{\"pipeline\":\"greet\",\"input\":{}}", 422, "validation"},
        {"{\"pipeline\":\"greet\",\"input\":{\"user\":1},\"extra\":1}", 422, "validation"},
        {"{\"pipeline\":\"none\",\"input\":{}}", 404, "not-found"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int status = status_of("POST", "/api/v1/jobs", rows[i].body);
        if (status != rows[i].status) {
            print_error("%s\n", rows[i].body);
        }
        assert_int_equal(status, rows[i].status);
        assert_string_equal(slug(), rows[i].slug);
        assert_true(json_is_string(json_object_get(body_json, "detail")));
        assert_string_equal(header("Content-Type"), "application/problem+json");
    }
    assert_int_equal(with("POST", "/api/v1/jobs", "{}", "CONTENT_TYPE", "text/plain"), 415);
    assert_int_equal(with("POST", "/api/v1/jobs", "{}", "HTTP_CONTENT_ENCODING", "gzip"), 415);
    assert_int_equal(with("POST", "/api/v1/jobs", "{}", "CONTENT_LENGTH", "3"), 400);
    mem_auto char *large = mem_alloc((1u << 20) + 2);
    memset(large, ' ', (1u << 20) + 1);
    large[(1u << 20) + 1] = '\0';
    assert_int_equal(status_of("POST", "/api/v1/jobs", large), 413);
    assert_string_equal(slug(), "payload-too-large");
}

static void large_inputs(void **state)
{
    (void)state;
    /* Over 64 KiB: parsed, made canonical and hashed on a thread. */
    size_t size = 300000;
    mem_auto char *text = mem_alloc(size + 100);
    int at = sprintf(text, "{\"pipeline\":\"greet\",\"input\":{\"user\":\"");
    memset(text + at, 'u', size);
    strcpy(text + (size_t)at + size, "\"}}");
    assert_int_equal(status_of("POST", "/api/v1/jobs", text), 202);
    text[size] = '\xff';
    assert_int_equal(status_of("POST", "/api/v1/jobs", text), 400);
}

static void conditions(void **state)
{
    (void)state;
    submit("etag");
    assert_int_equal(status_of("GET", at_job(""), ""), 200);
    char etag[128];
    snprintf(etag, sizeof(etag), "%s", header("ETag"));
    assert_int_equal(with("GET", at_job(""), "", "HTTP_IF_NONE_MATCH", etag), 304);
    assert_string_equal(header("ETag"), etag);
    assert_string_equal(client_body(&client), "");
    assert_int_equal(with("GET", at_job(""), "", "HTTP_IF_NONE_MATCH", "\"other\""), 200);
    assert_int_equal(status_of("GET", at_job("/result"), ""), 409);
    assert_string_equal(slug(), "job-not-finished");
    assert_string_not_equal(header("Retry-After"), "");
    /* A wait that nothing comes of: the same state after its time. */
    const char *headers[] = {"HTTP_IF_NONE_MATCH", etag, "HTTP_PREFER", "wait=1", NULL};
    assert_int_equal(request("GET", at_job(""), "", headers), 304);
    assert_string_equal(header("Preference-Applied"), "wait=1");
}

static void cancels(void **state)
{
    (void)state;
    submit("cancel");
    assert_int_equal(status_of("POST", at_job("/cancel"), ""), 200);
    assert_string_equal(text_of("status"), "cancelled");
    assert_int_equal(status_of("GET", at_job(""), ""), 200);
    assert_string_equal(text_of("status"), "cancelled");
    assert_string_equal(header("Retry-After"), "");
    assert_int_equal(status_of("GET", at_job("/result"), ""), 424);
    assert_string_equal(text_of("code"), "cancelled");
    assert_int_equal(
        status_of("POST", "/api/v1/jobs/00000000-0000-5000-8000-000000000000/cancel", ""), 404);
}

/* Returns when somebody follows the job. */
static void await_watch(void)
{
    char reply[4096] = "";
    for (int i = 0; i < 4000 && strstr(reply, job) == NULL; i++) {
        redis_server_ask(&redis_server, "PUBSUB CHANNELS *", reply, sizeof(reply));
        pause_ms(2);
    }
}

static void *cancel_soon(void *arg)
{
    (void)arg;
    await_watch();
    static struct client other;
    int fd = client_connect(path);
    client_init(&other, fd);
    send_with(fd, false, "POST", at_job("/cancel"), "", NULL);
    client_answer(&other);
    client_done(&other);
    close(fd);
    return NULL;
}

static void waits(void **state)
{
    (void)state;
    submit("wait");
    pthread_t thread;
    pthread_create(&thread, NULL, cancel_soon, NULL);
    const char *body = "{\"pipeline\":\"greet\",\"input\":{\"user\":\"wait\"}}";
    assert_int_equal(with("POST", "/api/v1/jobs", body, "HTTP_PREFER", "wait=20"), 200);
    assert_string_equal(text_of("status"), "cancelled");
    assert_string_equal(header("Preference-Applied"), "wait=20");
    pthread_join(thread, NULL);
    /* The first wait ends with the first change. */
    submit("wait2");
    pthread_create(&thread, NULL, cancel_soon, NULL);
    assert_int_equal(with("GET", at_job(""), "", "HTTP_PREFER", "wait=20"), 200);
    assert_string_equal(text_of("status"), "cancelled");
    pthread_join(thread, NULL);
}

static void lists_events(void **state)
{
    (void)state;
    submit("events");
    assert_int_equal(status_of("GET", at_job("/events"), ""), 200);
    assert_string_equal(text_of("object"), "list");
    json_t *data = json_object_get(body_json, "data");
    assert_true(json_array_size(data) >= 1);
    assert_string_equal(json_text_or(json_array_get(data, 0), "event", ""), "job.queued");
    assert_int_equal(json_int_or(json_array_get(data, 0), "id", 0), 1);
    assert_string_equal(json_text_or(json_at(json_array_get(data, 0), "/data"), "job", ""), job);
    assert_true(json_is_false(json_object_get(body_json, "has_more")));
    assert_int_equal(status_of("GET", at_job("/events?after=1"), ""), 200);
    assert_int_equal(json_array_size(json_object_get(body_json, "data")), 0);
    assert_int_equal(status_of("GET", at_job("/events?after=x"), ""), 400);
    assert_int_equal(status_of("GET", at_job("/events?limit=0"), ""), 400);
    assert_int_equal(status_of("GET", at_job("/events?limit=201"), ""), 400);
    assert_int_equal(with("GET", at_job("/events"), "", "HTTP_LAST_EVENT_ID", "-1"), 400);
}

static const char *const sse[] = {"HTTP_ACCEPT", "text/event-stream", NULL};

static int open_stream(const char *uri)
{
    int fd = client_connect(path);
    assert_true(send_with(fd, true, "GET", uri, "", sse));
    return fd;
}

static void streams_events(void **state)
{
    (void)state;
    submit("stream");
    int fd = open_stream(at_job("/events"));
    struct client stream;
    client_init(&stream, fd);
    while (strstr(stream.out, "job.queued") == NULL && client_read(&stream)) {
    }
    assert_non_null(strstr(stream.out, "Content-Type: text/event-stream"));
    assert_non_null(strstr(stream.out, "retry: 3000\n\n"));
    assert_non_null(strstr(stream.out, "id: 1\nevent: job.queued\ndata: {"));
    assert_int_equal(status_of("POST", at_job("/cancel"), ""), 200);
    assert_int_equal(client_answer(&stream), 200); /* it ends by itself */
    assert_non_null(strstr(stream.out, "event: job.cancelled\n"));
    client_done(&stream);
    close(fd);
    /* Resumed after the first event: the rest; after the last: nothing more, and no coming back. */
    const char *resumed[] = {"HTTP_ACCEPT", "text/event-stream", "HTTP_LAST_EVENT_ID", "1", NULL};
    assert_int_equal(request("GET", at_job("/events"), "", resumed), 200);
    assert_null(strstr(client.out, "job.queued"));
    assert_non_null(strstr(client.out, "job.cancelled"));
    const char *past[] = {"HTTP_ACCEPT", "text/event-stream", "HTTP_LAST_EVENT_ID", "99", NULL};
    assert_int_equal(request("GET", at_job("/events"), "", past), 204);
    assert_int_equal(
        request("GET", "/api/v1/jobs/00000000-0000-5000-8000-000000000000/events", "", sse), 404);
}

static void limits_streams(void **state)
{
    (void)state;
    submit("streams");
    int fd[2];
    for (int i = 0; i < 2; i++) {
        fd[i] = open_stream(at_job("/events"));
        struct client stream;
        client_init(&stream, fd[i]);
        while (strstr(stream.out, "job.queued") == NULL && client_read(&stream)) {
        }
        client_done(&stream);
    }
    assert_int_equal(request("GET", at_job("/events"), "", sse), 429);
    assert_string_equal(slug(), "too-many-streams");
    close(fd[0]);
    close(fd[1]);
    /* The places of those who left are free again. */
    assert_int_equal(status_of("POST", at_job("/cancel"), ""), 200);
    int status = 0;
    for (int i = 0; i < 2000 && status != 200; i++) {
        status = request("GET", at_job("/events"), "", sse);
        pause_ms(status == 200 ? 0 : 5);
    }
    assert_int_equal(status, 200);
}

static void simple_tasks(void **state)
{
    (void)state;
    assert_int_equal(status_of("POST", "/api/tasks", "{\"prompts\":[\"one\",\"two\",\"one\"]}"),
                     200);
    assert_string_equal(text_of("status"), "queued");
    json_t *ids = json_object_get(body_json, "task_ids");
    assert_int_equal(json_array_size(ids), 3);
    char first[ID_BYTES], second[ID_BYTES];
    snprintf(first, sizeof(first), "%s", json_string_value(json_array_get(ids, 0)));
    snprintf(second, sizeof(second), "%s", json_string_value(json_array_get(ids, 1)));
    assert_string_equal(json_string_value(json_array_get(ids, 2)), first);
    assert_string_not_equal(first, second);
    char uri[256];
    snprintf(uri, sizeof(uri), "/api/tasks?task_ids=%s,unknown,%s,%s", first, second, first);
    assert_int_equal(status_of("GET", uri, ""), 200);
    assert_int_equal(json_object_size(body_json), 3);
    json_t *task = json_object_get(body_json, first);
    assert_int_equal(json_object_size(task), 4);
    assert_string_equal(json_text_or(task, "status", ""), "queued");
    assert_string_equal(json_text_or(task, "progress", ""), "0");
    assert_true(json_is_null(json_object_get(task, "result")));
    assert_true(json_is_null(json_object_get(task, "error")));
    task = json_object_get(body_json, "unknown");
    assert_int_equal(json_object_size(task), 1);
    assert_string_equal(json_text_or(task, "status", ""), "not_found");
    snprintf(uri, sizeof(uri), "/api/tasks/%s", first);
    assert_int_equal(status_of("GET", uri, ""), 200);
    assert_string_equal(text_of("status"), "queued");
    assert_int_equal(status_of("GET", "/api/tasks/unknown", ""), 404);
    snprintf(job, sizeof(job), "%s", first);
    assert_int_equal(status_of("POST", at_job("/cancel"), ""), 200);
    assert_int_equal(status_of("GET", uri, ""), 200);
    assert_string_equal(text_of("status"), "error");
    assert_true(json_is_string(json_object_get(body_json, "error")));
}

static void simple_task_faults(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        int status;
    } rows[] = {
        {"{\"prompts\":[]}", 400},
        {"{\"prompts\":\"x\"}", 422},
        {"{}", 422},
        {"{\"prompts\":[1]}", 422},
        {"[]", 422},
        {"{\"prompts\":[\"\"],\"x\":1}", 422},
        {"{\"prompts\":", 400},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(status_of("POST", "/api/tasks", rows[i].body), rows[i].status);
    }
    assert_int_equal(status_of("GET", "/api/tasks", ""), 400);
    assert_int_equal(status_of("GET", "/api/tasks?task_ids=", ""), 400);
    assert_int_equal(status_of("GET", "/api/tasks?task_ids=,", ""), 400);
    char uri[600] = "/api/tasks?task_ids=0";
    for (int i = 1; i < 100; i++) {
        snprintf(uri + strlen(uri), sizeof(uri) - strlen(uri), ",%d", i);
    }
    assert_int_equal(status_of("GET", uri, ""), 200);
    strcat(uri, ",100");
    assert_int_equal(status_of("GET", uri, ""), 400);
    mem_auto char *large = mem_alloc(2000);
    strcpy(large, "{\"prompts\":[\"");
    memset(large + 13, 'p', 1025);
    strcpy(large + 13 + 1025, "\"]}");
    assert_int_equal(status_of("POST", "/api/tasks", large), 413);
}

static void queue_full(void **state)
{
    (void)state;
    int status = 202;
    for (int i = 0; i < 60 && status == 202; i++) {
        char body[128];
        snprintf(body, sizeof(body), "{\"pipeline\":\"greet\",\"input\":{\"user\":\"full%d\"}}", i);
        status = status_of("POST", "/api/v1/jobs", body);
    }
    assert_int_equal(status, 429);
    assert_string_equal(slug(), "queue-full");
    assert_string_not_equal(header("Retry-After"), "");
    assert_int_equal(status_of("POST", "/api/tasks", "{\"prompts\":[\"no room\"]}"), 429);
}

static void without_redis(void **state)
{
    (void)state;
    submit("a"); /* there already: the queue's being full does not matter */
    redis_server_kill(&redis_server);
    await_status("/readyz", 503);
    assert_string_equal(slug(), "store-unavailable");
    assert_int_equal(status_of("GET", "/healthz", ""), 200);
    assert_int_equal(
        status_of("POST", "/api/v1/jobs", "{\"pipeline\":\"greet\",\"input\":{\"user\":\"a\"}}"),
        503);
    assert_string_equal(slug(), "store-unavailable");
    assert_string_not_equal(header("Retry-After"), "");
    assert_int_equal(status_of("GET", at_job(""), ""), 503);
    char uri[128];
    snprintf(uri, sizeof(uri), "/api/tasks?task_ids=%s", job);
    assert_int_equal(status_of("GET", uri, ""), 200);
    json_t *task = json_object_get(body_json, job);
    assert_string_equal(json_text_or(task, "status", ""), "error");
    assert_string_equal(json_text_or(task, "error", ""), "Failed to retrieve status from Redis");
    snprintf(uri, sizeof(uri), "/api/tasks/%s", job);
    assert_int_equal(status_of("GET", uri, ""), 503);
    redis_server_run(&redis_server, NULL);
    await_status("/readyz", 200);
    submit("back");
}

static void drains(void **state)
{
    (void)state;
    submit("drain");
    int fd = open_stream(at_job("/events"));
    struct client stream;
    client_init(&stream, fd);
    while (strstr(stream.out, "job.queued") == NULL && client_read(&stream)) {
    }
    submit("drain2");
    int waiting = client_connect(path);
    const char *headers[] = {"HTTP_PREFER", "wait=20", NULL};
    assert_true(send_with(waiting, true, "GET", at_job(""), "", headers));
    await_watch();
    int idle = client_connect(path);
    kill(front_pid, SIGTERM);
    assert_int_equal(client_answer(&stream), 200); /* ended whole, to be resumed elsewhere */
    client_done(&stream);
    close(fd);
    assert_int_equal(receive(waiting), 200); /* answered with how the job stands */
    assert_string_equal(text_of("status"), "queued");
    stop(&front_pid, SIGTERM); /* and a clean exit */
    close(idle);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(health),
        cmocka_unit_test(routing),
        cmocka_unit_test(submits),
        cmocka_unit_test(keys),
        cmocka_unit_test(which_status_for_what),
        cmocka_unit_test(large_inputs),
        cmocka_unit_test(conditions),
        cmocka_unit_test(cancels),
        cmocka_unit_test(waits),
        cmocka_unit_test(lists_events),
        cmocka_unit_test(streams_events),
        cmocka_unit_test(limits_streams),
        cmocka_unit_test(simple_tasks),
        cmocka_unit_test(simple_task_faults),
        cmocka_unit_test(queue_full),
        cmocka_unit_test(without_redis),
        cmocka_unit_test(drains),
    };
    int failed = cmocka_run_group_tests(tests, setup, teardown);
    forget();
    return failed;
}
