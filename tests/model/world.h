/* The size of the world: how many faults of each kind there are, and the pipelines. For the model
 * and its C side; README.md says what each means. */
#ifndef CRASHES
#define CRASHES 0 /* a worker loses its memory and starts again */
#endif
#ifndef DEATHS
#define DEATHS 0 /* a worker is gone for good; at most 1 */
#endif
#ifndef CULPRITS
#define CULPRITS 0 /* crashes after which the master names the lane that did it */
#endif
#ifndef MAX_CRASHES
#define MAX_CRASHES STATE_MAX_CRASHES
#endif
#ifndef PAUSES
#define PAUSES 0 /* a worker is stopped past its leases, then goes on */
#endif
#ifndef LOST
#define LOST 0 /* replies: the script was run, who sent it does not know */
#endif
#ifndef CANCELS
#define CANCELS 0
#endif
#ifndef DEADLINES
#define DEADLINES 0
#endif
#ifndef FAILS
#define FAILS 0 /* failed attempts */
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 2 /* that a stage has */
#endif
#ifndef AGAINS
#define AGAINS 0 /* by hand */
#endif
#ifndef BACKS
#define BACKS 0 /* a lane is handed back */
#endif
#ifndef PARKS
#define PARKS 0
#endif
#ifndef FORGETS
#define FORGETS 0 /* Redis forgets its last script */
#endif

#define WORKERS 2

/* ---- Pipelines ---- */

#if defined(CALL)
/* Job 0 is one stage, which calls job 1: one stage. A worker waiting in a call works on. */
#define JOBS        2
#define STAGES      1
#define SLOTS       2
#define NEEDS(s)    0
#define QUEUE(s)    0
#define CALLS(j, s) ((j) == 0 && (s) == 0)
#else
#define SLOTS       1
#define CALLS(j, s) false
#ifndef JOBS
#define JOBS 1
#endif
#if GRAPH == 1
/* a -> b in one queue, a -> c in another: two lanes side by side, and either may be the last. */
#define STAGES   3
#define NEEDS(s) ((s) != 0)
#define QUEUE(s) ((s) == 2)
#elif GRAPH == 2
/* a -> b -> c, c in another queue. */
#define STAGES   3
#define NEEDS(s) ((1 << (s)) >> 1)
#define QUEUE(s) ((s) == 2)
#elif GRAPH == 3
/* a and b at once in one queue, c in another when both are done. */
#define STAGES   3
#define NEEDS(s) (3 * ((s) == 2))
#define QUEUE(s) ((s) == 2)
#else
/* a -> b in one queue. */
#define STAGES   2
#define NEEDS(s) ((s) != 0)
#define QUEUE(s) 0
#endif
#endif
#if GRAPH == 3
#define FIRST 3
#else
#define FIRST 1
#endif
#ifndef LANES
#define LANES 6 /* numbers, which are never used again */
#endif
#ifndef GENS
#define GENS 5 /* entries that may stand for one lane, one after the other */
#endif

/* An entry in its stream: not there, not read yet, or pending with worker w; OVER: for longer than
 * a lease. */
#define E_NONE    0
#define E_NEW     1
#define E_OF(w)   (2 + 2 * (w))
#define E_OVER(w) (3 + 2 * (w))

#define LANE_NONE 0
#define LANE_ANY  255
