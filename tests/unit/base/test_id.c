/* id.h: ids against those that Python's uuid.uuid5 gives for the same bytes. */
#include "base/id.h"
#include "base/limits.h"
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Last: its macro fail() would break plugin.h. */
#include <cmocka.h>

static void namespace_is_what_it_says(void **state)
{
    (void)state;
    char id[ID_BYTES];
    id_of_name(NULL, "millrace.invalid", id);
    assert_string_equal(id, ID_NAMESPACE_DEFAULT);
}

static void names_as_python_has_them(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"python.org", "886313e1-3b8a-5372-9b90-0c9aee199e5d"}, /* of Python's documentation */
        {"ownership:u1:c1", "3195dbdd-39af-546a-a5db-8310ec5684da"},
        {"", "4ebd0208-8328-5d69-8c44-ec50939c0967"},
        {"분리:é", "46fe3f51-60e8-55d7-b937-d4afe6063a42"},
    };
    char id[ID_BYTES];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        id_of_name(NULL, cases[i][0], id);
        assert_string_equal(id, cases[i][1]);
        assert_true(id_is_valid(id));
    }
    id_of_name(ID_NAMESPACE_DEFAULT, "ownership:u1:c1", id);
    assert_string_equal(id, "ea1113c7-4fde-5a4a-b509-0242616d80ed");
    assert_int_equal(id_of_bytes(ID_NAMESPACE_DNS, "a\0b", 3, id, NULL), MR_OK);
    assert_string_equal(id, "0a63f66b-e02f-5d2d-9fd4-aad819cf5352");
    assert_int_equal(
        id_of_bytes("6BA7B810-9DAD-11D1-80B4-00C04FD430C8", "python.org", 10, id, NULL), MR_OK);
    assert_string_equal(id, "886313e1-3b8a-5372-9b90-0c9aee199e5d");
}

static void jobs_by_key(void **state)
{
    (void)state;
    char id[ID_BYTES];
    json_hold json_t *input = json_pack("{s:i}", "n", 1);
    assert_int_equal(id_of_job(ID_NAMESPACE_DEFAULT, "waste-sorting", "order-42", input, id, NULL),
                     MR_OK);
    assert_string_equal(id, "a58498a1-68a6-5cf5-b906-6cb4a86813d4");
    /* With a key the input does not matter, it may even be absent. */
    char same[ID_BYTES];
    assert_int_equal(id_of_job(ID_NAMESPACE_DEFAULT, "waste-sorting", "order-42", NULL, same, NULL),
                     MR_OK);
    assert_string_equal(same, id);
    id_of_job(ID_NAMESPACE_DEFAULT, "waste-sorting", "", NULL, id, NULL);
    assert_string_equal(id, "3ab88677-e55f-5c5f-aa05-e0c591911be7");
}

static void jobs_by_input(void **state)
{
    (void)state;
    char id[ID_BYTES];
    json_hold json_t *input = json_pack("{s:i, s:s}", "n", 1, "image_url", "x");
    assert_int_equal(id_of_job(ID_NAMESPACE_DEFAULT, "waste-sorting", NULL, input, id, NULL),
                     MR_OK);
    assert_string_equal(id, "555878eb-be4d-5ba5-81d7-d4d8fe480712");
    /* 1.0 is not 1. */
    char other[ID_BYTES];
    json_hold json_t *real = json_pack("{s:f, s:s}", "n", 1.0, "image_url", "x");
    id_of_job(ID_NAMESPACE_DEFAULT, "waste-sorting", NULL, real, other, NULL);
    assert_string_not_equal(other, id);
}

static void jobs_by_input_as_python_has_them(void **state)
{
    (void)state;
    json_hold json_t *vectors =
        json_load_file(MR_SOURCE_DIR "/tests/unit/base/canonical.json", 0, NULL);
    assert_int_equal(json_array_size(vectors), 20);
    size_t i;
    json_t *vector;
    json_array_foreach (vectors, i, vector) {
        const char *text = json_text_or(vector, "text", NULL);
        json_hold json_t *input = json_read(text, strlen(text), 0, NULL);
        char id[ID_BYTES];
        assert_int_equal(id_of_job(ID_NAMESPACE_DEFAULT, "waste-sorting", NULL, input, id, NULL),
                         MR_OK);
        assert_string_equal(id, json_text_or(vector, "id", NULL));
    }
}

static void jobs_that_have_no_id(void **state)
{
    (void)state;
    char id[ID_BYTES] = "untouched";
    struct error err;
    assert_int_equal(id_of_job("not-a-uuid", "p", "k", NULL, id, &err), MR_E_SCHEMA);
    assert_non_null(strstr(err.message, "not-a-uuid"));
    assert_int_equal(id_of_bytes("", "x", 1, id, &err), MR_E_SCHEMA);
    assert_int_equal(id_of_bytes(ID_NAMESPACE_DNS "0", "x", 1, id, &err), MR_E_SCHEMA);
    assert_int_equal(id_of_job(ID_NAMESPACE_DNS, "p", NULL, NULL, id, &err), MR_E_SCHEMA);
    json_hold json_t *deep = json_array();
    for (unsigned i = 0; i < 2 * LIMIT_JSON_DEPTH; i++) {
        json_t *outer = json_array();
        json_array_append_new(outer, deep);
        deep = outer;
    }
    assert_int_equal(id_of_job(ID_NAMESPACE_DNS, "p", NULL, deep, id, &err), MR_E_SCHEMA);
    assert_string_equal(id, "untouched");
}

static void children(void **state)
{
    (void)state;
    char id[ID_BYTES], other[ID_BYTES];
    id_of_child(ID_NAMESPACE_DEFAULT, "reward", "match", id);
    assert_string_equal(id, "5101947c-46be-5465-b9bd-00599d8c6a36");
    /* Parts do not run together. */
    id_of_child("p", "ab", "c", id);
    id_of_child("p", "a", "bc", other);
    assert_string_not_equal(id, other);
}

static void wrong_namespace_of_a_name_aborts(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char id[ID_BYTES];
        signal(SIGABRT, SIG_DFL);
        close(STDERR_FILENO);
        id_of_name("not-a-uuid", "x", id);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void valid_ids(void **state)
{
    (void)state;
    assert_true(id_is_valid("00000000-0000-0000-0000-000000000000"));
    assert_true(id_is_valid(ID_NAMESPACE_DEFAULT));
    static const char *const others[] = {
        "",
        "caf99e7e",
        "CAF99E7E-C3BE-544E-B45A-AD4D8DDF12B0",
        "caf99e7e-c3be-544e-b45a-ad4d8ddf12b",
        "caf99e7e-c3be-544e-b45a-ad4d8ddf12b00",
        "caf99e7ec3be-544e-b45a-ad4d8ddf12b00-",
        "caf99e7e-c3be-544e-b45a-ad4d8ddf12bg",
        "caf99e7e-c3be-544e-b45a-ad4d8ddf12b ",
        "caf99e7e/c3be-544e-b45a-ad4d8ddf12b0",
        "caf99e7eac3be-544e-b45a-ad4d8ddf12b0",
    };
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        assert_false(id_is_valid(others[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(namespace_is_what_it_says),
        cmocka_unit_test(names_as_python_has_them),
        cmocka_unit_test(jobs_by_key),
        cmocka_unit_test(jobs_by_input),
        cmocka_unit_test(jobs_by_input_as_python_has_them),
        cmocka_unit_test(jobs_that_have_no_id),
        cmocka_unit_test(children),
        cmocka_unit_test(wrong_namespace_of_a_name_aborts),
        cmocka_unit_test(valid_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
