/* A task's life: memory, clean-ups, errors, output. See task.h. */
#include "run/task.h"

#include "base/mem.h"
#include <string.h>

void task_init(struct task *task, struct runner *runner, struct run *run, struct pipeline *pipeline,
               struct stage *stage)
{
    *task = (struct task){.cx = {.host = &host_table},
                          .runner = runner,
                          .run = run,
                          .pipeline = pipeline,
                          .stage = stage};
    scope_init(&task->scope, run != NULL ? &run->scope : NULL);
    arena_init(&task->own_arena);
    task->arena = &task->own_arena;
    task->defers = &task->own_defers;
    task->doc = run != NULL ? doc_view(run->doc) : doc_new();
}

void task_run_defers(struct task_defer **defers)
{
    while (*defers != NULL) {
        struct task_defer *defer = *defers;
        *defers = defer->next;
        defer->fn(defer->arg);
    }
}

void task_done(struct task *task)
{
    task_run_defers(&task->own_defers);
    doc_free(task->doc);
    free(task->output);
    arena_done(&task->own_arena);
    scope_done(&task->scope);
}

bool task_is_code(int rc)
{
    switch (rc) {
#define MR_X(name, number, word, cls, http, text) case number:
        MR_ERRORS(MR_X)
#undef MR_X
    case MR_OK:
        return true;
    default:
        return false;
    }
}

void *task_alloc(struct task *task, size_t size)
{
    return arena_alloc(task->arena, size);
}

void task_defer(struct task *task, void (*fn)(void *arg), void *arg)
{
    struct task_defer *defer = arena_alloc(task->arena, sizeof(*defer));
    *defer = (struct task_defer){*task->defers, fn, arg};
    *task->defers = defer;
}

static struct error **failure_slot(struct task *task)
{
    if (task->branches != NULL) {
        const struct fiber *self = fiber_self();
        for (struct task_branch *branch = task->branches; branch != NULL; branch = branch->next)
            if (branch->fiber == self)
                return &branch->failure;
    }
    return &task->failure;
}

struct error *task_failure(struct task *task)
{
    struct error **slot = failure_slot(task);
    if (*slot == NULL)
        *slot = arena_alloc(&task->own_arena, sizeof(struct error));
    **slot = (struct error){0};
    return *slot;
}

struct error *task_last_failure(struct task *task)
{
    return *failure_slot(task);
}

void task_add_secret(struct task *task, const char *text)
{
    if (text == NULL || text[0] == '\0')
        return;
    for (const struct task_secret *secret = task->secrets; secret != NULL; secret = secret->next)
        if (secret->text == text)
            return;
    struct task_secret *secret = arena_alloc(&task->own_arena, sizeof(*secret));
    *secret = (struct task_secret){task->secrets, text};
    task->secrets = secret;
}

/* A message may have been cut within a key, so a beginning of this length counts as the key. */
#define SCRUB_PREFIX 8u

static void scrub_field(const struct task *task, char *field)
{
    for (const struct task_secret *secret = task->secrets; secret != NULL; secret = secret->next) {
        size_t len = strlen(secret->text);
        size_t least = len < SCRUB_PREFIX ? len : SCRUB_PREFIX;
        for (char *at = field; *at != '\0'; at++) {
            size_t found = 0;
            while (found < len && at[found] == secret->text[found])
                found++;
            if (found < least)
                continue;
            /* Shorter or as long: keys of fewer than three bytes would be no keys. */
            size_t kept = found < 3 ? found : 3;
            memset(at, '*', kept);
            memmove(at + kept, at + found, strlen(at + found) + 1);
            at += kept - 1;
        }
    }
}

void task_scrub(const struct task *task, struct error *err)
{
    scrub_field(task, err->message);
    scrub_field(task, err->detail);
    scrub_field(task, err->hint);
    scrub_field(task, err->where);
}

void task_suspends(struct task *task)
{
    /* Another fiber runs only while this one is suspended, so nobody borrows from the document. */
    doc_forget(task->doc);
}

int task_set_output(struct task *task, char *text, size_t len)
{
    struct error *err = NULL;
    if (len > LIMIT_OUTPUT_BYTES) {
        err = task_failure(task);
        error_set(err, MR_E_SCHEMA, "the output has %zu bytes, more than the %u that are allowed",
                  len, LIMIT_OUTPUT_BYTES);
    } else if (json_text_depth(text, len) > LIMIT_JSON_DEPTH) {
        err = task_failure(task);
        error_set(err, MR_E_SCHEMA, "the output is nested more than %u levels deep",
                  LIMIT_JSON_DEPTH);
    }
    if (err != NULL) {
        free(text);
        return MR_E_SCHEMA;
    }
    free(task->output);
    task->output = text;
    task->output_len = len;
    return MR_OK;
}
