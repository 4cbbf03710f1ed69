/* What the files of the sql plugin share: reading a statement, and running batches of it. */
#pragma once

#include <jansson.h>
#include <millrace/plugin.h>

/* sql_text.c: what can be said about a statement without a database. */

#define SQL_PARAMS_MAX 200u
#define SQL_NAME_MAX   64u

enum sql_text_error {
    SQL_TEXT_OK,
    SQL_TEXT_EMPTY,
    SQL_TEXT_SEVERAL,    /* more than one statement */
    SQL_TEXT_POSITIONAL, /* ? or ?NNN, @name or $name */
    SQL_TEXT_TOO_MANY,   /* parameters, or a name that is too long */
};

struct sql_text {
    char names[SQL_PARAMS_MAX][SQL_NAME_MAX]; /* of `:name`, each once, in order */
    uint32_t count;
    int reads_only; /* begins with SELECT or VALUES, or is a WITH that changes nothing */
    int repeats;    /* running it again with the same values leaves the same rows */
};

/* Scans a statement: strings, quoted names, comments and `::` hold no parameters. */
enum sql_text_error sql_text_scan(const char *statement, struct sql_text *ret);

/* sql_sqlite.c: one connection, used by one thread at a time. */

enum sql_bind_type { SQL_NULL, SQL_INTEGER, SQL_REAL, SQL_TEXT };
struct sql_bind {
    enum sql_bind_type type;
    int64_t integer;
    double real;
    const char *text;
    size_t len;
};

/* One row of work: what goes in and what comes out. */
struct sql_item {
    struct sql_db *db;
    const struct sql_bind *binds; /* one for each name of the statement */
    json_t *rows;                 /* out: the rows, the caller's reference; NULL on failure */
    int64_t changes;              /* out */
    int code;                     /* out: MR_OK or MR_E_… */
    int cls;                      /* out: class that goes with the code; 0: the code's own */
    char message[200];            /* out */
};

struct sql_db;
/* `path`, `statement` are copied. Opens nothing yet. */
struct sql_db *sql_db_new(const char *path, const char *statement, const struct sql_text *text);
void sql_db_free(struct sql_db *db);
/* On a thread: opens the file unless it is open. MR_OK, or a code with `message`. */
int sql_db_open(struct sql_db *db, char *message, size_t size);
/* On a thread: runs the items (struct sql_item *) of one database in one transaction. */
void sql_db_run(void **items, uint32_t count);
