/*
 * http: reads HTTP/1.1 requests (RFC 9112) out of a contiguous buffer.
 *
 * The head is parsed once, when its empty line is there; names and values are kept as offsets into
 * the buffer, because the buffer moves while a body grows. A body has a Content-Length or is
 * chunked; chunks are decoded in place, to the front of the body. Everything is bounded by the
 * HTTP_ constants. Nothing here knows sockets.
 */
#ifndef SIM_HTTP_H
#define SIM_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_HEAD_MAX    ((size_t)32 * 1024)
#define HTTP_HEADERS_MAX 64
#define HTTP_BODY_MAX    ((size_t)64 * 1024 * 1024)

/* A piece of the buffer. */
struct http_span {
    uint32_t at;
    uint32_t n;
};

struct http_head {
    struct http_span method;
    struct http_span path;  /* without the query */
    struct http_span query; /* without the question mark */
    struct {
        struct http_span name;
        struct http_span value;
    } headers[HTTP_HEADERS_MAX];
    size_t header_count;
    size_t size;           /* bytes of the head, with its empty line */
    size_t content_length; /* 0 when chunked */
    bool chunked;
    bool keep_alive;
    bool expect_continue;
};

/* Where the decoding of a chunked body stands; all zero at the start of a body. */
struct http_chunks {
    size_t read;    /* raw bytes of the body that were taken */
    size_t written; /* decoded bytes, at the front of the body */
    size_t left;    /* bytes of the open chunk */
    int state;      /* private to http.c */
};

/* One whole request, borrowed from the connection's buffer while it is handled. */
struct http_request {
    const char *base;
    const struct http_head *head;
    const char *body;
    size_t body_len;
};

/*
 * Parses a head. Returns 1 when it is complete, 0 when bytes are missing, or a negative HTTP status
 * (-400, -413, -431, -501, -505) when it is wrong or over a bound.
 */
int http_head_parse(const char *p, size_t n, struct http_head *ret_head);

/* Decodes what has come of a chunked body at p, in place. Returns as http_head_parse. */
int http_chunks_feed(struct http_chunks *c, char *p, size_t n);

/* A header's value, or NULL; *ret_len is set when found. The name is compared without regard to
 * case. */
const char *http_header_find(const struct http_request *r, const char *name, size_t *ret_len);

/* True when the span's text is exactly s. */
bool http_span_is(const char *base, struct http_span span, const char *s);

/* A parameter of the query, percent-decoded into out (NUL-terminated, cut at max - 1); false if
 * absent. */
bool http_query_find(const struct http_request *r, const char *name, char *out, size_t max);

/* The reason phrase for a status; "Status" for one without a name here. */
const char *http_reason(int status);

#endif
