/* Responses: see response.h. */
#include "fcgi/response.h"
#include "base/mem.h"
#include "fiber/fiber.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RESPONSE_HEADERS_BYTES 8192u
#define RESPONSE_BODY_BYTES    (64u << 20) /* a job is at most 16 MiB, escaped at worst six times */

/* RFC 9110 section 15 and RFC 6585. */
#define RESPONSE_STATUSES(X)                                                                       \
    X(200, "OK")                                                                                   \
    X(202, "Accepted")                                                                             \
    X(204, "No Content")                                                                           \
    X(304, "Not Modified")                                                                         \
    X(400, "Bad Request")                                                                          \
    X(401, "Unauthorized")                                                                         \
    X(403, "Forbidden")                                                                            \
    X(404, "Not Found")                                                                            \
    X(405, "Method Not Allowed")                                                                   \
    X(409, "Conflict")                                                                             \
    X(410, "Gone")                                                                                 \
    X(413, "Content Too Large")                                                                    \
    X(415, "Unsupported Media Type")                                                               \
    X(422, "Unprocessable Content")                                                                \
    X(424, "Failed Dependency")                                                                    \
    X(429, "Too Many Requests")                                                                    \
    X(500, "Internal Server Error")                                                                \
    X(503, "Service Unavailable")

const char *response_phrase(int status)
{
    switch (status) {
#define RESPONSE_CASE(number, phrase)                                                              \
    case number:                                                                                   \
        return phrase;
        RESPONSE_STATUSES(RESPONSE_CASE)
#undef RESPONSE_CASE
    default:
        return NULL;
    }
}

void response_init(struct response *response)
{
    memset(response, 0, sizeof(*response));
    response->status = 200;
    buf_init(&response->headers, RESPONSE_HEADERS_BYTES);
}

void response_done(struct response *response)
{
    buf_done(&response->headers);
    free(response->body);
    response->body = NULL;
}

void response_reset(struct response *response, int status)
{
    response_done(response);
    response_init(response);
    response->status = status;
}

static bool header_name_is_plain(const char *name)
{
    return *name != '\0' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") ==
               strlen(name);
}

static bool header_value_is_plain(const char *value)
{
    for (; *value != '\0'; value++) {
        unsigned char c = (unsigned char)*value;
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return true;
}

bool response_header(struct response *response, const char *name, const char *value)
{
    if (!header_name_is_plain(name) || !header_value_is_plain(value)) {
        return false;
    }
    struct buf *headers = &response->headers;
    if (strlen(name) + strlen(value) + 4 > headers->max - headers->len) {
        return false;
    }
    return buf_format(headers, "%s: %s\r\n", name, value);
}

bool response_header_format(struct response *response, const char *name, const char *format, ...)
{
    char value[1024];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(value, sizeof(value), format, args);
    va_end(args);
    return len >= 0 && (size_t)len < sizeof(value) && response_header(response, name, value);
}

void response_steal(struct response *response, const char *type, char *body, size_t len)
{
    free(response->body);
    response->body = body;
    response->body_len = len;
    response_header(response, "Content-Type", type);
}

struct print {
    const json_t *value;
    struct error err;
    char *text;
    size_t len;
};

/* jansson's printer recurses, 305 bytes a level: not on a fiber's stack. */
static void print(void *arg)
{
    struct print *job = arg;
    job->text = json_print(job->value, RESPONSE_BODY_BYTES, &job->len, &job->err);
}

void response_json(struct response *response, int status, const json_t *value)
{
    struct print job = {.value = value};
    fiber_on_loop(print, &job);
    if (job.text == NULL) {
        response_reset(response, 500);
        return;
    }
    response->status = status;
    response_steal(response, "application/json", job.text, job.len);
}

void response_json_text(struct response *response, int status, struct buf *text)
{
    size_t len = text->len;
    char *body = buf_take(text);
    if (body == NULL) {
        response_reset(response, 500);
        return;
    }
    response->status = status;
    response_steal(response, "application/json", body, len);
}

bool response_head(const struct response *response, const char *request_id, struct buf *ret_head)
{
    const char *phrase = response_phrase(response->status);
    int status = phrase != NULL ? response->status : 500;
    if (phrase == NULL) {
        phrase = response_phrase(500);
    }
    buf_format(ret_head, "Status: %d %s\r\n", status, phrase);
    if (response->headers.len > 0) {
        buf_add(ret_head, response->headers.data, response->headers.len);
    }
    buf_format(ret_head, "X-Request-Id: %s\r\nCache-Control: no-store\r\n", request_id);
    bool may_have_body = status != 204 && status != 304;
    if (may_have_body && !response->is_stream) {
        buf_format(ret_head, "Content-Length: %zu\r\n", response->body_len);
    }
    return buf_add_text(ret_head, "\r\n") && !ret_head->failed;
}
