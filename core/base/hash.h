/* SHA-256 (FIPS 180-4), base64 (RFC 4648 section 4) and random bytes: the one seam to nettle and
 * getrandom(2). */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define HASH_HEX_BYTES 65 /* 64 hex digits and NUL */

struct hash {
    _Alignas(16) unsigned char state[128];
};
/* start, any number of add, end. After end only start may follow. */
void hash_start(struct hash *hash);
void hash_add(struct hash *hash, const void *data, size_t len);
/* Adds an 8-byte big-endian length before the data, so that parts cannot run together. */
void hash_add_part(struct hash *hash, const void *data, size_t len);
/* The digest as 64 lower-case hex digits. */
void hash_end(struct hash *hash, char ret_hex[HASH_HEX_BYTES]);
/* All of it in one call. */
void hash_text(const void *data, size_t len, char ret_hex[HASH_HEX_BYTES]);
/* The length prefix that hash_add_part puts before a part: 8 bytes, big-endian. */
#define HASH_PREFIX_BYTES 8
void hash_prefix(size_t len, unsigned char ret[HASH_PREFIX_BYTES]);

/* Random bytes fit for secrets, fetched from the kernel in blocks; safe in threads and after fork.
 * Aborts when the kernel gives none. */
void hash_random(void *data, size_t len);
/* `bytes` random bytes as lower-case hex into `ret_hex` (2 * bytes + 1). */
void hash_random_hex(char *ret_hex, size_t bytes);
/* FNV-1a, for tables and partitions; not for anything an attacker chooses. */
uint32_t hash_fnv(const void *data, size_t len);

/* Length of the text for `len` bytes, NUL not counted. */
size_t hash_base64_len(size_t len);
/* Writes hash_base64_len(len) characters and a NUL. */
void hash_base64(const void *data, size_t len, char *ret_text);
