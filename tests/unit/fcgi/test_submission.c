/* Submissions: which bodies are taken, which fault each other one has, and what id and digest come
 * out. */
#include "fcgi/submission.h"
#include "run/pipeline.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct config config;
static struct front front;
static struct pipeline *pipelines[1];

static const char source_text[] =
    "{\"name\":\"greet\",\"input\":{\"required\":[\"user\"],\"properties\":{\"user\":{\"type\":"
    "\"string\"}}},\"stages\":[{\"name\":\"say\",\"plugin\":\"echo\"}]}";

static int setup(void **state)
{
    (void)state;
    struct pipeline_source *source =
        pipeline_source_new("greet", "greet.json", "/", source_text, sizeof(source_text) - 1);
    struct report report;
    report_init(&report);
    static const struct pipeline_setup structure_only = {0};
    pipelines[0] = pipeline_build(source, &structure_only, &report);
    if (pipelines[0] == NULL && report.count > 0) {
        print_error("%s\n", report.items[0].message);
    }
    report_done(&report);
    pipeline_source_free(source);
    config.id_namespace = ID_NAMESPACE_DEFAULT;
    config.limits.memory = 1u << 30;
    front.config = &config;
    front.pipelines = pipelines;
    front.pipeline_count = 1;
    return pipelines[0] != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    pipeline_unref(pipelines[0]);
    return 0;
}

static struct submission submission;
static struct report report;

static enum submission_fault read_text(const char *text)
{
    struct error err;
    json_hold json_t *body = json_read(text, strlen(text), 0, &err);
    assert_non_null(body);
    submission_init(&submission);
    report_init(&report);
    return submission_read(&front, body, &submission, &report);
}

static void done(void)
{
    submission_done(&submission);
    report_done(&report);
}

#define GOOD "\"pipeline\":\"greet\",\"input\":{\"user\":\"u\"}"

static void accepted(void **state)
{
    (void)state;
    assert_int_equal(read_text("{" GOOD "}"), SUBMISSION_OK);
    assert_string_equal(submission.priority, "normal");
    assert_null(submission.metadata);
    done();
    assert_int_equal(read_text("{" GOOD
                               ",\"priority\":\"high\",\"delay\":\"10s\",\"deadline\":\"5m\","
                               "\"metadata\":{\"a\":\"b\"},\"fresh\":true}"),
                     SUBMISSION_OK);
    assert_string_equal(submission.priority, "high");
    assert_int_equal(submission.delay_ms, 10000);
    assert_int_equal(submission.ttl_ms, 300000);
    assert_true(submission.is_fresh);
    assert_string_equal(submission.metadata, "{\"a\":\"b\"}");
    done();
    assert_int_equal(read_text("{" GOOD ",\"run_at\":\"2001-01-01T00:00:00Z\"}"), SUBMISSION_OK);
    assert_int_equal(submission.delay_ms, 0);
    assert_int_equal(submission.run_at_ms, 978307200000);
    done();
}

static void faults(void **state)
{
    (void)state;
    static const struct {
        const char *text, *pointer;
    } rows[] = {
        {"[]", ""},
        {"1", ""},
        {"null", ""},
        {"{}", "/pipeline"},
        {"{\"pipeline\":1,\"input\":{}}", "/pipeline"},
        {"{\"pipeline\":\"greet\"}", "/input"},
        {"{\"pipeline\":\"greet\",\"input\":[]}", "/input"},
        {"{\"pipeline\":\"greet\",\"input\":{}}", "/input/user"},
        {"{\"pipeline\":\"greet\",\"input\":{\"user\":1}}", "/input/user"},
        {"{" GOOD ",\"priorty\":\"low\"}", "/priorty"},
        {"{" GOOD ",\"a/b~c\":1}", "/a~1b~0c"},
        {"{" GOOD ",\"priority\":\"urgent\"}", "/priority"},
        {"{" GOOD ",\"priority\":1}", "/priority"},
        {"{" GOOD ",\"delay\":10}", "/delay"},
        {"{" GOOD ",\"delay\":\"10\"}", "/delay"},
        {"{" GOOD ",\"delay\":\"-1s\"}", "/delay"},
        {"{" GOOD ",\"delay\":\"367d\"}", "/delay"},
        {"{" GOOD ",\"run_at\":\"tomorrow\"}", "/run_at"},
        {"{" GOOD ",\"run_at\":\"9999-01-01T00:00:00Z\"}", "/run_at"},
        {"{" GOOD ",\"run_at\":\"2030-01-01T00:00:00Z\",\"delay\":\"1s\"}", "/run_at"},
        {"{" GOOD ",\"deadline\":null}", "/deadline"},
        {"{" GOOD ",\"deadline\":\"0s\"}", "/deadline"},
        {"{" GOOD ",\"metadata\":[]}", "/metadata"},
        {"{" GOOD ",\"metadata\":{\"k\":1}}", "/metadata/k"},
        {"{" GOOD ",\"fresh\":\"yes\"}", "/fresh"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(read_text(rows[i].text), SUBMISSION_SHAPE);
        bool found = false;
        for (size_t n = 0; n < report.count; n++) {
            found = found || strcmp(report.items[n].where, rows[i].pointer) == 0;
        }
        if (!found) {
            print_error("%s: %s, not %s\n", rows[i].text,
                        report.count > 0 ? report.items[0].where : "nothing", rows[i].pointer);
        }
        assert_true(found);
        done();
    }
}

static void every_fault_at_once(void **state)
{
    (void)state;
    assert_int_equal(read_text("{\"input\":1,\"delay\":2,\"what\":3}"), SUBMISSION_SHAPE);
    assert_int_equal(report.count, 4);
    done();
}

static void other_faults(void **state)
{
    (void)state;
    assert_int_equal(read_text("{\"pipeline\":\"other\",\"input\":{}}"), SUBMISSION_NO_PIPELINE);
    done();
    char text[1024] = "{" GOOD ",\"metadata\":{";
    for (int i = 0; i < 17; i++) {
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s\"k%d\":\"\"",
                 i > 0 ? "," : "", i);
    }
    strcat(text, "}}");
    assert_int_equal(read_text(text), SUBMISSION_COUNT);
    done();
}

static char first_id[ID_BYTES], first_digest[HASH_HEX_BYTES];

static void prepared(const char *text, const char *key)
{
    assert_int_equal(read_text(text), SUBMISSION_OK);
    struct error err;
    assert_int_equal(submission_prepare(&front, &submission, key, &err), MR_OK);
    memcpy(first_id, submission.id, ID_BYTES);
    memcpy(first_digest, submission.job.digest, HASH_HEX_BYTES);
    done();
}

static void ids(void **state)
{
    (void)state;
    char id[ID_BYTES], digest[HASH_HEX_BYTES];
    prepared("{" GOOD "}", NULL);
    memcpy(id, first_id, sizeof(id));
    memcpy(digest, first_digest, sizeof(digest));
    assert_true(id_is_valid(id));
    /* Order and spaces do not count. */
    prepared("{\"input\": {\"user\" : \"u\"}, \"pipeline\":\"greet\"}", NULL);
    assert_string_equal(first_id, id);
    assert_string_equal(first_digest, digest);
    /* As id_of_job says, which `millrace id` prints. */
    struct error err;
    json_hold json_t *input = json_pack("{s:s}", "user", "u");
    char computed[ID_BYTES];
    assert_int_equal(id_of_job(ID_NAMESPACE_DEFAULT, "greet", NULL, input, computed, &err), MR_OK);
    assert_string_equal(computed, id);
    /* A key decides alone. */
    prepared("{" GOOD "}", "key");
    assert_string_not_equal(first_id, id);
    assert_string_equal(first_digest, digest);
    memcpy(id, first_id, sizeof(id));
    prepared("{\"pipeline\":\"greet\",\"input\":{\"user\":\"other\"}}", "key");
    assert_string_equal(first_id, id);
    assert_string_not_equal(first_digest, digest);
    /* Fresh ones differ each time. */
    prepared("{" GOOD ",\"fresh\":true}", NULL);
    memcpy(id, first_id, sizeof(id));
    prepared("{" GOOD ",\"fresh\":true}", NULL);
    assert_string_not_equal(first_id, id);
}

static void tokens_have_namespaces(void **state)
{
    (void)state;
    static const struct config_token a = {.name = "a", .scopes = CONFIG_READ};
    static const struct config_token root = {.name = "root", .scopes = CONFIG_ADMIN};
    char ns[ID_BYTES], other[ID_BYTES];
    struct error err;
    assert_int_equal(auth_namespace(&config, NULL, ns, &err), MR_OK);
    assert_string_equal(ns, ID_NAMESPACE_DEFAULT);
    assert_int_equal(auth_namespace(&config, &a, ns, &err), MR_OK);
    assert_int_equal(auth_namespace(&config, &root, other, &err), MR_OK);
    assert_string_not_equal(ns, other);
    assert_true(auth_sees(NULL, ""));
    assert_true(auth_sees(&a, "a"));
    assert_false(auth_sees(&a, "b"));
    assert_false(auth_sees(&a, NULL));
    assert_true(auth_sees(&root, "b"));
}

static void tokens_are_checked(void **state)
{
    (void)state;
    char hash[HASH_HEX_BYTES];
    hash_text("secret", 6, hash);
    const struct config_token tokens[] = {
        {.name = "none", .sha256 = "", .scopes = CONFIG_READ},
        {.name = "a", .sha256 = hash, .scopes = CONFIG_READ},
    };
    const struct config with = {.tokens = tokens, .token_count = 2};
    static const struct {
        const char *header;
        enum auth_scope scope;
        enum auth_verdict verdict;
    } rows[] = {
        {"HTTP_AUTHORIZATION=Bearer secret", AUTH_READ, AUTH_OK},
        {"HTTP_AUTHORIZATION=bearer   secret", AUTH_READ, AUTH_OK},
        {"HTTP_AUTHORIZATION=Bearer secret", AUTH_SUBMIT, AUTH_REFUSED},
        {"HTTP_AUTHORIZATION=Bearer secre", AUTH_READ, AUTH_UNKNOWN},
        {"HTTP_AUTHORIZATION=Bearer ", AUTH_READ, AUTH_UNKNOWN},
        {"HTTP_AUTHORIZATION=Basic secret", AUTH_READ, AUTH_UNKNOWN},
        {"X=1", AUTH_READ, AUTH_UNKNOWN},
        {"X=1", AUTH_NONE, AUTH_OK},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *params[] = {"REQUEST_METHOD=GET", "REQUEST_URI=/", rows[i].header, NULL};
        struct request request;
        request_init(&request, "", params, 10);
        const struct config_token *token = NULL;
        assert_int_equal(auth_check(&with, &request, rows[i].scope, &token), rows[i].verdict);
        assert_int_equal(token == &tokens[1],
                         rows[i].verdict == AUTH_OK && rows[i].scope != AUTH_NONE);
        assert_int_equal(auth_check(&config, &request, rows[i].scope, &token), AUTH_OK);
        assert_null(token);
        request_done(&request);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepted),
        cmocka_unit_test(faults),
        cmocka_unit_test(every_fault_at_once),
        cmocka_unit_test(other_faults),
        cmocka_unit_test(ids),
        cmocka_unit_test(tokens_have_namespaces),
        cmocka_unit_test(tokens_are_checked),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
