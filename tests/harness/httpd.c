#include "httpd.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

struct httpd_peer {
    uv_tcp_t tcp;
    struct httpd_peer *next_held;
    char *in;
    size_t len, cap; /* `in` is always NUL-ended */
    char *late;      /* sent on release */
    bool counted;
};

static struct {
    uv_loop_t loop;
    uv_tcp_t listener;
    uv_pipe_t control;
    struct httpd_counts *counts;
    struct httpd_peer *held;
} httpd_here;

struct httpd_write {
    uv_write_t request;
    struct httpd_peer *peer;
    char *data;
    int then; /* 1: close, 2: reset, 3: count as a part */
};

static void httpd_peer_closed(uv_handle_t *handle)
{
    struct httpd_peer *peer = handle->data;
    free(peer->in);
    free(peer->late);
    free(peer);
}

static void httpd_unhold(struct httpd_peer *peer)
{
    for (struct httpd_peer **link = &httpd_here.held; *link; link = &(*link)->next_held)
        if (*link == peer) {
            *link = peer->next_held;
            return;
        }
}

static void httpd_peer_close(struct httpd_peer *peer, bool reset)
{
    if (uv_is_closing((uv_handle_t *)&peer->tcp))
        return;
    httpd_unhold(peer);
    atomic_fetch_sub(&httpd_here.counts->open, 1);
    if (reset)
        uv_tcp_close_reset(&peer->tcp, httpd_peer_closed);
    else
        uv_close((uv_handle_t *)&peer->tcp, httpd_peer_closed);
}

static void httpd_written(uv_write_t *request, int status)
{
    struct httpd_write *write = request->data;
    if (status == 0 && write->then == 3)
        atomic_fetch_add(&httpd_here.counts->parts, 1);
    else if (status < 0 || write->then)
        httpd_peer_close(write->peer, write->then == 2);
    free(write->data);
    free(write);
}

static void httpd_send(struct httpd_peer *peer, char *data, size_t len, int then)
{
    struct httpd_write *write = calloc(1, sizeof(*write));
    write->peer = peer;
    write->data = data;
    write->then = then;
    write->request.data = write;
    uv_buf_t buf = uv_buf_init(data, (unsigned)len);
    uv_write(&write->request, (uv_stream_t *)&peer->tcp, &buf, 1, httpd_written);
}

static void httpd_send_text(struct httpd_peer *peer, const char *text, int then)
{
    httpd_send(peer, strdup(text), strlen(text), then);
}

static void httpd_answer(struct httpd_peer *peer, int status, const char *more_headers,
                         const char *body, size_t len, int then)
{
    char *text = malloc(len + strlen(more_headers) + 256);
    int head = sprintf(text, "HTTP/1.1 %d Status\r\nContent-Length: %zu\r\n%s\r\n", status, len,
                       more_headers);
    memcpy(text + head, body, len);
    atomic_fetch_add(&httpd_here.counts->answers, 1);
    httpd_send(peer, text, (size_t)head + len, then);
}

#define HTTPD_OK "{\"ok\":true}"

static void httpd_hold(struct httpd_peer *peer, const char *late)
{
    peer->late = strdup(late);
    peer->next_held = httpd_here.held;
    httpd_here.held = peer;
}

static void httpd_chunks(struct httpd_peer *peer, size_t count)
{
    char *text = malloc(count * 2 + 256), *at = text;
    at += sprintf(at, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (size_t left = count; left > 0;) {
        size_t part = left < 1000 ? left : 1000;
        at += sprintf(at, "%zx\r\n", part);
        memset(at, 'c', part);
        at += part;
        at += sprintf(at, "\r\n");
        left -= part;
    }
    at += sprintf(at, "0\r\n\r\n");
    atomic_fetch_add(&httpd_here.counts->answers, 1);
    httpd_send(peer, text, (size_t)(at - text), 0);
}

static void httpd_headers(struct httpd_peer *peer, size_t count)
{
    char *text = malloc(count * 64 + 8), *at = text;
    *at = '\0';
    for (size_t i = 0; i < count; i++)
        at += sprintf(at, "X-%zu: %032zu\r\n", i, i);
    httpd_answer(peer, 200, text, HTTPD_OK, strlen(HTTPD_OK), 0);
    free(text);
}

static void httpd_behave(struct httpd_peer *peer, const char *path, size_t len)
{
    const char *query = strchr(path, '?');
    size_t number = query ? (size_t)strtoul(query + 1, NULL, 10) : 0;
    size_t name = strcspn(path, "? ");
#define HTTPD_IS(text) (name == strlen(text) && memcmp(path, text, name) == 0)
    if (HTTPD_IS("/echo")) {
        httpd_answer(peer, 200, "Content-Type: text/plain\r\nX-Padded:   two words \t\r\n",
                     peer->in, len, 0);
    } else if (HTTPD_IS("/status")) {
        httpd_answer(peer, (int)number, "", "", 0, 0);
    } else if (HTTPD_IS("/hang")) {
        return;
    } else if (HTTPD_IS("/held")) {
        httpd_hold(peer, "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" HTTPD_OK);
    } else if (HTTPD_IS("/stall") || HTTPD_IS("/stall-held")) {
        httpd_send_text(peer, "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"ok\"", 3);
        if (HTTPD_IS("/stall-held"))
            httpd_hold(peer, ":true}");
    } else if (HTTPD_IS("/reset")) {
        httpd_peer_close(peer, true);
    } else if (HTTPD_IS("/reset-mid")) {
        httpd_send_text(peer, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{", 2);
    } else if (HTTPD_IS("/close")) {
        httpd_peer_close(peer, false);
    } else if (HTTPD_IS("/truncate")) {
        httpd_send_text(peer, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{", 1);
    } else if (HTTPD_IS("/bytes")) {
        char *bytes = malloc(number + 1);
        memset(bytes, 'b', number);
        httpd_answer(peer, 200, "", bytes, number, 0);
        free(bytes);
    } else if (HTTPD_IS("/chunked")) {
        httpd_chunks(peer, number);
    } else if (HTTPD_IS("/headers")) {
        httpd_headers(peer, number);
    } else if (HTTPD_IS("/garbage")) {
        httpd_send_text(peer, "SSH-2.0-nothing to see\r\n\r\n", 1);
    } else if (HTTPD_IS("/interim")) {
        httpd_send_text(peer, "HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\n", 0);
        httpd_answer(peer, 200, "X-Late: 1\r\n", HTTPD_OK, strlen(HTTPD_OK), 0);
    } else if (HTTPD_IS("/last")) {
        httpd_answer(peer, 200, "Connection: close\r\n", HTTPD_OK, strlen(HTTPD_OK), 1);
    } else {
        bool known = HTTPD_IS("/ok");
        httpd_answer(peer, known ? 200 : 404, "", HTTPD_OK, strlen(HTTPD_OK), 0);
    }
#undef HTTPD_IS
}

/* A whole request at the beginning of `in`: handles it and returns true. */
static bool httpd_take(struct httpd_peer *peer)
{
    char *end = peer->len ? memmem(peer->in, peer->len, "\r\n\r\n", 4) : NULL;
    if (!end)
        return false;
    size_t head = (size_t)(end - peer->in) + 4, body = 0;
    char last = end[2];
    end[2] = '\0';
    for (char *line = peer->in; line; line = strstr(line, "\r\n")) {
        line += *line == '\r' ? 2 : 0;
        if (strncasecmp(line, "content-length:", 15) == 0)
            body = (size_t)strtoul(line + 15, NULL, 10);
    }
    end[2] = last;
    const char *path = memchr(peer->in, ' ', head);
    if (!path) {
        httpd_peer_close(peer, false);
        return false;
    }
    path++;
    if (!peer->counted) {
        peer->counted = true;
        atomic_fetch_add(&httpd_here.counts->requests, 1);
    }
    if (strncmp(path, "/unread", 7) == 0) {
        uv_read_stop((uv_stream_t *)&peer->tcp);
        return false;
    }
    if (peer->len < head + body)
        return false;
    peer->counted = false;
    httpd_behave(peer, path, head + body);
    peer->len -= head + body;
    memmove(peer->in, peer->in + head + body, peer->len + 1);
    if (peer->len == 0) {
        free(peer->in);
        peer->in = NULL;
        peer->cap = 0;
    }
    return !uv_is_closing((uv_handle_t *)&peer->tcp);
}

static void httpd_buffer(uv_handle_t *handle, size_t wish, uv_buf_t *ret)
{
    static char bytes[64 << 10];
    (void)handle, (void)wish;
    *ret = uv_buf_init(bytes, sizeof(bytes));
}

static void httpd_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *buf)
{
    struct httpd_peer *peer = stream->data;
    if (got < 0) {
        httpd_peer_close(peer, false);
        return;
    }
    if (peer->len + (size_t)got + 1 > peer->cap) {
        peer->cap = (peer->len + (size_t)got) * 2 + 1;
        peer->in = realloc(peer->in, peer->cap);
    }
    memcpy(peer->in + peer->len, buf->base, (size_t)got);
    peer->len += (size_t)got;
    peer->in[peer->len] = '\0';
    while (httpd_take(peer)) {
    }
}

static void httpd_accept(uv_stream_t *listener, int status)
{
    if (status < 0)
        return;
    struct httpd_peer *peer = calloc(1, sizeof(*peer));
    uv_tcp_init(&httpd_here.loop, &peer->tcp);
    peer->tcp.data = peer;
    atomic_fetch_add(&httpd_here.counts->connections, 1);
    atomic_fetch_add(&httpd_here.counts->open, 1);
    if (uv_accept(listener, (uv_stream_t *)&peer->tcp) != 0) {
        httpd_peer_close(peer, false);
        return;
    }
    uv_tcp_nodelay(&peer->tcp, 1);
    uv_read_start((uv_stream_t *)&peer->tcp, httpd_buffer, httpd_read);
}

static void httpd_on_control(uv_stream_t *stream, ssize_t got, const uv_buf_t *buf)
{
    (void)stream, (void)buf;
    if (got < 0)
        _exit(0);
    while (httpd_here.held) {
        struct httpd_peer *peer = httpd_here.held;
        httpd_here.held = peer->next_held;
        char *late = peer->late;
        peer->late = NULL;
        atomic_fetch_add(&httpd_here.counts->answers, 1);
        httpd_send(peer, late, strlen(late), 0);
    }
}

static void httpd_main(int listener, int control, struct httpd_counts *counts)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    httpd_here.counts = counts;
    uv_loop_init(&httpd_here.loop);
    uv_pipe_init(&httpd_here.loop, &httpd_here.control, 0);
    uv_pipe_open(&httpd_here.control, control);
    uv_read_start((uv_stream_t *)&httpd_here.control, httpd_buffer, httpd_on_control);
    uv_tcp_init(&httpd_here.loop, &httpd_here.listener);
    uv_tcp_open(&httpd_here.listener, listener);
    uv_listen((uv_stream_t *)&httpd_here.listener, 4096, httpd_accept);
    uv_run(&httpd_here.loop, UV_RUN_DEFAULT);
    _exit(0);
}

static int httpd_listen(int *ret_port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(addr);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, len) != 0 || listen(fd, 4096) != 0 ||
        getsockname(fd, (struct sockaddr *)&addr, &len) != 0)
        return -1;
    *ret_port = ntohs(addr.sin_port);
    return fd;
}

bool httpd_start(struct httpd *httpd)
{
    *httpd = (struct httpd){.pid = -1};
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    void *shared = mmap(NULL, sizeof(struct httpd_counts), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int fds[2], listener = httpd_listen(&httpd->port);
    httpd->mute = httpd_listen(&httpd->mute_port);
    if (shared == MAP_FAILED || listener < 0 || httpd->mute < 0 || pipe(fds) != 0)
        return false;
    httpd->counts = shared;
    httpd->control = fds[1];
    fflush(NULL);
    httpd->pid = fork();
    if (httpd->pid == 0) {
        close(fds[1]);
        close(httpd->mute);
        httpd_main(listener, fds[0], httpd->counts);
    }
    close(fds[0]);
    close(listener);
    return httpd->pid > 0;
}

void httpd_stop(struct httpd *httpd)
{
    close(httpd->control);
    close(httpd->mute);
    if (httpd->pid > 0)
        waitpid(httpd->pid, NULL, 0);
    munmap(httpd->counts, sizeof(*httpd->counts));
}

void httpd_release(struct httpd *httpd)
{
    if (write(httpd->control, "r", 1) != 1)
        abort();
}
