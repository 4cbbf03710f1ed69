/* Lists in pages: see paging.h. */
#include "fcgi/paging.h"
#include "fcgi/problem.h"
#include <string.h>

static bool read_limit(const char *text, uint32_t *ret)
{
    if (*text == '\0' || strlen(text) > 3 || strspn(text, "0123456789") != strlen(text)) {
        return false;
    }
    *ret = (uint32_t)strtoul(text, NULL, 10);
    return *ret >= 1 && *ret <= PAGING_LIMIT_MAX;
}

static bool read_after(const char *text, struct paging *ret)
{
    if (*text != '@') {
        ret->after = text;
        return id_is_valid(text);
    }
    size_t len = strlen(text + 1);
    ret->before_ms = strtoull(text + 1, NULL, 10);
    return len > 0 && len <= 15 && strspn(text + 1, "0123456789") == len && ret->before_ms > 0;
}

bool paging_read(const struct request *request, struct response *response, struct paging *ret)
{
    *ret = (struct paging){.limit = PAGING_LIMIT};
    const char *limit = request_query(request, "limit");
    if (limit != NULL && !read_limit(limit, &ret->limit)) {
        problem_format(response, PROBLEM_BAD_JSON, request->id, "limit must be 1 to %u",
                       PAGING_LIMIT_MAX);
        return false;
    }
    const char *after = request_query(request, "after");
    if (after != NULL && !read_after(after, ret)) {
        problem_make(response, PROBLEM_BAD_JSON, request->id,
                     "after must be the last_id of the page before");
        return false;
    }
    return true;
}

void paging_expired(struct exchange *exchange, struct response *response)
{
    problem_make(response, PROBLEM_EXPIRED, exchange->request.id,
                 "the job that after names is not in this list any more: begin again without it");
}

void paging_begin(struct buf *text)
{
    buf_add_text(text, "{\"object\":\"list\",\"data\":[");
}

void paging_end(struct buf *text, bool has_more, const char *last_id)
{
    buf_format(text, "],\"has_more\":%s,\"last_id\":", has_more ? "true" : "false");
    if (last_id != NULL && *last_id != '\0') {
        buf_format(text, "\"%s\"}", last_id);
    } else {
        buf_add_text(text, "null}");
    }
}
