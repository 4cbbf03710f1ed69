/* See cli_progress.h.
 *
 * A row is a stage of a job, in the order in which stages began. Live, all rows are drawn again
 * after each event and ten times a second while something runs: the cursor goes up as many lines as
 * were drawn, each is cleared and written anew, cut to the width of the terminal. */
#include "app/cli_progress.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/unit.h"
#include "base/utf8.h"
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#define TICK_MS  100u
#define ROWS_MAX 200u

enum row_state { ROW_RUNS, ROW_WAITS, ROW_DONE, ROW_SKIPPED, ROW_FAILED };

struct row {
    char *job, *stage;
    enum row_state state;
    uint64_t began_ms, ended_ms;
    unsigned attempt;
    char note[200];
};

struct job_name {
    char *job, *pipeline;
};

struct progress {
    struct loop *loop;
    FILE *out;
    bool live;
    struct row *rows;
    size_t count, drawn;
    struct job_name *jobs;
    size_t job_count;
    struct timer timer;
};

static const char *pipeline_of(const struct progress *progress, const char *job)
{
    for (size_t i = 0; i < progress->job_count; i++)
        if (strcmp(progress->jobs[i].job, job) == 0)
            return progress->jobs[i].pipeline;
    return "?";
}

static void format_row(const struct progress *progress, const struct row *row, char *ret,
                       size_t size)
{
    static const char *const marks[] = {"…", "~", "✓", "-", "✗"};
    static const char *const words[] = {"running", "waiting", "done", "skipped", "failed"};
    char attempt[32] = "", took[32] = "";
    uint64_t ms = (row->ended_ms != 0 ? row->ended_ms : clock_now_ms()) - row->began_ms;
    unit_format_duration(ms >= 1000 ? ms - ms % 100 : ms, took);
    if (row->attempt > 1)
        snprintf(attempt, sizeof(attempt), ", attempt %u", row->attempt);
    /* Other jobs than the one that was asked for say whose stage it is. */
    bool other = progress->job_count > 0 && strcmp(progress->jobs[0].job, row->job) != 0;
    mem_auto char *name = other ? mem_format("%s/%s", pipeline_of(progress, row->job), row->stage)
                                : mem_dup(row->stage);
    snprintf(ret, size, "%s %-24s %-8s %8s%s%s%s", marks[row->state], name, words[row->state], took,
             attempt, row->note[0] != '\0' ? "  " : "", row->note);
}

static size_t terminal_width(FILE *out)
{
    struct winsize size;
    if (ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 20)
        return size.ws_col;
    return 100;
}

static void draw(struct progress *progress)
{
    char line[512];
    size_t width = terminal_width(progress->out);
    if (progress->drawn > 0)
        fprintf(progress->out, "\033[%zuA", progress->drawn);
    for (size_t i = 0; i < progress->count; i++) {
        format_row(progress, &progress->rows[i], line, sizeof(line));
        line[utf8_cut(line, strlen(line) < width ? strlen(line) : width)] = '\0';
        fprintf(progress->out, "\033[2K%s\n", line);
    }
    progress->drawn = progress->count;
    fflush(progress->out);
}

static void tick(struct timer *timer)
{
    struct progress *progress = timer->data;
    draw(progress);
    timer_start(timer, progress->loop, TICK_MS, tick);
}

struct progress *progress_new(struct loop *loop, FILE *out, bool live)
{
    struct progress *progress = mem_zalloc(sizeof(*progress));
    progress->loop = loop;
    progress->out = out;
    progress->live = live;
    progress->timer.data = progress;
    if (live)
        timer_start(&progress->timer, loop, TICK_MS, tick);
    return progress;
}

void progress_free(struct progress *progress)
{
    if (progress->live) {
        timer_stop(&progress->timer);
        draw(progress);
    }
    for (size_t i = 0; i < progress->count; i++) {
        free(progress->rows[i].job);
        free(progress->rows[i].stage);
    }
    for (size_t i = 0; i < progress->job_count; i++) {
        free(progress->jobs[i].job);
        free(progress->jobs[i].pipeline);
    }
    free(progress->rows);
    free(progress->jobs);
    free(progress);
}

static struct row *row_of(struct progress *progress, const char *job, const char *stage)
{
    for (size_t i = progress->count; i-- > 0;)
        if (strcmp(progress->rows[i].stage, stage) == 0 && strcmp(progress->rows[i].job, job) == 0)
            return &progress->rows[i];
    if (progress->count >= ROWS_MAX)
        return NULL;
    progress->rows = mem_resize(progress->rows, progress->count + 1, sizeof(struct row));
    struct row *row = &progress->rows[progress->count++];
    *row = (struct row){
        .job = mem_dup(job), .stage = mem_dup(stage), .began_ms = clock_now_ms(), .attempt = 1};
    return row;
}

/* A note stands on one line, whatever is in it. */
static void set_note(struct row *row, const char *text)
{
    size_t len = strlen(text);
    len = utf8_cut(text, len < sizeof(row->note) - 1 ? len : sizeof(row->note) - 1);
    memcpy(row->note, text, len);
    row->note[len] = '\0';
    for (char *c = row->note; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
}

static void note_error(struct row *row, const json_t *data)
{
    const json_t *error = json_object_get(data, "error");
    mem_auto char *text =
        mem_format("%s: %s", json_text_or(error, "code", "?"), json_text_or(error, "message", ""));
    set_note(row, text);
}

static void change_row(struct row *row, const char *kind, const json_t *data)
{
    if (strcmp(kind, "stage.started") == 0) {
        row->state = ROW_RUNS;
        row->attempt = (unsigned)json_int_or(data, "attempt", 1);
        row->note[0] = '\0';
    } else if (strcmp(kind, "stage.retrying") == 0) {
        char in[32];
        row->state = ROW_WAITS;
        note_error(row, data);
        unit_format_duration((uint64_t)json_int_or(data, "in_ms", 0), in);
        mem_auto char *text = mem_format("%s (again in %s)", row->note, in);
        set_note(row, text);
    } else if (strcmp(kind, "stage.completed") == 0) {
        const char *status = json_text_or(data, "status", "");
        row->ended_ms = clock_now_ms();
        row->state = strcmp(status, "skipped") == 0  ? ROW_SKIPPED
                     : strcmp(status, "failed") == 0 ? ROW_FAILED
                                                     : ROW_DONE;
        set_note(row, row->state == ROW_FAILED ? "went on with its on_failure" : "");
    } else if (strcmp(kind, "stage.failed") == 0) {
        row->ended_ms = clock_now_ms();
        row->state = ROW_FAILED;
        note_error(row, data);
    } else if (strcmp(kind, "stage.progress") == 0) {
        mem_auto char *text = mem_format("%lld %% %s", (long long)json_int_or(data, "percent", 0),
                                         json_text_or(data, "message", ""));
        set_note(row, text);
    }
}

static void add_job(struct progress *progress, const char *job, const json_t *data)
{
    progress->jobs = mem_resize(progress->jobs, progress->job_count + 1, sizeof(struct job_name));
    progress->jobs[progress->job_count++] =
        (struct job_name){mem_dup(job), mem_dup(json_text_or(data, "pipeline", "?"))};
}

void progress_event(struct progress *progress, const char *job, const char *kind, const char *stage,
                    const char *data)
{
    json_hold json_t *value = data != NULL && strlen(data) <= LIMIT_OUTPUT_BYTES
                                  ? json_read(data, strlen(data), 0, NULL)
                                  : NULL;
    if (strcmp(kind, "job.queued") == 0)
        add_job(progress, job, value);
    if (stage == NULL || strcmp(kind, "stage.delta") == 0)
        return;
    struct row *row = row_of(progress, job, stage);
    if (row == NULL)
        return;
    change_row(row, kind, value);
    if (progress->live) {
        draw(progress);
        return;
    }
    char line[512];
    format_row(progress, row, line, sizeof(line));
    fprintf(progress->out, "%s\n", line);
}
