/* The subset of JSON Schema that describes a pipeline's input.
 *
 * Accepted: `type` (one name or an array of them), `required`, `properties`,
 * `additionalProperties` (boolean or schema), `enum`, `const`, `items` (one schema), `minItems`,
 * `maxItems`, `minLength`, `maxLength` (in characters), `minimum`, `maximum`, and `title`,
 * `description`, `default`, `examples`, `$schema`, which check nothing. Any other keyword is
 * refused at load: one that is ignored would be a check that silently does not take place. There is
 * no `pattern`: a regular expression over text from outside may take forever. */
#pragma once

#include "base/error.h"
#include "base/json.h"

/* Checks a schema itself; every fault is reported with a pointer that begins with `pointer`. True
 * when there was none. */
bool schema_check(const json_t *schema, const char *file, const char *pointer,
                  struct report *report);
/* Checks a value against a schema that schema_check accepted. */
bool schema_validate(const json_t *schema, const json_t *value, const char *pointer,
                     struct report *report);
