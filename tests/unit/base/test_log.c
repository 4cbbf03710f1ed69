/* log.h: both forms of a line, escaping, the bound, reopening, threads. */
#include "base/clock.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/utf8.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Last: its macro fail() would break plugin.h. */
#include <cmocka.h>

struct place {
    char dir[64], file[96], moved[96];
};

static int make_place(void **state)
{
    struct place *place = mem_zalloc(sizeof(*place));
    snprintf(place->dir, sizeof(place->dir), "/tmp/millrace-log-XXXXXX");
    if (mkdtemp(place->dir) == NULL)
        return -1;
    snprintf(place->file, sizeof(place->file), "%s/log", place->dir);
    snprintf(place->moved, sizeof(place->moved), "%s/log.1", place->dir);
    clock_hold(1795166999999);
    *state = place;
    return 0;
}

static int remove_place(void **state)
{
    struct place *place = *state;
    clock_hold(0);
    log_open(NULL, LOG_AUTO, LOG_INFO, NULL, NULL); /* closes the file */
    unlink(place->file);
    unlink(place->moved);
    int rc = rmdir(place->dir);
    free(place);
    return rc;
}

/* The whole file, to be freed. */
static char *read_file(const char *file)
{
    size_t len = 0;
    char *text = NULL;
    FILE *in = fopen(file, "r");
    assert_non_null(in);
    size_t cap = 1 << 21;
    text = mem_alloc(cap);
    len = fread(text, 1, cap - 1, in);
    text[len] = '\0';
    fclose(in);
    return text;
}

static void assert_logged(const struct place *place, const char *expected)
{
    mem_auto char *text = read_file(place->file);
    assert_string_equal(text, expected);
}

static void open_log(const struct place *place, enum log_format format, enum log_level level)
{
    assert_int_equal(log_open(place->file, format, level, "worker 2", NULL), MR_OK);
}

static void lines_as_text(void **state)
{
    struct place *place = *state;
    open_log(place, LOG_TEXT, LOG_DEBUG);
    log_event(LOG_WARN, "stage failed", "job", "1-2", "stage", "vision", "none", NULL, "why",
              "no answer = \"none\"", "empty", "", NULL);
    log_line(LOG_DEBUG, "%d of %d", 3, 4);
    assert_logged(place,
                  "2026-11-20T09:29:59.999Z warn  worker 2: stage failed job=1-2 stage=vision "
                  "why=\"no answer = \\\"none\\\"\" empty=\"\"\n"
                  "2026-11-20T09:29:59.999Z debug worker 2: 3 of 4\n");
}

static void lines_as_json(void **state)
{
    struct place *place = *state;
    open_log(place, LOG_AUTO, LOG_INFO); /* a file is no terminal */
    log_event(LOG_ERROR, "stage \"failed\"", "job", "1-2", "none", NULL, "path", "a\\b", NULL);
    assert_logged(place, "{\"ts\":\"2026-11-20T09:29:59.999Z\",\"level\":\"error\","
                         "\"msg\":\"stage \\\"failed\\\"\",\"process\":\"worker 2\","
                         "\"job\":\"1-2\",\"path\":\"a\\\\b\"}\n");
}

static void levels_are_obeyed(void **state)
{
    struct place *place = *state;
    open_log(place, LOG_TEXT, LOG_WARN);
    assert_false(log_wants(LOG_DEBUG));
    assert_false(log_wants(LOG_INFO));
    assert_true(log_wants(LOG_WARN));
    assert_true(log_wants(LOG_ERROR));
    log_event(LOG_INFO, "not this", NULL);
    log_line(LOG_DEBUG, "nor this");
    log_line(LOG_ERROR, "this");
    assert_logged(place, "2026-11-20T09:29:59.999Z error worker 2: this\n");
}

static void error_records(void **state)
{
    struct place *place = *state;
    open_log(place, LOG_TEXT, LOG_INFO);
    struct error err;
    error_set(&err, MR_E_CONNECT, "no connection");
    error_where(&err, "j/vision");
    error_detail(&err, "errno 111");
    log_error("stage failed", &err, "job", "j", NULL);
    error_set(&err, MR_E_TIMEOUT, "late");
    error_hint(&err, "more time");
    log_error("again", &err, NULL);
    assert_logged(place, "2026-11-20T09:29:59.999Z error worker 2: stage failed job=j code=connect "
                         "error=\"no connection\" where=j/vision detail=\"errno 111\"\n"
                         "2026-11-20T09:29:59.999Z error worker 2: again code=timeout error=late "
                         "hint=\"more time\"\n");
}

/* What would forge a line, move a cursor, or be no UTF-8. */
static const char hostile[] = "a\n2026 \x1b[2J\r\x7f\xc2\x9b\xff\xc3é";

static void hostile_text_in_text(void **state)
{
    struct place *place = *state;
    open_log(place, LOG_TEXT, LOG_INFO);
    log_event(LOG_INFO, hostile, "v", hostile, NULL);
    static const char escaped[] = "a\\n2026 \\x1b[2J\\r\\x7f\\x9b\\xff\\xc3é";
    mem_auto char *expected =
        mem_format("2026-11-20T09:29:59.999Z info  worker 2: %s v=\"%s\"\n", escaped, escaped);
    assert_logged(place, expected);
}

static void hostile_text_in_json(void **state)
{
    struct place *place = *state;
    open_log(place, LOG_JSON, LOG_INFO);
    log_event(LOG_INFO, hostile, NULL);
    mem_auto char *text = read_file(place->file);
    assert_int_equal(strcspn(text, "\n"), strlen(text) - 1);
    assert_int_equal(strcspn(text, "\x1b\r\x7f"), strlen(text));
    json_hold json_t *line = json_read(text, strlen(text), 0, NULL);
    assert_string_equal(json_text_or(line, "msg", NULL),
                        "a\n2026 \x1b[2J\r\x7f\xc2\x9b\uFFFD\uFFFDé");
}

/* Lines of every length around the bound stay whole, valid, and say that they were cut. */
static void lines_are_bounded(void **state)
{
    struct place *place = *state;
    static const char *const fillers[] = {"x", "\n", "é", "€", "😀", "\x01", "\xff", "\""};
    char value[3 * LIMIT_LOG_LINE];
    for (size_t f = 0; f < sizeof(fillers) / sizeof(fillers[0]); f++) {
        for (int format = LOG_TEXT; format <= LOG_JSON; format++) {
            for (size_t count = LIMIT_LOG_LINE / 12 - 30; count < LIMIT_LOG_LINE;
                 count += count < LIMIT_LOG_LINE - 200 && count % 61 > 8 ? 53 : 1) {
                size_t len = 0;
                for (size_t i = 0; i < count && len + 4 < sizeof(value); i++)
                    len += (size_t)snprintf(value + len, sizeof(value) - len, "%s", fillers[f]);
                unlink(place->file);
                open_log(place, (enum log_format)format, LOG_INFO);
                log_event(LOG_INFO, "m", "value", value, "last", "z", NULL);
                mem_auto char *text = read_file(place->file);
                size_t line_len = strlen(text);
                assert_true(line_len <= LIMIT_LOG_LINE);
                assert_int_equal(strcspn(text, "\n"), line_len - 1);
                assert_true(utf8_is_valid(text, line_len));
                if (format == LOG_TEXT) {
                    bool whole = strstr(text, " last=z\n") != NULL;
                    assert_true(whole || strstr(text, " …\n") != NULL);
                    continue;
                }
                json_hold json_t *line = json_read(text, line_len, 0, NULL);
                assert_non_null(line);
                bool cut = json_is_true(json_object_get(line, "cut"));
                bool whole = json_object_get(line, "last") != NULL;
                assert_true(cut || whole);
                if (cut)
                    assert_true(line_len > LIMIT_LOG_LINE - 128);
            }
        }
    }
}

static void long_messages_are_cut(void **state)
{
    struct place *place = *state;
    open_log(place, LOG_TEXT, LOG_INFO);
    log_line(LOG_INFO, "%020000d", 1);
    mem_auto char *text = read_file(place->file);
    assert_in_range(strlen(text), LIMIT_LOG_LINE - 32, LIMIT_LOG_LINE);
    assert_non_null(strstr(text, "000 …\n"));
}

static void reopens_its_file(void **state)
{
    struct place *place = *state;
    open_log(place, LOG_TEXT, LOG_INFO);
    log_line(LOG_INFO, "one");
    assert_int_equal(rename(place->file, place->moved), 0);
    log_line(LOG_INFO, "two");
    log_reopen();
    log_line(LOG_INFO, "three");
    assert_logged(place, "2026-11-20T09:29:59.999Z info  worker 2: three\n");
    mem_auto char *old = read_file(place->moved);
    assert_string_equal(old, "2026-11-20T09:29:59.999Z info  worker 2: one\n"
                             "2026-11-20T09:29:59.999Z info  worker 2: two\n");
    struct stat about;
    assert_int_equal(stat(place->file, &about), 0);
    assert_int_equal(about.st_mode & 07, 0); /* not for everybody */
}

static void a_reopen_that_fails_keeps_the_old_file(void **state)
{
    struct place *place = *state;
    open_log(place, LOG_TEXT, LOG_INFO);
    assert_int_equal(rename(place->file, place->moved), 0);
    assert_int_equal(mkdir(place->file, 0700), 0);
    log_reopen();
    log_line(LOG_INFO, "still here");
    assert_int_equal(rmdir(place->file), 0);
    mem_auto char *old = read_file(place->moved);
    assert_non_null(strstr(old, "cannot reopen the log file"));
    assert_non_null(strstr(old, "still here"));
}

static void a_file_that_cannot_be_opened(void **state)
{
    struct place *place = *state;
    struct error err;
    assert_int_equal(log_open("/nonexistent/dir/log", LOG_AUTO, LOG_INFO, "x", &err),
                     MR_E_INTERNAL);
    assert_non_null(strstr(err.message, "/nonexistent/dir/log"));
    assert_true(strlen(err.hint) > 0);
    (void)place;
}

static void errno_is_left_alone(void **state)
{
    struct place *place = *state;
    open_log(place, LOG_AUTO, LOG_INFO);
    errno = EXDEV;
    log_line(LOG_INFO, "x");
    log_event(LOG_INFO, "x", NULL);
    assert_int_equal(errno, EXDEV);
}

enum { THREADS = 4, LINES = 500 };

static void *write_lines(void *arg)
{
    for (int i = 0; i < LINES; i++)
        log_event(LOG_INFO, "line", "thread", arg, "filler",
                  "0123456789012345678901234567890123456789012345678901234567890123456789", NULL);
    return NULL;
}

static void threads_write_whole_lines(void **state)
{
    struct place *place = *state;
    open_log(place, LOG_JSON, LOG_INFO);
    static char names[THREADS][2] = {"0", "1", "2", "3"};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_lines, names[i]), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    mem_auto char *text = read_file(place->file);
    int counts[THREADS] = {0};
    char *rest = text;
    while (*rest != '\0') {
        size_t len = strcspn(rest, "\n");
        json_hold json_t *line = json_read(rest, len, 0, NULL);
        assert_non_null(line);
        counts[json_text_or(line, "thread", "0")[0] - '0']++;
        rest += len + 1;
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(counts[i], LINES);
}

/* The first, then one every ten seconds, with how often it came. */
static void pace(void **state)
{
    (void)state;
    struct log_pace pace = {0};
    char times[24];
    assert_true(log_pace(&pace, times));
    assert_string_equal(times, "");
    for (int i = 0; i < 5; i++)
        assert_false(log_pace(&pace, times));
    pace.told_ms -= LOG_PACE_MS;
    assert_true(log_pace(&pace, times));
    assert_string_equal(times, "6");
    pace.told_ms -= LOG_PACE_MS;
    assert_true(log_pace(&pace, times));
    assert_string_equal(times, "");
}

#define test(fn) cmocka_unit_test_setup_teardown(fn, make_place, remove_place)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(pace),
        test(lines_as_text),
        test(lines_as_json),
        test(levels_are_obeyed),
        test(error_records),
        test(hostile_text_in_text),
        test(hostile_text_in_json),
        test(lines_are_bounded),
        test(long_messages_are_cut),
        test(reopens_its_file),
        test(a_reopen_that_fails_keeps_the_old_file),
        test(a_file_that_cannot_be_opened),
        test(errno_is_left_alone),
        test(threads_write_whole_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
