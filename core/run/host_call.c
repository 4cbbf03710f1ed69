/* Children: calls and dispatches, and the ids they get.
 *
 * The id is computed here, from the parent's id, the stage and the target, or from the declared
 * name, so that every way of running (worker, `millrace run`, tests) gives the same one. While a
 * task waits in a call it gives its place among the stage's `concurrency` back, and resumes without
 * asking for one: else a stage full of waiting parents would starve the children they wait for. */
#include "run/host.h"

#include "base/id.h"
#include "loop/offload.h"
#include "loop/watchdog.h"
#include "run/instance.h"
#include <string.h>

#define CALL_TIMEOUT_MS 10000u

void host_label(const struct task *task)
{
    watchdog_label(task->run != NULL ? task->run->job_id : "", task->stage->name,
                   task->stage->plugin_name);
}

int host_uuid(mr_context *cx, const char *name, char ret_id[MR_ID_BYTES])
{
    struct task *task = task_of(cx);
    if (name == NULL || name[0] == '\0')
        return error_set(task_failure(task), MR_E_SCHEMA, "the name of an id is empty");
    const char *ns = task->runner->id_namespace;
    id_of_name(ns != NULL ? ns : ID_NAMESPACE_DNS, name, ret_id);
    return MR_OK;
}

int host_child_id(mr_context *cx, const char *target, const char *name, char ret_id[MR_ID_BYTES])
{
    struct task *task = task_of(cx);
    if (name != NULL)
        return host_uuid(cx, name, ret_id);
    if (!host_needs_run(task, "mr_child_id"))
        return MR_E_PLUGIN;
    id_of_child(task->run->job_id, task->stage->name, target != NULL ? target : "", ret_id);
    return MR_OK;
}

/* A child with all that is resolved; `text` is its input. */
struct child {
    struct mr_child given; /* as far as both sides know it */
    struct run_child child;
    char id[ID_BYTES];
    char *text;
    json_t *input; /* held while the call suspends */
};

static void child_done(struct child *child)
{
    json_decref(child->input);
    free(child->text);
}
#define child_auto __attribute__((cleanup(child_done)))

static int child_init(struct child *ret, mr_context *cx, const struct mr_child *given,
                      const char *call)
{
    struct task *task = task_of(cx);
    size_t size = given->size;
    *ret = (struct child){0};
    if (!host_needs_run(task, call))
        return MR_E_PLUGIN;
    if (size == 0 || size > sizeof(ret->given))
        size = sizeof(ret->given);
    memcpy(&ret->given, given, size);
    if (ret->given.pipeline == NULL || ret->given.target == NULL || ret->given.input == NULL)
        return error_set(task_failure(task), MR_E_PLUGIN,
                         "%s needs a pipeline, a target and an input", call);
    int rc = host_child_id(cx, ret->given.target, ret->given.id, ret->id);
    if (rc != MR_OK)
        return rc;
    struct error why = {0};
    size_t len = 0;
    ret->text = task_print(ret->given.input, LIMIT_JOB_BYTES, true, &len, &why);
    if (ret->text == NULL) {
        *task_failure(task) = why;
        return why.code;
    }
    ret->child = (struct run_child){
        .id = ret->id,
        .pipeline = ret->given.pipeline,
        .stage = task->stage->name,
        .target = ret->given.target,
        .input = ret->text,
        .input_len = len,
        .input_value = ret->given.input,
        .timeout_ms = ret->given.timeout_ms != 0 ? ret->given.timeout_ms : CALL_TIMEOUT_MS,
        .has_name = ret->given.id != NULL,
    };
    return MR_OK;
}

int host_call(mr_context *cx, const struct mr_child *given, struct json_t **ret_result)
{
    struct task *task = task_of(cx);
    child_auto struct child child;
    int rc = child_init(&child, cx, given, "mr_call");
    if (rc != MR_OK)
        return rc;
    if (task->run->ops->call == NULL)
        return error_set(task_failure(task), MR_E_PLUGIN, "calls are not possible here");
    struct error why = {0};
    char *text = NULL;
    size_t len = 0;
    /* It may be lent by the document. */
    child.input = json_incref((json_t *)child.given.input);
    task_suspends(task);
    instance_leave(task->instance);
    rc = task->run->ops->call(task->run, task->stage, &child.child, &text, &len, &why);
    instance_return(task->instance);
    if (rc == MR_OK)
        rc = offload_json_read(task->runner->loop, text, len, ret_result, &why);
    free(text);
    if (rc != MR_OK)
        *task_failure(task) = why;
    return rc;
}

int host_dispatch(mr_context *cx, const struct mr_child *given, char ret_id[MR_ID_BYTES])
{
    struct task *task = task_of(cx);
    child_auto struct child child;
    int rc = child_init(&child, cx, given, "mr_dispatch");
    if (rc != MR_OK)
        return rc;
    if (task->run->ops->dispatch == NULL)
        return error_set(task_failure(task), MR_E_PLUGIN, "dispatches are not possible here");
    struct error why = {0};
    child.input = json_incref((json_t *)child.given.input);
    task_suspends(task);
    rc = task->run->ops->dispatch(task->run, task->stage, &child.child, &why);
    if (rc != MR_OK) {
        *task_failure(task) = why;
        return rc;
    }
    memcpy(ret_id, child.id, MR_ID_BYTES);
    return MR_OK;
}
