/* `millrace` as people run it: exit codes, what goes to stdout and what to stderr. Each case runs
 * the whole program in a process of its own. */
#include "app/cli.h"
#include "app/cli_guard.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static char out[65536], err[65536];

static void put(const char *name, const char *text)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/millrace-cli-XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    unsetenv("MILLRACE_CONFIG");
    put("millrace.json", "{\"pipelines\":\"p\",\"plugins\":\"" MR_BUILD_DIR "/plugins\"}");
    char folder[96];
    snprintf(folder, sizeof(folder), "%s/p", dir);
    if (mkdir(folder, 0755) != 0)
        return -1;
    put("p/hello.json", "{\"input\":{\"properties\":{\"n\":{\"type\":\"integer\"}}},\"stages\":["
                        "{\"name\":\"a\",\"plugin\":\"echo\"}],\"result\":\"{{ .a }}\"}");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command);
}

static void slurp(const char *name, char *ret, size_t size)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    ret[fread(ret, 1, size - 1, file)] = '\0';
    fclose(file);
}

/* Runs `millrace` with the words given; its exit status. */
static int millrace(const char *first, ...)
{
    char *argv[32] = {"millrace", (char *)first};
    int argc = first != NULL ? 2 : 1;
    va_list args;
    va_start(args, first);
    for (char *arg; first != NULL && (arg = va_arg(args, char *)) != NULL;)
        argv[argc++] = arg;
    va_end(args);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int to_out, to_err;
        if (chdir(dir) != 0)
            _exit(99);
        to_out = open("out", O_WRONLY | O_CREAT | O_TRUNC, 0600);
        to_err = open("err", O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(to_out, STDOUT_FILENO);
        dup2(to_err, STDERR_FILENO);
        /* exit, not _exit: leaks are looked for. */
        exit(cli_main(argc, argv));
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    slurp("out", out, sizeof(out));
    slurp("err", err, sizeof(err));
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_usage(void **state)
{
    (void)state;
    assert_int_equal(millrace(NULL), CLI_USAGE);
    assert_non_null(strstr(err, "Usage: millrace VERB"));
    assert_int_equal(millrace("--help", NULL), CLI_DONE);
    assert_non_null(strstr(out, "check"));
    assert_int_equal(millrace("--version", NULL), CLI_DONE);
    assert_int_equal(millrace("chekc", NULL), CLI_USAGE);
    assert_non_null(strstr(err, "did you mean \"check\""));
    assert_int_equal(millrace("run", NULL), CLI_USAGE);
    assert_int_equal(millrace("run", "a", "b", NULL), CLI_USAGE);
    assert_int_equal(millrace("run", "hello", "--inputt", "1", NULL), CLI_USAGE);
    assert_non_null(strstr(err, "did you mean \"--input\""));
    assert_int_equal(millrace("run", "hello", "-i", NULL), CLI_USAGE);
    assert_int_equal(millrace("check", "-c", NULL), CLI_USAGE);
    static const char *const verbs[] = {"check", "run", "plugins", "id", NULL};
    for (size_t i = 0; verbs[i] != NULL; i++) {
        assert_int_equal(millrace(verbs[i], "--help", NULL), CLI_DONE);
        assert_non_null(strstr(out, verbs[i]));
    }
}

static void test_check(void **state)
{
    (void)state;
    assert_int_equal(millrace("check", NULL), CLI_DONE);
    assert_string_equal(out, "ok: 1 pipeline\n");
    assert_int_equal(millrace("check", "--json", NULL), CLI_DONE);
    assert_non_null(strstr(out, "{\"ok\":true"));
    put("p/bad.json",
        "{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\",\"options\":{\"outptu\":1}}]}");
    assert_int_equal(millrace("check", NULL), CLI_FAILED);
    assert_non_null(strstr(err, "bad.json: /stages/0/options/outptu: "));
    assert_non_null(strstr(err, "hint: did you mean \"output\"?"));
    assert_int_equal(millrace("check", "p/hello.json", NULL), CLI_DONE);
    assert_int_equal(millrace("check", "p/bad.json", "--json", NULL), CLI_FAILED);
    assert_non_null(strstr(out, "\"ok\":false"));
    put("other.json", "{\"lisen\":1}");
    assert_int_equal(millrace("-c", "other.json", "check", NULL), CLI_FAILED);
    assert_non_null(strstr(err, "/lisen"));
    assert_int_equal(millrace("check", "gone.json", NULL), CLI_FAILED);
}

static void test_run(void **state)
{
    (void)state;
    assert_int_equal(millrace("run", "hello", "-i", "{\"n\":1}", NULL), CLI_DONE);
    assert_string_equal(out, "{\"n\":1}\n");
    assert_non_null(strstr(err, "done"));
    put("in", "{\"n\":2}");
    assert_int_equal(millrace("run", "p/hello.json", "--input=@in", NULL), CLI_DONE);
    assert_string_equal(out, "{\"n\":2}\n");
    assert_int_equal(millrace("run", "hello", "-i{\"n\":\"x\"}", NULL), CLI_FAILED);
    assert_non_null(strstr(err, "/input/n: must be of type integer"));
    assert_string_equal(out, "");
    assert_int_equal(millrace("run", "helo", NULL), CLI_FAILED);
    assert_non_null(strstr(err, "did you mean \"hello\""));
    assert_int_equal(millrace("run", "hello", "-i", "{", NULL), CLI_FAILED);
    assert_int_equal(millrace("run", "hello", "-i", "@gone", NULL), CLI_FAILED);
    assert_int_equal(millrace("run", "hello", "--json", NULL), CLI_DONE);
    assert_non_null(strstr(out, "{\"event\":\"job.queued\""));
    assert_non_null(strstr(out, "\n{\"result\":{}}\n"));
    put("p/sad.json", "{\"stages\":[{\"name\":\"a\",\"plugin\":\"echo\",\"options\":"
                      "{\"output\":\"{{ .input.x }}!\"}}]}");
    assert_int_equal(millrace("run", "sad", NULL), CLI_FAILED);
    assert_non_null(strstr(err, "failed"));
    assert_string_equal(out, "");
}

static void test_plugins(void **state)
{
    (void)state;
    assert_int_equal(millrace("plugins", NULL), CLI_DONE);
    assert_non_null(strstr(out, "\ntransform "));
    assert_int_equal(millrace("plugins", "--json", NULL), CLI_DONE);
    json_hold json_t *list = json_loads(out, 0, NULL);
    assert_true(json_array_size(list) >= 5);
    assert_int_equal(millrace("plugins", "sleep", NULL), CLI_DONE);
    assert_non_null(strstr(out, "duration"));
    assert_int_equal(millrace("plugins", "sleep", "--json", NULL), CLI_DONE);
    json_hold json_t *one = json_loads(out, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(one, "name")), "sleep");
    assert_int_equal(millrace("plugins", "slep", NULL), CLI_FAILED);
    assert_non_null(strstr(err, "did you mean \"sleep\""));
}

static void test_id(void **state)
{
    (void)state;
    assert_int_equal(millrace("id", "--name", "ownership:u1:c1", NULL), CLI_DONE);
    assert_string_equal(out, "3195dbdd-39af-546a-a5db-8310ec5684da\n");
    assert_int_equal(millrace("id", "hello", "-i", "{\"b\":1,\"a\":2}", NULL), CLI_DONE);
    char first[64];
    snprintf(first, sizeof(first), "%.60s", out);
    assert_int_equal(millrace("id", "./hello.json", "-i", "{ \"a\":2, \"b\":1 }", NULL), CLI_DONE);
    assert_string_equal(first, out);
    assert_int_equal(millrace("id", "hello", "--key", "k", NULL), CLI_DONE);
    assert_string_not_equal(first, out);
    assert_int_equal(millrace("id", "hello", NULL), CLI_USAGE);
    assert_int_equal(millrace("id", "Hello", "-i", "1", NULL), CLI_USAGE);
    assert_int_equal(millrace("id", "x", "--name", "y", NULL), CLI_USAGE);
}

static int dies(void *arg, char *note)
{
    snprintf(note, CLI_NOTE_BYTES, "loading plugin \"%s\"", (const char *)arg);
    raise(SIGKILL);
    return 0;
}

static int ends(void *arg, char *note)
{
    (void)note;
    return *(int *)arg;
}

static void test_guard(void **state)
{
    (void)state;
    int code = 7;
    assert_int_equal(cli_guarded(ends, &code), 7);
    assert_int_equal(cli_guarded(dies, "x"), CLI_FAILED);
}

static void test_show(void **state)
{
    (void)state;
    assert_int_equal(millrace("check", "--show", NULL), CLI_DONE);
    json_hold json_t *all = json_loads(out, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(all, "lease")), "15s");
    assert_int_equal(millrace("check", "--keys", NULL), CLI_DONE);
    assert_non_null(strstr(out, "body_max"));
    assert_int_equal(millrace("check", "--keys", "x.json", NULL), CLI_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_usage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_check, setup, teardown),
        cmocka_unit_test_setup_teardown(test_run, setup, teardown),
        cmocka_unit_test_setup_teardown(test_plugins, setup, teardown),
        cmocka_unit_test_setup_teardown(test_id, setup, teardown),
        cmocka_unit_test_setup_teardown(test_show, setup, teardown),
        cmocka_unit_test(test_guard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
