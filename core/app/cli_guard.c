/* See cli_guard.h. */
#include "app/cli_guard.h"
#include "app/stdio.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define GUARD_SECONDS 60 /* a constructor that hangs */

int cli_guarded(int (*fn)(void *arg, char *note), void *arg)
{
    char *note =
        mmap(NULL, CLI_NOTE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (note == MAP_FAILED) {
        perror("millrace: mmap");
        return 1;
    }
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        perror("millrace: fork");
        munmap(note, CLI_NOTE_BYTES);
        return 1;
    }
    if (pid == 0) {
        alarm(GUARD_SECONDS);
        int rc = fn(arg, note);
        _exit(stdio_flush() || rc != 0 ? rc : 1);
    }
    int status = 0, rc = 1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    note[CLI_NOTE_BYTES - 1] = '\0';
    if (WIFEXITED(status))
        rc = WEXITSTATUS(status);
    else if (WIFSIGNALED(status))
        fprintf(stderr, "millrace: %s while %s\n    hint: %s\n",
                WTERMSIG(status) == SIGALRM ? "nothing moved for a minute"
                                            : strsignal(WTERMSIG(status)),
                note[0] != '\0' ? note : "starting",
                "the plugin is broken: a debugger on this very command shows where");
    munmap(note, CLI_NOTE_BYTES);
    return rc;
}
