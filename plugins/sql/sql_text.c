/* Reading a SQL statement without a database: its `:name` parameters, and whether it may be run
 * twice.
 *
 * A scanner gives words, numbers, parameters and single characters; strings ('…'), quoted names
 * ("…", `…`, […]) and comments come as one token or none, so nothing in them is taken for a
 * parameter. Whether a statement repeats is a judgement from its words, good enough for a warning.
 */
#include "sql.h"
#include <string.h>
#include <strings.h>

enum kind { END, WORD, QUOTED, STRING, PARAM, OTHER };

struct token {
    enum kind kind;
    const char *text;
    size_t len;
};

static int is_word_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           ((unsigned char)c & 0x80);
}

/* The end of a quoted token whose closing quote is doubled to stand for itself. */
static const char *quoted_end(const char *at, char close)
{
    for (at++; *at; at++)
        if (*at == close) {
            if (at[1] != close || close == ']')
                return at + 1;
            at++;
        }
    return at;
}

static const char *skip_blank(const char *at)
{
    for (;;) {
        if (*at && strchr(" \t\r\n\f", *at))
            at++;
        else if (at[0] == '-' && at[1] == '-')
            at += strcspn(at, "\n");
        else if (at[0] == '/' && at[1] == '*') {
            const char *end = strstr(at + 2, "*/");
            at = end ? end + 2 : at + strlen(at);
        } else
            return at;
    }
}

static struct token next_token(const char **at)
{
    const char *p = skip_blank(*at);
    struct token token = {OTHER, p, 1};
    if (!*p)
        token.kind = END, token.len = 0;
    else if (*p == '\'') {
        token.kind = STRING;
        token.len = (size_t)(quoted_end(p, '\'') - p);
    } else if (*p == '"' || *p == '`' || *p == '[') {
        token.kind = QUOTED;
        token.len = (size_t)(quoted_end(p, *p == '[' ? ']' : *p) - p);
    } else if (p[0] == ':' && p[1] == ':')
        token.len = 2;
    else if (*p == ':' && is_word_char(p[1])) {
        token.kind = PARAM;
        while (is_word_char(p[token.len]))
            token.len++;
    } else if (is_word_char(*p)) {
        token.kind = WORD;
        while (is_word_char(p[token.len]))
            token.len++;
    }
    *at = p + token.len;
    return token;
}

static int is_word(const struct token *token, const char *word)
{
    return token->kind == WORD && token->len == strlen(word) &&
           strncasecmp(token->text, word, token->len) == 0;
}

static int add_name(struct sql_text *ret, const struct token *token)
{
    size_t len = token->len - 1;
    for (uint32_t i = 0; i < ret->count; i++)
        if (strlen(ret->names[i]) == len && memcmp(ret->names[i], token->text + 1, len) == 0)
            return 1;
    if (ret->count == SQL_PARAMS_MAX || len >= SQL_NAME_MAX)
        return 0;
    memcpy(ret->names[ret->count], token->text + 1, len);
    ret->names[ret->count++][len] = 0;
    return 1;
}

/* What a statement's words say about it. */
struct words {
    int first; /* the verb: S select, I insert, R replace, U update, D delete, C create or drop, O
                */
    int conflict, if_exists, arithmetic, unique_id;
};

static int verb_of(const struct token *token)
{
    static const struct {
        const char *word;
        int verb;
    } verbs[] = {
        {"select", 'S'}, {"values", 'S'}, {"insert", 'I'}, {"replace", 'R'}, {"update", 'U'},
        {"delete", 'D'}, {"create", 'C'}, {"drop", 'C'},   {"alter", 'A'},
    };
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
        if (is_word(token, verbs[i].word))
            return verbs[i].verb;
    return 0;
}

/* Takes account of one token, given the two before it. */
static void note(struct words *words, const struct token *before, const struct token *token)
{
    int verb = verb_of(token);
    /* WITH … INSERT: the verb that changes something counts. */
    if (verb && (!words->first || (words->first == 'S' && strchr("IRUDCA", verb))) &&
        !(before[0].kind == WORD && words->first))
        words->first = verb;
    if (is_word(token, "conflict") ||
        (is_word(&before[0], "or") && (is_word(token, "ignore") || is_word(token, "replace"))))
        words->conflict = 1;
    if (is_word(&before[0], "if") && (is_word(token, "not") || is_word(token, "exists")))
        words->if_exists = 1;
    /* SET n = n + 1: a name after "=", then an operator. */
    if (token->kind == OTHER && strchr("+-*/|", *token->text) &&
        (before[0].kind == WORD || before[0].kind == QUOTED) && before[1].kind == OTHER &&
        *before[1].text == '=')
        words->arithmetic = 1;
}

static int judge_repeats(const struct words *words)
{
    switch (words->first) {
    case 'S':
    case 'R':
    case 'D':
        return 1;
    case 'I':
        return words->conflict && !words->arithmetic;
    case 'U':
        return !words->arithmetic;
    case 'C':
        return words->if_exists;
    case 'A':
        return 0;
    default:
        return 1; /* PRAGMA, ANALYZE, VACUUM and the like */
    }
}

enum sql_text_error sql_text_scan(const char *statement, struct sql_text *ret)
{
    struct words words = {0};
    struct token before[2] = {{END, "", 0}, {END, "", 0}};
    int depth_semicolon = 0;
    int any = 0;
    int trigger = 0;
    memset(ret, 0, sizeof(*ret));
    for (struct token token = next_token(&statement); token.kind != END;
         token = next_token(&statement)) {
        /* The body of a trigger holds statements of its own. */
        trigger |= words.first == 'C' && is_word(&token, "trigger");
        if (token.kind == OTHER && *token.text == ';' && !trigger) {
            depth_semicolon = any;
            continue;
        }
        if (depth_semicolon)
            return SQL_TEXT_SEVERAL;
        any = 1;
        if (token.kind == OTHER && strchr("?@$", *token.text))
            return SQL_TEXT_POSITIONAL;
        if (token.kind == PARAM && !add_name(ret, &token))
            return SQL_TEXT_TOO_MANY;
        note(&words, before, &token);
        before[1] = before[0];
        before[0] = token;
    }
    ret->reads_only = words.first == 'S';
    ret->repeats = judge_repeats(&words);
    return any ? SQL_TEXT_OK : SQL_TEXT_EMPTY;
}
