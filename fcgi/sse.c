/* Event streams: see sse.h. Records are those of the FastCGI specification 1.0, section 3.3: eight
 * bytes of header (version 1, type, request id, length, padding 0), then the content. */
#include "fcgi/sse.h"
#include "base/clock.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define RECORD_HEADER      8
#define RECORD_MAX         65528u
#define RECORD_END_REQUEST 3
#define RECORD_STDOUT      6
#define SSE_END_MS         5000u
#define SSE_LOOK_MS        1000u

static void add_record(struct sse *sse, unsigned char type, const char *content, size_t len)
{
    const unsigned char header[RECORD_HEADER] = {1,
                                                 type,
                                                 (unsigned char)(sse->record_id >> 8),
                                                 (unsigned char)sse->record_id,
                                                 (unsigned char)(len >> 8),
                                                 (unsigned char)len,
                                                 0,
                                                 0};
    buf_add(&sse->pending, header, sizeof(header));
    if (len > 0) {
        buf_add(&sse->pending, content, len);
    }
}

static void add_text(struct sse *sse, const char *text, size_t len)
{
    while (len > 0) {
        size_t part = len < RECORD_MAX ? len : RECORD_MAX;
        add_record(sse, RECORD_STDOUT, text, part);
        text += part;
        len -= part;
    }
}

/* Sends what the socket takes; 0: all, 1: some is left, or MR_E_RESET. */
static int push(struct sse *sse)
{
    while (sse->sent < sse->pending.len) {
        ssize_t put = send(sse->fd, sse->pending.data + sse->sent, sse->pending.len - sse->sent,
                           MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put > 0) {
            sse->sent += (size_t)put;
        } else if (errno == EAGAIN) {
            return 1;
        } else if (errno != EINTR) {
            return MR_E_RESET;
        }
    }
    buf_clear(&sse->pending);
    sse->sent = 0;
    return 0;
}

static void writable(void *arg)
{
    struct sse *sse = arg;
    if (sse->waiter != NULL) {
        wait_wake(sse->waiter, MR_OK);
    }
}

/* Waits until everything is taken. A peer that takes a little starts its time anew. */
static int flush(struct sse *sse, uint64_t stall_ms)
{
    if (sse->pending.failed) {
        return MR_E_RESET;
    }
    uint64_t since = clock_now_ms();
    size_t had = sse->sent;
    int rc = 0;
    while ((rc = push(sse)) == 1) {
        uint64_t now = clock_now_ms();
        if (sse->sent != had) {
            had = sse->sent;
            since = now;
        }
        if (now - since >= stall_ms ||
            (sse->backlog != NULL && sse->backlog(sse->backlog_arg) > SSE_BACKLOG_BYTES)) {
            return MR_E_TIMEOUT;
        }
        uint64_t left = stall_ms - (now - since);
        struct wait wait;
        wait_init(&wait, sse->loop);
        sse->waiter = &wait;
        exchange_on_writable(sse->exchange, writable, sse);
        int code = wait_for(&wait, left < SSE_LOOK_MS ? left : SSE_LOOK_MS);
        sse->waiter = NULL;
        exchange_on_writable(sse->exchange, NULL, NULL);
        if (code != MR_OK && !wait.expired) {
            return code;
        }
    }
    return rc;
}

static int finish(struct sse *sse)
{
    if (sse->code == MR_OK) {
        sse->code = flush(sse, sse->stall_ms);
    }
    return sse->code;
}

int sse_open(struct sse *sse, struct loop *loop, struct exchange *exchange)
{
    memset(sse, 0, sizeof(*sse));
    sse->exchange = exchange;
    sse->loop = loop;
    sse->stall_ms = SSE_STALL_MS;
    buf_init(&sse->pending, SSE_QUEUE_BYTES);
    struct response response;
    response_init(&response);
    response_header(&response, "Content-Type", "text/event-stream; charset=utf-8");
    response_header(&response, "X-Accel-Buffering", "no");
    sse->code = exchange_begin_stream(exchange, &response);
    response_done(&response);
    sse->fd = exchange_fd(exchange, &sse->record_id);
    if (sse->code == MR_OK) {
        static const char retry[] = "retry: 3000\n\n";
        add_text(sse, retry, sizeof(retry) - 1);
    }
    return finish(sse);
}

int sse_event(struct sse *sse, uint64_t number, const char *kind, const char *data, size_t len)
{
    if (sse->code != MR_OK) {
        return sse->code;
    }
    buf_auto struct buf text;
    buf_init(&text, SSE_QUEUE_BYTES / 2);
    if (number > 0) {
        buf_format(&text, "id: %llu\n", (unsigned long long)number);
    }
    buf_format(&text, "event: %s\n", kind);
    const char *end = data + len;
    do {
        size_t line = 0;
        while (data + line < end && data[line] != '\n' && data[line] != '\r') {
            line++;
        }
        buf_add_text(&text, "data: ");
        buf_add(&text, data, line);
        buf_add_char(&text, '\n');
        data += line;
        if (data + 1 < end && data[0] == '\r' && data[1] == '\n') {
            data++;
        }
        data++;
    } while (data < end);
    buf_add_char(&text, '\n');
    if (text.failed) {
        sse->code = MR_E_INTERNAL;
        return sse->code;
    }
    add_text(sse, text.data, text.len);
    return finish(sse);
}

int sse_comment(struct sse *sse, const char *comment)
{
    if (sse->code != MR_OK) {
        return sse->code;
    }
    buf_auto struct buf text;
    buf_init(&text, 1024);
    buf_format(&text, ": %s\n\n", comment);
    add_text(sse, text.data, text.len);
    return finish(sse);
}

void sse_close(struct sse *sse)
{
    bool whole = sse->code == MR_OK || sse->code == MR_E_STOPPING;
    if (whole && sse->pending.len == 0) {
        static const char body[RECORD_HEADER] = {0};
        add_record(sse, RECORD_STDOUT, NULL, 0);
        add_record(sse, RECORD_END_REQUEST, body, sizeof(body));
        wait_shield(1);
        whole = flush(sse, SSE_END_MS) == 0;
        wait_shield(-1);
    } else {
        whole = false;
    }
    buf_done(&sse->pending);
    exchange_end_stream(sse->exchange, whole);
}
