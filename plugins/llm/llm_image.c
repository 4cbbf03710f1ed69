/* Images of the llm plugin: `image: inline` sends them as data URLs, because some servers fetch
 * nothing themselves.
 *
 * An address that is a data URL already stays as it is. Any other is fetched, behind the guard
 * against private addresses (it mostly comes from a user), and must be an image of at most
 * IMAGE_MAX_BYTES. Base64 of a whole image takes milliseconds, so it is made on a thread. */
#include "llm.h"
#include "reply.h"
#include <string.h>

#define IMAGE_MAX_BYTES (10u << 20)

/* The object that holds the "url" of a part of type image_url, or NULL. */
static json_t *image_of(const json_t *part)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    if (!type || strcmp(type, "image_url") != 0)
        return NULL;
    json_t *image = json_object_get(part, "image_url");
    return json_is_string(json_object_get(image, "url")) ? image : NULL;
}

static int is_data_url(const char *url)
{
    return strncmp(url, "data:", 5) == 0;
}

/* Base64 (RFC 4648 section 4) of `in` after what `out` holds already. */
struct encoding {
    const unsigned char *in;
    size_t in_len;
    char *out;
};

static void encode(void *arg)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct encoding *e = arg;
    const unsigned char *in = e->in;
    char *out = e->out;
    size_t left = e->in_len;
    for (; left >= 3; left -= 3, in += 3) {
        unsigned v = (unsigned)in[0] << 16 | (unsigned)in[1] << 8 | in[2];
        *out++ = digits[v >> 18];
        *out++ = digits[v >> 12 & 63];
        *out++ = digits[v >> 6 & 63];
        *out++ = digits[v & 63];
    }
    if (left > 0) {
        unsigned v = (unsigned)in[0] << 16 | (left > 1 ? (unsigned)in[1] << 8 : 0);
        *out++ = digits[v >> 18];
        *out++ = digits[v >> 12 & 63];
        *out++ = '=';
        if (left > 1)
            out[-1] = digits[v >> 6 & 63];
        *out++ = '=';
    }
    *out = 0;
}

/* The media type of a reply ("image/png"), checked to be an image's; "" when it is none. */
static void media_type(const struct mr_http_reply *reply, char *ret, size_t size)
{
    const char *type = reply_header(reply, "content-type");
    size_t len = type ? strcspn(type, "; \t") : 0;
    ret[0] = 0;
    if (len < 7 || len >= size || strncmp(type, "image/", 6) != 0 ||
        strspn(type, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-./") < len)
        return;
    memcpy(ret, type, len);
    ret[len] = 0;
}

/* Fetches `url` and gives its data URL. New reference. */
MR_SUSPENDS static int fetch(mr_context *cx, const struct llm_settings *set, const char *url,
                             json_t **ret_url)
{
    static const struct mr_header headers[] = {{"Accept", "image/*"}};
    char shown[160];
    char type[64];
    reply_one_line(url, shown, sizeof(shown));
    if (strncmp(url, "https://", 8) != 0 && strncmp(url, "http://", 7) != 0)
        return mr_fail(cx, MR_E_SCHEMA,
                       "image address \"%s\" is neither http:, https: nor a data URL", shown);
    struct mr_http request = {
        .size = sizeof(request),
        .flags = MR_HTTP_GUARD,
        .method = "GET",
        .url = url,
        .headers = headers,
        .header_count = 1,
        .connect_ms = set->connect_ms,
        .first_byte_ms = set->first_byte_ms,
        .idle_ms = set->idle_ms,
        .max_bytes = IMAGE_MAX_BYTES,
    };
    struct mr_http_reply reply = {.size = sizeof(reply)};
    int rc = mr_http(cx, &request, &reply);
    if (rc != MR_OK)
        return rc;
    if (reply.status != 200) {
        int again = reply.status == 429 || reply.status == 408 || reply.status >= 500;
        return mr_fail_as(cx, MR_E_UPSTREAM_STATUS, again ? MR_CLASS_RETRY : MR_CLASS_PERMANENT,
                          again ? reply_wait_ms(&reply) : 0, "fetching image \"%s\" answered %d",
                          shown, reply.status);
    }
    media_type(&reply, type, sizeof(type));
    if (!type[0])
        return mr_fail(cx, MR_E_SCHEMA, "\"%s\" is not an image (its content type is not image/…)",
                       shown);
    size_t head = strlen("data:;base64,") + strlen(type);
    size_t size = head + (reply.body_len + 2) / 3 * 4 + 1;
    char *text = mr_alloc(cx, size);
    snprintf(text, size, "data:%s;base64,", type);
    struct encoding e = {
        .in = (const unsigned char *)reply.body, .in_len = reply.body_len, .out = text + head};
    rc = mr_offload(cx, encode, &e);
    if (rc == MR_OK)
        *ret_url = json_stringn_nocheck(text, size - 1);
    return rc;
}

int llm_inline_images(mr_context *cx, const struct llm_settings *set, json_t *messages)
{
    size_t m;
    size_t p;
    json_t *message;
    json_t *part;
    json_array_foreach (messages, m, message) {
        json_array_foreach (json_object_get(message, "content"), p, part) {
            json_t *image = image_of(part);
            json_t *url = NULL;
            if (!image || is_data_url(json_string_value(json_object_get(image, "url"))))
                continue;
            int rc = fetch(cx, set, json_string_value(json_object_get(image, "url")), &url);
            if (rc != MR_OK)
                return rc;
            json_object_set_new(image, "url", url);
        }
    }
    return MR_OK;
}
