/* bench-load: submits many jobs and says how fast they were taken. A load generator that costs
 * little beside what it measures: one thread, epoll, one request in flight a connection, no JSON
 * library.
 *
 * Over HTTP connections are kept; over FastCGI each request has a connection of its own, as
 * lighttpd does it. Each body is the template with every `%` replaced by the number of the job, so
 * that each job has an id of its own. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { REPLY_MAX = 256 * 1024, STATUS_MAX = 600, EVENTS = 256 };

struct connection {
    int fd;
    char *out;
    size_t out_len, out_sent;
    char *in;
    size_t in_len;
    bool is_busy;
};

struct load {
    struct sockaddr_in http;
    struct sockaddr_un fcgi;
    bool is_fcgi;
    const char *path, *template;
    uint64_t count, first, begun, ended, broken, statuses[STATUS_MAX];
    size_t connection_count;
    struct connection *connections;
    int epoll;
};

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "bench-load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static size_t fill(const struct load *load, uint64_t number, char *out, size_t size)
{
    size_t n = 0;
    for (const char *p = load->template; *p; p++) {
        if (*p == '%')
            n += (size_t)snprintf(out + n, size - n, "%llu", (unsigned long long)number);
        else if (n + 1 < size)
            out[n++] = *p;
        if (n + 32 >= size) {
            fputs("bench-load: the template is too long\n", stderr);
            exit(2);
        }
    }
    return n;
}

/* ---- FastCGI 1.0, sections 3.3, 3.4, 5 ---- */

static size_t record(char *out, unsigned kind, const char *data, size_t len)
{
    const unsigned char head[8] = {
        1, (unsigned char)kind, 0, 1, (unsigned char)(len >> 8), (unsigned char)len, 0, 0};
    memcpy(out, head, 8);
    memcpy(out + 8, data, len);
    return 8 + len;
}

static size_t param(char *out, const char *name, const char *value)
{
    size_t a = strlen(name), b = strlen(value); /* both under 128 here */
    out[0] = (char)a;
    out[1] = (char)b;
    memcpy(out + 2, name, a);
    memcpy(out + 2 + a, value, b);
    return 2 + a + b;
}

static size_t fcgi_request(const struct load *load, const char *body, size_t len, char *out)
{
    char params[1024], length[24];
    size_t n = 0, p = 0;
    snprintf(length, sizeof length, "%zu", len);
    n += record(out, 1, "\0\1\0\0\0\0\0\0", 8);
    p += param(params + p, "REQUEST_METHOD", "POST");
    p += param(params + p, "REQUEST_URI", load->path);
    p += param(params + p, "SCRIPT_NAME", load->path);
    p += param(params + p, "CONTENT_TYPE", "application/json");
    p += param(params + p, "CONTENT_LENGTH", length);
    p += param(params + p, "SERVER_PROTOCOL", "HTTP/1.1");
    n += record(out + n, 4, params, p);
    n += record(out + n, 4, "", 0);
    for (size_t at = 0; at < len; at += 60000)
        n += record(out + n, 5, body + at, len - at < 60000 ? len - at : 60000);
    return n + record(out + n, 5, "", 0);
}

static size_t http_request(const struct load *load, const char *body, size_t len, char *out)
{
    int head = sprintf(out,
                       "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: "
                       "application/json\r\nContent-Length: %zu\r\n\r\n",
                       load->path, len);
    memcpy(out + head, body, len);
    return (size_t)head + len;
}

/* ---- connections ---- */

static void dial(struct load *load, struct connection *c)
{
    int one = 1;
    c->fd = socket(load->is_fcgi ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket");
    const struct sockaddr *to =
        load->is_fcgi ? (const struct sockaddr *)&load->fcgi : (const struct sockaddr *)&load->http;
    socklen_t size = load->is_fcgi ? sizeof load->fcgi : sizeof load->http;
    while (connect(c->fd, to, size) < 0) {
        if (errno != EINTR && errno != EAGAIN)
            die("connect");
    }
    if (!load->is_fcgi)
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, c->fd, &event) < 0)
        die("epoll_ctl");
}

static void flush(struct load *load, struct connection *c)
{
    while (c->out_sent < c->out_len) {
        ssize_t n = send(c->fd, c->out + c->out_sent, c->out_len - c->out_sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            c->out_sent = c->out_len; /* the read side says what became of it */
            break;
        }
        c->out_sent += (size_t)n;
    }
    struct epoll_event event = {.events = EPOLLIN | (c->out_sent < c->out_len ? EPOLLOUT : 0u),
                                .data.ptr = c};
    epoll_ctl(load->epoll, EPOLL_CTL_MOD, c->fd, &event);
}

static void begin(struct load *load, struct connection *c)
{
    if (load->begun == load->count)
        return;
    static char body[REPLY_MAX / 2];
    size_t len = fill(load, load->first + load->begun++, body, sizeof body);
    if (c->fd < 0)
        dial(load, c);
    c->out_len = load->is_fcgi ? fcgi_request(load, body, len, c->out)
                               : http_request(load, body, len, c->out);
    c->out_sent = c->in_len = 0;
    c->is_busy = true;
    flush(load, c);
}

static void hang_up(struct connection *c)
{
    close(c->fd);
    c->fd = -1;
}

static void end(struct load *load, struct connection *c, unsigned status)
{
    load->statuses[status < STATUS_MAX ? status : 0]++;
    load->ended++;
    c->is_busy = false;
    begin(load, c);
}

/* The status when the reply is there whole, 0 while it is not. */
static unsigned http_status(struct connection *c)
{
    c->in[c->in_len] = '\0';
    const char *head_end = strstr(c->in, "\r\n\r\n");
    if (!head_end)
        return 0;
    size_t head = (size_t)(head_end - c->in) + 4;
    const char *length = strcasestr(c->in, "\r\ncontent-length:");
    if (length && length < head_end) {
        if (c->in_len < head + strtoul(length + 17, NULL, 10))
            return 0;
    } else if (c->in_len < head + 5 || memcmp(c->in + c->in_len - 5, "0\r\n\r\n", 5) != 0) {
        return 0; /* chunked: a small JSON body holds no such line */
    }
    return (unsigned)strtoul(c->in + 9, NULL, 10);
}

static unsigned fcgi_status(struct connection *c)
{
    c->in[c->in_len] = '\0';
    if (c->in_len < 16)
        return 0;
    return strncmp(c->in + 8, "Status: ", 8) == 0 ? (unsigned)strtoul(c->in + 16, NULL, 10) : 200;
}

static void receive(struct load *load, struct connection *c)
{
    for (;;) {
        ssize_t n = recv(c->fd, c->in + c->in_len, REPLY_MAX - 1 - c->in_len, 0);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            bool was_busy = c->is_busy;
            unsigned status = load->is_fcgi ? fcgi_status(c) : 0;
            hang_up(c);
            if (was_busy) {
                load->broken += status == 0;
                end(load, c, status);
            }
            return;
        }
        c->in_len += (size_t)n;
        if (c->in_len >= REPLY_MAX - 1)
            die("a reply is too long");
    }
    unsigned status = load->is_fcgi || !c->is_busy ? 0 : http_status(c);
    if (status)
        end(load, c, status);
}

static void run(struct load *load)
{
    struct epoll_event events[EVENTS];
    for (size_t i = 0; i < load->connection_count; i++) {
        struct connection *c = &load->connections[i];
        *c = (struct connection){.fd = -1, .out = malloc(REPLY_MAX), .in = malloc(REPLY_MAX)};
        if (!c->out || !c->in)
            die("malloc");
        begin(load, c);
    }
    while (load->ended < load->count) {
        int n = epoll_wait(load->epoll, events, EVENTS, 60000);
        if (n == 0) {
            errno = ETIMEDOUT;
            die("no reply for a minute");
        }
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                flush(load, c);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) && c->fd >= 0)
                receive(load, c);
        }
    }
}

static void usage(FILE *out)
{
    fputs("usage: bench-load (--http HOST:PORT | --fcgi SOCKET) --body TEMPLATE [options]\n\n"
          "  --body TEMPLATE   every % becomes the number of the job; @FILE reads it\n"
          "  --count N         jobs to submit, default 1000\n"
          "  --first N         number of the first one, default 0\n"
          "  --connections N   at a time, default 64\n"
          "  --path PATH       default /api/v1/jobs\n\n"
          "Prints one JSON object: count, seconds, per_second, the statuses, and begin and end by "
          "CLOCK_MONOTONIC.\n",
          out);
}

static char *read_template(const char *from)
{
    if (*from != '@')
        return strdup(from);
    FILE *file = fopen(from + 1, "r");
    char *text = calloc(1, REPLY_MAX / 2);
    if (!file || !text)
        die(from + 1);
    size_t n = fread(text, 1, REPLY_MAX / 2 - 1, file);
    while (n > 0 && text[n - 1] == '\n')
        text[--n] = '\0';
    fclose(file);
    return text;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"http", 1, NULL, 'h'},        {"fcgi", 1, NULL, 'f'},  {"body", 1, NULL, 'b'},
        {"count", 1, NULL, 'n'},       {"first", 1, NULL, '1'}, {"path", 1, NULL, 'p'},
        {"connections", 1, NULL, 'c'}, {"help", 0, NULL, '?'},  {NULL, 0, NULL, 0},
    };
    struct load load = {.path = "/api/v1/jobs", .count = 1000, .connection_count = 64};
    bool has_address = false;
    for (int opt; (opt = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        char *colon;
        switch (opt) {
        case 'h':
            colon = strrchr(optarg, ':');
            load.http.sin_family = AF_INET;
            if (colon)
                *colon = '\0';
            if (!colon || inet_pton(AF_INET, optarg, &load.http.sin_addr) != 1) {
                usage(stderr);
                return 2;
            }
            load.http.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
            has_address = true;
            break;
        case 'f':
            load.is_fcgi = has_address = true;
            load.fcgi.sun_family = AF_UNIX;
            snprintf(load.fcgi.sun_path, sizeof load.fcgi.sun_path, "%s", optarg);
            break;
        case 'b':
            load.template = read_template(optarg);
            break;
        case 'n':
            load.count = strtoull(optarg, NULL, 10);
            break;
        case '1':
            load.first = strtoull(optarg, NULL, 10);
            break;
        case 'p':
            load.path = optarg;
            break;
        case 'c':
            load.connection_count = strtoul(optarg, NULL, 10);
            break;
        default:
            usage(optopt ? stderr : stdout);
            return optopt ? 2 : 0;
        }
    }
    if (!has_address || !load.template || load.connection_count == 0) {
        usage(stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    load.connections = calloc(load.connection_count, sizeof *load.connections);
    if (load.epoll < 0 || !load.connections)
        die("epoll");
    double from = now();
    run(&load);
    double to = now();
    printf("{\"count\":%llu,\"seconds\":%.4f,\"per_second\":%.1f,\"begin\":%.6f,\"end\":%.6f,"
           "\"broken\":%llu,\"statuses\":{",
           (unsigned long long)load.count, to - from, (double)load.count / (to - from), from, to,
           (unsigned long long)load.broken);
    const char *comma = "";
    for (unsigned i = 0; i < STATUS_MAX; i++) {
        if (load.statuses[i]) {
            printf("%s\"%u\":%llu", comma, i, (unsigned long long)load.statuses[i]);
            comma = ",";
        }
    }
    puts("}}");
    return 0;
}
