/* What the files of fsck share: fsck.c walks, fsck_key.c knows the keys, fsck_job.c
 * looks at jobs, fsck_items.c at entries and members. */
#pragma once

#include "state/fsck.h"
#include "state/inner.h"

/* One row for each key of STATE_KEYS. */
enum fsck_key_kind {
#define FSCK_KEY(name, pattern, type, lifetime, writer, sentence) FSCK_KEY_##name,
    STATE_KEYS(FSCK_KEY) FSCK_KEY_UNKNOWN
#undef FSCK_KEY
};
struct fsck_key {
    enum fsck_key_kind kind;
    char *text;         /* in full */
    uint32_t partition; /* of {P} keys */
    const char *rest;   /* in `text`: after `{P}:` */
    const char *name;   /* in `text`: after `{P}:KIND:`, "" when there is none */
};
/* Which key it is, by the table in keys.h; `text` is copied. */
void fsck_key_read(const struct store *store, const char *text, size_t len, struct fsck_key *ret);
void fsck_key_done(struct fsck_key *key);
/* The type that the table asks for; NULL: any. */
const char *fsck_key_type(enum fsck_key_kind kind);

/* The source of a revision, as far as fsck reads it. */
struct fsck_graph {
    struct fsck_graph *next;
    char *revision;
    bool is_there;
    uint32_t count;
    char *(*rows)[3]; /* name, queue, needs separated by `,` */
};
struct fsck {
    struct store *store;
    const struct fsck_options *options;
    struct fsck_summary *summary;
    struct fsck_graph *graphs, *last; /* seen so far; that of the last job */
    struct fsck_key *keys;            /* those that belong to no job */
    size_t key_count, key_cap;
};
/* Reports; counts. */
void fsck_report(struct fsck *fsck, enum fsck_kind kind, enum fsck_outcome outcome, const char *at,
                 bool is_job, const char *what);
/* Reports the pairs of kind and words in a script's reply, from item `from` on. */
int fsck_report_all(struct fsck *fsck, enum script script, const struct reply *reply, size_t from,
                    enum fsck_outcome outcome, const char *at, bool is_job, struct error *err);
/* Whether the source of a revision is in Redis and is what its name says; what is not is reported
 * and deleted. Fills `graph` (NULL: only looks). */
MR_SUSPENDS int fsck_revision(struct fsck *fsck, const char *revision, struct fsck_graph *graph,
                              bool *ret_there, struct error *err);
/* MENDED when this run repairs. */
enum fsck_outcome fsck_mended(const struct fsck *fsck);
/* Keys, entries or members that are read at a time. */
#define FSCK_PAGE "100"
/* A queue's stream: its entries and consumers. */
MR_SUSPENDS int fsck_stream(struct fsck *fsck, const struct fsck_key *key, struct error *err);
/* The members of a set that stand for jobs; any other key: nothing. */
MR_SUSPENDS int fsck_set(struct fsck *fsck, const struct fsck_key *key, struct error *err);
/* Looks at one job, and mends it. */
MR_SUSPENDS int fsck_job(struct fsck *fsck, const char *id, struct error *err);
void fsck_job_done(struct fsck *fsck);
