/* The shape of a body: see shape.h. */
#include "fcgi/shape.h"
#include "base/limits.h"
#include <string.h>

#define POINTER_BYTES 80u /* of a member that we know */

void shape_members(const json_t *object, const char *const *members, struct report *report)
{
    const char *name = NULL;
    json_t *value = NULL;
    json_object_foreach ((json_t *)(uintptr_t)object, name, value) {
        bool known = false;
        for (size_t i = 0; members[i] != NULL && !known; i++) {
            known = strcmp(members[i], name) == 0;
        }
        if (known) {
            continue;
        }
        buf_auto struct buf pointer;
        buf_init(&pointer, LIMIT_BODY_BYTES);
        json_pointer_push(&pointer, name);
        struct error *err = report_add(report, NULL, buf_text(&pointer), "is not a known member");
        const char *near = error_nearest(name, members);
        if (near != NULL) {
            error_hint(err, "did you mean \"%s\"?", near);
        }
    }
}

static void report_member(struct report *report, const char *name, const char *what)
{
    buf_auto struct buf pointer;
    buf_init(&pointer, POINTER_BYTES);
    json_pointer_push(&pointer, name);
    report_add(report, NULL, buf_text(&pointer), "%s", what);
}

const char *shape_text(const json_t *object, const char *name, size_t max_bytes,
                       struct report *report)
{
    const json_t *value = json_object_get(object, name);
    if (value == NULL) {
        return NULL;
    }
    size_t len = json_string_length(value);
    if (!json_is_string(value)) {
        report_member(report, name, "must be a string");
    } else if (len == 0) {
        report_member(report, name, "must not be empty");
    } else if (len > max_bytes || strlen(json_string_value(value)) != len) {
        report_member(report, name, "is no such name");
    } else {
        return json_string_value(value);
    }
    return NULL;
}

bool shape_bool(const json_t *object, const char *name, struct report *report)
{
    const json_t *value = json_object_get(object, name);
    if (value != NULL && !json_is_boolean(value)) {
        report_member(report, name, "must be true or false");
    }
    return json_is_true(value);
}
