/* sql: one statement for each job, many jobs in one transaction.
 *
 * The statement is fixed; values come in by `:name` only, so nothing of a job is ever part of the
 * SQL. A run renders `params`, turns them into values to bind, and hands them to mr_batch, which
 * gathers those of concurrent jobs for one transaction on a thread (sql_sqlite.c).
 *
 * A stage has one connection a process. It is opened when the process begins, so that a path that
 * cannot be opened shows at once; the statement is prepared at its first use, because the table may
 * be made by an earlier stage. */
#include "sql.h"
#include <stdio.h>
#include <string.h>

struct settings {
    const char *dsn, *statement;
    const mr_template *params;
    const struct json_t *batch; /* {"max": n, "linger": duration} */
};

static const struct mr_option options[] = {
    MR_OPT_TEXT(struct settings, dsn, "dsn", NULL, MR_REQUIRED | MR_SECRET,
                "The database: sqlite:PATH, relative to the pipeline file."),
    MR_OPT_TEXT(struct settings, statement, "statement", NULL, MR_REQUIRED,
                "One SQL statement with :name parameters."),
    /* Not MR_NOT_EMPTY: a value that is one template keeps its type, and null is SQL's NULL. A part
     * of longer text that is missing or empty is an error without the flag, too. */
    MR_OPT_TEMPLATE(struct settings, params, "params", "{}", 0,
                    "An object with a value for each parameter; types are kept."),
    MR_OPT_JSON(struct settings, batch, "batch", NULL, 0,
                "{\"max\": 200, \"linger\": \"20ms\"}: how many concurrent jobs share a "
                "transaction, and how long one waits for others; reads do not wait."),
};

/* Reading the options */

#define BATCH_MAX       200u
#define BATCH_LINGER_MS 20u

struct batch {
    uint32_t max;
    uint64_t linger_ms;
};

/* "20ms", "1.5s" in ms; -1 when it is no duration, or more than a minute. */
static int64_t parse_duration(const char *text)
{
    double n = 0;
    char unit[3] = "";
    int end = 0;
    if (strspn(text, "0123456789.") == 0 || *text == '.' ||
        sscanf(text, "%12lf%2[a-z]%n", &n, unit, &end) != 2 || text[end])
        return -1;
    double ms = strcmp(unit, "ms") == 0 ? n : strcmp(unit, "s") == 0 ? n * 1000 : -1;
    return ms >= 0 && ms <= 60000 ? (int64_t)ms : -1;
}

/* The batch settings; NULL, or what is wrong at `*ret_pointer`. */
static const char *read_batch(const json_t *value, int reads_only, struct batch *ret,
                              const char **ret_pointer)
{
    const char *key;
    const json_t *member;
    *ret = (struct batch){BATCH_MAX, reads_only ? 0 : BATCH_LINGER_MS};
    *ret_pointer = "/batch";
    if (!value)
        return NULL;
    if (!json_is_object(value))
        return "is not an object";
    json_object_foreach ((json_t *)value, key, member) {
        if (strcmp(key, "max") == 0) {
            int64_t max = (int64_t)json_integer_value(member);
            *ret_pointer = "/batch/max";
            if (max < 1 || max > 10000)
                return "is not a whole number from 1 to 10000";
            ret->max = (uint32_t)max;
        } else if (strcmp(key, "linger") == 0) {
            int64_t ms = json_is_string(member) ? parse_duration(json_string_value(member)) : -1;
            *ret_pointer = "/batch/linger";
            if (ms < 0)
                return "is not a duration up to 1m, such as \"20ms\"";
            ret->linger_ms = (uint64_t)ms;
        } else
            return "has a member that is neither \"max\" nor \"linger\"";
    }
    return NULL;
}

static const char *sqlite_path(const char *dsn)
{
    return strncmp(dsn, "sqlite:", 7) == 0 && dsn[7] ? dsn + 7 : NULL;
}

static const char *text_problem(enum sql_text_error error)
{
    switch (error) {
    case SQL_TEXT_EMPTY:
        return "holds no statement";
    case SQL_TEXT_SEVERAL:
        return "holds more than one statement";
    case SQL_TEXT_POSITIONAL:
        return "has a parameter that is not of the form :name";
    case SQL_TEXT_TOO_MANY:
        return "has more than 200 parameters, or a name of more than 63 bytes";
    default:
        return NULL;
    }
}

/* Compares the names in the statement with the members of `params`. */
static void check_names(const struct mr_check *check, const struct sql_text *text)
{
    const json_t *params = json_object_get(check->options, "params");
    const char *key;
    const json_t *value;
    char message[120];
    char pointer[120];
    if (params && !json_is_object(params))
        return; /* a template that gives the whole object: known when it runs */
    for (uint32_t i = 0; i < text->count; i++) {
        if (json_object_get(params, text->names[i]))
            continue;
        snprintf(message, sizeof(message), "parameter :%s has no value", text->names[i]);
        check->error(check->self, "/statement", message, "give it in \"params\"");
    }
    json_object_foreach ((json_t *)params, key, value) {
        int found = 0;
        for (uint32_t i = 0; i < text->count; i++)
            found |= strcmp(text->names[i], key) == 0;
        if (found || strncmp(key, "//", 2) == 0)
            continue;
        snprintf(pointer, sizeof(pointer), "/params/%s", key);
        snprintf(message, sizeof(message), "the statement has no parameter :%s", key);
        check->error(check->self, pointer, message, "leave it out, or use it");
    }
}

static void check(const void *settings, const struct mr_check *check)
{
    const struct settings *set = settings;
    struct sql_text text;
    struct batch batch;
    const char *pointer = NULL;
    if (set->dsn && !sqlite_path(set->dsn)) {
        int postgres = strncmp(set->dsn, "postgres", 8) == 0 || strchr(set->dsn, '=') != NULL;
        check->error(check->self, "/dsn",
                     postgres ? "postgres is not built in" : "is not a database that is known",
                     "sqlite:PATH");
    }
    if (!set->statement)
        return;
    enum sql_text_error error = sql_text_scan(set->statement, &text);
    if (error != SQL_TEXT_OK) {
        check->error(check->self, "/statement", text_problem(error),
                     "one statement, with parameters like :name");
        return;
    }
    check_names(check, &text);
    if (!text.repeats)
        check->warn(check->self, "/statement",
                    "may take effect twice: a stage runs again after a crash or a retry",
                    "key the row by the job's or effect's id, with ON CONFLICT DO NOTHING");
    const char *problem = read_batch(set->batch, text.reads_only, &batch, &pointer);
    if (problem)
        check->error(check->self, pointer, problem, "{\"max\": 200, \"linger\": \"20ms\"}");
}

/* The instance */

struct instance {
    struct sql_db *db;
    struct sql_text text;
    struct batch batch;
    int code; /* of opening */
    char message[200];
};

static void open_on_thread(void *arg)
{
    struct instance *inst = arg;
    inst->code = sql_db_open(inst->db, inst->message, sizeof(inst->message));
}

static void free_db(void *arg)
{
    sql_db_free(arg);
}

MR_SUSPENDS static int open(mr_context *cx, const void *settings, void **ret_instance)
{
    const struct settings *set = settings;
    struct instance *inst = mr_alloc(cx, sizeof(*inst));
    const char *pointer = NULL;
    const char *path = sqlite_path(set->dsn);
    const char *problem = text_problem(sql_text_scan(set->statement, &inst->text));
    if (!problem)
        problem = read_batch(set->batch, inst->text.reads_only, &inst->batch, &pointer);
    if (!path || problem)
        return mr_fail(cx, MR_E_SCHEMA, "%s", problem ? problem : "dsn: postgres is not built in");

    int as_is = path[0] == '/' || strcmp(path, ":memory:") == 0;
    size_t size = strlen(mr_dir(cx)) + strlen(path) + 2;
    char *full = mr_alloc(cx, size);
    snprintf(full, size, "%s%s%s", as_is ? "" : mr_dir(cx), as_is ? "" : "/", path);
    inst->db = sql_db_new(full, set->statement, &inst->text);
    int rc = mr_offload(cx, open_on_thread, inst);
    if (rc == MR_OK && inst->code != MR_OK && inst->code != MR_E_RATE_LIMITED)
        rc = mr_fail(cx, inst->code, "%s", inst->message);
    if (rc != MR_OK)
        free_db(inst->db);
    else
        *ret_instance = inst;
    return rc;
}

static void close(void *instance)
{
    struct instance *inst = instance;
    free_db(inst->db);
}

/* A task */

static int to_bind(mr_context *cx, const json_t *value, struct sql_bind *ret)
{
    *ret = (struct sql_bind){.type = SQL_NULL};
    if (json_is_integer(value) || json_is_boolean(value)) {
        ret->type = SQL_INTEGER;
        ret->integer =
            json_is_integer(value) ? (int64_t)json_integer_value(value) : json_is_true(value);
    } else if (json_is_real(value)) {
        ret->type = SQL_REAL;
        ret->real = json_real_value(value);
    } else if (json_is_string(value)) {
        ret->type = SQL_TEXT;
        ret->text = json_string_value(value);
        ret->len = json_string_length(value);
    } else if (json_is_array(value) || json_is_object(value)) {
        uint64_t len = 0;
        int rc = mr_print(cx, value, &ret->text, &len);
        ret->type = SQL_TEXT;
        ret->len = (size_t)len;
        return rc;
    }
    return MR_OK;
}

/* The values to bind, in the order of the statement's names; texts point into `params`. */
static int make_binds(mr_context *cx, const struct sql_text *text, const json_t *params,
                      struct sql_bind *binds)
{
    if (!json_is_object(params))
        return mr_fail(cx, MR_E_SCHEMA, "\"params\" does not render to an object");
    for (uint32_t i = 0; i < text->count; i++) {
        const json_t *value = json_object_get(params, text->names[i]);
        if (!value)
            return mr_fail(cx, MR_E_SCHEMA,
                           "parameter :%s of the statement has no value in "
                           "\"params\"",
                           text->names[i]);
        int rc = to_bind(cx, value, &binds[i]);
        if (rc != MR_OK)
            return rc;
    }
    return MR_OK;
}

static void drop_rows(void *arg)
{
    struct sql_item *item = arg;
    json_decref(item->rows);
}

static void drop_json(void *arg)
{
    json_decref(arg);
}

MR_SUSPENDS static int run(mr_context *cx, const void *settings)
{
    const struct settings *set = settings;
    struct instance *inst = mr_instance(cx);
    json_t *params = NULL;
    int rc = mr_render(cx, set->params, &params);
    if (rc != MR_OK)
        return rc;
    mr_defer(cx, drop_json, params);
    struct sql_bind *binds = mr_alloc(cx, (inst->text.count + 1) * sizeof(*binds));
    rc = make_binds(cx, &inst->text, params, binds);
    if (rc != MR_OK)
        return rc;

    struct sql_item *item = mr_alloc(cx, sizeof(*item));
    item->db = inst->db;
    item->binds = binds;
    mr_defer(cx, drop_rows, item);
    rc = mr_batch(cx, inst->db, sql_db_run, item, inst->batch.max, inst->batch.linger_ms);
    if (rc != MR_OK)
        return rc;
    if (item->code != MR_OK)
        return mr_fail_as(cx, item->code, item->cls, 0, "%s", item->message);
    return mr_output(
        cx, json_pack("{s:O, s:I}", "rows", item->rows, "changes", (json_int_t)item->changes));
}

MR_PLUGIN(sql) = {
    MR_PLUGIN_HEAD("sql", struct settings, options),
    .version = "1.0",
    .summary = "One SQL statement; concurrent jobs share a transaction.",
    .doc = "Output: {\"rows\": [{column: value}], \"changes\": N}. Integers, reals, text and null "
           "keep their type, booleans become 0 and 1, arrays and objects their JSON text.",
    .check = check,
    .open = open,
    .run = run,
    .close = close,
};
