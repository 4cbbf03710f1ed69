/* Expressions, templates and printing on the loop's stack: jq's frames and deep JSON would make a
 * fiber's stack grow for good, ten thousand times. None of it suspends. */
#include "run/task.h"

struct work {
    enum { WORK_TEST, WORK_EVAL, WORK_RENDER, WORK_PRINT, WORK_CANONICAL } kind;
    const mr_expr *expr;
    const mr_template *tpl;
    struct doc *doc;
    const json_t *value;
    size_t max_bytes;
    struct error *err;
    int rc;
    bool truth;
    json_t *result;
    char *text;
    size_t len;
};

static void work_canonical(struct work *work)
{
    struct buf buf;
    buf_init(&buf, work->max_bytes);
    if (json_canonical_to(work->value, &buf)) {
        work->len = buf.len;
        work->text = buf_take(&buf);
        return;
    }
    buf_done(&buf);
    error_set(work->err, MR_E_SCHEMA, "the value has more than %zu bytes, or is no JSON",
              work->max_bytes);
}

static void work_main(void *arg)
{
    struct work *work = arg;
    switch (work->kind) {
    case WORK_TEST:
        work->rc = expr_test(work->expr, work->doc, &work->truth, work->err);
        break;
    case WORK_EVAL:
        work->rc = expr_eval(work->expr, work->doc, &work->result, work->err);
        break;
    case WORK_RENDER:
        work->rc = expr_render(work->tpl, work->doc, &work->result, work->err);
        break;
    case WORK_PRINT:
        work->text = json_print(work->value, work->max_bytes, &work->len, work->err);
        break;
    case WORK_CANONICAL:
        work_canonical(work);
        break;
    }
}

int task_test(const mr_expr *expr, struct doc *doc, bool *ret_true, struct error *err)
{
    struct work work = {.kind = WORK_TEST, .expr = expr, .doc = doc, .err = err};
    fiber_on_loop(work_main, &work);
    if (work.rc == MR_OK)
        *ret_true = work.truth;
    return work.rc;
}

int task_eval(const mr_expr *expr, struct doc *doc, json_t **ret_value, struct error *err)
{
    struct work work = {.kind = WORK_EVAL, .expr = expr, .doc = doc, .err = err};
    fiber_on_loop(work_main, &work);
    if (work.rc == MR_OK)
        *ret_value = work.result;
    return work.rc;
}

int task_render(const mr_template *tpl, struct doc *doc, json_t **ret_value, struct error *err)
{
    struct work work = {.kind = WORK_RENDER, .tpl = tpl, .doc = doc, .err = err};
    fiber_on_loop(work_main, &work);
    if (work.rc == MR_OK)
        *ret_value = work.result;
    return work.rc;
}

char *task_print(const json_t *value, size_t max_bytes, bool canonical, size_t *ret_len,
                 struct error *err)
{
    struct work work = {.kind = canonical ? WORK_CANONICAL : WORK_PRINT,
                        .value = value,
                        .max_bytes = max_bytes,
                        .err = err};
    fiber_on_loop(work_main, &work);
    if (work.text != NULL)
        *ret_len = work.len;
    return work.text;
}
