/* llm: one call to a model that speaks OpenAI's chat completions.
 *
 * A run renders the messages, prints the request (and drops the trees: ten thousand calls may be
 * waiting here), sends it to an endpoint of the configuration, and makes the answer its output.
 *
 * With `response: json` the answer's text is parsed. Should that fail, the first answer is stored
 * as the step "first", so that no later attempt pays for it again, and the model is asked once
 * more, with its answer and what is wrong with it. A second failure is the task's error.
 *
 * Which error of the other side means what is in llm_reply.c, images in llm_image.c. Not here:
 * rate limits (the host keeps those of the endpoint), streaming, caching. */
#include "llm.h"
#include "reply.h"
#include <math.h>
#include <string.h>

#define STEP_FIRST "first"

static const struct mr_option options[] = {
    MR_OPT_ENDPOINT(struct llm_settings, endpoint, "endpoint", NULL, MR_REQUIRED,
                    "The endpoint of the configuration: base URL, key and shared limits."),
    MR_OPT_TEXT(struct llm_settings, model, "model", NULL, MR_REQUIRED, "The model's name."),
    MR_OPT_TEMPLATE(struct llm_settings, messages, "messages", NULL, MR_REQUIRED,
                    "Chat messages, with text and image_url parts; every string is a template."),
#define X(name, kind, lo, hi, sentence)                                                            \
    MR_OPT_JSON(struct llm_settings, name, #name, NULL, 0, sentence),
    LLM_PARAMS(X)
#undef X
        MR_OPT_JSON(struct llm_settings, extra, "extra", NULL, 0,
                    "An object of further request members, merged in last."),
    MR_OPT_JSON(struct llm_settings, response, "response", "\"text\"", 0,
                "\"text\", or \"json\": the answer is parsed, with one repair attempt."),
    MR_OPT_CHOICE(struct llm_settings, image, "image", "url", "url|inline", 0,
                  "Whether image addresses are passed on, or fetched and sent as data URLs."),
    MR_OPT_DURATION(struct llm_settings, connect_ms, "timeout_connect", "5s", 0, 0, 0,
                    "Longest wait for the connection."),
    MR_OPT_DURATION(struct llm_settings, first_byte_ms, "timeout_first_byte", "60s", 0, 0, 0,
                    "Longest wait for the answer to begin."),
    MR_OPT_DURATION(struct llm_settings, idle_ms, "timeout_idle", "30s", 0, 0, 0,
                    "Longest pause within the answer."),
};

enum kind { NUMBER, COUNT, STOP, WORD };

/* Checks */

static int is_stop(const json_t *value)
{
    if (json_is_string(value))
        return 1;
    size_t n = json_array_size(value);
    for (size_t i = 0; i < n; i++)
        if (!json_is_string(json_array_get(value, i)))
            return 0;
    return n >= 1 && n <= 4;
}

static void check_param(const struct mr_check *check, const char *pointer, enum kind kind,
                        const json_t *value, double lo, double hi)
{
    double n = json_number_value(value);
    if (!value)
        return;
    if (kind == NUMBER && !(json_is_number(value) && n >= lo && n <= hi)) {
        char hint[64];
        snprintf(hint, sizeof(hint), "a number from %g to %g", lo, hi);
        check->error(check->self, pointer, "is not a number in range", hint);
    } else if (kind == COUNT && !(json_is_integer(value) && n >= lo && n <= hi))
        check->error(check->self, pointer, "is not an integer in range",
                     lo >= 1 ? "a whole number from 1" : "a whole number");
    else if (kind == STOP && !is_stop(value))
        check->error(check->self, pointer, "is not a stop sequence",
                     "a string, or an array of 1 to 4 strings");
    else if (kind == WORD && !json_is_string(value))
        check->error(check->self, pointer, "is not a string", "for example \"low\"");
}

static int is_json(const struct llm_settings *set)
{
    const char *word = json_string_value(set->response);
    return word && strcmp(word, "json") == 0;
}

static void check_extra(const struct mr_check *check, const json_t *extra)
{
    static const struct {
        const char *name, *pointer, *hint;
    } refused[] = {
        {"messages", "/extra/messages", "use the option \"messages\""},
        {"model", "/extra/model", "use the option \"model\""},
        {"stream", "/extra/stream", "answers are read whole; leave it out"},
        {"n", "/extra/n", "one answer is used; leave it out"},
    };
    if (!extra)
        return;
    if (!json_is_object(extra)) {
        check->error(check->self, "/extra", "is not an object", "{\"service_tier\": \"flex\"}");
        return;
    }
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        if (json_object_get(extra, refused[i].name))
            check->error(check->self, refused[i].pointer, "may not be given in \"extra\"",
                         refused[i].hint);
}

static void check(const void *settings, const struct mr_check *check)
{
    const struct llm_settings *set = settings;
#define X(name, kind, lo, hi, sentence)                                                            \
    check_param(check, "/" #name, kind, set->name, (double)(lo), (double)(hi));
    LLM_PARAMS(X)
#undef X
    check_extra(check, set->extra);
    const char *word = json_string_value(set->response);
    if (!word || (strcmp(word, "text") != 0 && strcmp(word, "json") != 0))
        check->error(check->self, "/response", "is not a kind of response", "\"text\" or \"json\"");
    const json_t *messages = json_object_get(check->options, "messages");
    if (messages && !json_is_string(messages) && json_array_size(messages) == 0)
        check->error(check->self, "/messages", "is not a list of messages",
                     "[{\"role\": \"user\", \"content\": \"…\"}]");
    if (set->max_tokens && set->max_completion_tokens)
        check->warn(check->self, "/max_tokens", "stands beside \"max_completion_tokens\"",
                    "most models take one of them only");
}

/* The request */

/* Adds what the model is to be told about its first answer. */
static void add_repair(json_t *messages, const json_t *first, const char *problem)
{
    json_t *told = json_sprintf("Your answer could not be read as JSON: %s. Answer again with the "
                                "corrected JSON alone: no other text, no code fence.",
                                problem);
    json_array_append_new(messages, json_pack("{s:s, s:O}", "role", "assistant", "content", first));
    json_array_append_new(messages, json_pack("{s:s, s:o}", "role", "user", "content", told));
}

/* Renders and prints the request. `first` NULL: the first call; otherwise the repair. */
MR_SUSPENDS static int print_request(mr_context *cx, const struct llm_settings *set,
                                     const json_t *first, const char *problem,
                                     struct mr_http *request)
{
    llm_hold json_t *messages = NULL;
    int rc = mr_render(cx, set->messages, &messages);
    if (rc != MR_OK)
        return rc;
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return mr_fail(cx, MR_E_SCHEMA, "\"messages\" does not render to a list of messages");
    if (set->image == LLM_IMAGE_INLINE && (rc = llm_inline_images(cx, set, messages)) != MR_OK)
        return rc;
    if (first)
        add_repair(messages, first, problem);

    llm_hold json_t *body = json_object();
    json_object_set_new(body, "model", json_string(set->model));
    json_object_set(body, "messages", messages);
#define X(name, kind, lo, hi, sentence)                                                            \
    if (set->name)                                                                                 \
        json_object_set_new(body, #name, json_deep_copy(set->name));
    LLM_PARAMS(X)
#undef X
    if (set->extra) {
        llm_hold json_t *extra = json_deep_copy(set->extra);
        json_object_update(body, extra);
    }
    return mr_print(cx, body, &request->body, &request->body_len);
}

/* One exchange with the model. On success `ret->tree` is the caller's. */
MR_SUSPENDS static int ask(mr_context *cx, const struct llm_settings *set, const json_t *first,
                           const char *problem, struct llm_answer *ret)
{
    static const struct mr_header headers[] = {
        {"Content-Type", "application/json"},
        {"Accept", "application/json"},
    };
    struct mr_http request = {
        .size = sizeof(request),
        .method = "POST",
        .endpoint = set->endpoint,
        .url = "/chat/completions",
        .headers = headers,
        .header_count = 2,
        .connect_ms = set->connect_ms,
        .first_byte_ms = set->first_byte_ms,
        .idle_ms = set->idle_ms,
    };
    int rc = print_request(cx, set, first, problem, &request);
    if (rc != MR_OK)
        return rc;
    struct mr_http_reply reply = {.size = sizeof(reply)};
    rc = mr_http(cx, &request, &reply);
    if (rc != MR_OK)
        return rc;
    rc = llm_check_status(cx, set->endpoint, &reply);
    if (rc != MR_OK)
        return rc;
    return llm_read_answer(cx, &reply, ret);
}

/* The answer */

/* Answers that another attempt would not mend: asked again, the model would say the same, and cost
 * the same. */
static int check_finish(mr_context *cx, const struct llm_answer *answer, int wants_json)
{
    char said[200];
    if (answer->refusal && (wants_json || !answer->content || answer->content_len == 0))
        return mr_fail_as(cx, MR_E_BAD_RESPONSE, MR_CLASS_PERMANENT, 0,
                          "the model refused to answer: %s",
                          reply_one_line(answer->refusal, said, sizeof(said)));
    if (wants_json && strcmp(answer->finish_reason, "length") == 0)
        return mr_fail_as(cx, MR_E_BAD_RESPONSE, MR_CLASS_PERMANENT, 0,
                          "the model's answer was cut off (finish_reason \"length\"), so its JSON "
                          "is not whole: raise max_completion_tokens or max_tokens");
    if (strcmp(answer->finish_reason, "content_filter") == 0 &&
        (wants_json || !answer->content || answer->content_len == 0))
        return mr_fail_as(cx, MR_E_BAD_RESPONSE, MR_CLASS_PERMANENT, 0,
                          "the provider's content filter withheld the answer (finish_reason "
                          "\"content_filter\")");
    if (!answer->content)
        return mr_fail(cx, MR_E_BAD_RESPONSE,
                       "the model's answer has no content (finish_reason \"%s\")",
                       reply_one_line(answer->finish_reason, said, sizeof(said)));
    return MR_OK;
}

static json_t *text_output(const struct llm_settings *set, const struct llm_answer *answer)
{
    const json_t *model = json_object_get(answer->tree, "model");
    const json_t *usage = json_object_get(answer->tree, "usage");
    json_t *tokens = json_null();
    if (json_is_object(usage))
        tokens =
            json_pack("{s:I, s:I}", "input_tokens",
                      json_integer_value(json_object_get(usage, "prompt_tokens")), "output_tokens",
                      json_integer_value(json_object_get(usage, "completion_tokens")));
    return json_pack("{s:s%, s:s, s:s, s:o}", "text", answer->content, answer->content_len,
                     "finish_reason", answer->finish_reason, "model",
                     json_is_string(model) ? json_string_value(model) : set->model, "usage",
                     tokens);
}

/* Parses the JSON in `text`; MR_E_BAD_RESPONSE with the place in `problem` when there is none. */
static int parse_content(mr_context *cx, const char *text, size_t len, char *problem, size_t size,
                         json_t **ret_value)
{
    size_t json_len = 0;
    const char *json = llm_find_json(text, len, &json_len);
    int rc = mr_parse(cx, json, json_len, ret_value);
    if (rc != MR_OK)
        reply_one_line(json_len == 0 ? "it is empty" : mr_error_text(cx), problem, size);
    return rc;
}

/* Keeps the first answer, so that a later attempt goes on from here. */
MR_SUSPENDS static int store_first(mr_context *cx, const json_t *first)
{
    const char *text = NULL;
    uint64_t len = 0;
    int rc = mr_print(cx, first, &text, &len);
    return rc == MR_OK ? mr_step_put(cx, STEP_FIRST, text, len) : rc;
}

/* The second call, with what was wrong with the first answer. */
MR_SUSPENDS static int repair(mr_context *cx, const struct llm_settings *set, const json_t *first,
                              const char *problem)
{
    struct llm_answer answer = {0};
    int rc = ask(cx, set, first, problem, &answer);
    llm_hold json_t *tree = answer.tree;
    if (rc == MR_OK)
        rc = check_finish(cx, &answer, 1);
    if (rc != MR_OK)
        return rc;
    char again[160];
    json_t *value = NULL;
    rc = parse_content(cx, answer.content, answer.content_len, again, sizeof(again), &value);
    if (rc != MR_OK)
        return mr_fail(cx, MR_E_BAD_RESPONSE,
                       "the model's answer is not JSON (%s), and neither is its repair (%s)",
                       problem, again);
    return mr_output(cx, value);
}

/* A first answer that an earlier attempt stored; NULL when there is none. New reference. */
static json_t *stored_first(mr_context *cx)
{
    const char *text = NULL;
    uint64_t len = 0;
    json_t *first = NULL;
    if (mr_step_get(cx, STEP_FIRST, &text, &len) != MR_OK || !text ||
        mr_parse(cx, text, len, &first) != MR_OK)
        return NULL;
    if (!json_is_string(first)) {
        json_decref(first);
        return NULL;
    }
    return first;
}

MR_SUSPENDS static int run_json(mr_context *cx, const struct llm_settings *set)
{
    char problem[160];
    llm_hold json_t *first = stored_first(cx);
    int is_new = first == NULL;
    if (is_new) {
        struct llm_answer answer = {0};
        int rc = ask(cx, set, NULL, NULL, &answer);
        llm_hold json_t *tree = answer.tree;
        if (rc == MR_OK)
            rc = check_finish(cx, &answer, 1);
        if (rc != MR_OK)
            return rc;
        first = json_stringn(answer.content, answer.content_len);
    }
    json_t *value = NULL;
    if (parse_content(cx, json_string_value(first), json_string_length(first), problem,
                      sizeof(problem), &value) == MR_OK)
        return mr_output(cx, value);
    if (is_new) {
        int rc = store_first(cx, first);
        if (rc != MR_OK)
            return rc;
    }
    mr_log(cx, MR_LOG_INFO, "the model's answer is not JSON (%s), asking it for a repair", problem);
    return repair(cx, set, first, problem);
}

MR_SUSPENDS static int run(mr_context *cx, const void *settings)
{
    const struct llm_settings *set = settings;
    if (is_json(set))
        return run_json(cx, set);
    struct llm_answer answer = {0};
    int rc = ask(cx, set, NULL, NULL, &answer);
    llm_hold json_t *tree = answer.tree;
    if (rc == MR_OK)
        rc = check_finish(cx, &answer, 0);
    return rc == MR_OK ? mr_output(cx, text_output(set, &answer)) : rc;
}

MR_PLUGIN(llm) = {
    MR_PLUGIN_HEAD("llm", struct llm_settings, options),
    .version = "1.0",
    .summary = "One call to a model that speaks chat completions.",
    .doc = "Output with response \"text\": {\"text\", \"finish_reason\", \"model\", \"usage\"}; "
           "with \"json\": the value that the model answered with.",
    .timeout = "120s",
    .capabilities = MR_CAN_REPEAT,
    .check = check,
    .run = run,
};
