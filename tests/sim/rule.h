/*
 * rule: what is answered to which request. The grammar of rules is in manual.c.
 *
 * Two lists: `control` (posted at run time) is asked first, then `script` (from the file). The
 * first rule that matches and is not used up decides. Rules are checked when they are read: an
 * unknown member or a value of the wrong type is an error that names its place, so that a misspelt
 * rule never passes as "no rule".
 */
#ifndef SIM_RULE_H
#define SIM_RULE_H

#include "ask.h"
#include "http.h"

/* Latency: exactly min, or spread evenly over min..max by the request's digest and number. */
struct span_ms {
    uint64_t min;
    uint64_t max;
};

struct answer {
    /* what is answered; at most one of these, else the default answer */
    const char *text; /* the content of the message */
    char *json;       /* the same, as JSON text; owned */
    char *body;       /* the raw body of the HTTP answer; owned */
    size_t body_len;
    size_t oversize; /* an answer whose body has this many bytes */
    bool broken_json;
    bool bad_content;

    /* the envelope */
    int status;          /* 0: 200 */
    json_t *headers;     /* object of strings, or NULL */
    const char *code;    /* error.code of a generated error body */
    const char *message; /* error.message of it */
    const char *finish_reason;
    json_t *usage; /* object: as given; null: left out; NULL: computed */

    /* how it is delivered */
    bool has_latency;
    struct span_ms latency;
    bool hold;
    bool hang;
    bool reset;
    bool close;
    int64_t reset_after_bytes; /* -1: off; of head and body together */
    int64_t truncate;          /* -1: off; bytes of the body that are sent */
    size_t drip_bytes;         /* 0: off */
    uint64_t drip_every_ms;
    int64_t drip_stop_after; /* -1: goes on to the end */

    /* when the request asks for a stream */
    bool no_stream;
    int64_t stream_cut; /* -1: off; content chunks before the end without [DONE] */
    bool stream_reset;  /* the cut is a reset */
    bool stream_stall;  /* the cut is silence */
    uint64_t stream_every_ms;
    bool has_stream_every;
    size_t stream_bytes; /* of content in a chunk; 0: the default */
    const char *stream_error;
};

struct rule {
    json_t *source; /* the rule as it was given; owns the strings above */
    const char *model;
    const char *contains;
    const char *path;
    json_t *header; /* object of name to exact value, or NULL */
    int stream;     /* 1 only streams, 0 only others, -1 either */
    uint64_t times; /* 0: for ever */
    uint64_t every; /* decides each Nth request that matches; 0, 1: all of them */
    uint64_t seen;  /* requests that matched, whether decided or not */
    uint64_t used;
    uint64_t id; /* counts from 1 over both lists, never reused */
    struct answer answer;
};

struct rule_list {
    struct rule *items;
    size_t count;
    size_t cap;
};

struct rules {
    struct rule_list control;
    struct rule_list script;
    uint64_t last_id;
};

/* Parses "250ms", "1.5s", "0ms"; also a range "100ms..400ms". False when it is neither. */
bool span_parse(const char *text, struct span_ms *ret_span);

/*
 * Appends rules, given as an array or as {"rules": [...]}, to a list: all of them or none. Returns
 * false and says in error (of size max) what is wrong and where.
 */
bool rules_add(struct rules *rules, struct rule_list *list, json_t *source, char *error,
               size_t max);

/* The rule for a request, counted as used, or NULL. */
struct rule *rules_pick(struct rules *rules, const struct http_request *r, const struct ask *ask);

/* Appends the list of all rules as a JSON array. */
struct buf;
void rules_format(const struct rules *rules, struct buf *out);

/* Removes the rules of one list. */
void rule_list_clear(struct rule_list *list);

/* Makes used-up rules of a list fresh again. */
void rule_list_rewind(struct rule_list *list);

#endif
