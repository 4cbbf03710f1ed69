/* What the files of the expressions' parser share; nobody else includes it.
 *
 *   expr_parse.c   operators, and the way in
 *   expr_term.c    terms: paths, strings, arrays, objects
 *   expr_call.c    functions, if, reduce, try
 *   expr_parser.c  moving on, the text for jq, the names that are read, errors */
#pragma once

#include "base/expr_parts.h"
#include "base/limits.h"

enum { PARSER_DEPTH_MAX = 40, PARSER_VARIABLES_MAX = 32 };

/* What `.` is where something stands: the document, or something else. */
enum scope { SCOPE_DOCUMENT, SCOPE_INNER };

struct parser {
    struct scan scan;
    struct mr_expr *expr;
    struct arena *arena;
    struct error *err;
    struct buf out;
    size_t copied; /* of the source, up to here */
    size_t name_count, pattern_count, variable_count;
    struct token variables[PARSER_VARIABLES_MAX];
    unsigned depth, brackets;
    bool in_reduce;
    bool each; /* the last term ended in `[]` */
    bool failed;
};

/* Errors; the first stands. `at`: offset of what is wrong. */
void parser_refuse_at(struct parser *p, size_t at, const char *hint, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
#define parser_refuse(p, hint, ...) parser_refuse_at(p, (p)->scan.token.at, hint, __VA_ARGS__)
void parser_unexpected(struct parser *p);
/* The current token, and how many bytes of one to show. */
const char *parser_token(const struct parser *p);
int parser_shown(const struct token *token);

/* Copies the source to the text for jq, up to `end`. */
void parser_copy_to(struct parser *p, size_t end);
/* Copies the current token and reads the next. */
void parser_advance(struct parser *p);
/* Puts `text` into what has been written, at `at`. */
void parser_insert(struct parser *p, size_t at, const char *text);
/* Wraps what has been written since `start` (of the length of `out`) in `(…END`; but for a
 * number. */
void parser_guard(struct parser *p, size_t start, const char *end);
/* Whether the current token is that sign or word; takes it; insists on it. */
bool parser_at(const struct parser *p, const char *sign);
bool parser_take(struct parser *p, const char *sign);
void parser_expect(struct parser *p, const char *sign);
/* Whether the current token begins a plain string with `sign` right behind it. */
bool parser_literal_before(const struct parser *p, const char *sign);

/* A NULL-ended list with one more item (borrowed). */
const char **parser_list_add(struct parser *p, const char **list, size_t *count, const char *text);
/* Notes a name, or everything, as read, where `.` is the document. */
void parser_reads(struct parser *p, enum scope scope, const char *name, size_t len);
void parser_reads_all(struct parser *p, enum scope scope);
/* The current token as a variable that is named; as one that is used. */
void parser_remember_variable(struct parser *p);
void parser_check_variable(struct parser *p);

/* Each parses what begins with the current token. */
void parse_pipe(struct parser *p, enum scope scope);
/* A term and its suffixes. False, and nothing taken, when none begins here. */
bool parse_term(struct parser *p, enum scope scope);
/* A word that begins a term: a function, `if`, `reduce`, `try`. False when none can begin with it.
 */
bool parse_word(struct parser *p, enum scope scope);
