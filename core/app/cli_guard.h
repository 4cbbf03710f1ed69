/* Running what loads plugins in a process of its own, so that a plugin that crashes gives a message
 * and not a dead tool. */
#pragma once

/* Forks, runs fn(arg, note) in the child and returns its result. `note` holds 200 bytes shared with
 * the parent, where fn says what it is about to do ("loading plugin \"x\""): when the child is
 * killed by a signal, or when it hangs, the message names it and the result is 1. The child must
 * not have threads to inherit. */
int cli_guarded(int (*fn)(void *arg, char *note), void *arg);
#define CLI_NOTE_BYTES 200
