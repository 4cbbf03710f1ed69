#include "io/redis_sentinel.h"
#include <stdio.h>
#include <string.h>

unsigned sentinel_ask(redisContext *context, const struct redis_config *config)
{
    unsigned count = 0;
    if (config->sentinel_password) {
        struct arg auth[2] = {arg_text("AUTH"), arg_text(config->sentinel_password)};
        link_append(context, 2, auth);
        count++;
    }
    struct arg words[3] = {arg_text("SENTINEL"), arg_text("GET-MASTER-ADDR-BY-NAME"),
                           arg_text(config->master)};
    link_append(context, 3, words);
    return count + 1;
}

/* A name or an address: letters, digits, `.`, `-`, `_`, `:`. */
static bool is_host(const char *text, size_t len)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_:";
    return len >= 1 && len < REDIS_HOST_BYTES && strlen(text) == len &&
           strspn(text, allowed) == len;
}

static int port_of(const char *text, size_t len)
{
    int port = 0;
    if (len < 1 || len > 5 || strspn(text, "0123456789") != len)
        return 0;
    for (size_t i = 0; i < len; i++)
        port = port * 10 + (text[i] - '0');
    return port <= 65535 ? port : 0;
}

bool sentinel_answer(const redisReply *reply, const struct redis_config *config,
                     char ret_host[REDIS_HOST_BYTES], int *ret_port, char *reason, size_t size)
{
    if (reply->type == REDIS_REPLY_ERROR) {
        snprintf(reason, size, "%.120s", reply->str ? reply->str : "an error");
        return false;
    }
    if (reply->type == REDIS_REPLY_NIL) {
        snprintf(reason, size, "it knows no master \"%.64s\"", config->master);
        return false;
    }
    const redisReply *host = NULL, *port = NULL;
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2) {
        host = reply->element[0];
        port = reply->element[1];
    }
    int number = 0;
    if (!host || host->type != REDIS_REPLY_STRING || port->type != REDIS_REPLY_STRING ||
        !is_host(host->str, (size_t)host->len) ||
        (number = port_of(port->str, (size_t)port->len)) == 0) {
        snprintf(reason, size, "its answer is not an address");
        return false;
    }
    memcpy(ret_host, host->str, (size_t)host->len + 1);
    *ret_port = number;
    return true;
}

bool sentinel_is_master(const redisReply *reply, char *reason, size_t size)
{
    const redisReply *role = NULL;
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements > 0)
        role = reply->element[0];
    if (role && role->type == REDIS_REPLY_STRING && strcmp(role->str, "master") == 0)
        return true;
    if (reply->type == REDIS_REPLY_ERROR)
        snprintf(reason, size, "ROLE: %.120s", reply->str ? reply->str : "an error");
    else
        snprintf(reason, size, "READONLY it is no master (role %.20s)",
                 role && role->type == REDIS_REPLY_STRING ? role->str : "unknown");
    return false;
}
