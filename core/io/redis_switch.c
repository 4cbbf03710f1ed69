#include "io/redis_switch.h"
#include "base/clock.h"
#include "base/mem.h"
#include "io/redis_sentinel.h"
#include <string.h>

struct link_switch {
    struct redis_link link; /* to a sentinel */
    struct redis_link *of;
    struct timer beat;
    bool is_asked;               /* and has not answered yet */
    char host[REDIS_HOST_BYTES]; /* where this sentinel, over this connection, … */
    int port;                    /* … last agreed that the master is; 0: it never did */
    uint64_t differs_ms;         /* since when it says something else; 0: it does not */
    uint64_t doubts;             /* sentinels in a row that never agreed */
};

static void on_beat(struct timer *timer)
{
    struct link_switch *watch = timer->data;
    if (watch->link.state != LINK_UP)
        return;
    if (watch->is_asked) {
        link_drop(&watch->link, "no answer in time");
        return;
    }
    struct arg words[3] = {arg_text("SENTINEL"), arg_text("GET-MASTER-ADDR-BY-NAME"),
                           arg_text(watch->link.config.master)};
    link_send(&watch->link, 3, words);
    watch->is_asked = true;
    timer_start(&watch->beat, watch->link.loop, SWITCH_ASK_MS, on_beat);
}

static void on_up(void *arg)
{
    struct link_switch *watch = arg;
    watch->is_asked = false;
    watch->port = 0;
    watch->differs_ms = 0;
    on_beat(&watch->beat);
}

static void on_down(void *arg)
{
    struct link_switch *watch = arg;
    timer_stop(&watch->beat);
}

static bool is_peer(const struct redis_link *of, const char *host, int port)
{
    return of->peer_port == port && strcmp(of->peer, host) == 0;
}

static void on_reply(void *arg, redisReply *reply)
{
    struct link_switch *watch = arg;
    struct redis_link *of = watch->of;
    char host[REDIS_HOST_BYTES] = "", why[160] = "";
    int port = 0;
    watch->is_asked = false;
    bool is_good = sentinel_answer(reply, &watch->link.config, host, &port, why, sizeof(why));
    freeReplyObject(reply);
    if (!is_good) {
        link_drop(&watch->link, "%s", why);
        return;
    }
    if (of->state != LINK_UP)
        return;
    if (is_peer(of, host, port)) {
        memcpy(watch->host, host, sizeof(watch->host));
        watch->port = port;
        watch->differs_ms = watch->doubts = 0;
        return;
    }
    uint64_t now = clock_now_ms();
    bool has_switched = watch->port && is_peer(of, watch->host, watch->port);
    if (watch->differs_ms == 0)
        watch->differs_ms = now;
    if (!has_switched) {
        if (now - watch->differs_ms < SWITCH_DOUBT_MS)
            return;
        if (++watch->doubts <= watch->link.config.sentinel_count / 2) {
            watch->link.sentinel = (watch->link.sentinel + 1) % watch->link.config.sentinel_count;
            link_drop(&watch->link, "it names another master than the others");
            return;
        }
    }
    watch->differs_ms = watch->doubts = 0;
    of->sentinel = watch->link.sentinel; /* the first to be asked: it knows */
    link_drop(of, "the sentinels have made %.60s:%d the master", host, port);
}

struct link_switch *link_switch_open(struct redis_link *of)
{
    struct link_switch *watch = mem_zalloc(sizeof(*watch));
    mem_auto char *name = mem_format("%s-switch", of->name);
    watch->of = of;
    watch->beat.data = watch;
    watch->link.is_switch = true;
    watch->link.arg = watch;
    watch->link.on_up = on_up;
    watch->link.on_down = on_down;
    watch->link.on_reply = on_reply;
    link_open(&watch->link, of->loop, &of->config, name);
    return watch;
}

void link_switch_close(struct link_switch *watch)
{
    if (!watch)
        return;
    timer_stop(&watch->beat);
    link_close(&watch->link);
    free(watch);
}
