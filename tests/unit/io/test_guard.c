/* The address guard: what is refused, what is let through, what is no network. */
#include "io/guard.h"
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static bool allows(const struct guard *guard, const char *text)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    if (strchr(text, ':')) {
        assert_int_equal(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
        return guard_allows(guard, (struct sockaddr *)&v6);
    }
    assert_int_equal(inet_pton(AF_INET, text, &v4.sin_addr), 1);
    return guard_allows(guard, (struct sockaddr *)&v4);
}

static void test_refused(void **state)
{
    (void)state;
    struct guard guard;
    assert_int_equal(guard_init(&guard, NULL, NULL), MR_OK);
    const char *const refused[] = {
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "100::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:10.1.2.3",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::8.8.8.8",
        "2002:7f00:1::1",
        "2002:c0a8:101::",
        "2001:0:1:2:3:4:f5ff:fffe", /* Teredo of 10.0.0.1 */
    };
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        if (allows(&guard, refused[i]))
            fail_msg("%s was let through", refused[i]);
    const char *const open[] = {
        "1.1.1.1",         "8.8.8.8",           "9.255.255.255",  "11.0.0.1",
        "100.63.0.1",      "100.128.0.1",       "126.0.0.1",      "128.0.0.1",
        "169.253.0.1",     "172.15.0.1",        "172.32.0.1",     "192.167.0.1",
        "192.169.0.1",     "198.17.0.1",        "198.20.0.1",     "223.255.255.255",
        "2606:4700::1",    "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
        "2002:808:808::1",
    };
    for (size_t i = 0; i < sizeof(open) / sizeof(open[0]); i++)
        if (!allows(&guard, open[i]))
            fail_msg("%s was refused", open[i]);
    struct sockaddr other = {.sa_family = AF_UNIX};
    assert_false(guard_allows(&guard, &other));
    guard_done(&guard);
}

static void test_allow_list(void **state)
{
    (void)state;
    const char *const nets[] = {"10.1.0.0/16", "::1/128", "192.168.7.7", "fd00::/9", NULL};
    struct guard guard;
    assert_int_equal(guard_init(&guard, nets, NULL), MR_OK);
    assert_true(allows(&guard, "10.1.2.3"));
    assert_false(allows(&guard, "10.2.2.3"));
    assert_true(allows(&guard, "::1"));
    assert_false(allows(&guard, "::"));
    assert_true(allows(&guard, "192.168.7.7"));
    assert_false(allows(&guard, "192.168.7.8"));
    assert_true(allows(&guard, "fd7f::1"));
    assert_false(allows(&guard, "fd80::1"));
    assert_true(allows(&guard, "::ffff:10.1.2.3"));
    assert_false(allows(&guard, "127.0.0.1"));
    guard_done(&guard);
}

static void test_no_network(void **state)
{
    (void)state;
    const char *const bad[] = {"10.0.0.0/33", "10.0.0/8",    "::1/129", "localhost", "10.0.0.0/",
                               "10.0.0.0/8x", "10.0.0.0/-1", "",        "/8",        "1::2::3/10"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *const nets[] = {"10.0.0.0/8", bad[i], NULL};
        struct guard guard;
        struct error err = {0};
        assert_int_equal(guard_init(&guard, nets, &err), MR_E_SCHEMA);
        assert_int_equal(err.code, MR_E_SCHEMA);
        assert_non_null(strstr(err.message, bad[i]));
        guard_done(&guard);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_allow_list),
        cmocka_unit_test(test_no_network),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
