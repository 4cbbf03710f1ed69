/*
 * journal: what came in and how it went, in memory (the last N requests) and in a file.
 *
 * An entry is written when its request is complete, to the file at the next turn of the loop; its
 * outcome (pending, answered, client_closed, reset, stalled, …) is kept in memory only and becomes
 * known later.
 */
#ifndef SIM_JOURNAL_H
#define SIM_JOURNAL_H

#include "answer.h"

#include <stdio.h>

#define JOURNAL_TEXT_MAX 200

struct journal_entry {
    uint64_t n;          /* from 1; 0 marks an empty slot */
    char *line;          /* JSON object without its closing brace */
    char *text;          /* the text that waits match, or NULL */
    char *model;         /* or NULL */
    const char *outcome; /* static word */
    uint64_t at_ms;      /* Unix time of arrival */
    uint64_t took_ms;    /* until the outcome */
};

struct journal {
    struct journal_entry *ring;
    size_t keep;        /* slots of the ring */
    uint64_t last;      /* number of the newest request */
    uint64_t forgotten; /* number of the last that journal_clear removed */
    FILE *file;         /* NULL: none */
    size_t body_bytes;  /* of each body that are kept; 0: none */
};

/* What is known of a request when it arrives. */
struct journal_request {
    const struct http_request *http;
    const struct ask *ask;
    const struct rule *rule; /* or NULL */
    const struct plan *plan;
    uint64_t connection;
    uint64_t in_flight;
};

/* Opens file for appending (NULL: none). Returns false with errno set when it cannot be opened. */
bool journal_init(struct journal *j, const char *file, size_t keep, size_t body_bytes);

/* Adds request number n (they must come in order). */
void journal_add(struct journal *j, uint64_t n, const struct journal_request *request);

/* Sets the outcome of request n, if it is still kept. */
void journal_end(struct journal *j, uint64_t n, const char *outcome);

/* Entry n, or NULL when it is not kept. */
const struct journal_entry *journal_find(const struct journal *j, uint64_t n);

/* Number of the oldest entry that may be kept, less one. */
uint64_t journal_oldest(const struct journal *j);

/* Appends the entries after `since`, at most limit, as a JSON array. */
void journal_format(const struct journal *j, uint64_t since, uint64_t limit, struct buf *out);

/* Hands what is buffered to the file system. */
void journal_flush(struct journal *j);

/* Forgets the entries in memory; numbers go on. */
void journal_clear(struct journal *j);

/* Flushes, closes, frees. */
void journal_done(struct journal *j);

#endif
