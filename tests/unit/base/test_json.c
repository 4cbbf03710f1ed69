/* json.h: what is read and refused, both printed forms, pointers. */
#include "base/json.h"
#include "base/limits.h"
#include "base/mem.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Last: its macro fail() would break plugin.h. */
#include <cmocka.h>

static json_t *read_text(const char *text)
{
    struct error err;
    json_t *value = json_read(text, strlen(text), 0, &err);
    if (value == NULL)
        print_error("%s: %s\n", text, err.message);
    assert_non_null(value);
    return value;
}

static void assert_refused(const char *text, size_t len, const char *message)
{
    struct error err;
    memset(&err, 0, sizeof(err));
    json_t *value = json_read(text, len, 0, &err);
    if (value != NULL)
        print_error("accepted: %s\n", text);
    assert_null(value);
    assert_int_equal(err.code, MR_E_BAD_RESPONSE);
    assert_string_equal(err.message, message);
}
#define REFUSED(text, message) assert_refused(text, sizeof(text) - 1, message)

static void reads_any_value(void **state)
{
    (void)state;
    json_hold json_t *object = read_text(" {\"a\": [1, 2.5, \"x\", null, true, false]} \n");
    assert_int_equal(json_array_size(json_object_get(object, "a")), 6);
    json_hold json_t *text = read_text("\"\\u00e9\\ud83d\\ude00\"");
    assert_string_equal(json_string_value(text), "é😀");
    json_hold json_t *exact = read_text("12345678901234567");
    assert_true(json_integer_value(exact) == 12345678901234567);
    json_hold json_t *least = read_text("-9223372036854775808");
    assert_true(json_integer_value(least) == INT64_MIN);
    json_hold json_t *tiny = read_text("1e-400");
    assert_true(json_real_value(tiny) == 0.0);
    json_hold json_t *null = read_text("null");
    assert_true(json_is_null(null));
}

static void refuses_what_is_no_json(void **state)
{
    (void)state;
    REFUSED("", "not valid JSON: line 1, column 0: unexpected token near end of file");
    REFUSED("{\"a\":}", "not valid JSON: line 1, column 6: unexpected token");
    REFUSED("{\n  \"a\": 1,\n}", "not valid JSON: line 3, column 1: string or '}' expected");
    REFUSED("[1,2", "not valid JSON: line 1, column 4: ']' expected near end of file");
    REFUSED("1 2", "not valid JSON: line 1, column 3: end of file expected");
    REFUSED("nul", "not valid JSON: line 1, column 3: invalid token");
    REFUSED("[01]", "not valid JSON: line 1, column 2: invalid token");
    REFUSED("[1\0]", "not valid JSON: line 1, column 3: NUL byte");
    REFUSED("\"\n\\\0\"\"", "not valid JSON: line 2, column 2: NUL byte");
    REFUSED("\"a\nb\"", "not valid JSON: line 1, column 2: unexpected newline");
}

static void refuses_what_json_leaves_open(void **state)
{
    (void)state;
    REFUSED("{\"a\":1,\"b\":2,\"a\":1}", "not valid JSON: line 1, column 16: duplicate object key");
    REFUSED("\"\xff\"", "not valid JSON: line 1, column 1: unable to decode byte 0xff");
    REFUSED("\"\xed\xa0\x80\"", "not valid JSON: line 1, column 1: unable to decode byte 0xed");
    REFUSED("\"\xc0\x80\"", "not valid JSON: line 1, column 1: unable to decode byte 0xc0");
    REFUSED("\"\\ud800\"", "not valid JSON: line 1, column 8: invalid Unicode '\\uD800'");
    REFUSED("\"\\udc00\"", "not valid JSON: line 1, column 8: invalid Unicode '\\uDC00'");
    REFUSED("\"\\ud800\\u0041\"",
            "not valid JSON: line 1, column 14: invalid Unicode '\\uD800\\u0041'");
    REFUSED("\"\\u0000\"", "not valid JSON: line 1, column 8: \\u0000 is not accepted");
    REFUSED("{\"\\u0000\":1}", "not valid JSON: line 1, column 9: \\u0000 is not accepted");
    REFUSED("9223372036854775808", "not valid JSON: line 1, column 19: too big integer");
    REFUSED("-9223372036854775809", "not valid JSON: line 1, column 20: too big negative integer");
    REFUSED("1e400", "not valid JSON: line 1, column 5: real number overflow");
    REFUSED("NaN", "not valid JSON: line 1, column 3: invalid token");
    REFUSED("\xef\xbb\xbf{}", "not valid JSON: line 1, column 1: invalid token");
}

static void leaves_out_what_may_be_secret(void **state)
{
    (void)state;
    struct error err;
    const char text[] = "{\"api_key\" \"sk-very-secret\"}";
    assert_null(json_read(text, sizeof(text) - 1, 0, &err));
    assert_null(strstr(err.message, "secret"));
    assert_null(strstr(err.detail, "secret"));
}

static void bounds_the_nesting(void **state)
{
    (void)state;
    char text[4 * LIMIT_JSON_DEPTH];
    memset(text, '[', LIMIT_JSON_DEPTH);
    memset(text + LIMIT_JSON_DEPTH, ']', LIMIT_JSON_DEPTH);
    json_hold json_t *value = json_read(text, 2 * LIMIT_JSON_DEPTH, 0, NULL);
    assert_non_null(value);
    assert_int_equal(json_text_depth(text, 2 * LIMIT_JSON_DEPTH), LIMIT_JSON_DEPTH);

    memcpy(text, "\n ", 2);
    memset(text + 2, '[', LIMIT_JSON_DEPTH + 1);
    assert_refused(text, LIMIT_JSON_DEPTH + 3,
                   "not acceptable as JSON: line 2, column 66: nested deeper than 64 levels");
    struct error err;
    assert_null(json_read("[[1]]", 5, 1, &err));
    json_hold json_t *two = json_read("[[1]]", 5, 2, &err);
    assert_non_null(two);
    /* Far deeper than any stack: the scan answers. */
    size_t len = 4 << 20;
    mem_auto char *deep = mem_alloc(len);
    memset(deep, '[', len);
    assert_null(json_read(deep, len, 0, &err));
    assert_int_equal(json_text_depth(deep, len), len);
}

static void counts_nesting_outside_strings(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned depth;
    } cases[] = {
        {"", 0},
        {"1", 0},
        {"\"[[[[\"", 0},
        {"[\"\\\"[[[\",[]]", 2},
        {"[\"\\\\\",[[]]]", 3},
        {"{\"a\":[{}]},{}", 3},
        {"]]]][", 1},
        {"\"unended [[[", 0},
        {"[\"\\", 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(json_text_depth(cases[i].text, strlen(cases[i].text)), cases[i].depth);
}

static void canonical_as_python_says(void **state)
{
    (void)state;
    json_hold json_t *vectors =
        json_load_file(MR_SOURCE_DIR "/tests/unit/base/canonical.json", 0, NULL);
    assert_int_equal(json_array_size(vectors), 20);
    size_t i;
    json_t *vector;
    json_array_foreach (vectors, i, vector) {
        json_hold json_t *value = read_text(json_text_or(vector, "text", NULL));
        buf_auto struct buf buf;
        buf_init(&buf, 1000);
        assert_true(json_canonical_to(value, &buf));
        assert_string_equal(buf_text(&buf), json_text_or(vector, "canonical", NULL));
        /* It is its own canonical form. */
        json_hold json_t *again = read_text(buf_text(&buf));
        buf_auto struct buf twice;
        buf_init(&twice, 1000);
        assert_true(json_canonical_to(again, &twice));
        assert_string_equal(buf_text(&twice), buf_text(&buf));
    }
}

static void prints_in_order(void **state)
{
    (void)state;
    const char text[] = "{\"z\":[1,1.0,1e+16,\"\\n\",null],\"a\":{},\"m\":[],\"b\":0.1}";
    json_hold json_t *value = read_text(text);
    size_t len = 0;
    mem_auto char *printed = json_print(value, sizeof(text), &len, NULL);
    assert_string_equal(printed, text);
    assert_int_equal(len, sizeof(text) - 1);
    mem_auto char *exact = json_print(value, sizeof(text) - 1, NULL, NULL);
    assert_string_equal(exact, text);
}

static void prints_reals_that_read_back(void **state)
{
    (void)state;
    /* Every power of two and its neighbours: where the shortest form is hardest. */
    for (int exponent = -1074; exponent < 1024; exponent++) {
        double power = ldexp(1.0, exponent);
        double reals[] = {power, nextafter(power, 0), nextafter(power, INFINITY), -power};
        for (size_t i = 0; i < sizeof(reals) / sizeof(reals[0]); i++) {
            json_hold json_t *value = json_real(reals[i]);
            mem_auto char *text = json_print(value, 40, NULL, NULL);
            assert_non_null(text);
            json_hold json_t *again = read_text(text);
            assert_true(json_is_real(again));
            assert_true(json_real_value(again) == reals[i]);
            char longest[40];
            snprintf(longest, sizeof(longest), "%.16e", reals[i]);
            assert_true(strlen(text) <= strlen(longest));
        }
    }
}

static void print_has_bounds(void **state)
{
    (void)state;
    struct error err;
    json_hold json_t *value = read_text("{\"a\":\"0123456789\"}");
    assert_null(json_print(value, 17, NULL, &err));
    assert_int_equal(err.code, MR_E_SCHEMA);
    assert_string_equal(err.message, "a JSON value is larger than 17 bytes as text");
    assert_null(json_print(NULL, 100, NULL, &err));
    assert_int_equal(err.code, MR_E_INTERNAL);

    json_t *deep = json_array();
    for (unsigned i = 1; i < 2 * LIMIT_JSON_DEPTH; i++) {
        json_t *outer = json_array();
        json_array_append_new(outer, deep);
        deep = outer;
    }
    mem_auto char *text = json_print(deep, 1000, NULL, &err);
    assert_int_equal(strlen(text), 4 * LIMIT_JSON_DEPTH);
    json_hold json_t *too_deep = json_array();
    json_array_append_new(too_deep, deep);
    assert_null(json_print(too_deep, 1000, NULL, &err));
    assert_string_equal(err.message, "a JSON value is nested deeper than 128 levels");
    buf_auto struct buf buf;
    buf_init(&buf, 1000);
    assert_false(json_canonical_to(too_deep, &buf));
    assert_true(buf.failed);
}

static void print_ends_on_a_tree_that_contains_itself(void **state)
{
    (void)state;
    json_t *outer = json_array(), *inner = json_array();
    json_array_append(outer, inner);
    json_array_append(outer, inner);
    json_array_append(inner, outer);
    json_array_append(inner, outer);
    struct error err;
    assert_null(json_print(outer, 1 << 20, NULL, &err));
    json_array_clear(inner);
    json_decref(inner);
    json_decref(outer);
}

static void follows_pointers(void **state)
{
    (void)state;
    /* The example of RFC 6901 section 5, and what its section 4 refuses. */
    json_hold json_t *doc =
        read_text("{\"foo\":[\"bar\",\"baz\"],\"\":0,\"a/b\":1,\"c%d\":2,\"e^f\":3,"
                  "\"g|h\":4,\"i\\\\j\":5,\"k\\\"l\":6,\" \":7,\"m~n\":8}");
    assert_ptr_equal(json_at(doc, ""), doc);
    assert_int_equal(json_array_size(json_at(doc, "/foo")), 2);
    assert_string_equal(json_string_value(json_at(doc, "/foo/0")), "bar");
    static const char *const pointers[] = {"/",     "/a~1b", "/c%d", "/e^f", "/g|h",
                                           "/i\\j", "/k\"l", "/ ",   "/m~0n"};
    for (int i = 0; i < 9; i++)
        assert_int_equal(json_integer_value(json_at(doc, pointers[i])), i);
    static const char *const absent[] = {
        "foo",   "/foo/2", "/foo/01",  "/foo/-", "/foo/+1", "/foo/", "/foo/99999999999999999999",
        "/m~2n", "/m~",    "/foo/0/x", "/nope",  "/foo/0/", "//"};
    for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++)
        assert_null(json_at(doc, absent[i]));
    assert_null(json_at(NULL, "/a"));
}

static void builds_pointers(void **state)
{
    (void)state;
    buf_auto struct buf pointer;
    buf_init(&pointer, 30);
    assert_true(json_pointer_push(&pointer, "a/b~c"));
    assert_true(json_pointer_push_index(&pointer, 12));
    assert_true(json_pointer_push(&pointer, ""));
    assert_string_equal(buf_text(&pointer), "/a~1b~0c/12/");
    assert_false(json_pointer_push(&pointer, "more than what has room in it"));
}

static void reads_members(void **state)
{
    (void)state;
    json_hold json_t *object = read_text("{\"text\":\"x\",\"int\":7,\"real\":7.5}");
    assert_string_equal(json_text_or(object, "text", "y"), "x");
    assert_string_equal(json_text_or(object, "int", "y"), "y");
    assert_string_equal(json_text_or(object, "none", "y"), "y");
    assert_null(json_text_or(NULL, "none", NULL));
    assert_int_equal(json_int_or(object, "int", 1), 7);
    assert_int_equal(json_int_or(object, "real", 1), 1);
    assert_int_equal(json_int_or(NULL, "int", 1), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_any_value),
        cmocka_unit_test(refuses_what_is_no_json),
        cmocka_unit_test(refuses_what_json_leaves_open),
        cmocka_unit_test(leaves_out_what_may_be_secret),
        cmocka_unit_test(bounds_the_nesting),
        cmocka_unit_test(counts_nesting_outside_strings),
        cmocka_unit_test(canonical_as_python_says),
        cmocka_unit_test(prints_in_order),
        cmocka_unit_test(prints_reals_that_read_back),
        cmocka_unit_test(print_has_bounds),
        cmocka_unit_test(print_ends_on_a_tree_that_contains_itself),
        cmocka_unit_test(follows_pointers),
        cmocka_unit_test(builds_pointers),
        cmocka_unit_test(reads_members),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
