/* The configuration: defaults, sections, includes, `${…}`, the environment, and every error. */
#include "app/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static struct report report;

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/millrace-config-XXXXXX");
    report_init(&report);
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    char command[128];
    report_done(&report);
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command);
}

static const char *put(const char *name, const char *text)
{
    static char path[160];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    return path;
}

static struct config *load(const char *text)
{
    report_done(&report);
    report_init(&report);
    return config_load(put("millrace.json", text), &report);
}

static bool has(const char *pointer, const char *text)
{
    for (size_t i = 0; i < report.count; i++) {
        const struct error *item = &report.items[i];
        size_t len = strlen(item->where), want = strlen(pointer);
        if (len >= want && strcmp(item->where + len - want, pointer) == 0 &&
            (strstr(item->message, text) != NULL || strstr(item->hint, text) != NULL))
            return true;
    }
    for (size_t i = 0; i < report.count; i++)
        print_error("reported: %s: %s (%s)\n", report.items[i].where, report.items[i].message,
                    report.items[i].hint);
    return false;
}

static struct config *must(const char *text)
{
    struct config *config = load(text);
    for (size_t i = 0; config == NULL && i < report.count; i++)
        print_error("%s: %s\n", report.items[i].where, report.items[i].message);
    assert_non_null(config);
    return config;
}

static void refused(const char *text, const char *pointer, const char *message)
{
    assert_null(load(text));
    assert_true(has(pointer, message));
}

static void test_defaults(void **state)
{
    (void)state;
    struct config *config = must("{}");
    assert_string_equal(config->listen, "unix:/run/millrace/millrace.sock");
    assert_int_equal(config->listen_mode, 0660);
    assert_string_equal(config->redis.url, "redis://127.0.0.1:6379/0");
    assert_string_equal(config->redis.prefix, "mr");
    assert_int_equal(config->redis.partitions, 1);
    assert_true(config->workers >= 1);
    assert_int_equal(config->role, CONFIG_ALL);
    assert_string_equal(config->queues[0], "*");
    assert_null(config->queues[1]);
    assert_int_equal(config->concurrency, 1000);
    assert_int_equal(config->retention_status_ms, 86400000);
    assert_int_equal(config->retention_result_ms, 604800000);
    assert_int_equal(config->lease_ms, 15000);
    assert_int_equal(config->stall_ms, 10000);
    assert_int_equal(config->drain_ms, 30000);
    assert_int_equal(config->max_crashes, 3);
    assert_int_equal(config->dead_schedule_count, 3);
    assert_int_equal(config->dead_schedule_ms[1], 1800000);
    assert_int_equal(config->dead_budget, 60);
    assert_int_equal(config->dead_breaker, 20);
    assert_int_equal(config->limits.body_max, 8 << 20);
    assert_int_equal(config->limits.wait_max, 25000);
    assert_int_equal(config->limits.memory, 1 << 30);
    assert_null(config->limits.address_allow[0]);
    assert_int_equal(config->log_level, LOG_INFO);
    assert_null(config->log_file);
    assert_string_equal(config->tasks_pipeline, "prompt");
    assert_int_equal(config->token_count, 0);
    assert_string_equal(config->prefix, "");
    assert_string_equal(config->dir, dir);
    config_free(config);
    config = config_load(NULL, &report);
    assert_non_null(config);
    assert_null(config->file);
    config_free(config);
    config_free(NULL);
}

static void test_values(void **state)
{
    (void)state;
    struct config *config = must(
        "{\"//\":\"comment\",\"listen\":\"unix:sock/x.sock\",\"listen_mode\":\"0600\","
        "\"pipelines\":\"p\",\"plugins\":[\"/a\",\"b\"],\"workers\":2,\"role\":\"worker\","
        "\"queues\":{\"serve\":[\"llm\",\"default\"],\"llm\":{\"max_running\":7}},"
        "\"endpoints\":{\"openai\":{\"base_url\":\"https://h/v1//\",\"api_key\":\"k\",\"rpm\":60,"
        "\"timeout\":\"5s\",\"prices\":{\"m\":{\"input\":1.5,\"output\":2}}},"
        "\"local\":{\"base_url\":\"http://l\",\"api_key\":\"\",\"prices\":{\"input\":1}}},"
        "\"limits\":{\"body_max\":\"1MiB\",\"address_allow\":[\"10.0.0.0/8\"]},"
        "\"dead\":{\"schedule\":[\"1s\"]},\"log\":{\"level\":\"debug\",\"file\":\"log/x\"},"
        "\"auth\":{\"tokens\":[{\"name\":\"app\",\"scopes\":[\"submit\",\"read\"],\"sha256\":"
        "\"9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08\"}]},"
        "\"cors\":{\"origins\":[\"https://x\"]},\"prefix\":\"/jobs/\",\"drain\":\"0s\"}");
    char expected[128];
    snprintf(expected, sizeof(expected), "unix:%s/sock/x.sock", dir);
    assert_string_equal(config->listen, expected);
    assert_int_equal(config->listen_mode, 0600);
    snprintf(expected, sizeof(expected), "%s/p", dir);
    assert_string_equal(config->pipelines[0], expected);
    assert_string_equal(config->plugins[0], "/a");
    assert_int_equal(config->workers, 2);
    assert_int_equal(config->role, CONFIG_WORKER);
    assert_true(config_serves(config, "llm"));
    assert_false(config_serves(config, "other"));
    assert_int_equal(config_queue_max_running(config, "llm"), 7);
    assert_int_equal(config_queue_max_running(config, "default"), 0);
    const struct config_endpoint *openai = config_endpoint(config, "openai");
    assert_string_equal(openai->endpoint.base_url, "https://h/v1");
    assert_string_equal(openai->endpoint.api_key, "k");
    assert_int_equal(openai->rpm, 60);
    assert_int_equal(openai->tpm, 0);
    assert_int_equal(openai->burst, 1);
    assert_int_equal(openai->endpoint.timeout_ms, 5000);
    assert_true(config_price(openai, "m")->input > 1.4);
    assert_null(config_price(openai, "other"));
    const struct config_endpoint *local = config_endpoint(config, "local");
    assert_null(local->endpoint.api_key);
    assert_true(config_price(local, "any")->input > 0.9);
    assert_null(config_endpoint(config, "nope"));
    assert_ptr_equal(config_find_endpoint(config, "local"), &local->endpoint);
    assert_int_equal(config->limits.body_max, 1 << 20);
    assert_string_equal(config->limits.address_allow[0], "10.0.0.0/8");
    assert_int_equal(config->dead_schedule_count, 1);
    snprintf(expected, sizeof(expected), "%s/log/x", dir);
    assert_string_equal(config->log_file, expected);
    assert_int_equal(config->token_count, 1);
    assert_string_equal(config->tokens[0].sha256,
                        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08");
    assert_true(config_token_may(&config->tokens[0], CONFIG_READ));
    assert_false(config_token_may(&config->tokens[0], CONFIG_ADMIN));
    assert_string_equal(config->cors_origins[0], "https://x");
    assert_string_equal(config->prefix, "/jobs");
    assert_int_equal(config->drain_ms, 0);
    config_free(config);
}

static void test_refused(void **state)
{
    (void)state;
    refused("[]", "millrace.json", "JSON object");
    refused("{\"listen\":", "millrace.json", "line 1");
    refused("{\"lisen\":\"fd:0\"}", "/lisen", "did you mean \"listen\"");
    refused("{\"limits\":{\"body_mx\":\"1MiB\"}}", "/limits/body_mx", "did you mean \"body_max\"");
    refused("{\"limits\":{\"body_max\":8}}", "/limits/body_max", "\"8MiB\"");
    refused("{\"lease\":\"10ms\"}", "/lease", "1s");
    refused("{\"listen\":\"0.0.0.0:9000\"}", "/listen", "listen_trusted");
    refused("{\"listen\":\"nowhere\"}", "/listen", "HOST:PORT");
    refused("{\"listen\":\"fd:x\"}", "/listen", "descriptor");
    refused("{\"listen_mode\":\"rw\"}", "/listen_mode", "octal");
    refused("{\"redis\":{\"url\":\"http://x\"}}", "/redis/url", "redis://");
    refused("{\"redis\":{\"prefix\":\"a{b}\"}}", "/redis/prefix", "A-Z");
    refused("{\"redis\":{\"partitions\":1025}}", "/redis/partitions", "1024");
    refused("{\"limits\":{\"address_allow\":[\"::1\",\"10.0.0.0/33\"]}}", "/limits/address_allow/1",
            "10.0.0.0/8");
    refused("{\"redis\":3}", "/redis", "must be an object");
    refused("{\"role\":\"both\"}", "/role", "\"front\"");
    refused("{\"queues\":[]}", "/queues", "names no queue");
    refused("{\"queues\":{\"A\":{}}}", "/queues/A", "name of a queue");
    refused("{\"queues\":{\"llm\":{\"max\":1}}}", "/queues/llm/max", "max_running");
    refused("{\"endpoints\":{\"x\":{}}}", "/endpoints/x", "\"base_url\" is required");
    refused("{\"endpoints\":{\"x\":{\"base_url\":\"ftp://a\"}}}", "/endpoints/x/base_url", "http");
    refused("{\"dead\":{\"schedule\":[\"1s\",\"soon\"]}}", "/dead/schedule/1", "duration");
    refused("{\"id_namespace\":\"x\"}", "/id_namespace", "UUID");
    refused("{\"prefix\":\"x y\"}", "/prefix", "no path");
    refused("{\"auth\":{\"tokens\":[{\"name\":\"a\",\"sha256\":\"12\",\"scopes\":[\"read\"]}]}}",
            "/auth/tokens/0/sha256", "SHA-256");
    refused("{\"auth\":{\"tokens\":[{\"name\":\"a\",\"sha256\":\"12\",\"scopes\":[\"raed\"]}]}}",
            "/auth/tokens/0/scopes", "submit, read, admin");
    /* All at once. */
    assert_null(load("{\"a\":1,\"lease\":1,\"log\":{\"level\":\"loud\"}}"));
    assert_int_equal(report_errors(&report), 3);
}

static void test_loopback_and_trust(void **state)
{
    (void)state;
    config_free(must("{\"listen\":\"127.0.0.1:9000\"}"));
    config_free(must("{\"listen\":\"[::1]:9000\"}"));
    config_free(must("{\"listen\":\"0.0.0.0:9000\",\"listen_trusted\":true}"));
    config_free(must("{\"listen\":\"fd:0\"}"));
}

static void test_expansion(void **state)
{
    (void)state;
    put("key", "from a file\r\n");
    setenv("TEST_CONFIG_A", "value", 1);
    setenv("TEST_CONFIG_EMPTY", "", 1);
    unsetenv("TEST_CONFIG_NONE");
    struct config *config = must(
        "{\"user\":\"a-${TEST_CONFIG_A}-${TEST_CONFIG_NONE:-d:-e}\",\"group\":\"$${X} $ {\","
        "\"webhooks\":{\"secret\":\"${file:key}\"},"
        "\"redis\":{\"prefix\":\"x${TEST_CONFIG_EMPTY}\",\"user\":\"${TEST_CONFIG_EMPTY:-u}\"}}");
    assert_string_equal(config->user, "a-value-d:-e");
    assert_string_equal(config->group, "${X} $ {");
    assert_string_equal(config->webhooks_secret, "from a file");
    assert_string_equal(config->redis.prefix, "x");
    assert_string_equal(config->redis.user, "u");
    config_free(config);
    refused("{\"user\":\"${TEST_CONFIG_NONE}\"}", "/user", "TEST_CONFIG_NONE is not set");
    refused("{\"user\":\"${TEST CONFIG}\"}", "/user", "not a variable");
    refused("{\"user\":\"${TEST\"}", "/user", "without");
    refused("{\"user\":\"${file:none}\"}", "/user", "cannot be opened");
    /* What a variable holds is not looked into again. */
    setenv("TEST_CONFIG_A", "${TEST_CONFIG_NONE}", 1);
    config = must("{\"user\":\"${TEST_CONFIG_A}\"}");
    assert_string_equal(config->user, "${TEST_CONFIG_NONE}");
    config_free(config);
    unsetenv("TEST_CONFIG_A");
    unsetenv("TEST_CONFIG_EMPTY");
}

static void test_include(void **state)
{
    (void)state;
    put("more.json", "{\"workers\":9,\"limits\":{\"body_max\":\"2MiB\",\"batch_max\":5}}");
    put("last.json", "{\"workers\":7,\"user\":\"u\"}");
    struct config *config = must("{\"include\":[\"more.json\",\"last.json\"],"
                                 "\"limits\":{\"body_max\":\"1MiB\"}}");
    assert_int_equal(config->workers, 7);
    assert_string_equal(config->user, "u");
    assert_int_equal(config->limits.body_max, 1 << 20);
    assert_int_equal(config->limits.batch_max, 5);
    config_free(config);
    put("circle.json", "{\"include\":\"circle.json\"}");
    refused("{\"include\":\"circle.json\"}", "/include", "more than 8 deep");
    refused("{\"include\":\"gone.json\"}", "gone.json", "cannot be opened");
    refused("{\"include\":[1]}", "/include/0", "path");
}

static void test_environment(void **state)
{
    (void)state;
    setenv("MILLRACE_LIMITS__BODY_MAX", "3MiB", 1);
    setenv("MILLRACE_WORKERS", "5", 1);
    setenv("MILLRACE_QUEUES", "a, b", 1);
    setenv("MILLRACE_ENDPOINTS__MY_MODEL__API_KEY", "secret", 1);
    setenv("MILLRACE_LISTEN_TRUSTED", "true", 1);
    setenv("MILLRACE_LOG__FILE", "", 1);
    struct config *config =
        must("{\"workers\":1,\"endpoints\":{\"my-model\":{\"base_url\":\"http://m\"}}}");
    assert_int_equal(config->limits.body_max, 3 << 20);
    assert_int_equal(config->workers, 5);
    assert_string_equal(config->queues[1], "b");
    assert_string_equal(config_endpoint(config, "my-model")->endpoint.api_key, "secret");
    assert_true(config->listen_trusted);
    config_free(config);
    refused("{}", "/endpoints/my-model", "base_url");
    unsetenv("MILLRACE_ENDPOINTS__MY_MODEL__API_KEY");
    setenv("MILLRACE_WORKERS", "many", 1);
    refused("{}", "/workers", "integer");
    setenv("MILLRACE_WORKERS", "2", 1);
    /* Not ours to refuse: Kubernetes sets MILLRACE_PORT for a service of that name. */
    setenv("MILLRACE_PORT", "tcp://1.2.3.4:80", 1);
    config_free(must("{}"));
    assert_true(has("environment", "MILLRACE_PORT names no key"));
    setenv("MILLRACE_MINE", "x", 1);
    unsetenv("MILLRACE_PORT");
    config_free(must("{\"user\":\"${MILLRACE_MINE}\"}"));
    assert_int_equal(report.count, 0);
    static const char *const names[] = {"MILLRACE_LIMITS__BODY_MAX",
                                        "MILLRACE_WORKERS",
                                        "MILLRACE_QUEUES",
                                        "MILLRACE_MINE",
                                        "MILLRACE_ENDPOINTS__MY_MODEL__API_KEY",
                                        "MILLRACE_LISTEN_TRUSTED",
                                        "MILLRACE_LOG__FILE"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unsetenv(names[i]);
}

static void test_secrets(void **state)
{
    (void)state;
    struct config *config =
        must("{\"redis\":{\"url\":\"redis://u:hunter2@127.0.0.1/0\",\"password\":\"hunter2\"},"
             "\"endpoints\":{\"e\":{\"base_url\":\"http://m\",\"api_key\":\"hunter2\"}},"
             "\"webhooks\":{\"secret\":\"hunter2\"}}");
    json_hold json_t *all = config_describe(config);
    char *text = json_dumps(all, 0);
    assert_non_null(text);
    assert_null(strstr(text, "hunter2"));
    assert_non_null(strstr(text, "redis://u:***@127.0.0.1/0"));
    free(text);
    config_free(config);
    assert_null(load("{\"redis\":{\"password\":[\"hunter2\"]},\"webhooks\":{\"secret\":5},"
                     "\"endpoints\":{\"e\":{\"base_url\":\"http://m\",\"api_key\":{\"k\":"
                     "\"hunter2\"}}}}"));
    for (size_t i = 0; i < report.count; i++) {
        assert_null(strstr(report.items[i].message, "hunter2"));
        assert_null(strstr(report.items[i].hint, "hunter2"));
    }
}

static void test_find(void **state)
{
    (void)state;
    char here[4096], expected[160];
    assert_non_null(getcwd(here, sizeof(here)));
    assert_int_equal(chdir(dir), 0);
    unsetenv("MILLRACE_CONFIG");
    char *path = config_find(NULL);
    if (access("/etc/millrace/millrace.json", F_OK) != 0)
        assert_null(path);
    free(path);
    put("millrace.json", "{}");
    path = config_find(NULL);
    snprintf(expected, sizeof(expected), "%s/millrace.json", dir);
    assert_string_equal(path, expected);
    free(path);
    setenv("MILLRACE_CONFIG", "other.json", 1);
    path = config_find(NULL);
    snprintf(expected, sizeof(expected), "%s/other.json", dir);
    assert_string_equal(path, expected);
    free(path);
    path = config_find("/x/y.json");
    assert_string_equal(path, "/x/y.json");
    free(path);
    unsetenv("MILLRACE_CONFIG");
    assert_int_equal(chdir(here), 0);
}

static void test_pipelines(void **state)
{
    (void)state;
    char folder[96];
    snprintf(folder, sizeof(folder), "%s/p", dir);
    assert_int_equal(mkdir(folder, 0755), 0);
    put("p/b.json", "{}");
    put("p/a.json", "{}");
    put("p/a.input.json", "{}");
    put("p/readme.txt", "");
    struct config *config = must("{\"pipelines\":[\"gone\",\"p\"]}");
    char **names = config_pipeline_names(config);
    assert_string_equal(names[0], "a");
    assert_string_equal(names[1], "b");
    assert_null(names[2]);
    free(names[0]);
    free(names[1]);
    free(names);
    char *path = config_pipeline_file(config, "b");
    assert_non_null(path);
    assert_non_null(strstr(path, "/p/b.json"));
    free(path);
    assert_null(config_pipeline_file(config, "c"));
    assert_null(config_pipeline_file(config, "../b"));
    config_free(config);
}

static void test_sample(void **state)
{
    (void)state;
    struct config *config = config_load(MR_SOURCE_DIR "/conf/millrace.json", &report);
    assert_int_equal(report_errors(&report), 0);
    assert_non_null(config);
    config_free(config);
    struct buf buf;
    buf_init(&buf, 1u << 20);
    assert_true(config_describe_keys(&buf));
    assert_non_null(strstr(buf_text(&buf), "body_max"));
    assert_non_null(strstr(buf_text(&buf), "endpoints.NAME"));
    buf_done(&buf);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_defaults),           TEST(test_values),    TEST(test_refused),
        TEST(test_loopback_and_trust), TEST(test_expansion), TEST(test_include),
        TEST(test_environment),        TEST(test_secrets),   TEST(test_find),
        TEST(test_pipelines),          TEST(test_sample),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
