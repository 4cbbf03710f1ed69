/* What the parser does at each step: it copies tokens into the text for jq, puts guards into it,
 * notes the names of the document that are read, and keeps the first error. */
#include "base/expr_parser.h"
#include <stdio.h>
#include <string.h>

/* Errors */

void parser_refuse_at(struct parser *p, size_t at, const char *hint, const char *format, ...)
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

int parser_shown(const struct token *token)
{
    return token->len < 40 ? (int)token->len : 40;
}

const char *parser_token(const struct parser *p)
{
    return p->scan.text + p->scan.token.at;
}

void parser_unexpected(struct parser *p)
{
    const struct token *token = &p->scan.token;
    if (token->kind == TOKEN_END)
        parser_refuse(p, NULL, "unexpected end");
    else if (token->kind == TOKEN_BAD && *parser_token(p) == '#')
        parser_refuse(p, NULL, "comments are not possible");
    else if (token->kind == TOKEN_BAD && ((unsigned char)*parser_token(p) & 0x80))
        parser_refuse(p, "names that are not plain letters are written .[\"NAME\"]",
                      "unexpected character");
    else if (token->kind == TOKEN_BAD && *parser_token(p) == '\'')
        parser_refuse(p, "strings have double quotes", "unexpected \"'\"");
    else if (scan_is(&p->scan, "?//"))
        parser_refuse(p, "put a space between ? and //", "unexpected \"?//\"");
    else
        parser_refuse(p, NULL, "unexpected \"%.*s\"", parser_shown(token), parser_token(p));
}

/* Moving on, and the text for jq */

void parser_copy_to(struct parser *p, size_t end)
{
    for (; p->copied < end; p->copied++) {
        char c = p->scan.text[p->copied];
        buf_add_char(&p->out, c == '\n' || c == '\r' || c == '\t' ? ' ' : c);
    }
}

void parser_advance(struct parser *p)
{
    parser_copy_to(p, p->scan.pos);
    scan_next(&p->scan);
}

void parser_insert(struct parser *p, size_t at, const char *text)
{
    size_t len = strlen(text), old = p->out.len;
    if (!buf_add(&p->out, text, len))
        return;
    memmove(p->out.data + at + len, p->out.data + at, old - at);
    memcpy(p->out.data + at, text, len);
}

/* A number as it stands needs no guard. */
static bool is_number(const char *text, size_t len)
{
    return len > 0 && strspn(text, "0123456789.") == len;
}

void parser_guard(struct parser *p, size_t start, const char *end)
{
    if (p->failed || is_number(buf_text(&p->out) + start, p->out.len - start))
        return;
    parser_insert(p, start, "(");
    buf_add_text(&p->out, end);
}

bool parser_at(const struct parser *p, const char *sign)
{
    return !p->failed && scan_is(&p->scan, sign);
}

bool parser_take(struct parser *p, const char *sign)
{
    if (!parser_at(p, sign))
        return false;
    parser_advance(p);
    return true;
}

void parser_expect(struct parser *p, const char *sign)
{
    if (!parser_take(p, sign))
        parser_unexpected(p);
}

/* What is read */

const char **parser_list_add(struct parser *p, const char **list, size_t *count, const char *text)
{
    const char **longer = arena_alloc(p->arena, (*count + 2) * sizeof(*longer));
    if (*count)
        memcpy(longer, list, *count * sizeof(*longer));
    longer[(*count)++] = text;
    return longer;
}

void parser_reads(struct parser *p, enum scope scope, const char *name, size_t len)
{
    if (scope != SCOPE_DOCUMENT)
        return;
    for (size_t i = 0; i < p->name_count; i++)
        if (strlen(p->expr->names[i]) == len && memcmp(p->expr->names[i], name, len) == 0)
            return;
    p->expr->names =
        parser_list_add(p, p->expr->names, &p->name_count, arena_ndup(p->arena, name, len));
}

void parser_reads_all(struct parser *p, enum scope scope)
{
    if (scope != SCOPE_DOCUMENT)
        return;
    p->expr->reads_all = true;
    parser_reads(p, scope, "*", 1);
}

bool parser_literal_before(const struct parser *p, const char *sign)
{
    struct scan ahead = p->scan;
    if (p->failed || ahead.token.kind != TOKEN_QUOTE || scan_string(&ahead) != '"')
        return false;
    scan_next(&ahead);
    return scan_is(&ahead, sign);
}

void parser_remember_variable(struct parser *p)
{
    if (p->variable_count == PARSER_VARIABLES_MAX)
        parser_refuse(p, NULL, "more than %d variables", PARSER_VARIABLES_MAX);
    else if (p->scan.token.kind == TOKEN_VARIABLE)
        p->variables[p->variable_count++] = p->scan.token;
    else
        parser_refuse(p, "only a name is possible here, as in `as $x`", "unexpected \"%.*s\"",
                      parser_shown(&p->scan.token), parser_token(p));
}

/* A variable may be read that was named before; whether it is in scope is for jq to say. */
void parser_check_variable(struct parser *p)
{
    const struct token *token = &p->scan.token;
    for (size_t i = 0; i < p->variable_count; i++)
        if (p->variables[i].len == token->len &&
            memcmp(p->scan.text + p->variables[i].at, parser_token(p), token->len) == 0)
            return;
    bool env = token->len == 4 && memcmp(parser_token(p), "$ENV", 4) == 0;
    parser_refuse(p, env ? "expressions see the job's document only" : "name it with `as` first",
                  "%s \"%.*s\"", env ? "there is no" : "unknown variable", parser_shown(token),
                  parser_token(p));
}
