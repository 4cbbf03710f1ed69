/* Memory: allocation that aborts on failure for what is small and ours, an arena for what ends
 * together.
 *
 * Sizes that come from outside are checked by their reader before they reach these functions. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* As malloc, calloc, realloc, strdup, strndup; abort the process with a line on stderr when memory
 * is out. */
void *mem_alloc(size_t size) __attribute__((malloc, returns_nonnull));
void *mem_zalloc(size_t size) __attribute__((malloc, returns_nonnull));
void *mem_resize(void *old, size_t count, size_t size) __attribute__((returns_nonnull));
char *mem_dup(const char *text) __attribute__((returns_nonnull));
char *mem_ndup(const char *text, size_t len) __attribute__((returns_nonnull));
char *mem_format(const char *format, ...) __attribute__((format(printf, 1, 2), returns_nonnull));

static inline void mem_free_cleanup(void *slot)
{
    free(*(void **)slot);
}
/* A local that is freed when it leaves its scope: `mem_auto char *text = NULL;` */
#define mem_auto __attribute__((cleanup(mem_free_cleanup)))

/* An arena: blocks of growing size, freed all at once. Memory is aligned for any type and zeroed.
 * Under ASan every block is a malloc of its own, so that overruns are seen. */
struct arena {
    struct arena_block *blocks;
    size_t used_bytes; /* what was handed out, for accounting */
};
void arena_init(struct arena *arena);
void *arena_alloc(struct arena *arena, size_t size) __attribute__((returns_nonnull));
char *arena_ndup(struct arena *arena, const char *text, size_t len)
    __attribute__((returns_nonnull));
void arena_done(struct arena *arena);
