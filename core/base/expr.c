/* The set of a pipeline's expressions: handles, compilation, evaluation.
 *
 * Every expression is parsed when it is added (expr_parse.c), so that what is not allowed is
 * refused with its place. Those that need no jq (expr_path.c) are ready at once; the others wait
 * for expr_set_compile, which makes one jq program of them, and starts no jq when there is none.
 * When jq refuses the program, each expression is compiled alone to find those at fault. Regular
 * expressions given to test() are tried once on an empty text, so that a broken one is found at
 * load.
 *
 * The set owns everything: handles lie in its arena, JSON constants in an array of references. */
#include "base/expr_parts.h"
#include <stdio.h>
#include <string.h>

enum { SHOWN_BYTES = 60 };

struct expr_set {
    struct arena arena;
    json_t *held;             /* an array: references that end with the set */
    struct mr_expr **waiting; /* for jq */
    size_t waiting_count, waiting_cap;
    struct jq_program *program;
};

static void (*trampoline)(void (*fn)(void *arg), void *arg);

void expr_set_trampoline(void (*run)(void (*fn)(void *arg), void *arg))
{
    trampoline = run;
}

static void run_deep(void (*fn)(void *arg), void *arg)
{
    if (trampoline)
        trampoline(fn, arg);
    else
        fn(arg);
}

struct expr_set *expr_set_new(void)
{
    struct expr_set *set = mem_zalloc(sizeof(*set));
    arena_init(&set->arena);
    set->held = json_array();
    return set;
}

void expr_set_free(struct expr_set *set)
{
    if (!set)
        return;
    jq_program_close(set->program);
    json_decref(set->held);
    free(set->waiting);
    arena_done(&set->arena);
    free(set);
}

struct arena *expr_set_arena(struct expr_set *set)
{
    return &set->arena;
}

json_t *expr_set_hold(struct expr_set *set, json_t *value)
{
    json_array_append(set->held, value);
    return value;
}

/* Adding */

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* The beginning of an expression on one line, for messages. */
static const char *shorten(struct arena *arena, const char *text, size_t len)
{
    size_t kept = len;
    if (len > SHOWN_BYTES)
        for (kept = SHOWN_BYTES; kept > 0 && ((unsigned char)text[kept] & 0xc0) == 0x80;)
            kept--;
    char shown[SHOWN_BYTES + 8];
    snprintf(shown, sizeof(shown), "%.*s%s", (int)kept, text, kept < len ? "…" : "");
    for (char *c = shown; *c; c++)
        if (is_space(*c))
            *c = ' ';
    return arena_ndup(arena, shown, strlen(shown));
}

/* Copies an error into a report. */
static void report_error(struct report *report, const char *file, const char *pointer,
                         const struct error *err)
{
    struct error *item = report_add(report, file, pointer, "%s", err->message);
    error_hint(item, "%s", err->hint);
    error_detail(item, "%s", err->detail);
}

struct mr_expr *expr_make(struct expr_set *set, const char *text, size_t len, struct report *report,
                          const char *file, const char *pointer)
{
    while (len > 0 && is_space(*text))
        text++, len--;
    while (len > 0 && is_space(text[len - 1]))
        len--;
    if (len == 0 || memchr(text, 0, len)) {
        report_add(report, file, pointer,
                   len ? "an expression may not contain a NUL character"
                       : "an expression is empty");
        return NULL;
    }
    struct error why = {0};
    struct mr_expr *expr = arena_alloc(&set->arena, sizeof(*expr));
    expr->set = set;
    expr->text = arena_ndup(&set->arena, text, len);
    expr->shown = shorten(&set->arena, text, len);
    expr->file = file ? arena_ndup(&set->arena, file, strlen(file)) : NULL;
    expr->pointer = pointer ? arena_ndup(&set->arena, pointer, strlen(pointer)) : NULL;
    if (!expr_parse(expr, &set->arena, &why)) {
        report_error(report, file, pointer, &why);
        return NULL;
    }
    expr->is_native = native_parse(expr->text, len, &set->arena, set->held, &expr->native);
    if (expr->is_native)
        return expr;
    if (set->waiting_count == set->waiting_cap) {
        set->waiting_cap = set->waiting_cap ? set->waiting_cap * 2 : 16;
        set->waiting = mem_resize(set->waiting, set->waiting_cap, sizeof(*set->waiting));
    }
    expr->index = set->waiting_count;
    set->waiting[set->waiting_count++] = expr;
    return expr;
}

const mr_expr *expr_add(struct expr_set *set, const char *text, struct report *report,
                        const char *file, const char *pointer)
{
    if (strncmp(text + strspn(text, " \t\r\n"), "{{", 2) == 0) {
        struct error *err =
            report_add(report, file, pointer, "an expression has no {{ }} around it");
        error_hint(err, "write the jq expression itself, as in .rule != null");
        return NULL;
    }
    return expr_make(set, text, strlen(text), report, file, pointer);
}

/* Compiling */

struct compiling {
    const char *const *texts;
    size_t count;
    struct buf said;
    struct jq_program *program;
};

static void compile(void *arg)
{
    struct compiling *c = arg;
    buf_init(&c->said, 64 << 10);
    c->program = jq_program_open(c->texts, c->count, &c->said);
}

/* The first line of what jq says, without what is about shells and lines. */
static void tidy(const char *said, char *ret, size_t size)
{
    static const char *const noise[] = {" at <top-level>", " (Unix shell quoting issues?)"};
    if (strncmp(said, "jq: error: ", 11) == 0)
        said += 11;
    snprintf(ret, size, "%.*s", (int)strcspn(said, "\n"), said);
    for (size_t i = 0; i < sizeof(noise) / sizeof(noise[0]); i++) {
        char *at = strstr(ret, noise[i]);
        if (at && i == 0)
            *at = '\0';
        else if (at)
            memmove(at, at + strlen(noise[i]), strlen(at + strlen(noise[i])) + 1);
    }
}

/* Compiles each expression alone and reports those that jq refuses. */
static void find_refused(struct expr_set *set, struct report *report, const char *said)
{
    size_t found = 0;
    char message[300];
    for (size_t i = 0; i < set->waiting_count; i++) {
        const struct mr_expr *expr = set->waiting[i];
        struct compiling alone = {.texts = (const char *const[]){expr->program}, .count = 1};
        run_deep(compile, &alone);
        if (!alone.program) {
            tidy(buf_text(&alone.said), message, sizeof(message));
            struct error *err = report_add(report, expr->file, expr->pointer,
                                           "expression \"%s\": %s", expr->shown, message);
            error_detail(err, "%s", buf_text(&alone.said));
            found++;
        }
        jq_program_close(alone.program);
        buf_done(&alone.said);
    }
    tidy(said, message, sizeof(message));
    if (found == 0)
        report_add(report, NULL, NULL, "the expressions cannot be compiled together: %s", message);
}

static struct jq_program *compile_all(struct expr_set *set, struct report *report)
{
    const char **texts = mem_zalloc((set->waiting_count + 1) * sizeof(*texts));
    for (size_t i = 0; i < set->waiting_count; i++)
        texts[i] = set->waiting[i]->program;
    struct compiling all = {.texts = texts, .count = set->waiting_count};
    run_deep(compile, &all);
    if (!all.program)
        find_refused(set, report, buf_text(&all.said));
    buf_done(&all.said);
    free(texts);
    return all.program;
}

/* Evaluating */

struct evaluation {
    struct jq_program *program;
    const struct mr_expr *expr;
    size_t index;
    struct doc *doc;
    json_t *value;
    bool several;
    struct error *err;
    int rc;
};

static void evaluate(void *arg)
{
    struct evaluation *e = arg;
    e->rc = jq_program_run(e->program, e->expr, e->index, e->doc, &e->value, &e->several, e->err);
}

/* Tries every literal pattern on an empty text, in a program of their own. */
static bool check_patterns(struct expr_set *set, struct report *report)
{
    struct arena arena;
    arena_init(&arena);
    size_t count = 0;
    for (size_t i = 0; i < set->waiting_count; i++)
        for (const char **pattern = set->waiting[i]->patterns; *pattern; pattern++)
            count++;
    const char **texts = arena_alloc(&arena, (count + 1) * sizeof(*texts));
    const struct mr_expr **owners = arena_alloc(&arena, (count + 1) * sizeof(struct mr_expr *));
    count = 0;
    for (size_t i = 0; i < set->waiting_count; i++)
        for (const char **pattern = set->waiting[i]->patterns; *pattern; pattern++) {
            mem_auto char *text = mem_format("\"\" | test(%s)", *pattern);
            owners[count] = set->waiting[i];
            texts[count++] = arena_ndup(&arena, text, strlen(text));
        }
    bool ok = true;
    struct compiling patterns = {.texts = texts, .count = count};
    if (count > 0)
        run_deep(compile, &patterns);
    struct doc *empty = doc_new();
    for (size_t i = 0; i < count && patterns.program; i++) {
        struct error why = {0};
        struct mr_expr expr = *owners[i];
        expr.names = (const char *[]){NULL};
        expr.reads_all = false;
        struct evaluation e = {
            .program = patterns.program, .expr = &expr, .index = i, .doc = empty, .err = &why};
        run_deep(evaluate, &e);
        json_decref(e.value);
        if (e.rc == MR_OK)
            continue;
        report_error(report, owners[i]->file, owners[i]->pointer, &why);
        ok = false;
    }
    doc_free(empty);
    jq_program_close(patterns.program);
    buf_done(&patterns.said);
    arena_done(&arena);
    return ok;
}

bool expr_set_compile(struct expr_set *set, struct report *report, const char *file)
{
    (void)file; /* each expression has the file that it was added with */
    jq_program_close(set->program);
    set->program = NULL;
    if (set->waiting_count == 0)
        return true;
    set->program = compile_all(set, report);
    return set->program && check_patterns(set, report);
}

void expr_place(struct error *err, const char *file, const char *pointer)
{
    bool both = file && pointer && *pointer;
    if (err && !err->where[0])
        error_where(err, "%s%s%s", file ? file : "", both ? ": " : "", pointer ? pointer : "");
}

int expr_results(const struct mr_expr *expr, struct doc *doc, json_t **ret_value, bool *ret_several,
                 struct error *err)
{
    int rc;
    if (expr->is_native) {
        *ret_several = false;
        rc = native_eval(&expr->native, expr->shown, doc, ret_value, err);
    } else if (!expr->set->program) {
        rc = error_set(err, MR_E_INTERNAL, "expression \"%s\" was not compiled", expr->shown);
    } else {
        struct evaluation e = {.program = expr->set->program,
                               .expr = expr,
                               .index = expr->index,
                               .doc = doc,
                               .err = err};
        run_deep(evaluate, &e);
        rc = e.rc;
        if (rc == MR_OK) {
            *ret_value = e.value;
            *ret_several = e.several;
        }
    }
    if (rc != MR_OK)
        expr_place(err, expr->file, expr->pointer);
    return rc;
}

int expr_eval(const mr_expr *expr, struct doc *doc, json_t **ret_value, struct error *err)
{
    json_t *value = NULL;
    bool several = false;
    int rc = expr_results(expr, doc, &value, &several, err);
    if (rc != MR_OK)
        return rc;
    if (value && !several) {
        *ret_value = value;
        return MR_OK;
    }
    json_decref(value);
    rc = error_set(err, MR_E_SCHEMA, "expression \"%s\" gives %s, not one", expr->shown,
                   several ? "several results" : "no result");
    expr_place(err, expr->file, expr->pointer);
    return rc;
}

int expr_test(const mr_expr *expr, struct doc *doc, bool *ret_true, struct error *err)
{
    json_t *value = NULL;
    int rc = expr_eval(expr, doc, &value, err);
    if (rc != MR_OK)
        return rc;
    *ret_true = !json_is_null(value) && !json_is_false(value);
    json_decref(value);
    return MR_OK;
}

void expr_names(const mr_expr *expr, void (*fn)(void *arg, const char *name), void *arg)
{
    for (const char **name = expr->names; *name; name++)
        fn(arg, *name);
}

const json_t *expr_get(struct doc *doc, const char *path)
{
    const json_t *found = NULL;
    json_t *value = NULL, *whole = NULL;
    json_hold json_t *held = json_array();
    struct native native = {0};
    struct arena arena;
    arena_init(&arena);
    bool is_path = native_parse(path, strlen(path), &arena, held, &native) &&
                   native.operand_count == 1 && !native.operands[0].literal &&
                   native.operands[0].path.count > 0;
    if (is_path && path_walk(&native.operands[0].path, path, doc, &value, &whole, NULL) == MR_OK &&
        !json_is_null(value))
        found = value;
    arena_done(&arena);
    return found;
}
