/* Suspending and waking: the only place where callbacks meet fibers.
 *
 * A wait in progress is in three places: on its fiber's stack, in the list of its scope (unless the
 * fiber is shielded), and in the timer heap when anything limits it. wait_end takes it out of the
 * lists and makes its fiber ready; whoever ends it first decides the code.
 *
 * Deadlines of scopes have no timers of their own. A wait's timer is set to the nearest of its own
 * time-out and the deadlines up the chain; when it fires, scopes whose deadline has come are
 * cancelled, which ends all their waits. A scope nobody waits in is looked at when the next wait
 * begins (scope_settle), and so is one whose fiber was shielded when the time came. */
#include "loop/wait.h"
#include "base/clock.h"
#include "base/mem.h"
#include "loop/inner.h"

static _Thread_local struct {
    uint64_t count;
    uint64_t torture_at; /* the value of `count` that is tortured; 0: none */
    int torture_code;
} here;

/* The running strand; the calls that need one are a bug elsewhere. */
static struct strand *strand_must(const char *what)
{
    struct strand *strand = strand_self();
    if (!strand)
        loop_misuse(what);
    return strand;
}

/* Ends a wait that has not ended. */
static void wait_end(struct wait *wait, int code)
{
    wait->done = true;
    wait->code = code;
    if (!wait->waiting)
        return;
    wait->waiting = false;
    if (wait->link) {
        *wait->link = wait->next;
        if (wait->next)
            wait->next->link = wait->link;
        wait->link = NULL;
    }
    timer_stop(&wait->timer);
    strand_ready(fiber_data(wait->fiber));
}

/* Scopes */

void scope_init(struct scope *scope, struct scope *parent)
{
    *scope = (struct scope){.parent = parent, .deadline_code = MR_E_TIMEOUT};
    if (!parent)
        return;
    scope->next = parent->children;
    scope->link = &parent->children;
    if (scope->next)
        scope->next->link = &scope->next;
    parent->children = scope;
}

void scope_done(struct scope *scope)
{
    if (scope->waits || scope->children)
        loop_misuse("a scope ended before its waits and children");
    if (scope->link) {
        *scope->link = scope->next;
        if (scope->next)
            scope->next->link = scope->link;
        scope->link = NULL;
    }
}

static void end_waits(struct scope *scope, int code)
{
    while (scope->waits)
        wait_end(scope->waits, code);
    for (struct scope *child = scope->children; child; child = child->next)
        end_waits(child, code);
}

void scope_cancel(struct scope *scope, int code)
{
    if (scope->code != 0)
        return;
    scope->code = code != 0 ? code : MR_E_CANCELLED;
    end_waits(scope, scope->code);
}

static bool deadline_counts(const struct scope *scope)
{
    return scope->code == 0 && scope->deadline_ms != 0 && scope->paused_at_ms == 0;
}

int scope_error(const struct scope *scope)
{
    for (; scope; scope = scope->parent) {
        if (scope->code != 0)
            return scope->code;
        if (deadline_counts(scope) && scope->deadline_ms <= clock_now_ms())
            return scope->deadline_code;
    }
    return 0;
}

/* Cancels the scopes of the chain whose deadline has come; then as scope_error. */
static int scope_settle(struct scope *scope)
{
    int code = 0;
    for (; scope; scope = scope->parent) {
        if (deadline_counts(scope) && scope->deadline_ms <= clock_now_ms())
            scope_cancel(scope, scope->deadline_code);
        if (code == 0)
            code = scope->code;
    }
    return code;
}

/* The nearest deadline of the chain that a wait must watch. */
static uint64_t scope_due_ms(const struct scope *scope)
{
    uint64_t due_ms = UINT64_MAX;
    for (; scope; scope = scope->parent)
        if (deadline_counts(scope) && scope->deadline_ms < due_ms)
            due_ms = scope->deadline_ms;
    return due_ms;
}

uint64_t scope_time_left(const struct scope *scope)
{
    uint64_t least_ms = UINT64_MAX;
    for (; scope; scope = scope->parent) {
        if (scope->deadline_ms == 0)
            continue;
        uint64_t from_ms = scope->paused_at_ms ? scope->paused_at_ms : clock_now_ms();
        uint64_t left_ms = scope->deadline_ms > from_ms ? scope->deadline_ms - from_ms : 0;
        if (left_ms < least_ms)
            least_ms = left_ms;
    }
    return least_ms;
}

static void wait_expire(struct timer *timer);

static void wait_arm(struct wait *wait)
{
    uint64_t due_ms = wait->own_due_ms;
    if (wait->link) {
        uint64_t scope_ms = scope_due_ms(wait->scope);
        if (scope_ms < due_ms)
            due_ms = scope_ms;
    }
    if (due_ms == UINT64_MAX)
        timer_stop(&wait->timer);
    else
        timer_start_at(&wait->timer, wait->loop, due_ms, wait_expire);
}

static void wait_expire(struct timer *timer)
{
    struct wait *wait = timer->data;
    bool own = wait->own_due_ms <= clock_now_ms();
    /* A time-out that came before the scope's deadline decides, however late we are. */
    if (wait->link && !(own && wait->own_due_ms < scope_due_ms(wait->scope)))
        scope_settle(wait->scope);
    if (wait->done)
        return;
    if (own) {
        wait->expired = true;
        wait_end(wait, MR_E_TIMEOUT);
    } else {
        wait_arm(wait);
    }
}

static void arm_again(struct scope *scope)
{
    for (struct wait *wait = scope->waits; wait; wait = wait->next)
        wait_arm(wait);
    for (struct scope *child = scope->children; child; child = child->next)
        arm_again(child);
}

void scope_set_deadline(struct scope *scope, uint64_t deadline_ms, int code)
{
    scope->deadline_ms = deadline_ms;
    scope->deadline_code = code;
    if (scope->paused_at_ms)
        scope->paused_at_ms = clock_now_ms();
    arm_again(scope);
}

void scope_pause(struct scope *scope)
{
    if (scope->pauses++ > 0)
        return;
    scope_settle(scope);
    scope->paused_at_ms = clock_now_ms();
}

void scope_resume(struct scope *scope)
{
    if (scope->pauses == 0)
        loop_misuse("scope_resume without scope_pause");
    if (--scope->pauses > 0)
        return;
    if (scope->deadline_ms != 0)
        scope->deadline_ms += clock_now_ms() - scope->paused_at_ms;
    scope->paused_at_ms = 0;
    arm_again(scope);
}

struct scope *scope_current(void)
{
    struct strand *strand = strand_self();
    return strand ? strand->scope : NULL;
}

struct scope *scope_enter(struct scope *scope)
{
    struct strand *strand = strand_must("scope_enter outside of a fiber");
    struct scope *old = strand->scope;
    strand->scope = scope;
    return old;
}

void wait_shield(int change)
{
    struct strand *strand = strand_must("wait_shield outside of a fiber");
    if (change < 0 && strand->shield < (unsigned)-change)
        loop_misuse("wait_shield went below zero");
    strand->shield += (unsigned)change;
}

/* Waits */

/* Counts a suspension that is about to begin. True: it is the one to be tortured. */
static bool is_tortured(bool shielded, int *ret_code)
{
    if (++here.count != here.torture_at)
        return false;
    here.torture_at = 0;
    *ret_code = shielded ? MR_E_TIMEOUT : here.torture_code;
    return true;
}

void wait_torture(uint64_t nth, int code)
{
    here.torture_at = nth ? here.count + nth : 0;
    here.torture_code = code;
}

uint64_t wait_count(void)
{
    return here.count;
}

void wait_init(struct wait *wait, struct loop *loop)
{
    struct strand *strand = strand_must("wait_init outside of a fiber");
    *wait = (struct wait){.loop = loop, .fiber = strand->fiber, .scope = strand->scope};
    wait->timer.data = wait;
}

int wait_for(struct wait *wait, uint64_t timeout_ms)
{
    struct strand *strand = strand_must("wait_for outside of a fiber");
    if (wait->fiber != strand->fiber)
        loop_misuse("wait_for of another fiber's wait");
    if (wait->done)
        return wait->code;
    bool shielded = strand->shield > 0;
    int code = shielded ? 0 : scope_settle(wait->scope);
    if (code != 0) {
        wait_end(wait, code);
        return code;
    }
    if (timeout_ms == 0) {
        wait->expired = true;
        wait_end(wait, MR_E_TIMEOUT);
        return MR_E_TIMEOUT;
    }
    if (!(shielded && timeout_ms == UINT64_MAX) && is_tortured(shielded, &code)) {
        wait_end(wait, code);
        return code;
    }
    wait->own_due_ms = UINT64_MAX;
    if (timeout_ms != UINT64_MAX) {
        uint64_t now_ms = clock_now_ms();
        if (timeout_ms < UINT64_MAX - now_ms)
            wait->own_due_ms = now_ms + timeout_ms;
    }
    if (!shielded && wait->scope) {
        wait->next = wait->scope->waits;
        wait->link = &wait->scope->waits;
        if (wait->next)
            wait->next->link = &wait->next;
        wait->scope->waits = wait;
    }
    wait->waiting = true;
    wait_arm(wait);
    fiber_suspend();
    return wait->code;
}

void wait_wake(struct wait *wait, int code)
{
    if (!wait->done)
        wait_end(wait, code);
}

int wait_sleep(struct loop *loop, uint64_t ms)
{
    if (ms == 0)
        return wait_yield(loop);
    struct wait wait;
    wait_init(&wait, loop);
    int code = wait_for(&wait, ms);
    return wait.expired ? MR_OK : code;
}

int wait_yield(struct loop *loop)
{
    struct strand *strand = strand_must("wait_yield outside of a fiber");
    if (strand->loop != loop)
        loop_misuse("wait_yield on another loop");
    bool shielded = strand->shield > 0;
    int code = shielded ? 0 : scope_settle(strand->scope);
    if (code != 0)
        return code;
    if (!shielded && is_tortured(false, &code))
        return code;
    strand_ready(strand);
    fiber_suspend();
    return strand->shield > 0 ? 0 : scope_settle(strand->scope);
}

/* Groups */

struct member {
    struct group *group;
    void (*fn)(void *arg);
    void *arg;
};

static void member_main(void *arg)
{
    struct member member = *(struct member *)arg;
    free(arg);
    member.fn(member.arg);
    struct group *group = member.group;
    if (--group->running == 0 && group->waiter)
        wait_wake(group->waiter, MR_OK);
}

void group_init(struct group *group, struct loop *loop)
{
    *group = (struct group){.loop = loop};
}

int group_spawn(struct group *group, struct scope *scope, void (*fn)(void *arg), void *arg)
{
    struct member *member = mem_alloc(sizeof(*member));
    *member = (struct member){group, fn, arg};
    int rc = loop_spawn(group->loop, scope, member_main, member);
    if (rc != MR_OK) {
        free(member);
        return rc;
    }
    group->running++;
    return MR_OK;
}

void group_wait(struct group *group)
{
    if (group->running == 0)
        return;
    struct wait wait;
    wait_init(&wait, group->loop);
    group->waiter = &wait;
    wait_shield(1);
    wait_for(&wait, UINT64_MAX);
    wait_shield(-1);
    group->waiter = NULL;
}
