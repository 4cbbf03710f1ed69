/* See supervisor.h. One poll(2) over a signalfd; all state is the list of generations and the
 * reload in progress. Signals are blocked from the start, so that none is handled between two
 * instructions: what happened is read from the signalfd, in order.
 *
 * - TERM, QUIT: stop. Children get TERM and drain; who has not ended `drain` and five seconds later
 *   gets KILL.
 * - INT: stop fast. Children get INT.
 * - HUP, USR2: reload. A child checks the new configuration and writes its bundle; then a second
 *   generation is started beside the first one. When all of it serves, the first one drains; when a
 *   child of it dies or it is not ready in time, it is the second one that ends. A signal that
 *   comes meanwhile is remembered: one more reload follows.
 * - USR1: reopen log files, in the children too.
 * - CHLD: reap, charge, start again. */
#include "app/supervisor.h"

#include "app/bundle.h"
#include "app/generation.h"
#include "base/clock.h"
#include "base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define SUPERVISOR_CHECK_MS 30000u /* for the check of a reload */
#define SUPERVISOR_READY_MS 30000u /* for a new generation to serve */
#define SUPERVISOR_LOOK_MS  20     /* between looks at one that is starting */

struct supervisor {
    const struct supervisor_setup *setup;
    struct generation_setup given;
    char node[128];
    int lifeline[2], signals;
    struct generation *generations[2]; /* the one that is starting or serving, then an ending one */
    size_t count;
    pid_t check; /* of a reload, 0: none */
    int check_fd;
    bool is_wanted;      /* a reload, as soon as it can be */
    bool is_settling;    /* a new generation serves, the old one has been told to end */
    uint64_t give_up_ms; /* on the check, then on the newest generation, when it is starting */
    bool stopping;
};

static void supervisor_mark(const struct supervisor *sup, bool busy[PAGE_SLOTS])
{
    for (size_t i = 0; i < sup->count; i++)
        generation_mark(sup->generations[i], busy);
}

/* Makes a generation the newest one. The descriptor passes. */
static int supervisor_add(struct supervisor *sup, int bundle_fd, enum generation_state state,
                          struct error *err)
{
    bool busy[PAGE_SLOTS] = {false};
    supervisor_mark(sup, busy);
    struct generation *generation = NULL;
    int rc = generation_new(&sup->given, bundle_fd, state, busy, &generation, err);
    if (rc != MR_OK)
        return rc;
    memmove(&sup->generations[1], &sup->generations[0], sup->count * sizeof sup->generations[0]);
    sup->generations[0] = generation;
    sup->count++;
    return MR_OK;
}

static bool supervisor_is_starting(const struct supervisor *sup)
{
    return sup->count > 0 && generation_state(sup->generations[0]) == GENERATION_STARTING;
}

/* ---- Reload ---- */

static const char *supervisor_or(const char *text)
{
    return text ? text : "";
}

/* Settings that are the master's own, and those it cannot change while it runs. */
static void supervisor_adopt(const struct supervisor *sup, const struct config *config)
{
    const struct config *first = sup->setup->config;
    const struct {
        const char *name;
        bool differs;
    } fixed[] = {
        {"listen", strcmp(config->listen, first->listen) != 0},
        {"role", config->role != first->role},
        {"user", strcmp(supervisor_or(config->user), supervisor_or(first->user)) != 0},
        {"group", strcmp(supervisor_or(config->group), supervisor_or(first->group)) != 0},
        {"pid_file", strcmp(supervisor_or(config->pid_file), supervisor_or(first->pid_file)) != 0},
    };
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
        if (fixed[i].differs)
            log_event(LOG_WARN, "a setting changes at the next start, not at a reload", "setting",
                      fixed[i].name, NULL);
    struct error err = {0};
    if (log_open(config->log_file, config->log_format, config->log_level, "master", &err) != MR_OK)
        log_error("the new log cannot be opened", &err, NULL);
}

/* Begins a wanted reload, unless the one before is not over: its check, in a child. */
static void supervisor_reload(struct supervisor *sup)
{
    if (!sup->is_wanted || sup->stopping || sup->check || sup->count > 1)
        return; /* while the last one drains, too: at most two at a time */
    sup->is_wanted = false;
    struct error err = {0};
    if (bundle_file(&sup->check_fd, &err) != MR_OK) {
        log_error("cannot reload", &err, NULL);
        return;
    }
    const struct child child = {.role = CHILD_CHECK,
                                .page_fd = -1,
                                .lifeline_fd = -1,
                                .listen_fd = -1,
                                .bundle_fd = sup->check_fd,
                                .node = SUPERVISOR_RELOAD};
    if (child_spawn(&child, sup->setup->file, &sup->check, &err) != MR_OK) {
        log_error("cannot reload", &err, NULL);
        sup->check = 0;
        close(sup->check_fd);
    }
    sup->give_up_ms = clock_now_ms() + SUPERVISOR_CHECK_MS;
}

static void supervisor_refuse(const char *why)
{
    log_event(LOG_ERROR, "reload refused, the old configuration stays", "why", why, NULL);
}

/* Logs the reasons that the check has written. A check that died later than that (a plugin that
 * crashes at the end of its process) has written the bundle, which holds secrets: not a word. */
static void supervisor_tell_reasons(int fd)
{
    char text[8192];
    ssize_t len = pread(fd, text, sizeof text - 1, 0);
    text[len > 0 ? len : 0] = '\0';
    if (text[0] == '{')
        return;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;)
        if (*line)
            log_event(LOG_ERROR, "the new configuration is not good", "error", line, NULL);
}

/* The check has ended: a new generation, or the reason why not. */
static void supervisor_checked(struct supervisor *sup, int status)
{
    sup->check = 0;
    if (sup->stopping || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        if (!sup->stopping) {
            supervisor_tell_reasons(sup->check_fd);
            supervisor_refuse(WIFSIGNALED(status)
                                  ? "the check was killed: a plugin crashes, or hangs"
                                  : "the new one has errors");
        }
        close(sup->check_fd);
        return;
    }
    struct error err = {0};
    if (supervisor_add(sup, sup->check_fd, GENERATION_STARTING, &err) != MR_OK) {
        supervisor_refuse(err.message);
        return;
    }
    sup->give_up_ms = clock_now_ms() + SUPERVISOR_READY_MS;
    log_event(LOG_INFO, "reload: starting new children", NULL);
}

/* What becomes of a generation that is starting. A reload is done when the old children take
 * nothing new any more. */
static void supervisor_settle(struct supervisor *sup)
{
    if (sup->is_settling && (sup->count < 2 || generation_is_draining(sup->generations[1]))) {
        sup->is_settling = false;
        log_event(LOG_INFO, "reloaded", NULL);
    }
    if (!supervisor_is_starting(sup))
        return;
    struct generation *new = sup->generations[0];
    if (generation_is_ready(new)) {
        generation_set_serving(new);
        generation_end(sup->generations[1], SIGTERM);
        supervisor_adopt(sup, generation_config(new));
        sup->is_settling = true;
    } else if (generation_has_failed(new) || clock_now_ms() >= sup->give_up_ms) {
        supervisor_refuse(generation_has_failed(new) ? "a child of the new one did not start"
                                                     : "its children do not get ready");
        generation_end(new, SIGTERM);
        sup->generations[0] = sup->generations[1]; /* the one that serves stays the first */
        sup->generations[1] = new;
    }
}

/* ---- Signals ---- */

static void supervisor_reap(struct supervisor *sup)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == sup->check) {
            supervisor_checked(sup, status);
            continue;
        }
        for (size_t i = 0; i < sup->count; i++)
            if (generation_reap(sup->generations[i], pid, status))
                break;
    }
}

static void supervisor_stop(struct supervisor *sup, int sig)
{
    log_event(LOG_INFO, sig == SIGINT ? "stopping at once" : "draining", "signal",
              sigabbrev_np(sig), NULL);
    sup->stopping = true;
    if (sup->check)
        kill(sup->check, SIGKILL);
    for (size_t i = 0; i < sup->count; i++)
        generation_end(sup->generations[i], sig);
}

static void supervisor_on_signal(struct supervisor *sup, int sig)
{
    switch (sig) {
    case SIGCHLD:
        supervisor_reap(sup);
        break;
    case SIGUSR1:
        log_reopen();
        for (size_t i = 0; i < sup->count; i++)
            generation_signal(sup->generations[i], SIGUSR1);
        break;
    case SIGHUP:
    case SIGUSR2:
        log_event(LOG_INFO, "reload asked for", "signal", sigabbrev_np(sig), "waits",
                  sup->count > 1 ? "until the children of the last one have ended" : NULL, NULL);
        sup->is_wanted = true;
        break;
    default:
        supervisor_stop(sup, sig);
        break;
    }
}

/* ---- The loop ---- */

/* Does what is due; the milliseconds until something else is, -1: nothing is. */
static int supervisor_turn(struct supervisor *sup)
{
    supervisor_settle(sup);
    uint64_t next = UINT64_MAX;
    for (size_t i = 0; i < sup->count;) {
        struct generation *generation = sup->generations[i];
        uint64_t at_ms = generation_turn(generation);
        next = at_ms < next ? at_ms : next;
        if (!generation_is_over(generation)) {
            i++;
            continue;
        }
        generation_free(generation);
        sup->count--;
        memmove(&sup->generations[i], &sup->generations[i + 1],
                (sup->count - i) * sizeof sup->generations[0]);
    }
    supervisor_reload(sup);
    if (supervisor_is_starting(sup) || sup->is_settling)
        return SUPERVISOR_LOOK_MS;
    uint64_t now = clock_now_ms();
    if (sup->check && now >= sup->give_up_ms) { /* a plugin hangs while it is loaded */
        kill(sup->check, SIGKILL);
        sup->give_up_ms = now + SUPERVISOR_CHECK_MS;
    }
    if (sup->check && sup->give_up_ms < next)
        next = sup->give_up_ms;
    if (next == UINT64_MAX)
        return -1;
    return next <= now ? 0 : next - now > 60000 ? 60000 : (int)(next - now);
}

static void supervisor_loop(struct supervisor *sup)
{
    for (;;) {
        int timeout_ms = supervisor_turn(sup);
        if (sup->stopping && sup->count == 0 && !sup->check)
            return;
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
    int rc = page_new(&sup->given.page, &sup->given.page_fd, err);
    if (rc != MR_OK)
        return rc;
    if (fcntl(sup->given.page_fd, F_SETFD, FD_CLOEXEC) != 0 || pipe2(sup->lifeline, O_CLOEXEC) != 0)
        return error_set(err, MR_E_INTERNAL, "cannot make the lifeline: %s", strerror(errno));
    sup->given.lifeline_fd = sup->lifeline[0];
    sup->signals = supervisor_signals();
    if (sup->signals < 0)
        return error_set(err, MR_E_INTERNAL, "cannot take signals: %s", strerror(errno));
    char host[64];
    if (gethostname(host, sizeof host) != 0)
        snprintf(host, sizeof host, "localhost");
    host[sizeof host - 1] = '\0';
    const struct listener *listener = sup->setup->listener;
    snprintf(sup->node, sizeof sup->node, "%s/%s", host, listener ? listener->instance : "worker");
    sup->given.node = sup->node;
    sup->given.file = sup->setup->file;
    sup->given.role = (enum config_role)sup->setup->config->role;
    sup->given.listen_fd = listener ? listener->fd : -1;
    return supervisor_add(sup, sup->setup->bundle_fd, GENERATION_SERVING, err);
}

int supervisor_run(const struct supervisor_setup *setup)
{
    struct supervisor sup = {.setup = setup, .lifeline = {-1, -1}, .signals = -1};
    struct error err = {0};
    if (supervisor_init(&sup, &err) != MR_OK) {
        log_error("cannot start", &err, NULL);
        return 1;
    }
    log_event(LOG_INFO, "started", "version", MR_VERSION, "listen",
              setup->listener ? setup->config->listen : NULL, "node", sup.node, NULL);
    supervisor_loop(&sup);
    log_event(LOG_INFO, "stopped", NULL);
    close(sup.signals);
    close(sup.lifeline[0]);
    close(sup.lifeline[1]);
    close(sup.given.page_fd);
    page_close(sup.given.page);
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
