/* Templates: a JSON value whose strings hold `{{ expression }}`.
 *
 * When it is added, the value becomes a tree of nodes: what holds no template at all is one
 * constant, however large; a string that is exactly one template is an expression whose type is
 * kept; a string with text around is a row of parts. A literal in braces, `{{ "{{" }}`, is text
 * from then on. Rendering builds values, never JSON text, so that nothing has to be escaped and no
 * value is read as a template again. Keys of objects are taken as they are. Constant arrays and
 * objects are copied, since what is rendered may be changed by its owner. */
#include "base/expr_parts.h"
#include "base/limits.h"
#include <string.h>

enum { DEPTH_MAX = 2 * LIMIT_JSON_DEPTH };

struct part {
    const char *text; /* when there is no expression */
    size_t len;
    const struct mr_expr *expr;
};

enum node_kind { NODE_CONSTANT, NODE_ARRAY, NODE_OBJECT, NODE_VALUE, NODE_TEXT };

struct node {
    enum node_kind kind;
    json_t *constant;
    const struct mr_expr *expr; /* VALUE */
    struct part *parts;         /* TEXT */
    struct node *children;      /* ARRAY, OBJECT */
    const char **keys;          /* OBJECT */
    size_t count;
    const char *pointer; /* VALUE, TEXT */
};

struct mr_template {
    struct expr_set *set;
    const char *file;
    uint32_t flags;
    struct node root;
    const char **names; /* NULL-ended */
    size_t name_count;
};

/* Adding */

struct builder {
    struct mr_template *tpl;
    struct expr_set *set;
    struct report *report;
    const char *file;
    struct buf pointer;
    bool ok;
};

static void add_name(void *arg, const char *name)
{
    struct mr_template *tpl = arg;
    for (size_t i = 0; i < tpl->name_count; i++)
        if (strcmp(tpl->names[i], name) == 0)
            return;
    const char **names =
        arena_alloc(expr_set_arena(tpl->set), (tpl->name_count + 2) * sizeof(*names));
    if (tpl->name_count)
        memcpy(names, tpl->names, tpl->name_count * sizeof(*names));
    names[tpl->name_count++] = name;
    tpl->names = names;
}

/* The literal that an expression is, or NULL. */
static json_t *literal_of(const struct mr_expr *expr)
{
    return expr->is_native && expr->native.operand_count == 1 ? expr->native.operands[0].literal
                                                              : NULL;
}

/* A growing row of parts; grown parts lie in the arena and are given up with it. */
static void add_part(struct builder *b, struct node *node, struct part part)
{
    struct part *last = node->count ? &node->parts[node->count - 1] : NULL;
    if (!part.expr && part.len == 0)
        return;
    struct arena *arena = expr_set_arena(b->set);
    if (last && !last->expr && !part.expr) { /* two texts are one */
        mem_auto char *both = mem_alloc(last->len + part.len + 1);
        memcpy(both, last->text, last->len);
        memcpy(both + last->len, part.text, part.len);
        last->len += part.len;
        last->text = arena_ndup(arena, both, last->len);
        return;
    }
    if ((node->count & (node->count - 1)) == 0) { /* 0, 1, 2, 4, 8 …: full */
        struct part *parts =
            arena_alloc(arena, (node->count ? node->count * 2 : 1) * sizeof(*parts));
        if (node->count)
            memcpy(parts, node->parts, node->count * sizeof(*parts));
        node->parts = parts;
    }
    node->parts[node->count++] = part;
}

/* Cuts a string into parts. False when something was reported. */
static bool cut(struct builder *b, struct node *node, const char *text, size_t len)
{
    struct arena *arena = expr_set_arena(b->set);
    const char *pointer = buf_text(&b->pointer), *end = text + len;
    bool ok = true;
    while (text < end) {
        const char *open = memmem(text, (size_t)(end - text), "{{", 2);
        size_t plain = (size_t)((open ? open : end) - text);
        add_part(b, node, (struct part){.text = arena_ndup(arena, text, plain), .len = plain});
        if (!open)
            break;
        const char *inside = open + 2;
        size_t inside_len = scan_template_end(inside, (size_t)(end - inside));
        if (inside_len == SIZE_MAX) {
            struct error *err = report_add(
                b->report, b->file, pointer,
                "the {{ at character %zu has no }} that ends it outside of strings and "
                "brackets",
                node->count && len ? (size_t)(open - (end - len)) + 1 : (size_t)(open - text) + 1);
            error_hint(err, "for braces that are text write {{ \"{{\" }}");
            return false;
        }
        const struct mr_expr *expr =
            expr_make(b->set, inside, inside_len, b->report, b->file, pointer);
        text = inside + inside_len + 2;
        if (!expr) {
            ok = false;
            continue;
        }
        expr_names(expr, add_name, b->tpl);
        json_t *literal = literal_of(expr);
        bool whole = open == end - len && text == end;
        if (json_is_string(literal) && !whole)
            add_part(b, node,
                     (struct part){.text = json_string_value(literal),
                                   .len = json_string_length(literal)});
        else
            add_part(b, node, (struct part){.expr = expr});
        if (whole)
            node->kind = NODE_VALUE;
    }
    return ok;
}

static struct node constant(struct builder *b, const json_t *value)
{
    return (struct node){.kind = NODE_CONSTANT,
                         .constant = expr_set_hold(b->set, (json_t *)(uintptr_t)value)};
}

static struct node build_string(struct builder *b, const json_t *value)
{
    struct node node = {.kind = NODE_TEXT};
    if (!cut(b, &node, json_string_value(value), json_string_length(value))) {
        b->ok = false;
        return node;
    }
    if (node.kind == NODE_VALUE) {
        node.expr = node.parts[0].expr;
        json_t *literal = literal_of(node.expr);
        if (literal)
            return constant(b, literal);
    } else if (node.count == 0) {
        return constant(b, value);
    } else if (node.count == 1 && !node.parts[0].expr) {
        json_hold json_t *text = json_stringn(node.parts[0].text, node.parts[0].len);
        return constant(b, text);
    }
    node.pointer = arena_ndup(expr_set_arena(b->set), buf_text(&b->pointer), b->pointer.len);
    return node;
}

static struct node build(struct builder *b, const json_t *value, unsigned depth);

static struct node build_child(struct builder *b, const json_t *value, const char *key,
                               size_t index, unsigned depth)
{
    size_t before = b->pointer.len;
    if (key)
        json_pointer_push(&b->pointer, key);
    else
        json_pointer_push_index(&b->pointer, index);
    struct node node = build(b, value, depth + 1);
    b->pointer.failed = false;
    b->pointer.len = before;
    if (b->pointer.data)
        b->pointer.data[before] = '\0';
    return node;
}

static struct node build_container(struct builder *b, const json_t *value, unsigned depth)
{
    struct arena *arena = expr_set_arena(b->set);
    bool object = json_is_object(value), changes = false;
    size_t count = object ? json_object_size(value) : json_array_size(value), i = 0;
    struct node node = {.kind = object ? NODE_OBJECT : NODE_ARRAY, .count = count};
    node.children = arena_alloc(arena, (count + 1) * sizeof(*node.children));
    if (object) {
        node.keys = arena_alloc(arena, (count + 1) * sizeof(*node.keys));
        const char *key;
        json_t *member;
        json_object_foreach ((json_t *)(uintptr_t)value, key, member) {
            node.keys[i] = arena_ndup(arena, key, strlen(key));
            node.children[i] = build_child(b, member, key, 0, depth);
            changes |= node.children[i++].kind != NODE_CONSTANT;
        }
    } else {
        for (; i < count; i++) {
            node.children[i] = build_child(b, json_array_get(value, i), NULL, i, depth);
            changes |= node.children[i].kind != NODE_CONSTANT;
        }
    }
    if (changes)
        return node;
    /* Strings below may have become others ({{ "{{" }}), so the constant is made of the nodes. */
    json_hold json_t *made = object ? json_object() : json_array();
    for (i = 0; i < count; i++) {
        if (object)
            json_object_set(made, node.keys[i], node.children[i].constant);
        else
            json_array_append(made, node.children[i].constant);
    }
    return constant(b, made);
}

static struct node build(struct builder *b, const json_t *value, unsigned depth)
{
    if (depth > DEPTH_MAX) {
        report_add(b->report, b->file, buf_text(&b->pointer), "nested deeper than %d levels",
                   DEPTH_MAX);
        b->ok = false;
        return constant(b, json_null());
    }
    if (json_is_string(value))
        return build_string(b, value);
    if (json_is_array(value) || json_is_object(value))
        return build_container(b, value, depth);
    return constant(b, value);
}

const mr_template *expr_add_template(struct expr_set *set, const json_t *value, uint32_t flags,
                                     struct report *report, const char *file, const char *pointer)
{
    struct arena *arena = expr_set_arena(set);
    struct mr_template *tpl = arena_alloc(arena, sizeof(*tpl));
    tpl->set = set;
    tpl->flags = flags;
    tpl->file = file ? arena_ndup(arena, file, strlen(file)) : NULL;
    tpl->names = arena_alloc(arena, sizeof(*tpl->names));
    struct builder builder = {.tpl = tpl, .set = set, .report = report, .file = file, .ok = true};
    buf_init(&builder.pointer, 4096);
    buf_add_text(&builder.pointer, pointer ? pointer : "");
    tpl->root = build(&builder, value, 0);
    buf_done(&builder.pointer);
    return builder.ok ? tpl : NULL;
}

void expr_template_names(const mr_template *tpl, void (*fn)(void *arg, const char *name), void *arg)
{
    for (size_t i = 0; i < tpl->name_count; i++)
        fn(arg, tpl->names[i]);
}

bool expr_template_is_constant(const mr_template *tpl)
{
    return tpl->root.kind == NODE_CONSTANT;
}

/* Rendering */

struct renderer {
    const struct mr_template *tpl;
    struct doc *doc;
    struct error *err;
    bool missing; /* of the string at hand: a part, and that is allowed */
};

__attribute__((format(printf, 3, 4))) static int fail(struct renderer *r, const struct node *node,
                                                      const char *format, ...)
{
    char message[300];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    int rc = error_set(r->err, MR_E_SCHEMA, "%s", message);
    expr_place(r->err, r->tpl->file, node->pointer);
    return rc;
}

/* Evaluates one expression and applies the flags to what it gives. In a string with text around it
 * (`inside`) nothing may be missing. *ret_value is NULL, and r->missing set, when a lenient
 * template misses something. */
static int part_value(struct renderer *r, const struct node *node, const struct mr_expr *expr,
                      bool inside, json_t **ret_value)
{
    uint32_t flags = r->tpl->flags;
    bool several = false;
    json_hold json_t *value = NULL;
    int rc = expr_results(expr, r->doc, &value, &several, r->err);
    if (rc != MR_OK)
        return rc;
    if (several)
        return fail(r, node, "expression \"%s\" gives several results, not one", expr->shown);

    bool null = !value || json_is_null(value);
    bool empty = json_is_string(value) && json_string_length(value) == 0;
    bool bad = !value || (flags & MR_NOT_EMPTY && (null || empty));
    if (inside)
        bad |= null || (empty && !expr->has_default);
    if (bad && flags & MR_LENIENT) {
        r->missing = true;
        *ret_value = NULL;
        return MR_OK;
    }
    if (bad) {
        const char *what = !value ? "no result" : null ? "null" : "an empty text";
        rc = fail(r, node, "expression \"%s\" gives %s%s", expr->shown, what,
                  inside ? ", but text stands around it" : "");
        if (r->err && flags & MR_NOT_EMPTY)
            error_hint(r->err, "a value is needed here");
        else if (r->err)
            error_hint(r->err,
                       "make sure that it is there, or give a default: {{ %.80s // \"…\" }}",
                       expr->shown);
        return rc;
    }
    if (flags & MR_NO_COLON && json_is_string(value) &&
        memchr(json_string_value(value), ':', json_string_length(value)))
        return fail(r, node, "expression \"%s\" gives text with a colon, which ids are made with",
                    expr->shown);
    *ret_value = json_incref(value);
    return MR_OK;
}

/* Appends a value as it stands in longer text. */
static void print_part(struct renderer *r, const struct mr_expr *expr, const json_t *value,
                       struct buf *text)
{
    const struct operand *operand =
        expr->is_native && expr->native.operand_count == 1 ? &expr->native.operands[0] : NULL;
    if (json_is_string(value))
        buf_add(text, json_string_value(value), json_string_length(value));
    else if (!json_is_real(value) || !operand || !source_number(r->doc, &operand->path, text))
        json_print_to(value, text);
}

static int render_text(struct renderer *r, const struct node *node, json_t **ret_value)
{
    buf_auto struct buf text;
    buf_init(&text, LIMIT_JOB_BYTES);
    for (size_t i = 0; i < node->count; i++) {
        const struct part *part = &node->parts[i];
        if (!part->expr) {
            buf_add(&text, part->text, part->len);
            continue;
        }
        json_hold json_t *value = NULL;
        int rc = part_value(r, node, part->expr, true, &value);
        if (rc != MR_OK)
            return rc;
        if (r->missing) {
            r->missing = false;
            *ret_value = json_null();
            return MR_OK;
        }
        print_part(r, part->expr, value, &text);
    }
    if (text.failed)
        return fail(r, node, "the text is larger than %u bytes", LIMIT_JOB_BYTES);
    *ret_value = json_stringn_nocheck(buf_text(&text), text.len); /* made of valid pieces */
    return MR_OK;
}

static int render_value(struct renderer *r, const struct node *node, json_t **ret_value)
{
    json_t *value = NULL;
    int rc = part_value(r, node, node->expr, false, &value);
    if (rc != MR_OK)
        return rc;
    r->missing = false;
    *ret_value = value ? value : json_null();
    return MR_OK;
}

static int render(struct renderer *r, const struct node *node, json_t **ret_value);

static int render_container(struct renderer *r, const struct node *node, json_t **ret_value)
{
    bool object = node->kind == NODE_OBJECT;
    json_t *made = object ? json_object() : json_array();
    for (size_t i = 0; i < node->count; i++) {
        json_t *child = NULL;
        int rc = render(r, &node->children[i], &child);
        if (rc != MR_OK) {
            json_decref(made);
            return rc;
        }
        if (object)
            json_object_set_new(made, node->keys[i], child);
        else
            json_array_append_new(made, child);
    }
    *ret_value = made;
    return MR_OK;
}

static int render(struct renderer *r, const struct node *node, json_t **ret_value)
{
    switch (node->kind) {
    case NODE_CONSTANT:
        *ret_value = json_is_array(node->constant) || json_is_object(node->constant)
                         ? json_deep_copy(node->constant)
                         : json_incref(node->constant);
        return MR_OK;
    case NODE_ARRAY:
    case NODE_OBJECT:
        return render_container(r, node, ret_value);
    case NODE_VALUE:
        return render_value(r, node, ret_value);
    case NODE_TEXT:
        return render_text(r, node, ret_value);
    }
    return MR_E_INTERNAL;
}

int expr_render(const mr_template *tpl, struct doc *doc, json_t **ret_value, struct error *err)
{
    struct renderer renderer = {.tpl = tpl, .doc = doc, .err = err};
    return render(&renderer, &tpl->root, ret_value);
}
