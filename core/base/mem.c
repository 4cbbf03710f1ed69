/* Memory: allocation that aborts, and arenas.
 *
 * An allocation of ours that fails leaves nothing sensible to do: a line says so and the process
 * ends; its supervisor starts another one and leases bring its work back. So no caller has a branch
 * for it that no test ever takes.
 *
 * An arena is a list of blocks, the current one first. A block starts at 1 KiB and each next one is
 * twice as large, up to 64 KiB. A request over a quarter of the next block's size gets a block of
 * its own *behind* the current one, so that the rest of the current one stays in use. Nothing is
 * given back before arena_done. */
#include "base/mem.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define MEM_EACH_ALONE 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MEM_EACH_ALONE 1
#endif
#endif
#ifndef MEM_EACH_ALONE
#define MEM_EACH_ALONE 0
#endif

enum { BLOCK_FIRST = 512, BLOCK_LAST = 65536, ALIGN = _Alignof(max_align_t) };

struct arena_block {
    struct arena_block *next;
    size_t used, size; /* of `data` */
    _Alignas(max_align_t) unsigned char data[];
};

/* Without stdio: it may want memory itself. */
static _Noreturn void out_of_memory(void)
{
    static const char line[] = "millrace: out of memory\n";
    ssize_t ignored = write(STDERR_FILENO, line, sizeof(line) - 1);
    (void)ignored;
    abort();
}

void *mem_alloc(size_t size)
{
    void *data = malloc(size > 0 ? size : 1);
    if (data == NULL)
        out_of_memory();
    return data;
}

void *mem_zalloc(size_t size)
{
    void *data = calloc(1, size > 0 ? size : 1);
    if (data == NULL)
        out_of_memory();
    return data;
}

void *mem_resize(void *old, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        out_of_memory();
    void *data = realloc(old, bytes > 0 ? bytes : 1);
    if (data == NULL)
        out_of_memory();
    return data;
}

char *mem_dup(const char *text)
{
    return mem_ndup(text, strlen(text));
}

char *mem_ndup(const char *text, size_t len)
{
    if (len == SIZE_MAX)
        out_of_memory();
    char *copy = mem_alloc(len + 1);
    if (len > 0)
        memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

char *mem_format(const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int len = vasprintf(&text, format, args);
    va_end(args);
    if (len < 0)
        out_of_memory();
    return text;
}

void arena_init(struct arena *arena)
{
    *arena = (struct arena){0};
}

static struct arena_block *block_new(size_t size)
{
    size_t bytes;
    if (__builtin_add_overflow(size, sizeof(struct arena_block), &bytes))
        out_of_memory();
    struct arena_block *block = mem_zalloc(bytes);
    block->size = size;
    return block;
}

/* A block that holds `size` bytes and whose free rest, if any, is at the front of the list. */
static struct arena_block *block_for(struct arena *arena, size_t size)
{
    struct arena_block *head = arena->blocks;
    if (!MEM_EACH_ALONE && head != NULL && size <= head->size - head->used)
        return head;

    size_t next_size = head == NULL || head->size < BLOCK_FIRST ? BLOCK_FIRST : head->size * 2;
    if (next_size > BLOCK_LAST)
        next_size = BLOCK_LAST;
    bool alone = MEM_EACH_ALONE || size > next_size / 4;
    struct arena_block *block = block_new(alone ? size : next_size);
    if (alone && head != NULL) {
        block->next = head->next;
        head->next = block;
    } else {
        block->next = head;
        arena->blocks = block;
    }
    return block;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    size_t wanted = size > 0 ? size : 1;
    /* Rounding up keeps the next one aligned; alone in its block nothing follows, and an overrun of
     * a single byte is to be seen. */
    if (!MEM_EACH_ALONE) {
        if (__builtin_add_overflow(wanted, ALIGN - 1, &wanted))
            out_of_memory();
        wanted -= wanted % ALIGN;
    }
    struct arena_block *block = block_for(arena, wanted);
    void *data = block->data + block->used;
    block->used += wanted;
    arena->used_bytes += wanted;
    return data;
}

char *arena_ndup(struct arena *arena, const char *text, size_t len)
{
    if (len == SIZE_MAX)
        out_of_memory();
    char *copy = arena_alloc(arena, len + 1);
    if (len > 0)
        memcpy(copy, text, len);
    return copy;
}

void arena_done(struct arena *arena)
{
    struct arena_block *block = arena->blocks;
    while (block != NULL) {
        struct arena_block *next = block->next;
        free(block);
        block = next;
    }
    arena_init(arena);
}
