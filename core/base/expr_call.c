/* Words that begin a term: functions by the list (expr_words.c), `if`, `reduce`, `try`. */
#include "base/expr_parser.h"
#include <stdio.h>
#include <string.h>

/* Calls */

/* The literal pattern that is the current token, noted to be tried at load. */
static void note_pattern(struct parser *p)
{
    struct scan ahead = p->scan;
    scan_string(&ahead);
    const char *pattern =
        arena_ndup(p->arena, p->scan.text + p->scan.token.at, ahead.pos - p->scan.token.at);
    p->expr->patterns = parser_list_add(p, p->expr->patterns, &p->pattern_count, pattern);
}

static void parse_call(struct parser *p, enum scope scope)
{
    struct token name = p->scan.token;
    const char *text = parser_token(p);
    if (!word_is_known(text, name.len)) {
        const char *nearest = word_nearest(text, name.len);
        char hint[200];
        if (nearest != NULL)
            snprintf(hint, sizeof(hint), "did you mean \"%s\"? ", nearest);
        else
            snprintf(hint, sizeof(hint), "a value of the document is read with a dot: .%.*s; ",
                     parser_shown(&name), text);
        size_t len = strlen(hint);
        snprintf(hint + len, sizeof(hint) - len,
                 "only functions that cannot hang or reach outside are allowed");
        parser_refuse(p, hint, "\"%.*s\" is not on the list of allowed jq functions",
                      parser_shown(&name), text);
        return;
    }
    parser_copy_to(p, name.at);
    size_t start = p->out.len;
    parser_advance(p);
    const struct word *one = word_find(text, name.len, 1);
    bool literals = true;
    unsigned arity = 0;
    if (parser_take(p, "(")) {
        p->brackets++;
        do {
            bool plain = parser_literal_before(p, ")") || parser_literal_before(p, ";");
            bool empty = plain && p->scan.text[p->scan.token.at + 1] == '"';
            literals = literals && plain && !(empty && arity == 0);
            if (plain && arity == 0 && one && one->flags & WORD_PATTERN)
                note_pattern(p);
            bool inner = arity > 0 || (one && one->flags & WORD_INNER);
            parse_pipe(p, inner ? SCOPE_INNER : scope);
            arity++;
        } while (parser_take(p, ";"));
        p->brackets--;
        parser_expect(p, ")");
    }
    if (p->failed)
        return;
    const struct word *word = word_find(text, name.len, arity);
    if (!word) {
        parser_refuse_at(p, name.at, NULL, "\"%.*s\" with %u argument%s is not allowed",
                         parser_shown(&name), text, arity, arity == 1 ? "" : "s");
        return;
    }
    if (word->flags & WORD_LITERAL && !literals) {
        parser_refuse_at(p, name.at, NULL, "\"%s\" takes a plain string that is not empty",
                         word->name);
        return;
    }
    if (word->flags & WORD_GUARDED)
        parser_insert(p, start, "mr_");
    if (!(word->flags & (WORD_READS_NOTHING | WORD_READS_ARGUMENT)))
        parser_reads_all(p, scope);
}

/* `if C then A elif … else B end`, `if` taken. */
static void parse_if(struct parser *p, enum scope scope)
{
    p->brackets++;
    do {
        parse_pipe(p, scope);
        parser_expect(p, "then");
        parse_pipe(p, scope);
    } while (parser_take(p, "elif"));
    if (!p->failed && !parser_at(p, "else"))
        parser_refuse(p, "write `else null end`, or what it should be", "an `if` without `else`");
    parser_expect(p, "else");
    parse_pipe(p, scope);
    parser_expect(p, "end");
    p->brackets--;
}

/* `reduce TERM[] as $x (START; UPDATE)`, `reduce` taken. Each step's value is kept within bounds.
 */
static void parse_reduce(struct parser *p, enum scope scope)
{
    if (p->in_reduce)
        parser_refuse(p, NULL, "a `reduce` inside of another one is not allowed");
    p->each = false;
    if (!parse_term(p, scope))
        parser_unexpected(p);
    if (!p->each)
        parser_refuse(p, "as in `reduce .items[] as $x (0; . + $x.price)`",
                      "`reduce` takes a path that ends in []");
    parser_expect(p, "as");
    parser_remember_variable(p);
    parser_advance(p);
    parser_expect(p, "(");
    p->brackets++;
    parse_pipe(p, scope);
    parser_expect(p, ";");
    p->in_reduce = true;
    size_t start = p->out.len;
    parse_pipe(p, SCOPE_INNER);
    p->in_reduce = false;
    parser_guard(p, start, "|mr_fit)");
    p->brackets--;
    parser_expect(p, ")");
}

/* A word that begins a term. False when none can begin with it. */
bool parse_word(struct parser *p, enum scope scope)
{
    static const char *const inside[] = {"then", "elif", "else", "end", "as", "and", "or", "catch"};
    for (size_t i = 0; i < sizeof(inside) / sizeof(inside[0]); i++)
        if (parser_at(p, inside[i]))
            return false;
    if (word_is_refused(parser_token(p), p->scan.token.len)) {
        parser_refuse(p, NULL, "`%.*s` is not allowed in expressions", parser_shown(&p->scan.token),
                      parser_token(p));
    } else if (parser_take(p, "if")) {
        parse_if(p, scope);
    } else if (parser_take(p, "reduce")) {
        parse_reduce(p, scope);
    } else if (parser_take(p, "try")) {
        parser_take(p, "-");
        if (!parse_term(p, scope))
            parser_unexpected(p);
        if (parser_take(p, "catch") && !parse_term(p, SCOPE_INNER))
            parser_unexpected(p);
    } else {
        parse_call(p, scope);
    }
    return true;
}
