/* See online.h. */
#include "app/online.h"

#include <stdio.h>

struct online_work {
    struct online *online;
    int (*fn)(struct online *online, void *arg);
    void *arg;
    bool is_unchecked;
    int code;
};

struct redis_sub *online_sub(struct online *online)
{
    if (!online->sub)
        online->sub = redis_sub_open(&online->loop, &online->where, "millrace-events");
    return online->sub;
}

static void online_main(void *arg)
{
    struct online_work *work = arg;
    struct error err = {0};
    work->code = 1;
    if (work->is_unchecked || store_check(work->online->store, &err) == MR_OK) {
        work->code = work->fn(work->online, work->arg);
    } else {
        fprintf(stderr, "millrace: %s\n", err.message);
        if (err.hint[0])
            fprintf(stderr, "    hint: %s\n", err.hint);
    }
    loop_stop(&work->online->loop);
}

static int run(const struct config *config, bool is_unchecked,
               int (*fn)(struct online *online, void *arg), void *arg)
{
    struct error err = {0};
    struct online online = {.config = config};
    if (config_redis(config, &online.where, &err) != MR_OK) {
        fprintf(stderr, "millrace: redis.url: %s\n", err.message);
        return 1;
    }
    if (loop_init(&online.loop, &err) != MR_OK) {
        fprintf(stderr, "millrace: %s\n", err.message);
        redis_config_done(&online.where);
        return 1;
    }
    online.redis = redis_open(&online.loop, &online.where, "millrace");
    struct online_work work = {
        .online = &online, .fn = fn, .arg = arg, .is_unchecked = is_unchecked, .code = 1};
    struct store_config store = {.loop = &online.loop,
                                 .redis = online.redis,
                                 .where = &online.where,
                                 .prefix = config->redis.prefix,
                                 .partitions = (uint32_t)config->redis.partitions,
                                 .retention_status_ms = config->retention_status_ms,
                                 .retention_result_ms = config->retention_result_ms,
                                 .lease_ms = config->lease_ms,
                                 .dead_budget = (uint32_t)config->dead_budget,
                                 .dead_breaker = (uint32_t)config->dead_breaker};
    for (; store.dead_schedule_count < config->dead_schedule_count &&
           store.dead_schedule_count < STORE_SCHEDULE_MAX;
         store.dead_schedule_count++)
        store.dead_schedule_ms[store.dead_schedule_count] =
            config->dead_schedule_ms[store.dead_schedule_count];
    if (store_open(&store, &online.store, &err) != MR_OK ||
        loop_spawn(&online.loop, NULL, online_main, &work) != MR_OK)
        fprintf(stderr, "millrace: %s\n", err.message);
    else
        loop_run(&online.loop);
    store_close(online.store);
    redis_sub_close(online.sub);
    redis_close(online.redis);
    redis_config_done(&online.where);
    loop_done(&online.loop);
    fiber_trim();
    return work.code;
}

int online_run(const struct config *config, int (*fn)(struct online *online, void *arg), void *arg)
{
    return run(config, false, fn, arg);
}

int online_run_unchecked(const struct config *config, int (*fn)(struct online *online, void *arg),
                         void *arg)
{
    return run(config, true, fn, arg);
}
