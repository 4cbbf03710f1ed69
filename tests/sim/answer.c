/*
 * answer: see answer.h. plan_make reads as the order of decisions: refused request, rule's raw body
 * or error, echo, chat completion (whole or as a stream), and then how it is delivered.
 */
#include "answer.h"

#include "content.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

struct usage {
    size_t prompt;
    size_t completion;
};

/* ---- the head ---- */

static bool rule_has_header(const struct answer *a, const char *name)
{
    const char *key;
    json_t *value;

    json_object_foreach (a ? a->headers : NULL, key, value) {
        if (strcasecmp(key, name) == 0)
            return true;
    }
    return false;
}

/* Writes head and body of a whole answer; body_len SIZE_MAX means chunked, without a body yet. */
static void compose(struct plan *plan, const struct answer *a, int status, const char *type,
                    const char *body, size_t body_len)
{
    const char *key;
    json_t *value;
    struct buf *out = &plan->out;

    plan->status = status;
    buf_room(out, 512 + (body_len == SIZE_MAX ? 0 : body_len));
    buf_format(out, "HTTP/1.1 %d %s\r\n", status, http_reason(status));
    if (!rule_has_header(a, "Content-Type"))
        buf_format(out, "Content-Type: %s\r\n", type);
    if (body_len == SIZE_MAX)
        buf_text(out, "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n");
    else if (!rule_has_header(a, "Content-Length"))
        buf_format(out, "Content-Length: %zu\r\n", body_len);
    if (a && a->close)
        buf_text(out, "Connection: close\r\n");
    json_object_foreach (a ? a->headers : NULL, key, value)
        buf_format(out, "%s: %s\r\n", key, json_string_value(value));
    buf_text(out, "\r\n");
    plan->head = out->n;
    if (body_len != SIZE_MAX)
        buf_add(out, body, body_len);
}

void plan_make_json(struct plan *ret_plan, int status, const struct buf *body)
{
    *ret_plan = (struct plan){.what = "control"};
    compose(ret_plan, NULL, status, "application/json", body->p, body->n);
    ret_plan->limit = ret_plan->out.n;
}

/* ---- errors, shaped as OpenAI shapes them ---- */

static void compose_error(struct plan *plan, const struct answer *a, int status, const char *code,
                          const char *message)
{
    static const struct {
        int status;
        const char *type;
        const char *code;
        const char *message;
    } known[] = {
        {400, "invalid_request_error", NULL, "The request is not valid."},
        {401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."},
        {403, "invalid_request_error", "forbidden", "You are not allowed to use this resource."},
        {404, "invalid_request_error", "model_not_found", "The model does not exist."},
        {408, "server_error", "request_timeout", "The request timed out."},
        {409, "invalid_request_error", "conflict", "The resource is in use."},
        {429, "requests", "rate_limit_exceeded", "Rate limit reached for requests."},
        {500, "server_error", NULL, "The server had an error while processing your request."},
        {503, "server_error", "overloaded", "The engine is currently overloaded."},
    };
    const char *type = status >= 500 ? "server_error" : "invalid_request_error";
    struct buf body = {0};

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i].status == status) {
            type = known[i].type;
            code = code ? code : known[i].code;
            message = message ? message : known[i].message;
        }
    }
    if (code && strcmp(code, "insufficient_quota") == 0) {
        type = "insufficient_quota";
        if (!a || !a->message)
            message =
                "You exceeded your current quota, please check your plan and billing details.";
    }
    message = message ? message : "The request failed.";
    buf_text(&body, "{\"error\":{\"message\":");
    buf_json(&body, message, strlen(message));
    buf_format(&body, ",\"type\":\"%s\",\"param\":null,\"code\":", type);
    if (code)
        buf_json(&body, code, strlen(code));
    else
        buf_text(&body, "null");
    buf_text(&body, "}}");
    compose(plan, a, status, "application/json", body.p, body.n);
    plan->what = "error";
    buf_free(&body);
}

/* ---- chat completions ---- */

static void add_usage(struct buf *out, const struct answer *a, struct usage usage)
{
    if (a && a->usage) {
        char *text = json_dumps(a->usage, JSON_COMPACT | JSON_REAL_PRECISION(15));

        buf_text(out, text ? text : "null");
        free(text);
        return;
    }
    buf_format(out, "{\"prompt_tokens\":%zu,\"completion_tokens\":%zu,\"total_tokens\":%zu}",
               usage.prompt, usage.completion, usage.prompt + usage.completion);
}

/* The beginning that a completion and each chunk of a stream share, up to and without "choices". */
static void add_envelope(struct buf *out, const struct ask *ask, uint64_t n, bool chunk)
{
    const char *model = ask->model ? ask->model : "unknown";

    buf_format(out, "{\"id\":\"chatcmpl-%016llx%06llx\",\"object\":\"chat.completion%s\",",
               (unsigned long long)ask->digest, (unsigned long long)n & 0xFFFFFF,
               chunk ? ".chunk" : "");
    buf_format(out, "\"created\":%lld,\"model\":", (long long)time(NULL));
    buf_json(out, model, strlen(model));
    buf_text(out, ",\"system_fingerprint\":\"fp_simulated\",");
}

static const char *finish_of(const struct answer *a)
{
    return a && a->finish_reason ? a->finish_reason : "stop";
}

static void compose_completion(struct plan *plan, const struct ask *ask, const struct answer *a,
                               const struct buf *content, struct usage usage, uint64_t n)
{
    struct buf body = {0};

    buf_room(&body, content->n + 512);
    add_envelope(&body, ask, n, false);
    buf_text(&body, "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":");
    buf_json(&body, content->p, content->n);
    buf_text(&body, ",\"refusal\":null},\"logprobs\":null,\"finish_reason\":");
    buf_json(&body, finish_of(a), strlen(finish_of(a)));
    buf_text(&body, "}]");
    if (!a || !json_is_null(a->usage)) {
        buf_text(&body, ",\"usage\":");
        add_usage(&body, a, usage);
    }
    buf_text(&body, "}");
    if (a && a->broken_json)
        body.n = body.n * 2 / 3;
    compose(plan, a, a && a->status ? a->status : 200, "application/json", body.p, body.n);
    buf_free(&body);
}

static void compose_oversize(struct plan *plan, const struct ask *ask, const struct answer *a,
                             uint64_t n)
{
    static const char tail[] = "\"},\"logprobs\":null,\"finish_reason\":\"stop\"}]}";
    struct buf body = {0};

    add_envelope(&body, ask, n, false);
    buf_text(&body, "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"");
    size_t fixed = body.n + sizeof tail - 1;
    size_t filler = a->oversize > fixed ? a->oversize - fixed : 0;
    memset(buf_room(&body, filler), 'x', filler);
    body.n += filler;
    buf_add(&body, tail, sizeof tail - 1);
    compose(plan, a, a->status ? a->status : 200, "application/json", body.p, body.n);
    plan->what = "oversize";
    buf_free(&body);
}

/* ---- streams: each event is one HTTP chunk and one piece of the plan ---- */

static void stream_piece(struct plan *plan, const struct buf *event)
{
    buf_format(&plan->out, "%zx\r\n", event->n);
    buf_add(&plan->out, event->p, event->n);
    buf_text(&plan->out, "\r\n");
    if (plan->stop_count % 64 == 0) {
        size_t *stops = xcalloc(plan->stop_count + 64, sizeof *stops);

        if (plan->stop_count)
            memcpy(stops, plan->stops, plan->stop_count * sizeof *stops);
        free(plan->stops);
        plan->stops = stops;
    }
    plan->stops[plan->stop_count++] = plan->out.n;
}

/* One `data:` event with a delta; content NULL: the role that comes first; finish: the last of the
 * choice. */
static void stream_delta(struct plan *plan, const struct ask *ask, const struct answer *a,
                         uint64_t n, const char *content, size_t len, bool finish)
{
    struct buf event = {0};

    buf_text(&event, "data: ");
    add_envelope(&event, ask, n, true);
    buf_text(&event, "\"choices\":[{\"index\":0,\"delta\":{");
    if (content) {
        buf_text(&event, "\"content\":");
        buf_json(&event, content, len);
    } else if (!finish) {
        buf_text(&event, "\"role\":\"assistant\",\"content\":\"\"");
    }
    buf_text(&event, "},\"logprobs\":null,\"finish_reason\":");
    if (finish)
        buf_json(&event, finish_of(a), strlen(finish_of(a)));
    else
        buf_text(&event, "null");
    buf_text(&event, ask->include_usage ? "}],\"usage\":null}\n\n" : "}]}\n\n");
    stream_piece(plan, &event);
    buf_free(&event);
}

static void stream_end(struct plan *plan, const struct ask *ask, const struct answer *a,
                       struct usage usage, uint64_t n)
{
    struct buf event = {0};

    stream_delta(plan, ask, a, n, NULL, 0, true);
    if (ask->include_usage && !(a && json_is_null(a->usage))) {
        buf_text(&event, "data: ");
        add_envelope(&event, ask, n, true);
        buf_text(&event, "\"choices\":[],\"usage\":");
        add_usage(&event, a, usage);
        buf_text(&event, "}\n\n");
        stream_piece(plan, &event);
        event.n = 0;
    }
    buf_text(&event, "data: [DONE]\n\n");
    stream_piece(plan, &event);
    buf_free(&event);
}

static void stream_error(struct plan *plan, const char *message)
{
    struct buf event = {0};

    buf_text(&event, "data: {\"error\":{\"message\":");
    buf_json(&event, message, strlen(message));
    buf_text(&event, ",\"type\":\"server_error\",\"param\":null,\"code\":null}}\n\n");
    stream_piece(plan, &event);
    buf_free(&event);
}

static void compose_stream(struct plan *plan, const struct answer_defaults *defaults,
                           const struct ask *ask, const struct answer *a, const struct buf *content,
                           struct usage usage, uint64_t n)
{
    size_t bytes = a && a->stream_bytes ? a->stream_bytes : defaults->stream_bytes;
    int64_t left = a ? a->stream_cut : -1;
    bool cut = left >= 0;

    compose(plan, a, 200, "text/event-stream", NULL, SIZE_MAX);
    plan->what = "stream";
    plan->every_ms = a && a->has_stream_every ? a->stream_every_ms : defaults->stream_every_ms;
    stream_delta(plan, ask, a, n, NULL, 0, false);
    for (size_t at = 0; at < content->n && (!cut || left-- > 0);) {
        size_t len = utf8_clip(content->p + at, content->n - at, bytes);

        if (len == 0) /* a character longer than a chunk */
            len = utf8_clip(content->p + at, content->n - at, bytes + 4);
        stream_delta(plan, ask, a, n, content->p + at, len, false);
        at += len;
    }
    if (a && a->stream_error)
        stream_error(plan, a->stream_error);
    else if (!cut)
        stream_end(plan, ask, a, usage, n);
    if (cut && a->stream_reset)
        plan->ending = PLAN_RESET;
    else if (cut && a->stream_stall)
        plan->ending = PLAN_STALL;
    else
        buf_text(&plan->out, "0\r\n\r\n"); /* with the last event, or after the cut */
    if (plan->stop_count)
        plan->stops[plan->stop_count - 1] = plan->out.n;
}

static void compose_chat(struct plan *plan, const struct answer_defaults *defaults,
                         const struct ask *ask, const struct answer *a, uint64_t n)
{
    struct buf content = {0};

    plan->what = "text";
    if (a && a->oversize) {
        compose_oversize(plan, ask, a, n);
        return;
    }
    if (a && a->text)
        buf_text(&content, a->text);
    else if (a && a->json)
        plan->what = "json", buf_text(&content, a->json);
    else if (a && a->bad_content)
        plan->what = "bad_content", buf_text(&content, "Sure! Here is the JSON: {\"major\": ");
    else
        plan->what = content_make(ask, &content);

    struct usage usage = {.prompt = ask->text_bytes / 4 + 85 * ask->images + 3,
                          .completion = content.n / 4 + 1};
    if (ask->stream && !(a && (a->no_stream || a->broken_json)))
        compose_stream(plan, defaults, ask, a, &content, usage, n);
    else
        compose_completion(plan, ask, a, &content, usage, n);
    if (a && a->broken_json)
        plan->what = "broken_json";
    buf_free(&content);
}

/* ---- other paths ---- */

static bool path_ends(const struct http_request *r, const char *end)
{
    size_t n = strlen(end);

    return r->head->path.n >= n &&
           memcmp(r->base + r->head->path.at + r->head->path.n - n, end, n) == 0;
}

static void compose_echo(struct plan *plan, const struct http_request *r, const struct answer *a)
{
    json_error_t error;
    json_t *root = json_loadb(r->body, r->body_len, JSON_DECODE_ANY, &error);
    int status = a && a->status ? a->status : 200;
    struct buf quoted = {0};

    plan->what = "echo";
    if (root) {
        compose(plan, a, status, "application/json", r->body, r->body_len);
    } else {
        buf_json(&quoted, r->body, r->body_len);
        compose(plan, a, status, "application/json", quoted.p, quoted.n);
        buf_free(&quoted);
    }
    json_decref(root);
}

static void compose_other(struct plan *plan, const struct http_request *r, const struct answer *a)
{
    int status = a && a->status ? a->status : 200;
    struct buf body = {0};

    if (a && a->json) {
        plan->what = "json";
        compose(plan, a, status, "application/json", a->json, strlen(a->json));
    } else if (a && a->text) {
        plan->what = "text";
        compose(plan, a, status, "text/plain; charset=utf-8", a->text, strlen(a->text));
    } else if (a && a->oversize) {
        plan->what = "oversize";
        memset(buf_room(&body, a->oversize), 'x', a->oversize);
        compose(plan, a, status, "application/octet-stream", body.p, a->oversize);
    } else if (a && (a->broken_json || a->bad_content)) {
        plan->what = "broken_json";
        compose(plan, a, status, "application/json", "{\"broken\": ", 11);
    } else if (path_ends(r, "/echo") && http_span_is(r->base, r->head->method, "POST")) {
        compose_echo(plan, r, a);
    } else if (a) {
        plan->what = "empty";
        compose(plan, a, status, "application/json", "{}", 2);
    } else {
        compose_error(plan, NULL, 404, "unknown_url", "Unknown request URL.");
    }
    buf_free(&body);
}

/* ---- delivery ---- */

static uint64_t spread(struct span_ms span, uint64_t digest, uint64_t n)
{
    uint64_t x = (digest ^ n * UINT64_C(0x9E3779B97F4A7C15));

    x ^= x >> 31;
    x *= UINT64_C(0xBF58476D1CE4E5B9);
    x ^= x >> 29;
    return span.min + (span.max > span.min ? x % (span.max - span.min + 1) : 0);
}

static void deliver(struct plan *plan, const struct answer *a)
{
    plan->limit = plan->out.n;
    if (!a)
        return;
    plan->hold = a->hold;
    plan->hang = a->hang;
    if (a->close)
        plan->ending = PLAN_CLOSE;
    if (a->drip_bytes) {
        free(plan->stops);
        plan->stops = NULL;
        plan->piece = a->drip_bytes;
        plan->every_ms = a->drip_every_ms;
        if (a->drip_stop_after >= 0 && plan->head + (size_t)a->drip_stop_after < plan->limit) {
            plan->limit = plan->head + (size_t)a->drip_stop_after;
            plan->ending = PLAN_STALL;
        }
    }
    if (a->truncate >= 0) {
        size_t body = plan->out.n - plan->head;
        size_t some = a->truncate == INT64_MAX ? body / 2 : (size_t)a->truncate;

        plan->limit = plan->head + (some < body ? some : body);
        plan->ending = PLAN_CLOSE;
    }
    if (a->reset_after_bytes >= 0) {
        if ((size_t)a->reset_after_bytes < plan->limit)
            plan->limit = (size_t)a->reset_after_bytes;
        plan->ending = PLAN_RESET;
    }
    if (a->reset) {
        plan->limit = 0;
        plan->ending = PLAN_RESET;
    }
    plan->what = a->hang ? "hang" : a->reset ? "reset" : plan->what;
}

void plan_make(struct plan *ret_plan, const struct answer_defaults *defaults,
               const struct http_request *r, const struct ask *ask, const struct rule *rule,
               uint64_t n)
{
    const struct answer *a = rule ? &rule->answer : NULL;
    bool chat = path_ends(r, "/chat/completions");
    bool post = http_span_is(r->base, r->head->method, "POST");

    *ret_plan = (struct plan){.what = "text", .ending = PLAN_KEEP};
    if (a && a->body) {
        ret_plan->what = "body";
        compose(ret_plan, a, a->status ? a->status : 200, "application/json", a->body, a->body_len);
    } else if (a && a->status >= 400) {
        compose_error(ret_plan, a, a->status, a->code, a->message);
    } else if (chat && !post) {
        compose_error(ret_plan, a, 405, "method_not_allowed", "Only POST is offered here.");
    } else if (chat && ask->reason[0]) {
        compose_error(ret_plan, a, 400, NULL, ask->reason);
    } else if (chat) {
        compose_chat(ret_plan, defaults, ask, a, n);
    } else {
        compose_other(ret_plan, r, a);
    }
    ret_plan->latency_ms =
        spread(a && a->has_latency ? a->latency : defaults->latency, ask->digest, n);
    deliver(ret_plan, a);
}

void plan_done(struct plan *plan)
{
    buf_free(&plan->out);
    free(plan->stops);
    *plan = (struct plan){.what = NULL};
}
