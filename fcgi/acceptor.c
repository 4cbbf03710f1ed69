/* The acceptor: see acceptor.h.
 *
 * A connection's way: RESTING (watched for readability) → READING (a thread has it) → HANDLING (the
 * exchange is with the front; the loop watches for the client's leaving) → WRITING (a thread) →
 * RESTING when kept, else closed; or STREAMING (the loop writes). Hand-over goes by a locked queue
 * towards the threads and by loop_post back, so a connection is touched by one side at a time; the
 * exceptions are atomics: `began_ms` and `moved`, from which the loop's timer reckons the deadline.
 *
 * libfcgi is used as follows. FCGX_Accept_r reads a request from an ipcFd that is set beforehand
 * (keepConnection = 1, or its first step would close it; listen_sock -1 has it fail where it would
 * accept). It gets a duplicate, which it may close when the request is bad; the loop's descriptor
 * stays, so that its shutdown(2) never meets a number that was given to somebody else. Afterwards
 * ipcFd is the loop's own, and FCGX_Free(…, 0) closes nothing. Descriptors stay blocking, as
 * libfcgi needs them; the loop passes MSG_DONTWAIT.
 *
 * Not here: what a request means (front.c), event streams after their head (sse.c). Two requests
 * sent at once on one connection lose the second, in libfcgi's read-ahead; no web server does it.
 */
#include "fcgi/acceptor.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "loop/poll.h"
#include "loop/timer.h"
#include <errno.h>
#include <fastcgi.h>
#include <fcgiapp.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ACCEPT_BURST    64
#define ACCEPT_PAUSE_MS 100u
#define ACCEPT_THREADS  2u
#define ACCEPT_STACK    (256u << 10)
#define ACCEPT_CHUNK    (32u << 10)
#define ACCEPT_DRAIN_BYTES                                                                         \
    (64u << 20) /* of a body that is refused, read to let the peer finish                          \
                 */
#define ACCEPT_LINGER_MS 2000u
#define MIB              (1u << 20)

enum conn_state {
    CONN_RESTING,
    CONN_READING,
    CONN_HANDLING,
    CONN_WRITING,
    CONN_STREAMING,
    CONN_LINGERING
};
enum conn_outcome { CONN_READ, CONN_BROKEN };

struct conn {
    struct acceptor *acceptor;
    struct conn *next, **link; /* all connections */
    struct conn *queued;       /* next in a queue for threads */
    struct poll *poll;
    int fd;
    enum conn_state state;
    struct timer timer;
    _Atomic uint64_t began_ms; /* when a thread took it; 0: it waits for one */
    _Atomic size_t moved;      /* bytes read or written since then */
    bool was_cut;              /* shut down at a deadline */
    bool is_gone;              /* hung up while its request was handled */
    bool is_half_closed;       /* its peer sends no more but may read */
    /* The exchange. */
    FCGX_Request fcgx;
    struct exchange exchange;
    struct response response;
    enum conn_outcome outcome;
    size_t body_bytes; /* counted in acceptor->body_bytes */
    uint16_t record_id;
    bool is_kept;
    bool is_unread; /* a part of the body was not read */
    struct wait *head_written;
    void (*on_writable)(void *arg);
    void *on_writable_arg;
};

struct acceptor {
    struct acceptor_setup setup;
    struct poll *listen;
    bool is_stopped;
    struct timer pause;
    struct conn *conns;
    size_t conn_count, exchange_count;
    uint64_t served, cut;
    struct wait *closer;
    _Atomic uint64_t body_bytes;
    /* Threads; under `lock`. */
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct conn *reads, **reads_end, *writes, **writes_end;
    size_t waiting; /* in both queues */
    uint32_t idle, reading, reading_max, threads;
    bool threads_end;
    pthread_t thread[LIMIT_FRONT_THREADS];
};

static void conn_rest(struct conn *conn);
static void conn_close(struct conn *conn);
static void conn_was_read(void *arg);
static void conn_was_written(void *arg);

/* ---- On threads ---- */

static void refuse(struct exchange *exchange, int status, const char *text)
{
    if (exchange->refusal == 0) {
        exchange->refusal = status;
        exchange->refusal_text = text;
    }
}

/* Reads the body to the end of stdin, keeping what may be kept. */
static void read_body(struct conn *conn)
{
    struct acceptor *acceptor = conn->acceptor;
    struct exchange *exchange = &conn->exchange;
    struct buf *body = &exchange->request.body;
    size_t max = acceptor->setup.body_max_bytes;
    int64_t announced = exchange->request.content_length;
    if (announced > 0 && (uint64_t)announced > max) {
        refuse(exchange, 413, "the body is larger than limits.body_max");
    }
    char chunk[ACCEPT_CHUNK];
    size_t total = 0;
    for (;;) {
        int got = FCGX_GetStr(chunk, sizeof(chunk), conn->fcgx.in);
        if (got <= 0) {
            break;
        }
        total += (size_t)got;
        atomic_fetch_add(&conn->moved, (size_t)got);
        if (total > max) {
            refuse(exchange, 413, "the body is larger than limits.body_max");
        } else if (exchange->refusal == 0) {
            uint64_t held = atomic_fetch_add(&acceptor->body_bytes, (uint64_t)got) + (uint64_t)got;
            conn->body_bytes += (size_t)got;
            if (acceptor->setup.memory_max_bytes > 0 && held > acceptor->setup.memory_max_bytes) {
                refuse(exchange, 503, "limits.memory is reached");
            } else {
                buf_add(body, chunk, (size_t)got);
            }
        }
        if (exchange->refusal != 0) {
            buf_done(body);
            buf_init(body, max);
            atomic_fetch_sub(&acceptor->body_bytes, conn->body_bytes);
            conn->body_bytes = 0;
        }
        if (total > ACCEPT_DRAIN_BYTES + max) {
            conn->is_unread = true;
            conn->is_kept = false;
            return;
        }
        if ((size_t)got < sizeof(chunk)) {
            break;
        }
    }
    if (FCGX_GetError(conn->fcgx.in) != 0) {
        conn->is_kept = false;
        refuse(exchange, 400, "the body ended before its end record");
    } else if (announced >= 0 && (uint64_t)announced != total) {
        refuse(exchange, 400, "the body is not as long as its Content-Length");
    }
}

static void conn_read(struct conn *conn)
{
    FCGX_Request *fcgx = &conn->fcgx;
    conn->outcome = CONN_BROKEN;
    FCGX_InitRequest(fcgx, -1, 0);
    fcgx->ipcFd = fcntl(conn->fd, F_DUPFD_CLOEXEC, 3);
    if (fcgx->ipcFd < 0) {
        return;
    }
    fcgx->keepConnection = 1;
    FCGX_Detach(fcgx); /* or closing it would shut the connection down and poll */
    if (FCGX_Accept_r(fcgx) != 0) {
        return; /* libfcgi has closed the duplicate */
    }
    close(fcgx->ipcFd);
    fcgx->ipcFd = conn->fd;
    conn->record_id = (uint16_t)fcgx->requestId;
    conn->is_kept = fcgx->keepConnection != 0;
    if (fcgx->role != FCGI_RESPONDER) {
        FCGX_Free(fcgx, 0);
        return;
    }
    struct exchange *exchange = &conn->exchange;
    size_t params_bytes = 0;
    size_t params = 0;
    for (char **param = fcgx->envp; *param != NULL; param++) {
        params_bytes += strlen(*param) + 1;
        params++;
    }
    static const char *const none[] = {"REQUEST_METHOD=GET", "REQUEST_URI=/", NULL};
    bool fits = params_bytes <= LIMIT_PARAMS_BYTES && params <= LIMIT_PARAMS_BYTES / 16;
    request_init(&exchange->request, conn->acceptor->setup.prefix,
                 fits ? (const char *const *)fcgx->envp : none,
                 conn->acceptor->setup.body_max_bytes);
    if (!fits) {
        refuse(exchange, 413, "the headers are larger than 64 KiB");
    } else if (exchange->request.fault != NULL) {
        refuse(exchange, 400, exchange->request.fault);
    }
    read_body(conn);
    conn->outcome = CONN_READ;
}

static bool put(struct conn *conn, const char *data, size_t len)
{
    while (len > 0) {
        int part = (int)(len < ACCEPT_CHUNK ? len : ACCEPT_CHUNK);
        if (FCGX_PutStr(data, part, conn->fcgx.out) != part) {
            return false;
        }
        atomic_fetch_add(&conn->moved, (size_t)part);
        data += part;
        len -= (size_t)part;
    }
    return true;
}

static void conn_write(struct conn *conn)
{
    struct response *response = &conn->response;
    struct buf head;
    buf_init(&head, 16u << 10);
    bool written =
        response_head(response, conn->exchange.request.id, &head) && put(conn, head.data, head.len);
    buf_done(&head);
    bool has_body = response->body_len > 0 && !response->body_omitted && response->status != 204 &&
                    response->status != 304;
    if (response->is_stream) {
        written = written && FCGX_FFlush(conn->fcgx.out) == 0;
    } else {
        written = written && (!has_body || put(conn, response->body, response->body_len));
        int err_closed = FCGX_FClose(conn->fcgx.err);
        int out_closed = FCGX_FClose(conn->fcgx.out);
        written = written && err_closed == 0 && out_closed == 0;
    }
    FCGX_Free(&conn->fcgx, 0);
    conn->outcome = written ? CONN_READ : CONN_BROKEN;
}

/* The next connection that this thread may take: writes first; some threads are kept for them, so
 * that peers who stall while sending never keep an answer back. */
static struct conn *take(struct acceptor *acceptor, bool *ret_is_read)
{
    struct conn *conn = acceptor->writes;
    *ret_is_read = false;
    if (conn != NULL) {
        acceptor->writes = conn->queued;
        if (acceptor->writes == NULL) {
            acceptor->writes_end = &acceptor->writes;
        }
    } else if (acceptor->reads != NULL && acceptor->reading < acceptor->reading_max) {
        conn = acceptor->reads;
        acceptor->reads = conn->queued;
        if (acceptor->reads == NULL) {
            acceptor->reads_end = &acceptor->reads;
        }
        acceptor->reading++;
        *ret_is_read = true;
    }
    if (conn != NULL) {
        acceptor->waiting--;
    }
    return conn;
}

static void *thread_main(void *arg)
{
    struct acceptor *acceptor = arg;
    pthread_mutex_lock(&acceptor->lock);
    while (!acceptor->threads_end) {
        bool is_read = false;
        struct conn *conn = take(acceptor, &is_read);
        if (conn == NULL) {
            acceptor->idle++;
            pthread_cond_wait(&acceptor->more, &acceptor->lock);
            acceptor->idle--;
            continue;
        }
        pthread_mutex_unlock(&acceptor->lock);
        atomic_store(&conn->began_ms, clock_now_ms());
        if (is_read) {
            conn_read(conn);
        } else {
            conn_write(conn);
        }
        pthread_mutex_lock(&acceptor->lock);
        if (is_read) {
            acceptor->reading--;
            if (acceptor->reads != NULL) {
                pthread_cond_signal(&acceptor->more);
            }
        }
        loop_post(acceptor->setup.loop, is_read ? conn_was_read : conn_was_written, conn);
    }
    pthread_mutex_unlock(&acceptor->lock);
    return NULL;
}

/* ---- On the loop ---- */

/* One more thread; signals stay with the loop's thread, because a write that one interrupts is a
 * broken stream to libfcgi. Under the lock. */
static int thread_start(struct acceptor *acceptor)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, ACCEPT_STACK);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&acceptor->thread[acceptor->threads], &attr, thread_main, acceptor);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (rc == 0) {
        acceptor->threads++;
    }
    return rc;
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
        conn->was_cut = true;
        conn->acceptor->cut++;
        shutdown(conn->fd, SHUT_RDWR);
        return;
    }
    timer_start(timer, setup->loop, allowed - used, conn_overdue);
}

static void hand_to_thread(struct conn *conn, bool is_read)
{
    struct acceptor *acceptor = conn->acceptor;
    atomic_store(&conn->began_ms, 0);
    atomic_store(&conn->moved, 0);
    conn->queued = NULL;
    timer_start(&conn->timer, acceptor->setup.loop, acceptor->setup.request_ms, conn_overdue);
    pthread_mutex_lock(&acceptor->lock);
    if (is_read) {
        *acceptor->reads_end = conn;
        acceptor->reads_end = &conn->queued;
    } else {
        *acceptor->writes_end = conn;
        acceptor->writes_end = &conn->queued;
    }
    acceptor->waiting++;
    if (acceptor->waiting > acceptor->idle && acceptor->threads < acceptor->setup.threads_max) {
        thread_start(acceptor); /* without it the others come round to it */
    }
    pthread_cond_signal(&acceptor->more);
    pthread_mutex_unlock(&acceptor->lock);
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

static void conn_close(struct conn *conn)
{
    struct acceptor *acceptor = conn->acceptor;
    timer_stop(&conn->timer);
    *conn->link = conn->next;
    if (conn->next != NULL) {
        conn->next->link = conn->link;
    }
    poll_close(conn->poll);
    close(conn->fd);
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
    char chunk[ACCEPT_CHUNK];
    for (int i = 0; i < ACCEPT_BURST && status == 0; i++) {
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
    timer_start(&conn->timer, conn->acceptor->setup.loop, ACCEPT_LINGER_MS, linger_over);
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
    conn->is_unread = conn->is_half_closed = conn->is_gone = false;
    memset(&conn->exchange, 0, sizeof(conn->exchange));
    hand_to_thread(conn, true);
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
        FCGI_Header header;
        int got = peek(conn->fd, &header, sizeof(header));
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
            gone = got == (int)sizeof(header) && header.type == FCGI_ABORT_REQUEST;
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
        FCGX_Free(&conn->fcgx, 0);
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
    bool whole = conn->outcome == CONN_READ;
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
    hand_to_thread(conn, false);
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
    bool whole = conn->outcome == CONN_READ;
    exchange_done(conn);
    conn_end(conn, whole);
}

void exchange_end_stream(struct exchange *exchange, bool whole)
{
    struct conn *conn = exchange->conn;
    conn->on_writable = NULL;
    poll_set(conn->poll, 0);
    conn->outcome = whole ? CONN_READ : CONN_BROKEN;
    loop_post(exchange->acceptor->setup.loop, stream_ended, conn);
}

/* ---- Accepting ---- */

static void conn_open(struct acceptor *acceptor, int fd)
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
    conn_rest(conn);
}

static void pause_over(struct timer *timer)
{
    struct acceptor *acceptor = timer->data;
    if (!acceptor->is_stopped) {
        poll_set(acceptor->listen, UV_READABLE);
    }
}

static void listen_ready(void *arg, int status, int events)
{
    (void)events;
    struct acceptor *acceptor = arg;
    for (int i = 0; status == 0 && i < ACCEPT_BURST; i++) {
        int fd = accept4(acceptor->setup.listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            conn_open(acceptor, fd);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED) {
            continue;
        }
        if (errno != EAGAIN) { /* out of descriptors, most likely */
            log_event(LOG_WARN, "cannot accept connections", "reason", strerror(errno), NULL);
            poll_set(acceptor->listen, 0);
            timer_start(&acceptor->pause, acceptor->setup.loop, ACCEPT_PAUSE_MS, pause_over);
        }
        return;
    }
}

/* FCGX_Init takes SIGPIPE, SIGUSR1 and SIGTERM for itself, without SA_RESTART; they are given back.
 */
static bool library_init(void)
{
    static const int taken[] = {SIGPIPE, SIGUSR1, SIGTERM};
    struct sigaction old[3];
    for (size_t i = 0; i < 3; i++) {
        sigaction(taken[i], NULL, &old[i]);
    }
    bool ok = FCGX_Init() == 0;
    for (size_t i = 0; i < 3; i++) {
        sigaction(taken[i], &old[i], NULL);
    }
    return ok;
}

struct acceptor *acceptor_open(const struct acceptor_setup *setup, struct error *err)
{
    if (!library_init()) {
        error_set(err, MR_E_INTERNAL, "libfcgi cannot be initialized");
        return NULL;
    }
    struct acceptor *acceptor = mem_zalloc(sizeof(*acceptor));
    acceptor->setup = *setup;
    struct acceptor_setup *own = &acceptor->setup;
    if (own->threads_max == 0 || own->threads_max > LIMIT_FRONT_THREADS) {
        own->threads_max = LIMIT_FRONT_THREADS;
    }
    own->request_ms = own->request_ms != 0 ? own->request_ms : LIMIT_REQUEST_MS;
    own->mib_ms = own->mib_ms != 0 ? own->mib_ms : 1000;
    acceptor->reading_max = own->threads_max - own->threads_max / 8;
    acceptor->reads_end = &acceptor->reads;
    acceptor->writes_end = &acceptor->writes;
    acceptor->pause.data = acceptor;
    acceptor->listen = poll_open(own->loop, own->listen_fd, listen_ready, acceptor);
    if (acceptor->listen == NULL) {
        error_set(err, MR_E_INTERNAL, "the listening socket cannot be watched");
        free(acceptor);
        return NULL;
    }
    int rc = 0;
    pthread_mutex_init(&acceptor->lock, NULL);
    pthread_cond_init(&acceptor->more, NULL);
    pthread_mutex_lock(&acceptor->lock);
    for (uint32_t i = 0; rc == 0 && i < ACCEPT_THREADS && i < own->threads_max; i++) {
        rc = thread_start(acceptor);
    }
    pthread_mutex_unlock(&acceptor->lock);
    if (acceptor->threads == 0) {
        log_event(LOG_WARN, "no thread could be started yet", "reason", strerror(rc), NULL);
    }
    poll_set(acceptor->listen, UV_READABLE);
    return acceptor;
}

void acceptor_stop(struct acceptor *acceptor)
{
    if (acceptor->is_stopped) {
        return;
    }
    acceptor->is_stopped = true;
    timer_stop(&acceptor->pause);
    poll_set(acceptor->listen, 0);
    for (struct conn *conn = acceptor->conns, *next; conn != NULL; conn = next) {
        next = conn->next;
        if (conn->state == CONN_RESTING) {
            conn_close(conn);
        }
    }
}

void acceptor_cut(struct acceptor *acceptor)
{
    for (struct conn *conn = acceptor->conns, *next; conn != NULL; conn = next) {
        next = conn->next;
        if (conn->state == CONN_READING) {
            conn->was_cut = true;
            shutdown(conn->fd, SHUT_RDWR);
        } else if (conn->state == CONN_HANDLING || conn->state == CONN_STREAMING) {
            scope_cancel(&conn->exchange.scope, MR_E_STOPPING);
        } else if (conn->state == CONN_LINGERING) {
            conn_close(conn);
        }
    }
}

void acceptor_close(struct acceptor *acceptor)
{
    acceptor_stop(acceptor);
    acceptor_cut(acceptor);
    if (acceptor->conn_count > 0) {
        struct wait wait;
        wait_init(&wait, acceptor->setup.loop);
        acceptor->closer = &wait;
        wait_shield(1);
        wait_for(&wait, UINT64_MAX);
        wait_shield(-1);
    }
    poll_close(acceptor->listen);
    pthread_mutex_lock(&acceptor->lock);
    acceptor->threads_end = true;
    pthread_cond_broadcast(&acceptor->more);
    pthread_mutex_unlock(&acceptor->lock);
    for (uint32_t i = 0; i < acceptor->threads; i++) {
        pthread_join(acceptor->thread[i], NULL);
    }
    pthread_cond_destroy(&acceptor->more);
    pthread_mutex_destroy(&acceptor->lock);
    free(acceptor);
}

void acceptor_get_stats(const struct acceptor *acceptor, struct acceptor_stats *ret)
{
    ret->connections = acceptor->conn_count;
    ret->exchanges = acceptor->exchange_count;
    ret->threads = acceptor->threads;
    ret->served = acceptor->served;
    ret->cut = acceptor->cut;
    ret->body_bytes = atomic_load(&acceptor->body_bytes);
}
