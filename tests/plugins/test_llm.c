/* The llm plugin against scripted answers of a model's endpoint. */
#include "fake_host.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define HEAD                                                                                       \
    "{'endpoint': 'openai', 'model': 'gpt-5.1', "                                                  \
    "'messages': [{'role': 'user', 'content': '{{ .input.q }}'}]"
#define TEXT_OPTIONS HEAD "}"
#define JSON_OPTIONS HEAD ", 'response': 'json'}"

/* An answer whose content is the JSON string given (with its quotes). */
#define ANSWER(content)                                                                            \
    "{\"id\":\"c1\",\"model\":\"gpt-5.1-2026\",\"choices\":[{\"index\":0,\"message\":"             \
    "{\"role\":\"assistant\",\"content\":" content "},\"finish_reason\":\"stop\"}],"               \
    "\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7,\"total_tokens\":18}}"

static struct fake *make(const char *options)
{
    struct fake *fake = fake_new("llm", options);
    fake_set(fake, "input", "{'q': 'Is a can metal?'}");
    return fake;
}

static void answer(struct fake *fake, const char *body)
{
    fake_will_answer(fake, (struct fake_reply){.body = body});
}

static void test_text(void **state)
{
    (void)state;
    fake_auto struct fake *fake = make(TEXT_OPTIONS);
    answer(fake, ANSWER("\"Yes.\""));
    assert_int_equal(fake_run(fake), MR_OK);
    fake_assert_json(fake->task.output,
                     "{'text': 'Yes.', 'finish_reason': 'stop', 'model': 'gpt-5.1-2026',"
                     " 'usage': {'input_tokens': 11, 'output_tokens': 7}}");
    assert_string_equal(buf_text(&fake->trace), "http POST openai /chat/completions\nusage 11 7\n");
    fake_assert_json(fake->requests[0].body, "{'model': 'gpt-5.1', 'messages': [{'role': 'user',"
                                             " 'content': 'Is a can metal?'}]}");
    assert_non_null(strstr(fake->requests[0].headers, "Content-Type: application/json\n"));
    assert_int_equal(fake->requests[0].connect_ms, 5000);
    assert_int_equal(fake->requests[0].first_byte_ms, 60000);
    assert_int_equal(fake->requests[0].idle_ms, 30000);
}

static void test_parameters(void **state)
{
    (void)state;
    fake_auto struct fake *fake = make(
        HEAD ", 'temperature': 0, 'max_tokens': 50, 'top_p': 0.5, 'stop': ['a', 'b'], 'seed': 0,"
             " 'frequency_penalty': -1, 'presence_penalty': 0.5, 'reasoning_effort': 'low',"
             " 'verbosity': 'high', 'extra': {'service_tier': 'flex', 'top_p': 0.25},"
             " 'timeout_connect': '1s', 'timeout_first_byte': '2s', 'timeout_idle': '3s'}");
    answer(fake, ANSWER("\"Yes.\""));
    assert_int_equal(fake_run(fake), MR_OK);
    fake_assert_json(fake->requests[0].body,
                     "{'model': 'gpt-5.1', 'messages': [{'role': 'user',"
                     " 'content': 'Is a can metal?'}], 'temperature': 0, 'max_tokens': 50,"
                     " 'top_p': 0.25, 'stop': ['a', 'b'], 'seed': 0, 'frequency_penalty': -1,"
                     " 'presence_penalty': 0.5, 'reasoning_effort': 'low', 'verbosity': 'high',"
                     " 'service_tier': 'flex'}");
    assert_int_equal(fake->requests[0].connect_ms, 1000);
    assert_int_equal(fake->requests[0].first_byte_ms, 2000);
    assert_int_equal(fake->requests[0].idle_ms, 3000);
}

static void test_text_parts_without_usage(void **state)
{
    (void)state;
    fake_auto struct fake *fake = make(TEXT_OPTIONS);
    answer(fake, "{\"choices\":[{\"message\":{\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
                 "{\"type\":\"text\",\"text\":\"b\"}]}}]}");
    assert_int_equal(fake_run(fake), MR_OK);
    fake_assert_json(fake->task.output,
                     "{'text': 'ab', 'finish_reason': '', 'model': 'gpt-5.1', 'usage': null}");
}

/* What each status means: the table of PLUGINS.md. */
static void test_statuses(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *headers, *body;
        int code, cls;
        uint64_t retry_in_ms;
        const char *message;
    } rows[] = {
        {408, NULL, NULL, MR_E_UPSTREAM_STATUS, MR_CLASS_RETRY, 0, "answered 408"},
        {409, NULL, NULL, MR_E_UPSTREAM_STATUS, MR_CLASS_RETRY, 0, "409"},
        {500, NULL, "not json", MR_E_UPSTREAM_STATUS, MR_CLASS_RETRY, 0, "\"openai\" answered 500"},
        {503, "retry-after: 3", NULL, MR_E_UPSTREAM_STATUS, MR_CLASS_RETRY, 3000, "503"},
        {529, NULL, NULL, MR_E_UPSTREAM_STATUS, MR_CLASS_RETRY, 0, "529"},
        {429, NULL, NULL, MR_E_RATE_LIMITED, MR_CLASS_THROTTLED, 0, "429"},
        {429, "retry-after-ms: 250\nretry-after: 9", NULL, MR_E_RATE_LIMITED, MR_CLASS_THROTTLED,
         250, "429"},
        {429, "retry-after-ms: nonsense\nretry-after: 9", NULL, MR_E_RATE_LIMITED,
         MR_CLASS_THROTTLED, 9000, "429"},
        {429, "retry-after: 1.5", NULL, MR_E_RATE_LIMITED, MR_CLASS_THROTTLED, 1500, "429"},
        {429, "retry-after: 900", NULL, MR_E_RATE_LIMITED, MR_CLASS_THROTTLED, 120000, "429"},
        {429, "retry-after: 99999999999999999999999", NULL, MR_E_RATE_LIMITED, MR_CLASS_THROTTLED,
         120000, "429"},
        {429, "retry-after: -1", NULL, MR_E_RATE_LIMITED, MR_CLASS_THROTTLED, 0, "429"},
        {429, "date: Sun, 06 Nov 1994 08:49:37 GMT\nretry-after: Sun, 06 Nov 1994 08:50:07 GMT",
         NULL, MR_E_RATE_LIMITED, MR_CLASS_THROTTLED, 30000, "429"},
        {429, "date: Sun, 06 Nov 1994 08:49:37 GMT\nretry-after: Mon, 06 Nov 1995 08:50:07 GMT",
         NULL, MR_E_RATE_LIMITED, MR_CLASS_THROTTLED, 120000, "429"},
        {429, "retry-after: Sun, 06 Nov 1994 08:50:07 GMT", NULL, MR_E_RATE_LIMITED,
         MR_CLASS_THROTTLED, 0, "429"},
        {429, "retry-after: 5",
         "{\"error\":{\"message\":\"You exceeded your current quota\",\"code\":"
         "\"insufficient_quota\"}}",
         MR_E_QUOTA, MR_CLASS_PERMANENT, 0, "429: You exceeded your current quota"},
        {429, NULL, "{\"error\":{\"type\":\"insufficient_quota\"}}", MR_E_QUOTA, MR_CLASS_PERMANENT,
         0, "429"},
        {400, NULL, "{\"error\":{\"message\":\"bad\\nmodel\"}}", MR_E_UPSTREAM_STATUS,
         MR_CLASS_PERMANENT, 0, "400: bad model"},
        {404, NULL, "{\"error\":\"model not found\"}", MR_E_UPSTREAM_STATUS, MR_CLASS_PERMANENT, 0,
         "404: model not found"},
        {422, NULL, "[{\"error\":{\"message\":\"wrapped\"}}]", MR_E_UPSTREAM_STATUS,
         MR_CLASS_PERMANENT, 0, "422: wrapped"},
        {401, NULL, "{\"message\":\"no\"}", MR_E_AUTH, MR_CLASS_PERMANENT, 0, "401: no"},
        {403, NULL, NULL, MR_E_AUTH, MR_CLASS_PERMANENT, 0, "403"},
        {302, NULL, NULL, MR_E_UPSTREAM_STATUS, MR_CLASS_PERMANENT, 0, "302"},
        {500, "x-should-retry: false", NULL, MR_E_UPSTREAM_STATUS, MR_CLASS_PERMANENT, 0, "500"},
        {429, "x-should-retry: false\nretry-after: 5", NULL, MR_E_RATE_LIMITED, MR_CLASS_PERMANENT,
         0, "429"},
        {400, "x-should-retry: true", NULL, MR_E_UPSTREAM_STATUS, MR_CLASS_RETRY, 0, "400"},
        {401, "x-should-retry: true\nretry-after: 2", NULL, MR_E_AUTH, MR_CLASS_RETRY, 2000, "401"},
    };
    fake_auto struct fake *fake = make(TEXT_OPTIONS);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        fake_will_answer(fake, (struct fake_reply){.status = rows[i].status,
                                                   .headers = rows[i].headers,
                                                   .body = rows[i].body});
        print_message("row %zu: %d %s\n", i, rows[i].status, rows[i].headers ?: "");
        assert_int_equal(fake_run(fake), rows[i].code);
        assert_int_equal(fake->task.error.class, rows[i].cls);
        assert_int_equal(fake->task.error.retry_in_ms, rows[i].retry_in_ms);
        fake_assert_message(&fake->task, rows[i].message);
    }
}

/* A provider that repeats the key it refuses does not get it into the job's error. */
static void test_keys_are_masked(void **state)
{
    (void)state;
    fake_auto struct fake *fake = make(TEXT_OPTIONS);
    fake_will_answer(
        fake, (struct fake_reply){.status = 401,
                                  .body = "{\"error\":{\"message\":\"Incorrect API key provided: "
                                          "a1b2c3d4e5f6a7b8. See the manual.\"}}"});
    assert_int_equal(fake_run(fake), MR_E_AUTH);
    fake_assert_message(&fake->task, "Incorrect API key provided: *****");
    fake_assert_message(&fake->task, "See the manual.");
    assert_null(strstr(fake->task.error.message, "a1b2"));

    fake_will_answer(
        fake, (struct fake_reply){
                  .status = 400,
                  .body = "{\"error\":{\"message\":\"key sk-proj-abcdEFGH may not use it\"}}"});
    assert_int_equal(fake_run(fake), MR_E_UPSTREAM_STATUS);
    assert_null(strstr(fake->task.error.message, "abcdEFGH"));
}

/* Long messages are cut at a whole character. */
static void test_long_message(void **state)
{
    (void)state;
    fake_auto struct fake *fake = make(TEXT_OPTIONS);
    struct buf said;
    buf_init(&said, 4096);
    buf_add_text(&said, "{\"error\":{\"message\":\"x");
    for (int i = 0; i < 400; i++)
        buf_add_text(&said, "\xc3\xa4");
    buf_add_text(&said, "\"}}");
    mem_auto char *body = buf_take(&said);
    fake_will_answer(fake, (struct fake_reply){.status = 400, .body = body});
    assert_int_equal(fake_run(fake), MR_E_UPSTREAM_STATUS);
    json_hold json_t *text = json_string(fake->task.error.message);
    assert_non_null(text); /* is UTF-8 */
    fake_assert_message(&fake->task, "\xc3\xa4...");
}

static void test_transport_errors(void **state)
{
    (void)state;
    static const int codes[] = {MR_E_CONNECT, MR_E_RESET, MR_E_TIMEOUT, MR_E_BAD_RESPONSE,
                                MR_E_CANCELLED};
    fake_auto struct fake *fake = make(TEXT_OPTIONS);
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        fake_will_answer(fake, (struct fake_reply){.code = codes[i]});
        assert_int_equal(fake_run(fake), codes[i]);
    }
}

static void test_broken_envelopes(void **state)
{
    (void)state;
    static const struct {
        const char *body, *message;
    } rows[] = {
        {"{\"choices\":[", "is not JSON"},
        {"", "is not JSON"},
        {"<html>gateway</html>", "is not JSON"},
        {"{}", "no /choices/0/message"},
        {"{\"choices\":[]}", "no /choices/0/message"},
        {"{\"choices\":[{\"message\":\"text\"}]}", "no /choices/0/message"},
        {"{\"choices\":[{\"message\":{\"content\":null},\"finish_reason\":\"tool_calls\"}]}",
         "has no content (finish_reason \"tool_calls\")"},
    };
    fake_auto struct fake *fake = make(TEXT_OPTIONS);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        answer(fake, rows[i].body);
        assert_int_equal(fake_run(fake), MR_E_BAD_RESPONSE);
        assert_int_equal(error_class_of(&fake->task.error), MR_CLASS_RETRY);
        fake_assert_message(&fake->task, rows[i].message);
    }
}

static void test_json(void **state)
{
    (void)state;
    static const char *const contents[] = {
        "\"{\\\"a\\\": [1, 2.5]}\"",
        "\"\\n  {\\\"a\\\": [1, 2.5]}  \\n\"",
        "\"```json\\n{\\\"a\\\": [1, 2.5]}\\n```\"",
        "\"```\\n{\\\"a\\\": [1, 2.5]}\\n```\\n\"",
        "\"\\ufeff{\\\"a\\\": [1, 2.5]}\"",
    };
    for (size_t i = 0; i < sizeof(contents) / sizeof(contents[0]); i++) {
        fake_auto struct fake *fake = make(JSON_OPTIONS);
        mem_auto char *body =
            mem_format("{\"choices\":[{\"message\":{\"content\":%s},\"finish_reason\":\"stop\"}]}",
                       contents[i]);
        answer(fake, body);
        assert_int_equal(fake_run(fake), MR_OK);
        fake_assert_json(fake->task.output, "{'a': [1, 2.5]}");
        assert_null(fake_step(fake, "first"));
    }
}

/* An answer that is no JSON: kept, shown to the model with what is wrong, asked for again. */
static void test_repair(void **state)
{
    (void)state;
    fake_auto struct fake *fake = make(JSON_OPTIONS);
    answer(fake, ANSWER("\"{'a': 1}\""));
    answer(fake, ANSWER("\"{\\\"a\\\": 1}\""));
    assert_int_equal(fake_run(fake), MR_OK);
    fake_assert_json(fake->task.output, "{'a': 1}");
    assert_int_equal(fake->request_count, 2);
    json_hold json_t *body =
        json_read(fake->requests[1].body, strlen(fake->requests[1].body), 0, NULL);
    assert_string_equal(json_string_value(json_at(body, "/messages/0/content")), "Is a can metal?");
    assert_string_equal(json_string_value(json_at(body, "/messages/1/role")), "assistant");
    assert_string_equal(json_string_value(json_at(body, "/messages/1/content")), "{'a': 1}");
    assert_string_equal(json_string_value(json_at(body, "/messages/2/role")), "user");
    assert_non_null(strstr(json_string_value(json_at(body, "/messages/2/content")), "line 1"));
    assert_int_equal(fake->task.input_tokens, 22);
    /* The step comes before the second call. */
    const char *step = strstr(buf_text(&fake->trace), "step_put first \"{'a': 1}\"\n");
    assert_non_null(step);
    assert_non_null(strstr(step, "http POST"));
}

static void test_repair_fails(void **state)
{
    (void)state;
    fake_auto struct fake *fake = make(JSON_OPTIONS);
    answer(fake, ANSWER("\"no\""));
    answer(fake, ANSWER("\"\""));
    assert_int_equal(fake_run(fake), MR_E_BAD_RESPONSE);
    fake_assert_message(&fake->task, "the model's answer is not JSON (");
    fake_assert_message(&fake->task, "and neither is its repair (it is empty)");
}

/* A crash between the first answer and its repair: the first is not paid for again. */
static void test_repair_after_crash(void **state)
{
    (void)state;
    fake_auto struct fake *fake = make(JSON_OPTIONS);
    answer(fake, ANSWER("\"no\""));
    fake->torture_at = 3; /* http, step_put, http */
    fake->torture_code = MR_E_LOST;
    assert_int_equal(fake_run(fake), MR_E_LOST);
    assert_string_equal(fake_step(fake, "first"), "\"no\"");

    fake->torture_at = 0;
    fake_clear_trace(fake);
    answer(fake, ANSWER("\"true\""));
    assert_int_equal(fake_run(fake), MR_OK);
    fake_assert_json(fake->task.output, "true");
    assert_int_equal(fake->request_count, 3); /* one, the one that was tortured, one */
    assert_int_equal(fake->task.input_tokens, 11);
    assert_non_null(strstr(fake->requests[2].body, "Answer again"));
}

static void test_json_that_cannot_be(void **state)
{
    (void)state;
    static const struct {
        const char *body, *message;
    } rows[] = {
        {"{\"choices\":[{\"message\":{\"content\":\"{\\\"a\\\":\"},\"finish_reason\":\"length\"}]}",
         "raise max_completion_tokens"},
        {"{\"choices\":[{\"message\":{\"content\":\"\"},\"finish_reason\":\"content_filter\"}]}",
         "content filter"},
        {"{\"choices\":[{\"message\":{\"content\":null,\"refusal\":\"I can't.\"}}]}",
         "refused to answer: I can't."},
    };
    fake_auto struct fake *fake = make(JSON_OPTIONS);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        answer(fake, rows[i].body);
        assert_int_equal(fake_run(fake), MR_E_BAD_RESPONSE);
        assert_int_equal(fake->task.error.class, MR_CLASS_PERMANENT);
        fake_assert_message(&fake->task, rows[i].message);
    }
    assert_int_equal(fake->request_count, 3); /* no repair: it would say the same */
}

static void test_missing_input(void **state)
{
    (void)state;
    fake_auto struct fake *fake =
        fake_new("llm", "{'endpoint': 'openai', 'model': 'm', 'messages': [{'role': 'user',"
                        " 'content': 'Is {{ .input.q }} metal?'}]}");
    fake_set(fake, "input", "{}");
    assert_int_equal(fake_run(fake), MR_E_SCHEMA);
    assert_int_equal(fake->request_count, 0);
}

#define IMAGE_OPTIONS(image)                                                                       \
    "{'endpoint': 'openai', 'model': 'm', 'image': '" image "', 'messages': [{'role': 'user',"     \
    " 'content': [{'type': 'text', 'text': 'What is it?'},"                                        \
    " {'type': 'image_url', 'image_url': {'url': '{{ .input.url }}', 'detail': 'low'}}]}]}"

static json_t *sent_image(const struct fake *fake, size_t request, json_t **ret_body)
{
    const char *text = fake->requests[request].body;
    *ret_body = json_read(text, strlen(text), 0, NULL);
    return json_at(*ret_body, "/messages/0/content/1/image_url");
}

static void test_image_url(void **state)
{
    (void)state;
    fake_auto struct fake *fake = fake_new("llm", IMAGE_OPTIONS("url"));
    fake_set(fake, "input", "{'url': 'https://example.org/a.png'}");
    answer(fake, ANSWER("\"A can.\""));
    assert_int_equal(fake_run(fake), MR_OK);
    json_hold json_t *body = NULL;
    json_t *image = sent_image(fake, 0, &body);
    assert_string_equal(json_text_or(image, "url", ""), "https://example.org/a.png");
    assert_string_equal(json_text_or(image, "detail", ""), "low");
}

static void test_image_inline(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *base64;
    } rows[] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foobar", "Zm9vYmFy"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        fake_auto struct fake *fake = fake_new("llm", IMAGE_OPTIONS("inline"));
        fake_set(fake, "input", "{'url': 'https://example.org/a.png'}");
        fake_will_answer(fake, (struct fake_reply){.headers = "content-type: image/png; x=y",
                                                   .body = rows[i].bytes});
        answer(fake, ANSWER("\"A can.\""));
        assert_int_equal(fake_run(fake), MR_OK);
        assert_string_equal(fake->requests[0].url, "https://example.org/a.png");
        assert_int_equal(fake->requests[0].flags, MR_HTTP_GUARD);
        assert_null(fake->requests[0].endpoint); /* no key goes there */
        assert_true(fake->requests[0].max_bytes > 0);
        json_hold json_t *body = NULL;
        mem_auto char *want = mem_format("data:image/png;base64,%s", rows[i].base64);
        assert_string_equal(json_text_or(sent_image(fake, 1, &body), "url", ""), want);
    }
}

static void test_image_data_url(void **state)
{
    (void)state;
    fake_auto struct fake *fake = fake_new("llm", IMAGE_OPTIONS("inline"));
    fake_set(fake, "input", "{'url': 'data:image/png;base64,AAAA'}");
    answer(fake, ANSWER("\"A can.\""));
    assert_int_equal(fake_run(fake), MR_OK);
    assert_int_equal(fake->request_count, 1);
    json_hold json_t *body = NULL;
    assert_string_equal(json_text_or(sent_image(fake, 0, &body), "url", ""),
                        "data:image/png;base64,AAAA");
}

static void test_image_refused(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        int status;
        const char *type;
        int code, cls;
        const char *message;
    } rows[] = {
        {"'file:///etc/passwd'", 0, NULL, MR_E_SCHEMA, 0, "neither http:, https: nor a data URL"},
        {"'https://example.org/'", 404, NULL, MR_E_UPSTREAM_STATUS, MR_CLASS_PERMANENT, "404"},
        {"'https://example.org/'", 503, NULL, MR_E_UPSTREAM_STATUS, MR_CLASS_RETRY, "503"},
        {"'https://example.org/'", 302, NULL, MR_E_UPSTREAM_STATUS, MR_CLASS_PERMANENT, "302"},
        {"'https://example.org/'", 200, "content-type: text/html", MR_E_SCHEMA, 0,
         "is not an image"},
        {"'https://example.org/'", 200, "content-type: image/\"x", MR_E_SCHEMA, 0,
         "is not an image"},
        {"'https://example.org/'", 200, NULL, MR_E_SCHEMA, 0, "is not an image"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        fake_auto struct fake *fake = fake_new("llm", IMAGE_OPTIONS("inline"));
        mem_auto char *input = mem_format("{'url': %s}", rows[i].url);
        fake_set(fake, "input", input);
        fake_will_answer(fake, (struct fake_reply){
                                   .status = rows[i].status, .headers = rows[i].type, .body = "x"});
        assert_int_equal(fake_run(fake), rows[i].code);
        assert_int_equal(fake->task.error.class, rows[i].cls);
        fake_assert_message(&fake->task, rows[i].message);
    }
}

static void test_check(void **state)
{
    (void)state;
    mem_auto char *none = fake_check("llm", TEXT_OPTIONS);
    assert_string_equal(none, "");
    fake_assert_check("llm", "{'model': 'm', 'messages': []}", "error", "endpoint", "required",
                      NULL);
    fake_assert_check("llm", HEAD ", 'modle': 'x'}", "error", "/modle", "model", NULL);
    fake_assert_check("llm", HEAD ", 'stream': true}", "error", "/stream", "not known", NULL);
    fake_assert_check("llm", HEAD ", 'temperature': 3}", "error", "/temperature", "from 0 to 2",
                      NULL);
    fake_assert_check("llm", HEAD ", 'temperature': 'hot'}", "error", "/temperature", NULL);
    fake_assert_check("llm", HEAD ", 'max_tokens': 0}", "error", "/max_tokens", NULL);
    fake_assert_check("llm", HEAD ", 'seed': 1.5}", "error", "/seed", NULL);
    fake_assert_check("llm", HEAD ", 'stop': []}", "error", "/stop", "1 to 4", NULL);
    fake_assert_check("llm", HEAD ", 'stop': ['a', 1]}", "error", "/stop", NULL);
    fake_assert_check("llm", HEAD ", 'verbosity': 1}", "error", "/verbosity", NULL);
    fake_assert_check("llm", HEAD ", 'response': 'xml'}", "error", "/response", "json", NULL);
    fake_assert_check("llm", HEAD ", 'response': {'schema': {}}}", "error", "/response", NULL);
    fake_assert_check("llm", HEAD ", 'extra': []}", "error", "/extra", "not an object", NULL);
    fake_assert_check("llm", HEAD ", 'extra': {'stream': true}}", "error", "/extra/stream", NULL);
    fake_assert_check("llm", HEAD ", 'timeout_idle': '0s'}", "error", "/timeout_idle", NULL);
    fake_assert_check("llm", "{'endpoint': 'e', 'model': 'm', 'messages': {}}", "error",
                      "/messages", NULL);
    fake_assert_check("llm", HEAD ", 'max_tokens': 5, 'max_completion_tokens': 5}", "warn",
                      "/max_tokens", NULL);
}

/* Every suspension ends in turn with each error: a repair with an image, all there is. */
static struct fake *prepare_torture(void)
{
    struct fake *fake = fake_new(
        "llm", "{'endpoint': 'openai', 'model': 'm', 'image': 'inline', 'response': 'json',"
               " 'messages': [{'role': 'user', 'content': [{'type': 'image_url',"
               " 'image_url': {'url': '{{ .input.url }}'}}]}]}");
    fake_set(fake, "input", "{'url': 'https://example.org/a.png'}");
    for (int i = 0; i < 2; i++) {
        fake_will_answer(fake,
                         (struct fake_reply){.headers = "content-type: image/png", .body = "abc"});
        answer(fake, i == 0 ? ANSWER("\"no\"") : ANSWER("\"{}\""));
    }
    return fake;
}

static void check_torture(struct fake *fake)
{
    assert_int_equal(fake->task.code, fake->torture_code);
}

static void test_torture(void **state)
{
    (void)state;
    assert_int_equal(fake_torture(prepare_torture, check_torture), 5 * 2 * 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_text_parts_without_usage),
        cmocka_unit_test(test_statuses),
        cmocka_unit_test(test_keys_are_masked),
        cmocka_unit_test(test_long_message),
        cmocka_unit_test(test_transport_errors),
        cmocka_unit_test(test_broken_envelopes),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_repair),
        cmocka_unit_test(test_repair_fails),
        cmocka_unit_test(test_repair_after_crash),
        cmocka_unit_test(test_json_that_cannot_be),
        cmocka_unit_test(test_missing_input),
        cmocka_unit_test(test_image_url),
        cmocka_unit_test(test_image_inline),
        cmocka_unit_test(test_image_data_url),
        cmocka_unit_test(test_image_refused),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_torture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
