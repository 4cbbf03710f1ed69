/* Plugins: what is loaded, and what is refused with which words. */
#include "rig.h"
#include <fcntl.h>

static void test_loads_once(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig);
    struct error err = {0};
    const struct plugin *echo = plugin_find(rig.plugins, "echo", &err);
    assert_non_null(echo);
    assert_string_equal(echo->about.name, "echo");
    assert_non_null(echo->about.run);
    assert_true(echo->options.count >= 1);
    assert_ptr_equal(plugin_find(rig.plugins, "echo", &err), echo);
    rig_close(&rig);
}

static void test_names(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig);
    char **names = plugin_names(rig.plugins);
    bool echo = false;
    for (size_t i = 0; names[i] != NULL; i++) {
        echo = echo || strcmp(names[i], "echo") == 0;
        if (i > 0)
            assert_true(strcmp(names[i - 1], names[i]) < 0);
    }
    for (size_t i = 0; names[i] != NULL; i++)
        free(names[i]);
    free(names);
    assert_true(echo);
    rig_close(&rig);
}

static void test_not_there(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig);
    struct error err = {0};
    assert_null(plugin_find(rig.plugins, "ecko", &err));
    assert_int_equal(err.code, MR_E_PLUGIN);
    assert_non_null(strstr(err.hint, "did you mean \"echo\""));
    assert_null(plugin_find(rig.plugins, "zzzzzzzzzzzz", &err));
    assert_non_null(strstr(err.hint, "there are: "));
    static const char *const bad[] = {"", "../echo", "Echo", "a/b", "ec.ho", NULL};
    for (size_t i = 0; bad[i] != NULL; i++) {
        assert_null(plugin_find(rig.plugins, bad[i], &err));
        assert_non_null(strstr(err.message, "not a plugin's name"));
    }
    rig_close(&rig);
}

static void test_wrong_abi(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig);
    struct error err = {0};
    assert_null(plugin_find(rig.plugins, "wrong_abi", &err));
    assert_non_null(strstr(err.message, "this host offers 0.1: upgrade the host or rebuild against "
                                        "its header"));
    assert_non_null(strstr(err.message, "built for "));
    assert_non_null(strstr(err.where, "wrong_abi.so"));
    rig_close(&rig);
}

static void test_missing_symbol(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig);
    struct error err = {0};
    assert_null(plugin_find(rig.plugins, "no_symbol", &err));
    assert_non_null(strstr(err.message, "does not export the symbol mr_plugin_no_symbol"));
    assert_non_null(strstr(err.hint, "it exports"));
    rig_close(&rig);
}

/* A folder of its own with a copy of echo.so in it. */
struct copy {
    char dir[64], path[128];
    struct plugin_registry *plugins;
};

static void copy_open(struct copy *copy, const char *name)
{
    char block[65536];
    snprintf(copy->dir, sizeof(copy->dir), "/tmp/millrace-plugin-XXXXXX");
    assert_non_null(mkdtemp(copy->dir));
    snprintf(copy->path, sizeof(copy->path), "%s/%s", copy->dir, name);
    int from = open(MR_BUILD_DIR "/plugins/echo.so", O_RDONLY);
    int to = open(copy->path, O_WRONLY | O_CREAT | O_EXCL, 0644);
    assert_true(from >= 0 && to >= 0);
    for (ssize_t got; (got = read(from, block, sizeof(block))) > 0;)
        assert_int_equal(write(to, block, (size_t)got), got);
    close(from);
    assert_int_equal(fchmod(to, 0644), 0);
    close(to);
    const char *const folders[] = {copy->dir, NULL};
    copy->plugins = plugin_registry_new(folders);
}

static void copy_close(struct copy *copy)
{
    plugin_registry_free(copy->plugins);
    chmod(copy->dir, 0755);
    unlink(copy->path);
    rmdir(copy->dir);
}

static void test_trust(void **state)
{
    (void)state;
    struct copy copy;
    struct error err = {0};
    copy_open(&copy, "echo.so");
    assert_int_equal(chmod(copy.path, 0666), 0);
    assert_null(plugin_find(copy.plugins, "echo", &err));
    assert_non_null(strstr(err.message, "may be written by others (mode 0666)"));
    assert_non_null(strstr(err.hint, "chmod go-w"));
    assert_int_equal(chmod(copy.path, 0644), 0);
    assert_int_equal(chmod(copy.dir, 0777), 0);
    assert_null(plugin_find(copy.plugins, "echo", &err));
    assert_non_null(strstr(err.message, "plugin folder"));
    assert_int_equal(chmod(copy.dir, 0755), 0);
    assert_non_null(plugin_find(copy.plugins, "echo", &err));
    copy_close(&copy);
}

static void test_owner(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    struct copy copy;
    struct error err = {0};
    copy_open(&copy, "echo.so");
    assert_int_equal(chown(copy.path, 12345, 0), 0);
    assert_null(plugin_find(copy.plugins, "echo", &err));
    assert_non_null(strstr(err.message, "belongs to user 12345"));
    copy_close(&copy);
}

static void test_kind_of_file(void **state)
{
    (void)state;
    struct copy copy;
    struct error err = {0};
    copy_open(&copy, "other.so");
    char link[160];
    snprintf(link, sizeof(link), "%s/echo.so", copy.dir);
    assert_int_equal(symlink(copy.path, link), 0);
    assert_null(plugin_find(copy.plugins, "echo", &err));
    assert_non_null(strstr(err.message, "symbolic link"));
    unlink(link);
    assert_int_equal(mkdir(link, 0755), 0);
    assert_null(plugin_find(copy.plugins, "echo", &err));
    assert_non_null(strstr(err.message, "not a regular file"));
    rmdir(link);
    /* Its symbol is mr_plugin_echo, whatever the file is called. */
    assert_null(plugin_find(copy.plugins, "other", &err));
    assert_non_null(strstr(err.message, "does not export the symbol mr_plugin_other"));
    assert_non_null(strstr(err.hint, "mr_plugin_echo"));
    copy_close(&copy);
}

static void test_no_object(void **state)
{
    (void)state;
    struct copy copy;
    struct error err = {0};
    copy_open(&copy, "echo.so");
    int fd = open(copy.path, O_WRONLY | O_TRUNC);
    assert_int_equal(write(fd, "not an object", 13), 13);
    close(fd);
    assert_null(plugin_find(copy.plugins, "echo", &err));
    assert_non_null(strstr(err.message, "cannot be loaded"));
    copy_close(&copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loads_once),     cmocka_unit_test(test_names),
        cmocka_unit_test(test_not_there),      cmocka_unit_test(test_wrong_abi),
        cmocka_unit_test(test_missing_symbol), cmocka_unit_test(test_trust),
        cmocka_unit_test(test_owner),          cmocka_unit_test(test_kind_of_file),
        cmocka_unit_test(test_no_object),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
