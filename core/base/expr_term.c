/* Terms: what stands between operators. Paths and what follows them, literals, strings with the
 * expressions in them, arrays and objects. */
#include "base/expr_parser.h"
#include <math.h>
#include <string.h>

static void parse_object(struct parser *p, enum scope scope);

/* Strings: parses one, with the expressions in it. Returns true when it is a plain literal. The
 * quote is the current token. */
static bool parse_string(struct parser *p, enum scope scope)
{
    bool plain = true;
    for (;;) {
        char end = scan_string(&p->scan);
        if (end == '"') {
            parser_advance(p);
            return plain;
        }
        if (end == 0) {
            parser_refuse(p, "escapes are those of JSON; a line break is written \\n",
                          "a string that is not well-formed");
            return false;
        }
        plain = false;
        p->brackets++;
        parser_advance(p);
        parse_pipe(p, scope);
        p->brackets--;
        if (!parser_at(p, ")")) {
            parser_unexpected(p);
            return false;
        }
        parser_copy_to(p, p->scan.pos); /* the string goes on right behind the bracket */
    }
}

/* A plain literal as the document's name: `."a b"` and `.["a b"]`. `at`: of its quote. */
static void reads_literal(struct parser *p, enum scope scope, size_t at, size_t end)
{
    struct error why = {0};
    json_hold json_t *value = json_read(p->scan.text + at, end - at, 1, &why);
    if (value)
        parser_reads(p, scope, json_string_value(value), json_string_length(value));
    else
        parser_refuse(p, NULL, "a string that is not well-formed");
}

/* Terms */

/* A string that is the current token, as a key of the input. */
static void parse_key_string(struct parser *p, enum scope scope)
{
    size_t at = p->scan.token.at;
    if (!parse_string(p, scope))
        parser_reads_all(p, scope);
    else
        reads_literal(p, scope, at, p->copied);
}

/* `[…]` behind a term, which begins at `start` of what has been written. Gives true for `[]`.
 * `on_input`: the term is `.` itself. */
static bool parse_index(struct parser *p, enum scope scope, size_t start, bool on_input)
{
    enum scope reading = on_input ? scope : SCOPE_INNER;
    struct scan ahead = p->scan;
    scan_next(&ahead);
    if (scan_is(&ahead, "]")) {
        parser_guard(p, start, "|mr_each)");
        parser_advance(p);
        parser_advance(p);
        parser_reads_all(p, reading);
        return true;
    }
    parser_advance(p);
    p->brackets++;
    if (on_input && parser_literal_before(p, "]")) {
        parse_key_string(p, scope);
    } else {
        parser_reads_all(p, reading);
        parser_copy_to(p, p->scan.token.at);
        size_t inside = p->out.len;
        bool plain = p->scan.token.kind == TOKEN_NUMBER || parser_literal_before(p, "]");
        if (!parser_at(p, ":"))
            parse_pipe(p, scope);
        if (parser_at(p, "]") && !plain)
            parser_guard(p, inside, "|mr_key)");
        if (parser_take(p, ":") && !parser_at(p, "]"))
            parse_pipe(p, scope);
    }
    p->brackets--;
    parser_expect(p, "]");
    return false;
}

/* `.a`, `."a"`, `[…]`, `?` behind a term, which begins at `start` of what has been written. Gives
 * true when the last of them is `[]`; `each`: whether the term itself ended so. */
static bool parse_suffixes(struct parser *p, enum scope scope, size_t start, bool each)
{
    while (!p->failed) {
        if (p->scan.token.kind == TOKEN_FIELD) {
            parser_advance(p);
            each = false;
        } else if (parser_at(p, ".")) {
            size_t at = p->scan.token.at;
            parser_advance(p);
            each = false;
            if (p->scan.token.kind == TOKEN_QUOTE)
                parse_string(p, scope);
            else
                parser_refuse_at(p, at,
                                 parser_at(p, "[") ? "leave out the dot before the bracket" : NULL,
                                 "unexpected \".\"");
        } else if (parser_at(p, "[")) {
            each = parse_index(p, scope, start, false);
        } else if (!parser_take(p, "?")) {
            break;
        }
    }
    return each;
}

/* Number literals that a double cannot hold exactly are refused: jq would change them. */
static void check_number(struct parser *p)
{
    mem_auto char *text = mem_ndup(parser_token(p), p->scan.token.len);
    double number = strtod(text, NULL);
    bool whole = strspn(text, "0123456789") == strlen(text);
    unsigned long long exact = whole ? strtoull(text, NULL, 10) : 0; /* ULLONG_MAX when larger */
    if (!isfinite(number) || exact > 9007199254740992ull)
        parser_refuse(p, "write it as a string", "the number %.40s is too large for jq", text);
}

/* The value of an object's member: a term, or terms joined by pipes. */
static void parse_member_value(struct parser *p, enum scope scope)
{
    do {
        parser_take(p, "-");
        if (!parse_term(p, scope))
            parser_unexpected(p);
        scope = SCOPE_INNER;
    } while (parser_take(p, "|"));
}

/* `{…}`, bracket taken. */
static void parse_object(struct parser *p, enum scope scope)
{
    p->brackets++;
    if (!parser_at(p, "}")) {
        do {
            struct token key = p->scan.token;
            const char *text = parser_token(p);
            bool needs_value = false;
            if (key.kind == TOKEN_VARIABLE) {
                parser_check_variable(p);
                parser_advance(p);
            } else if (key.kind == TOKEN_WORD) {
                parser_advance(p);
                if (!parser_at(p, ":"))
                    parser_reads(p, scope, text, key.len);
            } else if (key.kind == TOKEN_QUOTE) {
                bool shorthand = parser_literal_before(p, ",") || parser_literal_before(p, "}");
                if (shorthand)
                    parse_key_string(p, scope);
                else if (!parse_string(p, scope) && !parser_at(p, ":"))
                    parser_reads_all(p, scope);
            } else if (parser_take(p, "(")) {
                parse_pipe(p, scope);
                parser_expect(p, ")");
                needs_value = true;
            } else {
                parser_unexpected(p);
            }
            if (parser_take(p, ":"))
                parse_member_value(p, scope);
            else if (needs_value)
                parser_unexpected(p);
        } while (parser_take(p, ","));
    }
    p->brackets--;
    parser_expect(p, "}");
}

/* A term and its suffixes. False, and nothing taken, when none begins here. */
bool parse_term(struct parser *p, enum scope scope)
{
    struct token token = p->scan.token;
    bool each = false;
    if (p->failed || ++p->depth > PARSER_DEPTH_MAX) {
        parser_refuse(p, NULL, "nested too deeply");
        return true;
    }
    parser_copy_to(p, token.at);
    size_t start = p->out.len;
    if (token.kind == TOKEN_FIELD) {
        parser_reads(p, scope, parser_token(p) + 1, token.len - 1);
        parser_advance(p);
    } else if (token.kind == TOKEN_VARIABLE) {
        parser_check_variable(p);
        parser_advance(p);
    } else if (token.kind == TOKEN_NUMBER) {
        check_number(p);
        parser_advance(p);
    } else if (token.kind == TOKEN_QUOTE) {
        parse_string(p, scope);
    } else if (token.kind == TOKEN_FORMAT) {
        if (!word_is_format(parser_token(p), token.len))
            parser_refuse(p, "allowed: @text @json @csv @tsv @html @uri @sh @base64 @base64d",
                          "unknown format \"%.*s\"", parser_shown(&token), parser_token(p));
        parser_advance(p);
        if (p->scan.token.kind == TOKEN_QUOTE)
            parse_string(p, scope);
        else
            parser_reads_all(p, scope);
    } else if (token.kind == TOKEN_WORD) {
        if (!parse_word(p, scope)) {
            p->depth--;
            return false;
        }
    } else if (parser_take(p, ".")) {
        if (p->scan.token.kind == TOKEN_QUOTE)
            parse_key_string(p, scope);
        else if (parser_at(p, "["))
            each = parse_index(p, scope, start, true);
        else
            parser_reads_all(p, scope);
    } else if (parser_take(p, "(")) {
        p->brackets++;
        parse_pipe(p, scope);
        p->brackets--;
        parser_expect(p, ")");
    } else if (parser_take(p, "[")) {
        p->brackets++;
        if (!parser_at(p, "]"))
            parse_pipe(p, scope);
        p->brackets--;
        parser_expect(p, "]");
    } else if (parser_take(p, "{")) {
        parse_object(p, scope);
    } else {
        if (scan_is(&p->scan, ".."))
            parser_refuse(p, NULL, "`..` is not allowed");
        p->depth--;
        return p->failed;
    }
    p->each = parse_suffixes(p, scope, start, each);
    p->depth--;
    return true;
}
