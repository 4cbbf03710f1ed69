/* The switch itself, on ucontext (0.36 µs a pair, against some 100 µs of work for a job).
 *
 * `struct fiber` lies at the top of its own stack's mapping. All state of a thread is in `here`:
 * the context of the loop, and which fiber runs. A fiber leaves its stack for one of three reasons,
 * noted in `leave`: it suspends, it has ended, or it wants a function run on the loop's stack
 * (fiber_on_loop); fiber_resume, on the loop's stack, is where all three arrive.
 *
 * For AddressSanitizer each switch is announced, and uc_stack is cleared after makecontext: its
 * interceptor of swapcontext would otherwise wipe the red zones of a stack that is entered again,
 * and miss overflows. */
#include "fiber/fiber.h"
#include "base/limits.h"
#include "fiber/sanitize.h"
#include "fiber/stack.h"
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

enum leave { LEAVE_SUSPEND, LEAVE_END, LEAVE_CALL };

struct fiber {
    ucontext_t context;
    struct stack *stack;
    void (*fn)(void *arg);
    void *arg;
    void *data;
    void (*call_fn)(void *arg); /* fiber_on_loop */
    void *call_arg;
    void *asan_fake, *tsan;
    enum leave leave;
};

static _Thread_local struct {
    ucontext_t loop;
    struct fiber *running; /* NULL on the loop's stack, also while fiber_on_loop calls */
    struct fiber *active;  /* the fiber between its resume and its suspension */
    struct stack_pool pool;
    size_t peak, limit; /* limit 0: LIMIT_FIBERS */
    const void *loop_low;
    size_t loop_size;
    void *loop_fake, *loop_tsan;
} here;

static _Noreturn void misuse(const char *what)
{
    fprintf(stderr, "millrace: %s\n", what);
    abort();
}

/* From the fiber to the loop; returns when the fiber is entered again. */
static void leave_fiber(struct fiber *fiber, enum leave leave)
{
    fiber->leave = leave;
    here.running = NULL;
    sanitize_switch(leave == LEAVE_END ? NULL : &fiber->asan_fake, here.loop_low, here.loop_size);
    sanitize_fiber_switch(here.loop_tsan);
    swapcontext(&fiber->context, &here.loop);
    sanitize_switched(fiber->asan_fake, &here.loop_low, &here.loop_size);
}

static void fiber_main(void)
{
    struct fiber *fiber = here.running;
    sanitize_switched(NULL, &here.loop_low, &here.loop_size);
    fiber->fn(fiber->arg);
    leave_fiber(fiber, LEAVE_END);
    misuse("a fiber that had ended was resumed");
}

/* From the loop to the fiber; returns when it leaves its stack. */
static void enter_fiber(struct fiber *fiber)
{
    here.running = fiber;
    here.loop_tsan = sanitize_fiber_self();
    sanitize_switch(&here.loop_fake, fiber->stack->low, fiber->stack->size);
    sanitize_fiber_switch(fiber->tsan);
    swapcontext(&here.loop, &fiber->context);
    sanitize_switched(here.loop_fake, NULL, NULL);
}

struct fiber *fiber_new(void (*fn)(void *arg), void *arg)
{
    if (here.pool.open >= (here.limit ? here.limit : LIMIT_FIBERS))
        return NULL;
    struct stack *stack = stack_open(&here.pool, sizeof(struct fiber));
    if (!stack)
        return NULL;
    if (here.pool.open > here.peak)
        here.peak = here.pool.open;
    struct fiber *fiber = (void *)stack->top;
    fiber->stack = stack;
    fiber->fn = fn;
    fiber->arg = arg;
    fiber->data = NULL;
    fiber->asan_fake = NULL;
    fiber->tsan = sanitize_fiber_new();
    if (getcontext(&fiber->context) != 0)
        misuse("getcontext failed");
    fiber->context.uc_stack.ss_sp = stack->low;
    fiber->context.uc_stack.ss_size = stack->size;
    fiber->context.uc_link = NULL;
    makecontext(&fiber->context, fiber_main, 0);
    fiber->context.uc_stack.ss_sp = NULL;
    fiber->context.uc_stack.ss_size = 0;
    return fiber;
}

void fiber_resume(struct fiber *fiber)
{
    if (here.active)
        misuse("fiber_resume outside of the loop's stack");
    here.active = fiber;
    enter_fiber(fiber);
    while (fiber->leave == LEAVE_CALL) {
        fiber->call_fn(fiber->call_arg);
        enter_fiber(fiber);
    }
    here.active = NULL;
    if (fiber->leave == LEAVE_END) {
        sanitize_fiber_free(fiber->tsan);
        stack_close(&here.pool, fiber->stack);
    }
}

void fiber_suspend(void)
{
    if (!here.running)
        misuse("fiber_suspend outside of a fiber");
    leave_fiber(here.running, LEAVE_SUSPEND);
}

struct fiber *fiber_self(void)
{
    return here.running;
}

void fiber_on_loop(void (*fn)(void *arg), void *arg)
{
    struct fiber *fiber = here.running;
    if (!fiber) {
        fn(arg);
        return;
    }
    fiber->call_fn = fn;
    fiber->call_arg = arg;
    leave_fiber(fiber, LEAVE_CALL);
}

void fiber_set_data(struct fiber *fiber, void *data)
{
    fiber->data = data;
}

void *fiber_data(const struct fiber *fiber)
{
    return fiber->data;
}

void fiber_get_stats(struct fiber_stats *ret)
{
    *ret = (struct fiber_stats){
        .live = here.pool.open,
        .peak = here.peak,
        .pooled = here.pool.pooled,
        .stack_high_bytes = here.pool.high_bytes,
    };
}

void fiber_set_limit(size_t limit)
{
    here.limit = limit;
}

void fiber_trim(void)
{
    stack_trim(&here.pool);
}
