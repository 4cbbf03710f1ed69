/* Problem details: see problem.h. */
#include "fcgi/problem.h"
#include "base/limits.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *slug, *title;
    int status;
} problems[] = {
#define PROBLEM_ROW(name, slug, status, title) {slug, title, status},
    PROBLEMS(PROBLEM_ROW)
#undef PROBLEM_ROW
};

#define PROBLEM_BYTES (256u << 10)
#define PROBLEM_TYPE  "application/problem+json"

const char *problem_slug(enum problem problem)
{
    return problems[problem].slug;
}

int problem_status(enum problem problem)
{
    return problems[problem].status;
}

static void problem_begin_titled(struct buf *text, enum problem problem, const char *title,
                                 const char *request_id, const char *detail)
{
    buf_init(text, PROBLEM_BYTES);
    buf_format(text, "{\"type\":\"urn:millrace:problem:%s\",\"title\":\"%s\",\"status\":%d,",
               problems[problem].slug, title, problems[problem].status);
    buf_add_text(text, "\"detail\":");
    detail = detail != NULL ? detail : "";
    buf_add_json_string(text, detail, strlen(detail));
    buf_add_text(text, ",\"instance\":\"urn:millrace:request:");
    buf_add_text(text, request_id);
    buf_add_char(text, '"');
}

static void problem_begin(struct buf *text, enum problem problem, const char *request_id,
                          const char *detail)
{
    problem_begin_titled(text, problem, problems[problem].title, request_id, detail);
}

static void problem_end(struct response *response, enum problem problem, struct buf *text)
{
    buf_add_char(text, '}');
    response_reset(response, problems[problem].status);
    size_t len = text->len;
    char *body = buf_take(text);
    if (body != NULL) {
        response_steal(response, PROBLEM_TYPE, body, len);
    }
}

void problem_make(struct response *response, enum problem problem, const char *request_id,
                  const char *detail)
{
    struct buf text;
    problem_begin(&text, problem, request_id, detail);
    problem_end(response, problem, &text);
}

static void problem_titled(struct response *response, enum problem problem, const char *title,
                           const char *request_id, const char *detail)
{
    struct buf text;
    problem_begin_titled(&text, problem, title, request_id, detail);
    problem_end(response, problem, &text);
}

void problem_store(struct response *response, const char *request_id, enum outage outage)
{
    char detail[256];
    /* Only an answer says that nothing was done. */
    snprintf(detail, sizeof(detail), "%s; %s", outage_sentence(outage),
             outage == OUTAGE_AWAY ? "the request was not carried out, or its outcome is not "
                                     "known: send it again"
                                   : "nothing was stored: send it again later");
    problem_titled(response, PROBLEM_STORE_UNAVAILABLE, outage_title(outage), request_id, detail);
    response_header(response, "Retry-After", outage == OUTAGE_AWAY ? "2" : "5");
}

void problem_full(struct response *response, const char *request_id, const char *detail)
{
    problem_titled(response, PROBLEM_DRAINING, "This process is at one of its limits", request_id,
                   detail);
    response_header(response, "Retry-After", "2");
}

void problem_format(struct response *response, enum problem problem, const char *request_id,
                    const char *format, ...)
{
    /* An error record cuts what does not fit at a whole character. */
    struct error line;
    char detail[sizeof(line.message)];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof(detail), format, args);
    va_end(args);
    error_set(&line, MR_E_INTERNAL, "%s", detail);
    problem_make(response, problem, request_id, line.message);
}

void problem_report(struct response *response, const char *request_id, const struct report *report)
{
    struct buf text;
    size_t count = report_errors(report);
    char detail[64];
    snprintf(detail, sizeof(detail), "%zu %s in the body", count, count == 1 ? "error" : "errors");
    problem_begin(&text, PROBLEM_VALIDATION, request_id, detail);
    buf_add_text(&text, ",\"errors\":[");
    bool first = true;
    for (size_t i = 0; i < report->count; i++) {
        const struct error *err = &report->items[i];
        if (err->code == MR_OK) {
            continue; /* a warning */
        }
        buf_add_text(&text, first ? "{\"pointer\":" : ",{\"pointer\":");
        first = false;
        buf_add_json_string(&text, err->where, strlen(err->where));
        buf_add_text(&text, ",\"detail\":");
        char line[sizeof(err->message) + sizeof(err->hint) + 2];
        snprintf(line, sizeof(line), err->hint[0] != '\0' ? "%s; %s" : "%s%s", err->message,
                 err->hint);
        buf_add_json_string(&text, line, strlen(line));
        buf_add_char(&text, '}');
    }
    buf_add_char(&text, ']');
    problem_end(response, PROBLEM_VALIDATION, &text);
}

void problem_with(struct response *response, enum problem problem, const char *title,
                  const char *request_id, const char *detail, const char *member,
                  const json_t *value)
{
    struct buf text;
    problem_begin_titled(&text, problem, title, request_id, detail);
    buf_format(&text, ",\"%s\":", member);
    json_print_to(value, &text);
    problem_end(response, problem, &text);
}

void problem_error(struct response *response, const char *request_id, const struct error *err)
{
    switch (err->code) {
    case MR_E_STORE:
    case MR_E_TIMEOUT:
    case MR_E_CONNECT:
    case MR_E_RESET:
        problem_store(response, request_id, err->code == MR_E_STORE ? outage_of(err) : OUTAGE_AWAY);
        break;
    case MR_E_STOPPING:
    case MR_E_CANCELLED:
        problem_make(response, PROBLEM_DRAINING, request_id, "the process is stopping");
        response_header(response, "Retry-After", "2");
        break;
    default:
        problem_make(response, PROBLEM_INTERNAL, request_id,
                     "the log has the reason, under this request's id");
        break;
    }
}

void problem_failed_job(struct response *response, const char *request_id, const char *code,
                        const char *message, const char *stage)
{
    struct buf text;
    problem_begin(&text, PROBLEM_JOB_FAILED, request_id, message);
    buf_add_text(&text, ",\"code\":");
    buf_add_json_string(&text, code, strlen(code));
    if (stage != NULL && *stage != '\0') {
        buf_add_text(&text, ",\"stage\":");
        buf_add_json_string(&text, stage, strlen(stage));
    }
    problem_end(response, PROBLEM_JOB_FAILED, &text);
}
