/* HTTP for plugins: an endpoint's name becomes its address and key, a reply lives with the task.
 *
 * The key goes to curl as a bearer token and into the task's list of secrets, so that no message
 * shows it, whatever the other side echoes. Without a time-out of its own an exchange may take what
 * is left of the stage's time, or the endpoint's `timeout` when that is shorter. Waiting for an
 * endpoint's limits (runner->http_begin) does not count against the stage. */
#include "run/host.h"

#include "base/mem.h"
#include <string.h>

#define HEADERS_MAX 64u

struct exchange {
    struct task *task;
    struct mr_http given; /* as far as both sides know it */
    const struct endpoint *endpoint;
    char *url; /* built; NULL: as given */
    struct http_request request;
};

static void exchange_done(struct exchange *exchange)
{
    free(exchange->url);
    free((void *)exchange->request.headers);
}

/* Base URL (no slash at its end, by the configuration) and what the plugin wants of it. */
static char *join_url(const char *base, const char *rest)
{
    size_t len = strlen(base);
    while (len > 0 && base[len - 1] == '/')
        len--;
    bool slash = rest[0] != '\0' && rest[0] != '/' && rest[0] != '?';
    return mem_format("%.*s%s%s", (int)len, base, slash ? "/" : "", rest);
}

static int find_endpoint(struct exchange *exchange)
{
    struct runner *runner = exchange->task->runner;
    const char *name = exchange->given.endpoint;
    if (name == NULL)
        return MR_OK;
    if (runner->find_endpoint != NULL)
        exchange->endpoint = runner->find_endpoint(runner->arg, name);
    if (exchange->endpoint == NULL) {
        struct error *err = task_failure(exchange->task);
        error_set(err, MR_E_PLUGIN, "endpoint \"%s\" is not configured", name);
        error_hint(err, "add \"endpoints\": {\"%s\": {\"base_url\": …}} to the configuration",
                   name);
        return MR_E_PLUGIN;
    }
    exchange->url = join_url(exchange->endpoint->base_url,
                             exchange->given.url != NULL ? exchange->given.url : "");
    exchange->request.bearer = exchange->endpoint->api_key;
    task_add_secret(exchange->task, exchange->endpoint->api_key);
    return MR_OK;
}

static uint64_t time_limit(const struct exchange *exchange)
{
    if (exchange->given.timeout_ms != 0)
        return exchange->given.timeout_ms;
    uint64_t left_ms = scope_time_left(&exchange->task->scope);
    uint64_t own_ms = exchange->endpoint != NULL ? exchange->endpoint->timeout_ms : 0;
    if (own_ms != 0 && own_ms < left_ms)
        return own_ms;
    return left_ms == 0 ? 1 : left_ms == UINT64_MAX ? 0 : left_ms;
}

static int exchange_init(struct exchange *exchange, struct task *task,
                         const struct mr_http *request)
{
    size_t size = request->size;
    *exchange = (struct exchange){.task = task};
    if (size == 0 || size > sizeof(exchange->given))
        size = sizeof(exchange->given);
    memcpy(&exchange->given, request, size);
    const struct mr_http *given = &exchange->given;
    if (given->header_count > HEADERS_MAX)
        return error_set(task_failure(task), MR_E_PLUGIN, "%u headers, at most %u",
                         (unsigned)given->header_count, HEADERS_MAX);
    int rc = find_endpoint(exchange);
    if (rc != MR_OK)
        return rc;
    if (exchange->url == NULL && given->url == NULL)
        return error_set(task_failure(task), MR_E_PLUGIN, "mr_http without an address");
    struct http_header *headers = mem_zalloc((given->header_count + 1) * sizeof(*headers));
    for (uint32_t i = 0; i < given->header_count; i++)
        headers[i] = (struct http_header){given->headers[i].name, given->headers[i].value};
    exchange->request.headers = headers;
    exchange->request.header_count = given->header_count;
    exchange->request.method = given->method;
    exchange->request.url = exchange->url != NULL ? exchange->url : given->url;
    exchange->request.body = given->body;
    exchange->request.body_len = given->body_len;
    exchange->request.connect_ms = given->connect_ms;
    exchange->request.first_byte_ms = given->first_byte_ms;
    exchange->request.idle_ms = given->idle_ms;
    exchange->request.max_bytes = given->max_bytes;
    exchange->request.guard = (given->flags & MR_HTTP_GUARD) != 0;
    return MR_OK;
}

static void reply_free(void *arg)
{
    http_reply_done(arg);
    free(arg);
}

/* Makes a reply the task's and shows it to the plugin. */
static void reply_keep(struct task *task, struct http_reply *kept, struct mr_http_reply *ret)
{
    task_defer(task, reply_free, kept);
    struct mr_header *headers = task_alloc(task, (kept->header_count + 1) * sizeof(*headers));
    for (size_t i = 0; i < kept->header_count; i++)
        headers[i] = (struct mr_header){kept->headers[i].name, kept->headers[i].value};
    struct mr_http_reply full = {
        .size = ret->size != 0 ? ret->size : (uint32_t)sizeof(full),
        .status = kept->status,
        .body = kept->body,
        .body_len = kept->body_len,
        .headers = headers,
        .header_count = (uint32_t)kept->header_count,
    };
    memcpy(ret, &full, full.size < sizeof(full) ? full.size : sizeof(full));
}

/* Asks for the endpoint's limits; the stage's clock stands still meanwhile. */
static int begin(struct exchange *exchange, void **ret_ticket, struct error *err)
{
    struct task *task = exchange->task;
    struct runner *runner = task->runner;
    if (exchange->endpoint == NULL || runner->http_begin == NULL || task->run == NULL)
        return MR_OK;
    scope_pause(&task->scope);
    int rc = runner->http_begin(runner->arg, task->run, exchange->endpoint,
                                exchange->request.body_len, ret_ticket, err);
    scope_resume(&task->scope);
    return rc;
}

static int fetch(struct exchange *exchange, struct mr_http_reply *reply, struct error *err)
{
    struct task *task = exchange->task;
    struct runner *runner = task->runner;
    void *ticket = NULL;
    task_suspends(task);
    int rc = begin(exchange, &ticket, err);
    if (rc != MR_OK)
        return rc;
    struct http_reply *kept = mem_zalloc(sizeof(*kept));
    exchange->request.timeout_ms = time_limit(exchange);
    rc = http_fetch(runner->http, &exchange->request, kept, err);
    if (exchange->endpoint != NULL && runner->http_end != NULL && task->run != NULL)
        runner->http_end(runner->arg, task->run, ticket, rc == MR_OK ? kept : NULL);
    if (rc == MR_OK)
        reply_keep(task, kept, reply);
    else
        free(kept);
    return rc;
}

int host_http(mr_context *cx, const struct mr_http *request, struct mr_http_reply *reply)
{
    struct task *task = task_of(cx);
    struct exchange exchange;
    struct error why = {0};
    if (task->runner->http == NULL)
        return error_set(task_failure(task), MR_E_PLUGIN, "HTTP is not possible here");
    int rc = exchange_init(&exchange, task, request);
    if (rc == MR_OK) {
        rc = fetch(&exchange, reply, &why);
        if (rc != MR_OK) {
            task_scrub(task, &why);
            *task_failure(task) = why;
        }
    }
    exchange_done(&exchange);
    return rc;
}
