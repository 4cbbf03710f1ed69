/* Looking things up in the configuration: small tables, searched from the front. */
#include "app/config.h"
#include "io/redis.h"
#include "state/limit.h"

#include <string.h>

static void replace(char **slot, const char *text)
{
    if (text == NULL)
        return;
    free(*slot);
    *slot = mem_dup(text);
}

int config_redis(const struct config *config, struct redis_config *ret_redis, struct error *err)
{
    int rc = redis_config_parse(config->redis.url, ret_redis, err);
    if (rc != MR_OK)
        return rc;
    replace(&ret_redis->user, config->redis.user);
    replace(&ret_redis->password, config->redis.password);
    replace(&ret_redis->sentinel_password, config->redis.sentinel_password);
    return MR_OK;
}

const struct config_endpoint *config_endpoint(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->endpoint_count; i++)
        if (strcmp(config->endpoints[i].endpoint.name, name) == 0)
            return &config->endpoints[i];
    return NULL;
}

const struct endpoint *config_find_endpoint(void *config, const char *name)
{
    const struct config_endpoint *found = config_endpoint(config, name);
    return found != NULL ? &found->endpoint : NULL;
}

bool config_find_limit(void *config, const char *name, struct limit_rule *ret_rule)
{
    const struct config_endpoint *found = config_endpoint(config, name);
    if (found == NULL || (found->rpm == 0 && found->tpm == 0 && found->max_in_flight == 0))
        return false;
    *ret_rule = (struct limit_rule){.name = found->endpoint.name,
                                    .rpm = (uint32_t)found->rpm,
                                    .tpm = (uint32_t)found->tpm,
                                    .max_in_flight = (uint32_t)found->max_in_flight,
                                    .burst = (uint32_t)found->burst};
    return true;
}

bool config_has_endpoint(void *config, const char *name)
{
    return config_endpoint(config, name) != NULL;
}

const struct config_price *config_price(const struct config_endpoint *endpoint, const char *model)
{
    const struct config_price *any = NULL;
    for (size_t i = 0; i < endpoint->price_count; i++) {
        const struct config_price *price = &endpoint->prices[i];
        if (price->model == NULL)
            any = price;
        else if (model != NULL && strcmp(price->model, model) == 0)
            return price;
    }
    return any;
}

int64_t config_queue_max_running(const struct config *config, const char *queue)
{
    for (size_t i = 0; i < config->queue_limit_count; i++)
        if (strcmp(config->queue_limits[i].name, queue) == 0)
            return config->queue_limits[i].max_running;
    return 0;
}

bool config_serves(const struct config *config, const char *queue)
{
    for (const char *const *word = config->queues; *word != NULL; word++)
        if (strcmp(*word, "*") == 0 || strcmp(*word, queue) == 0)
            return true;
    return false;
}

bool config_token_may(const struct config_token *token, enum config_scope scope)
{
    return (token->scopes & ((uint32_t)scope | CONFIG_ADMIN)) != 0;
}
