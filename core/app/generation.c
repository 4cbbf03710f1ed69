/* See generation.h. A child's place is its slot on the shared page, which keeps, beyond the child's
 * life, who died there and whom to charge for it: the next child of the slot reads it. */
#include "app/generation.h"

#include "app/bundle.h"
#include "base/clock.h"
#include "base/log.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define GENERATION_WINDOW_MS   10000u /* five deaths in this time: backoff */
#define GENERATION_DEATHS      5u
#define GENERATION_BACKOFF_MS  500u /* first pause; doubles */
#define GENERATION_BACKOFF_MAX 30000u
#define GENERATION_GRACE_MS    5000u /* beyond `drain`, before KILL */

struct generation_child {
    struct child given;
    pid_t pid;                          /* 0: not running */
    uint64_t start_at_ms;               /* when to start it, if not running; 0: never */
    uint64_t deaths[GENERATION_DEATHS]; /* times of the last ones */
    uint32_t backoff_ms;
};

struct generation {
    const struct generation_setup *setup;
    enum generation_state state;
    struct config *config;
    int bundle_fd;
    bool has_failed;
    uint64_t kill_at_ms; /* when ending */
    struct generation_child children[PAGE_SLOTS];
    size_t count;
};

static void generation_add(struct generation *generation, enum child_role role, int slot)
{
    const struct generation_setup *setup = generation->setup;
    struct generation_child *child = &generation->children[generation->count++];
    child->given = (struct child){.role = role,
                                  .slot = slot,
                                  .page_fd = setup->page_fd,
                                  .lifeline_fd = setup->lifeline_fd,
                                  .listen_fd = role == CHILD_FRONT ? setup->listen_fd : -1,
                                  .bundle_fd = generation->bundle_fd};
    snprintf(child->given.node, sizeof child->given.node, "%s", setup->node);
    child->start_at_ms = clock_now_ms();
}

/* Workers take the lowest free slots from 1 on; the front takes the first or the last one. */
static bool generation_fill(struct generation *generation, const bool busy[PAGE_SLOTS])
{
    const struct generation_setup *setup = generation->setup;
    if (setup->listen_fd >= 0) {
        int slot = !busy[0] ? 0 : PAGE_SLOTS - 1;
        if (busy[slot])
            return false;
        generation_add(generation, CHILD_FRONT, slot);
    }
    int64_t wanted = setup->role == CONFIG_FRONT ? 0 : generation->config->workers;
    for (int slot = 1; slot < PAGE_SLOTS - 1 && wanted > 0; slot++) {
        if (busy[slot])
            continue;
        generation_add(generation, CHILD_WORKER, slot);
        wanted--;
    }
    return wanted == 0;
}

/* Takes the configuration from the bundle. */
static int generation_configure(struct generation *generation, struct error *err)
{
    struct bundle bundle = {0};
    int rc = bundle_load(generation->bundle_fd, &bundle, err);
    if (rc != MR_OK)
        return rc;
    struct report report;
    report_init(&report);
    generation->config = config_make(generation->setup->file, bundle.config, &report);
    report_done(&report);
    bundle_done(&bundle);
    if (generation->config)
        return MR_OK;
    error_set(err, MR_E_INTERNAL, "the configuration that was checked is refused");
    return MR_E_INTERNAL;
}

int generation_new(const struct generation_setup *setup, int bundle_fd, enum generation_state state,
                   const bool busy[PAGE_SLOTS], struct generation **ret, struct error *err)
{
    struct generation *generation = mem_zalloc(sizeof *generation);
    generation->setup = setup;
    generation->state = state;
    generation->bundle_fd = bundle_fd;
    int rc = generation_configure(generation, err);
    if (rc == MR_OK && !generation_fill(generation, busy))
        rc = error_set(err, MR_E_INTERNAL, "there are not enough places for its children");
    if (rc == MR_OK)
        *ret = generation;
    else
        generation_free(generation);
    return rc;
}

void generation_free(struct generation *generation)
{
    if (!generation)
        return;
    if (generation->bundle_fd >= 0)
        close(generation->bundle_fd);
    config_free(generation->config);
    free(generation);
}

const struct config *generation_config(const struct generation *generation)
{
    return generation->config;
}

enum generation_state generation_state(const struct generation *generation)
{
    return generation->state;
}

void generation_set_serving(struct generation *generation)
{
    generation->state = GENERATION_SERVING;
}

void generation_mark(const struct generation *generation, bool busy[PAGE_SLOTS])
{
    for (size_t i = 0; i < generation->count; i++)
        busy[generation->children[i].given.slot] = true;
}

static struct page_slot *generation_slot(const struct generation *generation,
                                         const struct generation_child *child)
{
    return &generation->setup->page->slots[child->given.slot];
}

static void generation_start(struct generation *generation, struct generation_child *child)
{
    struct page_slot *slot = generation_slot(generation, child);
    slot->ready = slot->draining = 0;
    slot->running = slot->served = 0;
    memset(&slot->mark, 0, sizeof slot->mark);
    memset(slot->instance, 0, sizeof slot->instance);
    memset(slot->name, 0, sizeof slot->name);
    struct error err = {0};
    child->start_at_ms = 0;
    if (child_spawn(&child->given, generation->setup->file, &child->pid, &err) != MR_OK) {
        log_error("cannot start a child", &err, NULL);
        child->pid = 0;
        child->start_at_ms = clock_now_ms() + GENERATION_BACKOFF_MAX;
        generation->has_failed = true;
    }
}

/* Whether a death by this signal is the doing of what ran: not KILL (the kernel's or an operator's)
 * and not the signals that ask for a stop. 0, an exit: while a stage ran it was the stage's. */
static bool generation_is_crash(int sig)
{
    return sig == 0 || sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIGILL ||
           sig == SIGABRT || sig == SIGTRAP || sig == SIGSYS;
}

/* Leaves on the page what the next child of the slot needs: who died, and whom to charge. */
static void generation_charge(struct generation *generation, struct generation_child *child,
                              int status)
{
    struct page_slot *slot = generation_slot(generation, child);
    char title[32], how[48];
    child_title(&child->given, title);
    int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    if (sig)
        snprintf(how, sizeof how, "killed by SIG%s", sigabbrev_np(sig) ? sigabbrev_np(sig) : "?");
    else
        snprintf(how, sizeof how, "ended with status %d", WEXITSTATUS(status));
    bool charged = false;
    /* One that dies before it is registered leaves what stands there: the next one is to take over
     * from the one before. */
    if (slot->instance[0]) {
        slot->culprit_job[0] = slot->culprit_stage[0] = slot->culprit_plugin[0] = '\0';
        slot->reaped_signal = sig;
        memcpy(slot->reaped, slot->instance, sizeof slot->reaped);
        memcpy(slot->reaped_name, slot->name, sizeof slot->reaped_name);
        charged =
            generation_is_crash(sig) && watchdog_read(&slot->mark, slot->culprit_job,
                                                      slot->culprit_stage, slot->culprit_plugin);
        if (!charged)
            slot->culprit_job[0] = '\0';
    }
    bool usual = generation->state == GENERATION_ENDING && !sig;
    log_event(usual ? LOG_INFO : LOG_WARN, usual ? "child ended" : "child died", "child", title,
              "how", how, "charged_job", charged ? slot->culprit_job : NULL, "stage",
              charged ? slot->culprit_stage : NULL, "plugin", charged ? slot->culprit_plugin : NULL,
              NULL);
}

/* When a child that died is to be started again. */
static void generation_schedule(struct generation *generation, struct generation_child *child)
{
    uint64_t now = clock_now_ms();
    bool was_ready = generation_slot(generation, child)->ready != 0;
    memmove(&child->deaths[1], &child->deaths[0], sizeof child->deaths - sizeof child->deaths[0]);
    child->deaths[0] = now;
    uint64_t fifth = child->deaths[GENERATION_DEATHS - 1];
    bool often = fifth != 0 && now - fifth < GENERATION_WINDOW_MS;
    if (was_ready && !often) {
        child->backoff_ms = 0;
        child->start_at_ms = now;
        return;
    }
    uint32_t next = child->backoff_ms ? child->backoff_ms * 2 : GENERATION_BACKOFF_MS;
    child->backoff_ms = next < GENERATION_BACKOFF_MAX ? next : GENERATION_BACKOFF_MAX;
    child->start_at_ms = now + child->backoff_ms;
    char title[32], pause[24];
    child_title(&child->given, title);
    snprintf(pause, sizeof pause, "%u ms", child->backoff_ms);
    log_event(LOG_ERROR, was_ready ? "child dies too often" : "child died before it was ready",
              "child", title, "again_in", pause, NULL);
}

bool generation_reap(struct generation *generation, pid_t pid, int status)
{
    for (size_t i = 0; i < generation->count; i++) {
        struct generation_child *child = &generation->children[i];
        if (child->pid != pid)
            continue;
        child->pid = 0;
        generation_charge(generation, child, status);
        if (generation->state == GENERATION_STARTING)
            generation->has_failed = true;
        else if (generation->state == GENERATION_SERVING)
            generation_schedule(generation, child);
        return true;
    }
    return false;
}

void generation_signal(const struct generation *generation, int sig)
{
    for (size_t i = 0; i < generation->count; i++)
        if (generation->children[i].pid > 0)
            kill(generation->children[i].pid, sig);
}

void generation_end(struct generation *generation, int sig)
{
    uint64_t wait_ms = GENERATION_GRACE_MS;
    if (sig != SIGINT)
        wait_ms += generation->config->drain_ms;
    uint64_t kill_at_ms = clock_now_ms() + wait_ms;
    if (generation->state != GENERATION_ENDING || kill_at_ms < generation->kill_at_ms)
        generation->kill_at_ms = kill_at_ms;
    generation->state = GENERATION_ENDING;
    generation_signal(generation, sig == SIGINT ? SIGINT : SIGTERM);
}

uint64_t generation_turn(struct generation *generation)
{
    uint64_t now = clock_now_ms(), next = UINT64_MAX;
    if (generation->state == GENERATION_ENDING) {
        if (generation_is_over(generation))
            return UINT64_MAX;
        if (now >= generation->kill_at_ms) {
            log_event(LOG_WARN, "children did not end in time", "signal", "KILL", NULL);
            generation_signal(generation, SIGKILL);
            generation->kill_at_ms = now + GENERATION_GRACE_MS;
        }
        return generation->kill_at_ms;
    }
    for (size_t i = 0; i < generation->count; i++) {
        struct generation_child *child = &generation->children[i];
        if (child->pid || !child->start_at_ms)
            continue;
        if (child->start_at_ms <= now)
            generation_start(generation, child);
        if (child->start_at_ms && child->start_at_ms < next)
            next = child->start_at_ms;
    }
    return next;
}

bool generation_is_ready(const struct generation *generation)
{
    for (size_t i = 0; i < generation->count; i++) {
        const struct generation_child *child = &generation->children[i];
        if (!child->pid || !generation_slot(generation, child)->ready)
            return false;
    }
    return true;
}

bool generation_is_draining(const struct generation *generation)
{
    for (size_t i = 0; i < generation->count; i++) {
        const struct generation_child *child = &generation->children[i];
        if (child->pid && !generation_slot(generation, child)->draining)
            return false;
    }
    return true;
}

bool generation_has_failed(const struct generation *generation)
{
    return generation->has_failed;
}

bool generation_is_over(const struct generation *generation)
{
    if (generation->state != GENERATION_ENDING)
        return false;
    for (size_t i = 0; i < generation->count; i++)
        if (generation->children[i].pid)
            return false;
    return true;
}
