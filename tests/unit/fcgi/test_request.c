/* Requests: path and query, headers and preferences, from parameters as web servers send them. */
#include "fcgi/request.h"
#include "fcgi/router.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct request request;

static void make(const char *prefix, const char *method, const char *uri, const char *more,
                 const char *more2)
{
    char method_line[64], uri_line[512];
    snprintf(method_line, sizeof(method_line), "REQUEST_METHOD=%s", method);
    snprintf(uri_line, sizeof(uri_line), "REQUEST_URI=%s", uri);
    const char *params[] = {method_line, uri_line, more, more2, NULL};
    request_init(&request, prefix, params, 1000);
}

static void check_path(const char *prefix, const char *uri, size_t segments, const char *last)
{
    make(prefix, "GET", uri, NULL, NULL);
    if (segments == SIZE_MAX) {
        assert_true(request.segments == SIZE_MAX);
    } else {
        assert_int_equal(request.segments, segments);
        assert_string_equal(request.segment[segments - 1], last);
        assert_null(request.fault);
    }
    request_done(&request);
}

static void paths(void **state)
{
    (void)state;
    check_path("", "/healthz", 1, "healthz");
    check_path("", "/", 1, "");
    check_path("", "/api/v1/jobs?x=1", 3, "jobs");
    check_path("", "/api/v1/jobs/a%2Fb", 4, "a/b");
    check_path("", "/api/%C3%A9", 2, "\xc3\xa9");
    check_path("", "http://host:80/api/tasks", 2, "tasks");
    check_path("", "https://host/api/tasks?x", 2, "tasks");
    check_path("/mr", "/mr/healthz", 1, "healthz");
    check_path("/mr", "/mr", 1, "");
    check_path("/mr", "/mrx/healthz", SIZE_MAX, NULL);
    check_path("/mr", "/healthz", SIZE_MAX, NULL);
    check_path("", "/1/2/3/4/5/6/7/8/9", SIZE_MAX, NULL);
    check_path("", "/trailing/", 2, "");
}

static void check_fault(const char *uri)
{
    make("", "GET", uri, NULL, NULL);
    assert_non_null(request.fault);
    request_done(&request);
}

static void faults(void **state)
{
    (void)state;
    check_fault("/a%");
    check_fault("/a%2");
    check_fault("/a%zz");
    check_fault("/a%00b");
    check_fault("/a%ff");
    check_fault("/a?x=%c3");
    check_fault("/a?%");
    check_fault("");
    check_fault("?x=1");
    check_fault("relative");
    make("", "GET", "/", "CONTENT_LENGTH=12x", NULL);
    assert_non_null(request.fault);
    request_done(&request);
    const char *none[] = {NULL};
    request_init(&request, "", none, 10);
    assert_non_null(request.fault);
    request_done(&request);
    const char *no_uri[] = {"REQUEST_METHOD=GET", NULL};
    request_init(&request, "", no_uri, 10);
    assert_non_null(request.fault);
    request_done(&request);
    char many[REQUEST_QUERIES * 4 + 16] = "/?";
    for (int i = 0; i <= REQUEST_QUERIES; i++) {
        strcat(many, "a=&");
    }
    check_fault(many);
}

static void queries(void **state)
{
    (void)state;
    make("", "GET", "/x?a=1&b=%20+x&&c&a=2&=y#frag", NULL, NULL);
    assert_null(request.fault);
    assert_string_equal(request_query(&request, "a"), "1");
    assert_string_equal(request_query(&request, "b"), "  x");
    assert_string_equal(request_query(&request, "c"), "");
    assert_null(request_query(&request, "d"));
    request_done(&request);
}

static void lengths(void **state)
{
    (void)state;
    static const struct {
        const char *param;
        int64_t length;
    } rows[] = {{"CONTENT_LENGTH=", -1},
                {"CONTENT_LENGTH=-1", -1},
                {"CONTENT_LENGTH=0", 0},
                {"CONTENT_LENGTH=123", 123},
                {"X=1", -1}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        make("", "POST", "/", rows[i].param, NULL);
        assert_int_equal(request.content_length, rows[i].length);
        request_done(&request);
    }
}

static void headers(void **state)
{
    (void)state;
    make("", "BREW", "/", "HTTP_X_REQUEST_ID=abc-1.2_3", "HTTP_IF_NONE_MATCH=W/\"7\", \"8\"");
    assert_int_equal(request.method, METHOD_OTHER);
    assert_string_equal(request.id, "abc-1.2_3");
    assert_true(request_none_match(&request, "\"7\""));
    assert_true(request_none_match(&request, "\"8\""));
    assert_false(request_none_match(&request, "\"9\""));
    assert_null(request_header(&request, "Accept"));
    request_done(&request);
    make("", "GET", "/", "HTTP_X_REQUEST_ID=a b", "HTTP_ACCEPT=text/html, Text/Event-Stream;q=1");
    assert_int_equal(strlen(request.id), 32);
    assert_true(request_accepts(&request, "text/event-stream"));
    assert_false(request_accepts(&request, "text/event"));
    request_done(&request);
}

static void prefers(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        bool found;
        uint64_t ms;
    } rows[] = {
        {"wait=10", true, 10000},
        {"respond-async, wait=3", true, 3000},
        {"WAIT = \"4\"", true, 4000},
        {"wait=99", true, 25000},
        {"wait=99999999999999999999", true, 25000},
        {"wait=0", true, 0},
        {"wait=x", false, 0},
        {"wait", false, 0},
        {"waiting=3", false, 0},
        {"a=\"wait=3, wait=4\"", false, 0},
        {"wait=5;foo=bar", true, 5000},
        {"wait=5x", false, 0},
        {"wait=\"5", false, 0},
        {"wait=-1", false, 0},
        {",, wait=2", true, 2000},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char line[128];
        snprintf(line, sizeof(line), "HTTP_PREFER=%s", rows[i].value);
        make("", "GET", "/", line, NULL);
        uint64_t ms = 0;
        assert_int_equal(request_prefers_wait(&request, 25000, &ms), rows[i].found);
        if (rows[i].found) {
            assert_int_equal(ms, rows[i].ms);
        }
        request_done(&request);
    }
}

static void types(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        int status;
    } rows[] = {
        {"CONTENT_TYPE=application/json", 0},
        {"CONTENT_TYPE=Application/JSON; charset=utf-8", 0},
        {"CONTENT_TYPE=application/problem+json", 0},
        {"CONTENT_TYPE=text/plain", 415},
        {"CONTENT_TYPE=application/jsonx", 415},
        {"CONTENT_TYPE=+json", 415},
        {"CONTENT_TYPE=application/x-www-form-urlencoded", 415},
        {"CONTENT_TYPE=", 0},
        {"HTTP_CONTENT_ENCODING=gzip", 415},
        {"HTTP_CONTENT_ENCODING=identity", 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        make("", "POST", "/", rows[i].line, NULL);
        assert_int_equal(request_check_json_type(&request), rows[i].status);
        request_done(&request);
    }
}

static void idempotency_keys(void **state)
{
    (void)state;
    char longest[320] = "HTTP_IDEMPOTENCY_KEY=";
    memset(longest + strlen(longest), 'k', 255);
    char longer[340];
    snprintf(longer, sizeof(longer), "%sk", longest);
    const struct {
        const char *line;
        int result;
        const char *key;
    } rows[] = {
        {"HTTP_IDEMPOTENCY_KEY=abc", 1, "abc"},
        {"HTTP_IDEMPOTENCY_KEY=\"a b\\\"c\"", 1, "a b\"c"},
        {"HTTP_IDEMPOTENCY_KEY=", -1, NULL},
        {"HTTP_IDEMPOTENCY_KEY=\"\"", -1, NULL},
        {"HTTP_IDEMPOTENCY_KEY=\"a", -1, NULL},
        {"HTTP_IDEMPOTENCY_KEY=a b", -1, NULL},
        {"HTTP_IDEMPOTENCY_KEY=\xc3\xa9", -1, NULL},
        {longest, 1, longest + 21},
        {longer, -1, NULL},
        {"OTHER=1", 0, NULL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        make("", "POST", "/", rows[i].line, NULL);
        char key[256];
        assert_int_equal(request_idempotency_key(&request, key), rows[i].result);
        if (rows[i].result == 1) {
            assert_string_equal(key, rows[i].key);
        }
        request_done(&request);
    }
}

static void check_route(const char *method, const char *uri, const char *pattern, const char *allow)
{
    make("", method, uri, NULL, NULL);
    char allowed[64];
    const struct route *route = router_find(&request, allowed);
    if (pattern == NULL) {
        assert_null(route);
        assert_string_equal(allowed, allow);
    } else {
        assert_non_null(route);
        assert_string_equal(route->pattern, pattern);
    }
    request_done(&request);
}

static void routes(void **state)
{
    (void)state;
    check_route("GET", "/healthz", "/healthz", NULL);
    check_route("HEAD", "/healthz", "/healthz", NULL);
    check_route("POST", "/healthz", NULL, "GET, HEAD");
    check_route("BREW", "/healthz", NULL, "GET, HEAD");
    check_route("OPTIONS", "/api/tasks", NULL, "POST, GET, HEAD");
    check_route("GET", "/api/v1/jobs/x", "/api/v1/jobs/{id}", NULL);
    check_route("GET", "/api/v1/jobs/", NULL, "");
    check_route("GET", "/api/v1/jobs/x/result", "/api/v1/jobs/{id}/result", NULL);
    check_route("GET", "/api/v1/jobs/x/result/", NULL, "");
    check_route("GET", "/api/v1/jobs/x/cancel", NULL, "POST");
    check_route("GET", "/nothing", NULL, "");
    check_route("GET", "/", NULL, "");
    make("", "GET", "/api/v1/jobs/a%2Fb/events", NULL, NULL);
    char allowed[64];
    assert_non_null(router_find(&request, allowed));
    assert_string_equal(request.arg[0], "a/b");
    request_done(&request);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths),   cmocka_unit_test(faults),           cmocka_unit_test(queries),
        cmocka_unit_test(lengths), cmocka_unit_test(headers),          cmocka_unit_test(prefers),
        cmocka_unit_test(types),   cmocka_unit_test(idempotency_keys), cmocka_unit_test(routes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
