/* Children of jobs in memory: found by their ids, or made; a call waits for one. */
#include "run/local_inner.h"

#include "base/mem.h"
#include <string.h>

static struct local_job *job_find(struct session *session, const char *id)
{
    for (struct local_job *job = session->jobs; job != NULL; job = job->next)
        if (strcmp(job->id, id) == 0)
            return job;
    return NULL;
}

static int check_ancestors(const struct local_job *parent, const struct run_child *child,
                           struct error *err)
{
    unsigned depth = 0; /* ancestors that the child would have */
    for (const struct local_job *job = parent; job != NULL; job = job->parent, depth++) {
        if (strcmp(job->id, child->id) == 0) {
            error_set(err, MR_E_CALL_FAILED, "the called job waits for the one that calls it");
            err->class = MR_CLASS_PERMANENT;
            return err->code;
        }
    }
    if (depth <= LIMIT_ANCESTORS)
        return MR_OK;
    error_set(err, MR_E_CALL_FAILED, "calls are nested more than %u deep", LIMIT_ANCESTORS);
    err->class = MR_CLASS_PERMANENT;
    return err->code;
}

static int check_child_input(struct pipeline *pipeline, const struct run_child *child,
                             struct error *err)
{
    struct report report;
    int rc = MR_OK;
    report_init(&report);
    if (!pipeline_check_input(pipeline, child->input_value, &report))
        rc = error_set(err, MR_E_SCHEMA, "pipeline \"%s\" does not take this input: %s %s",
                       child->pipeline, report.items[0].where, report.items[0].message);
    report_done(&report);
    return rc;
}

/* The child, which exists from now on. */
static int take_child(struct local_job *parent, const struct run_child *child, bool called,
                      struct local_job **ret_job, struct error *err)
{
    struct session *session = parent->session;
    struct local_job *job = job_find(session, child->id);
    if (job != NULL && strcmp(job->pipeline->name, child->pipeline) != 0)
        return error_set(err, MR_E_ID_CONFLICT, "the id %s belongs to a job of pipeline \"%s\"",
                         child->id, job->pipeline->name);
    int rc = called ? check_ancestors(parent, child, err) : MR_OK;
    if (rc != MR_OK)
        return rc;
    if (job == NULL) {
        struct pipeline *pipeline = NULL;
        if (session->setup->find_pipeline != NULL)
            pipeline = session->setup->find_pipeline(session->setup->arg, child->pipeline, err);
        else
            error_set(err, MR_E_PLUGIN, "there is no pipeline \"%s\" here", child->pipeline);
        if (pipeline == NULL)
            return err->code != MR_OK ? err->code : MR_E_PLUGIN;
        rc = check_child_input(pipeline, child, err);
        if (rc != MR_OK)
            return rc;
        job = local_job_new(session, child->id, pipeline, child->input, child->input_len,
                            called ? parent : NULL, called ? child->timeout_ms : 0);
        rc = local_job_start(job, err);
        if (rc != MR_OK)
            return rc;
    }
    *ret_job = job;
    return MR_OK;
}

static int wait_child(struct local_job *job, uint64_t timeout_ms, struct error *err)
{
    if (job->ended) /* NOLINT(clang-analyzer-core.NullDereference): found or started before */
        return MR_OK;
    struct local_waiter waiter = {.next = job->waiters};
    wait_init(&waiter.wait, job->session->setup->runner->loop);
    job->waiters = &waiter;
    int rc = wait_for(&waiter.wait, timeout_ms);
    struct local_waiter **link = &job->waiters;
    while (*link != NULL && *link != &waiter)
        link = &(*link)->next;
    if (*link == &waiter)
        *link = waiter.next;
    if (rc == MR_E_TIMEOUT && waiter.wait.expired)
        return error_set(err, MR_E_CALL_TIMEOUT, "pipeline \"%s\" did not end within %llu ms",
                         job->pipeline->name, (unsigned long long)timeout_ms);
    if (rc != MR_OK)
        return error_set(err, rc, "while waiting for pipeline \"%s\": %s", job->pipeline->name,
                         error_text(rc));
    return MR_OK;
}

int local_call(struct run *run, struct stage *stage, const struct run_child *child, char **ret_text,
               size_t *ret_len, struct error *err)
{
    (void)stage;
    struct local_job *job = NULL;
    int rc = take_child(((struct local_job *)run->data), child, true, &job, err);
    if (rc == MR_OK)
        rc = wait_child(job, child->timeout_ms, err);
    if (rc != MR_OK)
        return rc;
    if (job->error.code != MR_OK) {
        /* A child that ran into the time its parent gave it. */
        if (job->error.code == MR_E_DEADLINE && job->parent != NULL)
            return error_set(err, MR_E_CALL_TIMEOUT, "pipeline \"%s\" did not end in time",
                             child->pipeline);
        error_set(err, MR_E_CALL_FAILED, "pipeline \"%s\" failed: %s", child->pipeline,
                  job->error.message);
        error_hint(err, "%s", job->error.hint);
        /* What failed for good is not run again within this run of the parent. */
        if (error_class_of(&job->error) != MR_CLASS_RETRY)
            err->class = MR_CLASS_PERMANENT;
        return MR_E_CALL_FAILED;
    }
    *ret_text = mem_ndup(job->result, job->result_len);
    *ret_len = job->result_len;
    return MR_OK;
}

int local_dispatch(struct run *run, struct stage *stage, const struct run_child *child,
                   struct error *err)
{
    (void)stage;
    struct local_job *job = NULL;
    return take_child(((struct local_job *)run->data), child, false, &job, err);
}
