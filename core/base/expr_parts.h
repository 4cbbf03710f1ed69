/* What the files of `expr` share; nobody else includes it.
 *
 *   expr.c           the set, its handles, evaluation
 *   expr_template.c  strings with {{ }}: cut into parts, rendered
 *   expr_scan.c      tokens of jq, and where a {{ }} ends
 *   expr_parse.c     the grammar that is accepted, the names that are read, the text for jq
 *   expr_words.c     the list of allowed functions
 *   expr_path.c      what is evaluated without jq: paths, defaults, simple comparisons
 *   expr_source.c    a number as it stands in a document's text
 *   expr_jq.c        libjq */
#pragma once

#include "base/expr.h"
#include "base/mem.h"

/* Tokens (expr_scan.c) */

enum token_kind {
    TOKEN_END,
    TOKEN_FIELD,    /* .name */
    TOKEN_WORD,     /* name */
    TOKEN_VARIABLE, /* $name */
    TOKEN_FORMAT,   /* @name */
    TOKEN_NUMBER,
    TOKEN_QUOTE, /* the quote that begins a string: scan_string goes on from it */
    TOKEN_SIGN,
    TOKEN_BAD, /* a byte that jq has no use for */
};

struct token {
    enum token_kind kind;
    size_t at, len;
};

struct scan {
    const char *text;
    size_t len;
    size_t pos; /* behind the current token */
    struct token token;
};

void scan_start(struct scan *scan, const char *text, size_t len);
/* Reads the next token into scan->token. */
void scan_next(struct scan *scan);
bool scan_is(const struct scan *scan, const char *sign_or_word);
/* With a quote as the current token: moves `pos` behind the next closing quote or `\(`. Gives the
 * character that ended it: '"', '(' or 0 when the string has no end or holds a bad byte. */
char scan_string(struct scan *scan);
/* The offset of the `}}` that ends what begins at `text`, or SIZE_MAX when there is none outside of
 * strings and brackets. */
size_t scan_template_end(const char *text, size_t len);

/* Allowed functions (expr_words.c) */

enum word_flag {
    WORD_INNER = 1 << 0, /* its first argument sees parts of the input, not the input */
    WORD_READS_NOTHING = 1 << 2,
    WORD_READS_ARGUMENT = 1 << 3, /* reads its first argument and not the input */
    WORD_LITERAL = 1 << 4,        /* arguments are literal strings, the first not empty */
    WORD_PATTERN = 1 << 5,        /* the first argument is a regular expression */
    WORD_GUARDED = 1 << 6,        /* called as mr_NAME, which bounds what it takes */
};

struct word {
    const char *name;
    unsigned arity;
    unsigned flags;
};

/* NULL when the word is not allowed with that number of arguments. */
const struct word *word_find(const char *name, size_t len, unsigned arity);
/* Whether any number of arguments is allowed. */
bool word_is_known(const char *name, size_t len);
bool word_is_format(const char *name, size_t len);
/* Whether it is a keyword of jq that may not be used. */
bool word_is_refused(const char *name, size_t len);
const char *word_nearest(const char *name, size_t len);
/* The definitions of mr_… that go before the expressions in jq's program. */
extern const char word_prelude[];

/* Expressions without jq (expr_path.c) */

struct path_step {
    const char *key; /* NULL: an index */
    size_t key_len;
    json_int_t index; /* below 0: from the end */
};

struct path {
    struct path_step *steps;
    size_t count;
};

struct operand {
    struct path path;
    json_t *literal; /* NULL: the path counts */
};

enum compare { COMPARE_NONE, COMPARE_EQUAL, COMPARE_DIFFERENT };

struct term {
    struct operand left, right;
    enum compare compare;
    bool new_group; /* an `or` stands before it */
};

/* Either operands joined by `//`, or terms joined by `and` and `or`. */
struct native {
    struct operand *operands;
    size_t operand_count;
    struct term *terms;
    size_t term_count;
};

/* Whether `text`, which the parser has accepted, is of that kind. Literals are appended to `held`
 * (an array that owns them). */
bool native_parse(const char *text, size_t len, struct arena *arena, json_t *held,
                  struct native *ret_native);
/* New reference. MR_E_SCHEMA as jq would fail, MR_E_BAD_RESPONSE when a member does not parse. */
int native_eval(const struct native *native, const char *shown, struct doc *doc, json_t **ret_value,
                struct error *err);
/* Walks a path from the document; borrowed (a missing member gives JSON null), but for the empty
 * path, which gives a new object in `*ret_whole` for the caller to drop. */
int path_walk(const struct path *path, const char *shown, struct doc *doc, json_t **ret_value,
              json_t **ret_whole, struct error *err);

/* The number at `path` as its source has it (expr_source.c), or false. */
bool source_number(struct doc *doc, const struct path *path, struct buf *buf);

/* Handles */

struct mr_expr {
    struct expr_set *set;
    const char *text;  /* as written, without white space at its ends */
    const char *shown; /* the beginning of it, for messages */
    const char *file, *pointer;
    const char *program;   /* for jq, with guards put in */
    const char **names;    /* NULL-ended; "*" is one when the whole document is read */
    const char **patterns; /* literals given to test(), with their quotes; NULL-ended */
    struct native native;
    bool is_native;
    bool has_default; /* holds a `//` outside of brackets */
    bool reads_all;
    size_t index; /* in jq's program */
};

/* Parses and checks (expr_parse.c). Fills program, names, patterns, has_default, reads_all of
 * `expr`, whose text is set. False with message and hint in `err`. */
bool expr_parse(struct mr_expr *expr, struct arena *arena, struct error *err);
/* Makes an expression of the set; NULL when refused (reported). */
struct mr_expr *expr_make(struct expr_set *set, const char *text, size_t len, struct report *report,
                          const char *file, const char *pointer);
/* Evaluates to no value (NULL), one, or fails; *ret_several tells whether there was another one. */
int expr_results(const struct mr_expr *expr, struct doc *doc, json_t **ret_value, bool *ret_several,
                 struct error *err);
/* Sets `where` as reports do, unless it is set. */
void expr_place(struct error *err, const char *file, const char *pointer);
struct arena *expr_set_arena(struct expr_set *set);
/* Keeps a value (borrowed) until the set ends. */
json_t *expr_set_hold(struct expr_set *set, json_t *value);

/* libjq (expr_jq.c) */

struct jq_program;

/* Compiles `count` expressions into one program. NULL when jq refuses; what it says is in `said`.
 */
struct jq_program *jq_program_open(const char *const *texts, size_t count, struct buf *said);
void jq_program_close(struct jq_program *program);
/* Runs expression `index` over the members `names` (NULL: all) of the document. */
int jq_program_run(struct jq_program *program, const struct mr_expr *expr, size_t index,
                   struct doc *doc, json_t **ret_value, bool *ret_several, struct error *err);
