/* See instance.h. */
#include "run/instance.h"

#include "base/clock.h"
#include "base/mem.h"
#include "loop/watchdog.h"
#include "run/runner_inner.h"

struct instance *instance_of(struct runner *runner, struct pipeline *pipeline, struct stage *stage)
{
    if (stage->host_data != NULL)
        return stage->host_data;
    struct instance *instance = mem_zalloc(sizeof(*instance));
    instance->runner = runner;
    instance->pipeline = pipeline_ref(pipeline);
    instance->stage = stage;
    arena_init(&instance->arena);
    if (stage->plugin->about.open == NULL)
        instance->state = INSTANCE_OPEN;
    instance->next = runner->priv->instances;
    runner->priv->instances = instance;
    stage->host_data = instance;
    return instance;
}

/* Waiters: a list in order of arrival. */

static int wait_in(struct instance_waiter **list, struct loop *loop)
{
    struct instance_waiter waiter = {.link = list};
    wait_init(&waiter.wait, loop);
    while (*waiter.link != NULL)
        waiter.link = &(*waiter.link)->next;
    *waiter.link = &waiter;
    int rc = wait_for(&waiter.wait, UINT64_MAX);
    if (waiter.link != NULL) {
        *waiter.link = waiter.next;
        if (waiter.next != NULL)
            waiter.next->link = waiter.link;
    }
    return rc;
}

/* Wakes the first one that still waits: one whose scope has ended may not have run yet. */
static bool wake_first(struct instance_waiter **list)
{
    while (*list != NULL) {
        struct instance_waiter *first = *list;
        *list = first->next;
        if (first->next != NULL)
            first->next->link = list;
        first->link = NULL;
        if (first->wait.done)
            continue;
        wait_wake(&first->wait, MR_OK);
        return true;
    }
    return false;
}

/* Opening */

static void open_main(void *arg)
{
    struct instance *instance = arg;
    struct stage *stage = instance->stage;
    struct task task;
    void *value = NULL;
    task_init(&task, instance->runner, NULL, instance->pipeline, stage);
    task.instance = instance;
    task.arena = &instance->arena;
    task.defers = &instance->defers;
    task.scope.deadline_ms = clock_now_ms() + INSTANCE_OPEN_MS;
    struct scope *before = scope_enter(&task.scope);
    instance->scope = &task.scope;
    watchdog_label("", stage->name, stage->plugin_name);
    int rc = stage->plugin->about.open(&task.cx, stage->settings, &value);
    watchdog_label(NULL, NULL, NULL);
    scope_enter(before);
    instance->scope = NULL;
    if (rc == MR_OK) {
        instance->value = stage->instance = value;
        instance->state = INSTANCE_OPEN;
    } else {
        const struct error *why = task_last_failure(&task);
        if (why != NULL && why->code == rc)
            instance->failure = *why;
        else if (!task_is_code(rc))
            error_set(&instance->failure, MR_E_INTERNAL,
                      "opening plugin \"%s\" returned %d, which is no code of millrace",
                      stage->plugin_name, rc);
        else
            error_set(&instance->failure, rc, "plugin \"%s\" could not open: %s",
                      stage->plugin_name, error_text(rc));
        task_scrub(&task, &instance->failure);
        task_run_defers(&instance->defers);
        arena_done(&instance->arena);
        instance->state = INSTANCE_CLOSED;
    }
    task_done(&task);
    while (wake_first(&instance->opening))
        ;
}

int instance_open(struct instance *instance, struct error *err)
{
    struct runner *runner = instance->runner;
    if (instance->state == INSTANCE_OPEN)
        return MR_OK;
    if (instance->state == INSTANCE_CLOSED) {
        instance->state = INSTANCE_OPENING;
        int rc = group_spawn(&runner->priv->helpers, NULL, open_main, instance);
        if (rc != MR_OK) {
            instance->state = INSTANCE_CLOSED;
            return error_set(err, rc, "no fiber to open plugin \"%s\" on",
                             instance->stage->plugin_name);
        }
    }
    int rc = wait_in(&instance->opening, runner->loop);
    if (rc != MR_OK)
        return error_set(err, rc, "while waiting for plugin \"%s\" to open: %s",
                         instance->stage->plugin_name, error_text(rc));
    if (instance->state == INSTANCE_OPEN)
        return MR_OK;
    if (err != NULL)
        *err = instance->failure;
    return instance->failure.code;
}

/* Places */

int instance_enter(struct instance *instance)
{
    uint32_t most = instance->stage->concurrency;
    if (most == 0 || instance->running < most) {
        instance->running++;
        return MR_OK;
    }
    /* Whoever wakes us hands its place over, so that nobody can slip in between. */
    return wait_in(&instance->queue, instance->runner->loop);
}

void instance_leave(struct instance *instance)
{
    uint32_t most = instance->stage->concurrency;
    if (instance->running > most || !wake_first(&instance->queue))
        instance->running--;
}

void instance_return(struct instance *instance)
{
    instance->running++;
}

void instance_free(struct instance *instance)
{
    if (instance->state == INSTANCE_OPEN && instance->stage->plugin->about.close != NULL)
        instance->stage->plugin->about.close(instance->value);
    task_run_defers(&instance->defers);
    arena_done(&instance->arena);
    instance->stage->host_data = NULL;
    instance->stage->instance = NULL;
    pipeline_unref(instance->pipeline);
    free(instance);
}
