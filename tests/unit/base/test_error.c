/* error.h: the table, records, reports, suggestions. */
#include "base/error.h"
#include "base/limits.h"
#include "base/utf8.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Last: its macro fail() would break plugin.h. */
#include <cmocka.h>

static void table_is_whole(void **state)
{
    (void)state;
    /* Every word of API.md's list of codes, in its order. */
    static const char *const words[] = {
        "timeout",  "connect",      "reset",  "upstream_status",  "rate_limited", "quota",
        "auth",     "bad_response", "schema", "plugin",           "call_timeout", "call_failed",
        "deadline", "cancelled",    "poison", "pipeline_changed", "id_conflict",  "internal",
    };
    int code = -1;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++, code--) {
        assert_int_equal(error_code(words[i]), code);
        assert_string_equal(error_name(code), words[i]);
    }
    for (code = MR_E_TIMEOUT; code >= MR_E_STOPPING; code--) {
        assert_int_equal(error_code(error_name(code)), code);
        enum mr_class class = error_class(code);
        assert_int_equal(error_class_find(error_class_name(class)), class);
        assert_in_range(error_http_status(code), 400, 599);
        assert_true(strlen(error_text(code)) > 0);
    }
}

static void classes_and_statuses(void **state)
{
    (void)state;
    assert_int_equal(error_class(MR_E_TIMEOUT), MR_CLASS_RETRY);
    assert_int_equal(error_class(MR_E_RATE_LIMITED), MR_CLASS_THROTTLED);
    assert_int_equal(error_class(MR_E_SCHEMA), MR_CLASS_PERMANENT);
    assert_int_equal(error_class(MR_E_LOST), MR_CLASS_CANCELLED);
    assert_int_equal(error_class(MR_E_POISON), MR_CLASS_CRASH);
    assert_int_equal(error_class(MR_E_INTERNAL), MR_CLASS_BUG);
    assert_int_equal(error_http_status(MR_E_SCHEMA), 422);
    assert_int_equal(error_http_status(MR_E_STORE), 503);
}

static void codes_outside_the_table(void **state)
{
    (void)state;
    assert_string_equal(error_name(-999), "internal");
    assert_string_equal(error_name(7), "internal");
    assert_int_equal(error_class(-999), MR_CLASS_BUG);
    assert_int_equal(error_http_status(-999), 500);
    assert_int_equal(error_code("no_such"), 0);
    assert_int_equal(error_code(""), 0);
    assert_int_equal(error_class(MR_OK), MR_CLASS_DEFAULT);
    assert_int_equal(error_http_status(MR_OK), 200);
    assert_int_equal(error_class_find("default"), 0);
    assert_int_equal(error_class_find("no_such"), 0);
    assert_string_equal(error_class_name((enum mr_class)99), "bug");
}

static void record_is_filled_anew(void **state)
{
    (void)state;
    struct error err;
    memset(&err, 0x55, sizeof(err));
    assert_int_equal(error_set(&err, MR_E_CONNECT, "no connection to %s", "redis"), MR_E_CONNECT);
    assert_int_equal(err.code, MR_E_CONNECT);
    assert_string_equal(err.message, "no connection to redis");
    assert_string_equal(err.detail, "");
    assert_string_equal(err.hint, "");
    assert_string_equal(err.where, "");
    assert_int_equal(err.class, 0);
    assert_int_equal(err.retry_in_ms, 0);
    error_detail(&err, "errno %d", 111);
    error_hint(&err, "is it %s?", "up");
    error_where(&err, "%s %s", "p.json", "/stages/0");
    assert_string_equal(err.detail, "errno 111");
    assert_string_equal(err.hint, "is it up?");
    assert_string_equal(err.where, "p.json /stages/0");

    assert_int_equal(error_class_of(&err), MR_CLASS_RETRY);
    err.class = MR_CLASS_PERMANENT;
    assert_int_equal(error_class_of(&err), MR_CLASS_PERMANENT);
    err.class = 1234; /* from a plugin */
    assert_int_equal(error_class_of(&err), MR_CLASS_RETRY);
}

static void null_record_is_fine(void **state)
{
    (void)state;
    assert_int_equal(error_set(NULL, MR_E_AUTH, "x"), MR_E_AUTH);
    error_detail(NULL, "x");
    error_hint(NULL, "x");
    error_where(NULL, "x");
}

static void arguments_may_be_of_the_record(void **state)
{
    (void)state;
    struct error err;
    error_set(&err, MR_E_SCHEMA, "not a number");
    error_set(&err, err.code, "option %s: %s", "max", err.message);
    assert_string_equal(err.message, "option max: not a number");
}

static void texts_are_cut_at_a_character(void **state)
{
    (void)state;
    struct error err;
    char text[600];
    memset(text, 'x', sizeof(text));
    const size_t room = sizeof(err.message);
    for (size_t pad = room - 10; pad < room; pad++) {
        snprintf(text + pad, sizeof(text) - pad, "éé€€😀😀tail of the text");
        error_set(&err, MR_E_SCHEMA, "%s", text);
        size_t len = strlen(err.message);
        assert_true(len >= room - 5 && len < room);
        assert_true(utf8_is_valid(err.message, len));
        assert_memory_equal(err.message, text, len);
        memset(text, 'x', sizeof(text));
    }
    error_hint(&err, "%0300d", 1);
    assert_int_equal(strlen(err.hint), sizeof(err.hint) - 1);
    error_where(&err, "%0400d", 1);
    assert_int_equal(strlen(err.where), sizeof(err.where) - 1);
}

static void bytes_that_are_no_utf8_are_replaced(void **state)
{
    (void)state;
    struct error err;
    error_set(&err, MR_E_BAD_RESPONSE, "got %s", "a\xff\xc3(\xed\xa0\x80é");
    assert_string_equal(err.message, "got a?\?(??\?é");
    error_detail(&err, "%.5s", "abc€"); /* a precision that cuts the last character */
    assert_string_equal(err.detail, "abc??");
}

static void reports_collect(void **state)
{
    (void)state;
    struct report report;
    report_init(&report);
    assert_int_equal(report_errors(&report), 0);
    struct error *err =
        report_add(&report, "p.json", "/stages/1/options/modle", "unknown option \"%s\"", "modle");
    error_hint(err, "did you mean \"model\"?");
    report_warn(&report, "p.json", "", "no description");
    report_add(&report, NULL, "/name", "missing");
    report_add(&report, NULL, NULL, "nowhere");
    assert_int_equal(report.count, 4);
    assert_int_equal(report.warnings, 1);
    assert_int_equal(report_errors(&report), 3);
    assert_string_equal(report.items[0].message, "unknown option \"modle\"");
    assert_string_equal(report.items[0].where, "p.json: /stages/1/options/modle");
    assert_string_equal(report.items[0].hint, "did you mean \"model\"?");
    assert_int_equal(report.items[0].code, MR_E_SCHEMA);
    assert_int_equal(report.items[1].code, MR_OK);
    assert_string_equal(report.items[1].where, "p.json");
    assert_string_equal(report.items[2].where, "/name");
    assert_string_equal(report.items[3].where, "");
    report_done(&report);
    assert_int_equal(report.count, 0);
}

static void reports_are_bounded(void **state)
{
    (void)state;
    struct report report;
    report_init(&report);
    for (unsigned i = 0; i < LIMIT_REPORT + 50; i++) {
        struct error *err = report_add(&report, NULL, "/x", "number %u", i);
        error_hint(err, "hint %u", i);
    }
    report_warn(&report, NULL, NULL, "one too many");
    assert_int_equal(report.count, LIMIT_REPORT);
    assert_int_equal(report.dropped, 50);
    assert_int_equal(report_errors(&report), LIMIT_REPORT + 50);
    assert_string_equal(report.items[LIMIT_REPORT - 1].message, "number 199");
    report_done(&report);
}

static void nearest_word(void **state)
{
    (void)state;
    static const char *const words[] = {"model", "messages", "max_tokens",   "response",
                                        "id",    "image",    "timeout_idle", NULL};
    assert_string_equal(error_nearest("modle", words), "model");
    assert_string_equal(error_nearest("model", words), "model");
    assert_string_equal(error_nearest("MODEL", words), "model");
    assert_string_equal(error_nearest("mesages", words), "messages");
    assert_string_equal(error_nearest("maxTokens", words), "max_tokens");
    assert_string_equal(error_nearest("timeout-idel", words), "timeout_idle");
    assert_string_equal(error_nearest("responsable", words), "response");
    assert_string_equal(error_nearest("di", words), "id");
    assert_null(error_nearest("x", words));
    assert_null(error_nearest("zz", words));
    assert_null(error_nearest("endpoint", words));
    assert_null(error_nearest("", words));
    char huge[500];
    memset(huge, 'm', sizeof(huge) - 1);
    huge[sizeof(huge) - 1] = '\0';
    assert_null(error_nearest(huge, words));
    static const char *const none[] = {NULL};
    assert_null(error_nearest("model", none));
    /* Of equally near ones the first. */
    static const char *const twins[] = {"aab", "aac", NULL};
    assert_string_equal(error_nearest("aad", twins), "aab");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_is_whole),
        cmocka_unit_test(classes_and_statuses),
        cmocka_unit_test(codes_outside_the_table),
        cmocka_unit_test(record_is_filled_anew),
        cmocka_unit_test(null_record_is_fine),
        cmocka_unit_test(arguments_may_be_of_the_record),
        cmocka_unit_test(texts_are_cut_at_a_character),
        cmocka_unit_test(bytes_that_are_no_utf8_are_replaced),
        cmocka_unit_test(reports_collect),
        cmocka_unit_test(reports_are_bounded),
        cmocka_unit_test(nearest_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
