/* The bundle: the configuration and all pipelines as they were read and checked once, handed to
 * children on a memfd, so that front and workers are the same, whatever happens to the files in the
 * meantime. It holds the configuration's secrets: only children inherit it. */
#pragma once

#include "app/config.h"
#include "run/pipeline.h"

struct bundle {
    json_t *config;  /* as config_read gave it; NULL: none. Owned */
    json_t *plugins; /* versions by name, as check_bundle met them; NULL: not checked. Owned */
    struct pipeline_source **sources;
    size_t count;
};
/* Reads every pipeline of the configured folders; `config` of it is the caller's to set. Returns
 * false when something was reported as an error. */
bool bundle_read(const struct config *config, struct bundle *ret_bundle, struct report *report);
/* An anonymous file for a bundle (close-on-exec). */
int bundle_file(int *ret_fd, struct error *err);
int bundle_write(const struct bundle *bundle, int fd, struct error *err);
int bundle_load(int fd, struct bundle *ret_bundle, struct error *err);
void bundle_done(struct bundle *bundle);
/* The source of that name, borrowed, or NULL. */
const struct pipeline_source *bundle_find(const struct bundle *bundle, const char *name);
