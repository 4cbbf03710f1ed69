/* Naming the plugin that brings `millrace run` down. The process still ends by the signal, at the
 * same instruction, so that a debugger or a core dump shows the place. */
#pragma once

#include "loop/loop.h"

/* From now on a fatal signal writes which plugin ran, and in which stage, to stderr. Starts the
 * loop's watchdog. Once a process, on the loop's thread. */
void cli_crash_start(struct loop *loop);
