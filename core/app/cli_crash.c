/* See cli_crash.h.
 *
 * The watchdog knows what runs. Its own handler comes first, notes crashes on threads of offload.h,
 * restores this one and lets the instruction fail again; this one writes the sentence and restores
 * what there was before both. A fiber that has used up its stack has none left for a handler: hence
 * the stack for signals. Only calls that are safe in a handler are made here. */
#include "app/cli_crash.h"

#include "loop/watchdog.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
enum { FATAL_COUNT = sizeof(fatal) / sizeof(fatal[0]), STACK_BYTES = 64 * 1024 };
static struct sigaction before[FATAL_COUNT];
static struct watchdog_mark mark;
static char stack[STACK_BYTES];

static void say(const char *text)
{
    size_t len = strlen(text);
    while (len > 0) {
        ssize_t n = write(STDERR_FILENO, text, len);
        if (n <= 0)
            return;
        text += n;
        len -= (size_t)n;
    }
}

static void on_fatal(int sig, siginfo_t *info, void *context)
{
    (void)context;
    char job[40], stage[WATCHDOG_TEXT], plugin[WATCHDOG_TEXT];
    const char *name = sigabbrev_np(sig);
    say("\nmillrace: SIG");
    say(name != NULL ? name : "NAL");
    if (watchdog_read(&mark, job, stage, plugin)) {
        say(" in plugin ");
        say(plugin);
        say(", stage ");
        say(stage);
        say("\n    hint: the plugin is broken: a debugger on this very command shows where\n");
    } else {
        say(" while no plugin ran\n");
    }
    for (size_t i = 0; i < FATAL_COUNT; i++)
        if (fatal[i] == sig)
            sigaction(sig, &before[i], NULL);
    if (info->si_code <= 0)
        raise(sig); /* sent, not caused by an instruction that is now done again */
}

void cli_crash_start(struct loop *loop)
{
    const stack_t own = {.ss_sp = stack, .ss_size = sizeof(stack)};
    sigaltstack(&own, NULL);
    struct sigaction action = {.sa_sigaction = on_fatal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < FATAL_COUNT; i++)
        sigaction(fatal[i], &action, &before[i]);
    watchdog_start(loop, &mark);
}
