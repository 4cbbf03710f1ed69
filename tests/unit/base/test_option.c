/* option.h: rows and a JSON object to a struct; every error with its place and what would be right;
 * rows of older plugins; descriptions. */
#include "base/option.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Last: its macro fail() would break plugin.h. */
#include <cmocka.h>

struct target {
    const char *name;
    int32_t mode;
    const mr_template *id;
    const struct json_t *extra;
};

struct settings {
    const char *model, *path, *endpoint, *key;
    int64_t count;
    double heat;
    int32_t stream, response;
    uint64_t timeout, cache, body;
    const mr_template *output;
    const mr_expr *when;
    const struct json_t *schema;
    struct mr_list targets;
};

static const struct mr_option target_rows[] = {
    MR_OPT_TEXT(struct target, name, "name", NULL, MR_REQUIRED, "Name of the target."),
    MR_OPT_CHOICE(struct target, mode, "mode", "call", "call|dispatch", 0, "Wait, or go on."),
    MR_OPT_TEMPLATE(struct target, id, "id", NULL, MR_NOT_EMPTY | MR_NO_COLON, "Name of the id."),
    MR_OPT_JSON(struct target, extra, "extra", NULL, 0, "Anything."),
};

static const struct mr_option rows[] = {
    MR_OPT_TEXT(struct settings, model, "model", NULL, MR_REQUIRED, "The model's name."),
    MR_OPT_PATH(struct settings, path, "source", "rules/", 0, "A file or a folder."),
    MR_OPT_ENDPOINT(struct settings, endpoint, "endpoint", NULL, 0, "Where it is."),
    MR_OPT_TEXT(struct settings, key, "key", "s3cret", MR_SECRET, "The key."),
    MR_OPT_INT(struct settings, count, "count", "3", 1, 10, 0, "How many."),
    MR_OPT_REAL(struct settings, heat, "temperature", "0.5", 0, 2, 0, "How wild."),
    MR_OPT_BOOL(struct settings, stream, "stream", "true", 0, "Whether it streams."),
    MR_OPT_CHOICE(struct settings, response, "response", "text", "text|json", 0, "The form."),
    MR_OPT_DURATION(struct settings, timeout, "timeout", "5s", 1, 60000, 0, "How long."),
    MR_OPT_DURATION(struct settings, cache, "cache", NULL, 0, 0, 0, "Kept for."),
    MR_OPT_SIZE(struct settings, body, "max_body", "8MiB", 0, 0, 0, "How large."),
    MR_OPT_TEMPLATE(struct settings, output, "output", "\"{{ .input }}\"", 0, "What comes out."),
    MR_OPT_EXPR(struct settings, when, "when", NULL, 0, "Whether at all."),
    MR_OPT_JSON(struct settings, schema, "schema", "{\"a\":1}", 0, "A schema."),
    MR_OPT_LIST(struct settings, targets, "targets", target_rows, struct target, 0, 3,
                MR_UNIQUE_NAMES, "Where it goes."),
};
static const struct option_rows all = {rows, sizeof(rows) / sizeof(rows[0]), sizeof(rows[0])};

struct fixture {
    struct expr_set *exprs;
    struct arena arena;
    struct report report;
    struct settings settings;
    bool ok;
};

static bool has_endpoint(void *arg, const char *name)
{
    return strcmp(name, arg) == 0;
}

static void read_rows(struct fixture *f, const struct option_rows *of, const char *json)
{
    static char known[] = "openai";
    struct error err;
    memset(f, 0, sizeof(*f));
    f->exprs = expr_set_new();
    arena_init(&f->arena);
    report_init(&f->report);
    json_hold json_t *object = json ? json_read(json, strlen(json), 0, &err) : NULL;
    if (json && !object)
        fail_msg("%s: %s", json, err.message);
    struct option_source source = {.file = "p.json",
                                   .pointer = "/stages/0/options",
                                   .dir = "/etc/p",
                                   .exprs = f->exprs,
                                   .has_endpoint = has_endpoint,
                                   .arg = known};
    f->ok =
        option_read(of, object, &source, &f->settings, sizeof(f->settings), &f->arena, &f->report);
    assert_int_equal(f->ok, report_errors(&f->report) == 0);
}

static void done(struct fixture *f, const struct option_rows *of)
{
    option_release(of, &f->settings);
    report_done(&f->report);
    arena_done(&f->arena);
    expr_set_free(f->exprs);
}

/* Expects exactly one error: place, message, and a hint that contains `hint`. */
static void assert_refused(const char *json, const char *where, const char *message,
                           const char *hint)
{
    struct fixture f;
    read_rows(&f, &all, json);
    if (f.report.count != 1)
        fail_msg("%s: %zu errors, the second: %s", json, f.report.count,
                 f.report.count > 1 ? f.report.items[1].message : "-");
    char place[200];
    snprintf(place, sizeof(place), "p.json: /stages/0/options%s", where);
    assert_string_equal(f.report.items[0].where, place);
    assert_string_equal(f.report.items[0].message, message);
    if (!strstr(f.report.items[0].hint, hint))
        fail_msg("%s: hint is: %s", json, f.report.items[0].hint);
    done(&f, &all);
}

static void fills_defaults(void **state)
{
    (void)state;
    struct fixture f;
    read_rows(&f, &all, "{\"model\":\"m\"}");
    if (!f.ok)
        fail_msg("%s", f.report.items[0].message);
    const struct settings *s = &f.settings;
    assert_string_equal(s->model, "m");
    assert_string_equal(s->path, "/etc/p/rules/");
    assert_null(s->endpoint);
    assert_string_equal(s->key, "s3cret");
    assert_int_equal(s->count, 3);
    assert_true(s->heat == 0.5);
    assert_int_equal(s->stream, 1);
    assert_int_equal(s->response, 0);
    assert_int_equal(s->timeout, 5000);
    assert_int_equal(s->cache, 0);
    assert_int_equal(s->body, 8 << 20);
    assert_non_null(s->output);
    assert_null(s->when);
    assert_int_equal(json_integer_value(json_object_get(s->schema, "a")), 1);
    assert_int_equal(s->targets.count, 0);
    done(&f, &all);
    assert_null(f.settings.schema);
}

static void fills_what_is_given(void **state)
{
    (void)state;
    struct fixture f;
    read_rows(
        &f, &all,
        "{\"// note\":\"a comment\",\"model\":\"m\",\"source\":\"/abs\",\"endpoint\":\"openai\","
        "\"key\":null,\"count\":10,\"temperature\":2,\"stream\":false,\"response\":\"json\","
        "\"timeout\":\"1m\",\"cache\":\"1h\",\"max_body\":\"1KiB\",\"output\":null,"
        "\"when\":\".rule != null\",\"schema\":null,\"targets\":["
        "{\"name\":\"match\",\"id\":\"own:{{ .input.u }}\"},"
        "{\"name\":\"save\",\"mode\":\"dispatch\",\"extra\":[1]}]}");
    if (!f.ok)
        fail_msg("%s: %s", f.report.items[0].where, f.report.items[0].message);
    const struct settings *s = &f.settings;
    assert_string_equal(s->path, "/abs");
    assert_string_equal(s->endpoint, "openai");
    assert_string_equal(s->key, "s3cret"); /* null is absent */
    assert_int_equal(s->count, 10);
    assert_true(s->heat == 2.0);
    assert_int_equal(s->stream, 0);
    assert_int_equal(s->response, 1);
    assert_int_equal(s->timeout, 60000);
    assert_int_equal(s->cache, 3600000);
    assert_int_equal(s->body, 1024);
    assert_true(expr_template_is_constant(s->output)); /* null is a value */
    assert_non_null(s->when);
    assert_true(json_is_null(s->schema));
    assert_int_equal(s->targets.count, 2);
    const struct target *targets = s->targets.items;
    assert_string_equal(targets[0].name, "match");
    assert_int_equal(targets[0].mode, 0);
    assert_non_null(targets[0].id);
    assert_null(targets[0].extra);
    assert_string_equal(targets[1].name, "save");
    assert_int_equal(targets[1].mode, 1);
    assert_null(targets[1].id);
    assert_int_equal(json_array_size(targets[1].extra), 1);
    done(&f, &all);
}

static void says_what_is_wrong(void **state)
{
    (void)state;
    assert_refused("{\"model\":\"m\",\"timeuot\":\"1s\"}", "/timeuot",
                   "option \"timeuot\" is not known",
                   "did you mean \"timeout\"? Known: model, source,");
    assert_refused("{\"model\":\"m\",\"zzzzzzzz\":1}", "/zzzzzzzz",
                   "option \"zzzzzzzz\" is not known", "Known: model, ");
    assert_refused(NULL, "", "option \"model\" is required", "The model's name.");
    assert_refused("{\"model\":null}", "", "option \"model\" is required", "");
    assert_refused("{\"model\":5}", "/model", "option \"model\" must be a string, not the number 5",
                   "");
    assert_refused("{\"model\":\"m\",\"count\":\"5\"}", "/count",
                   "option \"count\" must be an integer from 1 to 10, not the string \"5\"",
                   "without quotes, as in 3");
    assert_refused("{\"model\":\"m\",\"count\":11}", "/count",
                   "option \"count\" must be an integer from 1 to 10, not the number 11",
                   "the default is 3");
    assert_refused("{\"model\":\"m\",\"count\":1.5}", "/count",
                   "option \"count\" must be an integer from 1 to 10, not the number 1.5", "");
    assert_refused("{\"model\":\"m\",\"temperature\":2.1}", "/temperature",
                   "option \"temperature\" must be a number from 0 to 2, not the number 2.1", "");
    assert_refused("{\"model\":\"m\",\"stream\":\"yes\"}", "/stream",
                   "option \"stream\" must be true or false, not the string \"yes\"",
                   "without quotes");
    assert_refused("{\"model\":\"m\",\"response\":\"xml\"}", "/response",
                   "option \"response\" must be one of \"text\", \"json\", not the string \"xml\"",
                   "");
    assert_refused("{\"model\":\"m\",\"timeout\":30}", "/timeout",
                   "option \"timeout\" must be a duration such as \"30s\" from 1ms to 1m, not the "
                   "number 30",
                   "\"30s\"");
    assert_refused("{\"model\":\"m\",\"timeout\":\"2m\"}", "/timeout",
                   "option \"timeout\" must be a duration such as \"30s\" from 1ms to 1m, not the "
                   "string \"2m\"",
                   "the default is 5s");
    assert_refused("{\"model\":\"m\",\"cache\":\"0s\"}", "/cache",
                   "option \"cache\" may not be zero", "");
    assert_refused("{\"model\":\"m\",\"endpoint\":\"opneai\"}", "/endpoint",
                   "option \"endpoint\": endpoint \"opneai\" is not configured", "endpoints");
    assert_refused("{\"model\":\"m\",\"key\":17}", "/key",
                   "option \"key\" must be a string, not the number given", "");
    assert_refused(
        "{\"model\":\"m\",\"output\":{\"a\":\"{{ env }}\"}}", "/output/a",
        "expression \"env\": character 1: \"env\" is not on the list of allowed jq functions", "");
    assert_refused("{\"model\":\"m\",\"when\":true}", "/when",
                   "option \"when\" must be a jq expression (a string), not true", "");
    assert_refused("{\"model\":\"m\",\"targets\":{}}", "/targets",
                   "option \"targets\" must be an array of objects, not an object", "");
    assert_refused("{\"model\":\"m\",\"targets\":[{\"name\":\"a\"},3]}", "/targets/1",
                   "each entry of \"targets\" must be an object, not the number 3", "");
    assert_refused(
        "{\"model\":\"m\",\"targets\":[{\"name\":\"a\"},{\"name\":\"b\",\"id\":\"{{ \"}]}",
        "/targets/1/id",
        "the {{ at character 1 has no }} that ends it outside of strings and brackets",
        "{{ \"{{\" }}");
    assert_refused("{\"model\":\"m\",\"targets\":[{\"name\":\"a\",\"mod\":\"call\"}]}",
                   "/targets/0/mod", "option \"mod\" is not known", "did you mean \"mode\"?");
    assert_refused("{\"model\":\"m\",\"targets\":[{\"name\":\"a\"},{\"name\":\"a\"}]}",
                   "/targets/1/name", "the name \"a\" is there twice", "entry 0");
    assert_refused("{\"model\":\"m\",\"targets\":[{\"name\":\"Upper\"}]}", "/targets/0/name",
                   "\"Upper\" is not a usable name", "[a-z]");
    assert_refused("{\"model\":\"m\",\"targets\":[{\"name\":\"input\"}]}", "/targets/0/name",
                   "\"input\" is not a usable name", "");
    assert_refused(
        "{\"model\":\"m\",\"targets\":[{\"name\":\"a\"},{\"name\":\"b\"},{\"name\":\"c\"},"
        "{\"name\":\"d\"}]}",
        "/targets", "option \"targets\" must have at most 3 entries, not 4", "");
    assert_refused("[]", "", "options must be an object, not an array", "");
}

static void a_lower_bound_may_stand_alone(void **state)
{
    (void)state;
    static const struct mr_option open[] = {
        MR_OPT_DURATION(struct settings, timeout, "timeout", NULL, 1000, 0, 0, "How long."),
        MR_OPT_INT(struct settings, count, "count", NULL, 5, 0, 0, "How many."),
    };
    const struct option_rows of = {open, 2, sizeof(open[0])};
    struct fixture f;
    read_rows(&f, &of, "{\"timeout\":\"30d\",\"count\":1000000}");
    assert_true(f.ok);
    done(&f, &of);
    read_rows(&f, &of, "{\"timeout\":\"10ms\",\"count\":4}");
    assert_int_equal(f.report.count, 2);
    assert_string_equal(
        f.report.items[0].message,
        "option \"timeout\" must be a duration such as \"30s\", at least 1s, not the "
        "string \"10ms\"");
    assert_string_equal(f.report.items[1].message,
                        "option \"count\" must be an integer, at least 5, not the number 4");
    done(&f, &of);
}

static void reports_everything_at_once(void **state)
{
    (void)state;
    struct fixture f;
    read_rows(&f, &all,
              "{\"modle\":\"m\",\"count\":0,\"schema\":{},\"targets\":[{\"mode\":1},"
              "{\"name\":\"b\",\"extra\":{}}]}");
    assert_int_equal(f.report.count, 5); /* modle, model, count, mode, name */
    assert_false(f.ok);
    assert_int_equal(f.settings.count, 0);
    done(&f, &all); /* and drops what was read: the schema, an entry's extra */
}

static void a_wrong_default_is_a_bug(void **state)
{
    (void)state;
    static const struct mr_option wrong[] = {
        MR_OPT_INT(struct settings, count, "count", "30", 1, 10, 0, "How many."),
        MR_OPT_DURATION(struct settings, timeout, "timeout", "5", 0, 0, 0, "How long."),
        MR_OPT_TEMPLATE(struct settings, output, "output", "{{ .input }}", 0, "Not JSON."),
        MR_OPT_EXPR(struct settings, when, "when", "env", 0, "Not allowed."),
        {.name = "beyond", .type = MR_TYPE_INT, .offset = sizeof(struct settings)},
        {.name = "newer", .type = 99, .def = "1"},
    };
    const struct option_rows of = {wrong, 6, sizeof(wrong[0])};
    struct fixture f;
    read_rows(&f, &of, "{}");
    assert_int_equal(f.report.count, 6);
    for (size_t i = 0; i < 6; i++)
        if (!strstr(f.report.items[i].message, "bug in the plugin: "))
            fail_msg("%s", f.report.items[i].message);
    assert_string_equal(f.report.items[0].message,
                        "bug in the plugin: the default of option \"count\" is wrong: option "
                        "\"count\" must be an integer from 1 to 10, not the number 30");
    done(&f, &of);
}

/* A plugin built with a header whose rows ended before `row_count`. */
static void reads_rows_of_an_older_plugin(void **state)
{
    (void)state;
    enum { OLD = offsetof(struct mr_option, row_count) };
    char old[3 * OLD];
    for (size_t i = 0; i < 3; i++)
        memcpy(old + i * OLD, &rows[i == 2 ? 4 : i], OLD);
    const struct option_rows of = {(const struct mr_option *)(const void *)old, 3, OLD};
    struct fixture f;
    read_rows(&f, &of, "{\"model\":\"m\",\"count\":7}");
    assert_true(f.ok);
    assert_string_equal(f.settings.model, "m");
    assert_string_equal(f.settings.path, "/etc/p/rules/");
    assert_int_equal(f.settings.count, 7);
    struct mr_option row;
    option_row(&of, 2, &row);
    assert_string_equal(row.name, "count");
    assert_int_equal(row.row_count, 0);
    done(&f, &of);
}

static void describes_rows(void **state)
{
    (void)state;
    struct buf text;
    buf_init(&text, 64 << 10);
    assert_true(option_describe_text(&all, &text));
    static const char *const lines[] = {
        "  model        text        required        The model's name.\n",
        "  key          text        (secret)        The key.\n",
        "  count        integer     3               How many. From 1 to 10.\n",
        "  response     choice      text            The form. One of text, json.\n",
        "  timeout      duration    5s              How long. From 1ms to 1m.\n",
        "  when         expression  -               Whether at all.\n",
        "  targets      list        -               Where it goes. From 0 to 3 entries.\n",
        "    mode       choice      call            Wait, or go on. One of call, dispatch.\n",
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        if (!strstr(text.data, lines[i]))
            fail_msg("missing:\n%s in\n%s", lines[i], text.data);
    assert_null(strstr(text.data, "s3cret"));
    buf_done(&text);

    json_hold json_t *json = option_describe_json(&all);
    assert_int_equal(json_array_size(json), 15);
    const struct {
        const char *pointer, *value;
    } members[] = {
        {"/0/required", "true"},
        {"/4/default", "3"},
        {"/4/min", "1"},
        {"/8/max", "\"1m\""},
        {"/7/choices", "[\"text\",\"json\"]"},
        {"/11/default", "\"{{ .input }}\""},
        {"/14/rows/1/name", "\"mode\""},
        {"/3/secret", "true"},
        {"/13/type", "\"json\""},
    };
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        json_t *value = json_at(json, members[i].pointer);
        assert_non_null(value);
        mem_auto char *printed = json_print(value, 1000, NULL, NULL);
        assert_string_equal(printed, members[i].value);
    }
    assert_null(json_at(json, "/3/default"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fills_defaults),
        cmocka_unit_test(fills_what_is_given),
        cmocka_unit_test(says_what_is_wrong),
        cmocka_unit_test(a_lower_bound_may_stand_alone),
        cmocka_unit_test(reports_everything_at_once),
        cmocka_unit_test(a_wrong_default_is_a_bug),
        cmocka_unit_test(reads_rows_of_an_older_plugin),
        cmocka_unit_test(describes_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
