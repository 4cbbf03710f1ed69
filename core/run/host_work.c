/* Calls that wait or work: sleep, threads, batches, functions side by side. */
#include "loop/offload.h"
#include "run/batch.h"
#include "run/host.h"

#define PARALLEL_MAX 1000u

static int ended(struct task *task, int rc)
{
    if (rc != MR_OK)
        error_set(task_failure(task), rc, "%s", error_text(rc));
    return rc;
}

int host_sleep(mr_context *cx, uint64_t ms)
{
    struct task *task = task_of(cx);
    task_suspends(task);
    return ended(task, wait_sleep(task->runner->loop, ms));
}

int host_offload(mr_context *cx, void (*fn)(void *arg), void *arg)
{
    struct task *task = task_of(cx);
    task_suspends(task);
    return ended(task, offload_run(task->runner->loop, fn, arg));
}

int host_batch(mr_context *cx, const void *key, void (*fn)(void **items, uint32_t count),
               void *item, uint32_t max, uint64_t linger_ms)
{
    struct task *task = task_of(cx);
    struct error why = {0};
    task_suspends(task);
    int rc = batch_run(task->runner, task->instance, key, fn, item, max, linger_ms, &why);
    if (rc != MR_OK)
        *task_failure(task) = why;
    return rc;
}

struct branch_call {
    struct task *task;
    int (*fn)(mr_context *cx, void *arg, uint32_t index);
    void *arg;
    uint32_t index;
    int rc;
    struct task_branch branch;
};

static void branch_main(void *arg)
{
    struct branch_call *call = arg;
    struct task *task = call->task;
    call->branch.fiber = fiber_self();
    call->branch.next = task->branches;
    task->branches = &call->branch;
    host_label(task);
    call->rc = call->fn(&task->cx, call->arg, call->index);
    struct task_branch **link = &task->branches;
    while (*link != &call->branch)
        link = &(*link)->next;
    *link = call->branch.next;
}

int host_parallel(mr_context *cx, int (*fn)(mr_context *cx, void *arg, uint32_t index), void *arg,
                  uint32_t count)
{
    struct task *task = task_of(cx);
    if (count == 0)
        return MR_OK;
    if (count > PARALLEL_MAX)
        return error_set(task_failure(task), MR_E_PLUGIN, "%u functions side by side, at most %u",
                         (unsigned)count, PARALLEL_MAX);
    struct branch_call *calls = task_alloc(task, count * sizeof(*calls));
    struct group group;
    group_init(&group, task->runner->loop);
    task_suspends(task);
    uint32_t started = 0;
    while (started < count) {
        struct branch_call *call = &calls[started];
        *call = (struct branch_call){.task = task, .fn = fn, .arg = arg, .index = started};
        if (group_spawn(&group, scope_current(), branch_main, call) != MR_OK)
            break;
        started++;
    }
    group_wait(&group);
    /* Without stacks for all, the rest runs here, one after the other. */
    for (uint32_t i = started; i < count; i++) {
        calls[i] = (struct branch_call){.task = task, .fn = fn, .arg = arg, .index = i};
        branch_main(&calls[i]);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (calls[i].rc == MR_OK)
            continue;
        if (calls[i].branch.failure != NULL)
            *task_failure(task) = *calls[i].branch.failure;
        return calls[i].rc;
    }
    return MR_OK;
}
