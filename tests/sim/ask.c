/*
 * ask: see ask.h. A request without model or messages, or with a part of the wrong shape, is
 * described in `reason` and answered with 400 as a provider would: a client's mistake must not pass
 * here.
 */
#include "ask.h"

#include <stdio.h>
#include <string.h>

static uint64_t digest_of(const char *p, size_t n)
{
    uint64_t h = UINT64_C(14695981039346656037);

    for (size_t i = 0; i < n; i++) {
        h ^= (unsigned char)p[i];
        h *= UINT64_C(1099511628211);
    }
    return h;
}

static void refuse(struct ask *ask, const char *what, size_t index)
{
    if (ask->reason[0] == '\0')
        snprintf(ask->reason, sizeof ask->reason, "Invalid 'messages[%zu]': %s.", index, what);
}

static void take_text(struct ask *ask, json_t *text, bool user)
{
    ask->text_bytes += json_string_length(text);
    if (user)
        ask->user = json_string_value(text);
    if (!ask->json && strstr(json_string_value(text), "JSON"))
        ask->json = true;
}

static void take_part(struct ask *ask, json_t *part, bool user, size_t index)
{
    const char *type = json_string_value(json_object_get(part, "type"));

    if (type && strcmp(type, "text") == 0) {
        json_t *text = json_object_get(part, "text");

        if (json_is_string(text))
            take_text(ask, text, user);
        else
            refuse(ask, "a text part needs the string 'text'", index);
    } else if (type && strcmp(type, "image_url") == 0) {
        json_t *url = json_object_get(json_object_get(part, "image_url"), "url");

        if (json_is_string(url) && json_string_length(url) > 0) {
            ask->image_url = json_string_value(url);
            ask->images++;
        } else {
            refuse(ask, "an image_url part needs 'image_url.url'", index);
        }
    } else {
        refuse(ask, "a part needs a 'type' of text or image_url", index);
    }
}

static void take_message(struct ask *ask, json_t *message, size_t index)
{
    const char *role = json_string_value(json_object_get(message, "role"));
    json_t *content = json_object_get(message, "content");

    if (!role) {
        refuse(ask, "it needs the string 'role'", index);
        return;
    }
    bool user = strcmp(role, "user") == 0;
    if (json_is_string(content)) {
        take_text(ask, content, user);
    } else if (json_is_array(content)) {
        for (size_t i = 0; i < json_array_size(content); i++)
            take_part(ask, json_array_get(content, i), user, index);
    } else if (strcmp(role, "assistant") != 0) {
        refuse(ask, "it needs a 'content' that is a string or an array of parts", index);
    }
}

void ask_init(struct ask *ask, const char *body, size_t body_len, bool parse)
{
    *ask = (struct ask){.digest = digest_of(body, body_len)};
    if (!parse)
        return;

    json_error_t error;
    ask->root = json_loadb(body, body_len, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(ask->root)) {
        snprintf(ask->reason, sizeof ask->reason, "%s",
                 "We could not parse the JSON body of your request.");
        return;
    }
    ask->model = json_string_value(json_object_get(ask->root, "model"));
    ask->stream = json_is_true(json_object_get(ask->root, "stream"));
    ask->include_usage = json_is_true(
        json_object_get(json_object_get(ask->root, "stream_options"), "include_usage"));

    json_t *format = json_object_get(ask->root, "response_format");
    const char *type = json_string_value(json_object_get(format, "type"));
    if (type && strncmp(type, "json_", 5) == 0)
        ask->json = true;
    ask->schema = json_object_get(json_object_get(format, "json_schema"), "schema");

    json_t *messages = json_object_get(ask->root, "messages");
    if (!ask->model) {
        snprintf(ask->reason, sizeof ask->reason, "you must provide a model parameter");
    } else if (!json_is_array(messages) || json_array_size(messages) == 0) {
        snprintf(ask->reason, sizeof ask->reason, "Missing required parameter: 'messages'.");
    }
    if (json_is_array(messages)) {
        ask->messages = messages;
        for (size_t i = 0; i < json_array_size(messages); i++)
            take_message(ask, json_array_get(messages, i), i);
    }
}

bool ask_contains(const struct ask *ask, const char *needle)
{
    for (size_t i = 0; i < json_array_size(ask->messages); i++) {
        json_t *content = json_object_get(json_array_get(ask->messages, i), "content");

        if (json_is_string(content) && strstr(json_string_value(content), needle))
            return true;
        for (size_t k = 0; k < json_array_size(content); k++) {
            const char *text =
                json_string_value(json_object_get(json_array_get(content, k), "text"));

            if (text && strstr(text, needle))
                return true;
        }
    }
    return false;
}

void ask_done(struct ask *ask)
{
    json_decref(ask->root);
    *ask = (struct ask){.digest = 0};
}
