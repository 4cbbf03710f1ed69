/* A request as handlers see it: method, path, query, headers and body, copied out of the FastCGI
 * parameters.
 *
 * Routing goes by REQUEST_URI alone, because web servers split SCRIPT_NAME and PATH_INFO each in
 * its own way and decode them. The path is split at its slashes first and percent-decoded then, so
 * that %2F is data. A request that cannot be understood is still a request: `fault` says what is
 * wrong, and the front answers 400. */
#pragma once

#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"

#define REQUEST_SEGMENTS 8  /* of a path; no route has more */
#define REQUEST_ARGS     2  /* segments that a route leaves open */
#define REQUEST_QUERIES  32 /* parameters of a query */
#define REQUEST_ID_BYTES 65

enum request_method {
    METHOD_OTHER,
    METHOD_GET,
    METHOD_HEAD,
    METHOD_POST,
    METHOD_PUT,
    METHOD_PATCH,
    METHOD_DELETE,
    METHOD_OPTIONS,
};

struct request_pair {
    const char *name, *value;
};

struct request {
    enum request_method method;
    const char *target;                    /* REQUEST_URI as it came, for the log */
    const char *path;                      /* raw path without prefix and query; begins with / */
    const char *segment[REQUEST_SEGMENTS]; /* decoded */
    size_t segments;               /* SIZE_MAX: more than there is room for, or prefix missing */
    const char *arg[REQUEST_ARGS]; /* what stands for the {…} of the route; set by the router */
    struct request_pair query[REQUEST_QUERIES];
    size_t queries;
    char id[REQUEST_ID_BYTES]; /* the client's X-Request-Id when it is plain, else one of ours */
    struct buf body;
    const char *fault;      /* NULL, or why it is a 400; a constant */
    int64_t content_length; /* -1: not given (absent, empty, or Caddy's -1) */
    /* Own. */
    struct arena arena;
    const char **params; /* NAME=value, NULL-ended */
};

/* Fills `request` from FastCGI parameters (`NAME=value` strings, NULL-ended; copied). `prefix` is
 * what the path must begin with ("" or "/x"); a path outside it has no route. `body_max_bytes`
 * bounds request->body, which stays empty. Any thread. */
void request_init(struct request *request, const char *prefix, const char *const *params,
                  size_t body_max_bytes);
void request_done(struct request *request);

/* A parameter ("REMOTE_ADDR"), borrowed; NULL when absent. */
const char *request_param(const struct request *request, const char *name);
/* A header by its HTTP name in any case ("Idempotency-Key"), borrowed; NULL when absent or empty.
 */
const char *request_header(const struct request *request, const char *name);
/* The first query parameter of that name, decoded; NULL when absent. */
const char *request_query(const struct request *request, const char *name);
/* `wait=N` of Prefer (RFC 7240 section 4.3) in ms, capped at `max_ms`; false when it is not there
 * or makes no sense, which the same RFC has us ignore. */
bool request_prefers_wait(const struct request *request, uint64_t max_ms, uint64_t *ret_ms);
/* Whether the Accept header asks for `type` ("text/event-stream") by name. */
bool request_accepts(const struct request *request, const char *type);
/* Whether an entity tag is in If-None-Match (RFC 9110 section 13.1.2, weak comparison). */
bool request_none_match(const struct request *request, const char *etag);
/* 0, or 415 when the body's type is given and is not JSON, or its encoding is not identity. An
 * absent type is taken for JSON. */
int request_check_json_type(const struct request *request);
/* The key of an `Idempotency-Key` header, bare or as a quoted string, in `ret_key` (LIMIT + 1
 * bytes). 0 when absent, 1 when there is one, -1 when malformed: longer than 255 bytes, empty, not
 * visible ASCII. */
int request_idempotency_key(const struct request *request, char *ret_key);
/* "GET" and so on; "?" for METHOD_OTHER. */
const char *request_method_name(enum request_method method);

/* Percent-decodes `len` bytes of `text` (RFC 3986 section 2.1) into `ret` (len + 1 bytes); `plus`:
 * '+' is a space. False for a bad escape, a NUL or bytes that are not UTF-8. */
bool request_decode(const char *text, size_t len, bool plus, char *ret);
