/* The state protocol, for Spin: Redis as one structure, each script one indivisible step on it, and
 * workers, clients, the mover and faults around it in any order.
 *
 * What is Redis is `db`, and nothing else: jobs with their lanes, and for each lane the entries that
 * stand for it in a stream. An inline named s_SCRIPT does what core/state/SCRIPT.lua does, the same
 * checks in the same order. What a worker remembers is `r`: one record for each lane in its hands.
 * Between two scripts of a worker anything may happen.
 *
 * Words, letters, limits and transitions come from core/state/table.h: `done` refuses a step that is
 * not a row of it.
 *
 * The size of a world is given by -D: GRAPH, CALL, CRASHES, PAUSES, LOST, CANCELS, DEADLINES,
 * FAILS, AGAINS, BACKS, PARKS, DEATHS, FORGETS, CULPRITS; what each means stands in README.md.
 * BUG_…: a mistake on purpose, which the search has to find. */
#include "state/table.h"

#include "world.h"

#define THE_END STAGES /* `$end` as a stage */
#define BIT(i)  (1 << (i))
#define ALL     (BIT(STAGES) - 1)

/* ---- Words, out of the table ---- */

#define X(NAME, ...) ST_##NAME,
mtype = {STATE_STATUSES(X) ST_LAST};
#undef X
#define X(NAME, ...) LANE_##NAME,
mtype = {STATE_LANES(X) LANE_LAST};
#undef X
#define X(NAME, ...) STAGE_##NAME,
mtype = {STATE_STAGES(X) STAGE_LAST};
#undef X
#define X(NAME, ...) STOP_##NAME,
mtype = {STATE_STOPS(X) STOP_LAST};
#undef X
/* What scripts answer: one for each word, whichever script says it. */
mtype = {RE_OK,   RE_END,      RE_STOP,      RE_LOST,       RE_GONE,  RE_HELD,   RE_POISON, RE_SUSPECT,
         RE_PUT_OFF, RE_REV,   RE_NEW,       RE_SAME,       RE_AGAIN, RE_CONFLICT, RE_FULL, RE_NONE,
         RE_CANCELLED, RE_CANCELLING, RE_ENDED, RE_ERASED,  RE_BUSY,  RE_EARLY};
mtype = {S_submit, S_begin, S_renew, S_note, S_step, S_tell, S_commit, S_fail, S_park,
         S_handback, S_drop, S_cancel, S_wake, S_again, S_erase};

/* What a worker does with a lane; each is left by one script or one outcome. */
mtype = {CLAIMED,   /* an entry was read: begin */
         RUNS,      /* a task of `open` runs, or is to */
         FINISHED,  /* its output is there: commit */
         FAILS_NOW, /* it failed: fail */
         NOTES, SUBMITS, WAITS, /* the steps of a call */
         STOPS,     /* told to stop: begin again for the children */
         KIDS,      /* cancel the children that were noted */
         DROPS, GIVES_BACK, PARKS_NOW};

/* ---- Redis ---- */

#define IS_OF(e, w) ((e) == E_OF(w) || (e) == E_OVER(w))

typedef lane_t {
    mtype state;      /* 0: no field l:N */
    byte gen;         /* which of the entries is named by `entry` */
    byte fence;       /* 0: `-` */
    byte stages;      /* bits */
    byte crashes, takeovers;
    bit recovered;    /* its class */
    bit due;          /* its member is in `due` */
    byte entry[GENS]; /* in the stream, named or not */
}
typedef job_t {
    mtype status;  /* 0: no such job */
    mtype stop;    /* 0: none */
    byte round, req;
    bit tomb, dead; /* dead: in the zset */
    byte n;        /* lane numbers given; lanes[0 .. n-1] */
    byte lanes;    /* the field `lanes`, as bits */
    byte done;
    mtype stage[STAGES + 1]; /* 0: not ready; the last is $end */
    byte used[STAGES + 1];   /* attempts */
    byte out;      /* outputs, as bits */
    byte noted;    /* rounds whose child the calling stage has noted, as bits */
    lane_t lane[LANES];
}
typedef db_t {
    job_t job[JOBS];
}
db_t db;
#if FORGETS
db_t last; /* before the last script that wrote */
byte forgets;
#define FORGOTTEN forgets
#else
#define FORGOTTEN 0
#endif

/* ---- Workers ---- */

typedef record_t {
    mtype does; /* 0: free */
    byte job, lane, gen, fence;
    byte open;  /* stages to run */
    byte have;  /* outputs in the document */
    byte stage; /* the one that is run */
    byte round;
    byte kids;  /* rounds whose children are to be cancelled */
    bit retry;  /* how it failed */
}
record_t r[WORKERS * SLOTS];
byte gone; /* workers that are gone for good, as bits */

/* ---- What only the properties know ---- */

byte entries[JOBS * LANES]; /* made so far: ids are never used again, whatever Redis forgets */
byte fences[JOBS * LANES];  /* likewise */
byte paid[JOBS * STAGES];   /* how often a task finished */
bit acknowledged[JOBS];     /* a cancel was answered CANCELLING or CANCELLED */
byte stopped_rounds;        /* of job 0: that ended cancelled or out of time, as bits */
byte child_round;           /* the round of the parent for which the child was begun last */
bit named;                  /* the master has named a culprit that was not charged yet */
byte culprit_job, culprit_lane;

byte crashes, deaths, pauses, lost, cancels, deadlines, fails, agains, backs, parks;
#define DISTURBED (FORGOTTEN + crashes + deaths + pauses + cancels + deadlines + backs + parks + fails)

/* ---- One step ---- */

/* Used inside one step, 0 between steps. */
mtype script, reply, before, after, status, stopping;
byte jj, nn, ww, i, m, except, ring, keep, open, news;
bit broken;
bit mine, finish, retried, ended, again, result, children, stale;

#define J  db.job[jj]
#define L  db.job[jj].lane[nn]
#define LI db.job[jj].lane[i]
#define R  r[_pid]
#define ME (_pid / SLOTS)
/* The named entry of the record's lane, and of lane l of job j. */
#define ENTRY(j, l) db.job[j].lane[l].entry[db.job[j].lane[l].gen]

#define END_ROW(NAME, word, is_end) || (is_end && J.status == ST_##NAME)
#define IS_ENDED (false STATE_STATUSES(END_ROW))
#define K_END_ROW(NAME, word, is_end) || (is_end && db.job[1].status == ST_##NAME)
#define CHILD_ENDED (false STATE_STATUSES(K_END_ROW))
#define WIND_ROW(NAME, word, rank, winds) || (winds && J.stop == STOP_##NAME)
#define WINDING (false STATE_STOPS(WIND_ROW))
#define RANK_OLD_ROW(NAME, word, rank, winds) + (J.stop == STOP_##NAME -> rank : 0)
#define RANK_NEW_ROW(NAME, word, rank, winds) + (stopping == STOP_##NAME -> rank : 0)
#define LATER(a, b) ((a) > (b)) /* request_later, of one parent */

c_code {
\#include "properties.h"
};
#define SAY(text)      c_code { say_text(text); }
#define SAY_LANE(text) c_code { say_lane(text); }

#ifdef CALL
#define CHILD_RUNS (db.job[1].status != 0 && !CHILD_ENDED)
#define HAS(k, j, l) (r[k].does != 0 && r[k].job == (j) && r[k].lane == (l))
#define HOLDS(w, j, l) (HAS(2 * (w), j, l) || HAS(2 * (w) + 1, j, l))
#define MATE r[_pid ^ 1]
/* The free slot is that of the lane which does not wait. */
#define MAY_CLAIM (R.does == 0 && (MATE.does == WAITS || (MATE.does == 0 && _pid % 2 == 0)) && IS_ALIVE)
#else
#define CHILD_RUNS false
#define HOLDS(w, j, l) (r[w].does != 0 && r[w].job == (j) && r[w].lane == (l))
#define MAY_CLAIM (R.does == 0 && IS_ALIVE)
#endif
#define IS_ALIVE ((gone & BIT(ME)) == 0)

#define MUST(condition, text)                                                                      \
    if                                                                                             \
    :: !(condition) -> c_code { why(text); }; assert(false)                                        \
    :: else                                                                                        \
    fi

inline begin_script(name)
{
    script = name;
    before = L.state;
    c_code { keep_db(); };
}
inline end_script()
{
    after = L.state;
    c_code { now.broken = !step_is_right() || !state_is_right(); };
    assert(!broken);
#if FORGETS
    c_code { keep_last(); };
#endif
    skip
}
inline clear()
{
    script = 0; reply = 0; before = 0; after = 0; status = 0; stopping = 0;
    jj = 0; nn = 0; ww = 0; i = 0; m = 0; except = 0; ring = 0; keep = 0; open = 0; news = 0;
    mine = 0; finish = 0; retried = 0; ended = 0; again = 0; result = 0; children = 0; stale = 0;
}

/* The step is a row of the table, and the invariants of docs/protocol.md hold: properties.h. */
inline check_state()
{
    c_code { now.broken = !state_is_right(); };
    assert(!broken)
}

/* ---- What scripts share: core/state/lib ---- */

inline entry_new()
{
    MUST(entries[jj * LANES + nn] < GENS, "the model has room for another entry: raise GENS");
    L.gen = entries[jj * LANES + nn];
    entries[jj * LANES + nn]++;
    L.entry[L.gen] = E_NEW
}
inline entry_end()
{
    L.entry[L.gen] = E_NONE
}
/* The lane's field and its name in `lanes` go. What is no longer there says nothing more. */
inline lane_gone()
{
    L.state = LANE_NONE; L.stages = 0; L.fence = 0; L.recovered = 0; L.crashes = 0; L.takeovers = 0;
    J.lanes = J.lanes & ~BIT(nn)
}
/* A new lane, with the next number; nn is its index then. */
inline lane_new(stages_, state_)
{
    MUST(J.n < LANES, "the model has room for another lane: raise LANES");
    nn = J.n;
    J.n++;
    J.lanes = J.lanes | BIT(nn);
    L.state = state_;
    L.stages = stages_;
    L.recovered = 0;
    L.fence = 0;
    if
    :: state_ == LANE_QUEUED -> entry_new()
    :: else -> L.due = 1
    fi
}
/* What the lanes but `except` give: lanes_status. */
inline lanes_status(except)
{
    i = 0;
    status = ST_WAITING;
    do
    :: i < J.n ->
        if
        :: i != except && (J.lanes & BIT(i)) != 0 && LI.state == LANE_RUNNING -> status = ST_PROCESSING
        :: i != except && (J.lanes & BIT(i)) != 0 && LI.state == LANE_QUEUED && status == ST_WAITING ->
            status = ST_QUEUED
        :: else
        fi;
        i++
    :: else -> break
    od;
    i = 0
}
inline set_stop(how)
{
    stopping = how;
    MUST((0 STATE_STOPS(RANK_NEW_ROW)) >= (0 STATE_STOPS(RANK_OLD_ROW)), "`stop` only rises");
    J.stop = how
}
/* The last lane is gone: ending_write. */
inline ending()
{
    J.status = (J.stop == 0 -> ST_COMPLETED : (J.stop == STOP_CANCELLED -> ST_CANCELLED : ST_FAILED));
    J.dead = (J.status == ST_FAILED);
    MUST(J.status != ST_COMPLETED || J.done == STAGES, "a completed job has done all its stages");
    MUST(!acknowledged[jj] || J.status == ST_CANCELLED, "what was acknowledged as cancelled ends cancelled");
#ifdef CALL
    stopped_rounds = stopped_rounds | (jj == 0 && WINDING -> BIT(J.round) : 0);
    MUST(jj != 0 || !WINDING || FORGOTTEN > 0 || db.job[1].status == 0 || CHILD_ENDED || db.job[1].stop != 0 || db.job[1].req != J.round,
         "a stopped parent ends after its child was cancelled");
#endif
    i = 0
}
/* Closes the lanes but `except` that do not run; those that noted children go to class recovered,
 * when that is asked for. */
inline closing(not_, with_children)
{
    m = nn;
    except = not_;
    nn = 0;
    ring = 0;
    keep = 0;
    do
    :: nn < J.n ->
        if
        :: nn == except || (J.lanes & BIT(nn)) == 0
        :: else ->
            children = with_children && (L.stages & 1) != 0 && J.noted != 0;
#ifdef BUG_CLOSE_FORGETS_CHILDREN
            children = false;
#endif
            if
            :: L.state == LANE_RUNNING -> ring++
            :: L.state == LANE_QUEUED && children && L.recovered -> keep++
            :: else ->
                if
                :: L.state == LANE_DUE -> L.due = 0
                :: else -> entry_end()
                fi;
                if
                :: children ->
                    L.state = LANE_QUEUED;
                    L.recovered = 1;
                    L.fence = 0;
                    entry_new();
                    keep++
                :: else -> lane_gone()
                fi
            fi
        fi;
        nn++
    :: else -> break
    od;
    nn = m;
    m = 0;
    children = 0
}
inline closing_status()
{
    status = (ring > 0 -> ST_PROCESSING : (keep > 0 -> ST_QUEUED : ST_WAITING))
}
/* Cancels the job or ends its time: stop_job. */
inline stop_job(how)
{
    closing(255, true);
    set_stop(how);
    if
    :: J.lanes == 0 -> ending()
    :: else -> closing_status(); J.status = status
    fi
}
/* An ended job begins another round: rerun. */
inline rerun(req_, fresh)
{
    J.round++;
    J.req = req_;
    J.status = ST_QUEUED;
    J.stop = 0;
    J.dead = 0;
    acknowledged[jj] = 0;
    open = 0;
    news = 0;
    i = 0;
    do
    :: i <= STAGES ->
        if
#ifdef BUG_AGAIN_RUNS_ALL
        :: J.stage[i] == STAGE_DONE ->
            J.done--;
            J.stage[i] = STAGE_OPEN;
            if
            :: i < STAGES && QUEUE(i) == 1 -> news = news | BIT(i)
            :: else -> open = open | BIT(i)
            fi
#endif
        :: J.stage[i] == STAGE_OPEN || J.stage[i] == STAGE_FAILED ->
            J.stage[i] = STAGE_OPEN;
            J.used[i] = (fresh -> 0 : J.used[i]);
            if
            :: i < STAGES && QUEUE(i) == 1 -> news = news | BIT(i)
            :: else -> open = open | BIT(i)
            fi
        :: else
        fi;
        i++
    :: else -> break
    od;
    if
    :: open == 0 && news == 0 -> open = BIT(THE_END); J.stage[THE_END] = STAGE_OPEN
    :: else
    fi;
    i = 0;
    m = 255;
    if
    :: open != 0 -> lane_new(open, LANE_QUEUED); m = nn
    :: else
    fi;
    if
    :: news != 0 -> lane_new(news, LANE_QUEUED)
    :: else
    fi;
    nn = (m == 255 -> nn : m);
    m = 0;
    open = 0;
    news = 0
}
inline lane_back()
{
    entry_end();
    L.recovered = 1;
#ifndef BUG_HANDBACK_STAYS_RUNNING
    L.state = LANE_QUEUED;
    L.fence = 0;
#endif
    entry_new();
    if
    :: J.status == ST_PROCESSING ->
        lanes_status(nn);
        J.status = (status == ST_WAITING -> ST_QUEUED : status)
    :: else
    fi
}
#define MINE(f) (L.state == LANE_RUNNING && L.fence == (f))

/* ---- The scripts. jj and nn: job and lane; the answer is in `reply`. ---- */

/* What a beginning of the child has to keep to. */
inline begun(req_)
{
    skip;
#ifdef CALL
    if
    :: jj == 1 ->
        MUST(req_ > child_round, "a child is begun once in a round of its parent");
        MUST((stopped_rounds & BIT(req_)) == 0 || FORGOTTEN > 0, "the child of a cancelled round does not begin later");
        child_round = req_
    :: else
    fi
#endif
}

/* mode plain: the client's; else a call, whose req is its parent's round. */
inline s_submit(is_call, req_, first)
{
    begin_script(S_submit);
    if
    :: J.status != 0 ->
        if
        :: is_call -> again = ((J.status == ST_FAILED || J.status == ST_CANCELLED) && LATER(req_, J.req))
        :: else -> again = (J.status == ST_FAILED && J.req != req_)
        fi;
#ifdef BUG_REQ_NOT_COMPARED
        again = (J.status == ST_FAILED || J.status == ST_CANCELLED);
#endif
        if
        :: again ->
            begun(req_);
            m = nn;
            nn = J.n;
            before = L.state;
            rerun(req_, true);
            reply = RE_AGAIN
        :: else -> reply = RE_SAME
        fi
#ifndef BUG_REQ_NOT_COMPARED
    :: J.status == 0 && J.tomb && is_call && !LATER(req_, J.req) -> reply = RE_SAME
#endif
    :: else ->
        begun(req_);
        J.tomb = 0;
        J.round = 1;
        J.req = req_;
        J.status = ST_QUEUED;
        i = 0;
        do
        :: i < STAGES ->
            if
            :: (first & BIT(i)) != 0 -> J.stage[i] = STAGE_OPEN
            :: else
            fi;
            i++
        :: else -> break
        od;
        i = 0;
        lane_new(first, LANE_QUEUED);
        reply = RE_NEW
    fi;
    again = 0;
    end_script()
}
/* fence_: 0 at first, then the one that was made. */
inline s_begin(gen_, fence_)
{
    begin_script(S_begin);
    if
    :: L.state == LANE_NONE || L.gen != gen_ ->
        L.entry[gen_] = E_NONE;
        reply = RE_GONE
#ifndef BUG_NO_PENDING_CHECK
    :: L.state != LANE_NONE && L.gen == gen_ && !IS_OF(L.entry[gen_], ME) -> reply = RE_LOST
#endif
    :: else ->
        ended = IS_ENDED;
        mine = MINE(fence_) && fence_ != 0;
#ifdef BUG_BEGIN_COUNTS_AGAIN
        mine = false;
#endif
        if
        :: !mine && L.state == LANE_RUNNING ->
            if
            :: named && culprit_job == jj && culprit_lane == nn -> L.crashes++; named = 0; culprit_job = 0; culprit_lane = 0
            :: else -> L.takeovers++
            fi
        :: else
        fi;
        if
        :: (L.crashes > MAX_CRASHES || L.takeovers > STATE_MAX_TAKEOVERS) && !WINDING ->
            i = 0;
            do
            :: i <= STAGES ->
                if
                :: (L.stages & BIT(i)) != 0 -> J.stage[i] = STAGE_FAILED
                :: else
                fi;
                i++
            :: else -> break
            od;
            i = 0;
            entry_end();
            lane_gone();
            closing(nn, false);
            set_stop(STOP_FAILED);
            if
            :: J.lanes == 0 -> ending()
            :: else -> closing_status(); J.status = status
            fi;
            reply = RE_POISON
        :: else ->
            if
            :: !mine ->
                fences[jj * LANES + nn]++;
                fence_ = fences[jj * LANES + nn];
                L.state = LANE_RUNNING;
                L.fence = fence_;
                if
                :: !ended -> J.status = ST_PROCESSING
                :: else
                fi
            :: else
            fi;
            reply = (WINDING -> RE_STOP : RE_OK)
        fi
    fi;
    end_script();
    ended = 0;
    mine = 0
}
inline s_renew(gen_, fence_)
{
    begin_script(S_renew);
    if
#ifdef BUG_RENEW_ANY_FENCE
    :: L.state != LANE_RUNNING -> reply = RE_LOST
#else
    :: !MINE(fence_) -> reply = RE_LOST
#endif
    :: else ->
        if
        :: L.entry[L.gen] >= E_OF(0) -> L.entry[L.gen] = E_OF(ME)
        :: else
        fi;
        reply = (WINDING -> RE_STOP : RE_OK)
    fi;
    end_script()
}
inline s_note(fence_, round_)
{
    begin_script(S_note);
    if
    :: !MINE(fence_) -> reply = RE_LOST
    :: MINE(fence_) && WINDING -> reply = RE_STOP
    :: else ->
        J.noted = J.noted | BIT(round_);
        reply = RE_OK
    fi;
    end_script()
}
inline s_commit(fence_, stage_, result_)
{
    begin_script(S_commit);
    stale = !MINE(fence_);
    if
#ifdef BUG_NO_FENCE
    :: L.state != LANE_RUNNING -> reply = RE_LOST
#else
    :: !MINE(fence_) -> reply = RE_LOST
#endif
#ifndef BUG_COMMIT_TWICE
    :: MINE(fence_) && (L.stages & BIT(stage_)) == 0 -> reply = (WINDING -> RE_STOP : RE_OK)
#endif
    :: else ->
        stopping = J.stop;
#ifdef BUG_CANCEL_COMPLETES
        J.stop = 0;
        stopping = 0;
#endif
        open = L.stages & ~BIT(stage_);
        news = 0;
        if
        :: stage_ == THE_END ->
            if
            :: stopping == 0 -> finish = 1; J.stage[THE_END] = 0
            :: else
            fi
        :: else ->
            MUST((J.out & BIT(stage_)) == 0, "an output is stored once");
            J.done++;
            J.out = J.out | BIT(stage_);
            J.stage[stage_] = STAGE_DONE;
            if
            :: CALLS(jj, stage_) -> J.noted = 0
            :: else
            fi;
            L.takeovers = 0;
            i = 0;
            do
            :: i < STAGES ->
                if
                :: (NEEDS(i) & BIT(stage_)) != 0 && (NEEDS(i) & ~J.out) == 0 && J.stage[i] == 0 ->
#ifdef BUG_STOP_FORGETS_NEXT
                    J.stage[i] = (stopping == 0 -> STAGE_OPEN : 0);
#else
                    J.stage[i] = STAGE_OPEN;
#endif
                    if
                    :: stopping != 0 /* recorded for a later run */
                    :: stopping == 0 && QUEUE(i) == QUEUE(stage_) -> open = open | BIT(i)
                    :: else -> news = news | BIT(i)
                    fi
                :: else
                fi;
                i++
            :: else -> break
            od;
            i = 0;
            if
            :: J.done >= STAGES && stopping != 0 -> J.stage[THE_END] = STAGE_OPEN
            :: J.done >= STAGES && stopping == 0 && result_ -> finish = 1
            :: J.done >= STAGES && stopping == 0 && !result_ ->
#ifndef BUG_NO_END_STAGE
                open = open | BIT(THE_END);
                J.stage[THE_END] = STAGE_OPEN
#endif
            :: else
            fi
        fi;
        if
        :: open != 0 -> L.stages = open
        :: else -> entry_end(); lane_gone()
        fi;
        if
        :: news != 0 -> m = nn; lane_new(news, LANE_QUEUED); nn = m; m = 0
        :: else
        fi;
        if
        :: J.lanes == 0 ->
            MUST(finish || stopping != 0, "a commit leaves the job a lane");
            ending()
        :: J.lanes != 0 && open == 0 ->
            lanes_status(255);
            J.status = status
        :: else
        fi;
        reply = (open == 0 -> RE_END : (WINDING -> RE_STOP : RE_OK))
    fi;
    end_script()
}
inline s_fail(fence_, stage_, retry_)
{
    begin_script(S_fail);
    stale = !MINE(fence_);
    if
    :: !MINE(fence_) -> reply = RE_LOST
    :: MINE(fence_) && (L.stages & BIT(stage_)) == 0 -> reply = (WINDING -> RE_STOP : RE_OK)
    :: else ->
        retried = J.stop == 0 && retry_ && J.used[stage_] + 1 < ATTEMPTS;
        J.used[stage_]++;
        stopping = J.stop;
        open = L.stages & ~BIT(stage_);
#ifdef BUG_RETRY_STAYS
        open = L.stages;
#endif
        if
        :: open == 0 ->
            entry_end();
            lane_gone()
        :: else -> L.stages = open
        fi;
        if
        :: retried -> m = nn; lane_new(BIT(stage_), LANE_DUE); nn = m; m = 0
        :: else ->
            J.stage[stage_] = STAGE_FAILED;
            if
            :: CALLS(jj, stage_) -> J.noted = 0
            :: else
            fi;
            if
#ifdef BUG_FAIL_LOWERS_STOP
            :: true -> set_stop(STOP_FAILED)
#endif
            :: stopping == 0 -> closing(nn, false); set_stop(STOP_FAILED)
            :: else
            fi
        fi;
        if
        :: J.lanes == 0 -> ending()
        :: J.lanes != 0 && open == 0 && !retried && stopping == 0 -> closing_status(); J.status = status
        :: J.lanes != 0 && open == 0 && (retried || stopping != 0) -> lanes_status(255); J.status = status
        :: else
        fi;
        reply = (open == 0 -> RE_END : (WINDING -> RE_STOP : RE_OK))
    fi;
    end_script();
    retried = 0
}
inline s_handback(fence_)
{
    begin_script(S_handback);
    stale = !MINE(fence_);
    if
    :: !MINE(fence_) -> reply = RE_LOST
    :: else -> lane_back(); reply = RE_OK
    fi;
    end_script()
}
inline s_park(fence_)
{
    begin_script(S_park);
    stale = !MINE(fence_);
    if
    :: !MINE(fence_) -> reply = RE_LOST
    :: else ->
        entry_end();
        L.state = LANE_DUE;
        L.due = 1;
        L.fence = 0;
        lanes_status(nn);
        J.status = status;
        reply = RE_OK
    fi;
    end_script()
}
inline s_drop(fence_)
{
    begin_script(S_drop);
    stale = !MINE(fence_);
    if
    :: !MINE(fence_) -> reply = RE_LOST
#ifndef BUG_DROP_CLOSES_ALWAYS
    :: MINE(fence_) && !WINDING -> lane_back(); reply = RE_OK
#endif
    :: else ->
        if
        :: (L.stages & 1) != 0 -> J.noted = 0
        :: else
        fi;
        entry_end();
        lane_gone();
        if
#ifdef BUG_DROP_CLOSES_ALWAYS
        :: J.lanes == 0 && J.stop == 0 -> lanes_status(255); J.status = status
#endif
        :: J.lanes == 0 && J.stop != 0 -> ending()
        :: else -> lanes_status(255); J.status = status
        fi;
        reply = RE_END
    fi;
    end_script()
}
/* req_: 0 from people, else the round of the parent that began the child. */
inline s_cancel(req_)
{
    nn = 0;
    do
    :: nn < LANES - 1 && (J.lanes & BIT(nn)) == 0 -> nn++
    :: else -> break
    od;
    begin_script(S_cancel);
    if
    :: J.status == 0 ->
#ifndef BUG_NO_TOMBSTONE
        if
        :: req_ != 0 && (!J.tomb || LATER(req_, J.req)) -> J.tomb = 1; J.req = req_
        :: else
        fi;
#endif
        reply = RE_NONE
    :: else ->
        ended = IS_ENDED;
        again = req_ != 0 && LATER(J.req, req_); /* begun by a later round */
#ifdef BUG_CANCEL_TAKES_ANY_ROUND
        again = false;
#endif
#ifndef BUG_REQ_NOT_STORED
        if
        :: req_ != 0 && ended && LATER(req_, J.req) -> J.req = req_
        :: else
        fi;
#endif
        if
        :: again -> reply = RE_ENDED
        :: !again && ended -> reply = (J.status == ST_CANCELLED -> RE_CANCELLED : RE_ENDED)
        :: else ->
#ifdef CALL
            MUST(req_ == 0 || FORGOTTEN > 0 || (stopped_rounds & BIT(J.req)) != 0 ||
                 (db.job[0].round == J.req && (db.job[0].stop == STOP_CANCELLED || db.job[0].stop == STOP_DEADLINE)),
                 "only the child of a stopped round is cancelled by its parent");
#endif
            stop_job(STOP_CANCELLED);
            acknowledged[jj] = 1;
            reply = (IS_ENDED -> RE_CANCELLED : RE_CANCELLING)
        fi
    fi;
    end_script();
    ended = 0;
    again = 0
}
inline s_wake()
{
    begin_script(S_wake);
#ifndef BUG_WAKE_STAYS_DUE
    L.due = 0;
#endif
    L.state = LANE_QUEUED;
    L.recovered = 0;
    entry_new();
    J.status = (J.status == ST_WAITING -> ST_QUEUED : J.status);
    reply = RE_OK;
    end_script()
}
inline s_wake_deadline()
{
    nn = 0;
    do
    :: nn < LANES - 1 && (J.lanes & BIT(nn)) == 0 -> nn++
    :: else -> break
    od;
    begin_script(S_wake);
    if
    :: IS_ENDED || J.stop == STOP_CANCELLED || J.status == 0 -> reply = RE_GONE
    :: else -> stop_job(STOP_DEADLINE); reply = RE_OK
    fi;
    end_script()
}
inline s_again(req_)
{
    begin_script(S_again);
    if
    :: J.status == 0 -> reply = RE_NONE
    :: J.status != 0 && J.req == req_ -> reply = RE_SAME
    :: J.status != 0 && J.req != req_ && J.status != ST_FAILED && J.status != ST_CANCELLED -> reply = RE_ENDED
    :: else ->
        nn = J.n;
        before = L.state;
        rerun(req_, true);
        reply = RE_AGAIN
    fi;
    end_script()
}

/* ---- Workers ---- */

inline record_free()
{
    R.does = 0; R.job = 0; R.lane = 0; R.gen = 0; R.fence = 0; R.open = 0; R.have = 0; R.stage = 0;
    R.round = 0; R.kids = 0; R.retry = 0
}
inline record_claim(j, l)
{
    R.does = CLAIMED;
    R.job = j;
    R.lane = l;
    R.gen = db.job[j].lane[l].gen
}
/* The reply comes; or it is lost: then the same is sent again. */
#define REPLY                                                                                      \
    if                                                                                             \
    :: lost < LOST -> d_step { lost++; SAY("the reply is lost"); clear() }                         \
    :: true -> d_step {
#define REPLY_END                                                                                  \
        clear() }                                                                                  \
    fi
#define IN(what) (R.does == what && IS_ALIVE)
#define OF_RECORD jj = R.job; nn = R.lane; ww = ME + 1

/* What is open, after OK; an output that is there already is committed from memory. */
inline goes_on()
{
    R.does = RUNS;
    R.open = L.stages;
    R.have = R.have | J.out;
    R.stage = 0
}
inline next_by_reply()
{
    if
    :: reply == RE_OK -> goes_on()
    :: reply == RE_STOP -> R.does = STOPS
    :: else -> record_free()
    fi
}

#define CLAIM_NEW(j, l)                                                                            \
    :: d_step { MAY_CLAIM && ENTRY(j, l) == E_NEW && !HOLDS(ME, j, l) ->                           \
        ENTRY(j, l) = E_OF(ME); record_claim(j, l); ww = ME + 1; jj = j; nn = l;                   \
        SAY_LANE("reads the entry of"); clear() }
#define CLAIM_UNSEEN(j, l)                                                                         \
    :: d_step { lost < LOST && MAY_CLAIM && ENTRY(j, l) == E_NEW ->                                \
        lost++; ENTRY(j, l) = E_OF(ME); ww = ME + 1; jj = j; nn = l;                               \
        SAY_LANE("reads, without getting the reply, the entry of"); clear() }
#define CLAIM_OWN(j, l)                                                                            \
    :: d_step { MAY_CLAIM && IS_OF(ENTRY(j, l), ME) && !HOLDS(ME, j, l) ->                         \
        ENTRY(j, l) = E_OF(ME); /* reading it begins its lease anew */                             \
        record_claim(j, l); ww = ME + 1; jj = j; nn = l;                                           \
        SAY_LANE("finds among its own entries that of"); clear() }
#define CLAIM_OVER(j, l)                                                                           \
    :: d_step { MAY_CLAIM && ENTRY(j, l) == E_OVER(1 - ME) ->                                      \
        ENTRY(j, l) = E_OF(ME); ww = ME + 1; jj = j; nn = l;                                       \
        SAY_LANE("takes over the entry of");                                                       \
        if                                                                                         \
        :: HOLDS(ME, j, l)                                                                         \
        :: else -> record_claim(j, l)                                                              \
        fi;                                                                                        \
        clear() }
#define WAKE(j, l)                                                                                 \
    :: d_step { db.job[j].lane[l].state == LANE_DUE -> jj = j; nn = l; s_wake(); clear() }
#if LANES >= 7
#define LANE_7(WHAT, j) WHAT(j, 6)
#else
#define LANE_7(WHAT, j)
#endif
#if LANES >= 6
#define LANE_6(WHAT, j) WHAT(j, 5) LANE_7(WHAT, j)
#else
#define LANE_6(WHAT, j)
#endif
#if LANES >= 5
#define LANE_5(WHAT, j) WHAT(j, 4) LANE_6(WHAT, j)
#else
#define LANE_5(WHAT, j)
#endif
#if LANES >= 4
#define LANE_4(WHAT, j) WHAT(j, 3) LANE_5(WHAT, j)
#else
#define LANE_4(WHAT, j)
#endif
#define EACH_LANE_OF(WHAT, j) WHAT(j, 0) WHAT(j, 1) WHAT(j, 2) LANE_4(WHAT, j)
#if JOBS == 2
#define EACH_LANE(WHAT) EACH_LANE_OF(WHAT, 0) EACH_LANE_OF(WHAT, 1)
#else
#define EACH_LANE(WHAT) EACH_LANE_OF(WHAT, 0)
#endif

/* A task of stage s: it finishes, or it fails. Whoever holds the lane never pays for what is
 * stored. */
#define TASK(s)                                                                                    \
    :: d_step { IN(RUNS) && (R.open & BIT(s)) != 0 && !CALLS(R.job, s) && (R.have & BIT(s)) == 0 -> \
        OF_RECORD; R.stage = s; R.does = FINISHED;                                                 \
        MUST((J.out & BIT(s)) == 0 || !MINE(R.fence), "a stored output is not computed again");    \
        paid[jj * STAGES + s]++;                                                                   \
        MUST(paid[jj * STAGES + s] <= 1 + DISTURBED, "each disturbance costs one computation");    \
        SAY_LANE("has computed a stage of"); clear() }                                             \
    :: d_step { IN(RUNS) && (R.open & BIT(s)) != 0 && (R.have & BIT(s)) != 0 ->                    \
        R.stage = s; R.does = FINISHED }                                                           \
    :: atomic { IN(RUNS) && (R.open & BIT(s)) != 0 && !CALLS(R.job, s) && (R.have & BIT(s)) == 0 && fails < FAILS -> \
        fails++; R.stage = s; R.does = FAILS_NOW;                                                  \
        if                                                                                         \
        :: R.retry = 0                                                                             \
        :: R.retry = 1                                                                             \
        fi }

active [WORKERS * SLOTS] proctype worker()
{
end:
    do
        EACH_LANE(CLAIM_NEW)
        EACH_LANE(CLAIM_OWN)
        EACH_LANE(CLAIM_OVER)
#if LOST > 0
        EACH_LANE(CLAIM_UNSEEN)
#endif
    :: atomic { IN(CLAIMED) -> d_step { OF_RECORD; s_begin(R.gen, R.fence) };
        REPLY
            if
            :: reply == RE_OK -> R.round = J.round; goes_on()
            :: reply == RE_STOP ->
                R.round = J.round;
                R.kids = J.noted;
                R.does = (R.kids != 0 -> KIDS : DROPS)
            :: else -> record_free()
            fi;
        REPLY_END }

    /* The keeper renews the lease; a step only when it changes something. */
    :: d_step { IS_ALIVE && R.does != 0 && R.does != CLAIMED &&
                (!(db.job[R.job].lane[R.lane].state == LANE_RUNNING && db.job[R.job].lane[R.lane].fence == R.fence) ||
                 (ENTRY(R.job, R.lane) >= E_OF(0) && ENTRY(R.job, R.lane) != E_OF(ME)) ||
                 ((db.job[R.job].stop == STOP_CANCELLED || db.job[R.job].stop == STOP_DEADLINE) &&
                  R.does != STOPS && R.does != KIDS && R.does != DROPS)) ->
        OF_RECORD;
        s_renew(R.gen, R.fence);
        if
        :: reply == RE_LOST -> record_free()
        :: reply == RE_STOP && R.does != KIDS && R.does != DROPS -> R.does = STOPS
        :: else
        fi;
        clear() }

    /* Tasks. */
    TASK(0)
#if STAGES > 1
    TASK(1)
#endif
#if STAGES > 2
    TASK(2)
#endif
    :: d_step { IN(RUNS) && (R.open & BIT(THE_END)) != 0 -> R.stage = THE_END; R.does = FINISHED }
    :: atomic { IN(FINISHED) ->
        d_step {
            OF_RECORD;
#ifdef BUG_ACK_BEFORE_CHECKPOINT
            L.entry[L.gen] = E_NONE;
            check_state();
#endif
            R.have = R.have | (BIT(R.stage) & ALL);
            result = (R.have == ALL);
            s_commit(R.fence, R.stage, result)
        };
        REPLY
            next_by_reply();
        REPLY_END }
    :: atomic { IN(FAILS_NOW) -> d_step { OF_RECORD; s_fail(R.fence, R.stage, R.retry) };
        REPLY
            R.retry = 0;
            next_by_reply();
        REPLY_END }

#ifdef CALL
    /* A call: note, submit, wait for the end. */
#ifdef BUG_NO_NOTE
    :: d_step { IN(RUNS) && CALLS(R.job, 0) && R.open == 1 -> R.stage = 0; R.does = SUBMITS }
#else
    :: atomic { IN(RUNS) && CALLS(R.job, 0) && R.open == 1 ->
        d_step { OF_RECORD; s_note(R.fence, R.round) };
        REPLY
            if
            :: reply == RE_OK -> R.stage = 0; R.does = SUBMITS
            :: reply == RE_STOP -> R.does = STOPS
            :: else -> record_free()
            fi;
        REPLY_END }
#endif
    :: atomic { IN(SUBMITS) -> d_step { jj = 1; nn = 0; ww = ME + 1; s_submit(true, R.round, 1) };
        REPLY
            if
            :: J.status == 0 -> R.retry = 0; R.does = FAILS_NOW /* a tombstone */
            :: else -> R.does = WAITS
            fi;
        REPLY_END }
    :: d_step { IN(WAITS) && !CHILD_RUNS ->
        if
        :: db.job[1].status == 0 -> R.does = SUBMITS /* Redis has forgotten it */
        :: db.job[1].status == ST_COMPLETED -> R.does = FINISHED
        :: db.job[1].status == ST_FAILED -> R.retry = 0; R.does = FAILS_NOW
        :: db.job[1].status == ST_CANCELLED -> R.retry = 1; R.does = FAILS_NOW
        fi }
#endif

    /* Winding up: which children, cancel them, then drop. */
    :: atomic { IN(STOPS) -> d_step { OF_RECORD; s_begin(R.gen, R.fence) };
        REPLY
            R.kids = (reply == RE_STOP -> J.noted : 0);
            R.does = (R.kids != 0 -> KIDS : DROPS);
#ifndef BUG_DROP_THOUGH_CLAIMED
            /* Another has claimed the entry meanwhile: it is told of the children. */
            if
            :: reply == RE_LOST || reply == RE_GONE -> record_free()
            :: else
            fi;
#endif
        REPLY_END }
#ifdef CALL
    :: atomic { IN(KIDS) ->
        d_step {
            m = 1;
            do
            :: (R.kids & BIT(m)) == 0 -> m++
            :: else -> break
            od;
            jj = 1; ww = ME + 1; news = m; m = 0;
            s_cancel(news)
        };
        REPLY
            R.kids = R.kids & ~BIT(news);
            R.does = (R.kids != 0 -> KIDS : DROPS);
        REPLY_END }
#endif
    :: atomic { IN(DROPS) -> d_step { OF_RECORD; s_drop(R.fence) };
        REPLY
            record_free();
        REPLY_END }

    /* A graceful stop, and a process that is full. */
    :: d_step { backs < BACKS && (IN(RUNS) || IN(FINISHED) || IN(WAITS)) -> backs++; R.does = GIVES_BACK }
    :: atomic { IN(GIVES_BACK) -> d_step { OF_RECORD; s_handback(R.fence) };
        REPLY
            record_free();
        REPLY_END }
    :: d_step { parks < PARKS && (IN(RUNS) || IN(WAITS)) -> parks++; R.does = PARKS_NOW }
    :: atomic { IN(PARKS_NOW) -> d_step { OF_RECORD; s_park(R.fence) };
        REPLY
            record_free();
        REPLY_END }
    od
}

/* ---- The world: clients, the mover, and what goes wrong ---- */

inline lease_over(w)
{
    do
    :: jj < JOBS ->
        nn = 0;
        do
        :: nn < LANES ->
            L.entry[L.gen] = (L.entry[L.gen] == E_OF(w) -> E_OVER(w) : L.entry[L.gen]);
            nn++
        :: else -> break
        od;
        jj++
    :: else -> break
    od
}
inline forget_record(k)
{
    r[k].does = 0; r[k].job = 0; r[k].lane = 0; r[k].gen = 0; r[k].fence = 0; r[k].open = 0; r[k].have = 0;
    r[k].stage = 0; r[k].round = 0; r[k].kids = 0; r[k].retry = 0
}
inline forget_all(w)
{
    forget_record((w) * SLOTS);
#if SLOTS > 1
    forget_record((w) * SLOTS + 1);
#endif
    lease_over(w)
}
#define IS_UP(w) ((gone & BIT(w)) == 0)
#define FAULTS(w)                                                                                  \
    :: d_step { crashes < CRASHES && IS_UP(w) ->                                                   \
        crashes++; ww = (w) + 1; SAY("crashes and starts again"); forget_all(w); clear() }         \
    :: d_step { named == 0 && crashes < CULPRITS && IS_UP(w) && r[(w) * SLOTS].does == RUNS ->     \
        crashes++; named = 1; culprit_job = r[(w) * SLOTS].job; culprit_lane = r[(w) * SLOTS].lane; \
        ww = (w) + 1; SAY("is brought down by a plugin and starts again"); forget_all(w); clear() } \
    :: d_step { deaths < DEATHS && IS_UP(w) ->                                                     \
        deaths++; gone = gone | BIT(w); ww = (w) + 1; SAY("is gone for good"); forget_all(w); clear() } \
    :: d_step { pauses < PAUSES && IS_UP(w) ->                                                     \
        pauses++; ww = (w) + 1; SAY("stands still until its leases are over"); lease_over(w); clear() }

#define CLIENT(j)                                                                                  \
    :: d_step { cancels < CANCELS && db.job[j].status != 0 ->                                      \
        cancels++; jj = j; s_cancel(0); clear() }                                                  \
    :: d_step { deadlines < DEADLINES && db.job[j].status != 0 ->                                  \
        deadlines++; jj = j; s_wake_deadline(); clear() }

#define LEARN_ST(NAME, ...)    m = ST_##NAME; c_code { word_ST_##NAME = now.m; };
#define LEARN_LANE(NAME, ...)  m = LANE_##NAME; c_code { word_LANE_##NAME = now.m; };
#define LEARN_STAGE(NAME, ...) m = STAGE_##NAME; c_code { word_STAGE_##NAME = now.m; };
#define LEARN_STOP(NAME, ...)  m = STOP_##NAME; c_code { word_STOP_##NAME = now.m; };
#define LEARN_ROW(SCRIPT, CALLER, BEFORE, AFTER, CONDITION, REPLY)                                 \
    script = S_##SCRIPT; m = LANE_##BEFORE; i = LANE_##AFTER; reply = RE_##REPLY; c_code { learn_row(); };

active proctype world()
{
    /* properties.h learns which number spin has given to each word. */
    d_step {
        STATE_STATUSES(LEARN_ST)
        STATE_LANES(LEARN_LANE)
        STATE_STAGES(LEARN_STAGE)
        STATE_STOPS(LEARN_STOP)
        m = WAITS; c_code { word_WAITS = now.m; };
        STATE_TRANSITIONS(LEARN_ROW)
        clear()
    };
    d_step { s_submit(false, 1, FIRST); clear() };
#if JOBS == 2 && !defined(CALL)
    d_step { jj = 1; s_submit(false, 1, FIRST); clear() };
#endif
end:
    do
        EACH_LANE(WAKE)
#if CRASHES + DEATHS + PAUSES + CULPRITS > 0
        FAULTS(0)
        FAULTS(1)
#endif
#if CANCELS + DEADLINES > 0
        CLIENT(0)
#if JOBS == 2
        CLIENT(1)
#endif
#endif
#if AGAINS > 0
    :: d_step { agains < AGAINS && (db.job[0].status == ST_FAILED || db.job[0].status == ST_CANCELLED) ->
        agains++; s_again(agains + 1); clear() }
#endif
#if FORGETS
    :: d_step { forgets < FORGETS ->
        forgets++;
        SAY("Redis has forgotten its last script");
        c_code { forget(); };
        /* What was promised by a script that never was is no promise. */
        do
        :: jj < JOBS ->
            acknowledged[jj] = (acknowledged[jj] && (J.stop == STOP_CANCELLED));
            jj++
        :: else -> break
        od;
        clear();
#ifdef CALL
        stopped_rounds = (IS_ENDED -> stopped_rounds : stopped_rounds & ~BIT(J.round));
        jj = 1;
        child_round = (J.status == 0 -> 0 : (J.req < child_round -> J.req : child_round));
        clear();
#endif
        check_state() }
#endif
    od
}

/* Where nothing more can happen, all jobs have ended. */
active proctype over()
{
    timeout;
    d_step { c_code { now.broken = !all_is_over(); }; assert(!broken) }
}
