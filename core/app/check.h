/* The check of everything that can be checked before a job runs: each pipeline of a bundle is built
 * with its plugins, endpoints and called pipelines. Loads plugins: run it in a process that may
 * die. */
#pragma once

#include "app/bundle.h"

/* Reports every error and warning; true when there is no error. */
bool check_bundle(const struct config *config, const struct bundle *bundle, struct report *report);
/* Prints a report as people read it, one problem with its hint, to stderr; `quiet` leaves warnings
 * out. */
void check_print(const struct report *report, bool quiet);
