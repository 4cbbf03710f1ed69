/*
 * journal: see journal.h. Credentials never get in: an Authorization keeps its scheme only, and of
 * the other headers only those of the list and X-… ones are written, an X- one that names a key
 * redacted.
 */
#include "journal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static uint64_t unix_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

bool journal_init(struct journal *j, const char *file, size_t keep, size_t body_bytes)
{
    *j = (struct journal){.keep = keep, .body_bytes = body_bytes};
    if (file) {
        j->file = fopen(file, "ae");
        if (!j->file)
            return false;
        setvbuf(j->file, NULL, _IOFBF, 1 << 16);
    }
    j->ring = xcalloc(keep, sizeof *j->ring);
    return true;
}

static bool is_kept_header(const char *name, size_t n)
{
    static const char *const names[] = {"traceparent", "idempotency-key", "content-type",
                                        "user-agent",  "accept",          "api-key"};

    if (n > 2 && strncasecmp(name, "x-", 2) == 0)
        return true;
    if (n > 8 && strncasecmp(name, "webhook-", 8) == 0)
        return true;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (n == strlen(names[i]) && strncasecmp(name, names[i], n) == 0)
            return true;
    }
    return false;
}

static void add_header(struct buf *line, const char *name, size_t name_len, const char *value,
                       size_t value_len, bool *first)
{
    bool authorization = name_len == 13 && strncasecmp(name, "authorization", 13) == 0;

    if (!authorization && !is_kept_header(name, name_len))
        return;
    struct buf lower = {0};
    for (size_t i = 0; i < name_len; i++) {
        char c = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] + 32) : name[i];
        buf_add(&lower, &c, 1);
    }
    if (!*first)
        buf_text(line, ",");
    *first = false;
    buf_json(line, lower.p, lower.n);
    buf_text(line, ":");
    if (authorization) {
        const char *space = memchr(value, ' ', value_len);

        if (space)
            buf_json(line, value, (size_t)(space - value));
        else
            buf_text(line, "\"\"");
        line->n--; /* the closing quote */
        buf_text(line, space ? " REDACTED\"" : "REDACTED\"");
    } else if (memmem(lower.p, lower.n, "key", 3) && lower.p[0] != 'i') {
        buf_text(line, "\"REDACTED\""); /* x-api-key and the like, not idempotency-key */
    } else {
        buf_json(line, value, value_len);
    }
    buf_free(&lower);
}

static void add_text(struct journal *j, struct journal_entry *e, struct buf *line,
                     const struct journal_request *q)
{
    const char *text = q->ask->user;
    size_t n = text ? strlen(text) : 0;

    if (!q->ask->root && q->http->body_len > 0) {
        text = q->http->body;
        n = q->http->body_len;
    }
    if (text) {
        n = utf8_clip(text, n, JOURNAL_TEXT_MAX);
        e->text = xstrndup(text, n);
        buf_text(line, ",\"text\":");
        buf_json(line, text, n);
    }
    if (j->body_bytes) {
        buf_text(line, ",\"body\":");
        buf_json(line, q->http->body, utf8_clip(q->http->body, q->http->body_len, j->body_bytes));
    }
}

static void entry_clear(struct journal_entry *e)
{
    free(e->line);
    free(e->text);
    free(e->model);
    *e = (struct journal_entry){.n = 0};
}

void journal_add(struct journal *j, uint64_t n, const struct journal_request *q)
{
    struct journal_entry *e = &j->ring[n % j->keep];
    const struct http_head *head = q->http->head;
    const char *base = q->http->base;
    struct buf line = {0};
    bool first = true;

    entry_clear(e);
    *e = (struct journal_entry){.n = n, .outcome = "pending", .at_ms = unix_ms()};
    j->last = n;
    if (q->ask->model)
        e->model = xstrndup(q->ask->model, strlen(q->ask->model));

    buf_room(&line, 512);
    buf_format(&line, "{\"n\":%llu,\"at\":%llu,\"connection\":%llu,\"in_flight\":%llu,\"method\":",
               (unsigned long long)n, (unsigned long long)e->at_ms,
               (unsigned long long)q->connection, (unsigned long long)q->in_flight);
    buf_json(&line, base + head->method.at, head->method.n);
    buf_text(&line, ",\"path\":");
    buf_json(&line, base + head->path.at, head->path.n);
    if (e->model) {
        buf_text(&line, ",\"model\":");
        buf_json(&line, e->model, strlen(e->model));
    }
    buf_text(&line, ",\"headers\":{");
    for (size_t i = 0; i < head->header_count; i++)
        add_header(&line, base + head->headers[i].name.at, head->headers[i].name.n,
                   base + head->headers[i].value.at, head->headers[i].value.n, &first);
    buf_format(&line, "},\"digest\":\"%016llx\",\"bytes\":%zu,\"images\":%zu,\"stream\":%s",
               (unsigned long long)q->ask->digest, q->http->body_len, q->ask->images,
               q->ask->stream ? "true" : "false");
    add_text(j, e, &line, q);
    if (q->rule)
        buf_format(&line, ",\"rule\":%llu", (unsigned long long)q->rule->id);
    buf_format(&line, ",\"answer\":\"%s\",\"status\":%d,\"latency_ms\":%llu", q->plan->what,
               q->plan->status, (unsigned long long)q->plan->latency_ms);
    if (j->file) {
        fwrite(line.p, 1, line.n, j->file);
        fputs("}\n", j->file);
    }
    e->line = xstrndup(line.p, line.n);
    buf_free(&line);
}

void journal_end(struct journal *j, uint64_t n, const char *outcome)
{
    struct journal_entry *e = &j->ring[n % j->keep];

    if (e->n != n || n == 0)
        return;
    e->outcome = outcome;
    e->took_ms = unix_ms() - e->at_ms;
}

const struct journal_entry *journal_find(const struct journal *j, uint64_t n)
{
    const struct journal_entry *e = &j->ring[n % j->keep];

    return e->n == n && n > 0 ? e : NULL;
}

uint64_t journal_oldest(const struct journal *j)
{
    uint64_t oldest = j->last > j->keep ? j->last - j->keep : 0;

    return oldest > j->forgotten ? oldest : j->forgotten;
}

void journal_format(const struct journal *j, uint64_t since, uint64_t limit, struct buf *out)
{
    uint64_t oldest = journal_oldest(j);
    bool first = true;

    buf_text(out, "[");
    for (uint64_t n = (since > oldest ? since : oldest) + 1; n <= j->last && limit > 0; n++) {
        const struct journal_entry *e = journal_find(j, n);

        if (!e)
            continue;
        buf_format(out, "%s%s,\"outcome\":\"%s\",\"took_ms\":%llu}", first ? "" : ",", e->line,
                   e->outcome, (unsigned long long)e->took_ms);
        first = false;
        limit--;
    }
    buf_text(out, "]");
}

void journal_flush(struct journal *j)
{
    if (j->file)
        fflush(j->file);
}

void journal_clear(struct journal *j)
{
    for (size_t i = 0; i < j->keep; i++)
        entry_clear(&j->ring[i]);
    j->forgotten = j->last;
}

void journal_done(struct journal *j)
{
    journal_clear(j);
    free(j->ring);
    if (j->file)
        fclose(j->file);
    *j = (struct journal){.last = 0};
}
