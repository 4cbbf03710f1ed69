/* Stacks for fibers: mapped with a guard page below, pooled, the pages of a deep one given back.
 *
 * The mapping is LIMIT_STACK_BYTES of stack and one page without access. `struct stack` itself lies
 * at the top of the mapping, so that a fiber at rest needs one touched page and no heap. A pool
 * belongs to one thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct stack {
    struct stack *next;      /* in the pool */
    char *low;               /* lowest usable byte, above the guard page */
    size_t size;             /* usable bytes from `low` up to the reserved top */
    unsigned valgrind_id;    /* of VALGRIND_STACK_REGISTER */
    _Alignas(16) char top[]; /* `top_bytes` for the owner, as asked for in stack_open */
};

struct stack_pool {
    struct stack *free;
    size_t pooled;     /* in `free` */
    size_t open;       /* handed out */
    size_t high_bytes; /* deepest use seen on release, whole pages */
};

/* Takes a stack from the pool or maps one; `top_bytes` is the same in all calls, at most 2 KiB.
 * What `top` holds is undefined. NULL when the kernel gives no mapping (ENOMEM: memory, or
 * vm.max_map_count). */
struct stack *stack_open(struct stack_pool *pool, size_t top_bytes);
/* Gives it back: notes how deep it was, returns pages below STACK_KEEP_BYTES to the kernel, and
 * unmaps it when the pool already holds more than are open (and more than STACK_KEEP). Never called
 * on that stack. */
void stack_close(struct stack_pool *pool, struct stack *stack);
/* Unmaps all pooled stacks. */
void stack_trim(struct stack_pool *pool);

#define STACK_KEEP_BYTES (16u << 10) /* a pooled stack keeps at most this much memory */
#define STACK_KEEP       1024u       /* as many are always worth keeping (4 MiB) */
