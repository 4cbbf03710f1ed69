/* The front: what handlers share, and the way of a request from the acceptor to its answer.
 *
 * Every request is a fiber under its exchange's scope, whose deadline is FRONT_REQUEST_MS (a wait
 * or a stream moves it). Handlers fill a response; the front writes it. What may last (a stream, a
 * `Prefer: wait`) is a *stay*: a drain ends stays at once and lets the rest finish. */
#pragma once

#include "base/log.h"
#include "fcgi/acceptor.h"
#include "fcgi/front_main.h"
#include "fcgi/router.h"
#include "io/redis_sub.h"
#include "loop/stop.h"
#include "state/job.h"
#include "state/outage.h"

#define FRONT_REQUEST_MS 15000u
#define FRONT_WAITERS    4096u /* requests in `Prefer: wait` at once; further ones do not wait */
#define FRONT_PARALLEL   16u   /* Redis calls in flight of one request for many jobs */
#define FRONT_TREE_COST  12u   /* a parsed document is so many times its text (docs: 11) */

struct front_stay {
    struct scope scope, *outer;
    struct front_stay *next, **link;
};

struct front {
    const struct front_setup *setup;
    const struct config *config;
    struct page_slot *page;
    struct loop loop;
    struct scope scope; /* of the front's own fiber; cancelled by a stop */
    struct stop stop;
    struct redis *redis;
    struct redis_sub *sub;
    struct store *store;
    struct acceptor *acceptor;
    struct pipeline **pipelines;
    size_t pipeline_count;
    struct wait *reconnected; /* of the front's own fiber */
    bool has_joined;          /* the store was checked and knows our revisions */
    enum outage outage;       /* why it could not be checked; only while !has_joined */
    struct log_pace refusals, unavailable, joining;
    bool is_draining;
    size_t streams, waiters;
    uint64_t memory_bytes; /* reserved by handlers for documents */
    struct front_stay *stays;
    int exit_code;
};

/* Opens everything but the acceptor: loop, Redis, pipelines. front_close undoes what was done, also
 * after a failure. */
int front_open(struct front *front, const struct front_setup *setup, struct error *err);
void front_close(struct front *front);
/* For the acceptor: takes a request over. */
void front_take(void *arg, struct exchange *exchange);

/* The pipeline of that name, borrowed, or NULL. */
struct pipeline *front_pipeline(const struct front *front, const char *name);
/* Counts bytes of documents against limits.memory; false when there is no room, and then nothing
 * was counted. */
bool front_reserve(struct front *front, uint64_t bytes);
void front_release(struct front *front, uint64_t bytes);

/* False when Redis is away; the response is then the problem. */
bool front_has_store(struct front *front, struct exchange *exchange, struct response *response);
/* False when new work is not taken: the store was not checked yet. One that drains takes what was
 * accepted before: after a reload another front serves the socket, and nobody shall notice. */
bool front_takes_work(struct front *front, struct exchange *exchange, struct response *response);
/* Makes the problem of an error of the state layer and logs what is our fault. */
void front_fail(struct exchange *exchange, struct response *response, const struct error *err);

/* Begins and ends what may last on the running fiber. `may_last_ms` UINT64_MAX: no end; else the
 * request's deadline is FRONT_REQUEST_MS after it. */
void front_stay_begin(struct front *front, struct exchange *exchange, struct front_stay *stay,
                      uint64_t may_last_ms);
void front_stay_end(struct front_stay *stay);
/* Ends all stays with MR_E_STOPPING. */
void front_end_stays(struct front *front);
