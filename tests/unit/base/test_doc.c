/* doc.h: members as text and as trees, views, forgetting. */
#include "base/doc.h"
#include "base/mem.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Last: its macro fail() would break plugin.h. */
#include <cmocka.h>

static json_t *member(struct doc *doc, const char *name)
{
    struct error err = {0};
    json_t *value = NULL;
    if (doc_member(doc, name, &value, &err) != MR_OK)
        fail_msg("%s: %s", name, err.message);
    return value;
}

static void set(struct doc *doc, const char *name, const char *text)
{
    doc_set_text(doc, name, text, strlen(text));
}

static void reads_text_when_asked(void **state)
{
    (void)state;
    struct doc *doc = doc_new();
    set(doc, "input", "{\"a\":1}");
    doc_steal_text(doc, "vision", mem_dup("[1,2]"), 5);
    assert_true(doc_has(doc, "input"));
    assert_false(doc_has(doc, "rule"));
    assert_null(member(doc, "rule"));
    assert_int_equal(json_integer_value(json_object_get(member(doc, "input"), "a")), 1);
    json_t *tree = member(doc, "input");
    assert_ptr_equal(tree, member(doc, "input")); /* parsed once */
    assert_int_equal(doc_bytes(doc), 12);
    size_t len = 0;
    assert_string_equal(doc_text(doc, "vision", &len), "[1,2]");
    assert_int_equal(len, 5);
    assert_null(doc_text(doc, "rule", &len));
    doc_free(doc);
}

static void refuses_text_that_is_no_json(void **state)
{
    (void)state;
    struct doc *doc = doc_new();
    struct error err = {0};
    json_t *value = NULL;
    set(doc, "input", "{\"a\":");
    assert_int_equal(doc_member(doc, "input", &value, &err), MR_E_BAD_RESPONSE);
    assert_null(value);
    assert_string_equal(err.where, ".input");
    doc_free(doc);
}

static void keeps_a_value_without_text(void **state)
{
    (void)state;
    struct doc *doc = doc_new();
    doc_steal_value(doc, "match", json_pack("{s:i}", "id", 7));
    json_t *tree = member(doc, "match");
    assert_int_equal(doc_bytes(doc), 0);
    doc_forget(doc);
    assert_ptr_equal(tree, member(doc, "match"));
    size_t len = 0;
    assert_string_equal(doc_text(doc, "match", &len), "{\"id\":7}");
    assert_int_equal(len, 8);
    doc_forget(doc); /* now it can be read again from text */
    assert_int_equal(json_integer_value(json_object_get(member(doc, "match"), "id")), 7);
    doc_free(doc);
}

static void forgets_trees(void **state)
{
    (void)state;
    struct doc *doc = doc_new();
    set(doc, "input", "{\"a\":1}");
    json_t *tree = json_incref(member(doc, "input"));
    assert_true(tree->refcount == 2);
    doc_forget(doc);
    assert_true(tree->refcount == 1);
    json_decref(tree);
    assert_non_null(member(doc, "input"));
    doc_free(doc);
}

static void sets_again_and_removes(void **state)
{
    (void)state;
    struct doc *doc = doc_new();
    set(doc, "a", "1");
    set(doc, "b", "2");
    set(doc, "c", "3");
    member(doc, "b");
    set(doc, "b", "20");
    assert_int_equal(json_integer_value(member(doc, "b")), 20);
    size_t len = 0;
    const char *text = doc_text(doc, "b", &len);
    doc_set_text(doc, "b", text, len); /* from its own old text */
    assert_int_equal(json_integer_value(member(doc, "b")), 20);
    doc_remove(doc, "a");
    doc_remove(doc, "nobody");
    assert_false(doc_has(doc, "a"));
    assert_int_equal(json_integer_value(member(doc, "c")), 3);
    doc_free(doc);
}

static void add_name(void *arg, const char *name)
{
    strcat(arg, name);
    strcat(arg, " ");
}

static void a_view_hides_and_never_changes(void **state)
{
    (void)state;
    struct doc *doc = doc_new();
    set(doc, "input", "1");
    set(doc, "vision", "2");
    struct doc *view = doc_view(doc);
    set(view, "match", "3");
    set(view, "vision", "4");
    assert_int_equal(json_integer_value(member(view, "input")), 1);
    assert_int_equal(json_integer_value(member(view, "vision")), 4);
    assert_int_equal(json_integer_value(member(doc, "vision")), 2);
    assert_null(member(doc, "match"));
    char names[64] = "";
    doc_each(view, add_name, names);
    assert_string_equal(names, "match vision input ");
    doc_remove(view, "input"); /* not the view's */
    assert_true(doc_has(view, "input"));
    doc_remove(view, "vision");
    assert_int_equal(json_integer_value(member(view, "vision")), 2);
    assert_int_equal(doc_bytes(view), 1);
    doc_free(view);
    doc_free(doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_text_when_asked),
        cmocka_unit_test(refuses_text_that_is_no_json),
        cmocka_unit_test(keeps_a_value_without_text),
        cmocka_unit_test(forgets_trees),
        cmocka_unit_test(sets_again_and_removes),
        cmocka_unit_test(a_view_hides_and_never_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
