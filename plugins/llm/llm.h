/* What the files of the llm plugin share: the settings, one exchange, and the parts of it. */
#pragma once

#include <jansson.h>
#include <millrace/plugin.h>

/* Options that are passed through to the model as they stand: name, kind, bounds, sentence. They
 * are JSON rows, because 0 is a value of its own for most of them and absent is not 0. */
#define LLM_PARAMS(X)                                                                              \
    X(temperature, NUMBER, 0, 2, "Sampling temperature, 0 to 2, passed through.")                  \
    X(max_tokens, COUNT, 1, 1e9, "Most tokens of the answer (the older name), passed through.")    \
    X(max_completion_tokens, COUNT, 1, 1e9,                                                        \
      "Most tokens of the answer, reasoning included, passed through.")                            \
    X(top_p, NUMBER, 0, 1, "Nucleus sampling, 0 to 1, passed through.")                            \
    X(stop, STOP, 0, 0, "A string, or up to 4, at which the answer ends, passed through.")         \
    X(seed, COUNT, -9.2e18, 9.2e18, "Seed for answers that repeat, passed through.")               \
    X(frequency_penalty, NUMBER, -2, 2, "From -2 to 2, passed through.")                           \
    X(presence_penalty, NUMBER, -2, 2, "From -2 to 2, passed through.")                            \
    X(reasoning_effort, WORD, 0, 0, "How much the model may think, passed through.")               \
    X(verbosity, WORD, 0, 0, "How long the answer shall be, passed through.")

enum llm_image { LLM_IMAGE_URL, LLM_IMAGE_INLINE };

struct llm_settings {
    const char *endpoint, *model;
    const mr_template *messages;
#define X(name, kind, lo, hi, sentence) const struct json_t *name;
    LLM_PARAMS(X)
#undef X
    const struct json_t *extra;    /* merged into the request, wins over the options above */
    const struct json_t *response; /* "text" or "json" */
    int32_t image;                 /* enum llm_image */
    uint64_t connect_ms, first_byte_ms, idle_ms;
};

/* A model's answer. `content` lies in `tree` or in the task's memory. */
struct llm_answer {
    json_t *tree;        /* the whole envelope; the holder's reference */
    const char *content; /* NULL: none */
    size_t content_len;
    const char *finish_reason; /* "" when not given */
    const char *refusal;       /* NULL: none */
};

/* llm_reply.c */

/* MR_OK for a status that means an answer; otherwise the task's error, by the table of PLUGINS.md.
 */
int llm_check_status(mr_context *cx, const char *endpoint, const struct mr_http_reply *reply);
/* Reads the envelope of a chat completion and reports its usage. Fails with MR_E_BAD_RESPONSE.
 * On success `ret->tree` is the caller's. */
int llm_read_answer(mr_context *cx, const struct mr_http_reply *reply, struct llm_answer *ret);
/* The JSON in an answer: without surrounding space and without a code fence around it. */
const char *llm_find_json(const char *text, size_t len, size_t *ret_len);

/* llm_image.c */

/* Makes every image part of `messages` fit `image: inline`: data URLs stay, what else there is gets
 * fetched and replaced by a data URL. */
MR_SUSPENDS int llm_inline_images(mr_context *cx, const struct llm_settings *set, json_t *messages);
static inline void llm_decref_cleanup(json_t **slot)
{
    json_decref(*slot);
}
/* A local reference that is dropped when it leaves its scope. */
#define llm_hold __attribute__((cleanup(llm_decref_cleanup), unused))
