/* The log: one event, one line, one write(2).
 *
 * A line is built on the stack, in a buffer of LIMIT_LOG_LINE bytes of which the last few are kept
 * for its end: whatever does not fit is cut at a whole character, what follows is left out, and the
 * line says so ("cut":true, or … in text). So a line is always whole and, as JSON, always valid.
 *
 * Text from outside can neither forge a line nor steer a terminal: control characters are escaped,
 * those of the C1 range too, and bytes that are no UTF-8 become U+FFFD in JSON and \xNN in text.
 *
 * The sink is the one hidden global of the program. Its file descriptor keeps its number when the
 * file is reopened (dup3 swaps it in one step), so threads that write meanwhile need no lock; a
 * write with O_APPEND is whole. log_open itself is for the time before there are threads. A line
 * that cannot be written is lost: there is nobody to tell. errno is left as it was. */
#include "base/log.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/utf8.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct {
    int fd;
    char *file; /* NULL: fd is stderr */
    enum log_format format;
    atomic_int level;
    char process[64];
} sink = {.fd = STDERR_FILENO, .level = LOG_INFO};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

/* Lines */

enum { TAIL_BYTES = 24 }; /* a closing quote, the mark of a cut line, brace and newline */

struct line {
    char data[LIMIT_LOG_LINE];
    size_t len;
    bool json;
    bool cut; /* something did not fit: nothing more is added */
};

/* Adds all of it or, when that would reach the tail, nothing. */
static bool add(struct line *line, const char *data, size_t len)
{
    if (line->cut || line->len + len > sizeof(line->data) - TAIL_BYTES) {
        line->cut = true;
        return false;
    }
    memcpy(line->data + line->len, data, len);
    line->len += len;
    return true;
}

/* Adds to the tail, where there is always room. */
static void add_tail(struct line *line, const char *text)
{
    size_t len = strlen(text);
    memcpy(line->data + line->len, text, len);
    line->len += len;
}

/* The letter of \n, \t and the like, which both forms write alike; 0 when there is none. */
static char short_escape(char c)
{
    switch (c) {
    case '\b':
        return 'b';
    case '\t':
        return 't';
    case '\n':
        return 'n';
    case '\f':
        return 'f';
    case '\r':
        return 'r';
    default:
        return 0;
    }
}

/* Adds one character (`step` bytes of UTF-8, 0: a byte that is none) as it may stand between
 * quotes. */
static bool add_character(struct line *line, const char *text, size_t step, bool quoted)
{
    unsigned char first = (unsigned char)text[0];
    char escape = step == 1 ? short_escape(text[0]) : 0;
    if (escape == 0 && quoted && (first == '"' || first == '\\'))
        escape = text[0];
    if (escape != 0)
        return add(line, (const char[]){'\\', escape}, 2);

    bool c1 = step == 2 && first == 0xC2 && (unsigned char)text[1] < 0xA0;
    bool control = step == 1 && (first < 0x20 || first == 0x7F);
    if (step > 0 && !c1 && !control)
        return add(line, text, step);
    if (line->json && step == 0)
        return add(line, "\xEF\xBF\xBD", 3);
    char hex[16];
    unsigned value = c1 ? (unsigned char)text[1] : first;
    int len = snprintf(hex, sizeof(hex), line->json ? "\\u%04x" : "\\x%02x", value);
    return add(line, hex, (size_t)len);
}

static void add_escaped(struct line *line, const char *text, bool quoted)
{
    size_t len = strlen(text);
    for (size_t i = 0; i < len;) {
        size_t step = utf8_step(text + i, len - i);
        if (!add_character(line, text + i, step, quoted))
            return;
        i += step > 0 ? step : 1;
    }
}

/* `,"key":"value"`, or ` key=value` with quotes where they are needed. Once the opening quote
 * stands the closing one will, even when the value was cut. */
static void add_field(struct line *line, const char *key, const char *value)
{
    bool quoted = line->json || *value == '\0' || strpbrk(value, " \"=\\") != NULL;
    char name[64];
    int len = snprintf(name, sizeof(name), line->json ? ",\"%.48s\":\"" : " %.48s=%s", key,
                       quoted ? "\"" : "");
    if (!add(line, name, (size_t)len))
        return;
    add_escaped(line, value, quoted);
    if (quoted)
        add_tail(line, "\"");
}

static void line_begin(struct line *line, enum log_level level, const char *message)
{
    line->len = 0;
    line->cut = false;
    line->json = sink.format == LOG_JSON || (sink.format == LOG_AUTO && isatty(sink.fd) == 0);

    const char *name = level_names[(unsigned)level <= LOG_ERROR ? level : LOG_ERROR];
    char at[25], head[128];
    clock_format(clock_wall_ms(), at);
    if (line->json) {
        int len = snprintf(head, sizeof(head), "{\"ts\":\"%s\",\"level\":\"%s\"", at, name);
        add(line, head, (size_t)len);
        add_field(line, "msg", message);
        if (sink.process[0] != '\0')
            add_field(line, "process", sink.process);
    } else {
        int len = snprintf(head, sizeof(head), "%s %-5s ", at, name);
        add(line, head, (size_t)len);
        if (sink.process[0] != '\0') {
            add_escaped(line, sink.process, false);
            add(line, ": ", 2);
        }
        add_escaped(line, message, false);
    }
}

static void line_end(struct line *line)
{
    if (line->cut)
        add_tail(line, line->json ? ",\"cut\":true" : " …");
    add_tail(line, line->json ? "}\n" : "\n");

    const char *data = line->data;
    while (line->len > 0) {
        ssize_t wrote = write(sink.fd, data, line->len);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return;
        data += wrote;
        line->len -= (size_t)wrote;
    }
}

static void add_pairs(struct line *line, va_list args)
{
    const char *key;
    while ((key = va_arg(args, const char *)) != NULL) {
        const char *value = va_arg(args, const char *);
        if (value != NULL)
            add_field(line, key, value);
    }
}

/* The public functions */

static int open_file(const char *file)
{
    return open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
}

int log_open(const char *file, enum log_format format, enum log_level level, const char *process,
             struct error *err)
{
    int fd = STDERR_FILENO;
    if (file != NULL) {
        fd = open_file(file);
        if (fd < 0) {
            error_set(err, MR_E_INTERNAL, "cannot open the log file %s: %s", file, strerror(errno));
            error_hint(err, "log.file must be writable for the user that millrace runs as");
            return MR_E_INTERNAL;
        }
    }
    if (sink.file != NULL)
        close(sink.fd);
    free(sink.file);
    sink.fd = fd;
    sink.file = file != NULL ? mem_dup(file) : NULL;
    sink.format = format;
    atomic_store(&sink.level, (int)level);
    snprintf(sink.process, sizeof(sink.process), "%s", process != NULL ? process : "");
    return MR_OK;
}

void log_reopen(void)
{
    if (sink.file == NULL)
        return;
    int fd = open_file(sink.file);
    if (fd < 0) {
        log_event(LOG_ERROR, "cannot reopen the log file, going on with the old one", "file",
                  sink.file, "error", strerror(errno), NULL);
        return;
    }
    dup3(fd, sink.fd, O_CLOEXEC);
    close(fd);
}

bool log_wants(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&sink.level, memory_order_relaxed);
}

void log_event(enum log_level level, const char *message, ...)
{
    if (!log_wants(level))
        return;
    int saved = errno;
    struct line line;
    line_begin(&line, level, message);
    va_list args;
    va_start(args, message);
    add_pairs(&line, args);
    va_end(args);
    line_end(&line);
    errno = saved;
}

void log_line(enum log_level level, const char *format, ...)
{
    if (!log_wants(level))
        return;
    int saved = errno;
    char message[LIMIT_LOG_LINE];
    va_list args;
    va_start(args, format);
    int wanted = vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    if (wanted < 0)
        message[0] = '\0';
    else if ((size_t)wanted >= sizeof(message))
        message[utf8_cut(message, sizeof(message) - 1)] = '\0';
    struct line line;
    line_begin(&line, level, message);
    line_end(&line);
    errno = saved;
}

static void log_record(enum log_level level, const char *message, const struct error *err,
                       va_list args)
{
    if (!log_wants(level))
        return;
    int saved = errno;
    struct line line;
    line_begin(&line, level, message);
    add_pairs(&line, args);
    const struct {
        const char *key, *value;
    } fields[] = {
        {"code", error_name(err->code)}, {"error", err->message},
        {"where", err->where},           {"hint", err->hint},
        {"detail", err->detail},
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (fields[i].value[0] != '\0')
            add_field(&line, fields[i].key, fields[i].value);
    line_end(&line);
    errno = saved;
}

void log_error(const char *message, const struct error *err, ...)
{
    va_list args;
    va_start(args, err);
    log_record(LOG_ERROR, message, err, args);
    va_end(args);
}

void log_failure(enum log_level level, const char *message, const struct error *err, ...)
{
    va_list args;
    va_start(args, err);
    log_record(level, message, err, args);
    va_end(args);
}

bool log_pace(struct log_pace *pace, char ret_times[24])
{
    uint64_t now_ms = clock_now_ms();
    ret_times[0] = '\0';
    if (pace->told_ms && now_ms - pace->told_ms < LOG_PACE_MS) {
        pace->kept++;
        return false;
    }
    if (pace->kept)
        snprintf(ret_times, 24, "%llu", (unsigned long long)pace->kept + 1);
    *pace = (struct log_pace){.told_ms = now_ms ? now_ms : 1};
    return true;
}
