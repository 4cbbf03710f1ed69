/* Pipelines: from file to graph, and every error with its place. */
#include "rig.h"

/* Builds a text that must be refused, and expects an error at `pointer` with `text`. */
static void refused(const char *text, const char *pointer, const char *message)
{
    struct rig rig;
    rig_open(&rig);
    assert_null(rig_build(&rig, "test", text));
    assert_true(report_has(&rig.report, pointer, message));
    rig_close(&rig);
}

static void test_graph(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig);
    struct pipeline *pipeline = rig_must(
        &rig, "test",
        "{\"name\":\"test\",\"stages\":["
        "{\"name\":\"a\",\"plugin\":\"echo\"},"
        "{\"name\":\"b\",\"plugin\":\"echo\",\"needs\":[],\"queue\":\"slow\",\"timeout\":\"5s\"},"
        "{\"name\":\"c\",\"plugin\":\"echo\",\"needs\":[\"a\",\"b\"],\"concurrency\":3,"
        "\"retry\":{\"attempts\":7},\"else\":{\"x\":1},\"when\":\".a == 1\"},"
        "{\"name\":\"d\",\"plugin\":\"echo\",\"on_failure\":[1],\"//\":\"a comment\"}]}");
    assert_int_equal(pipeline->stage_count, 4);
    struct stage *a = pipeline_stage(pipeline, "a"), *b = pipeline_stage(pipeline, "b");
    struct stage *c = pipeline_stage(pipeline, "c"), *d = pipeline_stage(pipeline, "d");
    assert_int_equal(a->need_count, 0);
    assert_int_equal(a->timeout_ms, 30000);
    assert_int_equal(a->retry.attempts, 3);
    assert_int_equal(a->retry.backoff_ms, 1000);
    assert_int_equal(a->retry.max_backoff_ms, 60000);
    assert_string_equal(a->queue, "default");
    assert_string_equal(a->otherwise, "null");
    assert_null(a->on_failure);
    assert_int_equal(a->next_count, 1);
    assert_int_equal(a->next[0], 2);
    assert_int_equal(b->need_count, 0);
    assert_string_equal(b->queue, "slow");
    assert_int_equal(b->timeout_ms, 5000);
    assert_int_equal(c->need_count, 2);
    assert_int_equal(c->concurrency, 3);
    assert_int_equal(c->retry.attempts, 7);
    assert_string_equal(c->otherwise, "{\"x\":1}");
    assert_non_null(c->when);
    assert_int_equal(d->need_count, 1);
    assert_string_equal(d->on_failure, "[1]");
    assert_null(pipeline_stage(pipeline, "e"));
    assert_ptr_equal(pipeline_ref(pipeline), pipeline);
    pipeline_unref(pipeline);
    pipeline_unref(pipeline);
    pipeline_unref(NULL);
    rig_close(&rig);
}

static void test_refused(void **state)
{
    (void)state;
    refused("[]", "test", "JSON object");
    refused("{\"stages\":[]}", "/stages", "array of stages");
    refused("{\"stage\":[]}", "/stage", "did you mean \"stages\"");
    refused("{\"stages\":[{\"name\":\"a\"}]}", "/stages/0", "\"plugin\" is required");
    refused("{\"stages\":[1]}", "/stages/0", "object");
    refused("{\"stages\":[{\"name\":\"a\",\"plugin\":\"ecko\"}]}", "/stages/0/plugin", "\"echo\"");
    refused("{\"stages\":[{\"name\":\"A\",\"plugin\":\"echo\"}]}", "/stages/0/name", "not a name");
    refused("{\"stages\":[{\"name\":\"input\",\"plugin\":\"echo\"}]}", "/stages/0/name",
            "cannot be the name");
    refused(
        "{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\"},{\"name\":\"a\",\"plugin\":\"echo\"}]}",
        "/stages/1/name", "used twice");
    refused("{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\",\"tiemout\":\"1s\"}]}",
            "/stages/0/tiemout", "did you mean \"timeout\"");
    refused("{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\",\"timeout\":5}]}",
            "/stages/0/timeout", "\"5s\"");
    refused("{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\",\"queue\":\"A B\"}]}",
            "/stages/0/queue", "name of a queue");
    refused("{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\",\"retry\":{\"attempts\":0}}]}",
            "/stages/0/retry/attempts", "1 to 1000");
    refused("{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\",\"options\":{\"outputt\":1}}]}",
            "/stages/0/options/outputt", "did you mean \"output\"");
    refused("{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\",\"options\":[]}]}",
            "/stages/0/options", "object");
    refused("{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\",\"when\":\"input(\"}]}",
            "/stages/0/when", "");
    refused("{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\"}],\"on_complete\":[{\"name\":\"t\","
            "\"mode\":\"dispatch\",\"pipeline\":\"p\",\"input\":\"{{ .b }}\"}]}",
            "/on_complete/0/input", "nothing called .b");
    refused("{\"input\":{\"requird\":[]},\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\"}]}",
            "/input/requird", "did you mean \"required\"");
}

static void test_every_error_at_once(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig);
    assert_null(rig_build(&rig, "test",
                          "{\"descripton\":1,\"stages\":[{\"name\":\"a\",\"plugin\":\"nope\"},"
                          "{\"name\":\"b\",\"plugin\":\"echo\",\"needs\":[\"x\"]}],"
                          "\"result\":\"{{ .c }}\"}"));
    assert_true(report_has(&rig.report, "/descripton", "description"));
    assert_true(report_has(&rig.report, "/stages/0/plugin", "no plugin"));
    assert_true(report_has(&rig.report, "/stages/1/needs/0", "no stage \"x\""));
    assert_true(report_has(&rig.report, "/result", "nothing called .c"));
    assert_int_equal(report_errors(&rig.report), 4);
    rig_close(&rig);
}

static void test_needs(void **state)
{
    (void)state;
    refused("{\"stages\":[{\"name\":\"one\",\"plugin\":\"echo\"},"
            "{\"name\":\"b\",\"plugin\":\"echo\",\"needs\":[\"onee\"]}]}",
            "/stages/1/needs/0", "did you mean \"one\"");
    refused("{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\",\"needs\":\"b\"}]}",
            "/stages/0/needs", "array of names");
    refused("{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\"},"
            "{\"name\":\"b\",\"plugin\":\"echo\",\"needs\":[\"a\",\"a\"]}]}",
            "/stages/1/needs/1", "twice");
    refused("{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\",\"needs\":[\"a\"]}]}",
            "/stages/0/needs", "a -> a");
    refused("{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\",\"needs\":[\"c\"]},"
            "{\"name\":\"b\",\"plugin\":\"echo\"},{\"name\":\"c\",\"plugin\":\"echo\"}]}",
            "/stages/0/needs", "a -> b -> c -> a");
}

static void test_what_expressions_read(void **state)
{
    (void)state;
    refused("{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\"},"
            "{\"name\":\"b\",\"plugin\":\"echo\",\"needs\":[],\"when\":\".a\"}]}",
            "/stages/1/when", "add it to needs");
    refused("{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\"},"
            "{\"name\":\"b\",\"plugin\":\"echo\",\"needs\":[],"
            "\"options\":{\"output\":{\"x\":[\"{{ .a.b }}\"]}}}]}",
            "/stages/1/options/output", "does not wait for the stage \"a\"");
    refused(
        "{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\",\"options\":{\"output\":\"{{ .a }}\"}}]}",
        "/stages/0/options/output", "this very stage");
    refused("{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\",\"when\":\".inptu.x\"}]}",
            "/stages/0/when", "did you mean \".input\"");
    refused("{\"tasks_input\":\"{{ .input }}\",\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\"}]}",
            "/tasks_input", "only .prompt");
    struct rig rig;
    rig_open(&rig);
    /* Not a direct need, but an ancestor. */
    pipeline_unref(
        rig_must(&rig, "test",
                 "{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\"},"
                 "{\"name\":\"b\",\"plugin\":\"echo\"},{\"name\":\"c\",\"plugin\":\"echo\","
                 "\"when\":\".a != null and .stages.b.status == \\\"completed\\\" and "
                 ".job.attempt == 1\"}]}"));
    rig_close(&rig);
}

static bool has_pipeline(void *arg, const char *name)
{
    (void)arg;
    return strcmp(name, "known") == 0;
}

static void test_targets(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig);
    const struct pipeline_setup setup = {.plugins = rig.plugins, .has_pipeline = has_pipeline};
    const char *text =
        "{\"stages\":[{\"name\":\"a\",\"plugin\":\"reward\",\"timeout\":\"3s\",\"options\":{"
        "\"targets\":["
        "{\"name\":\"one\",\"mode\":\"call\",\"pipeline\":\"known\",\"timeout\":\"10s\"},"
        "{\"name\":\"two\",\"mode\":\"dispatch\",\"pipeline\":\"unknown\",\"when\":\".one\"},"
        "{\"name\":\"a\",\"mode\":\"dispatch\",\"pipeline\":\"known\"}]}}]}";
    struct pipeline_source *source = pipeline_source_new("t", "t.json", "/tmp", text, strlen(text));
    assert_null(pipeline_build(source, &setup, &rig.report));
    assert_true(report_has(&rig.report, "/stages/0/options/targets/1/pipeline", "no pipeline"));
    assert_true(report_has(&rig.report, "/stages/0/options/targets/2/name", "used twice"));
    assert_true(report_has(&rig.report, "/stages/0/options/targets/0/timeout", "is 10s"));
    assert_true(report_has(&rig.report, "/stages/0/timeout", "raise the timeout"));
    assert_int_equal(report_errors(&rig.report), 2);
    pipeline_source_free(source);
    rig_close(&rig);
}

static void test_times(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig);
    struct pipeline *pipeline =
        rig_must(&rig, "test",
                 "{\"deadline\":\"40s\",\"retention\":{\"status\":\"1h\",\"result\":\"2d\"},"
                 "\"durability\":\"aof\",\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\"},"
                 "{\"name\":\"b\",\"plugin\":\"echo\"}]}");
    assert_true(report_has(&rig.report, "/deadline", "add up to"));
    assert_int_equal(pipeline->deadline_ms, 40000);
    assert_int_equal(pipeline->retention_status_ms, 3600000);
    assert_int_equal(pipeline->retention_result_ms, 172800000);
    assert_int_equal(pipeline->durability, PIPELINE_AOF);
    pipeline_unref(pipeline);
    rig_close(&rig);
}

static void test_without_plugins(void **state)
{
    (void)state;
    struct report report;
    report_init(&report);
    const struct pipeline_setup setup = {0};
    const char *text = "{\"stages\":[{\"name\":\"a\",\"plugin\":\"anything\",\"options\":{\"x\":1},"
                       "\"timeout\":\"7s\"}],\"on_complete\":[{\"name\":\"t\"}]}";
    struct pipeline_source *source = pipeline_source_new("t", NULL, NULL, text, strlen(text));
    struct pipeline *pipeline = pipeline_build(source, &setup, &report);
    assert_non_null(pipeline);
    assert_null(pipeline->stages[0].plugin);
    assert_string_equal(pipeline->stages[0].plugin_name, "anything");
    assert_int_equal(pipeline->stages[0].timeout_ms, 7000);
    assert_non_null(pipeline->on_complete);
    assert_null(pipeline->on_failure);
    assert_int_equal(pipeline->on_complete->index, 1);
    assert_string_equal(pipeline->revision, source->revision);
    pipeline_unref(pipeline);
    pipeline_source_free(source);
    report_done(&report);
}

static void test_input(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig);
    struct pipeline *pipeline =
        rig_must(&rig, "test",
                 "{\"input\":{\"required\":[\"a\"],\"properties\":{\"a\":{\"type\":\"string\"}}},"
                 "\"stages\":[{\"name\":\"s\",\"plugin\":\"echo\"}]}");
    json_hold json_t *good = json_pack("{s:s}", "a", "x");
    json_hold json_t *bad = json_pack("{s:i}", "a", 1);
    json_hold json_t *list = json_array();
    assert_true(pipeline_check_input(pipeline, good, &rig.report));
    assert_false(pipeline_check_input(pipeline, bad, &rig.report));
    assert_true(report_has(&rig.report, "/input/a", "type string"));
    assert_false(pipeline_check_input(pipeline, list, &rig.report));
    assert_true(report_has(&rig.report, "/input", "must be an object"));
    pipeline_unref(pipeline);
    rig_close(&rig);
}

static void test_tasks_input_and_result(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig);
    struct error err = {0};
    struct pipeline *pipeline = rig_must(&rig, "test",
                                         "{\"tasks_input\":{\"q\":\"Say {{ .prompt "
                                         "}}\"},\"stages\":[{\"name\":\"s\",\"plugin\":\"echo\"},"
                                         "{\"name\":\"t\",\"plugin\":\"echo\"}],\"result\":{\"z\":"
                                         "\"{{ .s }}\",\"a\":\"{{ .t.x }}!\"}}");
    json_hold json_t *input = NULL;
    assert_int_equal(pipeline_tasks_input(pipeline, "{{ .x }} \"", &input, &err), MR_OK);
    assert_string_equal(json_string_value(json_object_get(input, "q")), "Say {{ .x }} \"");
    struct doc *doc = doc_new();
    char *text = NULL;
    size_t len = 0;
    doc_set_text(doc, "s", "[1,2]", 5);
    doc_set_text(doc, "t", "{\"x\":\"y\"}", 9);
    assert_int_equal(pipeline_result(pipeline, doc, &text, &len, &err), MR_OK);
    assert_string_equal(text, "{\"z\":[1,2],\"a\":\"y!\"}");
    assert_int_equal(len, strlen(text));
    free(text);
    doc_set_text(doc, "t", "{}", 2);
    assert_int_equal(pipeline_result(pipeline, doc, &text, &len, &err), MR_E_SCHEMA);
    assert_non_null(strstr(err.where, "/result"));
    pipeline_unref(pipeline);

    pipeline = rig_must(
        &rig, "test",
        "{\"stages\":[{\"name\":\"s\",\"plugin\":\"echo\"},{\"name\":\"t\",\"plugin\":\"echo\"}]}");
    assert_int_equal(pipeline_result(pipeline, doc, &text, &len, &err), MR_OK);
    assert_string_equal(text, "{\"s\":[1,2],\"t\":{}}");
    free(text);
    json_hold json_t *usual = NULL;
    assert_int_equal(pipeline_tasks_input(pipeline, "hi", &usual, &err), MR_OK);
    assert_string_equal(json_string_value(json_object_get(usual, "prompt")), "hi");
    assert_int_equal(pipeline_tasks_input(pipeline, "\xff", &usual, &err), MR_E_SCHEMA);
    doc_free(doc);
    pipeline_unref(pipeline);
    rig_close(&rig);
}

/* Files */

struct folder {
    char dir[64];
    char path[160];
};

static const char *put(struct folder *folder, const char *name, const char *text)
{
    snprintf(folder->path, sizeof(folder->path), "%s/%s", folder->dir, name);
    FILE *file = fopen(folder->path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    return folder->path;
}

static void folder_open(struct folder *folder)
{
    snprintf(folder->dir, sizeof(folder->dir), "/tmp/millrace-pipe-XXXXXX");
    assert_non_null(mkdtemp(folder->dir));
}

static void folder_close(struct folder *folder, const char *const *names)
{
    for (; *names != NULL; names++) {
        snprintf(folder->path, sizeof(folder->path), "%s/%s", folder->dir, *names);
        unlink(folder->path);
    }
    assert_int_equal(rmdir(folder->dir), 0);
}

static void test_files_are_inlined(void **state)
{
    (void)state;
    struct folder folder;
    struct report report;
    report_init(&report);
    folder_open(&folder);
    put(&folder, "prompt.txt", "Sort {{ .input.x }}\n");
    const char *text =
        "{ \"stages\": [ {\"name\":\"a\",\"plugin\":\"echo\",\"else\":{\"file\":\"x\"},"
        "\"options\":{\"output\":[{\"t\":{\"file\":\"prompt.txt\"}}]}} ] }";
    struct pipeline_source *first = pipeline_read(put(&folder, "test.json", text), &report);
    assert_non_null(first);
    assert_string_equal(first->name, "test");
    assert_string_equal(
        first->text, "{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\",\"else\":{\"file\":\"x\"},"
                     "\"options\":{\"output\":[{\"t\":\"Sort {{ .input.x }}\\n\"}]}}]}");
    /* Spaces of the file do not count, the text of the prompt does. */
    struct pipeline_source *same = pipeline_read(
        put(&folder, "test.json",
            "{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\",\"else\":{\"file\":\"x\"},"
            "\"options\":{\"output\":[{\"t\":{\"file\":\"prompt.txt\"}}]}}]}"),
        &report);
    assert_string_equal(first->revision, same->revision);
    put(&folder, "prompt.txt", "Sort it");
    snprintf(folder.path, sizeof(folder.path), "%s/test.json", folder.dir);
    struct pipeline_source *other = pipeline_read(folder.path, &report);
    assert_string_not_equal(first->revision, other->revision);
    assert_int_equal(report.count, 0);
    pipeline_source_free(first);
    pipeline_source_free(same);
    pipeline_source_free(other);
    report_done(&report);
    folder_close(&folder, (const char *const[]){"test.json", "prompt.txt", NULL});
}

static void test_files_refused(void **state)
{
    (void)state;
    struct folder folder;
    struct report report;
    report_init(&report);
    folder_open(&folder);
    assert_null(pipeline_read(put(&folder, "Bad_Name.json", "{}"), &report));
    assert_true(report_has(&report, "Bad_Name.json", "name of a pipeline file"));
    assert_null(pipeline_read(put(&folder, "a.json", "{\"name\":\"b\",\"stages\":[]}"), &report));
    assert_true(report_has(&report, "/name", "a.json"));
    assert_null(pipeline_read(put(&folder, "a.json", "{\"stages\":\n [}"), &report));
    assert_true(report_has(&report, "a.json", "line 2"));
    assert_null(pipeline_read(
        put(&folder, "a.json", "{\"stages\":[{\"options\":{\"x\":{\"file\":\"gone.txt\"}}}]}"),
        &report));
    assert_true(report_has(&report, "/stages/0/options/x", "gone.txt"));
    put(&folder, "bytes.txt", "\xff\xfe");
    assert_null(pipeline_read(
        put(&folder, "a.json", "{\"stages\":[{\"options\":{\"x\":{\"file\":\"bytes.txt\"}}}]}"),
        &report));
    assert_true(report_has(&report, "/stages/0/options/x", "not UTF-8"));
    snprintf(folder.path, sizeof(folder.path), "%s/none.json", folder.dir);
    assert_null(pipeline_read(folder.path, &report));
    assert_true(report_has(&report, "none.json", "cannot be opened"));
    report_done(&report);
    folder_close(&folder, (const char *const[]){"a.json", "Bad_Name.json", "bytes.txt", NULL});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_graph),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_every_error_at_once),
        cmocka_unit_test(test_needs),
        cmocka_unit_test(test_what_expressions_read),
        cmocka_unit_test(test_targets),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_without_plugins),
        cmocka_unit_test(test_input),
        cmocka_unit_test(test_tasks_input_and_result),
        cmocka_unit_test(test_files_are_inlined),
        cmocka_unit_test(test_files_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
