/* Tokens of jq 1.6, and the end of a template.
 *
 * The scanner follows jq's own (maximal munch, the same words and signs), so that what the parser
 * takes for a string, a name or a sign is the same to jq; that is what makes the list of allowed
 * words hold. Where jq is looser than anybody needs, this one refuses: comments, control characters
 * in strings, names with `::`.
 *
 * scan_template_end looks for `}}` with a small stack of open brackets and strings. It does not
 * know the grammar: the parser then refuses what is not an expression. */
#include "base/expr_parts.h"
#include <string.h>

enum { OPEN_MAX = 200 };

void scan_start(struct scan *scan, const char *text, size_t len)
{
    *scan = (struct scan){.text = text, .len = len};
    scan_next(scan);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* Length of `[a-zA-Z_][a-zA-Z_0-9]*` at `at`, 0 when there is none. */
static size_t word_len(const struct scan *scan, size_t at)
{
    if (at >= scan->len || !is_letter(scan->text[at]))
        return 0;
    size_t end = at;
    while (end < scan->len && (is_letter(scan->text[end]) || is_digit(scan->text[end])))
        end++;
    return end - at;
}

static size_t digits_end(const struct scan *scan, size_t at)
{
    while (at < scan->len && is_digit(scan->text[at]))
        at++;
    return at;
}

/* `([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?` */
static size_t number_len(const struct scan *scan, size_t at)
{
    size_t end = digits_end(scan, at);
    bool whole = end > at;
    if (end < scan->len && scan->text[end] == '.') {
        size_t fraction = digits_end(scan, end + 1);
        if (!whole && fraction == end + 1)
            return 0;
        end = fraction;
    }
    if (end == at)
        return 0;
    if (end < scan->len && (scan->text[end] == 'e' || scan->text[end] == 'E')) {
        size_t digits = end + 1;
        if (digits < scan->len && (scan->text[digits] == '+' || scan->text[digits] == '-'))
            digits++;
        size_t exponent = digits_end(scan, digits);
        if (exponent > digits)
            end = exponent;
    }
    return end - at;
}

static size_t sign_len(const struct scan *scan, size_t at)
{
    static const char *const signs[] = {
        "//=", "?//", "!=", "==", "//", "|=", "+=", "-=", "*=", "/=", "%=", "<=", ">=", "..", NULL};
    for (size_t i = 0; signs[i]; i++) {
        size_t len = strlen(signs[i]);
        if (len <= scan->len - at && memcmp(scan->text + at, signs[i], len) == 0)
            return len;
    }
    return scan->text[at] && strchr(".?=;,:|+-*/%<>()[]{}", scan->text[at]) ? 1 : 0;
}

void scan_next(struct scan *scan)
{
    size_t at = scan->pos;
    while (at < scan->len && is_space(scan->text[at]))
        at++;
    struct token token = {.kind = TOKEN_END, .at = at};
    if (at < scan->len) {
        char c = scan->text[at];
        size_t len;
        if (c == '.' && (len = word_len(scan, at + 1)) > 0)
            token.kind = TOKEN_FIELD, token.len = len + 1;
        else if ((len = number_len(scan, at)) > 0)
            token.kind = TOKEN_NUMBER, token.len = len;
        else if ((len = word_len(scan, at)) > 0)
            token.kind = TOKEN_WORD, token.len = len;
        else if (c == '$' && (len = word_len(scan, at + 1)) > 0)
            token.kind = TOKEN_VARIABLE, token.len = len + 1;
        else if (c == '@' && (len = word_len(scan, at + 1)) > 0)
            token.kind = TOKEN_FORMAT, token.len = len + 1;
        else if (c == '"')
            token.kind = TOKEN_QUOTE, token.len = 1;
        else if ((len = sign_len(scan, at)) > 0)
            token.kind = TOKEN_SIGN, token.len = len;
        else
            token.kind = TOKEN_BAD, token.len = 1;
    }
    scan->token = token;
    scan->pos = token.at + token.len;
}

bool scan_is(const struct scan *scan, const char *sign_or_word)
{
    const struct token *token = &scan->token;
    return (token->kind == TOKEN_SIGN || token->kind == TOKEN_WORD) &&
           strlen(sign_or_word) == token->len &&
           memcmp(scan->text + token->at, sign_or_word, token->len) == 0;
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Bytes of the JSON escape at `at`, which is a backslash (RFC 8259 section 7); 0 when it is none.
 */
static size_t escape_len(const struct scan *scan, size_t at)
{
    if (at + 1 >= scan->len || !scan->text[at + 1])
        return 0;
    if (strchr("\"\\/bfnrt", scan->text[at + 1]))
        return 2;
    if (scan->text[at + 1] != 'u' || scan->len - at < 6)
        return 0;
    for (size_t i = at + 2; i < at + 6; i++)
        if (!is_hex(scan->text[i]))
            return 0;
    return 6;
}

char scan_string(struct scan *scan)
{
    while (scan->pos < scan->len) {
        char c = scan->text[scan->pos];
        if (c == '"') {
            scan->pos++;
            return '"';
        }
        if (c == '\\' && scan->pos + 1 < scan->len && scan->text[scan->pos + 1] == '(') {
            scan->pos += 2;
            return '(';
        }
        size_t step = c == '\\' ? escape_len(scan, scan->pos) : 1;
        if (step == 0 || (unsigned char)c < 0x20)
            return 0;
        scan->pos += step;
    }
    return 0;
}

size_t scan_template_end(const char *text, size_t len)
{
    char open[OPEN_MAX]; /* '(' '[' '{', '"' for a string, 'i' for `\(` in one */
    size_t depth = 0;
    for (size_t i = 0; i < len; i++) {
        char c = text[i], top = depth ? open[depth - 1] : 0, want = 0, push = 0;
        if (top == '"') {
            if (c == '"')
                depth--;
            else if (c == '\\' && i + 1 < len && text[++i] == '(')
                push = 'i';
        } else if (c == '"' || c == '(' || c == '[' || c == '{') {
            push = c;
        } else if (c == '}' && depth == 0 && i + 1 < len && text[i + 1] == '}') {
            return i;
        } else if (c == ')') {
            want = top == 'i' ? 'i' : '(';
        } else if (c == ']') {
            want = '[';
        } else if (c == '}') {
            want = '{';
        }
        if (want && top != want)
            return SIZE_MAX;
        if (want)
            depth--;
        if (push && depth == OPEN_MAX)
            return SIZE_MAX;
        if (push)
            open[depth++] = push;
    }
    return SIZE_MAX;
}
