/* template: a plugin to begin from. Copy it, and replace "template" by the name of yours.
 *
 * As it stands it sends a text to a service and gives back what the service answers. Change the
 * three parts in order: what may be set (options), what one task does (run), what it is called
 * (the struct at the end). The header millrace/plugin.h says everything else.
 *
 * Build: cc -shared -fPIC -fvisibility=hidden -Icore/include -o template.so template.c
 * Use:   {"name": "ask", "plugin": "template", "options": {"url": "https://…", "text": "…"}} */
#include <millrace/plugin.h>

/* What may be set. The host fills this struct from the pipeline file, by the rows below. */
struct settings {
    const char *url;
    const mr_template *text;
    uint64_t timeout_ms;
};

static const struct mr_option options[] = {
    MR_OPT_TEXT(struct settings, url, "url", NULL, MR_REQUIRED, "The service's address."),
    MR_OPT_TEMPLATE(struct settings, text, "text", "\"{{ .input.text }}\"", 0,
                    "What to send; default: the member \"text\" of the job's input."),
    MR_OPT_DURATION(struct settings, timeout_ms, "timeout", "10s", 1, 60000, 0,
                    "How long the service may take."),
};

/* Each task runs this on a fiber of its own: it reads as if it blocked, and nothing is blocked.
 * Any call may say that the task is to end; then return what it said. */
MR_SUSPENDS static int run(mr_context *cx, const void *settings)
{
    const struct settings *set = settings;
    const char *text = NULL;
    uint64_t len = 0;
    int rc = mr_render_text(cx, set->text, &text, &len);
    if (rc != MR_OK)
        return rc;

    const struct mr_header headers[] = {{"Content-Type", "text/plain; charset=utf-8"}};
    struct mr_http request = {
        .size = sizeof(request),
        .url = set->url,
        .headers = headers,
        .header_count = 1,
        .body = text,
        .body_len = len,
        .timeout_ms = set->timeout_ms,
    };
    struct mr_http_reply reply = {.size = sizeof(reply)};
    rc = mr_http(cx, &request, &reply);
    if (rc != MR_OK)
        return rc;
    if (reply.status >= 500) /* worth another attempt: the code's class is retry */
        return mr_fail(cx, MR_E_UPSTREAM_STATUS, "the service answered %d", reply.status);
    if (reply.status != 200) /* another attempt would get the same */
        return mr_fail_as(cx, MR_E_UPSTREAM_STATUS, MR_CLASS_PERMANENT, 0,
                          "the service answered %d", reply.status);
    return mr_output_text(cx, reply.body, reply.body_len);
}

MR_PLUGIN(template) = {
    MR_PLUGIN_HEAD("template", struct settings, options),
    .version = "0.1",
    .summary = "Sends a text to a service and gives back its JSON.",
    .run = run,
};
