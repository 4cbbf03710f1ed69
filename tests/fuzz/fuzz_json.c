/* Any bytes through json_read. What is accepted is no deeper than the scan said, and both printed
 * forms read back to an equal value and are fixed points. */
#include "base/json.h"
#include "base/limits.h"
#include "base/mem.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(bool ok)
{
    if (!ok)
        __builtin_trap();
}

/* Nesting of a tree, counted on the tree itself. */
static unsigned depth_of(const json_t *value)
{
    unsigned deepest = 0;
    const char *key;
    size_t i;
    json_t *member;
    if (json_is_object(value)) {
        json_object_foreach ((json_t *)(uintptr_t)value, key, member) {
            unsigned depth = depth_of(member);
            deepest = depth > deepest ? depth : deepest;
        }
        return deepest + 1;
    }
    if (json_is_array(value)) {
        json_array_foreach (value, i, member) {
            unsigned depth = depth_of(member);
            deepest = depth > deepest ? depth : deepest;
        }
        return deepest + 1;
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const char *text = (const char *)data;
    struct error err = {0};
    json_hold json_t *value = json_read(text, len, 0, &err);
    if (value == NULL) {
        check(err.code == MR_E_BAD_RESPONSE && err.message[0] != '\0');
        return 0;
    }
    unsigned depth = depth_of(value);
    check(depth <= LIMIT_JSON_DEPTH && depth == json_text_depth(text, len));

    size_t printed_len = 0;
    mem_auto char *printed = json_print(value, 16 * len + 64, &printed_len, NULL);
    check(printed != NULL);
    json_hold json_t *again = json_read(printed, printed_len, 0, NULL);
    check(again != NULL && json_equal(value, again));

    buf_auto struct buf one, two;
    buf_init(&one, 16 * len + 64);
    buf_init(&two, 16 * len + 64);
    check(json_canonical_to(value, &one));
    json_hold json_t *sorted = json_read(one.data, one.len, 0, NULL);
    check(sorted != NULL && json_equal(value, sorted));
    check(json_canonical_to(sorted, &two) && one.len == two.len);
    check(memcmp(one.data, two.data, one.len) == 0);
    return 0;
}
