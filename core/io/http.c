/* Calls over HTTP: curl's multi interface on the loop. The only file that includes curl.
 *
 * A call is a `struct transfer` on its fiber's stack. http_fetch prepares an easy handle, adds it
 * to a multi handle and waits once. Everything curl does happens on the loop's stack: in the
 * callbacks of sockets and timers (multi_drive) and, for adding and removing, in fiber_on_loop.
 * Fibers are woken from the curl_multi_info_read loop, after the handle was removed; they run in
 * the next drain, so no curl function is ever called from one of curl's callbacks.
 *
 * Multi handles. curl's cost for each transfer grows with those in flight in one handle, so there
 * are many; but connections are kept by a handle, so the first is filled up to its share before the
 * next is used, and one call after the other reuses one connection. All share names and TLS
 * sessions. Guarded calls have handles of their own: the guard decides when a connection is made,
 * so a connection made without it must never be reused by them.
 *
 * Time. Each phase has its limit, watched by one timer a transfer: connect (with the name and TLS)
 * until curl is about to send the request, then first byte, then idle between reads. The timer is
 * not moved at each read; when it fires it looks how long ago the last one was. While a long body
 * is sent, progress counts as a read. The limit on all of it is the wait's own.
 *
 * Sockets. A connection's descriptor keeps its poll handle for its life (opened in on_open_socket,
 * closed in on_close_socket). Others that curl watches, the pairs its resolver threads wake it by,
 * get one from the first to the last event: curl closes those without telling us.
 *
 * Over 500 lines: the one file that knows curl. */
#include "io/http.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "io/guard.h"
#include "io/resolve.h"
#include "loop/poll.h"
#include "loop/timer.h"
#include <ctype.h>
#include <curl/curl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef MR_VERSION
#define MR_VERSION "0"
#endif

enum {
    SPARE_EASY = 256,        /* pooled easy handles: 6 KiB each */
    READ_BUFFER = 4096,      /* curl's default is 16 KiB a transfer; thousands of them wait */
    SENT_AT_ONCE = 64 << 10, /* such a body goes out with the header */
    SEND_CHECK_MS = 1000,
    TIMEOUT_MS = 120000,
    CONNECT_MS = 5000,
    FIRST_BYTE_MS = 60000,
    IDLE_MS = 30000,
};

struct multi {
    struct http *http;
    CURLM *curl;
    struct timer timer;
    size_t in_flight;
};

struct socket {
    struct http *http;
    struct multi *multi; /* who watches it now */
    struct poll *poll;   /* NULL until curl asks for events */
    int fd;
    int wanted;       /* UV_READABLE, UV_WRITABLE */
    bool has_closing; /* on_close_socket will be called for it */
};

struct http {
    struct loop *loop;
    CURLSH *share;
    struct multi *multis; /* `open_count` for all calls, then `guarded_count` for guarded ones */
    size_t open_count, guarded_count;
    size_t share_of_each;    /* transfers that fill a handle before the next is used */
    struct socket **sockets; /* by descriptor */
    size_t socket_cap;
    CURL *spare[SPARE_EASY];
    size_t spares;
    size_t in_flight;
    struct guard guard;
    struct resolve resolve;
    char *ca_file;
};

enum phase { PHASE_CONNECT, PHASE_SEND, PHASE_FIRST_BYTE, PHASE_BODY };

struct transfer {
    struct http *http;
    const struct http_request *request;
    struct multi *multi; /* NULL: not added */
    CURL *easy;
    struct curl_slist *headers;
    struct wait wait;
    struct timer timer;
    struct resolve_host *host; /* this call is its pioneer */
    enum phase phase;
    const char *limit; /* which one was reached; NULL: none */
    uint64_t limit_ms, connect_ms, first_byte_ms, idle_ms;
    uint64_t last_ms; /* of the phase's begin or the last read */
    int64_t sent;     /* bytes of the body, when last looked */
    bool done;        /* curl has ended it with `result` */
    bool too_large, refused;
    CURLcode result;
    struct buf head; /* "name\0value\0"… */
    size_t head_count;
    struct buf body;
    int code; /* of the steps on the loop's stack */
    struct error *err;
    char *name;     /* the host */
    char where[96]; /* scheme, host and port, for messages */
};

/* Ending a transfer */

static void detach(struct transfer *transfer)
{
    if (!transfer->multi)
        return;
    struct multi *multi = transfer->multi;
    transfer->multi = NULL;
    multi->in_flight--;
    timer_stop(&transfer->timer);
    curl_multi_remove_handle(multi->curl, transfer->easy);
}

static void read_messages(struct multi *multi)
{
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(multi->curl, &left))) {
        if (message->msg != CURLMSG_DONE)
            continue;
        CURLcode result = message->data.result;
        struct transfer *transfer = NULL;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
        transfer->done = true;
        transfer->result = result;
        detach(transfer);
        wait_wake(&transfer->wait, MR_OK);
    }
}

/* Sockets and timers of curl */

static void multi_drive(struct multi *multi, curl_socket_t fd, int events)
{
    int running;
    curl_multi_socket_action(multi->curl, fd, events, &running);
    read_messages(multi);
}

static struct socket *socket_find(const struct http *http, int fd)
{
    return fd >= 0 && (size_t)fd < http->socket_cap ? http->sockets[fd] : NULL;
}

static struct socket *socket_get(struct http *http, int fd)
{
    struct socket *sock = socket_find(http, fd);
    if (sock)
        return sock;
    if ((size_t)fd >= http->socket_cap) {
        size_t cap = http->socket_cap ? http->socket_cap : 64;
        while (cap <= (size_t)fd)
            cap *= 2;
        http->sockets = mem_resize(http->sockets, cap, sizeof(struct socket *));
        memset(http->sockets + http->socket_cap, 0,
               (cap - http->socket_cap) * sizeof(struct socket *));
        http->socket_cap = cap;
    }
    sock = mem_zalloc(sizeof(*sock));
    sock->http = http;
    sock->fd = fd;
    http->sockets[fd] = sock;
    return sock;
}

static void socket_drop(struct socket *sock)
{
    sock->http->sockets[sock->fd] = NULL;
    poll_close(sock->poll);
    free(sock);
}

static void on_socket_event(void *arg, int status, int events)
{
    struct socket *sock = arg;
    struct http *http = sock->http;
    int fd = sock->fd, curl_events = 0;
    if (status < 0)
        curl_events = CURL_CSELECT_ERR;
    if (events & UV_READABLE)
        curl_events |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        curl_events |= CURL_CSELECT_OUT;
    multi_drive(sock->multi, fd, curl_events);
    /* libuv stops watching after an error; curl, which is told only of changes, may want more. */
    sock = socket_find(http, fd);
    if (status < 0 && sock && sock->poll && sock->wanted)
        poll_set(sock->poll, sock->wanted);
}

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *unused)
{
    (void)easy, (void)unused;
    struct multi *multi = arg;
    if (what == CURL_POLL_REMOVE) {
        struct socket *sock = socket_find(multi->http, fd);
        if (!sock)
            return 0;
        sock->wanted = 0;
        if (!sock->has_closing)
            socket_drop(sock);
        else if (sock->poll)
            poll_set(sock->poll, 0);
        return 0;
    }
    struct socket *sock = socket_get(multi->http, fd);
    sock->multi = multi;
    sock->wanted =
        (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    if (!sock->poll)
        sock->poll = poll_open(multi->http->loop, fd, on_socket_event, sock);
    /* Without a poll handle nothing will come of it: the transfer ends by its time limits. */
    return sock->poll && poll_set(sock->poll, sock->wanted) == MR_OK ? 0 : -1;
}

static void on_timer(struct timer *timer)
{
    multi_drive(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

static int on_curl_timer(CURLM *curl, long in_ms, void *arg)
{
    (void)curl;
    struct multi *multi = arg;
    if (in_ms < 0)
        timer_stop(&multi->timer);
    else
        timer_start(&multi->timer, multi->http->loop, (uint64_t)in_ms, on_timer);
    return 0;
}

static curl_socket_t on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *addr)
{
    struct transfer *transfer = arg;
    (void)purpose;
    if (transfer->host) {
        resolve_end(transfer->host, RESOLVE_KNOWN);
        transfer->host = NULL;
    }
    if (transfer->request->guard && !guard_allows(&transfer->http->guard, &addr->addr)) {
        transfer->refused = true;
        return CURL_SOCKET_BAD;
    }
    int fd = socket(addr->family, addr->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, addr->protocol);
    if (fd < 0)
        return CURL_SOCKET_BAD;
    struct socket *stale = socket_find(transfer->http, fd);
    if (stale)
        socket_drop(stale);
    socket_get(transfer->http, fd)->has_closing = true;
    return fd;
}

static int on_close_socket(void *arg, curl_socket_t fd)
{
    struct socket *sock = socket_find(arg, fd);
    if (sock)
        socket_drop(sock);
    return close(fd);
}

/* The time limits */

static void end_by_limit(struct transfer *transfer, const char *limit, uint64_t limit_ms)
{
    transfer->limit = limit;
    transfer->limit_ms = limit_ms;
    wait_wake(&transfer->wait, MR_E_TIMEOUT);
}

static void on_limit(struct timer *timer);

static void watch_limit(struct transfer *transfer, uint64_t in_ms)
{
    timer_start(&transfer->timer, transfer->http->loop, in_ms, on_limit);
}

static void enter_phase(struct transfer *transfer, enum phase phase)
{
    transfer->phase = phase;
    transfer->last_ms = clock_now_ms();
    switch (phase) {
    case PHASE_CONNECT:
        watch_limit(transfer, transfer->connect_ms);
        break;
    case PHASE_SEND:
        transfer->sent = 0;
        watch_limit(transfer,
                    transfer->idle_ms < SEND_CHECK_MS ? transfer->idle_ms : SEND_CHECK_MS);
        break;
    case PHASE_FIRST_BYTE:
        watch_limit(transfer, transfer->first_byte_ms);
        break;
    case PHASE_BODY:
        watch_limit(transfer, transfer->idle_ms);
        break;
    }
}

static void look_at_sending(struct transfer *transfer, uint64_t since_ms)
{
    curl_off_t sent = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_SIZE_UPLOAD_T, &sent);
    if (sent >= (curl_off_t)transfer->request->body_len) {
        enter_phase(transfer, PHASE_FIRST_BYTE);
        return;
    }
    if (sent > transfer->sent) {
        transfer->sent = sent;
        transfer->last_ms = clock_now_ms();
    } else if (since_ms >= transfer->idle_ms) {
        end_by_limit(transfer, "idle limit: the other side stopped reading the request",
                     transfer->idle_ms);
        return;
    }
    watch_limit(transfer, transfer->idle_ms < SEND_CHECK_MS ? transfer->idle_ms : SEND_CHECK_MS);
}

static void on_limit(struct timer *timer)
{
    struct transfer *transfer = timer->data;
    uint64_t now_ms = clock_now_ms();
    uint64_t since_ms = now_ms > transfer->last_ms ? now_ms - transfer->last_ms : 0;
    switch (transfer->phase) {
    case PHASE_CONNECT:
        end_by_limit(transfer, "connect limit: no connection", transfer->connect_ms);
        break;
    case PHASE_SEND:
        look_at_sending(transfer, since_ms);
        break;
    case PHASE_FIRST_BYTE:
        end_by_limit(transfer, "first byte limit: no answer", transfer->first_byte_ms);
        break;
    case PHASE_BODY:
        if (since_ms < transfer->idle_ms)
            watch_limit(transfer, transfer->idle_ms - since_ms);
        else
            end_by_limit(transfer, "idle limit: the answer stopped", transfer->idle_ms);
        break;
    }
}

/* curl's callbacks for a transfer */

static int on_connected(void *arg, char *remote, char *local, int remote_port, int local_port)
{
    (void)remote, (void)local, (void)remote_port, (void)local_port;
    struct transfer *transfer = arg;
    if (transfer->host) { /* a kept connection: nothing was resolved */
        resolve_end(transfer->host, RESOLVE_OPEN);
        transfer->host = NULL;
    }
    enter_phase(transfer,
                transfer->request->body_len > SENT_AT_ONCE ? PHASE_SEND : PHASE_FIRST_BYTE);
    return CURL_PREREQFUNC_OK;
}

static void note_read(struct transfer *transfer)
{
    if (transfer->phase == PHASE_BODY)
        transfer->last_ms = clock_now_ms();
    else
        enter_phase(transfer, PHASE_BODY);
}

static size_t on_header(char *data, size_t unit, size_t count, void *arg)
{
    struct transfer *transfer = arg;
    size_t len = unit * count, end = len;
    note_read(transfer);
    while (end > 0 && (data[end - 1] == '\r' || data[end - 1] == '\n'))
        end--;
    if (end >= 5 && memcmp(data, "HTTP/", 5) == 0) { /* what came before was an interim answer */
        buf_clear(&transfer->head);
        transfer->head_count = 0;
        return len;
    }
    const char *colon = memchr(data, ':', end);
    if (!colon || colon == data || memchr(data, '\0', end))
        return len;
    size_t name_len = (size_t)(colon - data), at = name_len + 1;
    while (at < end && (data[at] == ' ' || data[at] == '\t'))
        at++;
    while (end > at && (data[end - 1] == ' ' || data[end - 1] == '\t'))
        end--;
    size_t start = transfer->head.len;
    buf_add(&transfer->head, data, name_len);
    for (size_t i = start; i < transfer->head.len; i++)
        transfer->head.data[i] = (char)tolower((unsigned char)transfer->head.data[i]);
    buf_add_char(&transfer->head, '\0');
    buf_add(&transfer->head, data + at, end - at);
    buf_add_char(&transfer->head, '\0');
    transfer->head_count++;
    if (transfer->head.failed) {
        transfer->too_large = true;
        return 0;
    }
    return len;
}

static size_t on_body(char *data, size_t unit, size_t count, void *arg)
{
    struct transfer *transfer = arg;
    size_t len = unit * count;
    note_read(transfer);
    if (!buf_add(&transfer->body, data, len)) {
        transfer->too_large = true;
        return 0;
    }
    return len;
}

/* Preparing */

static bool is_clean(const char *text)
{
    for (; *text; text++)
        if (((unsigned char)*text < 0x20 && *text != '\t') || *text == 0x7F)
            return false;
    return true;
}

/* RFC 9110 section 5.6.2. */
static bool is_token(const char *text)
{
    if (!*text)
        return false;
    for (; *text; text++)
        if (!isalnum((unsigned char)*text) && !strchr("!#$%&'*+-.^_`|~", *text))
            return false;
    return true;
}

static bool add_header(struct transfer *transfer, const char *name, const char *value)
{
    /* A name with a semicolon is how curl is told to send a header without a value. */
    mem_auto char *line = *value ? mem_format("%s: %s", name, value) : mem_format("%s;", name);
    struct curl_slist *list = curl_slist_append(transfer->headers, line);
    explicit_bzero(line, strlen(line));
    if (!list)
        return false;
    transfer->headers = list;
    return true;
}

static bool has_header(const struct http_request *request, const char *name)
{
    for (size_t i = 0; i < request->header_count; i++)
        if (strcasecmp(request->headers[i].name, name) == 0)
            return true;
    return false;
}

static int make_headers(struct transfer *transfer)
{
    const struct http_request *request = transfer->request;
    bool fits = true;
    for (size_t i = 0; i < request->header_count; i++) {
        const struct http_header *header = &request->headers[i];
        if (!is_token(header->name))
            return error_set(transfer->err, MR_E_SCHEMA, "header %zu has a name that is no token",
                             i);
        if (!is_clean(header->value))
            return error_set(transfer->err, MR_E_SCHEMA,
                             "the value of header \"%s\" has a control byte in it", header->name);
        fits = fits && add_header(transfer, header->name, header->value);
    }
    if (request->bearer) {
        if (!is_clean(request->bearer))
            return error_set(transfer->err, MR_E_SCHEMA, "the key has a control byte in it");
        mem_auto char *value = mem_format("Bearer %s", request->bearer);
        fits = fits && add_header(transfer, "Authorization", value);
        explicit_bzero(value, strlen(value));
    }
    /* "Name:" takes out what curl would add by itself. */
    const char *const unwanted[] = {"Expect:", "Content-Type:"};
    for (size_t i = 0; i < 2 && fits; i++) {
        if (i == 1 && has_header(request, "content-type"))
            continue;
        struct curl_slist *list = curl_slist_append(transfer->headers, unwanted[i]);
        fits = list != NULL;
        transfer->headers = list ? list : transfer->headers;
    }
    return fits ? MR_OK : error_set(transfer->err, MR_E_INTERNAL, "out of memory");
}

/* Reads scheme, host and port; the address itself goes to curl as it is. */
static int read_url(struct transfer *transfer)
{
    CURLU *url = curl_url();
    char *scheme = NULL, *host = NULL, *port = NULL;
    bool good = url && transfer->request->url &&
                curl_url_set(url, CURLUPART_URL, transfer->request->url,
                             CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK &&
                curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
                curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK && *host;
    int code = MR_OK;
    if (!good) {
        code = error_set(transfer->err, MR_E_SCHEMA, "the address of the call is no URL");
    } else if (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0) {
        code =
            error_set(transfer->err, MR_E_SCHEMA, "the address of the call is not http or https");
    } else {
        bool has_port = curl_url_get(url, CURLUPART_PORT, &port, 0) == CURLUE_OK;
        snprintf(transfer->where, sizeof(transfer->where), "%s://%.64s%s%s", scheme, host,
                 has_port ? ":" : "", has_port ? port : "");
        transfer->name = mem_dup(host);
    }
    if (code != MR_OK)
        error_hint(transfer->err, "write it as http://HOST/PATH or https://HOST/PATH");
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(url);
    return code;
}

static void check_on_loop(void *arg)
{
    struct transfer *transfer = arg;
    const char *method = transfer->request->method;
    transfer->code = MR_OK;
    if (method && !is_token(method))
        transfer->code =
            error_set(transfer->err, MR_E_SCHEMA, "the method of the call is no token");
    if (transfer->code == MR_OK)
        transfer->code = read_url(transfer);
    if (transfer->code == MR_OK)
        transfer->code = make_headers(transfer);
}

static void set_method(struct transfer *transfer)
{
    const struct http_request *request = transfer->request;
    CURL *easy = transfer->easy;
    const char *method = request->method;
    bool has_body = request->body != NULL;
    if (!method)
        method = has_body ? "POST" : "GET";
    if (strcmp(method, "HEAD") == 0) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
        return;
    }
    bool is_post = strcmp(method, "POST") == 0;
    if (has_body || is_post) {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_len);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, has_body ? request->body : "");
    }
    if (!(is_post || (strcmp(method, "GET") == 0 && !has_body)))
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
}

static void set_options(struct transfer *transfer, bool is_tls)
{
    struct http *http = transfer->http;
    CURL *easy = transfer->easy;
    curl_easy_setopt(easy, CURLOPT_URL, transfer->request->url);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
    curl_easy_setopt(easy, CURLOPT_SHARE, http->share);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
    /* Else removing a handle whose name is being resolved would block until the thread is done. */
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
#endif
    /* Over TLS the version is agreed on in the handshake: then many calls share a connection. */
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
                     (long)(is_tls ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1));
    curl_easy_setopt(easy, CURLOPT_PIPEWAIT, is_tls ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_DNS_CACHE_TIMEOUT, RESOLVE_CACHE_S);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)READ_BUFFER);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "millrace/" MR_VERSION);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer->headers);
    curl_easy_setopt(easy, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)transfer->body.max);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_connected);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, http);
    if (http->ca_file)
        curl_easy_setopt(easy, CURLOPT_CAINFO, http->ca_file);
    /* With a folder besides the file curl reads the file anew for each connection (20 ms). */
    if (http->ca_file || curl_version_info(CURLVERSION_NOW)->cainfo)
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
}

static struct multi *multi_choose(struct http *http, bool guarded)
{
    struct multi *first = http->multis + (guarded ? http->open_count : 0), *least = first;
    size_t count = guarded ? http->guarded_count : http->open_count;
    for (struct multi *multi = first; multi < first + count; multi++) {
        if (multi->in_flight < http->share_of_each)
            return multi;
        if (multi->in_flight < least->in_flight)
            least = multi;
    }
    return least;
}

static void add_on_loop(void *arg)
{
    struct transfer *transfer = arg;
    struct http *http = transfer->http;
    transfer->easy = http->spares > 0 ? http->spare[--http->spares] : curl_easy_init();
    if (!transfer->easy) {
        transfer->code = error_set(transfer->err, MR_E_INTERNAL, "no curl handle");
        return;
    }
    set_options(transfer, strncmp(transfer->where, "https:", 6) == 0);
    set_method(transfer);
    struct multi *multi = multi_choose(http, transfer->request->guard);
    CURLMcode code = curl_multi_add_handle(multi->curl, transfer->easy);
    if (code != CURLM_OK) {
        transfer->code =
            error_set(transfer->err, MR_E_INTERNAL, "curl: %s", curl_multi_strerror(code));
        return;
    }
    transfer->multi = multi;
    multi->in_flight++;
    enter_phase(transfer, PHASE_CONNECT);
}

/* The outcome */

static int code_of(CURLcode result)
{
    switch (result) {
    case CURLE_URL_MALFORMAT:
        return MR_E_SCHEMA;
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_INTERFACE_FAILED:
        return MR_E_CONNECT;
    case CURLE_OPERATION_TIMEDOUT:
        return MR_E_TIMEOUT;
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_SEND_FAIL_REWIND:
    case CURLE_AGAIN:
        return MR_E_RESET;
    case CURLE_UNSUPPORTED_PROTOCOL: /* an answer of HTTP/0.9 */
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_FILESIZE_EXCEEDED:
    case CURLE_BAD_CONTENT_ENCODING:
    case CURLE_WRITE_ERROR:
        return MR_E_BAD_RESPONSE;
    default:
        return MR_E_INTERNAL;
    }
}

static const char *headline_of(int code)
{
    switch (code) {
    case MR_E_SCHEMA:
        return "bad address";
    case MR_E_CONNECT:
        return "no connection";
    case MR_E_TIMEOUT:
        return "time-out";
    case MR_E_RESET:
        return "the connection broke";
    case MR_E_BAD_RESPONSE:
        return "the answer could not be understood";
    default:
        return "curl failed";
    }
}

static int explain(struct transfer *transfer)
{
    struct error *err = transfer->err;
    if (transfer->too_large || transfer->result == CURLE_FILESIZE_EXCEEDED) {
        if (transfer->head.failed)
            return error_set(err, MR_E_BAD_RESPONSE, "%s: the header is larger than %u bytes",
                             transfer->where, LIMIT_HTTP_HEADERS);
        return error_set(err, MR_E_BAD_RESPONSE, "%s: the answer is larger than %zu bytes",
                         transfer->where, transfer->body.max);
    }
    if (transfer->refused && code_of(transfer->result) == MR_E_CONNECT) {
        error_set(err, MR_E_SCHEMA, "%s: the address is not open to calls from users",
                  transfer->where);
        error_hint(err, "private, loopback and link-local addresses are refused; "
                        "limits.address_allow opens networks");
        return MR_E_SCHEMA;
    }
    int code = code_of(transfer->result);
    return error_set(err, code, "%s: %s: %s", transfer->where, headline_of(code),
                     curl_easy_strerror(transfer->result));
}

static void take_reply(struct transfer *transfer, struct http_reply *ret_reply)
{
    struct http_reply reply = {.header_count = transfer->head_count};
    long status = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    reply.status = (int)status;
    reply.body_len = transfer->body.len;
    reply.body = reply.body_len ? buf_take(&transfer->body) : mem_dup("");
    if (reply.header_count) {
        reply.headers = mem_alloc(reply.header_count * sizeof(*reply.headers));
        reply.header_text = buf_take(&transfer->head);
        char *at = reply.header_text;
        for (size_t i = 0; i < reply.header_count; i++) {
            reply.headers[i].name = at;
            at += strlen(at) + 1;
            reply.headers[i].value = at;
            at += strlen(at) + 1;
        }
    }
    *ret_reply = reply;
}

static void end_on_loop(void *arg)
{
    struct transfer *transfer = arg;
    struct http *http = transfer->http;
    detach(transfer);
    if (transfer->host) {
        resolve_end(transfer->host, transfer->done && transfer->result == CURLE_COULDNT_RESOLVE_HOST
                                        ? RESOLVE_FAILED
                                        : RESOLVE_OPEN);
        transfer->host = NULL;
    }
    if (transfer->easy) {
        if (http->spares < SPARE_EASY) {
            curl_easy_reset(transfer->easy);
            http->spare[http->spares++] = transfer->easy;
        } else {
            curl_easy_cleanup(transfer->easy);
        }
        transfer->easy = NULL;
    }
    for (struct curl_slist *each = transfer->headers; each; each = each->next)
        explicit_bzero(each->data, strlen(each->data)); /* keys */
    curl_slist_free_all(transfer->headers);
    buf_done(&transfer->head);
    buf_done(&transfer->body);
    free(transfer->name);
}

/* What came of the wait, as a code and a message. */
static int judge(struct transfer *transfer, int code, uint64_t timeout_ms)
{
    if (transfer->limit)
        return error_set(transfer->err, MR_E_TIMEOUT, "%s: %s within %llu ms", transfer->where,
                         transfer->limit, (unsigned long long)transfer->limit_ms);
    if (transfer->wait.expired)
        return error_set(transfer->err, MR_E_TIMEOUT, "%s: total limit: not done within %llu ms",
                         transfer->where, (unsigned long long)timeout_ms);
    return error_set(transfer->err, code, "%s: the call was ended from our side", transfer->where);
}

static int run(struct transfer *transfer, uint64_t timeout_ms, struct http_reply *ret_reply)
{
    struct http *http = transfer->http;
    fiber_on_loop(check_on_loop, transfer);
    if (transfer->code != MR_OK)
        return transfer->code;
    uint64_t begin_ms = clock_now_ms();
    uint64_t connect_ms = timeout_ms < transfer->connect_ms ? timeout_ms : transfer->connect_ms;
    int code = resolve_begin(&http->resolve, transfer->name, connect_ms, &transfer->host);
    if (code == MR_E_CONNECT)
        return error_set(transfer->err, code, "%s: no connection: the name was not resolved",
                         transfer->where);
    if (code != MR_OK)
        return error_set(transfer->err, code, "%s: no connection: waited for the name's address",
                         transfer->where);
    uint64_t spent_ms = clock_now_ms() - begin_ms;
    if (spent_ms >= timeout_ms)
        spent_ms = timeout_ms - 1;
    wait_init(&transfer->wait, http->loop);
    fiber_on_loop(add_on_loop, transfer);
    if (transfer->code != MR_OK)
        return transfer->code;
    code = wait_for(&transfer->wait, timeout_ms - spent_ms);
    if (!transfer->done)
        return judge(transfer, code, timeout_ms);
    if (code != MR_OK && !transfer->limit && !transfer->wait.expired)
        return judge(transfer, code, timeout_ms); /* cancelled in the turn in which it ended */
    if (transfer->result != CURLE_OK)
        return explain(transfer);
    take_reply(transfer, ret_reply);
    return MR_OK;
}

static uint64_t or_else(uint64_t ms, uint64_t fallback_ms)
{
    return ms ? ms : fallback_ms;
}

int http_fetch(struct http *http, const struct http_request *request, struct http_reply *ret_reply,
               struct error *err)
{
    struct transfer transfer = {
        .http = http,
        .request = request,
        .err = err,
        .connect_ms = or_else(request->connect_ms, CONNECT_MS),
        .first_byte_ms = or_else(request->first_byte_ms, FIRST_BYTE_MS),
        .idle_ms = or_else(request->idle_ms, IDLE_MS),
    };
    transfer.timer.data = &transfer;
    buf_init(&transfer.head, LIMIT_HTTP_HEADERS);
    buf_init(&transfer.body, request->max_bytes ? request->max_bytes : LIMIT_BODY_BYTES);
    http->in_flight++;
    int code = run(&transfer, or_else(request->timeout_ms, TIMEOUT_MS), ret_reply);
    fiber_on_loop(end_on_loop, &transfer);
    http->in_flight--;
    return code;
}

void http_reply_done(struct http_reply *reply)
{
    free(reply->body);
    free(reply->headers);
    free(reply->header_text);
    *reply = (struct http_reply){0};
}

const char *http_reply_header(const struct http_reply *reply, const char *name)
{
    for (size_t i = 0; i < reply->header_count; i++)
        if (strcmp(reply->headers[i].name, name) == 0)
            return reply->headers[i].value;
    return NULL;
}

size_t http_in_flight(const struct http *http)
{
    return http->in_flight;
}

/* Opening and closing */

static bool multi_init(struct multi *multi, struct http *http, long connections)
{
    *multi = (struct multi){.http = http, .curl = curl_multi_init()};
    multi->timer.data = multi;
    if (!multi->curl)
        return false;
    curl_multi_setopt(multi->curl, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
    curl_multi_setopt(multi->curl, CURLMOPT_SOCKETDATA, multi);
    curl_multi_setopt(multi->curl, CURLMOPT_TIMERFUNCTION, on_curl_timer);
    curl_multi_setopt(multi->curl, CURLMOPT_TIMERDATA, multi);
    curl_multi_setopt(multi->curl, CURLMOPT_MAXCONNECTS, connections);
    curl_multi_setopt(multi->curl, CURLMOPT_MAX_CONCURRENT_STREAMS, 1000L);
    return true;
}

void http_close(struct http *http)
{
    if (!http)
        return;
    while (http->spares > 0)
        curl_easy_cleanup(http->spare[--http->spares]);
    for (size_t i = 0; http->multis && i < http->open_count + http->guarded_count; i++) {
        curl_multi_cleanup(http->multis[i].curl);
        timer_stop(&http->multis[i].timer);
    }
    if (http->share)
        curl_share_cleanup(http->share);
    for (size_t fd = 0; fd < http->socket_cap; fd++)
        if (http->sockets[fd])
            socket_drop(http->sockets[fd]);
    free(http->sockets);
    free(http->multis);
    free(http->ca_file);
    resolve_done(&http->resolve);
    guard_done(&http->guard);
    free(http);
    curl_global_cleanup();
}

int http_open(struct loop *loop, const struct http_config *config, struct http **ret_http,
              struct error *err)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return error_set(err, MR_E_INTERNAL, "curl could not be initialised");
    struct http *http = mem_zalloc(sizeof(*http));
    http->loop = loop;
    resolve_init(&http->resolve, loop);
    int code = guard_init(&http->guard, config->allow, err);
    if (code != MR_OK) {
        http_close(http);
        return code;
    }
    size_t handles = config->handles ? config->handles : LIMIT_HTTP_HANDLES;
    size_t peak = config->in_flight_max ? config->in_flight_max : 1000;
    http->open_count = handles;
    http->guarded_count = (handles + 3) / 4;
    http->share_of_each = (peak + handles - 1) / handles;
    http->ca_file = config->ca_file ? mem_dup(config->ca_file) : NULL;
    http->share = curl_share_init();
    http->multis = mem_zalloc((http->open_count + http->guarded_count) * sizeof(struct multi));
    bool good = http->share != NULL;
    if (good) {
        curl_share_setopt(http->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
        curl_share_setopt(http->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
    }
    for (size_t i = 0; good && i < http->open_count + http->guarded_count; i++) {
        /* The guarded ones are fewer, and may get all of the calls. */
        size_t most = i < http->open_count ? http->share_of_each : peak / http->guarded_count + 1;
        good = multi_init(&http->multis[i], http, (long)(most + most / 2 + 8));
    }
    if (!good) {
        http_close(http);
        return error_set(err, MR_E_INTERNAL, "curl could not be initialised");
    }
    *ret_http = http;
    return MR_OK;
}
