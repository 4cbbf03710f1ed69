/*
 * server: see server.h. The life of a request: on_read → conn_consume (whole request?) →
 * take_request → (timer, held list, waiting list) → conn_send → conn_end → conn_consume for what is
 * buffered.
 *
 * A conn is freed when its two handles have closed; until then every callback sees state
 * CONN_CLOSING and does nothing. Exactly one of conn_end and conn_close ends a request, and each
 * counts it once (request_over).
 */
#include "server.h"

#include <stdlib.h>
#include <string.h>

#define BUFFERED_MAX (HTTP_HEAD_MAX + HTTP_BODY_MAX + (size_t)16 * 1024 * 1024)
#define AHEAD_MAX    ((size_t)1024 * 1024) /* bytes a client may send before it has its answer */
#define BACKLOG      4096

enum conn_state {
    CONN_READING,
    CONN_LATENCY, /* the timer runs until the answer begins */
    CONN_HELD,
    CONN_BLOCKED, /* a control wait */
    CONN_SENDING,
    CONN_SILENT, /* hang or stall: only the client ends it */
    CONN_CLOSING
};

struct conn {
    uv_tcp_t tcp;
    uv_timer_t timer;
    uv_write_t write;
    struct server *server;
    struct conn *all_prev, *all_next;
    struct conn *list_prev, *list_next; /* in held or waiting */
    struct conn_list *list;
    enum conn_state state;
    int open_handles;
    bool consuming; /* conn_consume is on the stack */
    bool writing;   /* a uv_write is under way */
    bool keep_alive;
    bool model_request; /* counted in the stats */
    bool has_head;
    uint64_t number;  /* of the connection */
    uint64_t request; /* number of the open request */
    struct http_head *head;
    struct http_chunks chunks;
    struct buf in;
    struct plan plan;
    size_t sent;
    size_t stop; /* index into plan.stops */
    struct wait_for wait;
};

static void conn_send(struct conn *c);
static void conn_consume_buffered(struct conn *c);

/* ---- lists ---- */

static void list_append(struct conn_list *list, struct conn *c)
{
    c->list = list;
    c->list_prev = list->last;
    c->list_next = NULL;
    *(list->last ? &list->last->list_next : &list->first) = c;
    list->last = c;
}

static void list_remove(struct conn *c)
{
    if (!c->list)
        return;
    *(c->list_prev ? &c->list_prev->list_next : &c->list->first) = c->list_next;
    *(c->list_next ? &c->list_next->list_prev : &c->list->last) = c->list_prev;
    c->list = NULL;
}

/* ---- the end of requests and connections ---- */

static void request_over(struct conn *c, const char *outcome)
{
    struct server *s = c->server;

    if (c->state == CONN_HELD)
        s->stats.held--;
    list_remove(c);
    if (c->model_request) {
        s->stats.in_flight--;
        s->stats.ended++;
        if (strcmp(outcome, "client_closed") == 0)
            s->stats.client_closed++;
        journal_end(&s->journal, c->request, outcome);
    }
    c->model_request = false;
    s->changed = true;
    free(c->wait.contains);
    free(c->wait.model);
    c->wait.contains = c->wait.model = NULL;
    plan_done(&c->plan);
}

static void conn_free(struct conn *c)
{
    struct server *s = c->server;

    *(c->all_prev ? &c->all_prev->all_next : &s->all.first) = c->all_next;
    *(c->all_next ? &c->all_next->all_prev : &s->all.last) = c->all_prev;
    plan_done(&c->plan);
    buf_free(&c->in);
    free(c->head);
    free(c);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct conn *c = handle->data;

    if (--c->open_handles == 0)
        conn_free(c);
}

/* Closes with FIN or, with reset, RST. An open request ends with the outcome given. */
static void conn_close(struct conn *c, const char *outcome, bool reset)
{
    if (c->state == CONN_CLOSING)
        return;
    if (c->state != CONN_READING && !c->writing)
        request_over(c, outcome);
    else if (c->state != CONN_READING) {
        /* libuv still holds bytes of the plan: they are freed with the connection */
        struct plan plan = c->plan;
        c->plan = (struct plan){.what = plan.what};
        request_over(c, outcome);
        c->plan = plan;
    }
    c->state = CONN_CLOSING;
    c->server->stats.connections--;
    c->server->changed = true;
    uv_close((uv_handle_t *)&c->timer, on_handle_closed);
    if (!reset || uv_tcp_close_reset(&c->tcp, on_handle_closed) != 0)
        uv_close((uv_handle_t *)&c->tcp, on_handle_closed);
}

/* ---- sending ---- */

static void conn_end(struct conn *c)
{
    switch (c->plan.ending) {
    case PLAN_STALL:
        c->state = CONN_SILENT;
        return;
    case PLAN_RESET:
        conn_close(c, "reset", true);
        return;
    case PLAN_CLOSE:
        conn_close(c, "closed", false);
        return;
    default:
        break;
    }
    if (!c->keep_alive) {
        conn_close(c, "answered", false);
        return;
    }
    request_over(c, "answered");
    c->state = CONN_READING;
    conn_consume_buffered(c);
}

static void on_written(uv_write_t *write, int status)
{
    struct conn *c = write->data;

    c->writing = false;
    if (c->state == CONN_CLOSING)
        return;
    if (status < 0)
        conn_close(c, "client_closed", false);
    else
        conn_send(c);
}

static void on_timer(uv_timer_t *timer)
{
    struct conn *c = timer->data;
    struct plan plan;

    if (c->state == CONN_BLOCKED) {
        control_wait_plan(c->server, false, &plan);
        list_remove(c);
        c->plan = plan;
        c->sent = 0;
    }
    if (c->state == CONN_LATENCY || c->state == CONN_BLOCKED || c->state == CONN_SENDING) {
        c->state = CONN_SENDING;
        conn_send(c);
    }
}

/* Where the next piece ends. The head goes with the first event of a stream, and alone before
 * drips. */
static size_t next_stop(struct conn *c)
{
    const struct plan *p = &c->plan;
    size_t stop = p->limit;

    if (p->every_ms > 0 && p->stops && c->stop < p->stop_count)
        stop = p->stops[c->stop++];
    else if (p->piece)
        stop = c->sent < p->head ? p->head : c->sent + p->piece;
    return stop < p->limit ? stop : p->limit;
}

/* Sends one piece and arranges for the next; ends the request after the last. */
static void conn_send(struct conn *c)
{
    while (c->sent < c->plan.limit) {
        size_t stop = next_stop(c);
        uv_buf_t piece = uv_buf_init(c->plan.out.p + c->sent, (unsigned)(stop - c->sent));
        int n = uv_try_write((uv_stream_t *)&c->tcp, &piece, 1);

        if (n < 0 && n != UV_EAGAIN) {
            conn_close(c, "client_closed", false);
            return;
        }
        c->sent += n > 0 ? (size_t)n : 0;
        if (c->sent < stop) {
            piece = uv_buf_init(c->plan.out.p + c->sent, (unsigned)(stop - c->sent));
            c->write.data = c;
            if (uv_write(&c->write, (uv_stream_t *)&c->tcp, &piece, 1, on_written) != 0) {
                conn_close(c, "client_closed", false);
                return;
            }
            c->writing = true;
            c->sent = stop;
            return; /* on_written goes on; a slow client makes the pause itself */
        }
        if (c->plan.every_ms > 0 && c->sent < c->plan.limit) {
            uv_timer_start(&c->timer, on_timer, c->plan.every_ms, 0);
            return;
        }
    }
    conn_end(c);
}

/* ---- requests ---- */

static void start_plan(struct conn *c)
{
    c->sent = 0;
    c->stop = 0;
    if (c->plan.hang) {
        c->state = CONN_SILENT;
    } else if (c->plan.hold) {
        c->state = CONN_HELD;
        c->server->stats.held++;
        list_append(&c->server->held, c);
    } else if (c->plan.latency_ms > 0) {
        c->state = CONN_LATENCY;
        uv_timer_start(&c->timer, on_timer, c->plan.latency_ms, 0);
    } else {
        c->state = CONN_SENDING;
        conn_send(c);
    }
}

static void take_model_request(struct conn *c, const struct http_request *r)
{
    struct server *s = c->server;
    struct ask ask;
    size_t n = r->head->path.n;
    const char *path = r->base + r->head->path.at;
    bool chat = n >= 17 && memcmp(path + n - 17, "/chat/completions", 17) == 0;

    ask_init(&ask, r->body, r->body_len, chat);
    struct rule *rule = rules_pick(&s->rules, r, &ask);
    c->request = s->journal.last + 1;
    plan_make(&c->plan, &s->defaults, r, &ask, rule, c->request);
    c->model_request = true;
    s->stats.requests++;
    if (++s->stats.in_flight > s->stats.max_in_flight)
        s->stats.max_in_flight = s->stats.in_flight;
    s->changed = true;
    journal_add(&s->journal, c->request,
                &(struct journal_request){.http = r,
                                          .ask = &ask,
                                          .rule = rule,
                                          .plan = &c->plan,
                                          .connection = c->number,
                                          .in_flight = s->stats.in_flight});
    ask_done(&ask);
    start_plan(c);
}

static void take_control_request(struct conn *c, const struct http_request *r)
{
    struct control_reply reply;

    control_handle(c->server, r, &reply);
    c->wait = reply.wait;
    c->plan = reply.plan;
    if (!reply.blocks) {
        start_plan(c);
        return;
    }
    /* Looked at before the next poll, together with the other waits. */
    c->state = CONN_BLOCKED;
    c->server->changed = true;
    list_append(&c->server->waiting, c);
    uv_timer_start(&c->timer, on_timer, reply.timeout_ms, 0);
}

static void take_request(struct conn *c, const char *base, const char *body, size_t body_len)
{
    struct http_request r = {.base = base, .head = c->head, .body = body, .body_len = body_len};

    c->keep_alive = c->head->keep_alive;
    if (c->head->path.n >= 9 && memcmp(base + c->head->path.at, "/control/", 9) == 0)
        take_control_request(c, &r);
    else
        take_model_request(c, &r);
}

static void refuse(struct conn *c, int status)
{
    struct buf body = {0};

    c->server->stats.refused++;
    c->keep_alive = false;
    buf_format(&body, "{\"error\":{\"message\":\"%s\",\"type\":\"invalid_request_error\"}}",
               http_reason(status));
    plan_make_json(&c->plan, status, &body);
    buf_free(&body);
    start_plan(c);
}

/*
 * Takes one request from p. Returns its size, 0 when it is not whole yet. Whoever calls keeps p
 * unchanged between calls but for what is appended, since the head and the decoded chunks stay.
 */
static size_t conn_consume(struct conn *c, char *p, size_t n)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    int rc;

    if (!c->has_head) {
        if (!c->head)
            c->head = xcalloc(1, sizeof *c->head);
        rc = http_head_parse(p, n, c->head);
        if (rc < 0)
            refuse(c, -rc);
        if (rc <= 0)
            return rc < 0 ? n : 0;
        c->has_head = true;
        c->chunks = (struct http_chunks){0};
        if (c->head->expect_continue) {
            uv_buf_t piece = uv_buf_init((char *)(uintptr_t)go_on, sizeof go_on - 1);
            uv_try_write((uv_stream_t *)&c->tcp, &piece, 1);
        }
    }
    char *body = p + c->head->size;
    size_t have = n - c->head->size;
    size_t body_len = c->head->content_length;
    size_t used = body_len;

    if (c->head->chunked) {
        rc = http_chunks_feed(&c->chunks, body, have);
        if (rc < 0)
            refuse(c, -rc);
        if (rc <= 0)
            return rc < 0 ? n : 0;
        body_len = c->chunks.written;
        used = c->chunks.read;
    } else if (have < body_len) {
        return 0;
    }
    c->has_head = false;
    used += c->head->size;
    take_request(c, p, body, body_len);
    return used;
}

/* Requests out of p, which is not the connection's buffer; what is left is kept there. */
static void conn_consume_read(struct conn *c, char *p, size_t n)
{
    c->consuming = true;
    while (n > 0 && c->state == CONN_READING) {
        size_t used = conn_consume(c, p, n);

        if (used == 0)
            break;
        p += used;
        n -= used;
    }
    c->consuming = false;
    if (n > 0 && c->state != CONN_CLOSING) {
        buf_add(&c->in, p, n);
        if (c->state == CONN_READING && c->has_head && !c->head->chunked)
            buf_room(&c->in, c->head->size + c->head->content_length - n);
    }
}

static void conn_consume_buffered(struct conn *c)
{
    if (c->consuming)
        return;
    c->consuming = true;
    while (c->in.n > 0 && c->state == CONN_READING) {
        size_t used = conn_consume(c, c->in.p, c->in.n);

        if (used == 0)
            break;
        buf_drop(&c->in, used);
    }
    c->consuming = false;
    if (c->in.n == 0 && c->state != CONN_CLOSING) {
        buf_free(&c->in);
        free(c->head);
        c->head = NULL;
    }
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct conn *c = handle->data;

    (void)suggested;
    *buf = uv_buf_init(c->server->read_buffer, sizeof c->server->read_buffer);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct conn *c = stream->data;

    if (n == 0 || c->state == CONN_CLOSING)
        return;
    if (n < 0) {
        conn_close(c, "client_closed", false);
        return;
    }
    if (c->state == CONN_READING && c->in.n == 0) {
        conn_consume_read(c, buf->base, (size_t)n);
        return;
    }
    buf_add(&c->in, buf->base, (size_t)n);
    if (c->in.n > (c->state == CONN_READING ? BUFFERED_MAX : AHEAD_MAX))
        conn_close(c, "client_sent_too_much", false);
    else if (c->state == CONN_READING)
        conn_consume_buffered(c);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct server *s = listener->data;

    if (status < 0 || s->stopping)
        return;
    struct conn *c = xcalloc(1, sizeof *c);
    c->server = s;
    c->tcp.data = c->timer.data = c;
    c->open_handles = 2;
    uv_tcp_init(s->loop, &c->tcp);
    uv_timer_init(s->loop, &c->timer);
    c->all_prev = s->all.last;
    *(s->all.last ? &s->all.last->all_next : &s->all.first) = c;
    s->all.last = c;
    c->number = ++s->stats.accepted;
    if (++s->stats.connections > s->stats.max_connections)
        s->stats.max_connections = s->stats.connections;
    if (uv_accept(listener, (uv_stream_t *)&c->tcp) != 0 ||
        uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read) != 0) {
        conn_close(c, "client_closed", false);
        return;
    }
    uv_tcp_nodelay(&c->tcp, 1);
}

/* ---- once a turn of the loop ---- */

static void before_poll(uv_prepare_t *handle)
{
    struct server *s = handle->data;
    struct conn *next;

    journal_flush(&s->journal);
    if (!s->changed)
        return;
    s->changed = false;
    for (struct conn *c = s->waiting.first; c; c = next) {
        next = c->list_next;
        if (!control_reached(s, &c->wait))
            continue;
        list_remove(c);
        uv_timer_stop(&c->timer);
        control_wait_plan(s, true, &c->plan);
        c->sent = 0;
        c->state = CONN_SENDING;
        conn_send(c);
    }
}

uint64_t server_release(struct server *s, uint64_t count)
{
    uint64_t released = 0;
    struct conn *last = s->held.last;
    struct conn *c;

    /* Only those held now: an answer may let its client send the next request to be held at once.
     */
    while (released < count && (c = s->held.first)) {
        bool end = c == last;

        list_remove(c);
        s->stats.held--;
        released++;
        c->state = CONN_SENDING;
        conn_send(c);
        if (end)
            break;
    }
    return released;
}

/* ---- start and stop ---- */

static void on_signal(uv_signal_t *handle, int number)
{
    (void)number;
    server_stop(handle->data);
}

static int parse_address(const char *address, struct sockaddr_storage *ret_addr)
{
    const char *colon = strrchr(address, ':');
    char host[64];
    char *end;

    if (!colon || colon == address)
        return UV_EINVAL;
    unsigned long port = strtoul(colon + 1, &end, 10);
    size_t n = (size_t)(colon - address);
    bool bracket = address[0] == '[' && address[n - 1] == ']';
    if (*end != '\0' || colon[1] == '\0' || port > 65535 || n >= sizeof host)
        return UV_EINVAL;
    memcpy(host, bracket ? address + 1 : address, bracket ? n - 2 : n);
    host[bracket ? n - 2 : n] = '\0';
    if (bracket)
        return uv_ip6_addr(host, (int)port, (struct sockaddr_in6 *)ret_addr);
    return uv_ip4_addr(strcmp(host, "localhost") == 0 ? "127.0.0.1" : host, (int)port,
                       (struct sockaddr_in *)ret_addr);
}

int server_listen(struct server *s, const char *address, int *ret_port)
{
    static const int signals[] = {SIGTERM, SIGINT};
    struct sockaddr_storage addr = {0};
    int len = sizeof addr;

    int rc = parse_address(address, &addr);
    if (rc != 0)
        return rc;
    uv_tcp_init(s->loop, &s->listener);
    uv_prepare_init(s->loop, &s->before_poll);
    s->listener.data = s->before_poll.data = s;
    for (size_t i = 0; i < 2; i++) {
        uv_signal_init(s->loop, &s->signals[i]);
        s->signals[i].data = s;
        uv_signal_start(&s->signals[i], on_signal, signals[i]);
    }
    uv_prepare_start(&s->before_poll, before_poll);
    rc = uv_tcp_bind(&s->listener, (const struct sockaddr *)&addr, 0);
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)&s->listener, BACKLOG, on_connection);
    if (rc == 0)
        rc = uv_tcp_getsockname(&s->listener, (struct sockaddr *)&addr, &len);
    if (rc == 0)
        *ret_port = ntohs(addr.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&addr)->sin6_port
                                                     : ((struct sockaddr_in *)&addr)->sin_port);
    return rc;
}

void server_stop(struct server *s)
{
    if (s->stopping)
        return;
    s->stopping = true;
    for (struct conn *c = s->all.first; c; c = c->all_next)
        conn_close(c, "stopped", false);
    uv_close((uv_handle_t *)&s->listener, NULL);
    uv_close((uv_handle_t *)&s->before_poll, NULL);
    for (size_t i = 0; i < 2; i++)
        uv_close((uv_handle_t *)&s->signals[i], NULL);
}
