/* The document of a job: a short list of members, each with its JSON text, its parsed tree, or
 * both.
 *
 * A member that came as text is parsed when it is first read and keeps the text; doc_forget drops
 * the tree again. A member that came as a tree has no text until somebody asks for it: the text is
 * then printed once and kept, and from that moment the tree can be dropped like any other.
 *
 * A view has members of its own and looks in its parent for the rest. It never adds, changes or
 * removes a member of the parent; it does parse and forget there, which is what the parent's own
 * readers do as well. Members are found by a linear search: a document has a dozen of them, a few
 * hundred at the most.
 *
 * What this file does not do: paths (expr_path.c), and knowing what names mean. */
#include "base/doc.h"
#include "base/limits.h"
#include "base/mem.h"
#include <string.h>

struct member {
    char *name;
    char *text; /* NULL: none yet */
    size_t len;
    json_t *value; /* NULL: not parsed */
};

struct doc {
    struct doc *parent; /* NULL, or borrowed */
    struct member *members;
    size_t count, cap;
};

struct doc *doc_new(void)
{
    return mem_zalloc(sizeof(struct doc));
}

struct doc *doc_view(struct doc *parent)
{
    struct doc *doc = doc_new();
    doc->parent = parent;
    return doc;
}

static void member_clear(struct member *member)
{
    free(member->text);
    json_decref(member->value);
    member->text = NULL;
    member->len = 0;
    member->value = NULL;
}

void doc_free(struct doc *doc)
{
    if (!doc)
        return;
    for (size_t i = 0; i < doc->count; i++) {
        member_clear(&doc->members[i]);
        free(doc->members[i].name);
    }
    free(doc->members);
    free(doc);
}

/* The document's own member of that name, or NULL. */
static struct member *member_own(const struct doc *doc, const char *name)
{
    for (size_t i = 0; i < doc->count; i++)
        if (strcmp(doc->members[i].name, name) == 0)
            return &doc->members[i];
    return NULL;
}

/* The member that a reader sees: the view's own or the nearest parent's. */
static struct member *member_find(const struct doc *doc, const char *name)
{
    for (; doc; doc = doc->parent) {
        struct member *member = member_own(doc, name);
        if (member)
            return member;
    }
    return NULL;
}

/* The member to be set: emptied, or new at the end. */
static struct member *member_make(struct doc *doc, const char *name)
{
    struct member *member = member_own(doc, name);
    if (member) {
        member_clear(member);
        return member;
    }
    if (doc->count == doc->cap) {
        doc->cap = doc->cap ? doc->cap * 2 : 8;
        doc->members = mem_resize(doc->members, doc->cap, sizeof(*doc->members));
    }
    member = &doc->members[doc->count++];
    *member = (struct member){.name = mem_dup(name)};
    return member;
}

void doc_steal_text(struct doc *doc, const char *name, char *text, size_t len)
{
    struct member *member = member_make(doc, name);
    member->text = text;
    member->len = len;
}

void doc_set_text(struct doc *doc, const char *name, const char *text, size_t len)
{
    char *copy = mem_ndup(text, len); /* before member_make: `text` may be the old one */
    doc_steal_text(doc, name, copy, len);
}

void doc_steal_value(struct doc *doc, const char *name, json_t *value)
{
    member_make(doc, name)->value = value ? value : json_null();
}

void doc_remove(struct doc *doc, const char *name)
{
    struct member *member = member_own(doc, name);
    if (!member)
        return;
    member_clear(member);
    free(member->name);
    size_t at = (size_t)(member - doc->members);
    memmove(member, member + 1, (doc->count - at - 1) * sizeof(*member));
    doc->count--;
}

bool doc_has(const struct doc *doc, const char *name)
{
    return member_find(doc, name) != NULL;
}

int doc_member(struct doc *doc, const char *name, json_t **ret_value, struct error *err)
{
    struct member *member = member_find(doc, name);
    if (member && !member->value) {
        json_t *value = json_read(member->text, member->len, 0, err);
        if (!value) {
            if (err && !err->where[0])
                error_where(err, ".%s", name);
            return MR_E_BAD_RESPONSE;
        }
        member->value = value;
    }
    *ret_value = member ? member->value : NULL;
    return MR_OK;
}

const char *doc_text(struct doc *doc, const char *name, size_t *ret_len)
{
    struct member *member = member_find(doc, name);
    if (!member)
        return NULL;
    if (!member->text) {
        size_t len = 0;
        member->text = json_print(member->value, LIMIT_JOB_BYTES, &len, NULL);
        if (!member->text)
            return NULL;
        member->len = len;
    }
    if (ret_len)
        *ret_len = member->len;
    return member->text;
}

void doc_each(const struct doc *doc, void (*fn)(void *arg, const char *name), void *arg)
{
    for (const struct doc *at = doc; at; at = at->parent)
        for (size_t i = 0; i < at->count; i++)
            if (member_find(doc, at->members[i].name) == &at->members[i])
                fn(arg, at->members[i].name);
}

void doc_forget(struct doc *doc)
{
    for (; doc; doc = doc->parent)
        for (size_t i = 0; i < doc->count; i++) {
            struct member *member = &doc->members[i];
            if (member->text && member->value) {
                json_decref(member->value);
                member->value = NULL;
            }
        }
}

size_t doc_bytes(const struct doc *doc)
{
    size_t bytes = 0;
    for (size_t i = 0; i < doc->count; i++)
        bytes += doc->members[i].len;
    return bytes;
}
