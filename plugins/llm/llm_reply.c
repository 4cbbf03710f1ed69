/* The model's side of the exchange: which status means what, and what an answer says.
 *
 * A status that is no answer becomes the task's error here, with the class that decides what the
 * host does next (PLUGINS.md, llm). Messages of the provider are passed on in one line; what looks
 * like a key in them is masked, because providers echo the key that they refuse. */
#include "llm.h"
#include "reply.h"
#include <string.h>

/* Masks in place every run of key characters that begins like a key, or, in answers about
 * credentials, that is long and holds a digit. */
static void mask_keys(char *text, int about_credentials)
{
    static const char key_chars[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_*.";
    while (*text) {
        size_t run = strspn(text, key_chars);
        if (run == 0) {
            text++;
            continue;
        }
        int prefixed = run >= 8 && (strncmp(text, "sk-", 3) == 0 || strncmp(text, "sk_", 3) == 0);
        int digit = 0;
        for (size_t i = 0; i < run; i++)
            digit |= (text[i] >= '0' && text[i] <= '9') || text[i] == '*';
        if (prefixed || (about_credentials && run >= 12 && digit))
            memset(text, '*', run);
        text += run;
    }
}

/* The provider's own words out of an error answer: {"error":{"message","code","type"}},
 * {"error":"…"} or {"message":"…"}. What is missing stays "". */
struct provider_error {
    char message[190];
    char code[64], type[64];
};

static void copy_text(char *to, size_t size, const json_t *value)
{
    if (json_is_string(value))
        reply_one_line(json_string_value(value), to, size);
}

static void read_error(mr_context *cx, const struct mr_http_reply *reply,
                       struct provider_error *ret)
{
    memset(ret, 0, sizeof(*ret));
    llm_hold json_t *tree = NULL;
    if (reply->body_len == 0 || mr_parse(cx, reply->body, reply->body_len, &tree) != MR_OK)
        return;
    /* Gemini's layer wraps the object in an array. */
    const json_t *top = json_is_array(tree) ? json_array_get(tree, 0) : tree;
    const json_t *error = json_object_get(top, "error");
    if (json_is_object(error)) {
        copy_text(ret->message, sizeof(ret->message), json_object_get(error, "message"));
        copy_text(ret->code, sizeof(ret->code), json_object_get(error, "code"));
        copy_text(ret->type, sizeof(ret->type), json_object_get(error, "type"));
    } else {
        copy_text(ret->message, sizeof(ret->message), error);
        if (!ret->message[0])
            copy_text(ret->message, sizeof(ret->message), json_object_get(top, "message"));
        if (!ret->message[0])
            copy_text(ret->message, sizeof(ret->message), json_object_get(top, "detail"));
    }
    mask_keys(ret->message, reply->status == 401 || reply->status == 403);
}

int llm_check_status(mr_context *cx, const char *endpoint, const struct mr_http_reply *reply)
{
    int status = reply->status;
    if (status >= 200 && status < 300)
        return MR_OK;
    struct provider_error said;
    read_error(cx, reply, &said);
    const char *colon = said.message[0] ? ": " : "";
    uint64_t wait_ms = reply_wait_ms(reply);

    const char *should = reply_header(reply, "x-should-retry");
    int yes = should && strcmp(should, "true") == 0;
    int no = should && strcmp(should, "false") == 0;
    int quota = status == 429 && (strcmp(said.code, "insufficient_quota") == 0 ||
                                  strcmp(said.type, "insufficient_quota") == 0);
    int code = MR_E_UPSTREAM_STATUS;
    int cls = MR_CLASS_PERMANENT;
    if (quota)
        code = MR_E_QUOTA;
    else if (status == 401 || status == 403)
        code = MR_E_AUTH;
    else if (status == 429) {
        code = MR_E_RATE_LIMITED;
        cls = MR_CLASS_THROTTLED;
    } else if (status == 408 || status == 409 || status >= 500)
        cls = MR_CLASS_RETRY;
    if (no)
        cls = MR_CLASS_PERMANENT;
    else if (yes && cls == MR_CLASS_PERMANENT)
        cls = status == 429 ? MR_CLASS_THROTTLED : MR_CLASS_RETRY;

    return mr_fail_as(cx, code, cls, cls == MR_CLASS_PERMANENT ? 0 : wait_ms,
                      "endpoint \"%s\" answered %d%s%s", endpoint, status, colon, said.message);
}

/* The text of a message: a string, or text parts joined. NULL when there is none. */
static const char *content_text(mr_context *cx, const json_t *content, size_t *ret_len)
{
    if (json_is_string(content)) {
        *ret_len = json_string_length(content);
        return json_string_value(content);
    }
    if (!json_is_array(content))
        return NULL;
    size_t len = 0;
    size_t i;
    const json_t *part;
    json_array_foreach ((json_t *)content, i, part)
        len += json_string_length(json_object_get(part, "text"));
    char *text = mr_alloc(cx, len + 1);
    size_t at = 0;
    json_array_foreach ((json_t *)content, i, part) {
        const json_t *piece = json_object_get(part, "text");
        if (!json_is_string(piece))
            continue;
        memcpy(text + at, json_string_value(piece), json_string_length(piece));
        at += json_string_length(piece);
    }
    *ret_len = at;
    return text;
}

static int64_t count_of(const json_t *usage, const char *key)
{
    int64_t n = (int64_t)json_integer_value(json_object_get(usage, key));
    return n > 0 ? n : 0;
}

int llm_read_answer(mr_context *cx, const struct mr_http_reply *reply, struct llm_answer *ret)
{
    llm_hold json_t *tree = NULL;
    if (mr_parse(cx, reply->body, reply->body_len, &tree) != MR_OK) {
        char why[160];
        reply_one_line(mr_error_text(cx), why, sizeof(why));
        return mr_fail(cx, MR_E_BAD_RESPONSE, "the model's answer (status %d) is not JSON: %s",
                       reply->status, why);
    }
    const json_t *usage = json_object_get(tree, "usage");
    if (json_is_object(usage))
        mr_usage(cx, count_of(usage, "prompt_tokens"), count_of(usage, "completion_tokens"));

    const json_t *choice = json_array_get(json_object_get(tree, "choices"), 0);
    const json_t *message = json_object_get(choice, "message");
    if (!json_is_object(message))
        return mr_fail(cx, MR_E_BAD_RESPONSE,
                       "the model's answer has no /choices/0/message: not a chat completion");
    const char *refusal = json_string_value(json_object_get(message, "refusal"));
    const char *finish = json_string_value(json_object_get(choice, "finish_reason"));
    size_t len = 0;
    const char *content = content_text(cx, json_object_get(message, "content"), &len);
    *ret = (struct llm_answer){.tree = json_incref(tree),
                               .content = content,
                               .content_len = len,
                               .finish_reason = finish ? finish : "",
                               .refusal = refusal && refusal[0] ? refusal : NULL};
    return MR_OK;
}

static int is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void trim(const char **text, size_t *len)
{
    while (*len > 0 && is_space((*text)[0])) {
        (*text)++;
        (*len)--;
    }
    while (*len > 0 && is_space((*text)[*len - 1]))
        (*len)--;
}

const char *llm_find_json(const char *text, size_t len, size_t *ret_len)
{
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        len -= 3;
    }
    trim(&text, &len);
    if (len >= 6 && memcmp(text, "```", 3) == 0 && memcmp(text + len - 3, "```", 3) == 0) {
        /* The opening fence ends with its line, which may name the language. */
        const char *end = memchr(text, '\n', len);
        size_t skip = 3;
        if (end && end < text + len - 3)
            skip = (size_t)(end - text) + 1;
        text += skip;
        len -= skip + 3;
        trim(&text, &len);
    }
    *ret_len = len;
    return text;
}
