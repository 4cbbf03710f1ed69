/* unit.h: durations and sizes, both ways. */
#include "base/unit.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Last: its macro fail() would break plugin.h. */
#include <cmocka.h>

#define DAY_MS 86400000ull

static void durations(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t ms;
    } cases[] = {
        {"0s", 0},
        {"0.000ms", 0},
        {"250ms", 250},
        {"5s", 5000},
        {"1.5s", 1500},
        {"1m", 60000},
        {"1h", 3600000},
        {"7d", 7 * DAY_MS},
        {"366d", 366 * DAY_MS},
        {"0.5d", DAY_MS / 2},
        {"007s", 7000},
        {"1.25m", 75000},
        /* Finer than a millisecond: up, so that only 0 gives 0. */
        {"0.1ms", 1},
        {"1.0001s", 1001},
        {"0.333333333333333s", 334},
        {"0.0000000000000000001d", 1},
        {"1.000000000000000000000s", 1000},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t ms = 77;
        assert_int_equal(unit_parse_duration(cases[i].text, &ms, NULL), MR_OK);
        assert_int_equal(ms, cases[i].ms);
    }
}

static void no_durations(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",    "5",   "s",    "5 s",  " 5s",  "5s ",   "-5s", "+5s", "5S",     "5sec", "1h30m",
        ".5s", "5.s", "1e3s", "1,5s", "0x5s", "5..5s", "ms",  "5w",  "1.5.5s", "NaNs", "5µs",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        uint64_t ms = 77;
        struct error err;
        assert_int_equal(unit_parse_duration(texts[i], &ms, &err), MR_E_SCHEMA);
        assert_int_equal(ms, 77);
        char message[100];
        snprintf(message, sizeof(message), "\"%s\" is no duration", texts[i]);
        assert_string_equal(err.message, message);
        assert_non_null(strstr(err.hint, "\"250ms\""));
    }
    static const char *const too_long[] = {
        "366.000000001d",         "367d",          "31622400.001s",
        "18446744073709551616ms", "213503982335d", "99999999999999999999999999999d",
    };
    for (size_t i = 0; i < sizeof(too_long) / sizeof(too_long[0]); i++) {
        uint64_t ms = 77;
        struct error err;
        assert_int_equal(unit_parse_duration(too_long[i], &ms, &err), MR_E_SCHEMA);
        assert_string_equal(err.hint, "366d at most");
    }
}

static void sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = {
        {"0B", 0},
        {"17B", 17},
        {"8MiB", 8 << 20},
        {"16KiB", 16 << 10},
        {"1GiB", 1 << 30},
        {"9223372036854775807B", INT64_MAX},
        {"8589934591GiB", 8589934591ull << 30},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t bytes = 77;
        assert_int_equal(unit_parse_size(cases[i].text, &bytes, NULL), MR_OK);
        assert_int_equal(bytes, cases[i].bytes);
    }
    static const char *const none[] = {"",
                                       "8",
                                       "8MB",
                                       "8M",
                                       "8 MiB",
                                       "8mib",
                                       "1.5MiB",
                                       "-1B",
                                       "8Mib",
                                       "MiB",
                                       "9223372036854775808B",
                                       "8589934592GiB",
                                       "18446744073709551616B"};
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        uint64_t bytes = 77;
        struct error err;
        assert_int_equal(unit_parse_size(none[i], &bytes, &err), MR_E_SCHEMA);
        assert_int_equal(bytes, 77);
        assert_true(strlen(err.hint) > 0);
    }
}

static void formats_the_shortest(void **state)
{
    (void)state;
    static const struct {
        uint64_t ms;
        const char *text;
    } cases[] = {
        {0, "0s"},          {1, "1ms"},       {250, "250ms"},         {500, "0.5s"},
        {1000, "1s"},       {1500, "1.5s"},   {90000, "90s"},         {60000, "1m"},
        {3600000, "1h"},    {5400000, "90m"}, {DAY_MS, "1d"},         {DAY_MS * 3 / 2, "36h"},
        {7 * DAY_MS, "7d"}, {1001, "1001ms"}, {366 * DAY_MS, "366d"}, {119700, "119.7s"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[32];
        unit_format_duration(cases[i].ms, text);
        assert_string_equal(text, cases[i].text);
    }
    char text[32];
    unit_format_size(0, text);
    assert_string_equal(text, "0B");
    unit_format_size(8 << 20, text);
    assert_string_equal(text, "8MiB");
    unit_format_size(1536, text);
    assert_string_equal(text, "1536B");
    unit_format_size(10240, text);
    assert_string_equal(text, "10KiB");
    unit_format_size(UINT64_MAX, text);
    assert_string_equal(text, "18446744073709551615B");
}

static void reads_back_what_it_formats(void **state)
{
    (void)state;
    uint64_t value = 1;
    for (int i = 0; i < 200000; i++) {
        value = value * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX generator */
        uint64_t ms = (value >> 16) % (366 * DAY_MS + 1) >> (value & 31);
        char text[32];
        uint64_t again = UINT64_MAX;
        unit_format_duration(ms, text);
        assert_int_equal(unit_parse_duration(text, &again, NULL), MR_OK);
        assert_int_equal(again, ms);
        uint64_t bytes = value >> (1 + (value & 31)) << (value >> 59);
        bytes &= INT64_MAX;
        unit_format_size(bytes, text);
        assert_int_equal(unit_parse_size(text, &again, NULL), MR_OK);
        assert_int_equal(again, bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations),
        cmocka_unit_test(no_durations),
        cmocka_unit_test(sizes),
        cmocka_unit_test(formats_the_shortest),
        cmocka_unit_test(reads_back_what_it_formats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
