/* Which key of the table in keys.h a name from Redis is. */
#include "base/mem.h"
#include "state/fsck_inner.h"
#include <string.h>

static const struct {
    const char *pattern, *type;
} rows[] = {
#define FSCK_ROW(name, pattern, type, lifetime, writer, sentence)                                  \
    [FSCK_KEY_##name] = {pattern, type},
    STATE_KEYS(FSCK_ROW)
#undef FSCK_ROW
};

/* A run of capitals in the pattern stands for any text that is not empty, `P` for a number. */
static bool fits(const char *pattern, const char *text)
{
    size_t word = strspn(pattern, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    if (word == 0)
        return *pattern == *text && (*pattern == '\0' || fits(pattern + 1, text + 1));
    size_t most = word == 1 ? strspn(text, "0123456789") : strlen(text);
    for (size_t len = most; len > 0; len--)
        if (fits(pattern + word, text + len))
            return true;
    return false;
}

void fsck_key_read(const struct store *store, const char *text, size_t len, struct fsck_key *ret)
{
    *ret = (struct fsck_key){.kind = FSCK_KEY_UNKNOWN, .text = mem_ndup(text, len)};
    size_t prefix = strlen(store->prefix);
    ret->rest = ret->name = "";
    if (len <= prefix + 1 || len >= STORE_KEY_BYTES || strlen(ret->text) != len)
        return;
    const char *rest = ret->text + prefix + 1;
    enum fsck_key_kind kind = 0;
    while (kind < FSCK_KEY_UNKNOWN &&
           (strcmp(rows[kind].type, "channel") == 0 || !fits(rows[kind].pattern, rest)))
        kind++;
    if (kind == FSCK_KEY_UNKNOWN)
        return;
    if (strncmp(rows[kind].pattern, "{P}:", 4) == 0) {
        uint64_t partition = text_u64(rest + 1, strspn(rest + 1, "0123456789"));
        if (partition >= store->partitions)
            return;
        ret->partition = (uint32_t)partition;
        ret->rest = strchr(rest, '}') + 2;
        const char *colon = strchr(ret->rest, ':');
        ret->name = colon ? colon + 1 : "";
        /* Where nobody would look for the job. */
        if ((kind == FSCK_KEY_JOB || kind == FSCK_KEY_OUT || kind == FSCK_KEY_LOG) &&
            (strlen(ret->name) >= ID_BYTES || strpbrk(ret->name, " \n") ||
             store_partition(store, ret->name) != ret->partition))
            return;
    }
    ret->kind = kind;
}

void fsck_key_done(struct fsck_key *key)
{
    free(key->text);
}

const char *fsck_key_type(enum fsck_key_kind kind)
{
    return strcmp(rows[kind].type, "any") == 0 ? NULL : rows[kind].type;
}
