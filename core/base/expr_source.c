/* A number as its source has it: `1.50` is not `1.5` in an address or a prompt.
 *
 * jansson keeps a real as a double. When one is put into longer text, it is looked up again in the
 * text of its member, which has been parsed before and is therefore known to be valid JSON (RFC
 * 8259): values are skipped without being understood. Where that does not work (a member without
 * text, an index from the end) the caller prints the shortest form. */
#include "base/expr_parts.h"
#include <string.h>

struct cursor {
    const char *at, *end;
};

static void skip_space(struct cursor *c)
{
    while (c->at < c->end && strchr(" \t\r\n", *c->at))
        c->at++;
}

/* Steps over a string whose opening quote is at hand. */
static void skip_string(struct cursor *c)
{
    for (c->at++; c->at < c->end && *c->at != '"'; c->at++)
        if (*c->at == '\\')
            c->at++;
    c->at++;
}

static void skip_value(struct cursor *c)
{
    unsigned depth = 0;
    skip_space(c);
    while (c->at < c->end) {
        char ch = *c->at;
        if (ch == '"') {
            skip_string(c);
        } else if (ch == '{' || ch == '[') {
            depth++;
            c->at++;
        } else if (ch == '}' || ch == ']') {
            if (depth == 0)
                return;
            depth--;
            c->at++;
        } else if (depth == 0) {
            while (c->at < c->end && !strchr(",]} \t\r\n", *c->at))
                c->at++;
            return;
        } else {
            c->at++;
            continue;
        }
        if (depth == 0)
            return;
    }
}

/* Takes `sign` when it is next. */
static bool take(struct cursor *c, char sign)
{
    skip_space(c);
    if (c->at >= c->end || *c->at != sign)
        return false;
    c->at++;
    return true;
}

/* Whether the string from `from` to `to`, quotes included, is the key. */
static bool is_key(const char *from, const char *to, const struct path_step *step)
{
    size_t len = (size_t)(to - from);
    if (len >= 2 && !memchr(from, '\\', len))
        return len - 2 == step->key_len && memcmp(from + 1, step->key, step->key_len) == 0;
    json_hold json_t *key = json_read(from, len, 1, NULL);
    return key && strcmp(json_string_value(key), step->key) == 0;
}

static bool enter_object(struct cursor *c, const struct path_step *step)
{
    if (!take(c, '{'))
        return false;
    do {
        skip_space(c);
        if (c->at >= c->end || *c->at != '"')
            return false;
        const char *key = c->at;
        skip_string(c);
        bool found = is_key(key, c->at, step);
        if (!take(c, ':'))
            return false;
        if (found)
            return true;
        skip_value(c);
    } while (take(c, ','));
    return false;
}

static bool enter_array(struct cursor *c, const struct path_step *step)
{
    if (step->index < 0 || !take(c, '['))
        return false;
    for (json_int_t i = 0; i < step->index; i++) {
        skip_value(c);
        if (!take(c, ','))
            return false;
    }
    return true;
}

bool source_number(struct doc *doc, const struct path *path, struct buf *buf)
{
    if (path->count == 0 || !path->steps[0].key)
        return false;
    size_t len = 0;
    const char *text = doc_text(doc, path->steps[0].key, &len);
    if (!text)
        return false;
    struct cursor cursor = {.at = text, .end = text + len};
    for (size_t i = 1; i < path->count; i++) {
        const struct path_step *step = &path->steps[i];
        if (step->key ? !enter_object(&cursor, step) : !enter_array(&cursor, step))
            return false;
    }
    skip_space(&cursor);
    const char *start = cursor.at;
    skip_value(&cursor);
    size_t number = (size_t)(cursor.at - start);
    if (number == 0 || number > 400 || cursor.at > cursor.end || !strchr("-0123456789", *start))
        return false;
    return buf_add(buf, start, number);
}
