#include "base/buf.h"
#include "state/inner.h"
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name, *text;
} scripts[SCRIPTS] = {
#define SCRIPT_TEXT(name, text) [SCRIPT_##name] = {#name, text},
#include "scripts_text.h"
#undef SCRIPT_TEXT
};

const char *script_text(enum script script)
{
    return scripts[script].text;
}

const char *script_name(enum script script)
{
    return scripts[script].name;
}

void call_init(struct call *call, struct store *store, enum script script, uint32_t partition)
{
    *call = (struct call){.store = store, .script = script, .partition = partition};
    arena_init(&call->arena);
}

void call_done(struct call *call)
{
    free(call->keys);
    free(call->args);
    arena_done(&call->arena);
}

void call_key_text(struct call *call, const char *text)
{
    if (call->key_count == call->key_cap) {
        call->key_cap = call->key_cap ? 2 * call->key_cap : 16;
        call->keys = mem_resize(call->keys, call->key_cap, sizeof(*call->keys));
    }
    size_t len = strlen(text);
    call->keys[call->key_count++] = (struct arg){arena_ndup(&call->arena, text, len), len};
}

void call_key(struct call *call, const char *kind, const char *name)
{
    char key[STORE_KEY_BYTES];
    call_key_text(call, store_key(call->store, call->partition, kind, name, key));
}

void call_queue(struct call *call, const char *queue, enum queue_class class)
{
    char key[STORE_KEY_BYTES];
    store_queue_key(call->store, call->partition, queue, class, key);
    for (size_t i = 0; i < call->key_count; i++)
        if (strcmp(call->keys[i].data, key) == 0)
            return;
    call_key_text(call, key);
}

void call_bytes(struct call *call, const char *data, size_t len)
{
    if (call->arg_count == call->arg_cap) {
        call->arg_cap = call->arg_cap ? 2 * call->arg_cap : 24;
        call->args = mem_resize(call->args, call->arg_cap, sizeof(*call->args));
    }
    call->args[call->arg_count++] = (struct arg){len ? data : "", len};
}

void call_text(struct call *call, const char *text)
{
    call_bytes(call, text, text ? strlen(text) : 0);
}

void call_int(struct call *call, int64_t value)
{
    char *slot = arena_alloc(&call->arena, 24);
    struct arg arg = arg_int(slot, value);
    call_bytes(call, arg.data, arg.len);
}

void call_u64(struct call *call, uint64_t value)
{
    /* Scripts count in doubles; nothing that is a duration or a count comes near 2^53. */
    call_int(call, value > (1ull << 53) ? (int64_t)1 << 53 : (int64_t)value);
}

void call_job(struct call *call, const char *id)
{
    call_key(call, "job", id);
    call_key(call, "out", id);
    call_key(call, "log", id);
    call_key(call, "due", NULL);
    call_key(call, "dead", NULL);
    call_key(call, "dead:info", NULL);
    call_text(call, id);
}

int call_run(struct call *call, uint64_t timeout_ms, struct reply *ret_reply, struct error *err)
{
    struct store *store = call->store;
    /* Twice would do, but for lanes that are opened by others in between. */
    for (int round = 0; round < 10; round++) {
        struct reply reply;
        int rc = redis_run(store->redis, &store->priv->scripts[call->script], call->key_count,
                           call->keys, call->arg_count, call->args, timeout_ms, &reply, err);
        if (rc != MR_OK)
            return rc;
        if (reply.type != REPLY_ARRAY || strcmp(reply_text(&reply, 0), "KEYS") != 0) {
            *ret_reply = reply;
            return MR_OK;
        }
        for (size_t i = 1; i < reply.count; i++)
            call_key(call, reply_text(&reply, i), NULL);
        reply_done(&reply);
    }
    return error_set(err, MR_E_INTERNAL, "script %s asks for keys without end",
                     script_name(call->script));
}

const struct reply *reply_item(const struct reply *reply, size_t i)
{
    static const struct reply none = {.type = REPLY_NIL};
    return i < reply->count ? &reply->items[i] : &none;
}

const char *reply_text(const struct reply *reply, size_t i)
{
    const struct reply *item = reply_item(reply, i);
    return (item->type == REPLY_TEXT || item->type == REPLY_STATUS) && item->text ? item->text : "";
}

uint64_t text_u64(const char *text, size_t len)
{
    uint64_t value = 0;
    for (size_t i = 0; i < len && text[i] >= '0' && text[i] <= '9'; i++)
        value = value * 10 + (uint64_t)(text[i] - '0');
    return value;
}

uint64_t reply_u64(const struct reply *reply, size_t i)
{
    const struct reply *item = reply_item(reply, i);
    if (item->type == REPLY_INT)
        return item->integer > 0 ? (uint64_t)item->integer : 0;
    return item->type == REPLY_TEXT ? text_u64(item->text, item->len) : 0;
}

int call_surprise(enum script script, const struct reply *reply, struct error *err)
{
    return error_set(err, MR_E_INTERNAL, "script %s answered \"%.60s\"", script_name(script),
                     reply_text(reply, 0));
}

char *error_json(const char *code, const char *message, const char *stage, const char *class,
                 bool is_retryable)
{
    struct buf buf;
    buf_init(&buf, 64 << 10);
    buf_add_text(&buf, "{\"code\":");
    buf_add_json_string(&buf, code, strlen(code));
    buf_add_text(&buf, ",\"message\":");
    buf_add_json_string(&buf, message, strlen(message));
    if (stage) {
        buf_add_text(&buf, ",\"stage\":");
        buf_add_json_string(&buf, stage, strlen(stage));
    }
    buf_format(&buf, ",\"class\":\"%s\",\"retryable\":%s}", class, is_retryable ? "true" : "false");
    return buf_take(&buf);
}
