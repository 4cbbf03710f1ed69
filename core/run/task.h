/* A task as the host sees it: what stands behind the plugin's `mr_context`.
 *
 * A task lives on its fiber's stack from task_init to task_done. Everything that a plugin gets with
 * "until the task ends" lies in its arena or its list of clean-ups. During `open` there is a task
 * without a run, whose arena and clean-ups are the instance's. */
#pragma once

#include "run/runner.h"

struct task_defer {
    struct task_defer *next;
    void (*fn)(void *arg);
    void *arg;
};

/* What must not show up in a message: keys of endpoints that the task has used. */
struct task_secret {
    struct task_secret *next;
    const char *text;
};

/* One function of an mr_parallel: errors are its own until it is known which one counts. */
struct task_branch {
    struct task_branch *next;
    struct fiber *fiber;
    struct error *failure;
};

struct task {
    mr_context cx; /* first: a plugin's pointer to it is a pointer to the task */
    struct runner *runner;
    struct run *run; /* NULL while an instance opens */
    struct pipeline *pipeline;
    struct stage *stage;
    struct instance *instance;
    struct scope scope; /* of the attempt: child of the run's */
    struct doc *doc;    /* the task's view */
    struct arena *arena;
    struct arena own_arena;
    struct task_defer **defers, *own_defers;
    struct task_secret *secrets;
    struct task_branch *branches;
    struct error *failure; /* the last one; NULL: none yet */
    char *output;          /* JSON text; NULL: none yet */
    size_t output_len;
};

extern const struct mr_host host_table;

static inline struct task *task_of(mr_context *cx)
{
    return (struct task *)cx;
}

/* `run` NULL: opening an instance, with the scope's parent NULL. Enters nothing. */
void task_init(struct task *task, struct runner *runner, struct run *run, struct pipeline *pipeline,
               struct stage *stage);
/* Runs clean-ups, last in first out, and frees. */
void task_done(struct task *task);
void task_run_defers(struct task_defer **defers);

/* Whether a number that a plugin returned is MR_OK or a code of the table. */
bool task_is_code(int rc);
void *task_alloc(struct task *task, size_t size);
void task_defer(struct task *task, void (*fn)(void *arg), void *arg);
/* The record for an error of this task (of this branch of it): emptied, ready to be filled. */
struct error *task_failure(struct task *task);
/* The last error of this task (of this branch of it), or NULL. */
struct error *task_last_failure(struct task *task);
/* Takes the keys of used endpoints out of an error. */
void task_scrub(const struct task *task, struct error *err);
void task_add_secret(struct task *task, const char *text);
/* Called before whatever suspends: lent pointers end here, and so do the trees behind them. */
void task_suspends(struct task *task);
/* Sets the output; takes the text over. MR_E_SCHEMA when it is too long or too deep. */
int task_set_output(struct task *task, char *text, size_t len);

/* Expressions and printing on the loop's stack: a fiber's stays small. As in base/expr.h. */
int task_test(const mr_expr *expr, struct doc *doc, bool *ret_true, struct error *err);
int task_eval(const mr_expr *expr, struct doc *doc, json_t **ret_value, struct error *err);
int task_render(const mr_template *tpl, struct doc *doc, json_t **ret_value, struct error *err);
char *task_print(const json_t *value, size_t max_bytes, bool canonical, size_t *ret_len,
                 struct error *err);
