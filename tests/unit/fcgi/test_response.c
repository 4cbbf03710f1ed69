/* Responses and problems: what goes out, and what is refused. */
#include "fcgi/problem.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void heads(void **state)
{
    (void)state;
    struct response response;
    response_init(&response);
    response.status = 202;
    assert_true(response_header(&response, "Location", "/x"));
    assert_false(response_header(&response, "Location", "a\r\nSet-Cookie: x"));
    assert_false(response_header(&response, "Location", "a\nb"));
    assert_false(response_header(&response, "Bad Name", "x"));
    assert_false(response_header(&response, "", "x"));
    assert_true(response_header_format(&response, "Retry-After", "%d", 2));
    response_steal(&response, "application/json", strdup("{}"), 2);
    buf_auto struct buf head = {0};
    buf_init(&head, 4096);
    assert_true(response_head(&response, "r1", &head));
    assert_string_equal(buf_text(&head),
                        "Status: 202 Accepted\r\nLocation: /x\r\nRetry-After: 2\r\n"
                        "Content-Type: application/json\r\nX-Request-Id: r1\r\n"
                        "Cache-Control: no-store\r\nContent-Length: 2\r\n\r\n");
    response_done(&response);
}

static void bodiless(void **state)
{
    (void)state;
    struct response response;
    response_init(&response);
    response.status = 204;
    buf_auto struct buf head = {0};
    buf_init(&head, 4096);
    response_head(&response, "r", &head);
    assert_null(strstr(buf_text(&head), "Content-Length"));
    buf_clear(&head);
    response.status = 299;
    response_head(&response, "r", &head);
    assert_non_null(strstr(buf_text(&head), "Status: 500 Internal Server Error\r\n"));
    response_done(&response);
}

static void too_many_headers(void **state)
{
    (void)state;
    struct response response;
    response_init(&response);
    char value[900];
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    int taken = 0;
    while (taken < 100 && response_header(&response, "X-Long", value)) {
        taken++;
    }
    assert_in_range(taken, 1, 20);
    assert_false(response.headers.failed); /* what is there stays whole */
    assert_true(response_header(&response, "A", "b"));
    response_done(&response);
}

static json_t *body_of(const struct response *response)
{
    struct error err;
    json_t *value = json_read(response->body, response->body_len, 0, &err);
    assert_non_null(value);
    return value;
}

static void problems(void **state)
{
    (void)state;
    struct response response;
    response_init(&response);
    problem_format(&response, PROBLEM_NOT_FOUND, "req-1", "no \"%s\"", "thing");
    assert_int_equal(response.status, 404);
    json_hold json_t *body = body_of(&response);
    assert_string_equal(json_text_or(body, "type", ""), "urn:millrace:problem:not-found");
    assert_string_equal(json_text_or(body, "detail", ""), "no \"thing\"");
    assert_int_equal(json_int_or(body, "status", 0), 404);
    assert_non_null(strstr(json_text_or(body, "instance", ""), "req-1"));
    assert_true(json_is_string(json_object_get(body, "title")));
    response_done(&response);
}

static void long_detail_stays_utf8(void **state)
{
    (void)state;
    struct response response;
    response_init(&response);
    char text[1001];
    for (size_t i = 0; i + 1 < sizeof(text); i += 2) {
        memcpy(text + i, "\xc3\xa9", 2);
    }
    text[1000] = '\0';
    problem_format(&response, PROBLEM_VALIDATION, "r", "x%s", text);
    json_hold json_t *body = body_of(&response);
    assert_non_null(json_object_get(body, "detail"));
    response_done(&response);
}

static void reports(void **state)
{
    (void)state;
    struct report report;
    report_init(&report);
    struct error *err = report_add(&report, NULL, "/input/url", "is missing");
    error_hint(err, "give a URL");
    report_warn(&report, NULL, "/x", "only a warning");
    report_add(&report, NULL, "", "unknown");
    struct response response;
    response_init(&response);
    problem_report(&response, "r", &report);
    assert_int_equal(response.status, 422);
    json_hold json_t *body = body_of(&response);
    json_t *errors = json_object_get(body, "errors");
    assert_int_equal(json_array_size(errors), 2);
    assert_string_equal(json_text_or(json_array_get(errors, 0), "pointer", ""), "/input/url");
    assert_string_equal(json_text_or(json_array_get(errors, 0), "detail", ""),
                        "is missing; give a URL");
    assert_string_equal(json_text_or(json_array_get(errors, 1), "pointer", "?"), "");
    report_done(&report);
    response_done(&response);
}

static void store_errors(void **state)
{
    (void)state;
    static const struct {
        int code, status;
        const char *slug;
    } rows[] = {
        {MR_E_STORE, 503, "store-unavailable"},
        {MR_E_STOPPING, 503, "draining"},
        {MR_E_INTERNAL, 500, "internal"},
    };
    for (size_t i = 0; i < 3; i++) {
        struct error err;
        error_set(&err, rows[i].code, "secret detail");
        struct response response;
        response_init(&response);
        problem_error(&response, "r", &err);
        assert_int_equal(response.status, rows[i].status);
        json_hold json_t *body = body_of(&response);
        assert_non_null(strstr(json_text_or(body, "type", ""), rows[i].slug));
        assert_null(strstr(response.body, "secret")); /* facts for the log stay here */
        bool has_retry = strstr(buf_text(&response.headers), "Retry-After") != NULL;
        assert_int_equal(has_retry, rows[i].status == 503);
        response_done(&response);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads),
        cmocka_unit_test(bodiless),
        cmocka_unit_test(too_many_headers),
        cmocka_unit_test(problems),
        cmocka_unit_test(long_detail_stays_utf8),
        cmocka_unit_test(reports),
        cmocka_unit_test(store_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
