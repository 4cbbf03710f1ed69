/* mem.h: allocation that aborts, arenas. */
#include "base/mem.h"
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Last: its macro fail() would break plugin.h. */
#include <cmocka.h>

static void copies_texts(void **state)
{
    (void)state;
    mem_auto char *all = mem_dup("stage");
    assert_string_equal(all, "stage");
    mem_auto char *part = mem_ndup("stage", 2);
    assert_string_equal(part, "st");
    mem_auto char *none = mem_ndup(NULL, 0);
    assert_string_equal(none, "");
    mem_auto char *text = mem_format("%s/%d", "a", 7);
    assert_string_equal(text, "a/7");
}

static void zeroes_and_resizes(void **state)
{
    (void)state;
    mem_auto unsigned char *zeroes = mem_zalloc(100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(zeroes[i], 0);
    mem_auto int *numbers = mem_resize(NULL, 2, sizeof(int));
    numbers[0] = 1;
    numbers[1] = 2;
    numbers = mem_resize(numbers, 1000, sizeof(int));
    assert_int_equal(numbers[0], 1);
    assert_int_equal(numbers[1], 2);
    mem_auto void *empty = mem_alloc(0);
    assert_non_null(empty);
}

/* Runs fn in a child and tells whether it died of SIGABRT. */
static bool aborts(void (*fn)(void))
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGABRT, SIG_DFL); /* cmocka and sanitizers put theirs there */
        close(STDERR_FILENO);
        fn();
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void resize_beyond_size_t(void)
{
    /* volatile, or compilers warn of what is tested here */
    volatile size_t count = SIZE_MAX / 2;
    free(mem_resize(NULL, count, 4));
}

static void ndup_beyond_size_t(void)
{
    volatile size_t len = SIZE_MAX;
    free(mem_ndup("x", len));
}

static void aborts_on_overflow(void **state)
{
    (void)state;
    assert_true(aborts(resize_beyond_size_t));
    assert_true(aborts(ndup_beyond_size_t));
}

static void arena_gives_zeroed_aligned_memory(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena);
    unsigned char *last = NULL;
    size_t asked = 0;
    for (size_t size = 0; size < 3000; size += 7) {
        unsigned char *data = arena_alloc(&arena, size);
        asked += size;
        assert_int_equal((uintptr_t)data % _Alignof(max_align_t), 0);
        assert_ptr_not_equal(data, last);
        for (size_t i = 0; i < size; i++)
            assert_int_equal(data[i], 0);
        memset(data, 0xAA, size); /* the next one must still be zero: they do not overlap */
        last = data;
    }
    assert_true(arena.used_bytes >= asked);
    assert_true(arena.used_bytes < asked * 2);
    arena_done(&arena);
    assert_int_equal(arena.used_bytes, 0);
    assert_null(arena.blocks);
}

static void arena_keeps_what_it_gave(void **state)
{
    (void)state;
    enum { COUNT = 500 };
    struct arena arena;
    arena_init(&arena);
    char *small[COUNT];
    unsigned char *large[COUNT];
    for (int i = 0; i < COUNT; i++) {
        small[i] = arena_ndup(&arena, "0123456789", (size_t)i % 10);
        size_t size = (size_t)i * 211; /* up to 105 KB: over every block size */
        large[i] = arena_alloc(&arena, size);
        memset(large[i], i & 0xFF, size);
    }
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(strlen(small[i]), i % 10);
        assert_memory_equal(small[i], "0123456789", (size_t)i % 10);
        for (size_t j = 0; j < (size_t)i * 211; j += 97)
            assert_int_equal(large[i][j], i & 0xFF);
    }
    arena_done(&arena);
    char *again = arena_ndup(&arena, "usable again", 12);
    assert_string_equal(again, "usable again");
    arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_texts),
        cmocka_unit_test(zeroes_and_resizes),
        cmocka_unit_test(aborts_on_overflow),
        cmocka_unit_test(arena_gives_zeroed_aligned_memory),
        cmocka_unit_test(arena_keeps_what_it_gave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
