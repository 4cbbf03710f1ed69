/* Giving up root: the process becomes the user that is configured, and the socket becomes theirs.
 */
#pragma once

#include "base/error.h"

/* `user`, `group` and `socket_path` may be NULL; without user and group nothing happens. Without a
 * group the user's own counts. MR_E_SCHEMA when a name is not known, MR_E_INTERNAL when the system
 * refuses. Cannot be undone. */
int privilege_drop(const char *user, const char *group, const char *socket_path, struct error *err);
