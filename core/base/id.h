/* Deterministic ids: UUIDv5 (RFC 9562 section 5.5), the one seam to libuuid. ARCHITECTURE.md
 * "Deterministic ids". */
#pragma once

#include "base/error.h"
#include "base/json.h"

#define ID_BYTES 37 /* 36 characters and NUL */

/* Namespace of an installation that configures none: uuid5(NAMESPACE_DNS, "millrace.invalid")
 * (printed in docs/ids.md). */
#define ID_NAMESPACE_DEFAULT "caf99e7e-c3be-544e-b45a-ad4d8ddf12b0"
#define ID_NAMESPACE_DNS     "6ba7b810-9dad-11d1-80b4-00c04fd430c8"

/* UUIDv5 of `len` bytes in a namespace given as text. MR_E_SCHEMA when the namespace is no UUID (36
 * characters; upper case is taken too). All functions give ids in lower case. */
int id_of_bytes(const char *ns, const void *name, size_t len, char ret_id[ID_BYTES],
                struct error *err);
/* The id a submission gets: over 8-byte big-endian length + pipeline, then `k` + key, or (key NULL)
 * `i` + the canonical JSON of the input. MR_E_SCHEMA for a bad namespace and for an input that
 * cannot be written as canonical JSON (nested or large beyond all bounds). */
int id_of_job(const char *ns, const char *pipeline, const char *key, const json_t *input,
              char ret_id[ID_BYTES], struct error *err);
/* The default id of a child: over length-prefixed parent id, stage and target, in
 * ID_NAMESPACE_DEFAULT. */
void id_of_child(const char *parent, const char *stage, const char *target, char ret_id[ID_BYTES]);
/* A child that declares a name: UUIDv5 in `ns` (the token's, with auth on), or in NAMESPACE_DNS
 * when `ns` is NULL. A namespace that is no UUID aborts: the configuration has checked it, and any
 * other would let one token's ids meet another's. */
void id_of_name(const char *ns, const char *name, char ret_id[ID_BYTES]);
/* 36 characters, lower-case hex and hyphens in their places. */
bool id_is_valid(const char *text);
