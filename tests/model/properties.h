/* The C side of the model, compiled into the search that spin makes of protocol.pml: what has to be
 * true after each script, which rows of the table were met, and the words when a trail is followed.
 *
 * spin numbers the words of the model itself; `word_…` hold those numbers. */
#include "state/table.h"
#include "world.h"
#include <stdbool.h>

extern int readtrail; /* of pan.c: a trail is being followed */

#define X(NAME, ...) static int word_ST_##NAME;
STATE_STATUSES(X)
#undef X
#define X(NAME, ...) static int word_LANE_##NAME;
STATE_LANES(X)
#undef X
#define X(NAME, ...) static int word_STAGE_##NAME;
STATE_STAGES(X)
#undef X
#define X(NAME, ...) static int word_STOP_##NAME;
STATE_STOPS(X)
#undef X
static int word_WAITS;

static bool why(const char *text)
{
    if (readtrail)
        printf("BROKEN: %s\n", text);
    return false;
}
#define MUST_BE(condition, text)                                                                   \
    do                                                                                             \
        if (!(condition))                                                                          \
            return why(text);                                                                      \
    while (0)

/* ---- Rows of the table ---- */

#define X(SCRIPT, CALLER, BEFORE, AFTER, CONDITION, REPLY)                                         \
#SCRIPT " " #BEFORE " " #AFTER " " #REPLY,
static const char *const row_text[] = {STATE_TRANSITIONS(X)};
#undef X
#define ROWS (sizeof row_text / sizeof *row_text)
static struct {
    int script, before, after, reply;
    bool is_met;
} rows[ROWS];
static unsigned row_count;

static void learn_row(void)
{
    if (row_count < ROWS) {
        rows[row_count].script = now.script;
        rows[row_count].before = now.m;
        rows[row_count].after = now.i;
        rows[row_count++].reply = now.reply;
    }
}
static void print_rows(void)
{
    for (unsigned i = 0; i < ROWS; i++)
        if (rows[i].is_met)
            printf("row: %s\n", row_text[i]);
}
static void __attribute__((constructor)) print_rows_at_end(void)
{
    atexit(print_rows);
}

/* ---- Words of a trail ---- */

/* Names as in the model; `tests/model/run --trace` takes the prefixes off. */

static void say_word(int word)
{
    if (word == 0)
        printf("none");
    else
        printm(word, 0);
}
static void say_who(void)
{
    if (now.ww)
        printf("worker %d ", now.ww);
}
static void say_text(const char *text)
{
    if (!readtrail)
        return;
    say_who();
    printf("%s\n", text);
}
static void say_lane(const char *text)
{
    if (!readtrail)
        return;
    say_who();
    printf("%s job %d lane %d\n", text, now.jj + 1, now.nn + 1);
}
static void say_script(void)
{
    if (!readtrail)
        return;
    say_who();
    say_word(now.script);
    printf(" job %d lane %d: ", now.jj + 1, now.nn + 1);
    say_word(now.before);
    printf(" -> ");
    say_word(now.after);
    printf(", answer ");
    say_word(now.reply);
    printf("; the job: ");
    say_word(now.db.job[now.jj].status);
    if (now.db.job[now.jj].stop) {
        printf(", stop ");
        say_word(now.db.job[now.jj].stop);
    }
    printf("\n");
}

/* ---- Redis before a script ---- */

static struct db_t kept;
static void keep_db(void)
{
    memcpy(&kept, &now.db, sizeof kept);
}
#if FORGETS
static void keep_last(void)
{
    if (memcmp(&kept, &now.db, sizeof kept) != 0)
        memcpy(&now.last, &kept, sizeof kept);
}
static void forget(void)
{
    memcpy(&now.db, &now.last, sizeof kept);
}
#endif

/* ---- After each script ---- */

/* It is a row of the table, and who does not hold the lane has changed nothing. */
static bool step_is_right(void)
{
    say_script();
    MUST_BE(!now.stale || memcmp(&kept, &now.db, sizeof kept) == 0,
            "who does not hold the lane changes nothing");
    for (unsigned i = 0; i < ROWS; i++)
        if (rows[i].script == now.script && rows[i].reply == now.reply &&
            (rows[i].before == LANE_ANY
                 ? now.before == now.after
                 : rows[i].before == now.before && rows[i].after == now.after)) {
            rows[i].is_met = true;
            return true;
        }
    return why("the step is a row of STATE_TRANSITIONS");
}

static bool is_ended(const struct job_t *job)
{
#define X(NAME, word, is_end)                                                                      \
    if (is_end && job->status == word_ST_##NAME)                                                   \
        return true;
    STATE_STATUSES(X)
#undef X
    return false;
}
static bool is_held_by(int worker, int job, int lane)
{
    for (int k = worker * SLOTS; k < (worker + 1) * SLOTS; k++)
        if (now.r[k].does != 0 && now.r[k].job == job && now.r[k].lane == lane)
            return true;
    return false;
}
static bool child_runs(void)
{
    return JOBS > 1 && now.db.job[JOBS - 1].status != 0 && !is_ended(&now.db.job[JOBS - 1]);
}

/* The invariants of docs/protocol.md for one job. `is_busy`: a worker or the mover has something to
 * do for it. */
static bool job_is_right(int number, bool *is_busy)
{
    const struct job_t *job = &now.db.job[number];
    unsigned taken = 0, lanes = 0, running = 0, queued = 0, done = 0;
    for (int n = 0; n < LANES; n++) {
        const struct lane_t *lane = &job->lane[n];
        unsigned entries = 0;
        bool has_entry = lane->state == word_LANE_QUEUED || lane->state == word_LANE_RUNNING;
        MUST_BE(((job->lanes >> n) & 1) == (lane->state != 0), "`lanes` lists the lanes there are");
        for (int g = 0; g < GENS; g++) {
            int entry = lane->entry[g];
            if (entry == E_NONE)
                continue;
            entries++;
            MUST_BE(has_entry && g == lane->gen, "an entry is the one that its lane names");
            *is_busy |= entry == E_NEW || entry == E_OVER(0) || entry == E_OVER(1) ||
                        !is_held_by(entry == E_OF(1), number, n);
        }
        MUST_BE(entries == has_entry, "a lane that is queued or runs has its entry");
        MUST_BE(lane->due == (lane->state == word_LANE_DUE), "a lane is in `due` while it is due");
        if (lane->state == 0)
            continue;
        lanes++;
        running += lane->state == word_LANE_RUNNING;
        queued += lane->state == word_LANE_QUEUED;
        *is_busy |= lane->state == word_LANE_DUE;
        MUST_BE(lane->stages != 0, "a lane has a stage");
        MUST_BE(lane->crashes <= now.crashes &&
                    lane->takeovers <= now.crashes + now.deaths + now.pauses + FORGETS,
                "crashes and takeovers are counted once each");
        MUST_BE((taken & lane->stages) == 0, "no stage is in two lanes");
        taken |= lane->stages;
    }
    if (job->status == 0 || is_ended(job)) {
        MUST_BE(lanes == 0, "an ended job has no lane");
    } else {
        MUST_BE(lanes > 0, "an unfinished job has a lane");
        MUST_BE(job->status == (running  ? word_ST_PROCESSING
                                : queued ? word_ST_QUEUED
                                         : word_ST_WAITING),
                "the status is that of the lanes");
    }
    MUST_BE(job->dead == (job->status == word_ST_FAILED), "failed jobs are in `dead`, no others");
    for (int s = 0; s <= STAGES; s++) {
        bool is_open = job->stage[s] == word_STAGE_OPEN;
        done += job->stage[s] == word_STAGE_DONE;
        MUST_BE(job->stage[s] != word_STAGE_DONE || (job->out >> s & 1),
                "a stage that is done has its output");
        MUST_BE(!is_open || (taken >> s & 1) || job->stop || is_ended(job),
                "an open stage is in a lane");
        MUST_BE(is_open || !(taken >> s & 1), "the stages of a lane are open");
    }
    MUST_BE(done == job->done, "`done` counts the stages that are done");
    return true;
}

static bool state_is_right(void)
{
    bool is_busy = false;
    for (int j = 0; j < JOBS; j++)
        if (!job_is_right(j, &is_busy))
            return false;
    for (int k = 0; k < WORKERS * SLOTS; k++)
        is_busy |= now.r[k].does != 0 && !(now.r[k].does == word_WAITS && child_runs());
    for (int j = 0; j < JOBS; j++)
        MUST_BE(is_busy || now.db.job[j].status == 0 || is_ended(&now.db.job[j]),
                "for a job that has not ended somebody has something to do");
    return true;
}

static bool all_is_over(void)
{
    for (int j = 0; j < JOBS; j++)
        MUST_BE(now.db.job[j].status == 0 || is_ended(&now.db.job[j]),
                "where nothing more can happen every job has ended");
    return true;
}
