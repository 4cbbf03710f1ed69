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
#include "base/expr_parts.h"
#include "base/limits.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { DEPTH_MAX = 40, VARIABLES_MAX = 32 };

enum scope { SCOPE_DOCUMENT, SCOPE_INNER };

struct parser {
    struct scan scan;
    struct mr_expr *expr;
    struct arena *arena;
    struct error *err;
    struct buf out;
    size_t copied; /* of the source, up to here */
    size_t name_count, pattern_count, variable_count;
    struct token variables[VARIABLES_MAX];
    unsigned depth, brackets;
    bool in_reduce;
    bool each; /* the last term ended in `[]` */
    bool failed;
};

static void parse_pipe(struct parser *p, enum scope scope);
static bool parse_term(struct parser *p, enum scope scope);
static void parse_object(struct parser *p, enum scope scope);
static void parse_product(struct parser *p, enum scope scope);

/* Errors */

/* `at`: offset of what is wrong. */
__attribute__((format(printf, 4, 5))) static void
refuse_at(struct parser *p, size_t at, const char *hint, const char *format, ...)
{
    if (p->failed)
        return;
    p->failed = true;
    char message[300];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    error_set(p->err, MR_E_SCHEMA, "expression \"%s\": character %zu: %s", p->expr->shown, at + 1,
              message);
    if (hint)
        error_hint(p->err, "%s", hint);
}
#define refuse(p, hint, ...) refuse_at(p, (p)->scan.token.at, hint, __VA_ARGS__)

/* Shown length of a token in a message. */
static int shown(const struct token *token)
{
    return token->len < 40 ? (int)token->len : 40;
}

static const char *token_text(const struct parser *p)
{
    return p->scan.text + p->scan.token.at;
}

static void unexpected(struct parser *p)
{
    const struct token *token = &p->scan.token;
    if (token->kind == TOKEN_END)
        refuse(p, NULL, "unexpected end");
    else if (token->kind == TOKEN_BAD && *token_text(p) == '#')
        refuse(p, NULL, "comments are not possible");
    else if (token->kind == TOKEN_BAD && ((unsigned char)*token_text(p) & 0x80))
        refuse(p, "names that are not plain letters are written .[\"NAME\"]",
               "unexpected character");
    else if (token->kind == TOKEN_BAD && *token_text(p) == '\'')
        refuse(p, "strings have double quotes", "unexpected \"'\"");
    else if (scan_is(&p->scan, "?//"))
        refuse(p, "put a space between ? and //", "unexpected \"?//\"");
    else
        refuse(p, NULL, "unexpected \"%.*s\"", shown(token), token_text(p));
}

/* Moving on, and the text for jq */

/* Copies the source up to the current token (white space) or behind it. */
static void copy_to(struct parser *p, size_t end)
{
    for (; p->copied < end; p->copied++) {
        char c = p->scan.text[p->copied];
        buf_add_char(&p->out, c == '\n' || c == '\r' || c == '\t' ? ' ' : c);
    }
}

static void advance(struct parser *p)
{
    copy_to(p, p->scan.pos);
    scan_next(&p->scan);
}

/* Puts `text` into what has been written, at `at`. */
static void insert_at(struct parser *p, size_t at, const char *text)
{
    size_t len = strlen(text), old = p->out.len;
    if (!buf_add(&p->out, text, len))
        return;
    memmove(p->out.data + at + len, p->out.data + at, old - at);
    memcpy(p->out.data + at, text, len);
}

/* Wraps what has been written since `start` (of the length of `out`) in `( … |guard)`. */
static void guard(struct parser *p, size_t start, const char *end)
{
    if (p->failed)
        return;
    insert_at(p, start, "(");
    buf_add_text(&p->out, end);
}

static bool at_sign(const struct parser *p, const char *sign)
{
    return !p->failed && scan_is(&p->scan, sign);
}

static bool take(struct parser *p, const char *sign)
{
    if (!at_sign(p, sign))
        return false;
    advance(p);
    return true;
}

static void expect(struct parser *p, const char *sign)
{
    if (!take(p, sign))
        unexpected(p);
}

/* What is read */

static const char **list_add(struct parser *p, const char **list, size_t *count, const char *text)
{
    const char **longer = arena_alloc(p->arena, (*count + 2) * sizeof(*longer));
    if (*count)
        memcpy(longer, list, *count * sizeof(*longer));
    longer[(*count)++] = text;
    return longer;
}

static void reads(struct parser *p, enum scope scope, const char *name, size_t len)
{
    if (scope != SCOPE_DOCUMENT)
        return;
    for (size_t i = 0; i < p->name_count; i++)
        if (strlen(p->expr->names[i]) == len && memcmp(p->expr->names[i], name, len) == 0)
            return;
    p->expr->names = list_add(p, p->expr->names, &p->name_count, arena_ndup(p->arena, name, len));
}

static void reads_all(struct parser *p, enum scope scope)
{
    if (scope != SCOPE_DOCUMENT)
        return;
    p->expr->reads_all = true;
    reads(p, scope, "*", 1);
}

/* Strings: parses one, with the expressions in it. Returns true when it is a plain literal. The
 * quote is the current token. */
static bool parse_string(struct parser *p, enum scope scope)
{
    bool plain = true;
    for (;;) {
        char end = scan_string(&p->scan);
        if (end == '"') {
            advance(p);
            return plain;
        }
        if (end == 0) {
            refuse(p, "escapes are those of JSON; a line break is written \\n",
                   "a string that is not well-formed");
            return false;
        }
        plain = false;
        p->brackets++;
        advance(p);
        parse_pipe(p, scope);
        p->brackets--;
        if (!at_sign(p, ")")) {
            unexpected(p);
            return false;
        }
        copy_to(p, p->scan.pos); /* the string goes on right behind the bracket */
    }
}

/* A plain literal as the document's name: `."a b"` and `.["a b"]`. `at`: of its quote. */
static void reads_literal(struct parser *p, enum scope scope, size_t at, size_t end)
{
    struct error why = {0};
    json_hold json_t *value = json_read(p->scan.text + at, end - at, 1, &why);
    if (value)
        reads(p, scope, json_string_value(value), json_string_length(value));
    else
        refuse(p, NULL, "a string that is not well-formed");
}

/* Terms */

/* A string that is the current token, as a key of the input. */
static void parse_key_string(struct parser *p, enum scope scope)
{
    size_t at = p->scan.token.at;
    if (!parse_string(p, scope))
        reads_all(p, scope);
    else
        reads_literal(p, scope, at, p->copied);
}

/* Whether the current token begins a plain string with `sign` right behind it. */
static bool is_literal_before(const struct parser *p, const char *sign)
{
    struct scan ahead = p->scan;
    if (p->failed || ahead.token.kind != TOKEN_QUOTE || scan_string(&ahead) != '"')
        return false;
    scan_next(&ahead);
    return scan_is(&ahead, sign);
}

/* `[…]` behind a term, which begins at `start` of what has been written. Gives true for `[]`.
 * `on_input`: the term is `.` itself. */
static bool parse_index(struct parser *p, enum scope scope, size_t start, bool on_input)
{
    enum scope reading = on_input ? scope : SCOPE_INNER;
    struct scan ahead = p->scan;
    scan_next(&ahead);
    if (scan_is(&ahead, "]")) {
        guard(p, start, "|mr_each)");
        advance(p);
        advance(p);
        reads_all(p, reading);
        return true;
    }
    advance(p);
    p->brackets++;
    if (on_input && is_literal_before(p, "]")) {
        parse_key_string(p, scope);
    } else {
        reads_all(p, reading);
        copy_to(p, p->scan.token.at);
        size_t inside = p->out.len;
        bool plain = p->scan.token.kind == TOKEN_NUMBER || is_literal_before(p, "]");
        if (!at_sign(p, ":"))
            parse_pipe(p, scope);
        if (at_sign(p, "]") && !plain)
            guard(p, inside, "|mr_key)");
        if (take(p, ":") && !at_sign(p, "]"))
            parse_pipe(p, scope);
    }
    p->brackets--;
    expect(p, "]");
    return false;
}

/* `.a`, `."a"`, `[…]`, `?` behind a term, which begins at `start` of what has been written. Gives
 * true when the last of them is `[]`; `each`: whether the term itself ended so. */
static bool parse_suffixes(struct parser *p, enum scope scope, size_t start, bool each)
{
    while (!p->failed) {
        if (p->scan.token.kind == TOKEN_FIELD) {
            advance(p);
            each = false;
        } else if (at_sign(p, ".")) {
            size_t at = p->scan.token.at;
            advance(p);
            each = false;
            if (p->scan.token.kind == TOKEN_QUOTE)
                parse_string(p, scope);
            else
                refuse_at(p, at, at_sign(p, "[") ? "leave out the dot before the bracket" : NULL,
                          "unexpected \".\"");
        } else if (at_sign(p, "[")) {
            each = parse_index(p, scope, start, false);
        } else if (!take(p, "?")) {
            break;
        }
    }
    return each;
}

static void remember_variable(struct parser *p)
{
    if (p->variable_count == VARIABLES_MAX)
        refuse(p, NULL, "more than %d variables", VARIABLES_MAX);
    else if (p->scan.token.kind == TOKEN_VARIABLE)
        p->variables[p->variable_count++] = p->scan.token;
    else
        refuse(p, "only a name is possible here, as in `as $x`", "unexpected \"%.*s\"",
               shown(&p->scan.token), token_text(p));
}

/* A variable may be read that was named before; whether it is in scope is for jq to say. */
static void check_variable(struct parser *p)
{
    const struct token *token = &p->scan.token;
    for (size_t i = 0; i < p->variable_count; i++)
        if (p->variables[i].len == token->len &&
            memcmp(p->scan.text + p->variables[i].at, token_text(p), token->len) == 0)
            return;
    bool env = token->len == 4 && memcmp(token_text(p), "$ENV", 4) == 0;
    refuse(p, env ? "expressions see the job's document only" : "name it with `as` first",
           "%s \"%.*s\"", env ? "there is no" : "unknown variable", shown(token), token_text(p));
}

/* Number literals that a double cannot hold exactly are refused: jq would change them. */
static void check_number(struct parser *p)
{
    mem_auto char *text = mem_ndup(token_text(p), p->scan.token.len);
    double number = strtod(text, NULL);
    bool whole = strspn(text, "0123456789") == strlen(text);
    unsigned long long exact = whole ? strtoull(text, NULL, 10) : 0; /* ULLONG_MAX when larger */
    if (!isfinite(number) || exact > 9007199254740992ull)
        refuse(p, "write it as a string", "the number %.40s is too large for jq", text);
}

/* Calls */

/* The literal pattern that is the current token, noted to be tried at load. */
static void note_pattern(struct parser *p)
{
    struct scan ahead = p->scan;
    scan_string(&ahead);
    const char *pattern =
        arena_ndup(p->arena, p->scan.text + p->scan.token.at, ahead.pos - p->scan.token.at);
    p->expr->patterns = list_add(p, p->expr->patterns, &p->pattern_count, pattern);
}

static void parse_call(struct parser *p, enum scope scope)
{
    struct token name = p->scan.token;
    const char *text = token_text(p);
    if (!word_is_known(text, name.len)) {
        const char *nearest = word_nearest(text, name.len);
        char hint[200];
        snprintf(hint, sizeof(hint),
                 "%s%s%sonly functions that cannot hang or reach outside are allowed",
                 nearest ? "did you mean \"" : "", nearest ? nearest : "", nearest ? "\"? " : "");
        refuse(p, hint, "\"%.*s\" is not on the list of allowed jq functions", shown(&name), text);
        return;
    }
    copy_to(p, name.at);
    size_t start = p->out.len;
    advance(p);
    const struct word *one = word_find(text, name.len, 1);
    bool literals = true;
    unsigned arity = 0;
    if (take(p, "(")) {
        p->brackets++;
        do {
            bool plain = is_literal_before(p, ")") || is_literal_before(p, ";");
            bool empty = plain && p->scan.text[p->scan.token.at + 1] == '"';
            literals = literals && plain && !(empty && arity == 0);
            if (plain && arity == 0 && one && one->flags & WORD_PATTERN)
                note_pattern(p);
            bool inner = arity > 0 || (one && one->flags & WORD_INNER);
            parse_pipe(p, inner ? SCOPE_INNER : scope);
            arity++;
        } while (take(p, ";"));
        p->brackets--;
        expect(p, ")");
    }
    if (p->failed)
        return;
    const struct word *word = word_find(text, name.len, arity);
    if (!word) {
        refuse_at(p, name.at, NULL, "\"%.*s\" with %u argument%s is not allowed", shown(&name),
                  text, arity, arity == 1 ? "" : "s");
        return;
    }
    if (word->flags & WORD_LITERAL && !literals) {
        refuse_at(p, name.at, NULL, "\"%s\" takes a plain string that is not empty", word->name);
        return;
    }
    if (word->flags & WORD_GUARDED)
        insert_at(p, start, "mr_");
    if (!(word->flags & (WORD_READS_NOTHING | WORD_READS_ARGUMENT)))
        reads_all(p, scope);
}

/* `if C then A elif … else B end`, `if` taken. */
static void parse_if(struct parser *p, enum scope scope)
{
    p->brackets++;
    do {
        parse_pipe(p, scope);
        expect(p, "then");
        parse_pipe(p, scope);
    } while (take(p, "elif"));
    if (!p->failed && !at_sign(p, "else"))
        refuse(p, "write `else null end`, or what it should be", "an `if` without `else`");
    expect(p, "else");
    parse_pipe(p, scope);
    expect(p, "end");
    p->brackets--;
}

/* `reduce TERM[] as $x (START; UPDATE)`, `reduce` taken. Each step's value is kept within bounds.
 */
static void parse_reduce(struct parser *p, enum scope scope)
{
    if (p->in_reduce)
        refuse(p, NULL, "a `reduce` inside of another one is not allowed");
    p->each = false;
    if (!parse_term(p, scope))
        unexpected(p);
    if (!p->each)
        refuse(p, "as in `reduce .items[] as $x (0; . + $x.price)`",
               "`reduce` takes a path that ends in []");
    expect(p, "as");
    remember_variable(p);
    advance(p);
    expect(p, "(");
    p->brackets++;
    parse_pipe(p, scope);
    expect(p, ";");
    p->in_reduce = true;
    size_t start = p->out.len;
    parse_pipe(p, SCOPE_INNER);
    p->in_reduce = false;
    guard(p, start, "|mr_fit)");
    p->brackets--;
    expect(p, ")");
}

/* The value of an object's member: a term, or terms joined by pipes. */
static void parse_member_value(struct parser *p, enum scope scope)
{
    do {
        take(p, "-");
        if (!parse_term(p, scope))
            unexpected(p);
        scope = SCOPE_INNER;
    } while (take(p, "|"));
}

/* `{…}`, bracket taken. */
static void parse_object(struct parser *p, enum scope scope)
{
    p->brackets++;
    if (!at_sign(p, "}")) {
        do {
            struct token key = p->scan.token;
            const char *text = token_text(p);
            bool needs_value = false;
            if (key.kind == TOKEN_VARIABLE) {
                check_variable(p);
                advance(p);
            } else if (key.kind == TOKEN_WORD) {
                advance(p);
                if (!at_sign(p, ":"))
                    reads(p, scope, text, key.len);
            } else if (key.kind == TOKEN_QUOTE) {
                bool shorthand = is_literal_before(p, ",") || is_literal_before(p, "}");
                if (shorthand)
                    parse_key_string(p, scope);
                else if (!parse_string(p, scope) && !at_sign(p, ":"))
                    reads_all(p, scope);
            } else if (take(p, "(")) {
                parse_pipe(p, scope);
                expect(p, ")");
                needs_value = true;
            } else {
                unexpected(p);
            }
            if (take(p, ":"))
                parse_member_value(p, scope);
            else if (needs_value)
                unexpected(p);
        } while (take(p, ","));
    }
    p->brackets--;
    expect(p, "}");
}

/* A word that begins a term. False when none can begin with it. */
static bool parse_word(struct parser *p, enum scope scope)
{
    static const char *const inside[] = {"then", "elif", "else", "end", "as", "and", "or", "catch"};
    for (size_t i = 0; i < sizeof(inside) / sizeof(inside[0]); i++)
        if (at_sign(p, inside[i]))
            return false;
    if (word_is_refused(token_text(p), p->scan.token.len)) {
        refuse(p, NULL, "`%.*s` is not allowed in expressions", shown(&p->scan.token),
               token_text(p));
    } else if (take(p, "if")) {
        parse_if(p, scope);
    } else if (take(p, "reduce")) {
        parse_reduce(p, scope);
    } else if (take(p, "try")) {
        take(p, "-");
        if (!parse_term(p, scope))
            unexpected(p);
        if (take(p, "catch") && !parse_term(p, SCOPE_INNER))
            unexpected(p);
    } else {
        parse_call(p, scope);
    }
    return true;
}

/* A term and its suffixes. False, and nothing taken, when none begins here. */
static bool parse_term(struct parser *p, enum scope scope)
{
    struct token token = p->scan.token;
    bool each = false;
    if (p->failed || ++p->depth > DEPTH_MAX) {
        refuse(p, NULL, "nested too deeply");
        return true;
    }
    copy_to(p, token.at);
    size_t start = p->out.len;
    if (token.kind == TOKEN_FIELD) {
        reads(p, scope, token_text(p) + 1, token.len - 1);
        advance(p);
    } else if (token.kind == TOKEN_VARIABLE) {
        check_variable(p);
        advance(p);
    } else if (token.kind == TOKEN_NUMBER) {
        check_number(p);
        advance(p);
    } else if (token.kind == TOKEN_QUOTE) {
        parse_string(p, scope);
    } else if (token.kind == TOKEN_FORMAT) {
        if (!word_is_format(token_text(p), token.len))
            refuse(p, "allowed: @text @json @csv @tsv @html @uri @sh @base64 @base64d",
                   "unknown format \"%.*s\"", shown(&token), token_text(p));
        advance(p);
        if (p->scan.token.kind == TOKEN_QUOTE)
            parse_string(p, scope);
        else
            reads_all(p, scope);
    } else if (token.kind == TOKEN_WORD) {
        if (!parse_word(p, scope)) {
            p->depth--;
            return false;
        }
    } else if (take(p, ".")) {
        if (p->scan.token.kind == TOKEN_QUOTE)
            parse_key_string(p, scope);
        else if (at_sign(p, "["))
            each = parse_index(p, scope, start, true);
        else
            reads_all(p, scope);
    } else if (take(p, "(")) {
        p->brackets++;
        parse_pipe(p, scope);
        p->brackets--;
        expect(p, ")");
    } else if (take(p, "[")) {
        p->brackets++;
        if (!at_sign(p, "]"))
            parse_pipe(p, scope);
        p->brackets--;
        expect(p, "]");
    } else if (take(p, "{")) {
        parse_object(p, scope);
    } else {
        if (scan_is(&p->scan, ".."))
            refuse(p, NULL, "`..` is not allowed");
        p->depth--;
        return p->failed;
    }
    p->each = parse_suffixes(p, scope, start, each);
    p->depth--;
    return true;
}

/* Operators, from the tightest */

/* A term, or `TERM as $x | BODY`. */
static void parse_operand(struct parser *p, enum scope scope)
{
    if (take(p, "-")) {
        parse_product(p, scope);
        return;
    }
    if (!parse_term(p, scope)) {
        unexpected(p);
        return;
    }
    if (take(p, "as")) {
        remember_variable(p);
        advance(p);
        if (at_sign(p, "|")) {
            advance(p);
            parse_pipe(p, scope);
        } else {
            unexpected(p);
        }
    }
}

static const char *guard_of(const struct parser *p)
{
    if (at_sign(p, "*"))
        return "|mr_mul)";
    if (at_sign(p, "/"))
        return "|mr_num)";
    return at_sign(p, "%") ? "|mr_mod)" : NULL;
}

/* Operands of `* / %`. A guard goes around each, so that only numbers (and objects, which `*`
 * merges) come to the operator. `%` and `*` may stand in one row: an operand between two of them
 * has both guards. */
static void parse_product(struct parser *p, enum scope scope)
{
    const char *before = NULL;
    if (p->failed || ++p->depth > DEPTH_MAX) {
        refuse(p, NULL, "nested too deeply");
        return;
    }
    do {
        copy_to(p, p->scan.token.at);
        size_t start = p->out.len;
        parse_operand(p, scope);
        const char *after = guard_of(p);
        if (before)
            guard(p, start, before);
        if (after)
            guard(p, start, after);
        before = after;
    } while (take(p, "*") || take(p, "/") || take(p, "%"));
    p->depth--;
}

/* What `-` is between gets guards: it compares lists each with each. All that stands before it is
 * its left operand. */
static void parse_sum(struct parser *p, enum scope scope)
{
    copy_to(p, p->scan.token.at);
    size_t left = p->out.len, right = left;
    bool minus = false;
    for (;;) {
        copy_to(p, p->scan.token.at);
        right = p->out.len;
        parse_product(p, scope);
        if (minus)
            guard(p, right, "|mr_few)");
        minus = at_sign(p, "-");
        if (minus)
            guard(p, left, "|mr_few)");
        if (!take(p, "+") && !take(p, "-"))
            break;
    }
}

static void parse_comparison(struct parser *p, enum scope scope)
{
    static const char *const signs[] = {"==", "!=", "<", "<=", ">", ">="};
    parse_sum(p, scope);
    for (size_t i = 0; i < sizeof(signs) / sizeof(signs[0]); i++)
        if (take(p, signs[i])) {
            parse_sum(p, scope);
            return;
        }
}

static void parse_logic(struct parser *p, enum scope scope)
{
    do
        parse_comparison(p, scope);
    while (take(p, "and") || take(p, "or"));
}

static bool is_assignment(const struct parser *p)
{
    static const char *const signs[] = {"=", "|=", "+=", "-=", "*=", "/=", "%=", "//="};
    for (size_t i = 0; i < sizeof(signs) / sizeof(signs[0]); i++)
        if (at_sign(p, signs[i]))
            return true;
    return false;
}

static void parse_alternatives(struct parser *p, enum scope scope)
{
    parse_logic(p, scope);
    while (take(p, "//")) {
        p->expr->has_default |= p->brackets == 0;
        parse_logic(p, scope);
    }
    if (is_assignment(p))
        refuse(p, at_sign(p, "=") ? "to compare, write ==" : NULL, "`%.*s` is not allowed",
               shown(&p->scan.token), token_text(p));
}

static void parse_pipe(struct parser *p, enum scope scope)
{
    if (p->failed || ++p->depth > DEPTH_MAX) {
        refuse(p, NULL, "nested too deeply");
        return;
    }
    for (;;) {
        parse_alternatives(p, scope);
        if (take(p, "|"))
            scope = SCOPE_INNER;
        else if (!take(p, ","))
            break;
    }
    p->depth--;
}

bool expr_parse(struct mr_expr *expr, struct arena *arena, struct error *err)
{
    size_t len = strlen(expr->text);
    struct parser parser = {.expr = expr, .arena = arena, .err = err}, *p = &parser;
    buf_init(&p->out, 16 * LIMIT_EXPR_BYTES);
    expr->names = list_add(p, NULL, &p->name_count, NULL);
    expr->patterns = list_add(p, NULL, &p->pattern_count, NULL);
    p->name_count = p->pattern_count = 0;
    scan_start(&p->scan, expr->text, len < LIMIT_EXPR_BYTES ? len : LIMIT_EXPR_BYTES);
    if (len > LIMIT_EXPR_BYTES)
        refuse(p, NULL, "longer than %u bytes", LIMIT_EXPR_BYTES);
    parse_pipe(p, SCOPE_DOCUMENT);
    if (!p->failed && p->scan.token.kind != TOKEN_END)
        unexpected(p);
    if (!p->failed && p->out.failed)
        refuse(p, NULL, "too long once guarded");
    if (!p->failed)
        expr->program = arena_ndup(arena, buf_text(&p->out), p->out.len);
    buf_done(&p->out);
    return !p->failed;
}
