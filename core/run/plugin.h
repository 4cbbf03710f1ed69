/* Plugins: dlopen and its checks. The one seam to libdl.
 *
 * A plugin folder is searched for NAME.so. Before anything of it runs: a regular file, owned by
 * root or by us, not writable by others (nor its folder); then RTLD_NOW | RTLD_LOCAL, the symbol
 * mr_plugin_NAME, ABI version and sizes. Messages say what to rebuild. Nothing is ever dlclosed. */
#pragma once

#include "base/error.h"
#include "base/json.h"
#include "base/option.h"

struct plugin {
    char *name; /* the registry's key */
    char *path;
    struct mr_plugin about; /* what both sides know, in a zeroed copy */
    struct option_rows options;
};

struct plugin_registry;
/* `folders`: NULL-ended; copied. */
struct plugin_registry *plugin_registry_new(const char *const *folders);
void plugin_registry_free(struct plugin_registry *registry);
/* Loads (once) and checks; NULL with the reason in `err`: MR_E_PLUGIN, with the names that are
 * there as hint. Borrowed. */
const struct plugin *plugin_find(struct plugin_registry *registry, const char *name,
                                 struct error *err);
/* Names of all NAME.so in the folders, sorted; free each and the array. */
char **plugin_names(struct plugin_registry *registry);
