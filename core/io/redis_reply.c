/* Replies and words: from hiredis's form to ours, from arguments to a command, and what error
 * replies mean. */
#include "base/mem.h"
#include "io/redis_link.h"
#include <stdio.h>
#include <string.h>

void link_take(redisReply *from, struct reply *ret)
{
    *ret = (struct reply){.type = REPLY_NIL};
    switch (from->type) {
    case REDIS_REPLY_INTEGER:
        ret->type = REPLY_INT;
        ret->integer = from->integer;
        break;
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
    case REDIS_REPLY_ERROR:
        ret->type = from->type == REDIS_REPLY_STRING   ? REPLY_TEXT
                    : from->type == REDIS_REPLY_STATUS ? REPLY_STATUS
                                                       : REPLY_ERROR;
        ret->text = from->str; /* malloc'ed and NUL-ended by hiredis */
        ret->len = (size_t)from->len;
        from->str = NULL;
        break;
    case REDIS_REPLY_ARRAY:
        ret->type = REPLY_ARRAY;
        ret->count = from->elements;
        if (ret->count > 0)
            ret->items = mem_alloc(ret->count * sizeof(*ret->items));
        for (size_t i = 0; i < ret->count; i++) {
            link_take(from->element[i], &ret->items[i]);
            from->element[i] = NULL;
        }
        break;
    default:
        break;
    }
    freeReplyObject(from);
}

void reply_done(struct reply *reply)
{
    free(reply->text);
    for (size_t i = 0; i < reply->count; i++)
        reply_done(&reply->items[i]);
    free(reply->items);
    *reply = (struct reply){.type = REPLY_NIL};
}

struct arg arg_text(const char *text)
{
    return (struct arg){text, strlen(text)};
}

struct arg arg_int(char slot[24], int64_t value)
{
    int len = snprintf(slot, 24, "%lld", (long long)value);
    return (struct arg){slot, (size_t)len};
}

size_t link_evalsha(struct arg *ret, char slot[24], const struct redis_script *script, size_t keys,
                    const struct arg *key, size_t argc, const struct arg *argv)
{
    ret[0] = arg_text("EVALSHA");
    ret[1] = (struct arg){script->sha, 40};
    ret[2] = arg_int(slot, (int64_t)keys);
    for (size_t i = 0; i < keys; i++)
        ret[3 + i] = key[i];
    for (size_t i = 0; i < argc; i++)
        ret[3 + keys + i] = argv[i];
    return 3 + keys + argc;
}

static bool begins(const char *text, const char *word)
{
    return strncmp(text, word, strlen(word)) == 0;
}

bool link_error_is_demoted(const char *text)
{
    return begins(text, "READONLY") || begins(text, "UNBLOCKED") || begins(text, "MASTERDOWN");
}

int link_refused(const char *what, const char *text, struct error *err)
{
    error_set(err, MR_E_STORE, "Redis refused %s: %.200s", what, text);
    error_detail(err, "answered");
    return MR_E_STORE;
}

enum script_error link_script_error(const char *text)
{
    static const char *const busy[] = {"LOADING",     "BUSY ",      "READONLY",  "MASTERDOWN",
                                       "CLUSTERDOWN", "NOREPLICAS", "UNBLOCKED", "TRYAGAIN"};
    static const char *const refused[] = {"OOM", "MISCONF", "NOPERM", "NOAUTH"};
    /* An error that a command inside the script met may be wrapped: the word stands first in both
     * forms that servers use ("OOM …", "ERR … script: …, on @user_script:1: OOM …" is a bug). */
    if (begins(text, "NOSCRIPT"))
        return SCRIPT_UNKNOWN;
    for (size_t i = 0; i < sizeof(busy) / sizeof(*busy); i++)
        if (begins(text, busy[i]))
            return SCRIPT_BUSY;
    for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++)
        if (begins(text, refused[i]))
            return SCRIPT_REFUSED;
    return SCRIPT_BUG;
}
