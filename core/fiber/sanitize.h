/* What AddressSanitizer, ThreadSanitizer and valgrind must be told of stacks and switches. All of
 * it is nothing in a plain build; under valgrind the two stack calls are requests that cost some
 * cycles natively. */
#pragma once

#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZE_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define SANITIZE_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SANITIZE_TSAN 1
#endif
#endif

#ifdef SANITIZE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef SANITIZE_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#define SANITIZE_VALGRIND 1
#endif
#endif

static inline unsigned sanitize_stack_register(char *low, size_t size)
{
#ifdef SANITIZE_VALGRIND
    return (unsigned)VALGRIND_STACK_REGISTER(low, low + size);
#else
    (void)low, (void)size;
    return 0;
#endif
}

static inline void sanitize_stack_deregister(unsigned id)
{
#ifdef SANITIZE_VALGRIND
    VALGRIND_STACK_DEREGISTER(id);
#else
    (void)id;
#endif
}

static inline void sanitize_poison(char *low, size_t size)
{
#ifdef SANITIZE_ASAN
    __asan_poison_memory_region(low, size);
#else
    (void)low, (void)size;
#endif
}

static inline void sanitize_unpoison(char *low, size_t size)
{
#ifdef SANITIZE_ASAN
    __asan_unpoison_memory_region(low, size);
#else
    (void)low, (void)size;
#endif
}

/* Around each switch. `fake` is where the state of the stack that is left is kept: NULL when that
 * stack is not coming back. `low` and `size` describe the stack that is entered. */
static inline void sanitize_switch(void **fake, const void *low, size_t size)
{
#ifdef SANITIZE_ASAN
    __sanitizer_start_switch_fiber(fake, low, size);
#else
    (void)fake, (void)low, (void)size;
#endif
}

/* First thing on the stack that was entered; tells which stack was left. */
static inline void sanitize_switched(void *fake, const void **ret_low, size_t *ret_size)
{
#ifdef SANITIZE_ASAN
    __sanitizer_finish_switch_fiber(fake, ret_low, ret_size);
#else
    (void)fake, (void)ret_low, (void)ret_size;
#endif
}

static inline void *sanitize_fiber_new(void)
{
#ifdef SANITIZE_TSAN
    return __tsan_create_fiber(0);
#else
    return NULL;
#endif
}

static inline void *sanitize_fiber_self(void)
{
#ifdef SANITIZE_TSAN
    return __tsan_get_current_fiber();
#else
    return NULL;
#endif
}

static inline void sanitize_fiber_switch(void *to)
{
#ifdef SANITIZE_TSAN
    __tsan_switch_to_fiber(to, 0);
#else
    (void)to;
#endif
}

static inline void sanitize_fiber_free(void *fiber)
{
#ifdef SANITIZE_TSAN
    __tsan_destroy_fiber(fiber);
#else
    (void)fiber;
#endif
}

/* Whether `stacks` fibers can be mapped in this build and under this tool: valgrind keeps a table
 * of some thousand mappings, ThreadSanitizer some thousand fibers. For tests that measure. */
static inline int sanitize_mappings_fit(size_t stacks)
{
#ifdef SANITIZE_VALGRIND
    if (RUNNING_ON_VALGRIND)
        return stacks <= 1000;
#endif
#ifdef SANITIZE_TSAN
    return stacks <= 1000;
#else
    (void)stacks;
    return 1;
#endif
}
