/* Connections on the loop: see conn.h. From readable to answered, watched for the client's leaving,
 * kept or closed; and the calls of acceptor.h about one exchange. */
#include "fcgi/conn.h"
#include "base/clock.h"
#include "base/mem.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONN_BURST         64
#define CONN_CHUNK         (16u << 10)
#define CONN_LINGER_MS     2000u
#define CONN_RECORD_HEADER 8 /* FastCGI 1.0, section 3.3; the type is its second byte */
#define CONN_ABORT_REQUEST 2
#define MIB                (1u << 20)

static void conn_rest(struct conn *conn);
static void conn_was_read(void *arg);
static void conn_was_written(void *arg);

static struct conn *conn_of(struct pool_job *job)
{
    return (struct conn *)(void *)((char *)job - offsetof(struct conn, job));
}

static void run_read(struct pool_job *job)
{
    struct conn *conn = conn_of(job);
    atomic_store(&conn->began_ms, clock_now_ms());
    conn_read(conn);
    loop_post(conn->acceptor->setup.loop, conn_was_read, conn);
}

static void run_write(struct pool_job *job)
{
    struct conn *conn = conn_of(job);
    atomic_store(&conn->began_ms, clock_now_ms());
    conn_write(conn);
    loop_post(conn->acceptor->setup.loop, conn_was_written, conn);
}

void conn_break(struct conn *conn)
{
    conn->was_cut = true;
    shutdown(conn->fd, SHUT_RDWR);
}

/* The deadline of what a thread does with a connection. */
static void conn_overdue(struct timer *timer)
{
    struct conn *conn = timer->data;
    const struct acceptor_setup *setup = &conn->acceptor->setup;
    uint64_t began = atomic_load(&conn->began_ms);
    uint64_t allowed = setup->request_ms;
    uint64_t used = 0;
    if (began != 0) {
        uint64_t now = clock_now_ms();
        used = now > began ? now - began : 0;
        allowed += atomic_load(&conn->moved) * setup->mib_ms / MIB;
    }
    if (used >= allowed) {
        conn->acceptor->cut++;
        conn_break(conn);
        return;
    }
    timer_start(timer, setup->loop, allowed - used, conn_overdue);
}

static void hand_to_thread(struct conn *conn, enum pool_kind kind)
{
    struct acceptor *acceptor = conn->acceptor;
    atomic_store(&conn->began_ms, 0);
    atomic_store(&conn->moved, 0);
    conn->job.run = kind == POOL_READ ? run_read : run_write;
    timer_start(&conn->timer, acceptor->setup.loop, acceptor->setup.request_ms, conn_overdue);
    pool_hand(&acceptor->pool, &conn->job, kind);
}

void exchange_forget_body(struct exchange *exchange)
{
    struct conn *conn = exchange->conn;
    buf_done(&exchange->request.body);
    atomic_fetch_sub(&exchange->acceptor->body_bytes, conn->body_bytes);
    conn->body_bytes = 0;
}

static void exchange_done(struct conn *conn)
{
    struct acceptor *acceptor = conn->acceptor;
    timer_stop(&conn->timer);
    scope_done(&conn->exchange.scope);
    request_done(&conn->exchange.request);
    response_done(&conn->response);
    atomic_fetch_sub(&acceptor->body_bytes, conn->body_bytes);
    conn->body_bytes = 0;
    acceptor->exchange_count--;
    acceptor->served++;
}

static void closer_wake(struct acceptor *acceptor)
{
    if (acceptor->closer != NULL && acceptor->conn_count == 0) {
        wait_wake(acceptor->closer, MR_OK);
    }
}

void conn_close(struct conn *conn)
{
    struct acceptor *acceptor = conn->acceptor;
    timer_stop(&conn->timer);
    *conn->link = conn->next;
    if (conn->next != NULL) {
        conn->next->link = conn->link;
    }
    poll_close(conn->poll);
    close(conn->fd);
    free(conn->fcgx);
    free(conn);
    acceptor->conn_count--;
    closer_wake(acceptor);
}

static void linger_over(struct timer *timer)
{
    conn_close(timer->data);
}

static void linger_readable(struct conn *conn, int status)
{
    char chunk[CONN_CHUNK];
    for (int i = 0; i < CONN_BURST && status == 0; i++) {
        ssize_t got = recv(conn->fd, chunk, sizeof(chunk), MSG_DONTWAIT);
        if (got <= 0) {
            status = got < 0 && errno == EAGAIN ? 0 : 1;
            break;
        }
    }
    if (status != 0) {
        conn_close(conn);
    }
}

/* What closing with unread bytes would do is a reset, and the answer could be lost with it: the
 * peer is told that no more comes, and what it still sends is thrown away for a while. */
static void conn_linger(struct conn *conn)
{
    conn->state = CONN_LINGERING;
    shutdown(conn->fd, SHUT_WR);
    timer_start(&conn->timer, conn->acceptor->setup.loop, CONN_LINGER_MS, linger_over);
    poll_set(conn->poll, UV_READABLE | UV_DISCONNECT);
}

static void conn_end(struct conn *conn, bool reusable)
{
    if (reusable && conn->is_kept && !conn->was_cut && !conn->acceptor->is_stopped) {
        conn_rest(conn);
    } else if (reusable && conn->is_unread && !conn->was_cut) {
        conn_linger(conn);
    } else {
        conn_close(conn);
    }
}

/* Bytes that can be read, at most `len`; 0: nothing yet, -1: the end. */
static int peek(int fd, void *data, size_t len)
{
    ssize_t got = recv(fd, data, len, MSG_PEEK | MSG_DONTWAIT);
    if (got > 0) {
        return (int)got;
    }
    return got < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

static void rest_readable(struct conn *conn, int status)
{
    char byte = 0;
    int got = status < 0 ? -1 : peek(conn->fd, &byte, 1);
    if (got == 0) {
        return;
    }
    if (got < 0) {
        conn_close(conn);
        return;
    }
    poll_set(conn->poll, 0);
    conn->state = CONN_READING;
    conn->is_fresh = false;
    conn->is_unread = conn->is_half_closed = conn->is_gone = false;
    memset(&conn->exchange, 0, sizeof(conn->exchange));
    hand_to_thread(conn, POOL_READ);
}

bool conn_is_idle(const struct conn *conn)
{
    char byte = 0;
    return !conn->is_fresh && peek(conn->fd, &byte, 1) == 0;
}

static void conn_rest(struct conn *conn)
{
    conn->state = CONN_RESTING;
    poll_set(conn->poll, UV_READABLE | UV_DISCONNECT);
}

static void watch_client(struct conn *conn, bool quiet);

/* Something happened on a connection whose request is being handled or streamed. */
static void client_stirs(struct conn *conn, int status, int events)
{
    if ((events & UV_WRITABLE) != 0 && conn->on_writable != NULL) {
        void (*fn)(void *arg) = conn->on_writable;
        conn->on_writable = NULL;
        watch_client(conn, conn->is_half_closed);
        fn(conn->on_writable_arg);
        return;
    }
    struct pollfd now = {.fd = conn->fd, .events = POLLIN};
    bool gone = status < 0 || (poll(&now, 1, 0) > 0 && (now.revents & (POLLHUP | POLLERR)) != 0);
    if (!gone && !conn->is_half_closed) {
        unsigned char header[CONN_RECORD_HEADER];
        int got = peek(conn->fd, header, sizeof(header));
        if (got != 0) {
            conn->is_kept = conn->is_kept && got > 0;
        }
        if (got < 0) {
            /* The peer sends no more. On a unix socket it may still read (a hang-up tells when it
             * does not); over TCP there is no telling, and web servers do not half-close. */
            int domain = 0;
            socklen_t size = sizeof(domain);
            getsockopt(conn->fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
            gone = domain != AF_UNIX;
            watch_client(conn, true);
        } else if (got > 0) {
            gone = got == (int)sizeof(header) && header[1] == CONN_ABORT_REQUEST;
            watch_client(conn, true); /* what else came is the next request's */
        }
    }
    if (gone) {
        conn->is_kept = false;
        conn->is_gone = true;
        poll_set(conn->poll, 0);
        scope_cancel(&conn->exchange.scope, MR_E_CANCELLED);
    }
}

/* `quiet`: only a hang-up is of interest, not what can be read (epoll always tells a hang-up; the
 * priority event never comes on such sockets). */
static void watch_client(struct conn *conn, bool quiet)
{
    conn->is_half_closed = quiet;
    int events = quiet ? UV_PRIORITIZED : UV_READABLE | UV_DISCONNECT;
    if (conn->on_writable != NULL) {
        events |= UV_WRITABLE;
    }
    poll_set(conn->poll, events);
}

static void conn_ready(void *arg, int status, int events)
{
    struct conn *conn = arg;
    switch (conn->state) {
    case CONN_RESTING:
        rest_readable(conn, status);
        break;
    case CONN_HANDLING:
    case CONN_STREAMING:
        client_stirs(conn, status, events);
        break;
    case CONN_LINGERING:
        linger_readable(conn, status);
        break;
    case CONN_READING: /* a thread has it: nothing is watched */
    case CONN_WRITING:
        break;
    }
}

static void conn_was_read(void *arg)
{
    struct conn *conn = arg;
    struct acceptor *acceptor = conn->acceptor;
    timer_stop(&conn->timer);
    if (conn->outcome == CONN_BROKEN) {
        conn_close(conn);
        return;
    }
    struct exchange *exchange = &conn->exchange;
    exchange->acceptor = acceptor;
    exchange->conn = conn;
    scope_init(&exchange->scope, NULL);
    response_init(&conn->response);
    acceptor->exchange_count++;
    conn->state = CONN_HANDLING;
    if (conn->was_cut) {
        /* Too slow, and the connection is shut: nobody to answer. */
        conn_drop(conn);
        exchange_done(conn);
        conn_close(conn);
        return;
    }
    watch_client(conn, false);
    acceptor->setup.on_request(acceptor->setup.arg, exchange);
}

static void conn_was_written(void *arg)
{
    struct conn *conn = arg;
    timer_stop(&conn->timer);
    bool whole = conn->outcome == CONN_WHOLE;
    if (conn->response.is_stream) {
        conn->state = CONN_STREAMING;
        watch_client(conn, false);
        wait_wake(conn->head_written, whole && !conn->was_cut ? MR_OK : MR_E_RESET);
        return;
    }
    exchange_done(conn);
    conn_end(conn, whole);
}

static void give_response(struct conn *conn, struct response *response)
{
    poll_set(conn->poll, 0);
    response_done(&conn->response);
    conn->response = *response;
    response_init(response);
    conn->state = CONN_WRITING;
    hand_to_thread(conn, POOL_WRITE);
}

void exchange_respond(struct exchange *exchange, struct response *response)
{
    response->body_omitted = exchange->request.method == METHOD_HEAD;
    give_response(exchange->conn, response);
}

int exchange_begin_stream(struct exchange *exchange, struct response *response)
{
    struct conn *conn = exchange->conn;
    struct wait wait;
    wait_init(&wait, exchange->acceptor->setup.loop);
    conn->head_written = &wait;
    response->is_stream = true;
    exchange->is_answered = true;
    give_response(conn, response);
    wait_shield(1); /* a thread has the connection; the deadline ends this */
    int rc = wait_for(&wait, UINT64_MAX);
    wait_shield(-1);
    conn->head_written = NULL;
    return rc;
}

int exchange_fd(const struct exchange *exchange, uint16_t *ret_record_id)
{
    *ret_record_id = exchange->conn->record_id;
    return exchange->conn->fd;
}

void exchange_on_writable(struct exchange *exchange, void (*fn)(void *arg), void *arg)
{
    struct conn *conn = exchange->conn;
    conn->on_writable = fn;
    conn->on_writable_arg = arg;
    if (!conn->is_gone) {
        watch_client(conn, conn->is_half_closed);
    }
}

static void stream_ended(void *arg)
{
    struct conn *conn = arg;
    bool whole = conn->outcome == CONN_WHOLE;
    exchange_done(conn);
    conn_end(conn, whole);
}

void exchange_end_stream(struct exchange *exchange, bool whole)
{
    struct conn *conn = exchange->conn;
    conn->on_writable = NULL;
    poll_set(conn->poll, 0);
    conn->outcome = whole ? CONN_WHOLE : CONN_BROKEN;
    loop_post(exchange->acceptor->setup.loop, stream_ended, conn);
}

void conn_open(struct acceptor *acceptor, int fd)
{
    struct conn *conn = mem_zalloc(sizeof(*conn));
    conn->acceptor = acceptor;
    conn->fd = fd;
    conn->poll = poll_open(acceptor->setup.loop, fd, conn_ready, conn);
    if (conn->poll == NULL) {
        close(fd);
        free(conn);
        return;
    }
    int flags = fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFL,
          flags & ~O_NONBLOCK); /* libuv has set it; libfcgi takes EAGAIN for the end */
    conn->timer.data = conn;
    conn->next = acceptor->conns;
    if (conn->next != NULL) {
        conn->next->link = &conn->next;
    }
    conn->link = &acceptor->conns;
    acceptor->conns = conn;
    acceptor->conn_count++;
    conn->is_fresh = true;
    conn_rest(conn);
}
