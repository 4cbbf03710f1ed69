#include "state/store.h"
#include "base/hash.h"
#include "base/log.h"
#include "state/durable.h"
#include "state/inner.h"
#include "state/table.h"
#include <stdio.h>
#include <string.h>

#define DAY_MS 86400000ull

static const char *const class_names[QUEUE_CLASSES] = {"recovered", "call", "high", "normal",
                                                       "low"};

const char *queue_class_name(enum queue_class class)
{
    return class_names[class];
}

enum queue_class queue_class_find(const char *name)
{
    for (unsigned i = 0; i < QUEUE_CLASSES; i++)
        if (strcmp(name, class_names[i]) == 0)
            return (enum queue_class)i;
    return QUEUE_CLASSES;
}

bool store_prefix_is_valid(const char *prefix)
{
    size_t len =
        strspn(prefix, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-");
    return len >= 1 && len <= 64 && prefix[len] == '\0';
}

static uint64_t or_else(uint64_t value, uint64_t otherwise)
{
    return value ? value : otherwise;
}

int store_open(const struct store_config *config, struct store **ret_store, struct error *err)
{
    const char *prefix = config->prefix ? config->prefix : "mr";
    if (!store_prefix_is_valid(prefix)) {
        error_set(err, MR_E_SCHEMA, "redis.prefix \"%.80s\" is not possible", prefix);
        error_hint(err, "1 to 64 of A-Z a-z 0-9 _ . -");
        return MR_E_SCHEMA;
    }
    if (config->partitions > STORE_PARTITIONS_MAX)
        return error_set(err, MR_E_SCHEMA, "redis.partitions is %u, at most %u are possible",
                         config->partitions, STORE_PARTITIONS_MAX);
    if (config->dead_schedule_count > STORE_SCHEDULE_MAX)
        return error_set(err, MR_E_SCHEMA, "dead.schedule has more than %u steps",
                         STORE_SCHEDULE_MAX);
    struct store *store = mem_zalloc(sizeof(*store));
    store->loop = config->loop;
    store->redis = config->redis;
    store->prefix = mem_dup(prefix);
    store->partitions = config->partitions ? config->partitions : 1;
    store->max_crashes = config->max_crashes ? config->max_crashes : STATE_MAX_CRASHES;
    store->retention_status_ms = or_else(config->retention_status_ms, DAY_MS);
    store->retention_result_ms = or_else(config->retention_result_ms, 7 * DAY_MS);
    store->lease_ms = or_else(config->lease_ms, 15000);
    store->dead_budget = config->dead_budget ? config->dead_budget : 60;
    store->dead_breaker = config->dead_breaker ? config->dead_breaker : 20;
    store->patience_ms = UINT64_MAX;
    hash_random_hex(store->instance, 8);
    size_t used = 0;
    for (uint32_t i = 0; i < config->dead_schedule_count; i++)
        used += (size_t)snprintf(store->schedule + used, sizeof(store->schedule) - used, "%s%llu",
                                 i ? "," : "", (unsigned long long)config->dead_schedule_ms[i]);
    struct store_private *priv = mem_zalloc(sizeof(*priv));
    store->priv = priv;
    priv->has_where = config->where != NULL;
    if (config->where)
        redis_config_copy(config->where, &priv->where);
    snprintf(priv->conf, sizeof(priv->conf), "%s;%u", store->schedule, store->dead_breaker);
    snprintf(priv->keep, sizeof(priv->keep), "%llu %llu",
             (unsigned long long)store->retention_status_ms,
             (unsigned long long)store->retention_result_ms);
    for (unsigned i = 0; i < SCRIPTS; i++)
        priv->scripts[i] = (struct redis_script){.name = script_name((enum script)i),
                                                 .text = script_text((enum script)i)};
    *ret_store = store;
    return MR_OK;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    durable_close(store->priv->durable);
    redis_config_done(&store->priv->where);
    free(store->prefix);
    free(store->worker);
    free(store->queues);
    free(store->priv);
    free(store);
}

bool store_is_up(const struct store *store)
{
    return redis_is_up(store->redis);
}

uint32_t store_partition(const struct store *store, const char *id)
{
    return store->partitions == 1 ? 0 : hash_fnv(id, strlen(id)) % store->partitions;
}

const char *store_key(const struct store *store, uint32_t partition, const char *kind,
                      const char *name, char ret[STORE_KEY_BYTES])
{
    int len = snprintf(ret, STORE_KEY_BYTES, "%s:{%u}:%s%s%s", store->prefix, partition, kind,
                       name ? ":" : "", name ? name : "");
    if (len < 0 || len >= STORE_KEY_BYTES) {
        fprintf(stderr, "millrace: a key longer than %d bytes: %s\n", STORE_KEY_BYTES, ret);
        abort();
    }
    return ret;
}

const char *store_queue_key(const struct store *store, uint32_t partition, const char *queue,
                            enum queue_class class, char ret[STORE_KEY_BYTES])
{
    char name[STORE_KEY_BYTES];
    snprintf(name, sizeof(name), "%.100s:%s", queue, queue_class_name(class));
    return store_key(store, partition, "queue", name, ret);
}

/* ---- Checks at start ---- */

/* The value of `name:` in the text of INFO. */
static const char *info_find(const char *info, const char *name, char ret[64])
{
    ret[0] = '\0';
    for (const char *line = info; line; line = strchr(line, '\n')) {
        if (*line == '\n')
            line++;
        size_t len = strlen(name);
        if (strncmp(line, name, len) == 0 && line[len] == ':') {
            size_t size = strcspn(line + len + 1, "\r\n");
            snprintf(ret, 64, "%.*s", (int)(size < 63 ? size : 63), line + len + 1);
            break;
        }
    }
    return ret;
}

static int check_server(struct store *store, struct error *err)
{
    struct reply reply;
    char value[64];
    int rc = redis_command(store->redis, &reply, err, "INFO", NULL);
    if (rc != MR_OK)
        return rc;
    const char *info = reply.type == REPLY_TEXT ? reply.text : "";
    unsigned major = (unsigned)text_u64(info_find(info, "redis_version", value), 20);
    if (major > 0 && major < 7) {
        error_set(err, MR_E_SCHEMA, "Redis is version %s", value);
        error_hint(err, "7.0 or newer is needed");
        reply_done(&reply);
        return MR_E_SCHEMA;
    }
    if (strcmp(info_find(info, "role", value), "slave") == 0) {
        char host[64];
        info_find(info, "master_host", host);
        info_find(info, "master_port", value);
        reply_done(&reply);
        /* It may be promoted: whoever starts waits for that. */
        error_set(err, MR_E_STORE, "this Redis is a replica of %s:%s and takes no writes", host,
                  value);
        error_hint(err, "redis.url has to name the primary");
        return MR_E_STORE;
    }
    char policy[64];
    info_find(info, "maxmemory_policy", policy);
    info_find(info, "maxmemory", value);
    bool has_limit = text_u64(value, strlen(value)) > 0;
    reply_done(&reply);
    if (policy[0] && strcmp(policy, "noeviction") != 0) {
        if (has_limit) {
            error_set(err, MR_E_SCHEMA,
                      "Redis throws data away when it is full: maxmemory-policy "
                      "is %s",
                      policy);
            error_hint(err, "redis-cli CONFIG SET maxmemory-policy noeviction, and the same in its "
                            "configuration file");
            return MR_E_SCHEMA;
        }
        log_event(LOG_WARN, "maxmemory-policy of Redis is not noeviction", "policy", policy, NULL);
    }
    return MR_OK;
}

int store_check(struct store *store, struct error *err)
{
    int rc = check_server(store, err);
    if (rc != MR_OK)
        return rc;
    char key[STORE_KEY_BYTES], want[64];
    snprintf(key, sizeof(key), "%s:version", store->prefix);
    snprintf(want, sizeof(want), "%s/%u", STATE_VERSION, store->partitions);
    struct reply reply;
    /* Read first: where it is there, no write is needed, and none is possible at maxmemory. */
    rc = redis_command(store->redis, &reply, err, "GET", key, NULL);
    if (rc == MR_OK && reply.type == REPLY_NIL)
        rc = redis_command(store->redis, &reply, err, "SET", key, want, "NX", "GET", NULL);
    if (rc != MR_OK)
        return rc;
    bool fits = reply.type != REPLY_TEXT || strcmp(reply.text, want) == 0;
    if (!fits) {
        error_set(err, MR_E_SCHEMA,
                  "the keys %s:* in Redis are of version/partitions %.40s, this "
                  "program's are %s",
                  store->prefix, reply.text, want);
        error_hint(err, "another redis.prefix or database, or redis.partitions as before");
    }
    reply_done(&reply);
    return fits ? MR_OK : MR_E_SCHEMA;
}

/* ---- Revisions ---- */

int revision_put(struct store *store, const char *pipeline, const char *revision, const char *text,
                 size_t len, struct error *err)
{
    char key[STORE_KEY_BYTES];
    struct reply reply;
    snprintf(key, sizeof(key), "%s:{rev:%.64s}", store->prefix, revision);
    call_auto struct call offer;
    call_init(&offer, store, SCRIPT_offer, 0);
    call_key_text(&offer, key);
    call_bytes(&offer, text, len);
    int rc = call_run(&offer, 0, &reply, err);
    if (rc != MR_OK)
        return rc;
    reply_done(&reply);
    for (uint32_t partition = 0; partition < store->partitions; partition++) {
        call_auto struct call call;
        call_init(&call, store, SCRIPT_number, partition);
        call_key(&call, "revs", NULL);
        call_text(&call, pipeline);
        call_text(&call, revision);
        rc = call_run(&call, 0, &reply, err);
        if (rc != MR_OK)
            return rc;
        reply_done(&reply);
    }
    return MR_OK;
}

int revision_get(struct store *store, const char *revision, char **ret_text, size_t *ret_len,
                 struct error *err)
{
    char key[STORE_KEY_BYTES];
    struct reply reply;
    snprintf(key, sizeof(key), "%s:{rev:%.64s}", store->prefix, revision);
    int rc = redis_command(store->redis, &reply, err, "GET", key, NULL);
    if (rc != MR_OK)
        return rc;
    *ret_text = reply.type == REPLY_TEXT ? reply.text : NULL;
    *ret_len = reply.len;
    if (reply.type == REPLY_TEXT)
        reply.text = NULL;
    reply_done(&reply);
    return MR_OK;
}

/* ---- Pausing ---- */

static int set_paused(struct store *store, const char *pipeline, const char *value,
                      struct error *err)
{
    for (uint32_t partition = 0; partition < store->partitions; partition++) {
        char key[STORE_KEY_BYTES];
        struct reply reply;
        store_key(store, partition, "paused", NULL, key);
        int rc = redis_command(store->redis, &reply, err, "HSET", key, pipeline, value, NULL);
        if (rc != MR_OK)
            return rc;
        reply_done(&reply);
    }
    return MR_OK;
}

int pipeline_pause(struct store *store, const char *pipeline, struct error *err)
{
    return set_paused(store, pipeline, "1", err);
}

int pipeline_resume(struct store *store, const char *pipeline, struct error *err)
{
    return set_paused(store, pipeline, "0", err);
}

int pipeline_is_paused(struct store *store, const char *pipeline, bool *ret_paused,
                       struct error *err)
{
    char key[STORE_KEY_BYTES];
    struct reply reply;
    store_key(store, 0, "paused", NULL, key);
    int rc = redis_command(store->redis, &reply, err, "HGET", key, pipeline, NULL);
    if (rc != MR_OK)
        return rc;
    *ret_paused = reply.type == REPLY_TEXT && strcmp(reply.text, "1") == 0;
    reply_done(&reply);
    return MR_OK;
}

/* ---- Figures ---- */

static int stream_stats(struct store *store, const char *key, uint64_t *ret_waiting,
                        uint64_t *ret_running, uint64_t *ret_oldest_ms, uint64_t now_ms,
                        struct error *err)
{
    struct reply reply;
    int rc = redis_command(store->redis, &reply, err, "XLEN", key, NULL);
    if (rc != MR_OK)
        return rc;
    uint64_t length = reply.type == REPLY_INT ? (uint64_t)reply.integer : 0, pending = 0;
    reply_done(&reply);
    if (length == 0)
        return MR_OK;
    rc = redis_command(store->redis, &reply, NULL, "XPENDING", key, STORE_GROUP, NULL);
    if (rc == MR_OK) { /* an error: no worker has made the group yet */
        pending = reply_u64(&reply, 0);
        reply_done(&reply);
    }
    rc = redis_command(store->redis, &reply, err, "XRANGE", key, "-", "+", "COUNT", "1", NULL);
    if (rc != MR_OK)
        return rc;
    if (reply.count > 0) {
        uint64_t at = text_u64(reply_text(&reply.items[0], 0), 20);
        if (at && now_ms > at && now_ms - at > *ret_oldest_ms)
            *ret_oldest_ms = now_ms - at;
    }
    reply_done(&reply);
    *ret_running += pending;
    *ret_waiting += length > pending ? length - pending : 0;
    return MR_OK;
}

int queue_get_stats(struct store *store, const char *queue, struct queue_stats *ret,
                    struct error *err)
{
    struct queue_stats stats = {0};
    struct reply reply;
    int rc = redis_command(store->redis, &reply, err, "TIME", NULL);
    if (rc != MR_OK)
        return rc;
    uint64_t now_ms = reply_u64(&reply, 0) * 1000 + reply_u64(&reply, 1) / 1000;
    reply_done(&reply);
    for (uint32_t partition = 0; partition < store->partitions; partition++)
        for (unsigned class = 0; class < QUEUE_CLASSES; class ++) {
            char key[STORE_KEY_BYTES];
            store_queue_key(store, partition, queue, (enum queue_class) class, key);
            rc = stream_stats(store, key, &stats.waiting[class], &stats.running[class],
                              &stats.oldest_ms, now_ms, err);
            if (rc != MR_OK)
                return rc;
        }
    *ret = stats;
    return MR_OK;
}
