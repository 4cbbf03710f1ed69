#include "fiber/stack.h"
#include "base/limits.h"
#include "fiber/sanitize.h"
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

/* One page size for all; 64 KiB covers every page size of the kernels we run on. */
#define PAGES_MAX (LIMIT_STACK_BYTES / 4096u + 1u)

static size_t page_bytes(void)
{
    static size_t bytes;
    if (bytes == 0)
        bytes = (size_t)sysconf(_SC_PAGESIZE);
    return bytes;
}

static size_t mapping_bytes(void)
{
    return LIMIT_STACK_BYTES + page_bytes();
}

static struct stack *stack_map(size_t top_bytes)
{
    size_t page = page_bytes();
    char *base = mmap(NULL, mapping_bytes(), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    if (mprotect(base, page, PROT_NONE) != 0) {
        munmap(base, mapping_bytes());
        return NULL;
    }
    size_t head = (sizeof(struct stack) + top_bytes + 63) & ~(size_t)63;
    struct stack *stack = (void *)(base + mapping_bytes() - head);
    stack->low = base + page;
    stack->size = LIMIT_STACK_BYTES - head;
    stack->valgrind_id = sanitize_stack_register(stack->low, stack->size);
    return stack;
}

static void stack_unmap(struct stack *stack)
{
    char *base = stack->low - page_bytes();
    sanitize_stack_deregister(stack->valgrind_id);
    sanitize_unpoison(stack->low, stack->size);
    munmap(base, mapping_bytes());
}

/* Bytes from the top of the stack to the lowest page in memory. */
static size_t stack_depth(const struct stack *stack)
{
    unsigned char resident[PAGES_MAX];
    size_t page = page_bytes(), pages = LIMIT_STACK_BYTES / page;
    if (mincore(stack->low, LIMIT_STACK_BYTES, resident) != 0)
        return LIMIT_STACK_BYTES; /* not known: treat as deep */
    size_t i = 0;
    while (i < pages && (resident[i] & 1) == 0)
        i++;
    return (pages - i) * page;
}

struct stack *stack_open(struct stack_pool *pool, size_t top_bytes)
{
    struct stack *stack = pool->free;
    if (stack) {
        pool->free = stack->next;
        pool->pooled--;
        sanitize_unpoison(stack->low, stack->size);
    } else {
        stack = stack_map(top_bytes);
        if (!stack)
            return NULL;
    }
    stack->next = NULL;
    pool->open++;
    return stack;
}

void stack_close(struct stack_pool *pool, struct stack *stack)
{
    size_t depth = stack_depth(stack);
    if (depth > pool->high_bytes)
        pool->high_bytes = depth;
    pool->open--;
    if (pool->pooled >= STACK_KEEP && pool->pooled > pool->open) {
        stack_unmap(stack);
        return;
    }
    if (depth > STACK_KEEP_BYTES)
        madvise(stack->low, LIMIT_STACK_BYTES - STACK_KEEP_BYTES, MADV_DONTNEED);
    /* Whoever still points into a dead fiber's frame is caught by the sanitizer. */
    sanitize_poison(stack->low, stack->size);
    stack->next = pool->free;
    pool->free = stack;
    pool->pooled++;
}

void stack_trim(struct stack_pool *pool)
{
    while (pool->free) {
        struct stack *stack = pool->free;
        pool->free = stack->next;
        stack_unmap(stack);
    }
    pool->pooled = 0;
}
