/* Hashes and random bytes.
 *
 * SHA-256 and base64 are nettle's; its context lies in the opaque `struct hash` of the caller.
 *
 * Random bytes come from getrandom(2) in blocks of 512, one block a thread (nine system calls an id
 * were measured with libuuid). Bytes are wiped from the block as they are handed out. A process
 * that forks would hand the same ones to parent and child, so a fork makes every block of the child
 * stale. */
#include "base/hash.h"

#include <errno.h>
#include <nettle/base64.h>
#include <nettle/sha2.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

_Static_assert(sizeof(struct sha256_ctx) <= sizeof(((struct hash *)0)->state),
               "struct hash has room for nettle's context");

static struct sha256_ctx *context(struct hash *hash)
{
    return (struct sha256_ctx *)(void *)hash->state;
}

static void to_hex(const unsigned char *data, size_t len, char *ret_hex)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        ret_hex[2 * i] = digits[data[i] >> 4];
        ret_hex[2 * i + 1] = digits[data[i] & 15];
    }
    ret_hex[2 * len] = '\0';
}

void hash_start(struct hash *hash)
{
    sha256_init(context(hash));
}

void hash_add(struct hash *hash, const void *data, size_t len)
{
    if (len > 0)
        sha256_update(context(hash), len, data);
}

void hash_add_part(struct hash *hash, const void *data, size_t len)
{
    unsigned char prefix[HASH_PREFIX_BYTES];
    hash_prefix(len, prefix);
    hash_add(hash, prefix, sizeof(prefix));
    hash_add(hash, data, len);
}

void hash_end(struct hash *hash, char ret_hex[HASH_HEX_BYTES])
{
    unsigned char digest[SHA256_DIGEST_SIZE];
    sha256_digest(context(hash), sizeof(digest), digest);
    to_hex(digest, sizeof(digest), ret_hex);
}

void hash_text(const void *data, size_t len, char ret_hex[HASH_HEX_BYTES])
{
    struct hash hash;
    hash_start(&hash);
    hash_add(&hash, data, len);
    hash_end(&hash, ret_hex);
}

void hash_prefix(size_t len, unsigned char ret[HASH_PREFIX_BYTES])
{
    for (int i = 0; i < HASH_PREFIX_BYTES; i++)
        ret[i] = (unsigned char)((uint64_t)len >> (56 - 8 * i));
}

/* Random bytes */

enum { BLOCK_BYTES = 512 };

struct block {
    unsigned char data[BLOCK_BYTES];
    size_t left;    /* unused bytes, at the end */
    unsigned forks; /* value of `forks` when it was filled */
};
static _Thread_local struct block block;
static atomic_uint forks; /* of this process and its forefathers since the first use */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void count_fork(void)
{
    atomic_fetch_add(&forks, 1);
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, count_fork);
}

static void from_kernel(unsigned char *data, size_t len)
{
    while (len > 0) {
        ssize_t got = getrandom(data, len, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) { /* a kernel without getrandom: ids and fences would not be unique */
            perror("millrace: getrandom");
            abort();
        }
        data += got;
        len -= (size_t)got;
    }
}

void hash_random(void *data, size_t len)
{
    if (len > BLOCK_BYTES) {
        from_kernel(data, len);
        return;
    }
    pthread_once(&once, watch_forks);
    unsigned now = atomic_load(&forks);
    if (block.left < len || block.forks != now) {
        from_kernel(block.data, BLOCK_BYTES);
        block.left = BLOCK_BYTES;
        block.forks = now;
    }
    unsigned char *from = block.data + BLOCK_BYTES - block.left;
    memcpy(data, from, len);
    explicit_bzero(from, len);
    block.left -= len;
}

void hash_random_hex(char *ret_hex, size_t bytes)
{
    while (bytes > 0) {
        unsigned char data[64];
        size_t len = bytes < sizeof(data) ? bytes : sizeof(data);
        hash_random(data, len);
        to_hex(data, len, ret_hex);
        ret_hex += 2 * len;
        bytes -= len;
    }
    *ret_hex = '\0';
}

uint32_t hash_fnv(const void *data, size_t len)
{
    const unsigned char *p = data;
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < len; i++)
        hash = (uint32_t)((uint64_t)(hash ^ p[i]) * 16777619u);
    return hash;
}

size_t hash_base64_len(size_t len)
{
    return BASE64_ENCODE_RAW_LENGTH(len);
}

void hash_base64(const void *data, size_t len, char *ret_text)
{
    if (len > 0)
        base64_encode_raw(ret_text, len, data);
    ret_text[hash_base64_len(len)] = '\0';
}
