/* The subset of JSON Schema: schemas that are refused, values that do not fit. */
#include "rig.h"
#include "run/pipeline_schema.h"

static json_t *parse(const char *text)
{
    json_t *value = json_read(text, strlen(text), 0, NULL);
    assert_non_null(value);
    return value;
}

/* Checks a schema; expects a fault at `pointer` that says `text` (NULL: none). */
static void check(const char *schema, const char *pointer, const char *text)
{
    struct report report;
    report_init(&report);
    json_hold json_t *value = parse(schema);
    bool fine = schema_check(value, "f", "/input", &report);
    assert_int_equal(fine, text == NULL);
    if (text != NULL)
        assert_true(report_has(&report, pointer, text));
    report_done(&report);
}

static void validate(const char *schema, const char *value, const char *pointer, const char *text)
{
    struct report report;
    report_init(&report);
    json_hold json_t *rules = parse(schema);
    json_hold json_t *subject = parse(value);
    assert_true(schema_check(rules, "f", "", &report));
    bool fine = schema_validate(rules, subject, "/input", &report);
    assert_int_equal(fine, text == NULL);
    if (text != NULL)
        assert_true(report_has(&report, pointer, text));
    report_done(&report);
}

static void test_schemas(void **state)
{
    (void)state;
    check("{}", "", NULL);
    check("{\"type\":\"object\",\"title\":\"t\",\"$schema\":\"x\",\"default\":{}}", "", NULL);
    check("[]", "/input", "a schema is an object");
    check("{\"typ\":\"string\"}", "/input/typ", "did you mean \"type\"");
    check("{\"type\":\"strng\"}", "/input/type", "did you mean \"string\"");
    check("{\"type\":[]}", "/input/type", "must name a type");
    check("{\"type\":[\"string\",\"nul\"]}", "/input/type/1", "null");
    check("{\"pattern\":\"a\"}", "/input/pattern", "not known");
    check("{\"required\":\"a\"}", "/input/required", "array");
    check("{\"required\":[1]}", "/input/required/0", "string");
    check("{\"properties\":{\"a/b\":{\"minimum\":\"1\"}}}", "/input/properties/a~1b/minimum",
          "number");
    check("{\"items\":[]}", "/input/items", "a schema is an object");
    check("{\"minLength\":-1}", "/input/minLength", "at least 0");
    check("{\"enum\":[]}", "/input/enum", "at least one");
    check("{\"additionalProperties\":{\"maxItems\":1.5}}", "/input/additionalProperties/maxItems",
          "integer");
}

static void test_types(void **state)
{
    (void)state;
    validate("{\"type\":\"string\"}", "\"a\"", "", NULL);
    validate("{\"type\":\"string\"}", "1", "/input", "must be of type string, not integer");
    validate("{\"type\":\"integer\"}", "1.0", "", NULL);
    validate("{\"type\":\"integer\"}", "1.5", "/input", "integer");
    validate("{\"type\":\"number\"}", "1", "", NULL);
    validate("{\"type\":[\"string\",\"null\"]}", "null", "", NULL);
    validate("{\"type\":[\"string\",\"null\"]}", "[]", "/input", "string or null");
    validate("{\"type\":\"boolean\"}", "false", "", NULL);
}

static void test_objects(void **state)
{
    (void)state;
    const char *schema = "{\"required\":[\"a\"],\"properties\":{\"a\":{\"type\":\"string\"},"
                         "\"about\":{}},\"additionalProperties\":false}";
    validate(schema, "{\"a\":\"x\"}", "", NULL);
    validate(schema, "{}", "/input/a", "is required");
    validate(schema, "{\"a\":1}", "/input/a", "type string");
    validate(schema, "{\"a\":\"\",\"abuot\":1}", "/input/abuot", "did you mean \"about\"");
    validate("{\"additionalProperties\":{\"type\":\"integer\"}}", "{\"x\":\"y\"}", "/input/x",
             "integer");
}

static void test_bounds(void **state)
{
    (void)state;
    validate("{\"minLength\":2,\"maxLength\":3}", "\"\xea\xb0\x80\xeb\x82\x98\"", "", NULL);
    validate("{\"minLength\":2}", "\"\xea\xb0\x80\"", "/input", "1 characters, fewer than 2");
    validate("{\"maxLength\":1}", "\"ab\"", "/input", "more than 1");
    validate("{\"minimum\":2}", "1", "/input", "at least 2");
    validate("{\"maximum\":2}", "2.5", "/input", "at most 2");
    validate("{\"minimum\":9007199254740993}", "9007199254740992", "/input", "at least");
    validate("{\"items\":{\"type\":\"string\"},\"maxItems\":2}", "[\"a\",1]", "/input/1", "string");
    validate("{\"maxItems\":1}", "[1,2]", "/input", "2 items, more than 1");
    validate("{\"enum\":[\"a\",1]}", "1.0", "", NULL);
    validate("{\"enum\":[\"a\",\"b\"]}", "\"c\"", "/input", "\"a\", \"b\"");
    validate("{\"const\":{\"a\":1}}", "{\"a\":1}", "", NULL);
    validate("{\"const\":1}", "2", "/input", "one value");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schemas),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_objects),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
