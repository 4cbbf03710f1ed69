/*
 * control: the API under /control/ by which tests steer the simulator and await it. One function
 * per resource. Control requests are no model requests: they are in no counter and not in the
 * journal.
 */
#include "server.h"

#include <stdlib.h>
#include <string.h>

#define WAIT_DEFAULT_MS 10000
#define WAIT_MAX_MS     600000

static void reply_json(struct control_reply *reply, int status, struct buf *body)
{
    plan_make_json(&reply->plan, status, body);
    buf_free(body);
}

static void reply_error(struct control_reply *reply, int status, const char *message)
{
    struct buf body = {0};

    buf_text(&body, "{\"error\":");
    buf_json(&body, message, strlen(message));
    buf_text(&body, "}");
    reply_json(reply, status, &body);
}

/* A number from the query; false when it is there and no number. */
static bool query_number(const struct http_request *r, const char *name, uint64_t *number)
{
    char text[32];

    if (!http_query_find(r, name, text, sizeof text))
        return true;
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0')
        return false;
    *number = value;
    return true;
}

static void add_stats(const struct server *s, struct buf *out)
{
    const struct stats *st = &s->stats;
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {{"requests", st->requests},           {"in_flight", st->in_flight},
                {"max_in_flight", st->max_in_flight}, {"ended", st->ended},
                {"client_closed", st->client_closed}, {"held", st->held},
                {"connections", st->connections},     {"max_connections", st->max_connections},
                {"accepted", st->accepted},           {"refused", st->refused}};

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        buf_format(out, "%s\"%s\":%llu", i ? "," : "", rows[i].name,
                   (unsigned long long)rows[i].value);
}

static void handle_stats(struct server *s, struct control_reply *reply)
{
    struct buf body = {0};

    buf_text(&body, "{");
    add_stats(s, &body);
    buf_text(&body, "}");
    reply_json(reply, 200, &body);
}

static void post_rules(struct server *s, const struct http_request *r, struct control_reply *reply)
{
    json_error_t error;
    char message[256];
    struct buf body = {0};
    json_t *source = json_loadb(r->body, r->body_len, JSON_REJECT_DUPLICATES, &error);

    if (!source) {
        snprintf(message, sizeof message, "not JSON: line %d column %d: %s", error.line,
                 error.column, error.text);
        reply_error(reply, 400, message);
        return;
    }
    if (!rules_add(&s->rules, &s->rules.control, source, message, sizeof message)) {
        reply_error(reply, 422, message);
    } else {
        buf_format(&body, "{\"rules\":%zu,\"last_id\":%llu}", s->rules.control.count,
                   (unsigned long long)s->rules.last_id);
        reply_json(reply, 200, &body);
    }
    json_decref(source);
}

static void handle_rules(struct server *s, const struct http_request *r, const char *method,
                         struct control_reply *reply)
{
    struct buf body = {0};

    if (strcmp(method, "POST") == 0) {
        post_rules(s, r, reply);
    } else if (strcmp(method, "DELETE") == 0) {
        rule_list_clear(&s->rules.control);
        buf_text(&body, "{\"rules\":0}");
        reply_json(reply, 200, &body);
    } else {
        rules_format(&s->rules, &body);
        reply_json(reply, 200, &body);
    }
}

static void handle_journal(struct server *s, const struct http_request *r,
                           struct control_reply *reply)
{
    uint64_t since = 0;
    uint64_t limit = UINT64_MAX;
    struct buf body = {0};

    if (!query_number(r, "since", &since) || !query_number(r, "limit", &limit)) {
        reply_error(reply, 400, "since and limit must be numbers");
        return;
    }
    journal_format(&s->journal, since, limit, &body);
    reply_json(reply, 200, &body);
}

static void handle_release(struct server *s, const struct http_request *r,
                           struct control_reply *reply)
{
    uint64_t count = UINT64_MAX;
    struct buf body = {0};

    if (!query_number(r, "count", &count)) {
        reply_error(reply, 400, "count must be a number");
        return;
    }
    buf_format(&body, "{\"released\":%llu}", (unsigned long long)server_release(s, count));
    reply_json(reply, 200, &body);
}

static void handle_reset(struct server *s, struct control_reply *reply)
{
    struct stats *st = &s->stats;
    struct buf body = {0};

    rule_list_clear(&s->rules.control);
    rule_list_rewind(&s->rules.script);
    server_release(s, UINT64_MAX);
    journal_clear(&s->journal);
    st->requests = st->in_flight;
    st->max_in_flight = st->in_flight;
    st->ended = st->client_closed = st->refused = 0;
    buf_text(&body, "{");
    add_stats(s, &body);
    buf_text(&body, "}");
    reply_json(reply, 200, &body);
}

static char *query_text(const struct http_request *r, const char *name)
{
    char text[512];

    return http_query_find(r, name, text, sizeof text) ? xstrndup(text, strlen(text)) : NULL;
}

static void handle_wait(struct server *s, const struct http_request *r, struct control_reply *reply)
{
    struct wait_for wait = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, NULL, NULL};
    uint64_t timeout_ms = WAIT_DEFAULT_MS;

    if (!query_number(r, "requests", &wait.requests) || !query_number(r, "ended", &wait.ended) ||
        !query_number(r, "in_flight", &wait.in_flight) || !query_number(r, "held", &wait.held) ||
        !query_number(r, "client_closed", &wait.client_closed) ||
        !query_number(r, "timeout_ms", &timeout_ms)) {
        reply_error(reply, 400, "what is waited for must be numbers");
        return;
    }
    if (wait.requests == UINT64_MAX && wait.ended == UINT64_MAX && wait.in_flight == UINT64_MAX &&
        wait.held == UINT64_MAX && wait.client_closed == UINT64_MAX) {
        reply_error(reply, 400, "say requests, ended, in_flight, held or client_closed");
        return;
    }
    wait.contains = query_text(r, "contains");
    wait.model = query_text(r, "model");
    reply->blocks = true;
    reply->wait = wait;
    reply->timeout_ms = timeout_ms < WAIT_MAX_MS ? timeout_ms : WAIT_MAX_MS;
    (void)s;
}

void control_handle(struct server *s, const struct http_request *r, struct control_reply *ret_reply)
{
    static const struct {
        const char *path;
        const char *methods;
    } routes[] = {{"/control/rules", "GET POST DELETE"},
                  {"/control/journal", "GET"},
                  {"/control/stats", "GET"},
                  {"/control/release", "POST"},
                  {"/control/wait", "GET"},
                  {"/control/reset", "POST"}};
    size_t i = 0;
    char method[8] = "";

    *ret_reply = (struct control_reply){.blocks = false};
    while (i < sizeof routes / sizeof routes[0] &&
           !http_span_is(r->base, r->head->path, routes[i].path))
        i++;
    if (i == sizeof routes / sizeof routes[0]) {
        reply_error(ret_reply, 404, "not a control resource (see mr-sim --help)");
        return;
    }
    if (r->head->method.n < sizeof method)
        memcpy(method, r->base + r->head->method.at, r->head->method.n);
    if (method[0] == '\0' || !strstr(routes[i].methods, method)) {
        reply_error(ret_reply, 405, routes[i].methods);
        return;
    }
    switch (i) {
    case 0:
        handle_rules(s, r, method, ret_reply);
        break;
    case 1:
        handle_journal(s, r, ret_reply);
        break;
    case 2:
        handle_stats(s, ret_reply);
        break;
    case 3:
        handle_release(s, r, ret_reply);
        break;
    case 4:
        handle_wait(s, r, ret_reply);
        break;
    default:
        handle_reset(s, ret_reply);
    }
}

/* How many kept requests have the text and the model. */
static uint64_t count_matching(const struct journal *j, const struct wait_for *wait)
{
    uint64_t count = 0;

    for (uint64_t n = journal_oldest(j) + 1; n <= j->last; n++) {
        const struct journal_entry *e = journal_find(j, n);

        if (!e || (wait->contains && !(e->text && strstr(e->text, wait->contains))))
            continue;
        if (wait->model && !(e->model && strcmp(e->model, wait->model) == 0))
            continue;
        count++;
    }
    return count;
}

bool control_reached(const struct server *s, const struct wait_for *wait)
{
    const struct stats *st = &s->stats;

    if (wait->ended != UINT64_MAX && st->ended < wait->ended)
        return false;
    if (wait->held != UINT64_MAX && st->held < wait->held)
        return false;
    if (wait->client_closed != UINT64_MAX && st->client_closed < wait->client_closed)
        return false;
    if (wait->in_flight != UINT64_MAX &&
        (wait->in_flight ? st->in_flight < wait->in_flight : st->in_flight > 0))
        return false;
    if (wait->requests == UINT64_MAX)
        return true;
    if (wait->contains || wait->model)
        return count_matching(&s->journal, wait) >= wait->requests;
    return st->requests >= wait->requests;
}

void control_wait_plan(const struct server *s, bool reached, struct plan *ret_plan)
{
    struct buf body = {0};

    buf_format(&body, "{\"reached\":%s,", reached ? "true" : "false");
    add_stats(s, &body);
    buf_text(&body, "}");
    plan_make_json(ret_plan, reached ? 200 : 504, &body);
    buf_free(&body);
}
