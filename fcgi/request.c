/* Requests: the parsing behind request.h. Pure functions of the FastCGI parameters, run on the
 * thread that read them. Everything lives in the request's arena but the body. */
#include "fcgi/request.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/utf8.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const method_names[] = {"?",   "GET",   "HEAD",   "POST",
                                           "PUT", "PATCH", "DELETE", "OPTIONS"};

const char *request_method_name(enum request_method method)
{
    return method_names[method];
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool request_decode(const char *text, size_t len, bool plus, char *ret)
{
    size_t at = 0;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c == '%') {
            int high = len - i > 2 ? hex_value(text[i + 1]) : -1;
            int low = high < 0 ? -1 : hex_value(text[i + 2]);
            if (low < 0) {
                return false;
            }
            c = (char)(high * 16 + low);
            i += 2;
        } else if (plus && c == '+') {
            c = ' ';
        }
        if (c == '\0') {
            return false;
        }
        ret[at++] = c;
    }
    ret[at] = '\0';
    return utf8_is_valid(ret, at);
}

const char *request_param(const struct request *request, const char *name)
{
    size_t len = strlen(name);
    for (const char **param = request->params; *param != NULL; param++) {
        if (strncmp(*param, name, len) == 0 && (*param)[len] == '=') {
            return *param + len + 1;
        }
    }
    return NULL;
}

const char *request_header(const struct request *request, const char *name)
{
    char param[80];
    size_t at = 0;
    if (strcasecmp(name, "Content-Type") != 0 && strcasecmp(name, "Content-Length") != 0) {
        memcpy(param, "HTTP_", 5);
        at = 5;
    }
    for (; *name != '\0' && at + 1 < sizeof(param); name++) {
        param[at++] = *name == '-' ? '_' : (char)toupper((unsigned char)*name);
    }
    param[at] = '\0';
    const char *value = request_param(request, param);
    return value != NULL && *value != '\0' ? value : NULL;
}

const char *request_query(const struct request *request, const char *name)
{
    for (size_t i = 0; i < request->queries; i++) {
        if (strcmp(request->query[i].name, name) == 0) {
            return request->query[i].value;
        }
    }
    return NULL;
}

static char *decoded(struct request *request, const char *text, size_t len, bool plus)
{
    char *copy = arena_alloc(&request->arena, len + 1);
    if (!request_decode(text, len, plus, copy)) {
        request->fault = plus ? "the query is not percent-encoded UTF-8"
                              : "the path is not percent-encoded UTF-8";
        return NULL;
    }
    return copy;
}

static void parse_query(struct request *request, const char *text)
{
    while (*text != '\0') {
        size_t len = strcspn(text, "&");
        if (len > 0) {
            if (request->queries == REQUEST_QUERIES) {
                request->fault = "the query has too many parameters";
                return;
            }
            size_t name_len = strcspn(text, "=&");
            struct request_pair *pair = &request->query[request->queries];
            pair->name = decoded(request, text, name_len, true);
            pair->value = name_len == len
                              ? ""
                              : decoded(request, text + name_len + 1, len - name_len - 1, true);
            if (pair->name == NULL || pair->value == NULL) {
                return;
            }
            request->queries++;
        }
        text += len + (text[len] == '&');
    }
}

static void parse_path(struct request *request, const char *text, size_t len)
{
    request->path = arena_ndup(&request->arena, text, len);
    const char *end = text + len;
    while (text < end) {
        text++; /* the slash */
        const char *slash = memchr(text, '/', (size_t)(end - text));
        size_t part = (size_t)((slash != NULL ? slash : end) - text);
        if (request->segments == REQUEST_SEGMENTS) {
            request->segments = SIZE_MAX;
            return;
        }
        const char *segment = decoded(request, text, part, false);
        if (segment == NULL) {
            request->segments = SIZE_MAX;
            return;
        }
        request->segment[request->segments++] = segment;
        text += part;
    }
}

static void parse_target(struct request *request, const char *prefix)
{
    const char *text = request->target;
    /* The absolute form (RFC 9112 section 3.2.2). */
    if (strncasecmp(text, "http://", 7) == 0 || strncasecmp(text, "https://", 8) == 0) {
        text = strstr(text, "//") + 2;
        text += strcspn(text, "/?#");
    }
    size_t len = strcspn(text, "?#");
    if (text[len] == '?') {
        const char *query = text + len + 1;
        parse_query(request, arena_ndup(&request->arena, query, strcspn(query, "#")));
    }
    size_t skip = strlen(prefix);
    if (len < skip || strncmp(text, prefix, skip) != 0 || (len > skip && text[skip] != '/')) {
        request->segments = SIZE_MAX;
        request->path = "";
        if (len == 0 || *text != '/') {
            request->fault = "the request has no path";
        }
        return;
    }
    if (len == skip) {
        if (skip == 0) {
            request->fault = "the request has no path";
        }
        request->path = "/";
        request->segment[request->segments++] = "";
        return;
    }
    parse_path(request, text + skip, len - skip);
}

static void parse_length(struct request *request)
{
    request->content_length = -1;
    const char *text = request_header(request, "Content-Length");
    if (text == NULL || strcmp(text, "-1") == 0) {
        return;
    }
    int64_t value = 0;
    for (; *text >= '0' && *text <= '9' && value < INT64_MAX / 10 - 1; text++) {
        value = value * 10 + (*text - '0');
    }
    if (*text != '\0') {
        request->fault = "Content-Length is not a number";
        return;
    }
    request->content_length = value;
}

static bool plain_id(const char *text)
{
    size_t len = strlen(text);
    return len > 0 && len < REQUEST_ID_BYTES &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == len;
}

void request_init(struct request *request, const char *prefix, const char *const *params,
                  size_t body_max_bytes)
{
    memset(request, 0, sizeof(*request));
    arena_init(&request->arena);
    buf_init(&request->body, body_max_bytes);
    size_t count = 0;
    while (params[count] != NULL) {
        count++;
    }
    request->params = arena_alloc(&request->arena, (count + 1) * sizeof(*request->params));
    for (size_t i = 0; i < count; i++) {
        request->params[i] = arena_ndup(&request->arena, params[i], strlen(params[i]));
    }
    const char *method = request_param(request, "REQUEST_METHOD");
    for (size_t i = METHOD_GET; method != NULL && i <= METHOD_OPTIONS; i++) {
        if (strcmp(method, method_names[i]) == 0) {
            request->method = (enum request_method)i;
        }
    }
    if (method == NULL || *method == '\0') {
        request->fault = "the request has no method";
    }
    const char *id = request_header(request, "X-Request-Id");
    if (id != NULL && plain_id(id)) {
        memcpy(request->id, id, strlen(id) + 1);
    } else {
        hash_random_hex(request->id, 16);
    }
    parse_length(request);
    request->target = request_param(request, "REQUEST_URI");
    if (request->target == NULL) {
        request->target = request->path = "";
        request->segments = SIZE_MAX;
        request->fault = "the web server gives no REQUEST_URI";
        return;
    }
    parse_target(request, prefix);
}

void request_done(struct request *request)
{
    buf_done(&request->body);
    arena_done(&request->arena);
}

/* Steps through a comma-separated list (RFC 9110 section 5.6.1), quoted strings kept whole: the
 * next element without outer spaces, NULL at the end. */
static const char *next_element(const char **text, size_t *ret_len)
{
    const char *at = *text + strspn(*text, ", \t");
    if (*at == '\0') {
        return NULL;
    }
    const char *end = at;
    for (bool quoted = false; *end != '\0' && (quoted || *end != ','); end++) {
        if (*end == '"') {
            quoted = !quoted;
        } else if (quoted && *end == '\\' && end[1] != '\0') {
            end++;
        }
    }
    *text = end;
    size_t len = (size_t)(end - at);
    while (len > 0 && (at[len - 1] == ' ' || at[len - 1] == '\t')) {
        len--;
    }
    *ret_len = len;
    return at;
}

bool request_prefers_wait(const struct request *request, uint64_t max_ms, uint64_t *ret_ms)
{
    const char *text = request_header(request, "Prefer");
    const char *element = NULL;
    size_t len = 0;
    while (text != NULL && (element = next_element(&text, &len)) != NULL) {
        if (len < 6 || strncasecmp(element, "wait", 4) != 0) {
            continue;
        }
        const char *at = element + 4, *end = element + len;
        at += strspn(at, " \t");
        if (at >= end || *at != '=') {
            continue;
        }
        at += 1 + strspn(at + 1, " \t");
        bool quoted = at < end && *at == '"';
        at += quoted;
        const char *digits = at;
        uint64_t seconds = 0;
        while (at < end && *at >= '0' && *at <= '9') {
            seconds = seconds < 1000000 ? seconds * 10 + (uint64_t)(*at - '0') : seconds;
            at++;
        }
        bool found = at > digits;
        if (quoted) {
            found = found && at < end && *at == '"';
            at += found;
        }
        if (!found || (at < end && strchr("; \t", *at) == NULL)) {
            return false;
        }
        *ret_ms = seconds * 1000 < max_ms ? seconds * 1000 : max_ms;
        return true; /* the first one counts (RFC 7240 section 2) */
    }
    return false;
}

bool request_accepts(const struct request *request, const char *type)
{
    const char *text = request_header(request, "Accept");
    const char *element = NULL;
    size_t len = 0, want = strlen(type);
    while (text != NULL && (element = next_element(&text, &len)) != NULL) {
        if (len >= want && strncasecmp(element, type, want) == 0 &&
            (len == want || strchr("; \t", element[want]) != NULL)) {
            return true;
        }
    }
    return false;
}

bool request_none_match(const struct request *request, const char *etag)
{
    const char *text = request_header(request, "If-None-Match");
    const char *element = NULL;
    size_t len = 0;
    while (text != NULL && (element = next_element(&text, &len)) != NULL) {
        if (len == 1 && *element == '*') {
            return true;
        }
        if (len > 2 && strncmp(element, "W/", 2) == 0) {
            element += 2;
            len -= 2;
        }
        if (len == strlen(etag) && memcmp(element, etag, len) == 0) {
            return true;
        }
    }
    return false;
}

int request_check_json_type(const struct request *request)
{
    const char *encoding = request_header(request, "Content-Encoding");
    if (encoding != NULL && strcasecmp(encoding, "identity") != 0) {
        return 415;
    }
    const char *type = request_header(request, "Content-Type");
    if (type == NULL) {
        return 0;
    }
    size_t len = strcspn(type, "; \t");
    if (len == 16 && strncasecmp(type, "application/json", len) == 0) {
        return 0;
    }
    bool suffix = len > 5 + 12 && strncasecmp(type + len - 5, "+json", 5) == 0 &&
                  strncasecmp(type, "application/", 12) == 0;
    return suffix ? 0 : 415;
}

int request_idempotency_key(const struct request *request, char *ret_key)
{
    const char *text = request_param(request, "HTTP_IDEMPOTENCY_KEY");
    if (text == NULL) {
        return 0;
    }
    size_t len = strlen(text);
    size_t at = 0;
    if (*text == '"') { /* an RFC 8941 string, as the Idempotency-Key draft has it */
        if (len < 2 || text[len - 1] != '"') {
            return -1;
        }
        text++;
        len -= 2;
        for (size_t i = 0; i < len; i++) {
            char c = text[i];
            if (c == '\\' && i + 1 < len && (text[i + 1] == '"' || text[i + 1] == '\\')) {
                c = text[++i];
            } else if (c == '"' || c == '\\') {
                return -1;
            }
            if (c < 0x20 || c > 0x7e || at == LIMIT_IDEMPOTENCY_KEY) {
                return -1;
            }
            ret_key[at++] = c;
        }
    } else {
        for (size_t i = 0; i < len; i++) {
            if (text[i] <= 0x20 || text[i] > 0x7e || at == LIMIT_IDEMPOTENCY_KEY) {
                return -1;
            }
            ret_key[at++] = text[i];
        }
    }
    ret_key[at] = '\0';
    return at > 0 ? 1 : -1;
}
