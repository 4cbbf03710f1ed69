/* Deterministic ids: names are put together here, libuuid hashes them.
 *
 * Whatever consists of several parts is hashed with each part's length before it, so that no two
 * different lists of parts give the same bytes. docs/ids.md says the same for those who compute ids
 * in other languages; tests compare with Python's uuid.uuid5. */
#include "base/id.h"

#include "base/hash.h"
#include "base/limits.h"
#include "base/mem.h"
#include <stdio.h>
#include <string.h>
#include <uuid/uuid.h>

/* A body's canonical JSON can be longer than the body: 1e15 becomes 1000000000000000.0. */
#define NAME_BYTES_MAX (6u * (size_t)LIMIT_BODY_BYTES)

int id_of_bytes(const char *ns, const void *name, size_t len, char ret_id[ID_BYTES],
                struct error *err)
{
    uuid_t space, id;
    if (strlen(ns) != ID_BYTES - 1 || uuid_parse(ns, space) != 0)
        return error_set(err, MR_E_SCHEMA, "\"%.60s\" is no UUID and cannot be an id namespace",
                         ns);
    uuid_generate_sha1(id, space, len > 0 ? name : "", len);
    uuid_unparse_lower(id, ret_id);
    return MR_OK;
}

static void add_part(struct buf *name, const char *part)
{
    unsigned char prefix[HASH_PREFIX_BYTES];
    hash_prefix(strlen(part), prefix);
    buf_add(name, prefix, sizeof(prefix));
    buf_add_text(name, part);
}

int id_of_job(const char *ns, const char *pipeline, const char *key, const json_t *input,
              char ret_id[ID_BYTES], struct error *err)
{
    buf_auto struct buf name;
    buf_init(&name, NAME_BYTES_MAX);
    add_part(&name, pipeline);
    if (key != NULL) {
        buf_add_char(&name, 'k');
        buf_add_text(&name, key);
    } else {
        buf_add_char(&name, 'i');
        json_canonical_to(input, &name);
    }
    if (name.failed)
        return error_set(err, MR_E_SCHEMA,
                         "the input is nested too deep or too large to make an id from");
    return id_of_bytes(ns, name.data, name.len, ret_id, err);
}

/* For namespaces that are known to be right. */
static void id_of_known(const char *ns, const void *name, size_t len, char ret_id[ID_BYTES])
{
    struct error err;
    if (id_of_bytes(ns, name, len, ret_id, &err) != MR_OK) {
        fprintf(stderr, "millrace: %s\n", err.message);
        abort();
    }
}

void id_of_child(const char *parent, const char *stage, const char *target, char ret_id[ID_BYTES])
{
    buf_auto struct buf name;
    buf_init(&name, SIZE_MAX);
    add_part(&name, parent);
    add_part(&name, stage);
    add_part(&name, target);
    id_of_known(ID_NAMESPACE_DEFAULT, name.data, name.len, ret_id);
}

void id_of_name(const char *ns, const char *name, char ret_id[ID_BYTES])
{
    id_of_known(ns != NULL ? ns : ID_NAMESPACE_DNS, name, strlen(name), ret_id);
}

bool id_is_valid(const char *text)
{
    for (int i = 0; i < ID_BYTES - 1; i++) {
        char c = text[i];
        bool hyphen = i == 8 || i == 13 || i == 18 || i == 23;
        bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
        if (hyphen ? c != '-' : !hex)
            return false;
    }
    return text[ID_BYTES - 1] == '\0';
}
