/*
 * http: see http.h. Lines end in CRLF; a bare LF is accepted as RFC 9112 section 2.2 allows.
 * Obsolete line folding and a request with both Content-Length and Transfer-Encoding are refused
 * (section 6.1).
 */
#include "http.h"

#include <string.h>
#include <strings.h>

enum { CHUNK_SIZE, CHUNK_DATA, CHUNK_END, CHUNK_TRAILER };

static bool is_token(const char *p, size_t n)
{
    if (n == 0)
        return false;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];

        if (c <= 0x20 || c >= 0x7F || strchr("\"(),/:;<=>?@[\\]{}", c))
            return false;
    }
    return true;
}

static bool span_is_nocase(const char *base, struct http_span span, const char *s)
{
    return span.n == strlen(s) && strncasecmp(base + span.at, s, span.n) == 0;
}

bool http_span_is(const char *base, struct http_span span, const char *s)
{
    return span.n == strlen(s) && memcmp(base + span.at, s, span.n) == 0;
}

/* Finds the end of the line that begins at `at`. Sets the next line's start; false when there is
 * none. */
static bool find_line(const char *p, size_t n, size_t at, size_t *ret_end, size_t *ret_next)
{
    const char *lf = memchr(p + at, '\n', n - at);

    if (!lf)
        return false;
    size_t end = (size_t)(lf - p);
    *ret_next = end + 1;
    *ret_end = end > at && p[end - 1] == '\r' ? end - 1 : end;
    return true;
}

static struct http_span span_of(size_t at, size_t end)
{
    return (struct http_span){.at = (uint32_t)at, .n = (uint32_t)(end - at)};
}

static int parse_request_line(const char *p, size_t at, size_t end, struct http_head *h)
{
    const char *sp1 = memchr(p + at, ' ', end - at);

    if (!sp1)
        return -400;
    size_t target = (size_t)(sp1 - p) + 1;
    const char *sp2 = memchr(p + target, ' ', end - target);
    if (!sp2)
        return -400;
    size_t target_end = (size_t)(sp2 - p);
    size_t version = target_end + 1;

    h->method = span_of(at, (size_t)(sp1 - p));
    if (!is_token(p + at, h->method.n) || target_end == target || p[target] != '/')
        return -400;
    if (end - version != 8 || memcmp(p + version, "HTTP/1.", 7) != 0)
        return -505;
    if (p[version + 7] != '0' && p[version + 7] != '1')
        return -505;
    h->keep_alive = p[version + 7] == '1';

    const char *mark = memchr(p + target, '?', target_end - target);
    size_t path_end = mark ? (size_t)(mark - p) : target_end;
    h->path = span_of(target, path_end);
    h->query = mark ? span_of(path_end + 1, target_end) : span_of(target_end, target_end);
    return 0;
}

/* Content-Length: digits only, within the bound, and the same if repeated. */
static int take_length(const char *p, struct http_span value, struct http_head *h, bool *seen)
{
    size_t length = 0;

    if (value.n == 0 || value.n > 18)
        return -400;
    for (size_t i = 0; i < value.n; i++) {
        char c = p[value.at + i];

        if (c < '0' || c > '9')
            return -400;
        length = length * 10 + (size_t)(c - '0');
    }
    if (length > HTTP_BODY_MAX)
        return -413;
    if (*seen && h->content_length != length)
        return -400;
    *seen = true;
    h->content_length = length;
    return 0;
}

static int parse_header(const char *p, size_t at, size_t end, struct http_head *h,
                        bool *seen_length)
{
    const char *colon = memchr(p + at, ':', end - at);

    if (!colon || h->header_count == HTTP_HEADERS_MAX)
        return colon ? -431 : -400;
    size_t name_end = (size_t)(colon - p);
    size_t from = name_end + 1;
    while (from < end && (p[from] == ' ' || p[from] == '\t'))
        from++;
    while (end > from && (p[end - 1] == ' ' || p[end - 1] == '\t'))
        end--;

    struct http_span name = span_of(at, name_end);
    struct http_span value = span_of(from, end);
    if (!is_token(p + at, name.n))
        return -400;
    h->headers[h->header_count].name = name;
    h->headers[h->header_count++].value = value;

    if (span_is_nocase(p, name, "content-length"))
        return take_length(p, value, h, seen_length);
    if (span_is_nocase(p, name, "transfer-encoding")) {
        if (!span_is_nocase(p, value, "chunked"))
            return -501;
        h->chunked = true;
    } else if (span_is_nocase(p, name, "connection")) {
        if (span_is_nocase(p, value, "close"))
            h->keep_alive = false;
        else if (span_is_nocase(p, value, "keep-alive"))
            h->keep_alive = true;
    } else if (span_is_nocase(p, name, "expect")) {
        h->expect_continue = span_is_nocase(p, value, "100-continue");
    }
    return 0;
}

int http_head_parse(const char *p, size_t n, struct http_head *ret_head)
{
    size_t limit = n < HTTP_HEAD_MAX ? n : HTTP_HEAD_MAX;
    size_t at = 0;
    size_t end = 0;
    size_t next = 0;
    bool seen_length = false;

    /* Nothing is taken apart before the empty line has come. */
    if (!memmem(p, limit, "\r\n\r\n", 4) && !memmem(p, limit, "\n\n", 2))
        return n >= HTTP_HEAD_MAX ? -431 : 0;

    *ret_head = (struct http_head){.size = 0};
    while (at < limit && (p[at] == '\r' || p[at] == '\n'))
        at++; /* empty lines before the request line, RFC 9112 section 2.2 */
    if (!find_line(p, limit, at, &end, &next))
        return 0;
    int rc = parse_request_line(p, at, end, ret_head);
    while (rc == 0) {
        at = next;
        if (!find_line(p, limit, at, &end, &next))
            return n >= HTTP_HEAD_MAX ? -431 : 0;
        if (end == at)
            break;
        rc = parse_header(p, at, end, ret_head, &seen_length);
    }
    if (rc < 0)
        return rc;
    if (ret_head->chunked && seen_length)
        return -400;
    ret_head->size = next;
    return 1;
}

/* Reads one chunk-size line (extensions are skipped). */
static int read_chunk_size(struct http_chunks *c, const char *p, size_t n)
{
    size_t end;
    size_t next;
    size_t size = 0;
    size_t digits = 0;

    if (!find_line(p, n, c->read, &end, &next))
        return n - c->read > 256 ? -400 : 0;
    for (size_t i = c->read; i < end; i++) {
        char ch = p[i];
        int v = ch >= '0' && ch <= '9'   ? ch - '0'
                : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
                : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10
                                         : -1;

        if (v < 0 && (ch == ';' || ch == ' '))
            break;
        if (v < 0 || ++digits > 8)
            return -400;
        size = size * 16 + (size_t)v;
    }
    if (digits == 0)
        return -400;
    if (size > HTTP_BODY_MAX || c->written + size > HTTP_BODY_MAX)
        return -413;
    c->left = size;
    c->read = next;
    c->state = size ? CHUNK_DATA : CHUNK_TRAILER;
    return 1;
}

int http_chunks_feed(struct http_chunks *c, char *p, size_t n)
{
    size_t end;
    size_t next;

    for (;;) {
        switch (c->state) {
        case CHUNK_SIZE: {
            int rc = read_chunk_size(c, p, n);

            if (rc <= 0)
                return rc;
            break;
        }
        case CHUNK_DATA: {
            size_t have = n - c->read < c->left ? n - c->read : c->left;

            memmove(p + c->written, p + c->read, have);
            c->written += have;
            c->read += have;
            c->left -= have;
            if (c->left > 0)
                return 0;
            c->state = CHUNK_END;
            break;
        }
        case CHUNK_END:
            if (!find_line(p, n, c->read, &end, &next))
                return n - c->read > 2 ? -400 : 0;
            if (end != c->read)
                return -400;
            c->read = next;
            c->state = CHUNK_SIZE;
            break;
        default: /* CHUNK_TRAILER: fields are read and forgotten */
            if (!find_line(p, n, c->read, &end, &next))
                return n - c->read > HTTP_HEAD_MAX ? -431 : 0;
            bool last = end == c->read;
            c->read = next;
            if (last)
                return 1;
        }
    }
}

const char *http_header_find(const struct http_request *r, const char *name, size_t *ret_len)
{
    for (size_t i = 0; i < r->head->header_count; i++) {
        if (span_is_nocase(r->base, r->head->headers[i].name, name)) {
            *ret_len = r->head->headers[i].value.n;
            return r->base + r->head->headers[i].value.at;
        }
    }
    return NULL;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static void decode_percent(const char *p, size_t n, char *out, size_t max)
{
    size_t written = 0;

    for (size_t i = 0; i < n && written + 1 < max; i++) {
        char c = p[i];

        if (c == '+') {
            c = ' ';
        } else if (c == '%' && i + 2 < n && hex_digit(p[i + 1]) >= 0 && hex_digit(p[i + 2]) >= 0) {
            c = (char)(hex_digit(p[i + 1]) * 16 + hex_digit(p[i + 2]));
            i += 2;
        }
        out[written++] = c;
    }
    out[written] = '\0';
}

bool http_query_find(const struct http_request *r, const char *name, char *out, size_t max)
{
    const char *p = r->base + r->head->query.at;
    const char *end = p + r->head->query.n;
    size_t name_len = strlen(name);

    while (p < end) {
        const char *amp = memchr(p, '&', (size_t)(end - p));
        const char *stop = amp ? amp : end;
        const char *eq = memchr(p, '=', (size_t)(stop - p));
        const char *key_end = eq ? eq : stop;

        if ((size_t)(key_end - p) == name_len && memcmp(p, name, name_len) == 0) {
            const char *value = eq ? eq + 1 : stop;

            decode_percent(value, (size_t)(stop - value), out, max);
            return true;
        }
        p = amp ? amp + 1 : end;
    }
    return false;
}

const char *http_reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } table[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {413, "Content Too Large"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (table[i].status == status)
            return table[i].reason;
    }
    return "Status";
}
