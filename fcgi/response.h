/* A response: status, headers, body; made by a handler, written by the acceptor.
 *
 * The CGI form (RFC 3875 section 6): a `Status:` line, headers, an empty line, the body. No header
 * ever holds CR, LF or NUL: one that would is refused. Every response has X-Request-Id and
 * Cache-Control: no-store, added when the head is made. */
#pragma once

#include "base/buf.h"
#include "base/json.h"

struct response {
    int status;
    struct buf headers; /* whole lines, CR LF ended */
    char *body;         /* malloc'ed or NULL */
    size_t body_len;
    bool body_omitted; /* HEAD, 204, 304: Content-Length may be there, the body is not sent */
    bool is_stream;    /* no Content-Length: what follows the head is written elsewhere */
};

void response_init(struct response *response);
void response_done(struct response *response);
/* Back to an empty response with a status. */
void response_reset(struct response *response, int status);

/* Adds `name: value`; false (and nothing added) when either holds what may not be in a header. */
bool response_header(struct response *response, const char *name, const char *value);
bool response_header_format(struct response *response, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The body from a malloc'ed text (moved in) with its type. */
void response_steal(struct response *response, const char *type, char *body, size_t len);
/* The body from a JSON value (borrowed; printed on the loop's stack), application/json. A value
 * that does not print becomes a 500. */
void response_json(struct response *response, int status, const json_t *value);
/* The body from a buffer of JSON text that was built by hand (moved out). */
void response_json_text(struct response *response, int status, struct buf *text);

/* Appends the head for a request with that id. The status line's phrase comes from a fixed table;
 * a status that is not in it is written as 500. */
bool response_head(const struct response *response, const char *request_id, struct buf *ret_head);
/* "Not Found"; NULL for a status that we never send. */
const char *response_phrase(int status);
