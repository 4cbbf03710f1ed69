/* clock.h: clocks that are held and turned, RFC 3339. */
#include "base/clock.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Last: its macro fail() would break plugin.h. */
#include <cmocka.h>

static void real_clocks_run(void **state)
{
    (void)state;
    uint64_t us = clock_now_us(), ms = clock_now_ms();
    assert_true(ms >= us / 1000);
    uint64_t wall = clock_wall_ms();
    uint64_t now = (uint64_t)time(NULL);
    assert_in_range(wall / 1000, now - 1, now + 1);
    while (clock_now_us() == us) /* moves on by itself */
        ;
    assert_true(clock_now_us() > us);
}

static void held_clocks_are_turned_by_hand(void **state)
{
    (void)state;
    clock_hold(5000);
    assert_int_equal(clock_now_ms(), 5000);
    assert_int_equal(clock_wall_ms(), 5000);
    assert_int_equal(clock_now_us(), 5000000);
    clock_turn(250);
    assert_int_equal(clock_now_ms(), 5250);
    assert_int_equal(clock_wall_ms(), 5250);
    clock_hold(0);
    assert_true(clock_wall_ms() > 1600000000000);
    clock_turn(1000); /* without effect on real clocks */
    assert_in_range(clock_wall_ms() / 1000, (uint64_t)time(NULL) - 1, (uint64_t)time(NULL) + 1);
}

static void formats(void **state)
{
    (void)state;
    static const struct {
        uint64_t ms;
        const char *text;
    } cases[] = {
        {0, ""},
        {1, "1970-01-01T00:00:00.001Z"},
        {951827696789, "2000-02-29T12:34:56.789Z"},
        {1795166999999, "2026-11-20T09:29:59.999Z"},
        {253402300799999, "9999-12-31T23:59:59.999Z"},
        {UINT64_MAX, "9999-12-31T23:59:59.999Z"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[25];
        clock_format(cases[i].ms, text);
        assert_string_equal(text, cases[i].text);
        if (cases[i].ms > 0 && cases[i].ms < UINT64_MAX)
            assert_true(clock_parse(text) == (int64_t)cases[i].ms);
    }
}

static void parses_what_rfc_3339_allows(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {
        /* The examples of RFC 3339 section 5.8. */
        {"1985-04-12T23:20:50.52Z", 482196050520},
        {"1996-12-19T16:39:57-08:00", 851042397000},
        {"1990-12-31T23:59:60Z", 662688000000},
        {"1990-12-31T15:59:60-08:00", 662688000000},
        {"1937-01-01T12:00:27.87+00:20", -1}, /* before 1970 */
        {"1970-01-01T00:00:00Z", 0},
        {"1970-01-01t00:00:00z", 0},
        {"1970-01-01T00:30:00+00:30", 0},
        {"1970-01-01T00:00:00-00:00", 0},
        {"2000-02-29T00:00:00.1Z", 951782400100},
        {"2000-02-29T00:00:00.9999999999999Z", 951782400999},
        {"9999-12-31T23:59:59.999Z", 253402300799999},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_true(clock_parse(cases[i].text) == cases[i].ms);
}

static void refuses_all_else(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "2026",
        "2026-11-20",
        "2026-11-20T09:30",
        "2026-11-20T09:30:00",
        "2026-11-20 09:30:00Z",
        "2026-11-20T09:30:00Zx",
        "2026-11-20T09:30:00 Z",
        " 2026-11-20T09:30:00Z",
        "2026-11-20T9:30:00Z",
        "26-11-20T09:30:00Z",
        "2026-00-20T09:30:00Z",
        "2026-13-20T09:30:00Z",
        "2026-11-00T09:30:00Z",
        "2026-11-31T09:30:00Z",
        "2026-02-29T09:30:00Z",
        "2100-02-29T09:30:00Z",
        "2026-11-20T24:00:00Z",
        "2026-11-20T09:60:00Z",
        "2026-11-20T09:30:61Z",
        "2026-11-20T09:30:60Z", /* a leap second in the middle of a day */
        "2026-11-20T09:30:00.Z",
        "2026-11-20T09:30:00,5Z",
        "2026-11-20T09:30:00+0100",
        "2026-11-20T09:30:00+01",
        "2026-11-20T09:30:00+24:00",
        "2026-11-20T09:30:00+01:60",
        "2026-11-20T-1:30:00Z",
        "-026-11-20T09:30:00Z",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_true(clock_parse(texts[i]) == -1);
}

static void does_not_depend_on_the_time_zone(void **state)
{
    (void)state;
    setenv("TZ", "America/New_York", 1);
    tzset();
    char text[25];
    clock_format(951827696789, text);
    assert_string_equal(text, "2000-02-29T12:34:56.789Z");
    assert_true(clock_parse("2000-02-29T12:34:56.789Z") == 951827696789);
    unsetenv("TZ");
    tzset();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_clocks_run),  cmocka_unit_test(held_clocks_are_turned_by_hand),
        cmocka_unit_test(formats),          cmocka_unit_test(parses_what_rfc_3339_allows),
        cmocka_unit_test(refuses_all_else), cmocka_unit_test(does_not_depend_on_the_time_zone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
