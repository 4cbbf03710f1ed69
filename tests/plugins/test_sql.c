/* The sql plugin on real SQLite files: types, batches, savepoints, a busy database, checks. */
#include "fake_host.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define DSN "'dsn': 'sqlite:test.db', "

/* Each test has a database of its own. */
static int remove_database(void **state)
{
    (void)state;
    static const char *const names[] = {"test.db", "test.db-wal", "test.db-shm"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        mem_auto char *path = mem_format("%s/%s", fake_dir(), names[i]);
        unlink(path);
    }
    return 0;
}

/* Runs one statement without parameters, as a stage of its own; its output. free() it. */
static char *sql(const char *statement)
{
    mem_auto char *options =
        mem_format("{\"dsn\": \"sqlite:test.db\", \"statement\": \"%s\"}", statement);
    fake_auto struct fake *fake = fake_new("sql", options);
    fake_set(fake, "input", "{}");
    int rc = fake_run(fake);
    if (rc != MR_OK)
        fail_msg("%s: %s", statement, fake->task.error.message);
    return mem_dup(fake->task.output);
}

static void run_sql(const char *statement)
{
    free(sql(statement));
}

static void assert_sql(const char *statement, const char *want)
{
    mem_auto char *got = sql(statement);
    fake_assert_json(got, want);
}

#define INSERT                                                                                     \
    "{" DSN "'statement': 'INSERT INTO own (id, n) VALUES (:id, :n)"                               \
    " ON CONFLICT (id) DO NOTHING', 'params': {'id': '{{ .input.id }}', 'n': '{{ .input.n }}'}}"

static void test_write_and_read(void **state)
{
    (void)state;
    assert_sql("CREATE TABLE IF NOT EXISTS own (id TEXT PRIMARY KEY, n INTEGER)",
               "{'rows': [], 'changes': 0}");
    fake_auto struct fake *fake = fake_new("sql", INSERT);
    fake_set(fake, "input", "{'id': 'a', 'n': 1}");
    assert_int_equal(fake_run(fake), MR_OK);
    fake_assert_json(fake->task.output, "{'rows': [], 'changes': 1}");
    /* A repeat changes nothing. */
    assert_int_equal(fake_run(fake), MR_OK);
    fake_assert_json(fake->task.output, "{'rows': [], 'changes': 0}");
    assert_sql("SELECT id, n FROM own", "{'rows': [{'id': 'a', 'n': 1}], 'changes': 0}");
    assert_sql("PRAGMA journal_mode", "{'rows': [{'journal_mode': 'wal'}], 'changes': 0}");
}

static void test_types(void **state)
{
    (void)state;
    fake_auto struct fake *fake = fake_new(
        "sql", "{" DSN "'statement': 'SELECT :i AS i, :r AS r, :t AS t, :n AS n, :y AS y, :f AS f,"
               " :a AS a, :o AS o, typeof(:i) AS ti, typeof(:r) AS tr, typeof(:t) AS tt,"
               " typeof(:n) AS tn, typeof(:y) AS ty, typeof(:a) AS ta',"
               " 'params': {'i': '{{ .input.i }}', 'r': '{{ .input.r }}', 't': '{{ .input.t }}',"
               " 'n': '{{ .input.n }}', 'y': '{{ .input.y }}', 'f': '{{ .input.f }}',"
               " 'a': '{{ .input.a }}', 'o': {'k': '{{ .input.i }}'}}}");
    fake_set(fake, "input",
             "{'i': 9007199254740993, 'r': 0.1, 't': 'x\u00e4', 'n': null, 'y': true,"
             " 'f': false, 'a': [1, 0.1]}");
    assert_int_equal(fake_run(fake), MR_OK);
    fake_assert_json(fake->task.output,
                     "{'rows': [{'i': 9007199254740993, 'r': 0.1, 't': 'x\u00e4', 'n': null,"
                     " 'y': 1, 'f': 0, 'a': '[1,0.1]', 'o': '{\\'k\\':9007199254740993}',"
                     " 'ti': 'integer', 'tr': 'real', 'tt': 'text', 'tn': 'null',"
                     " 'ty': 'integer', 'ta': 'text'}], 'changes': 0}");
}

/* Nothing of a job becomes SQL. */
static void test_injection(void **state)
{
    (void)state;
    run_sql("CREATE TABLE IF NOT EXISTS own (id TEXT PRIMARY KEY, n INTEGER)");
    fake_auto struct fake *fake = fake_new("sql", INSERT);
    fake_set(fake, "input", "{'id': 'x\\u0027); DROP TABLE own; --', 'n': 1}");
    assert_int_equal(fake_run(fake), MR_OK);
    assert_sql("SELECT count(*) AS n FROM own", "{'rows': [{'n': 1}], 'changes': 0}");
}

/* What only looks like a parameter. */
static void test_scanning(void **state)
{
    (void)state;
    fake_auto struct fake *fake = fake_new(
        "sql", "{\"dsn\": \"sqlite:test.db\", \"statement\": \"SELECT ':a' AS x, ':b''s' AS y, "
               "1 AS \\\":c\\\", /* :d */ :e AS e, :e + 1 AS f -- :g\\n, 2 AS [:h]; \", "
               "\"params\": {\"e\": 3}}");
    assert_int_equal(fake_run(fake), MR_OK);
    fake_assert_json(fake->task.output, "{\"rows\": [{\"x\": \":a\", \"y\": \":b\\u0027s\","
                                        " \":c\": 1, \"e\": 3, \"f\": 4, \":h\": 2}],"
                                        " \"changes\": 0}");
}

#define JOBS 8

/* Concurrent jobs share one transaction; one bad row fails alone. */
static void test_batch(void **state)
{
    (void)state;
    run_sql("CREATE TABLE IF NOT EXISTS own (id TEXT PRIMARY KEY,"
            " n INTEGER CHECK (n < 100))");
    fake_auto struct fake *fake = fake_new("sql", INSERT);
    struct fake_task tasks[JOBS];
    fake->hold = true;
    for (int i = 0; i < JOBS; i++) {
        mem_auto char *input = mem_format("{'id': 'k%d', 'n': %d}", i, i == 3 ? 1000 : i);
        fake_set(fake, "input", input);
        fake_start(fake, &tasks[i]);
        assert_false(tasks[i].done);
    }
    fake_clear_trace(fake);
    assert_int_equal(fake_release(fake), JOBS);
    assert_string_equal(buf_text(&fake->trace), "batch of 8\n");
    for (int i = 0; i < JOBS; i++) {
        assert_true(tasks[i].done);
        assert_int_equal(tasks[i].code, i == 3 ? MR_E_SCHEMA : MR_OK);
        if (i == 3) {
            fake_assert_message(&tasks[i], "CHECK constraint failed");
            assert_int_equal(error_class_of(&tasks[i].error), MR_CLASS_PERMANENT);
        } else
            fake_assert_json(tasks[i].output, "{'rows': [], 'changes': 1}");
        fake_task_done(&tasks[i]);
    }
    assert_sql("SELECT count(*) AS n FROM own", "{'rows': [{'n': 7}], 'changes': 0}");
}

/* A statement that has changed rows before it fails leaves nothing behind, and its neighbour in the
 * batch is not touched. */
static void test_row_is_undone(void **state)
{
    (void)state;
    run_sql("CREATE TABLE IF NOT EXISTS own (id TEXT PRIMARY KEY, n BLOB)");
    fake_auto struct fake *fake = fake_new(
        "sql", "{\"dsn\": \"sqlite:test.db\", \"statement\": \"INSERT INTO own VALUES (:id,"
               " CASE WHEN :id = 'bad' THEN x'00' ELSE 1 END) RETURNING n\","
               " \"params\": {\"id\": \"{{ .input }}\"}}");
    static const char *const ids[] = {"'a'", "'bad'", "'b'"};
    struct fake_task tasks[3];
    fake->hold = true;
    for (int i = 0; i < 3; i++) {
        fake_set(fake, "input", ids[i]);
        fake_start(fake, &tasks[i]);
    }
    assert_int_equal(fake_release(fake), 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tasks[i].code, i == 1 ? MR_E_SCHEMA : MR_OK);
        fake_task_done(&tasks[i]);
    }
    assert_sql("SELECT id FROM own ORDER BY id",
               "{'rows': [{'id': 'a'}, {'id': 'b'}], 'changes': 0}");
}

static void test_batch_options(void **state)
{
    (void)state;
    static const struct {
        const char *statement, *batch, *trace;
    } rows[] = {
        {"DELETE FROM own", "", "batch max 200 linger 20\n"},
        {"DELETE FROM own", ", 'batch': {'max': 5, 'linger': '1.5s'}", "batch max 5 linger 1500\n"},
        {"DELETE FROM own", ", 'batch': {'linger': '0ms'}", "batch max 200 linger 0\n"},
        {"SELECT 1 AS n", "", "batch max 200 linger 0\n"},
        {"SELECT 1 AS n", ", 'batch': {'linger': '5ms'}", "batch max 200 linger 5\n"},
    };
    run_sql("CREATE TABLE IF NOT EXISTS own (id TEXT PRIMARY KEY, n INTEGER)");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        mem_auto char *options =
            mem_format("{" DSN "'statement': '%s'%s}", rows[i].statement, rows[i].batch);
        fake_auto struct fake *fake = fake_new("sql", options);
        fake_clear_trace(fake);
        assert_int_equal(fake_run(fake), MR_OK);
        assert_string_equal(buf_text(&fake->trace), rows[i].trace);
    }
}

/* RETURNING, and the changes of the statement itself, without those of its triggers. */
static void test_changes(void **state)
{
    (void)state;
    run_sql("CREATE TABLE IF NOT EXISTS own (id TEXT PRIMARY KEY, n INTEGER)");
    run_sql("CREATE TABLE IF NOT EXISTS seen (id TEXT)");
    run_sql("CREATE TRIGGER IF NOT EXISTS t AFTER INSERT ON own BEGIN"
            " INSERT INTO seen VALUES (new.id); INSERT INTO seen VALUES ('x');"
            " END");
    assert_sql("INSERT OR IGNORE INTO own VALUES ('a', 1), ('b', 2) RETURNING id",
               "{'rows': [{'id': 'a'}, {'id': 'b'}], 'changes': 2}");
    assert_sql("SELECT count(*) AS n FROM seen", "{'rows': [{'n': 4}], 'changes': 0}");
    assert_sql("UPDATE own SET n = 5", "{'rows': [], 'changes': 2}");
    assert_sql("DELETE FROM own WHERE id = 'zz'", "{'rows': [], 'changes': 0}");
}

/* Another writer holds the database: class throttled, no attempt used. */
static void test_busy(void **state)
{
    (void)state;
    run_sql("CREATE TABLE IF NOT EXISTS own (id TEXT PRIMARY KEY, n INTEGER)");
    fake_auto struct fake *reader =
        fake_new("sql", "{" DSN "'statement': 'SELECT count(*) AS n FROM own'}");
    fake_auto struct fake *fake = fake_new("sql", INSERT);
    fake_set(fake, "input", "{'id': 'a', 'n': 1}");

    /* Another process takes the lock, says so, and keeps it until its input ends. */
    mem_auto char *mark = mem_format("%s/locked", fake_dir());
    assert_int_equal(mkfifo(mark, 0600), 0);
    mem_auto char *command =
        mem_format("/usr/bin/python3 -c 'import sqlite3, sys\n"
                   "db = sqlite3.connect(\"%s/test.db\", isolation_level=None)\n"
                   "db.execute(\"BEGIN IMMEDIATE\")\n"
                   "open(\"%s\", \"w\").write(\"x\")\n"
                   "sys.stdin.read()\n"
                   "db.execute(\"COMMIT\")'",
                   fake_dir(), mark);
    FILE *other = popen(command, "w");
    assert_non_null(other);
    FILE *said = fopen(mark, "r");
    assert_non_null(said);
    assert_int_equal(fgetc(said), 'x');
    fclose(said);

    assert_int_equal(fake_run(fake), MR_E_RATE_LIMITED);
    assert_int_equal(fake->task.error.class, MR_CLASS_THROTTLED);
    /* Readers are not in the way of a writer in WAL mode. */
    assert_int_equal(fake_run(reader), MR_OK);

    assert_int_equal(pclose(other), 0);
    assert_int_equal(fake_run(fake), MR_OK);
}

static void test_errors(void **state)
{
    (void)state;
    static const struct {
        const char *statement;
        int code;
        const char *message;
    } rows[] = {
        {"SELECT * FROM absent", MR_E_SCHEMA, "no such table"},
        {"SELEC 1", MR_E_SCHEMA, "syntax error"},
        {"SELECT x'00ff' AS b", MR_E_SCHEMA, "column \"b\" is a blob"},
        {"SELECT CAST(x'ff' AS TEXT) AS b", MR_E_SCHEMA, "not UTF-8"},
        {"WITH RECURSIVE c(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM c LIMIT 100000)"
         " SELECT n FROM c",
         MR_E_SCHEMA, "more than 1 MiB"},
        {"VACUUM", MR_E_SCHEMA, "VACUUM"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        mem_auto char *options =
            mem_format("{\"dsn\": \"sqlite:test.db\", \"statement\": \"%s\"}", rows[i].statement);
        fake_auto struct fake *fake = fake_new("sql", options);
        assert_int_equal(fake_run(fake), rows[i].code);
        fake_assert_message(&fake->task, rows[i].message);
        assert_int_equal(error_class_of(&fake->task.error), MR_CLASS_PERMANENT);
    }
}

static void test_params_at_run_time(void **state)
{
    (void)state;
    fake_auto struct fake *fake =
        fake_new("sql", "{" DSN "'statement': 'SELECT :a AS a', 'params': '{{ .input }}'}");
    fake_set(fake, "input", "{'a': 1, 'more': 2}");
    assert_int_equal(fake_run(fake), MR_OK);
    fake_assert_json(fake->task.output, "{'rows': [{'a': 1}], 'changes': 0}");
    fake_set(fake, "input", "{'b': 1}");
    assert_int_equal(fake_run(fake), MR_E_SCHEMA);
    fake_assert_message(&fake->task, "parameter :a");
    fake_set(fake, "input", "[1]");
    assert_int_equal(fake_run(fake), MR_E_SCHEMA);
    fake_assert_message(&fake->task, "does not render to an object");
}

/* An interpolated part of a parameter may not be empty. */
static void test_empty_part(void **state)
{
    (void)state;
    fake_auto struct fake *fake = fake_new(
        "sql", "{" DSN "'statement': 'SELECT :a AS a', 'params': {'a': 'u:{{ .input.u }}'}}");
    fake_set(fake, "input", "{'u': ''}");
    assert_int_equal(fake_run(fake), MR_E_SCHEMA);
    fake_set(fake, "input", "{'u': 'x'}");
    assert_int_equal(fake_run(fake), MR_OK);
}

static void test_cannot_open(void **state)
{
    (void)state;
    int code = MR_OK;
    fake_auto struct fake *fake = fake_try(
        "sql", "{'dsn': 'sqlite:/nowhere/at/all.db', 'statement': 'SELECT 1 AS n'}", &code);
    assert_int_equal(code, MR_E_PLUGIN);
    fake_assert_message(&fake->priv->opening, "cannot open \"/nowhere/at/all.db\"");

    fake_write("not.db", "this is no database, it is a text of some length, and nothing else.");
    fake_auto struct fake *other =
        fake_try("sql", "{'dsn': 'sqlite:not.db', 'statement': 'SELECT 1 AS n'}", &code);
    assert_int_equal(code, MR_E_SCHEMA);
    fake_assert_message(&other->priv->opening, "not a database");
}

static void test_check(void **state)
{
    (void)state;
#define STATEMENT(text) "{" DSN "'statement': '" text "'}"
    mem_auto char *none = fake_check("sql", INSERT);
    assert_string_equal(none, "");
    fake_assert_check("sql", "{'dsn': 'postgres://localhost/x', 'statement': 'SELECT 1'}", "error",
                      "/dsn", "postgres is not built in", NULL);
    fake_assert_check("sql", "{'dsn': 'host=localhost dbname=x', 'statement': 'SELECT 1'}", "error",
                      "/dsn", "postgres is not built in", NULL);
    fake_assert_check("sql", "{'dsn': 'test.db', 'statement': 'SELECT 1'}", "error", "/dsn",
                      "sqlite:PATH", NULL);
    fake_assert_check("sql", "{'statement': 'SELECT 1'}", "error", "dsn", "required", NULL);
    fake_assert_check("sql", STATEMENT("  -- nothing"), "error", "/statement", "no statement",
                      NULL);
    fake_assert_check("sql", STATEMENT("SELECT 1; SELECT 2"), "error", "/statement",
                      "more than one", NULL);
    fake_assert_check("sql", STATEMENT("SELECT ?"), "error", "/statement", ":name", NULL);
    fake_assert_check("sql", STATEMENT("SELECT $x"), "error", "/statement", ":name", NULL);
    fake_assert_check("sql", STATEMENT("SELECT :x"), "error", "/statement", ":x has no value",
                      NULL);
    fake_assert_check("sql", "{" DSN "'statement': 'SELECT 1', 'params': {'y': 1}}", "error",
                      "/params/y", "no parameter :y", NULL);
    fake_assert_check("sql", "{" DSN "'statement': 'SELECT 1', 'batch': {'max': 0}}", "error",
                      "/batch/max", NULL);
    fake_assert_check("sql", "{" DSN "'statement': 'SELECT 1', 'batch': {'linger': 20}}", "error",
                      "/batch/linger", NULL);
    fake_assert_check("sql", "{" DSN "'statement': 'SELECT 1', 'batch': {'size': 20}}", "error",
                      "/batch", "neither", NULL);
}

/* Which statements may be run twice, without a warning. */
static void test_repeats(void **state)
{
    (void)state;
    static const struct {
        const char *statement;
        bool repeats;
    } rows[] = {
        {"SELECT 1", true},
        {"WITH x AS (SELECT 1) SELECT * FROM x", true},
        {"INSERT INTO t VALUES (1)", false},
        {"insert into t values (1) on conflict do nothing", true},
        {"INSERT OR IGNORE INTO t VALUES (1)", true},
        {"INSERT OR REPLACE INTO t VALUES (1)", true},
        {"REPLACE INTO t VALUES (1)", true},
        {"INSERT INTO t VALUES (1) -- ON CONFLICT", false},
        {"INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET n = n + 1", false},
        {"INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET n = excluded.n", true},
        {"WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", false},
        {"UPDATE t SET n = 1", true},
        {"UPDATE t SET n = n + 1", false},
        {"UPDATE t SET n = n - 1 WHERE a = 2", false},
        {"DELETE FROM t", true},
        {"CREATE TABLE t (a)", false},
        {"CREATE TABLE IF NOT EXISTS t (a)", true},
        {"DROP TABLE t", false},
        {"DROP TABLE IF EXISTS t", true},
        {"ALTER TABLE t ADD COLUMN b", false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        mem_auto char *options = mem_format("{" DSN "'statement': '%s'}", rows[i].statement);
        mem_auto char *said = fake_check("sql", options);
        print_message("%s\n", rows[i].statement);
        assert_int_equal(strstr(said, "may take effect twice") == NULL, rows[i].repeats);
        assert_null(strstr(said, "error"));
    }
}

static struct fake *prepare_torture(void)
{
    struct fake *fake = fake_new("sql", "{" DSN "'statement': 'SELECT :a AS a',"
                                        " 'params': {'a': '{{ .input }}'}}");
    fake_set(fake, "input", "['text']");
    return fake;
}

static void check_torture(struct fake *fake)
{
    assert_int_equal(fake->task.code, fake->torture_code);
}

static void test_torture(void **state)
{
    (void)state;
    assert_int_equal(fake_torture(prepare_torture, check_torture), 5 * 2 * 1);
    assert_int_equal(fake_torture_open("sql", "{" DSN "'statement': 'SELECT 1 AS n'}"), 5 * 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_write_and_read, remove_database),
        cmocka_unit_test_setup(test_types, remove_database),
        cmocka_unit_test_setup(test_injection, remove_database),
        cmocka_unit_test_setup(test_scanning, remove_database),
        cmocka_unit_test_setup(test_batch, remove_database),
        cmocka_unit_test_setup(test_row_is_undone, remove_database),
        cmocka_unit_test_setup(test_batch_options, remove_database),
        cmocka_unit_test_setup(test_changes, remove_database),
        cmocka_unit_test_setup(test_busy, remove_database),
        cmocka_unit_test_setup(test_errors, remove_database),
        cmocka_unit_test_setup(test_params_at_run_time, remove_database),
        cmocka_unit_test_setup(test_empty_part, remove_database),
        cmocka_unit_test_setup(test_cannot_open, remove_database),
        cmocka_unit_test_setup(test_check, remove_database),
        cmocka_unit_test_setup(test_repeats, remove_database),
        cmocka_unit_test_setup(test_torture, remove_database),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
