/*
 * ask: what a chat completion request asks for, read once from its body.
 *
 * The strings are borrowed from the parsed body, which the ask owns until ask_done.
 */
#ifndef SIM_ASK_H
#define SIM_ASK_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ask {
    json_t *root;          /* the parsed body; NULL when it is not JSON or was not looked at */
    json_t *messages;      /* array, or NULL */
    const char *model;     /* NULL when there is none */
    const char *user;      /* the last text of role user, or NULL */
    const char *image_url; /* the last image part's URL, or NULL */
    json_t *schema;        /* response_format.json_schema.schema, or NULL */
    size_t text_bytes;     /* of all texts together */
    size_t images;
    uint64_t digest; /* FNV-1a of the raw body: equal bodies have equal digests */
    bool stream;
    bool include_usage; /* stream_options.include_usage */
    bool json;          /* response_format asks for JSON, or a text has the word JSON */
    char reason[160];   /* why this is no valid chat request; empty when it is one */
};

/* Reads a body. With parse false only the digest is taken (paths that are not chat completions). */
void ask_init(struct ask *ask, const char *body, size_t body_len, bool parse);

/* True when one of the texts of the messages contains needle. */
bool ask_contains(const struct ask *ask, const char *needle);

/* Frees what ask_init took. */
void ask_done(struct ask *ask);

#endif
