/*
 * content: the words the simulated model says when no rule gives them.
 *
 * An image is classified as waste (the demo's vision stage); a JSON schema gets an instance of
 * itself; a request for JSON gets an object in the shape that its prompt names; everything else a
 * sentence that quotes the prompt. The same request always gets the same words.
 */
#ifndef SIM_CONTENT_H
#define SIM_CONTENT_H

#include "ask.h"
#include "buf.h"

/* Appends the content and returns the word for the journal: vision, schema, json or text. */
const char *content_make(const struct ask *ask, struct buf *out);

#endif
