/* SQLite: one connection of a stage, and its statement, for batches of rows.
 *
 * Used by pool threads, one at a time: the host runs the batches of a key one after the other. A
 * batch that may write is one transaction, BEGIN IMMEDIATE … COMMIT, in WAL mode; each row has a
 * savepoint, so that a bad one is undone alone. Nothing counts before COMMIT has succeeded: should
 * the transaction as a whole be lost, every row of it fails. A database that is busy for longer
 * than BUSY_MS is class throttled: parked, no attempt used. */
#include "sql.h"
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUSY_MS        500
#define OUTPUT_MAX     (1u << 20) /* what a stage's output may have; the rest is not even gathered */
#define STATEMENT_COST 16u        /* bytes of JSON around a value, roughly */

struct sql_db {
    char *path, *statement;
    struct sql_text text;
    sqlite3 *handle;
    sqlite3_stmt *stmt;
    int index[SQL_PARAMS_MAX]; /* SQLite's number of each name */
    int is_wal;
};

struct sql_db *sql_db_new(const char *path, const char *statement, const struct sql_text *text)
{
    struct sql_db *db = calloc(1, sizeof(*db));
    if (!db || !(db->path = strdup(path)) || !(db->statement = strdup(statement)))
        abort();
    db->text = *text;
    return db;
}

void sql_db_free(struct sql_db *db)
{
    if (!db)
        return;
    sqlite3_finalize(db->stmt);
    sqlite3_close(db->handle);
    free(db->path);
    free(db->statement);
    free(db);
}

/* Errors */

static int is_busy(int rc)
{
    return (rc & 0xff) == SQLITE_BUSY || (rc & 0xff) == SQLITE_LOCKED;
}

/* What SQLite's code means for a job. */
static int code_of(int rc, int *ret_cls)
{
    *ret_cls = MR_CLASS_DEFAULT;
    switch (rc & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        *ret_cls = MR_CLASS_THROTTLED;
        return MR_E_RATE_LIMITED;
    case SQLITE_ERROR: /* also a syntax error, or a table that is not there */
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
    case SQLITE_TOOBIG:
    case SQLITE_RANGE:
    case SQLITE_AUTH:
    case SQLITE_READONLY:
    case SQLITE_NOTADB:
        return MR_E_SCHEMA;
    default: /* disk full, I/O, memory: another attempt may succeed */
        *ret_cls = MR_CLASS_RETRY;
        return MR_E_PLUGIN;
    }
}

static void set_error(struct sql_item *item, int rc, const char *what, const char *why)
{
    json_decref(item->rows);
    item->rows = NULL;
    item->changes = 0;
    item->code = code_of(rc, &item->cls);
    snprintf(item->message, sizeof(item->message), "%s: %s", what, why);
}

static void set_errors(void **items, uint32_t count, int rc, const char *what, const char *why)
{
    for (uint32_t i = 0; i < count; i++)
        set_error(items[i], rc, what, why);
}

/* Opening */

/* Sets WAL mode; another process may be doing the same, then the next batch tries again. */
static int set_wal(struct sql_db *db)
{
    if (db->is_wal)
        return SQLITE_OK;
    int rc = sqlite3_exec(db->handle, "PRAGMA journal_mode=WAL", NULL, NULL, NULL);
    db->is_wal = rc == SQLITE_OK;
    return is_busy(rc) ? SQLITE_OK : rc;
}

int sql_db_open(struct sql_db *db, char *message, size_t size)
{
    int rc = SQLITE_OK;
    int cls = 0;
    if (!db->handle) {
        rc =
            sqlite3_open_v2(db->path, &db->handle,
                            SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
        if (rc == SQLITE_OK) {
            sqlite3_busy_timeout(db->handle, BUSY_MS);
            sqlite3_extended_result_codes(db->handle, 1);
        }
    }
    if (rc == SQLITE_OK)
        rc = set_wal(db);
    if (rc == SQLITE_OK)
        return MR_OK;
    snprintf(message, size, "cannot open \"%s\": %s", db->path,
             db->handle ? sqlite3_errmsg(db->handle) : sqlite3_errstr(rc));
    sqlite3_close(db->handle);
    db->handle = NULL;
    return code_of(rc, &cls);
}

/* Prepares once; a changed schema is SQLite's own matter from then on. */
static int prepare(struct sql_db *db)
{
    if (db->stmt)
        return SQLITE_OK;
    int rc = sqlite3_prepare_v3(db->handle, db->statement, -1, SQLITE_PREPARE_PERSISTENT, &db->stmt,
                                NULL);
    for (uint32_t i = 0; rc == SQLITE_OK && i < db->text.count; i++) {
        char name[SQL_NAME_MAX + 1];
        snprintf(name, sizeof(name), ":%s", db->text.names[i]);
        db->index[i] = sqlite3_bind_parameter_index(db->stmt, name);
    }
    return rc;
}

/* One row of work */

static int bind_all(struct sql_db *db, const struct sql_bind *binds)
{
    int rc = SQLITE_OK;
    for (uint32_t i = 0; rc == SQLITE_OK && i < db->text.count; i++) {
        const struct sql_bind *bind = &binds[i];
        if (db->index[i] == 0)
            continue;
        if (bind->type == SQL_INTEGER)
            rc = sqlite3_bind_int64(db->stmt, db->index[i], bind->integer);
        else if (bind->type == SQL_REAL)
            rc = sqlite3_bind_double(db->stmt, db->index[i], bind->real);
        else if (bind->type == SQL_TEXT)
            rc = sqlite3_bind_text64(db->stmt, db->index[i], bind->text, bind->len, SQLITE_STATIC,
                                     SQLITE_UTF8);
        else
            rc = sqlite3_bind_null(db->stmt, db->index[i]);
    }
    return rc;
}

/* One value of a result; NULL with `*ret_why` when JSON has no such value. */
static json_t *column(sqlite3_stmt *stmt, int i, size_t *bytes, const char **ret_why)
{
    json_t *value = NULL;
    *bytes += STATEMENT_COST;
    switch (sqlite3_column_type(stmt, i)) {
    case SQLITE_INTEGER:
        return json_integer(sqlite3_column_int64(stmt, i));
    case SQLITE_FLOAT:
        value = json_real(sqlite3_column_double(stmt, i));
        return value ? value : json_null(); /* JSON has no infinity */
    case SQLITE_TEXT: {
        const char *text = (const char *)sqlite3_column_text(stmt, i);
        size_t len = (size_t)sqlite3_column_bytes(stmt, i);
        *bytes += len;
        value = text ? json_stringn(text, len) : NULL;
        *ret_why = "is text that is not UTF-8";
        return value;
    }
    case SQLITE_BLOB:
        *ret_why = "is a blob: use hex(…) or json(…) in the statement";
        return NULL;
    default:
        return json_null();
    }
}

/* Appends the current row to `rows`; SQLITE_OK, or SQLITE_MISMATCH or SQLITE_TOOBIG with `why`. */
static int add_row(sqlite3_stmt *stmt, json_t *rows, size_t *bytes, char *why, size_t size)
{
    json_t *row = json_object();
    json_array_append_new(rows, row);
    for (int i = 0; i < sqlite3_column_count(stmt); i++) {
        const char *name = sqlite3_column_name(stmt, i);
        const char *problem = "";
        json_t *value = column(stmt, i, bytes, &problem);
        *bytes += strlen(name);
        if (!value || json_object_set_new(row, name, value) != 0) {
            snprintf(why, size, "column \"%s\" %s", name, problem);
            return SQLITE_MISMATCH;
        }
    }
    if (*bytes <= OUTPUT_MAX)
        return SQLITE_OK;
    snprintf(why, size, "the rows are more than 1 MiB: use LIMIT, or fewer columns");
    return SQLITE_TOOBIG;
}

/* Runs the statement for one item, inside whatever transaction there is. */
static int run_statement(struct sql_db *db, struct sql_item *item)
{
    char why[160] = "";
    size_t bytes = 0;
    item->rows = json_array();
    int rc = bind_all(db, item->binds);
    while (rc == SQLITE_OK && (rc = sqlite3_step(db->stmt)) == SQLITE_ROW)
        rc = add_row(db->stmt, item->rows, &bytes, why, sizeof(why));
    if (rc == SQLITE_DONE) {
        rc = SQLITE_OK;
        /* Of the statement itself, without its triggers; nothing else on this connection counts. */
        if (!sqlite3_stmt_readonly(db->stmt))
            item->changes = sqlite3_changes64(db->handle);
    }
    if (rc != SQLITE_OK)
        set_error(item, rc, "the statement failed", why[0] ? why : sqlite3_errmsg(db->handle));
    sqlite3_reset(db->stmt);
    sqlite3_clear_bindings(db->stmt);
    return rc;
}

/* Batches */

static int command(struct sql_db *db, const char *sql)
{
    return sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
}

/* One row within the batch's transaction, undone alone when it fails. Returns what ends the batch,
 * or SQLITE_OK. */
static int run_saved(struct sql_db *db, struct sql_item *item)
{
    int rc = command(db, "SAVEPOINT item");
    if (rc != SQLITE_OK)
        return rc;
    int failed = run_statement(db, item);
    /* Some errors (disk full, I/O, busy) make SQLite roll the whole transaction back by itself. */
    if (sqlite3_get_autocommit(db->handle))
        return failed != SQLITE_OK ? failed : SQLITE_ABORT;
    if (failed != SQLITE_OK)
        rc = command(db, "ROLLBACK TO item");
    return rc == SQLITE_OK ? command(db, "RELEASE item") : rc;
}

static void run_writes(struct sql_db *db, void **items, uint32_t count)
{
    int rc = command(db, "BEGIN IMMEDIATE");
    for (uint32_t i = 0; rc == SQLITE_OK && i < count; i++)
        rc = run_saved(db, items[i]);
    if (rc == SQLITE_OK)
        rc = command(db, "COMMIT");
    if (rc == SQLITE_OK)
        return;
    char why[160];
    snprintf(why, sizeof(why), "%s", sqlite3_errmsg(db->handle));
    if (!sqlite3_get_autocommit(db->handle))
        command(db, "ROLLBACK");
    set_errors(items, count, rc, "the transaction failed", why);
}

void sql_db_run(void **items, uint32_t count)
{
    struct sql_db *db = ((struct sql_item *)items[0])->db;
    char message[200];
    int code = sql_db_open(db, message, sizeof(message));
    if (code != MR_OK) {
        for (uint32_t i = 0; i < count; i++) {
            struct sql_item *item = items[i];
            item->code = code;
            item->cls = code == MR_E_RATE_LIMITED ? MR_CLASS_THROTTLED : MR_CLASS_RETRY;
            memcpy(item->message, message, sizeof(item->message));
        }
        return;
    }
    int rc = prepare(db);
    if (rc != SQLITE_OK)
        set_errors(items, count, rc, "the statement is refused", sqlite3_errmsg(db->handle));
    else if (sqlite3_stmt_readonly(db->stmt))
        for (uint32_t i = 0; i < count; i++)
            run_statement(db, items[i]);
    else
        run_writes(db, items, count);
}
