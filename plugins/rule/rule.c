/* rule: looks an answer up by key, in memory.
 *
 * The source, a JSON file or a folder of them, is read when the process begins and held as a table
 * (rule_table.c). With `reload`, the first task after a second has passed has the files' times
 * compared, on a thread, and other tasks go on with the table that is there. A new table takes the
 * place of the old one only when every file of it could be read; a broken file is logged once, and
 * the old answers stay. */
#include "rule.h"
#include <jansson.h>
#include <millrace/plugin.h>
#include <string.h>

#define LOOK_EVERY_MS 1000u

struct settings {
    const char *source;
    const mr_template *keys;
    const struct json_t *fallback;
    int32_t reload;
};

static const struct mr_option options[] = {
    MR_OPT_PATH(struct settings, source, "source", NULL, MR_REQUIRED,
                "A JSON file (an object of key and answer), or a folder of KEY.json files."),
    MR_OPT_TEMPLATE(struct settings, keys, "keys", NULL, MR_REQUIRED | MR_LENIENT,
                    "Keys, tried in order; the first that is present wins."),
    MR_OPT_JSON(struct settings, fallback, "default", "null", 0, "The output when none is."),
    MR_OPT_BOOL(struct settings, reload, "reload", "true", 0,
                "Whether changes of the files are taken up while running."),
};

struct instance {
    struct rule_table *table;
    struct rule_read read; /* the thread's while `looking` */
    uint64_t looked_ms;
    int looking;
};

static void check(const void *settings, const struct mr_check *check)
{
    (void)settings;
    const json_t *keys = json_object_get(check->options, "keys");
    if (keys && !json_is_string(keys) && json_array_size(keys) == 0)
        check->error(check->self, "/keys", "is not a list of keys",
                     "[\"{{ .input.kind }}\", \"other\"]");
}

MR_SUSPENDS static int open(mr_context *cx, const void *settings, void **ret_instance)
{
    const struct settings *set = settings;
    struct instance *inst = mr_alloc(cx, sizeof(*inst));
    inst->read.source = set->source;
    inst->looked_ms = mr_now(cx);
    int rc = mr_offload(cx, rule_read, &inst->read);
    if (rc == MR_OK && !inst->read.table)
        rc = mr_fail(cx, MR_E_PLUGIN, "rules: %s", inst->read.problem);
    inst->table = inst->read.table;
    if (rc != MR_OK)
        rule_table_free(inst->table);
    else
        *ret_instance = inst;
    return rc;
}

static void close(void *instance)
{
    struct instance *inst = instance;
    rule_table_free(inst->table);
}

/* Has the files looked at when a second has passed, unless another task is doing so. */
MR_SUSPENDS static int look(mr_context *cx, struct instance *inst)
{
    uint64_t now = mr_now(cx);
    if (inst->looking || now - inst->looked_ms < LOOK_EVERY_MS)
        return MR_OK;
    inst->looking = 1;
    inst->looked_ms = now;
    inst->read.table = NULL;
    inst->read.problem[0] = 0;
    int rc = mr_offload(cx, rule_read, &inst->read);
    inst->looking = 0;
    if (inst->read.table) {
        rule_table_free(inst->table);
        inst->table = inst->read.table;
        mr_log(cx, MR_LOG_INFO, "rules taken up again from \"%s\": %zu answers", inst->read.source,
               rule_table_count(inst->table));
    } else if (inst->read.problem[0])
        mr_log(cx, MR_LOG_ERROR, "rules stay as they were: %s", inst->read.problem);
    return rc;
}

/* The answer to a rendered key, or NULL: a key that is null (a part of it is missing) has none. */
static int find(mr_context *cx, const struct instance *inst, const json_t *key,
                const char **ret_text, size_t *ret_len)
{
    *ret_text = NULL;
    if (json_is_string(key)) {
        *ret_text =
            rule_table_find(inst->table, json_string_value(key), json_string_length(key), ret_len);
        return MR_OK;
    }
    if (json_is_null(key))
        return MR_OK;
    if (json_is_array(key) || json_is_object(key))
        return mr_fail(cx, MR_E_SCHEMA, "a key renders to an array or an object, not to text");
    const char *text = NULL;
    uint64_t len = 0;
    int rc = mr_print(cx, key, &text, &len);
    if (rc == MR_OK)
        *ret_text = rule_table_find(inst->table, text, (size_t)len, ret_len);
    return rc;
}

static void drop_json(void *arg)
{
    json_decref(arg);
}

MR_SUSPENDS static int run(mr_context *cx, const void *settings)
{
    const struct settings *set = settings;
    struct instance *inst = mr_instance(cx);
    json_t *keys = NULL;
    int rc = set->reload ? look(cx, inst) : MR_OK;
    if (rc == MR_OK)
        rc = mr_render(cx, set->keys, &keys);
    if (rc != MR_OK)
        return rc;
    mr_defer(cx, drop_json, keys);
    size_t count = json_is_array(keys) ? json_array_size(keys) : 1;
    for (size_t i = 0; i < count; i++) {
        const char *text = NULL;
        size_t len = 0;
        rc = find(cx, inst, json_is_array(keys) ? json_array_get(keys, i) : keys, &text, &len);
        if (rc != MR_OK)
            return rc;
        if (text)
            return mr_output_text(cx, text, len);
    }
    return mr_output(cx, set->fallback ? json_deep_copy(set->fallback) : json_null());
}

MR_PLUGIN(rule) = {
    MR_PLUGIN_HEAD("rule", struct settings, options),
    .version = "1.0",
    .summary = "Looks an answer up by key in JSON files held in memory.",
    .doc = "Output: the answer as it stands in the file. Keys with a missing part are skipped.",
    .capabilities = MR_CAN_REPEAT,
    .check = check,
    .open = open,
    .run = run,
    .close = close,
};
