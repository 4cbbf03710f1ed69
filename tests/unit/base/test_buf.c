/* buf.h: growth, bounds, JSON strings; utf8.h, which texts rely on. */
#include "base/buf.h"
#include "base/mem.h"
#include "base/utf8.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Last: its macro fail() would break plugin.h. */
#include <cmocka.h>

static void grows_and_stays_ended(void **state)
{
    (void)state;
    buf_auto struct buf buf;
    buf_init(&buf, 100000);
    assert_string_equal(buf_text(&buf), "");
    for (int i = 0; i < 10000; i++) {
        assert_true(buf_add_char(&buf, (char)('a' + i % 26)));
        assert_int_equal(buf.data[buf.len], '\0');
    }
    assert_int_equal(buf.len, 10000);
    for (int i = 0; i < 10000; i++)
        assert_int_equal(buf.data[i], 'a' + i % 26);
    assert_true(buf_add(&buf, NULL, 0));
    assert_true(buf_add(&buf, "x\0y", 3));
    assert_int_equal(buf.len, 10003);
}

static void bound_is_exact_and_sticks(void **state)
{
    (void)state;
    buf_auto struct buf buf;
    buf_init(&buf, 5);
    assert_true(buf_add_text(&buf, "12345"));
    assert_false(buf.failed);
    assert_false(buf_add_char(&buf, '6'));
    assert_true(buf.failed);
    assert_string_equal(buf_text(&buf), "12345");
    assert_false(buf_add(&buf, "", 0));
    buf_clear(&buf);
    assert_false(buf.failed);
    assert_string_equal(buf_text(&buf), "");
    assert_true(buf_add_text(&buf, "123"));
    assert_false(buf_format(&buf, "%d", 456)); /* not in part */
    assert_string_equal(buf_text(&buf), "123");
    assert_false(buf_add_text(&buf, "4")); /* nor what would fit, after a hole */
    assert_string_equal(buf_text(&buf), "123");
    assert_null(buf_take(&buf));
}

static void no_bound_cannot_overflow(void **state)
{
    (void)state;
    buf_auto struct buf buf;
    buf_init(&buf, SIZE_MAX);
    assert_true(buf_add_text(&buf, "x"));
    volatile size_t huge = SIZE_MAX - 1;
    assert_false(buf_add(&buf, "y", huge));
    assert_string_equal(buf_text(&buf), "x");
}

static void nothing_fits_into_nothing(void **state)
{
    (void)state;
    buf_auto struct buf buf;
    buf_init(&buf, 0);
    assert_true(buf_add(&buf, "", 0));
    assert_false(buf_add_char(&buf, 'x'));
}

static void formats(void **state)
{
    (void)state;
    buf_auto struct buf buf;
    buf_init(&buf, 2000);
    assert_true(buf_format(&buf, "%s=%d;", "a", 1));
    assert_true(buf_format(&buf, "%01000d", 0));
    assert_int_equal(buf.len, 1004);
    assert_memory_equal(buf.data, "a=1;000", 7);
    assert_true(buf_format(&buf, "%s", ""));
    assert_int_equal(buf.len, 1004);
}

static void takes_content(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 10);
    char *empty = buf_take(&buf);
    assert_string_equal(empty, "");
    free(empty);
    buf_add_text(&buf, "0123456789");
    char *text = buf_take(&buf);
    assert_string_equal(text, "0123456789");
    free(text);
    assert_int_equal(buf.len, 0);
    assert_true(buf_add_text(&buf, "again"));
    buf_done(&buf);
    buf_done(&buf);
}

static void json_strings(void **state)
{
    (void)state;
    buf_auto struct buf buf;
    buf_init(&buf, 1000);
    const char text[] = "a\"b\\c/\b\f\n\r\t\x01\x1f\x7f\0é😀";
    assert_true(buf_add_json_string(&buf, text, sizeof(text) - 1));
    assert_string_equal(buf_text(&buf),
                        "\"a\\\"b\\\\c/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\\u0000é😀\"");
    buf_clear(&buf);
    assert_true(buf_add_json_string(&buf, "\xff-\xc3\xa9-\xc3", 6));
    assert_string_equal(buf_text(&buf), "\"\\ufffd-\xc3\xa9-\\ufffd\"");
    buf_clear(&buf);
    assert_true(buf_add_json_string(&buf, "", 0));
    assert_string_equal(buf_text(&buf), "\"\"");
    buf_auto struct buf small;
    buf_init(&small, 5);
    assert_false(buf_add_json_string(&small, "\x01", 1)); /* 8 bytes as text */
}

static void utf8_plain_text(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"", ""},
        {"a\xc3\xa9 \"", "a\xc3\xa9 \""},
        {"\x1b[31m\n\x7f", "\\x1b[31m\\x0a\\x7f"},
        {"\xff\xc3", "\\xff\\xc3"},
        {"\xc2\x9b\xc2\xa0", "\\xc2\\x9b\xc2\xa0"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        mem_auto char *plain = utf8_plain(rows[i][0]);
        assert_string_equal(plain, rows[i][1]);
    }
}

static void utf8_sequences(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t len, step;
    } cases[] = {
        {"a", 1, 1},
        {"\0", 1, 1},
        {"", 0, 0},
        {"\x80", 1, 0},
        {"\xc1\xbf", 2, 0}, /* overlong */
        {"\xc2\x80", 2, 2},
        {"\xc2", 1, 0},
        {"\xc3(", 2, 0},
        {"\xdf\xbf", 2, 2},
        {"\xe0\x9f\xbf", 3, 0}, /* overlong */
        {"\xe0\xa0\x80", 3, 3},
        {"\xed\x9f\xbf", 3, 3},
        {"\xed\xa0\x80", 3, 0}, /* surrogate */
        {"\xee\x80\x80", 3, 3},
        {"\xe2\x82", 2, 0},
        {"\xe2\x82(", 3, 0},
        {"\xf0\x8f\xbf\xbf", 4, 0}, /* overlong */
        {"\xf0\x90\x80\x80", 4, 4},
        {"\xf4\x8f\xbf\xbf", 4, 4},
        {"\xf4\x90\x80\x80", 4, 0}, /* over U+10FFFF */
        {"\xf5\x80\x80\x80", 4, 0},
        {"\xff", 1, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(utf8_step(cases[i].text, cases[i].len), cases[i].step);
    assert_true(utf8_is_valid("aé€😀", 10));
    assert_false(utf8_is_valid("aé€😀", 9));
    assert_true(utf8_is_valid("", 0));
}

static void utf8_cuts(void **state)
{
    (void)state;
    static const char text[] = "aé€😀b"; /* 1 + 2 + 3 + 4 + 1 bytes */
    static const size_t cuts[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11};
    for (size_t len = 0; len < sizeof(cuts) / sizeof(cuts[0]); len++)
        assert_int_equal(utf8_cut(text, len), cuts[len]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_and_stays_ended),
        cmocka_unit_test(bound_is_exact_and_sticks),
        cmocka_unit_test(no_bound_cannot_overflow),
        cmocka_unit_test(nothing_fits_into_nothing),
        cmocka_unit_test(formats),
        cmocka_unit_test(takes_content),
        cmocka_unit_test(json_strings),
        cmocka_unit_test(utf8_plain_text),
        cmocka_unit_test(utf8_sequences),
        cmocka_unit_test(utf8_cuts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
