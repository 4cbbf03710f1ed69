/* The check of everything that can be checked before a job runs: each pipeline of a bundle is built
 * with its plugins, endpoints and called pipelines. Loads plugins: run it in a process that may
 * die. */
#pragma once

#include "app/bundle.h"

/* Told what is done next, so that a crash has a name: "loading plugin", "checking pipeline". */
typedef void check_note(void *arg, const char *doing, const char *name);

/* Checks pipelines; what they call may be among them or in the configured folders. `note` may be
 * NULL. True when no error was reported. */
bool check_sources(const struct config *config, struct pipeline_source *const *sources,
                   size_t count, check_note *note, void *arg, struct report *report);
/* The same for all pipelines of a configuration, and what concerns both: queues that somebody
 * serves, the pipeline of the simple task API. Leaves the versions of the
 * plugins that were met in bundle->plugins. */
bool check_bundle(const struct config *config, struct bundle *bundle, check_note *note, void *arg,
                  struct report *report);
/* Prints a report as people read it, one problem with its hint, to stderr; `quiet` leaves warnings
 * out. */
void check_print(const struct report *report, bool quiet);
/* Writes the errors, a line each, into a file from its beginning, for somebody else to log. */
void check_write(const struct report *report, int fd);
