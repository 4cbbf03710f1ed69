#include "state/outage.h"
#include <string.h>

static const struct {
    const char *title, *sentence;
} outages[] = {
#define OUTAGE_ROW(name, title, sentence) {title, sentence},
    OUTAGES(OUTAGE_ROW)
#undef OUTAGE_ROW
};

/* First words of error replies (redis 7.0, server.c and acl.c). */
static const struct {
    const char *word;
    enum outage outage;
} words[] = {
    {"OOM", OUTAGE_MEMORY},          {"MISCONF", OUTAGE_DISK},    {"READONLY", OUTAGE_READ_ONLY},
    {"NOREPLICAS", OUTAGE_REPLICAS}, {"NOAUTH", OUTAGE_ACCESS},   {"WRONGPASS", OUTAGE_ACCESS},
    {"NOPERM", OUTAGE_ACCESS},       {"LOADING", OUTAGE_LOADING}, {"MASTERDOWN", OUTAGE_LOADING},
    {"BUSY", OUTAGE_BUSY},
};

enum outage outage_of_words(const char *text, enum outage otherwise)
{
    /* The server's words may stand after who it was: "HOST:PORT: NOAUTH …". */
    for (const char *at = text; at != NULL;) {
        size_t len = strcspn(at, " ");
        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
            if (strlen(words[i].word) == len && strncmp(words[i].word, at, len) == 0)
                return words[i].outage;
        at = strstr(at, ": ");
        at = at ? at + 2 : NULL;
    }
    return otherwise;
}

enum outage outage_of(const struct error *err)
{
    static const char refused[] = "Redis refused ";
    if (strncmp(err->message, refused, sizeof(refused) - 1) != 0)
        return strstr(err->message, "is a replica of") ? OUTAGE_READ_ONLY : OUTAGE_AWAY;
    const char *text = strstr(err->message, ": ");
    return text ? outage_of_words(text + 2, OUTAGE_REFUSED) : OUTAGE_REFUSED;
}

const char *outage_title(enum outage outage)
{
    return outages[outage].title;
}

const char *outage_sentence(enum outage outage)
{
    return outages[outage].sentence;
}
