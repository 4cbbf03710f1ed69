/* What a pipeline is asked while jobs run: a stage by name, whether an input fits, the input of a
 * prompt, the result of a document. */
#include "base/limits.h"
#include "run/pipeline.h"
#include "run/pipeline_schema.h"
#include <string.h>

struct stage *pipeline_stage(const struct pipeline *pipeline, const char *name)
{
    for (uint32_t i = 0; i < pipeline->stage_count; i++)
        if (strcmp(pipeline->stages[i].name, name) == 0)
            return &pipeline->stages[i];
    return NULL;
}

bool pipeline_check_input(const struct pipeline *pipeline, const json_t *input,
                          struct report *report)
{
    const json_t *schema = pipeline->input_schema;
    if (schema == NULL)
        return true;
    /* A schema that speaks of members wants an object, whether it says so or not. */
    bool members = json_object_get(schema, "properties") != NULL ||
                   json_object_get(schema, "required") != NULL;
    if (members && json_object_get(schema, "type") == NULL && !json_is_object(input)) {
        report_add(report, NULL, "/input", "must be an object");
        return false;
    }
    return schema_validate(schema, input, "/input", report);
}

int pipeline_tasks_input(struct pipeline *pipeline, const char *prompt, json_t **ret_input,
                         struct error *err)
{
    json_t *text = json_string(prompt);
    if (text == NULL)
        return error_set(err, MR_E_SCHEMA, "the prompt is not UTF-8 text");
    struct doc *doc = doc_new();
    doc_steal_value(doc, "prompt", text);
    int rc = expr_render(pipeline->tasks_input, doc, ret_input, err);
    doc_free(doc);
    return rc;
}

/* `{"stage": output, …}` of what is there, spliced from text. */
static int result_of_all(struct pipeline *pipeline, struct doc *doc, struct buf *buf)
{
    buf_add_char(buf, '{');
    bool first = true;
    for (uint32_t i = 0; i < pipeline->stage_count; i++) {
        const char *name = pipeline->stages[i].name;
        size_t len = 0;
        const char *text = doc_text(doc, name, &len);
        if (text == NULL)
            continue;
        buf_add_text(buf, first ? "\"" : ",\"");
        buf_add_text(buf, name);
        buf_add_text(buf, "\":");
        buf_add(buf, text, len);
        first = false;
    }
    return buf_add_char(buf, '}') ? MR_OK : MR_E_SCHEMA;
}

int pipeline_result(struct pipeline *pipeline, struct doc *doc, char **ret_text, size_t *ret_len,
                    struct error *err)
{
    struct buf buf;
    buf_init(&buf, LIMIT_JOB_BYTES);
    int rc = MR_OK;
    if (pipeline->result == NULL) {
        rc = result_of_all(pipeline, doc, &buf);
    } else {
        json_hold json_t *value = NULL;
        rc = expr_render(pipeline->result, doc, &value, err);
        if (rc == MR_OK && !json_print_to(value, &buf))
            rc = MR_E_SCHEMA;
        else if (rc != MR_OK) {
            error_where(err, "%s: /result", pipeline->file);
            buf_done(&buf);
            return rc;
        }
    }
    if (rc != MR_OK || buf.failed) {
        buf_done(&buf);
        return error_set(err, MR_E_SCHEMA, "the result has more than %u bytes", LIMIT_JOB_BYTES);
    }
    *ret_len = buf.len;
    *ret_text = buf_take(&buf);
    return MR_OK;
}
