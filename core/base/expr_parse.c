/* The grammar of the expressions that are accepted: a subset of jq 1.6's, by recursive descent.
 *
 * What is not understood here never reaches jq. The parser accepts a little more than jq does (jq
 * then refuses it at load, with its own words), but never takes for harmless what jq would read
 * otherwise: tokens are jq's own, and the whole text is read to its end with every bracket closed,
 * so that expressions can be put side by side into one program.
 *
 * On the way three things are made:
 *
 * - The text for jq: the tokens as they stand, with the operands of `* / %` wrapped in guards, some
 *   functions replaced by guarded ones, and the update of a `reduce` kept within bounds.
 * - The names of the document that are read. `scope` says what `.` is: the document, or something
 *   else. Behind a pipe and in the arguments of `map` it is something else; where the document as a
 *   whole is used (`.`, `keys`, `.[…]`), everything is read ("*").
 * - Whether a default is given: a `//` outside of all brackets.
 *
 * The first error stands. */
#include "base/expr_parser.h"
#include <string.h>

static void parse_product(struct parser *p, enum scope scope);

/* Operators, from the tightest */

/* A term, or `TERM as $x | BODY`. */
static void parse_operand(struct parser *p, enum scope scope)
{
    if (parser_take(p, "-")) {
        parse_product(p, scope);
        return;
    }
    if (!parse_term(p, scope)) {
        parser_unexpected(p);
        return;
    }
    if (parser_take(p, "as")) {
        parser_remember_variable(p);
        parser_advance(p);
        if (parser_at(p, "|")) {
            parser_advance(p);
            parse_pipe(p, scope);
        } else {
            parser_unexpected(p);
        }
    }
}

static const char *guard_of(const struct parser *p)
{
    if (parser_at(p, "*"))
        return "|mr_mul)";
    if (parser_at(p, "/"))
        return "|mr_num)";
    return parser_at(p, "%") ? "|mr_mod)" : NULL;
}

/* Operands of `* / %`. A guard goes around each, so that only numbers (and objects, which `*`
 * merges) come to the operator. `%` and `*` may stand in one row: an operand between two of them
 * has both guards. */
static void parse_product(struct parser *p, enum scope scope)
{
    const char *before = NULL;
    if (p->failed || ++p->depth > PARSER_DEPTH_MAX) {
        parser_refuse(p, NULL, "nested too deeply");
        return;
    }
    do {
        parser_copy_to(p, p->scan.token.at);
        size_t start = p->out.len;
        parse_operand(p, scope);
        const char *after = guard_of(p);
        if (before)
            parser_guard(p, start, before);
        if (after)
            parser_guard(p, start, after);
        before = after;
    } while (parser_take(p, "*") || parser_take(p, "/") || parser_take(p, "%"));
    p->depth--;
}

/* What `-` is between gets guards: it compares lists each with each. All that stands before it is
 * its left operand. */
static void parse_sum(struct parser *p, enum scope scope)
{
    parser_copy_to(p, p->scan.token.at);
    size_t left = p->out.len, right;
    bool minus = false;
    for (;;) {
        parser_copy_to(p, p->scan.token.at);
        right = p->out.len;
        parse_product(p, scope);
        if (minus)
            parser_guard(p, right, "|mr_few)");
        minus = parser_at(p, "-");
        if (minus)
            parser_guard(p, left, "|mr_few)");
        if (!parser_take(p, "+") && !parser_take(p, "-"))
            break;
    }
}

static void parse_comparison(struct parser *p, enum scope scope)
{
    static const char *const signs[] = {"==", "!=", "<", "<=", ">", ">="};
    parse_sum(p, scope);
    for (size_t i = 0; i < sizeof(signs) / sizeof(signs[0]); i++)
        if (parser_take(p, signs[i])) {
            parse_sum(p, scope);
            return;
        }
}

static void parse_logic(struct parser *p, enum scope scope)
{
    do
        parse_comparison(p, scope);
    while (parser_take(p, "and") || parser_take(p, "or"));
}

static bool is_assignment(const struct parser *p)
{
    static const char *const signs[] = {"=", "|=", "+=", "-=", "*=", "/=", "%=", "//="};
    for (size_t i = 0; i < sizeof(signs) / sizeof(signs[0]); i++)
        if (parser_at(p, signs[i]))
            return true;
    return false;
}

static void parse_alternatives(struct parser *p, enum scope scope)
{
    parse_logic(p, scope);
    while (parser_take(p, "//")) {
        p->expr->has_default |= p->brackets == 0;
        parse_logic(p, scope);
    }
    if (is_assignment(p))
        parser_refuse(p, parser_at(p, "=") ? "to compare, write ==" : NULL, "`%.*s` is not allowed",
                      parser_shown(&p->scan.token), parser_token(p));
}

void parse_pipe(struct parser *p, enum scope scope)
{
    if (p->failed || ++p->depth > PARSER_DEPTH_MAX) {
        parser_refuse(p, NULL, "nested too deeply");
        return;
    }
    for (;;) {
        parse_alternatives(p, scope);
        if (parser_take(p, "|"))
            scope = SCOPE_INNER;
        else if (!parser_take(p, ","))
            break;
    }
    p->depth--;
}

bool expr_parse(struct mr_expr *expr, struct arena *arena, struct error *err)
{
    size_t len = strlen(expr->text);
    struct parser parser = {.expr = expr, .arena = arena, .err = err}, *p = &parser;
    buf_init(&p->out, 16 * LIMIT_EXPR_BYTES);
    expr->names = parser_list_add(p, NULL, &p->name_count, NULL);
    expr->patterns = parser_list_add(p, NULL, &p->pattern_count, NULL);
    p->name_count = p->pattern_count = 0;
    scan_start(&p->scan, expr->text, len < LIMIT_EXPR_BYTES ? len : LIMIT_EXPR_BYTES);
    if (len > LIMIT_EXPR_BYTES)
        parser_refuse(p, NULL, "longer than %u bytes", LIMIT_EXPR_BYTES);
    parse_pipe(p, SCOPE_DOCUMENT);
    if (!p->failed && p->scan.token.kind != TOKEN_END)
        parser_unexpected(p);
    if (!p->failed && p->out.failed)
        parser_refuse(p, NULL, "too long once guarded");
    if (!p->failed)
        expr->program = arena_ndup(arena, buf_text(&p->out), p->out.len);
    buf_done(&p->out);
    return !p->failed;
}
