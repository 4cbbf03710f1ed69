/* The rule plugin: files and folders, keys, and taking changes up while running. */
#include "fake_host.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define OPTIONS(more)                                                                              \
    "{'source': 'rules', 'keys': ['{{ .input.a }}_{{ .input.b }}', '{{ .input.a }}']" more "}"

static int remove_rules(void **state)
{
    (void)state;
    mem_auto char *command =
        mem_format("rm -rf '%s/rules' '%s/rules.json'", fake_dir(), fake_dir());
    return system(command);
}

static void assert_answer(struct fake *fake, const char *input, const char *want)
{
    fake_set(fake, "input", input);
    int rc = fake_run(fake);
    if (rc != MR_OK)
        fail_msg("%s", fake->task.error.message);
    fake_assert_json(fake->task.output, want);
}

static void test_folder(void **state)
{
    (void)state;
    fake_write("rules/can_metal.json", " {\"answer\": \"blue\"}\n");
    fake_write("rules/can.json", "\"any can\"");
    fake_write("rules/\xe7\xbc\xb6.json", "1");
    fake_write("rules/.hidden.json", "broken");
    fake_write("rules/notes.txt", "broken");
    fake_auto struct fake *fake = fake_new("rule", OPTIONS(""));
    assert_answer(fake, "{'a': 'can', 'b': 'metal'}", "{'answer': 'blue'}");
    assert_answer(fake, "{'a': 'can', 'b': 'tin'}", "'any can'");
    assert_answer(fake, "{'a': '\xe7\xbc\xb6', 'b': 'x'}", "1");
    assert_answer(fake, "{'a': 'bottle', 'b': 'x'}", "null");
    assert_answer(fake, "{'a': '.hidden', 'b': 'x'}", "null");
    assert_answer(fake, "{'a': 'notes', 'b': 'x'}", "null");
    /* A missing part skips the key, it is no error. */
    assert_answer(fake, "{'a': 'can'}", "'any can'");
    assert_answer(fake, "{'a': 'can', 'b': null}", "'any can'");
    assert_answer(fake, "{}", "null");
}

/* The answer is the text of the file: digits and spellings stay. */
static void test_text_as_it_stands(void **state)
{
    (void)state;
    fake_write("rules.json", "{\"a\": 0.10, \"b\" : {\"x\":[1,{\"y\":\"}\\\"]\"}] , \"z\":2},"
                             " \"c\":12345678901234567,\"d\\u0041\":\"\\u00e4\",\"\":[] ,"
                             "\"e\":null}");
    fake_auto struct fake *fake =
        fake_new("rule", "{'source': 'rules.json', 'keys': '{{ .input }}', 'default': 'none'}");
    static const struct {
        const char *key, *text;
    } rows[] = {
        {"'a'", "0.10"},
        {"'b'", "{\"x\":[1,{\"y\":\"}\\\"]\"}] , \"z\":2}"},
        {"'c'", "12345678901234567"},
        {"'dA'", "\"\\u00e4\""},
        {"''", "[]"},
        {"'e'", "null"},
        {"'f'", "\"none\""},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        fake_set(fake, "input", rows[i].key);
        assert_int_equal(fake_run(fake), MR_OK);
        assert_string_equal(fake->task.output, rows[i].text);
    }
}

static void test_keys_of_other_types(void **state)
{
    (void)state;
    fake_write("rules.json", "{\"5\": \"five\", \"true\": \"yes\", \"1.5\": \"real\"}");
    fake_auto struct fake *fake =
        fake_new("rule", "{'source': 'rules.json', 'keys': ['{{ .input }}']}");
    assert_answer(fake, "5", "'five'");
    assert_answer(fake, "true", "'yes'");
    assert_answer(fake, "1.5", "'real'");
    assert_answer(fake, "null", "null");
    fake_set(fake, "input", "[1]");
    assert_int_equal(fake_run(fake), MR_E_SCHEMA);
    fake_assert_message(&fake->task, "an array or an object");
}

static void test_refused_at_open(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } rows[] = {
        {"{\"a\": 1,\n \"a\": 2}", "rules.json: is not JSON at line 2"},
        {"{\"a\": ", "is not JSON"},
        {"", "is not JSON"},
        {"[1]", "is not a JSON object"},
        {"{\"a\": \"\xff\"}", "is not JSON"},
    };
    int code = MR_OK;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        fake_write("rules.json", rows[i].text);
        fake_auto struct fake *fake =
            fake_try("rule", "{'source': 'rules.json', 'keys': ['x']}", &code);
        assert_int_equal(code, MR_E_PLUGIN);
        fake_assert_message(&fake->priv->opening, rows[i].message);
    }
    char deep[300] = "{\"a\":";
    memset(deep + 5, '[', 100);
    fake_write("rules.json", deep);
    fake_auto struct fake *nested =
        fake_try("rule", "{'source': 'rules.json', 'keys': ['x']}", &code);
    fake_assert_message(&nested->priv->opening, "nested more than 64 deep");
    fake_auto struct fake *absent = fake_try("rule", "{'source': 'absent', 'keys': ['x']}", &code);
    assert_int_equal(code, MR_E_PLUGIN);
    fake_assert_message(&absent->priv->opening, "absent: No such file");
}

static unsigned count(const struct fake *fake, const char *words)
{
    unsigned n = 0;
    for (const char *at = buf_text(&fake->trace); (at = strstr(at, words)); at += strlen(words))
        n++;
    return n;
}

static void test_reload(void **state)
{
    (void)state;
    fake_write("rules/a.json", "1");
    fake_auto struct fake *fake = fake_new("rule", "{'source': 'rules', 'keys': ['{{ .input }}']}");
    fake_clear_trace(fake);
    assert_answer(fake, "'a'", "1");

    /* Not before a second has passed, and then once. */
    fake_write("rules/a.json", "2");
    fake_write("rules/b.json", "3");
    assert_answer(fake, "'a'", "1");
    assert_int_equal(count(fake, "offload"), 0);
    fake->clock_ms += 1000;
    assert_answer(fake, "'a'", "2");
    assert_answer(fake, "'b'", "3");
    assert_int_equal(count(fake, "offload"), 1);
    assert_int_equal(count(fake, "rules taken up again"), 1);

    /* A broken file is refused as a whole, said once; the old answers stay. */
    fake_write("rules/a.json", "{\"half\": ");
    fake_write("rules/b.json", "4");
    for (int i = 0; i < 3; i++) {
        fake->clock_ms += 1000;
        assert_answer(fake, "'a'", "2");
        assert_answer(fake, "'b'", "3");
    }
    assert_int_equal(count(fake, "log error rules stay as they were"), 1);
    assert_int_equal(count(fake, "rules/a.json: is not JSON"), 1);

    /* A pipe in a file's place has no writer to wait for: said once as well. */
    fake_write("rules/a.json", "2");
    mem_auto char *pipe = mem_format("%s/rules/pipe.json", fake_dir());
    assert_int_equal(mkfifo(pipe, 0600), 0);
    for (int i = 0; i < 2; i++) {
        fake->clock_ms += 1000;
        assert_answer(fake, "'b'", "3");
    }
    assert_int_equal(count(fake, "rules/pipe.json: is not a file"), 1);
    unlink(pipe);

    /* Mended; a file that is gone is gone. */
    fake_write("rules/a.json", "55");
    mem_auto char *gone = mem_format("%s/rules/b.json", fake_dir());
    unlink(gone);
    fake->clock_ms += 1000;
    assert_answer(fake, "'a'", "55");
    assert_answer(fake, "'b'", "null");

    /* The folder goes away and comes back. */
    mem_auto char *from = mem_format("%s/rules", fake_dir());
    mem_auto char *to = mem_format("%s/elsewhere", fake_dir());
    assert_int_equal(rename(from, to), 0);
    for (int i = 0; i < 3; i++) {
        fake->clock_ms += 1000;
        assert_answer(fake, "'a'", "55");
    }
    assert_int_equal(count(fake, "log error rules stay as they were"), 3);
    assert_int_equal(rename(to, from), 0);
    fake_write("rules/a.json", "66");
    fake->clock_ms += 1000;
    assert_answer(fake, "'a'", "66");
}

static void test_reload_off(void **state)
{
    (void)state;
    fake_write("rules.json", "{\"a\": 1}");
    fake_auto struct fake *fake =
        fake_new("rule", "{'source': 'rules.json', 'keys': ['{{ .input }}'], 'reload': false}");
    fake_write("rules.json", "{\"a\": 22}");
    fake->clock_ms += 5000;
    assert_answer(fake, "'a'", "1");
}

/* While one task has the files looked at, others answer from the table that is there. */
static void test_others_go_on(void **state)
{
    (void)state;
    fake_write("rules.json", "{\"a\": 1}");
    fake_auto struct fake *fake =
        fake_new("rule", "{'source': 'rules.json', 'keys': ['{{ .input }}']}");
    fake_write("rules.json", "{\"a\": 22}");
    fake->clock_ms += 1000;
    fake->hold = true;
    fake_set(fake, "input", "'a'");
    struct fake_task first;
    fake_start(fake, &first);
    assert_false(first.done);
    assert_answer(fake, "'a'", "1");
    assert_int_equal(fake_release(fake), 1);
    assert_true(first.done);
    fake_assert_json(first.output, "22");
    fake_task_done(&first);
    assert_answer(fake, "'a'", "22");
}

/* A task that ends while looking leaves the next one able to look. */
static void test_look_is_tortured(void **state)
{
    (void)state;
    fake_write("rules.json", "{\"a\": 1}");
    for (int after = 0; after < 2; after++) {
        fake_auto struct fake *fake =
            fake_new("rule", "{'source': 'rules.json', 'keys': ['{{ .input }}']}");
        fake_set(fake, "input", "'a'");
        fake_write("rules.json", after ? "{\"a\": 4444}" : "{\"a\": 333}");
        fake->clock_ms += 1000;
        fake->torture_at = 1;
        fake->torture_after = after;
        fake->torture_code = MR_E_CANCELLED;
        assert_int_equal(fake_run(fake), MR_E_CANCELLED);
        fake->torture_at = 0;
        fake->clock_ms += 1000;
        assert_answer(fake, "'a'", after ? "4444" : "333");
    }
}

/* A table that has grown many times finds what is in it and nothing else. */
static void test_many_answers(void **state)
{
    (void)state;
    struct buf text;
    buf_init(&text, 32u << 20);
    for (int i = 0; i < 100000; i++)
        buf_format(&text, "%c\"key%d\": {\"n\": %d}", i ? ',' : '{', i, i);
    buf_add_text(&text, "}");
    fake_write("rules.json", buf_text(&text));
    buf_done(&text);
    fake_auto struct fake *fake =
        fake_new("rule", "{'source': 'rules.json', 'keys': ['{{ .input }}'], 'reload': false}");
    for (int i = 0; i < 100000; i += 9973) {
        mem_auto char *key = mem_format("'key%d'", i);
        mem_auto char *want = mem_format("{'n': %d}", i);
        assert_answer(fake, key, want);
    }
    assert_answer(fake, "'key100000'", "null");
}

static void test_open_is_tortured(void **state)
{
    (void)state;
    fake_write("rules.json", "{\"a\": 1}");
    assert_int_equal(fake_torture_open("rule", "{'source': 'rules.json', 'keys': ['a']}"), 5 * 2);
}

static void test_check(void **state)
{
    (void)state;
    mem_auto char *none = fake_check("rule", OPTIONS(""));
    assert_string_equal(none, "");
    fake_assert_check("rule", "{'keys': ['a']}", "error", "source", "required", NULL);
    fake_assert_check("rule", "{'source': 'rules'}", "error", "keys", "required", NULL);
    fake_assert_check("rule", "{'source': 'rules', 'keys': []}", "error", "/keys", NULL);
    fake_assert_check("rule", "{'source': 'rules', 'keys': {'a': 1}}", "error", "/keys", NULL);
    fake_assert_check("rule", OPTIONS(", 'reload': 'yes'"), "error", "/reload", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_folder, remove_rules),
        cmocka_unit_test_setup(test_text_as_it_stands, remove_rules),
        cmocka_unit_test_setup(test_keys_of_other_types, remove_rules),
        cmocka_unit_test_setup(test_refused_at_open, remove_rules),
        cmocka_unit_test_setup(test_reload, remove_rules),
        cmocka_unit_test_setup(test_reload_off, remove_rules),
        cmocka_unit_test_setup(test_others_go_on, remove_rules),
        cmocka_unit_test_setup(test_look_is_tortured, remove_rules),
        cmocka_unit_test_setup(test_many_answers, remove_rules),
        cmocka_unit_test_setup(test_open_is_tortured, remove_rules),
        cmocka_unit_test_setup(test_check, remove_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
