/* hash.h: SHA-256, random bytes, FNV-1a, base64, against published values. */
#include "base/hash.h"
#include "base/mem.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Last: its macro fail() would break plugin.h. */
#include <cmocka.h>

static void sha256_of_fips_180_4(void **state)
{
    (void)state;
    char hex[HASH_HEX_BYTES];
    hash_text("", 0, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    hash_text("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    hash_text("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, hex);
    assert_string_equal(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    struct hash hash;
    hash_start(&hash);
    for (int i = 0; i < 10000; i++)
        hash_add(&hash,
                 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                 "aaaaaaaaaaaaaaaaaaaaa",
                 100);
    hash_end(&hash, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void parts_do_not_run_together(void **state)
{
    (void)state;
    char one[HASH_HEX_BYTES], two[HASH_HEX_BYTES], by_hand[HASH_HEX_BYTES];
    struct hash hash;
    hash_start(&hash);
    hash_add_part(&hash, "ab", 2);
    hash_add_part(&hash, "c", 1);
    hash_end(&hash, one);
    hash_start(&hash);
    hash_add_part(&hash, "a", 1);
    hash_add_part(&hash, "bc", 2);
    hash_end(&hash, two);
    assert_string_not_equal(one, two);
    hash_text("\0\0\0\0\0\0\0\2ab\0\0\0\0\0\0\0\1c", 19, by_hand);
    assert_string_equal(one, by_hand);
    unsigned char prefix[HASH_PREFIX_BYTES];
    hash_prefix(0x0102030405060708, prefix);
    assert_memory_equal(prefix, "\1\2\3\4\5\6\7\10", 8);
}

static void random_bytes_differ(void **state)
{
    (void)state;
    enum { COUNT = 3000 };
    static char seen[COUNT][33];
    for (int i = 0; i < COUNT; i++) {
        hash_random_hex(seen[i], 16);
        assert_int_equal(strlen(seen[i]), 32);
        assert_int_equal(strspn(seen[i], "0123456789abcdef"), 32);
    }
    qsort(seen, COUNT, sizeof(seen[0]), (int (*)(const void *, const void *))strcmp);
    for (int i = 1; i < COUNT; i++)
        assert_string_not_equal(seen[i - 1], seen[i]);
    char odd[2 * 65 + 1];
    hash_random_hex(odd, 65);
    assert_int_equal(strlen(odd), 130);
    hash_random_hex(odd, 0);
    assert_string_equal(odd, "");
}

static void random_of_any_length(void **state)
{
    (void)state;
    /* Every bit of every byte turns up both ways: nothing is left unfilled. */
    static const size_t lengths[] = {1, 7, 64, 511, 512, 513, 5000};
    for (size_t l = 0; l < sizeof(lengths) / sizeof(lengths[0]); l++) {
        size_t len = lengths[l];
        mem_auto unsigned char *ones = mem_zalloc(len);
        mem_auto unsigned char *zeros = mem_zalloc(len);
        for (int round = 0; round < 64; round++) {
            mem_auto unsigned char *data = mem_zalloc(len + 1);
            hash_random(data, len);
            assert_int_equal(data[len], 0);
            for (size_t i = 0; i < len; i++) {
                ones[i] |= data[i];
                zeros[i] |= (unsigned char)~data[i];
            }
        }
        for (size_t i = 0; i < len; i++) {
            assert_int_equal(ones[i], 0xFF);
            assert_int_equal(zeros[i], 0xFF);
        }
    }
}

static void fork_does_not_repeat(void **state)
{
    (void)state;
    char first[33], parent[33], child[33];
    hash_random_hex(first, 16); /* the block is filled before the fork */
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        hash_random_hex(child, 16);
        ssize_t wrote = write(ends[1], child, sizeof(child));
        _exit(wrote == sizeof(child) ? 0 : 1);
    }
    hash_random_hex(parent, 16);
    assert_int_equal(read(ends[0], child, sizeof(child)), sizeof(child));
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_string_not_equal(parent, child);
    close(ends[0]);
    close(ends[1]);
}

static void *fill(void *arg)
{
    hash_random_hex(arg, 16);
    return NULL;
}

static void threads_do_not_share(void **state)
{
    (void)state;
    enum { COUNT = 8 };
    char texts[COUNT][33];
    pthread_t threads[COUNT];
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fill, texts[i]), 0);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < i; j++)
            assert_string_not_equal(texts[i], texts[j]);
}

static void fnv_as_published(void **state)
{
    (void)state;
    assert_int_equal(hash_fnv("", 0), 0x811c9dc5);
    assert_int_equal(hash_fnv("a", 1), 0xe40c292c);
    assert_int_equal(hash_fnv("foobar", 6), 0xbf9cf968);
}

static void base64_of_rfc_4648(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
        {"\xff\xfe\xfb", "//77"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[16];
        memset(text, 'x', sizeof(text));
        size_t len = strlen(cases[i][0]);
        assert_int_equal(hash_base64_len(len), strlen(cases[i][1]));
        hash_base64(cases[i][0], len, text);
        assert_string_equal(text, cases[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_of_fips_180_4), cmocka_unit_test(parts_do_not_run_together),
        cmocka_unit_test(random_bytes_differ),  cmocka_unit_test(random_of_any_length),
        cmocka_unit_test(fork_does_not_repeat), cmocka_unit_test(threads_do_not_share),
        cmocka_unit_test(fnv_as_published),     cmocka_unit_test(base64_of_rfc_4648),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
