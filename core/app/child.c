/* See child.h. */
#include "app/child.h"

#include "base/mem.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CHILD_VARIABLE "MILLRACE_CHILD"

static const char *const child_roles[] = {"none", "check", "front", "worker"};

int child_from_env(struct child *ret_child, struct error *err)
{
    struct child child = {.page_fd = -1, .lifeline_fd = -1, .listen_fd = -1, .bundle_fd = -1};
    const char *text = getenv(CHILD_VARIABLE);
    if (!text) {
        *ret_child = child;
        return MR_OK;
    }
    char role[16];
    if (sscanf(text, "%15s slot=%d page=%d lifeline=%d listen=%d bundle=%d node=%127s", role,
               &child.slot, &child.page_fd, &child.lifeline_fd, &child.listen_fd, &child.bundle_fd,
               child.node) != 7)
        return error_set(err, MR_E_INTERNAL,
                         "%s is set by the master only: \"%s\" is not understood", CHILD_VARIABLE,
                         text);
    for (int i = CHILD_CHECK; i <= CHILD_WORKER; i++)
        if (strcmp(role, child_roles[i]) == 0)
            child.role = (enum child_role)i;
    if (child.role == CHILD_NONE)
        return error_set(err, MR_E_INTERNAL, "%s: no role \"%s\"", CHILD_VARIABLE, role);
    unsetenv(CHILD_VARIABLE);
    /* What this process starts itself must not hold the master's pipe or socket open. */
    const int given[] = {child.page_fd, child.lifeline_fd, child.listen_fd, child.bundle_fd};
    for (size_t i = 0; i < sizeof given / sizeof given[0]; i++)
        if (given[i] > 2 && fcntl(given[i], F_SETFD, FD_CLOEXEC) != 0)
            return error_set(err, MR_E_INTERNAL, "descriptor %d was not inherited", given[i]);
    *ret_child = child;
    return MR_OK;
}

void child_title(const struct child *child, char ret_title[32])
{
    if (child->role == CHILD_WORKER)
        snprintf(ret_title, 32, "worker %d", child->slot);
    else
        snprintf(ret_title, 32, "%s", child_roles[child->role]);
}

/* In the new process, before exec: signals as a program expects them, and the given descriptors
 * kept. */
static void child_become(const struct child *child, char *const argv[])
{
    /* Until the child has its own answer to them, signals that everybody may be sent (`systemctl
     * kill`) do nothing to it. */
    signal(SIGHUP, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    const int given[] = {child->page_fd, child->lifeline_fd, child->listen_fd, child->bundle_fd};
    for (size_t i = 0; i < sizeof given / sizeof given[0]; i++)
        if (given[i] > 2 && fcntl(given[i], F_SETFD, 0) != 0)
            _exit(127);
    execv("/proc/self/exe", argv);
    _exit(127);
}

int child_spawn(const struct child *child, const char *file, pid_t *ret_pid, struct error *err)
{
    char name[32];
    child_title(child, name);
    mem_auto char *title = mem_format("millrace: %s", name);
    mem_auto char *option = mem_dup("-c"), *path = file ? mem_dup(file) : NULL;
    char *const argv[] = {title, path ? option : NULL, path, NULL};
    mem_auto char *given =
        mem_format("%s slot=%d page=%d lifeline=%d listen=%d bundle=%d node=%s",
                   child_roles[child->role], child->slot, child->page_fd, child->lifeline_fd,
                   child->listen_fd, child->bundle_fd, child->node);
    if (setenv(CHILD_VARIABLE, given, 1) != 0)
        return error_set(err, MR_E_INTERNAL, "cannot set %s: %s", CHILD_VARIABLE, strerror(errno));
    pid_t pid = fork();
    if (pid == 0)
        child_become(child, argv);
    int saved = errno;
    unsetenv(CHILD_VARIABLE);
    if (pid < 0)
        return error_set(err, MR_E_INTERNAL, "cannot start %s: %s", name, strerror(saved));
    *ret_pid = pid;
    return MR_OK;
}
