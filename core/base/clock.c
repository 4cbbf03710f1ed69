/* Two clocks behind one switch.
 *
 * While `held` is not 0 both clocks stand at it and move by clock_turn only: tests turn time by
 * hand instead of waiting. It is atomic because threads of the pool read clocks too. */
#include "base/clock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static _Atomic uint64_t held;

static uint64_t read_us(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t clock_now_us(void)
{
    uint64_t ms = atomic_load_explicit(&held, memory_order_relaxed);
    return ms != 0 ? ms * 1000 : read_us(CLOCK_MONOTONIC);
}

uint64_t clock_now_ms(void)
{
    return clock_now_us() / 1000;
}

uint64_t clock_wall_ms(void)
{
    uint64_t ms = atomic_load_explicit(&held, memory_order_relaxed);
    return ms != 0 ? ms : read_us(CLOCK_REALTIME) / 1000;
}

void clock_hold(uint64_t ms)
{
    atomic_store(&held, ms);
}

void clock_turn(uint64_t ms)
{
    if (atomic_load(&held) != 0)
        atomic_fetch_add(&held, ms);
}

void clock_format(uint64_t wall_ms, char ret[25])
{
    static const uint64_t last_ms = 253402300799999; /* 9999-12-31T23:59:59.999Z */
    ret[0] = '\0';
    if (wall_ms == 0)
        return;
    if (wall_ms > last_ms)
        wall_ms = last_ms;
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    char text[80]; /* the compiler does not know that each number has its two or four digits */
    snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900,
             tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(wall_ms % 1000));
    memcpy(ret, text, 24);
    ret[24] = '\0';
}

/* Reads `count` digits at `*text` and goes past them; -1 when they are not all there. */
static int read_digits(const char **text, int count)
{
    int value = 0;
    for (int i = 0; i < count; i++) {
        char c = (*text)[i];
        if (c < '0' || c > '9')
            return -1;
        value = value * 10 + (c - '0');
    }
    *text += count;
    return value;
}

static bool skip_char(const char **text, char a, char b)
{
    if (**text != a && **text != b)
        return false;
    ++*text;
    return true;
}

static int days_of_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : days[month - 1];
}

/* RFC 3339 section 5.6 `time-offset`: minutes east of UTC. */
static bool read_offset(const char **text, int *ret_minutes)
{
    if (skip_char(text, 'Z', 'z')) {
        *ret_minutes = 0;
        return true;
    }
    int sign = **text == '-' ? -1 : 1;
    if (!skip_char(text, '+', '-'))
        return false;
    int hours = read_digits(text, 2);
    if (hours < 0 || hours > 23 || !skip_char(text, ':', ':'))
        return false;
    int minutes = read_digits(text, 2);
    if (minutes < 0 || minutes > 59)
        return false;
    *ret_minutes = sign * (hours * 60 + minutes);
    return true;
}

int64_t clock_parse(const char *text)
{
    int year = read_digits(&text, 4);
    if (year < 0 || !skip_char(&text, '-', '-'))
        return -1;
    int month = read_digits(&text, 2);
    if (month < 1 || month > 12 || !skip_char(&text, '-', '-'))
        return -1;
    int day = read_digits(&text, 2);
    if (day < 1 || day > days_of_month(year, month) || !skip_char(&text, 'T', 't'))
        return -1;
    int hour = read_digits(&text, 2);
    if (hour < 0 || hour > 23 || !skip_char(&text, ':', ':'))
        return -1;
    int minute = read_digits(&text, 2);
    if (minute < 0 || minute > 59 || !skip_char(&text, ':', ':'))
        return -1;
    int second = read_digits(&text, 2);
    if (second < 0 || second > 60)
        return -1;
    int ms = 0;
    if (skip_char(&text, '.', '.')) {
        int digits = 0;
        for (; *text >= '0' && *text <= '9'; text++, digits++)
            if (digits < 3)
                ms = ms * 10 + (*text - '0');
        if (digits == 0)
            return -1;
        for (; digits < 3; digits++)
            ms *= 10;
    }
    int offset;
    if (!read_offset(&text, &offset) || *text != '\0')
        return -1;

    struct tm tm = {.tm_year = year - 1900,
                    .tm_mon = month - 1,
                    .tm_mday = day,
                    .tm_hour = hour,
                    .tm_min = minute};
    int64_t start = (int64_t)timegm(&tm) - offset * 60; /* of the minute */
    /* Leap seconds are the last of a day in UTC (RFC 3339 section 5.7); this one is the next day's
     * first, as POSIX has it. */
    if (second == 60 && (start + 60) % 86400 != 0)
        return -1;
    int64_t result = (start + second) * 1000 + ms;
    return result >= 0 ? result : -1;
}
