/* HTTP out: one call that suspends; every size and time is bounded. The one seam to libcurl.
 *
 * Transfers are spread over several multi handles, because curl's cost per transfer grows with
 * those in flight in one. A reply belongs to its caller. Nothing follows a redirect, nothing reads
 * a proxy from the environment. */
#pragma once

#include "loop/wait.h"

struct http;

struct http_config {
    unsigned handles;         /* multi handles; 0: LIMIT_HTTP_HANDLES */
    size_t in_flight_max;     /* sizes the connection caches; 0: 1000 */
    const char *const *allow; /* NULL-ended CIDR list that the address guard lets through
                                 ("10.0.0.0/8", "::1/128") */
    const char *ca_file;      /* PEM certificates to trust instead of the system's; NULL: those */
};

struct http_header {
    const char *name, *value;
};

struct http_request {
    const char *method; /* NULL: GET, or POST with a body */
    const char *url;
    const struct http_header *headers;
    size_t header_count;
    const char *bearer; /* sent as Authorization: Bearer; never logged */
    const char *body;   /* borrowed until the call returns */
    size_t body_len;
    uint64_t timeout_ms;    /* all of it; 0: 120 s */
    uint64_t connect_ms;    /* 0: 5 s */
    uint64_t first_byte_ms; /* from the request's end to the first byte of the answer; 0: 60 s */
    uint64_t idle_ms;       /* between two reads of the answer; 0: 30 s */
    size_t max_bytes;       /* of the answer's body; 0: LIMIT_BODY_BYTES */
    bool guard;             /* the address comes from a user: refuse private ones */
};

struct http_reply {
    int status;
    char *body; /* NUL-ended; never NULL on success */
    size_t body_len;
    struct http_header *headers; /* names in lower case */
    size_t header_count;
    char *header_text; /* what the headers point into */
};

/* MR_E_SCHEMA when `allow` has something that is no network; MR_E_INTERNAL. */
int http_open(struct loop *loop, const struct http_config *config, struct http **ret_http,
              struct error *err);
/* All fetches must have returned. */
void http_close(struct http *http);

/* Header names and values, the bearer and the method must be free of line breaks and control bytes
 * (RFC 9110 section 5.5): MR_E_SCHEMA. Messages name scheme, host and port, never path, query,
 * headers or key.
 *
 * MR_OK for every status that came, else MR_E_CONNECT, MR_E_RESET, MR_E_TIMEOUT (the message says
 * which limit), MR_E_BAD_RESPONSE (too large, bad answer), MR_E_SCHEMA (bad address, or refused by
 * the guard), or the scope's error. */
MR_SUSPENDS int http_fetch(struct http *http, const struct http_request *request,
                           struct http_reply *ret_reply, struct error *err);
void http_reply_done(struct http_reply *reply);
/* Value of a header (lower-case name), or NULL. */
const char *http_reply_header(const struct http_reply *reply, const char *name);
/* Transfers in flight. */
size_t http_in_flight(const struct http *http);
