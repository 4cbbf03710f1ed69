/* The acceptor: see acceptor.h. Here: accepting, and the talk with libfcgi, on threads.
 *
 * libfcgi is used as follows. FCGX_Accept_r reads a request from an ipcFd that is set beforehand
 * (keepConnection = 1, or its first step would close it; listen_sock -1 has it fail where it would
 * accept). It gets a duplicate, which it may close when the request is bad; the loop's descriptor
 * stays, so that its shutdown(2) never meets a number that was given to somebody else. Afterwards
 * ipcFd is the loop's own, and FCGX_Free(…, 0) closes nothing.
 *
 * Not here: the life of a connection (conn.c), the threads (pool.c), what a request means
 * (front.c), event streams after their head (sse.c). Two requests sent at once on one connection
 * lose the second, in libfcgi's read-ahead; no web server does it. */
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "fcgi/conn.h"
#include <errno.h>
#include <fastcgi.h>
#include <fcgiapp.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ACCEPT_BURST    64
#define ACCEPT_PAUSE_MS 100u
#define ACCEPT_CHUNK    (32u << 10)
#define ACCEPT_DRAIN_BYTES                                                                         \
    (64u << 20)             /* of a body that is refused, read to let the peer finish              \
                             */
#define ACCEPT_END_MS 2000u /* for answers that are being written when all ends */

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
        int got = FCGX_GetStr(chunk, sizeof(chunk), conn->fcgx->in);
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
    if (FCGX_GetError(conn->fcgx->in) != 0) {
        conn->is_kept = false;
        refuse(exchange, 400, "the body ended before its end record");
    } else if (announced >= 0 && (uint64_t)announced != total) {
        refuse(exchange, 400, "the body is not as long as its Content-Length");
    }
}

void conn_read(struct conn *conn)
{
    if (conn->fcgx == NULL) {
        conn->fcgx = mem_zalloc(sizeof(*conn->fcgx));
    }
    FCGX_Request *fcgx = conn->fcgx;
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
    conn->outcome = CONN_WHOLE;
}

static bool put(struct conn *conn, const char *data, size_t len)
{
    while (len > 0) {
        int part = (int)(len < ACCEPT_CHUNK ? len : ACCEPT_CHUNK);
        if (FCGX_PutStr(data, part, conn->fcgx->out) != part) {
            return false;
        }
        atomic_fetch_add(&conn->moved, (size_t)part);
        data += part;
        len -= (size_t)part;
    }
    return true;
}

void conn_write(struct conn *conn)
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
        written = written && FCGX_FFlush(conn->fcgx->out) == 0;
    } else {
        written = written && (!has_body || put(conn, response->body, response->body_len));
        int err_closed = FCGX_FClose(conn->fcgx->err);
        int out_closed = FCGX_FClose(conn->fcgx->out);
        written = written && err_closed == 0 && out_closed == 0;
    }
    FCGX_Free(conn->fcgx, 0);
    conn->outcome = written ? CONN_WHOLE : CONN_BROKEN;
}

void conn_drop(struct conn *conn)
{
    FCGX_Free(conn->fcgx, 0);
}

/* ---- Accepting ---- */

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
    own->request_ms = own->request_ms != 0 ? own->request_ms : LIMIT_REQUEST_MS;
    own->mib_ms = own->mib_ms != 0 ? own->mib_ms : 1000;
    acceptor->pause.data = acceptor;
    acceptor->listen = poll_open(own->loop, own->listen_fd, listen_ready, acceptor);
    if (acceptor->listen == NULL) {
        error_set(err, MR_E_INTERNAL, "the listening socket cannot be watched");
        free(acceptor);
        return NULL;
    }
    pool_open(&acceptor->pool, own->threads_max);
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
        if (conn->state == CONN_RESTING && conn_is_idle(conn)) {
            conn_close(conn);
        }
    }
}

void acceptor_cut(struct acceptor *acceptor)
{
    for (struct conn *conn = acceptor->conns, *next; conn != NULL; conn = next) {
        next = conn->next;
        if (conn->state == CONN_READING) {
            conn_break(conn);
        } else if (conn->state == CONN_HANDLING || conn->state == CONN_STREAMING) {
            scope_cancel(&conn->exchange.scope, MR_E_STOPPING);
        } else if (conn->state == CONN_LINGERING || conn->state == CONN_RESTING) {
            conn_close(conn);
        }
    }
}

/* Breaks off what threads still write: their peers have had their time. */
static void shut_busy(struct acceptor *acceptor)
{
    for (struct conn *conn = acceptor->conns; conn != NULL; conn = conn->next) {
        if (conn->state == CONN_READING || conn->state == CONN_WRITING) {
            conn_break(conn);
        }
    }
}

void acceptor_close(struct acceptor *acceptor)
{
    acceptor_stop(acceptor);
    acceptor_cut(acceptor);
    wait_shield(1);
    bool is_patient = true;
    while (acceptor->conn_count > 0) {
        struct wait wait;
        wait_init(&wait, acceptor->setup.loop);
        acceptor->closer = &wait;
        wait_for(&wait, is_patient ? ACCEPT_END_MS : UINT64_MAX);
        acceptor->closer = NULL;
        if (is_patient) {
            shut_busy(acceptor);
        }
        is_patient = false;
    }
    wait_shield(-1);
    poll_close(acceptor->listen);
    pool_close(&acceptor->pool);
    free(acceptor);
}

void acceptor_get_stats(struct acceptor *acceptor, struct acceptor_stats *ret)
{
    ret->connections = acceptor->conn_count;
    ret->exchanges = acceptor->exchange_count;
    ret->threads = pool_threads(&acceptor->pool);
    ret->served = acceptor->served;
    ret->cut = acceptor->cut;
    ret->body_bytes = atomic_load(&acceptor->body_bytes);
}
