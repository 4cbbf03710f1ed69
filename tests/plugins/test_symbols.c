/* Each plugin that ships exports one symbol, its descriptor, and is complete without the host. */
#include "base/mem.h"
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* The names of a dynamic symbol table, without what the sanitizers add; free() it. */
static char *symbols(const char *path, const char *option)
{
    mem_auto char *command = mem_format("nm -D %s '%s'", option, path);
    FILE *out = popen(command, "r");
    char line[512];
    char *all = mem_dup("");
    assert_non_null(out);
    while (fgets(line, sizeof(line), out)) {
        line[strcspn(line, "\n")] = 0;
        const char *name = strrchr(line, ' ');
        if (!name || strstr(name, "asan") || strstr(name, "ubsan") || strstr(name, "tsan"))
            continue;
        char *more = mem_format("%s%s", all, name);
        free(all);
        all = more;
    }
    assert_int_equal(pclose(out), 0);
    return all;
}

static void test_symbols(void **state)
{
    (void)state;
    unsigned count = 0;
    DIR *dir = opendir(MR_BUILD_DIR "/plugins");
    assert_non_null(dir);
    for (const struct dirent *file; (file = readdir(dir));) {
        size_t len = strlen(file->d_name);
        if (len < 4 || strcmp(file->d_name + len - 3, ".so") != 0)
            continue;
        mem_auto char *path = mem_format("%s/plugins/%s", MR_BUILD_DIR, file->d_name);
        mem_auto char *want = mem_format(" mr_plugin_%.*s", (int)len - 3, file->d_name);
        mem_auto char *defined = symbols(path, "--defined-only");
        assert_string_equal(defined, want);
        mem_auto char *undefined = symbols(path, "--undefined-only");
        assert_null(strstr(undefined, " mr_"));
        count++;
    }
    closedir(dir);
    assert_true(count >= 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_symbols)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
