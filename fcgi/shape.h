/* The shape of a body: what handlers check alike. Faults go to a report, with pointers. */
#pragma once

#include "base/error.h"
#include "base/json.h"

/* Reports each member of an object that is not among `members` (NULL-ended), with the nearest one
 * as hint. */
void shape_members(const json_t *object, const char *const *members, struct report *report);
/* The text of a member: NULL when it is absent, or reported since it is no string of 1 to
 * `max_bytes` bytes. Borrowed. */
const char *shape_text(const json_t *object, const char *name, size_t max_bytes,
                       struct report *report);
/* A member that is true or false; false when it is absent or was reported. */
bool shape_bool(const json_t *object, const char *name, struct report *report);
