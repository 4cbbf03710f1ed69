/* See supervisor.h. One poll(2) over a signalfd; all state is the table of children. Signals are
 * blocked from the start, so that none is handled between two instructions: what happened is read
 * from the signalfd, in order.
 *
 * - TERM, QUIT: stop. Children get TERM and drain; who has not ended `drain` and five seconds later
 *   gets KILL.
 * - INT: stop fast. Children get INT.
 * - USR1: reopen log files, in the children too.
 * - CHLD: reap, charge, start again. */
#include "app/supervisor.h"

#include "base/clock.h"
#include "base/log.h"
#include "work/page.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define SUPERVISOR_WINDOW_MS   10000u /* five deaths in this time: backoff */
#define SUPERVISOR_DEATHS      5u
#define SUPERVISOR_BACKOFF_MS  500u /* first pause; doubles */
#define SUPERVISOR_BACKOFF_MAX 30000u
#define SUPERVISOR_GRACE_MS    5000u /* beyond `drain`, before KILL */

struct supervisor_child {
    struct child given;
    pid_t pid;                          /* 0: not running */
    uint64_t start_at_ms;               /* when to start it, if not running; 0: never */
    uint64_t deaths[SUPERVISOR_DEATHS]; /* times of the last ones */
    uint32_t backoff_ms;
};

struct supervisor {
    const struct supervisor_setup *setup;
    struct page *page;
    int page_fd, lifeline[2], signals;
    struct supervisor_child children[PAGE_SLOTS];
    size_t count;
    bool stopping;
    uint64_t kill_at_ms;
};

static void supervisor_start(struct supervisor *sup, struct supervisor_child *child)
{
    struct page_slot *slot = &sup->page->slots[child->given.slot];
    slot->ready = slot->draining = 0;
    slot->running = slot->served = 0;
    memset(&slot->mark, 0, sizeof slot->mark);
    memset(slot->instance, 0, sizeof slot->instance);
    memset(slot->name, 0, sizeof slot->name);
    struct error err = {0};
    child->start_at_ms = 0;
    if (child_spawn(&child->given, sup->setup->file, &child->pid, &err) != MR_OK) {
        log_error("cannot start a child", &err, NULL);
        child->pid = 0;
        child->start_at_ms = clock_now_ms() + SUPERVISOR_BACKOFF_MAX;
    }
}

/* Whether a death by this signal is the doing of what ran: not KILL (the kernel's or an operator's)
 * and not the signals that ask for a stop. 0, an exit: while a stage ran it was the stage's. */
static bool supervisor_is_crash(int sig)
{
    return sig == 0 || sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIGILL ||
           sig == SIGABRT || sig == SIGTRAP || sig == SIGSYS;
}

/* Leaves on the page what the next child of the slot needs: who died, and whom to charge. */
static void supervisor_charge(struct supervisor *sup, struct supervisor_child *child, int status)
{
    struct page_slot *slot = &sup->page->slots[child->given.slot];
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
            supervisor_is_crash(sig) && watchdog_read(&slot->mark, slot->culprit_job,
                                                      slot->culprit_stage, slot->culprit_plugin);
        if (!charged)
            slot->culprit_job[0] = '\0';
    }
    log_event(sup->stopping && !sig ? LOG_INFO : LOG_WARN,
              sup->stopping && !sig ? "child ended" : "child died", "child", title, "how", how,
              "charged_job", charged ? slot->culprit_job : NULL, "stage",
              charged ? slot->culprit_stage : NULL, "plugin", charged ? slot->culprit_plugin : NULL,
              NULL);
}

/* When a child that died is to be started again. */
static void supervisor_schedule(struct supervisor *sup, struct supervisor_child *child)
{
    uint64_t now = clock_now_ms();
    bool was_ready = sup->page->slots[child->given.slot].ready != 0;
    memmove(&child->deaths[1], &child->deaths[0], sizeof child->deaths - sizeof child->deaths[0]);
    child->deaths[0] = now;
    uint64_t fifth = child->deaths[SUPERVISOR_DEATHS - 1];
    bool often = fifth != 0 && now - fifth < SUPERVISOR_WINDOW_MS;
    if (was_ready && !often) {
        child->backoff_ms = 0;
        child->start_at_ms = now;
        return;
    }
    uint32_t next = child->backoff_ms ? child->backoff_ms * 2 : SUPERVISOR_BACKOFF_MS;
    child->backoff_ms = next < SUPERVISOR_BACKOFF_MAX ? next : SUPERVISOR_BACKOFF_MAX;
    child->start_at_ms = now + child->backoff_ms;
    char title[32], pause[24];
    child_title(&child->given, title);
    snprintf(pause, sizeof pause, "%u ms", child->backoff_ms);
    log_event(LOG_ERROR, was_ready ? "child dies too often" : "child died before it was ready",
              "child", title, "again_in", pause, NULL);
}

static void supervisor_reap(struct supervisor *sup)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (size_t i = 0; i < sup->count; i++) {
            struct supervisor_child *child = &sup->children[i];
            if (child->pid != pid)
                continue;
            child->pid = 0;
            supervisor_charge(sup, child, status);
            if (!sup->stopping)
                supervisor_schedule(sup, child);
        }
    }
}

static void supervisor_signal(struct supervisor *sup, int sig)
{
    for (size_t i = 0; i < sup->count; i++)
        if (sup->children[i].pid > 0)
            kill(sup->children[i].pid, sig);
}

static void supervisor_stop(struct supervisor *sup, int sig)
{
    uint64_t wait_ms =
        sig == SIGINT ? SUPERVISOR_GRACE_MS : sup->setup->config->drain_ms + SUPERVISOR_GRACE_MS;
    log_event(LOG_INFO, sig == SIGINT ? "stopping at once" : "draining", "signal",
              sigabbrev_np(sig), NULL);
    uint64_t kill_at_ms = clock_now_ms() + wait_ms;
    if (!sup->stopping || kill_at_ms < sup->kill_at_ms) /* a second TERM postpones nothing */
        sup->kill_at_ms = kill_at_ms;
    sup->stopping = true;
    supervisor_signal(sup, sig == SIGINT ? SIGINT : SIGTERM);
}

static void supervisor_on_signal(struct supervisor *sup, int sig)
{
    switch (sig) {
    case SIGCHLD:
        supervisor_reap(sup);
        break;
    case SIGUSR1:
        log_reopen();
        supervisor_signal(sup, SIGUSR1);
        break;
    case SIGHUP:
    case SIGUSR2:
        log_event(LOG_WARN, "reload is not offered yet: stop and start instead", "signal",
                  sigabbrev_np(sig), NULL);
        break;
    default:
        supervisor_stop(sup, sig);
        break;
    }
}

/* Starts what is due; returns the milliseconds until something else is, -1: nothing is. */
static int supervisor_turn(struct supervisor *sup)
{
    uint64_t now = clock_now_ms(), next = UINT64_MAX;
    if (sup->stopping) {
        if (now >= sup->kill_at_ms) {
            log_event(LOG_WARN, "children did not end in time", "signal", "KILL", NULL);
            supervisor_signal(sup, SIGKILL);
            sup->kill_at_ms = now + SUPERVISOR_GRACE_MS;
        }
        next = sup->kill_at_ms;
    } else {
        for (size_t i = 0; i < sup->count; i++) {
            struct supervisor_child *child = &sup->children[i];
            if (child->pid || !child->start_at_ms)
                continue;
            if (child->start_at_ms <= now)
                supervisor_start(sup, child);
            else if (child->start_at_ms < next)
                next = child->start_at_ms;
        }
    }
    if (next == UINT64_MAX)
        return -1;
    return next <= now ? 0 : next - now > 60000 ? 60000 : (int)(next - now);
}

static bool supervisor_is_over(const struct supervisor *sup)
{
    if (!sup->stopping)
        return false;
    for (size_t i = 0; i < sup->count; i++)
        if (sup->children[i].pid)
            return false;
    return true;
}

static void supervisor_loop(struct supervisor *sup)
{
    while (!supervisor_is_over(sup)) {
        int timeout_ms = supervisor_turn(sup);
        struct pollfd poll_fd = {.fd = sup->signals, .events = POLLIN};
        if (poll(&poll_fd, 1, timeout_ms) < 0 && errno != EINTR) {
            log_line(LOG_ERROR, "poll: %s", strerror(errno));
            supervisor_stop(sup, SIGTERM);
        }
        struct signalfd_siginfo info;
        while (read(sup->signals, &info, sizeof info) == (ssize_t)sizeof info)
            supervisor_on_signal(sup, (int)info.ssi_signo);
    }
}

static void supervisor_add(struct supervisor *sup, enum child_role role, int slot, const char *node)
{
    struct supervisor_child *child = &sup->children[sup->count++];
    child->given = (struct child){.role = role,
                                  .slot = slot,
                                  .page_fd = sup->page_fd,
                                  .lifeline_fd = sup->lifeline[0],
                                  .listen_fd = role == CHILD_FRONT ? sup->setup->listener->fd : -1,
                                  .bundle_fd = sup->setup->bundle_fd};
    snprintf(child->given.node, sizeof child->given.node, "%s", node);
    child->start_at_ms = clock_now_ms();
}

static int supervisor_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    const int wanted[] = {SIGTERM, SIGQUIT, SIGINT, SIGCHLD, SIGUSR1, SIGUSR2, SIGHUP};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        sigaddset(&set, wanted[i]);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
        return -1;
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

static int supervisor_init(struct supervisor *sup, struct error *err)
{
    int rc = page_new(&sup->page, &sup->page_fd, err);
    if (rc != MR_OK)
        return rc;
    if (fcntl(sup->page_fd, F_SETFD, FD_CLOEXEC) != 0 || pipe2(sup->lifeline, O_CLOEXEC) != 0)
        return error_set(err, MR_E_INTERNAL, "cannot make the lifeline: %s", strerror(errno));
    sup->signals = supervisor_signals();
    if (sup->signals < 0)
        return error_set(err, MR_E_INTERNAL, "cannot take signals: %s", strerror(errno));
    return MR_OK;
}

int supervisor_run(const struct supervisor_setup *setup)
{
    struct supervisor sup = {.setup = setup, .page_fd = -1, .lifeline = {-1, -1}, .signals = -1};
    struct error err = {0};
    if (supervisor_init(&sup, &err) != MR_OK) {
        log_error("cannot start", &err, NULL);
        return 1;
    }
    char host[64], node[128], instance[24];
    if (gethostname(host, sizeof host) != 0)
        snprintf(host, sizeof host, "localhost");
    host[sizeof host - 1] = '\0';
    snprintf(instance, sizeof instance, "%s",
             setup->listener ? setup->listener->instance : "worker");
    snprintf(node, sizeof node, "%s/%s", host, instance);
    if (setup->listener)
        supervisor_add(&sup, CHILD_FRONT, 0, node);
    int64_t workers = setup->config->role == CONFIG_FRONT ? 0 : setup->config->workers;
    for (int i = 1; i <= workers && i < PAGE_SLOTS; i++)
        supervisor_add(&sup, CHILD_WORKER, i, node);
    log_event(LOG_INFO, "started", "version", MR_VERSION, "listen",
              setup->listener ? setup->config->listen : NULL, "node", node, NULL);
    supervisor_loop(&sup);
    log_event(LOG_INFO, "stopped", NULL);
    close(sup.signals);
    close(sup.lifeline[0]);
    close(sup.lifeline[1]);
    close(sup.page_fd);
    page_close(sup.page);
    return 0;
}

bool supervisor_check(const char *file, int bundle_fd, struct error *err)
{
    struct child child = {.role = CHILD_CHECK,
                          .page_fd = -1,
                          .lifeline_fd = -1,
                          .listen_fd = -1,
                          .bundle_fd = bundle_fd,
                          .node = "-"};
    pid_t pid;
    if (child_spawn(&child, file, &pid, err) != MR_OK)
        return false;
    int status;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            error_set(err, MR_E_INTERNAL, "cannot wait for the check: %s", strerror(errno));
            return false;
        }
    }
    if (WIFSIGNALED(status)) {
        error_set(err, MR_E_PLUGIN,
                  "the check was killed by SIG%s: a plugin crashes when it is loaded or when its "
                  "options are checked",
                  sigabbrev_np(WTERMSIG(status)));
        return false;
    }
    if (WEXITSTATUS(status) == 0)
        return true;
    error_set(err, MR_E_SCHEMA, "the configuration was refused");
    return false;
}
