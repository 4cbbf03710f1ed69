/*
 * answer: from a request and its rule to a plan: all bytes of the HTTP answer, and how they go out.
 *
 * A plan is composed when the request arrives and owns all its bytes, so rules may change while it
 * waits. The content is a function of the request alone; only ids, `created` and the spread of
 * latencies follow the request's number and the clock.
 */
#ifndef SIM_ANSWER_H
#define SIM_ANSWER_H

#include "ask.h"
#include "buf.h"
#include "http.h"
#include "rule.h"

enum plan_ending {
    PLAN_KEEP,  /* the connection goes on if the client lets it */
    PLAN_CLOSE, /* FIN */
    PLAN_RESET, /* RST */
    PLAN_STALL  /* silence, until the client goes */
};

struct plan {
    struct buf out;    /* head and body */
    size_t head;       /* bytes of the head in it */
    size_t limit;      /* bytes that are sent at all */
    size_t *stops;     /* where each piece ends (streams), or NULL */
    size_t stop_count; /* of stops */
    size_t piece;      /* bytes of a piece of the body (drips); 0: all at once */
    uint64_t every_ms; /* pause between pieces */
    uint64_t latency_ms;
    enum plan_ending ending;
    bool hold;
    bool hang;
    int status;
    const char *what; /* static word for the journal: text, json, error, stream, ... */
};

/* What the command line says about answers without a rule. */
struct answer_defaults {
    struct span_ms latency;
    uint64_t stream_every_ms;
    size_t stream_bytes; /* content bytes in a stream chunk */
};

/* Composes the answer to request number n; rule may be NULL. */
void plan_make(struct plan *ret_plan, const struct answer_defaults *defaults,
               const struct http_request *r, const struct ask *ask, const struct rule *rule,
               uint64_t n);

/* Makes a plan of one JSON body, sent at once (control answers, refused requests). */
void plan_make_json(struct plan *ret_plan, int status, const struct buf *body);

/* Frees the plan's bytes. */
void plan_done(struct plan *plan);

#endif
