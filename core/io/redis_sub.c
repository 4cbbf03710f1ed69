/* Channels and their listeners, in a table by name.
 *
 * A channel is *confirmed* when the server has answered every SUBSCRIBE that was sent for it over
 * the present connection; only then are its messages complete. When the connection breaks no
 * channel is; after the next one is up all are subscribed again, in commands of 200, and each
 * confirmation tells the listeners that were there before that something may be missing.
 *
 * A channel whose last listener leaves is unsubscribed; it stays in the table until the answers to
 * all its SUBSCRIBEs have come, so that a late one is not taken for that of a newer listener. */
#include "io/redis_sub.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "io/redis_link.h"
#include <string.h>
#include <strings.h>

#define PING_MS      5000u
#define SILENCE_MS   15000u
#define SUBSCRIBE_AT 200u

/* A fiber in redis_listen; on its stack. */
struct asker {
    struct wait wait;
    struct asker *next, **link;
};
struct channel {
    struct channel *next; /* in its bucket */
    char *name;
    uint32_t hash;
    unsigned unanswered; /* SUBSCRIBEs over this connection without an answer */
    bool was_confirmed;  /* over some connection, since it has listeners */
    bool is_confirmed;
    struct redis_listener *listeners;
    struct asker *askers;
};
struct redis_sub {
    struct redis_link link;
    struct loop *loop;
    struct channel **buckets;
    size_t bucket_count, channels;
    struct timer ping;
};

/* ---- The table ---- */

static struct channel *find(struct redis_sub *sub, const char *name, size_t len, uint32_t hash)
{
    struct channel *channel = sub->buckets[hash % sub->bucket_count];
    while (channel && !(channel->hash == hash && strlen(channel->name) == len &&
                        memcmp(channel->name, name, len) == 0))
        channel = channel->next;
    return channel;
}

static void grow(struct redis_sub *sub)
{
    size_t count = sub->bucket_count * 2;
    struct channel **buckets = mem_zalloc(count * sizeof(*buckets));
    for (size_t i = 0; i < sub->bucket_count; i++)
        while (sub->buckets[i]) {
            struct channel *channel = sub->buckets[i];
            sub->buckets[i] = channel->next;
            channel->next = buckets[channel->hash % count];
            buckets[channel->hash % count] = channel;
        }
    free(sub->buckets);
    sub->buckets = buckets;
    sub->bucket_count = count;
}

static struct channel *add(struct redis_sub *sub, const char *name, uint32_t hash)
{
    if (sub->channels >= sub->bucket_count)
        grow(sub);
    struct channel *channel = mem_zalloc(sizeof(*channel));
    channel->name = mem_dup(name);
    channel->hash = hash;
    channel->next = sub->buckets[hash % sub->bucket_count];
    sub->buckets[hash % sub->bucket_count] = channel;
    sub->channels++;
    return channel;
}

static void drop(struct redis_sub *sub, struct channel *channel)
{
    struct channel **link = &sub->buckets[channel->hash % sub->bucket_count];
    while (*link != channel)
        link = &(*link)->next;
    *link = channel->next;
    sub->channels--;
    free(channel->name);
    free(channel);
}

/* ---- What the server says ---- */

static void tell(struct channel *channel, const char *text, size_t len)
{
    struct redis_listener *next;
    for (struct redis_listener *listener = channel->listeners; listener; listener = next) {
        next = listener->next;
        listener->fn(listener, text, len);
    }
}

static void wake_askers(struct channel *channel, int code)
{
    while (channel->askers) {
        struct asker *asker = channel->askers;
        channel->askers = asker->next;
        if (asker->next)
            asker->next->link = &channel->askers;
        asker->link = NULL;
        wait_wake(&asker->wait, code);
    }
}

static void on_subscribed(struct redis_sub *sub, struct channel *channel)
{
    if (channel->unanswered == 0 || --channel->unanswered > 0)
        return;
    if (!channel->listeners) {
        drop(sub, channel);
        return;
    }
    channel->is_confirmed = true;
    if (channel->was_confirmed)
        tell(channel, NULL, 0);
    channel->was_confirmed = true;
    wake_askers(channel, MR_OK);
}

static void on_reply(void *arg, redisReply *reply)
{
    struct redis_sub *sub = arg;
    /* Redis refuses even PING while its disk fails; what is published comes all the same. */
    if (reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "MISCONF", 7) == 0) {
        freeReplyObject(reply);
        return;
    }
    if (reply->type == REDIS_REPLY_ERROR) {
        link_drop(&sub->link, "%.150s", reply->str ? reply->str : "");
        freeReplyObject(reply);
        return;
    }
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 3 &&
        reply->element[0]->type == REDIS_REPLY_STRING &&
        reply->element[1]->type == REDIS_REPLY_STRING) {
        const char *kind = reply->element[0]->str, *name = reply->element[1]->str;
        size_t len = (size_t)reply->element[1]->len;
        struct channel *channel = find(sub, name, len, hash_fnv(name, len));
        if (channel && strcasecmp(kind, "message") == 0 &&
            reply->element[2]->type == REDIS_REPLY_STRING)
            tell(channel, reply->element[2]->str, (size_t)reply->element[2]->len);
        else if (channel && strcasecmp(kind, "subscribe") == 0)
            on_subscribed(sub, channel);
    }
    freeReplyObject(reply);
}

static void on_ping(struct timer *timer)
{
    struct redis_sub *sub = timer->data;
    if (sub->link.state != LINK_UP)
        return;
    if (clock_now_ms() - sub->link.read_ms > SILENCE_MS) {
        link_drop(&sub->link, "nothing was received for %u ms", SILENCE_MS);
        return;
    }
    struct arg ping = arg_text("PING");
    link_send(&sub->link, 1, &ping);
    timer_start(&sub->ping, sub->loop, PING_MS, on_ping);
}

static void on_up(void *arg)
{
    struct redis_sub *sub = arg;
    struct arg words[SUBSCRIBE_AT + 1] = {arg_text("SUBSCRIBE")};
    size_t count = 1;
    for (size_t i = 0; i < sub->bucket_count; i++)
        for (struct channel *channel = sub->buckets[i]; channel; channel = channel->next) {
            words[count++] = arg_text(channel->name);
            channel->unanswered = 1;
            if (count == SUBSCRIBE_AT + 1) {
                link_send(&sub->link, count, words);
                count = 1;
            }
        }
    if (count > 1)
        link_send(&sub->link, count, words);
    timer_start(&sub->ping, sub->loop, PING_MS, on_ping);
}

static void on_down(void *arg)
{
    struct redis_sub *sub = arg;
    timer_stop(&sub->ping);
    for (size_t i = 0; i < sub->bucket_count; i++)
        for (struct channel *channel = sub->buckets[i], *next; channel; channel = next) {
            next = channel->next;
            channel->unanswered = 0;
            channel->is_confirmed = false;
            if (!channel->listeners)
                drop(sub, channel);
        }
}

struct redis_sub *redis_sub_open(struct loop *loop, const struct redis_config *config,
                                 const char *name)
{
    struct redis_sub *sub = mem_zalloc(sizeof(*sub));
    sub->loop = loop;
    sub->bucket_count = 64;
    sub->buckets = mem_zalloc(sub->bucket_count * sizeof(*sub->buckets));
    sub->ping.data = sub;
    sub->link.arg = sub;
    sub->link.on_up = on_up;
    sub->link.on_down = on_down;
    sub->link.on_reply = on_reply;
    link_open(&sub->link, loop, config, name);
    return sub;
}

void redis_sub_close(struct redis_sub *sub)
{
    if (!sub)
        return;
    timer_stop(&sub->ping);
    link_close(&sub->link);
    for (size_t i = 0; i < sub->bucket_count; i++)
        while (sub->buckets[i]) {
            struct channel *channel = sub->buckets[i];
            wake_askers(channel, MR_E_STOPPING);
            /* Listeners that are still there find themselves on no list. */
            while (channel->listeners) {
                struct redis_listener *listener = channel->listeners;
                channel->listeners = listener->next;
                listener->next = NULL;
                listener->link = NULL;
            }
            drop(sub, channel);
        }
    free(sub->buckets);
    free(sub);
}

/* ---- Listeners ---- */

static void subscribe(struct redis_sub *sub, struct channel *channel)
{
    if (sub->link.state != LINK_UP)
        return; /* on_up will */
    struct arg words[2] = {arg_text("SUBSCRIBE"), arg_text(channel->name)};
    link_send(&sub->link, 2, words);
    channel->unanswered++;
}

int redis_listen(struct redis_sub *sub, const char *name, struct redis_listener *listener,
                 uint64_t timeout_ms, struct error *err)
{
    uint32_t hash = hash_fnv(name, strlen(name));
    struct channel *channel = find(sub, name, strlen(name), hash);
    bool is_new = !channel || !channel->listeners;
    if (!channel)
        channel = add(sub, name, hash);
    listener->channel = mem_dup(name);
    listener->next = channel->listeners;
    listener->link = &channel->listeners;
    if (listener->next)
        listener->next->link = &listener->next;
    channel->listeners = listener;
    if (is_new) {
        channel->is_confirmed = channel->was_confirmed = false;
        subscribe(sub, channel);
    }
    if (channel->is_confirmed)
        return MR_OK;
    struct asker asker = {0};
    wait_init(&asker.wait, sub->loop);
    asker.next = channel->askers;
    asker.link = &channel->askers;
    if (asker.next)
        asker.next->link = &asker.next;
    channel->askers = &asker;
    int rc = wait_for(&asker.wait, timeout_ms ? timeout_ms : redis_command_ms(&sub->link.config));
    if (rc == MR_OK)
        return MR_OK;
    if (!asker.link) { /* woken, by redis_sub_close or together with another end */
        if (listener->link)
            redis_unlisten(sub, listener);
        free(listener->channel);
        listener->channel = NULL;
        return error_set(err, rc, "stopping");
    }
    *asker.link = asker.next;
    if (asker.next)
        asker.next->link = asker.link;
    char reason[120];
    snprintf(reason, sizeof(reason), "%.*s", (int)sizeof(reason) - 1, sub->link.reason);
    redis_unlisten(sub, listener);
    if (!asker.wait.expired)
        return error_set(err, rc, "ended while waiting for a subscription");
    error_set(err, MR_E_STORE, "Redis at %s does not answer", sub->link.address);
    error_detail(err, "subscription to %s; %s", name, reason[0] ? reason : "no reply in time");
    return MR_E_STORE;
}

void redis_unlisten(struct redis_sub *sub, struct redis_listener *listener)
{
    char *name = listener->channel;
    listener->channel = NULL;
    if (!listener->link) {
        free(name);
        return;
    }
    *listener->link = listener->next;
    if (listener->next)
        listener->next->link = listener->link;
    listener->link = NULL;
    listener->next = NULL;
    struct channel *channel = find(sub, name, strlen(name), hash_fnv(name, strlen(name)));
    free(name);
    if (!channel || channel->listeners)
        return;
    if (sub->link.state == LINK_UP) {
        struct arg words[2] = {arg_text("UNSUBSCRIBE"), arg_text(channel->name)};
        link_send(&sub->link, 2, words);
    }
    channel->is_confirmed = channel->was_confirmed = false;
    if (channel->unanswered == 0 || sub->link.state != LINK_UP)
        drop(sub, channel);
}
