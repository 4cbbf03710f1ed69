/* The configuration: from merged JSON to the struct.
 *
 * Sections are read one after the other by their rows (config_rows.c); what a row cannot say (names
 * as keys, lists, addresses, cross-checks) is here, each in a function of its own. Nothing stops at
 * the first error. Strings are copied into the configuration's arena: the JSON ends with the load.
 */
#include "app/config_parts.h"

#include "base/id.h"
#include "base/unit.h"
#include "io/guard.h"
#include "io/redis.h"
#include "state/store.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FOLDERS_MAX 64u

/* Small readers */

struct error *config_fault(struct load *load, const char *pointer, const char *format, ...)
{
    char message[300];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    return report_add(load->report, load->file, pointer, "%s", message);
}

const char *config_dup(struct load *load, const char *text)
{
    return text != NULL ? arena_ndup(&load->config->arena, text, strlen(text)) : NULL;
}

const char *config_path(struct load *load, const char *path)
{
    if (path[0] == '/')
        return config_dup(load, path);
    mem_auto char *full = mem_format("%s/%s", load->config->dir, path);
    return config_dup(load, full);
}

bool config_read_section(struct load *load, const struct option_rows *rows, const json_t *value,
                         const char *pointer, void *form, size_t size)
{
    if (value != NULL && !json_is_object(value)) {
        config_fault(load, pointer, "must be an object");
        value = NULL;
    }
    struct option_source source = {
        .file = load->file, .pointer = pointer, .dir = load->config->dir};
    bool fine = option_read(rows, value, &source, form, size, &load->config->arena, load->report);
    /* The form keeps its JSON values: they are borrowed from the root, which outlives it. */
    mem_auto char *copy = mem_alloc(size);
    memcpy(copy, form, size);
    option_release(rows, copy);
    return fine;
}

const char *const *config_words(struct load *load, const json_t *value, const char *pointer,
                                const char *(*add)(struct load *load, const char *word))
{
    size_t count = json_is_array(value) ? json_array_size(value) : value != NULL ? 1 : 0;
    const char **words = arena_alloc(&load->config->arena, (count + 1) * sizeof(char *));
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_is_array(value) ? json_array_get(value, i) : value;
        const char *word = json_string_value(item);
        if (word == NULL || word[0] == '\0') {
            config_fault(load, pointer, "must be a string, or an array of strings");
            continue;
        }
        const char *kept = add != NULL ? add(load, word) : config_dup(load, word);
        if (kept != NULL)
            words[used++] = kept;
    }
    return words;
}

/* Sections */

static void read_listen(struct load *load, const struct config_form *form)
{
    struct config *config = load->config;
    const char *listen = form->listen;
    config->listen = config_dup(load, listen);
    config->listen_trusted = form->listen_trusted;
    if (strncmp(listen, "unix:", 5) == 0) {
        const char *path = listen[5] != '\0' ? config_path(load, listen + 5) : "";
        mem_auto char *full = mem_format("unix:%s", path);
        config->listen = config_dup(load, full);
        if (path[0] == '\0' || strlen(path) > 107)
            config_fault(load, "/listen", "the path of a unix socket has 1 to 107 bytes");
    } else if (strncmp(listen, "fd:", 3) == 0) {
        const char *digits = listen + 3;
        if (digits[0] == '\0' || strspn(digits, "0123456789") != strlen(digits) ||
            strlen(digits) > 4)
            config_fault(load, "/listen", "\"%s\" is not a descriptor, as in fd:0", listen);
    } else {
        const char *colon = strrchr(listen, ':');
        char *end = NULL;
        long port = colon != NULL ? strtol(colon + 1, &end, 10) : -1;
        if (colon == NULL || colon == listen || end == colon + 1 || *end != '\0' || port < 0 ||
            port > 65535) {
            error_hint(config_fault(load, "/listen", "\"%s\" is no address to listen on", listen),
                       "unix:PATH, fd:N or HOST:PORT");
            return;
        }
        bool loopback = strncmp(listen, "127.", 4) == 0 || strncmp(listen, "localhost:", 10) == 0 ||
                        strncmp(listen, "[::1]:", 6) == 0;
        if (!loopback && !config->listen_trusted)
            error_hint(config_fault(load, "/listen", "\"%s\" is not a loopback address", listen),
                       "whoever reaches a FastCGI socket is trusted: use a unix socket, or set "
                       "\"listen_trusted\": true behind a firewall");
    }
}

static void read_mode(struct load *load, const char *text)
{
    char *end = NULL;
    unsigned long mode = strtoul(text, &end, 8);
    if (text[0] == '\0' || *end != '\0' || mode > 0777)
        error_hint(config_fault(load, "/listen_mode", "\"%s\" is not a mode", text),
                   "octal digits in a string, as in \"0660\"");
    else
        load->config->listen_mode = (uint32_t)mode;
}

static void read_redis(struct load *load, const json_t *value)
{
    struct config_redis *redis = &load->config->redis;
    struct redis_config parsed = {0};
    struct error why = {0};
    config_read_section(load, &config_redis_rows, value, "/redis", redis, sizeof(*redis));
    if (redis->prefix != NULL && !store_prefix_is_valid(redis->prefix))
        error_hint(config_fault(load, "/redis/prefix", "\"%.80s\" is not possible", redis->prefix),
                   "1 to 64 of A-Z a-z 0-9 _ . -");
    if (redis->url == NULL)
        return;
    if (redis_config_parse(redis->url, &parsed, &why) == MR_OK)
        redis_config_done(&parsed);
    else
        error_hint(config_fault(load, "/redis/url", "%s", why.message), "%s", why.hint);
}

static void read_queue(struct load *load, struct config_queue *queue, const char *name,
                       const json_t *value)
{
    mem_auto char *pointer = mem_format("/queues/%s", name);
    struct config_form_queue form = {0};
    queue->name = config_dup(load, name);
    if (!pipeline_name_is_valid(name))
        error_hint(config_fault(load, pointer, "\"%.80s\" is not the name of a queue", name),
                   "a-z, 0-9 and -, at most 64 characters");
    config_read_section(load, &config_queue_rows, value, pointer, &form, sizeof(form));
    queue->max_running = form.max_running;
}

static const char *add_queue(struct load *load, const char *word)
{
    if (strcmp(word, "*") != 0 && !pipeline_name_is_valid(word)) {
        config_fault(load, "/queues", "\"%.80s\" is not the name of a queue", word);
        return NULL;
    }
    return config_dup(load, word);
}

static void read_queues(struct load *load, const json_t *value)
{
    struct config *config = load->config;
    const json_t *serve = value;
    if (json_is_object(value)) {
        const char *name;
        json_t *settings;
        serve = json_object_get(value, "serve");
        if (json_is_object(serve))
            serve = NULL; /* a queue of that name */
        struct config_queue *queues =
            arena_alloc(&config->arena, (json_object_size(value) + 1) * sizeof(*queues));
        json_object_foreach ((json_t *)value, name, settings) {
            if (serve == NULL || settings != serve)
                read_queue(load, &queues[config->queue_limit_count++], name, settings);
        }
        config->queue_limits = queues;
    }
    json_hold json_t *all = json_pack("[s]", "*");
    config->queues = config_words(load, serve != NULL ? serve : all, "/queues", add_queue);
    if (config->queues[0] == NULL)
        config_fault(load, "/queues", "names no queue");
}

static void read_price(struct load *load, struct config_price *price, const char *model,
                       const json_t *value, const char *pointer)
{
    struct config_form_price form = {0};
    config_read_section(load, &config_price_rows, value, pointer, &form, sizeof(form));
    *price = (struct config_price){config_dup(load, model), form.input, form.output};
}

static void read_prices(struct load *load, struct config_endpoint *endpoint, const json_t *value,
                        const char *pointer)
{
    if (value == NULL)
        return;
    size_t count = json_object_size(value) + 1;
    struct config_price *prices = arena_alloc(&load->config->arena, count * sizeof(*prices));
    endpoint->prices = prices;
    const json_t *input = json_object_get(value, "input");
    const json_t *output = json_object_get(value, "output");
    if (!json_is_object(value) || json_is_number(input) || json_is_number(output)) {
        read_price(load, &prices[0], NULL, value, pointer);
        endpoint->price_count = 1;
        return;
    }
    const char *model;
    json_t *price;
    json_object_foreach ((json_t *)value, model, price) {
        struct buf at;
        buf_init(&at, 1024);
        buf_add_text(&at, pointer);
        json_pointer_push(&at, model);
        read_price(load, &prices[endpoint->price_count++], model, price, buf_text(&at));
        buf_done(&at);
    }
}

static void read_endpoint(struct load *load, struct config_endpoint *endpoint, const char *name,
                          const json_t *value)
{
    mem_auto char *pointer = mem_format("/endpoints/%s", name);
    mem_auto char *prices_at = mem_format("%s/prices", pointer);
    mem_auto char *url_at = mem_format("%s/base_url", pointer);
    struct config_form_endpoint form = {0};
    if (!pipeline_name_is_valid(name))
        error_hint(config_fault(load, pointer, "\"%.80s\" is not the name of an endpoint", name),
                   "a-z, 0-9 and -, at most 64 characters");
    config_read_section(load, &config_endpoint_rows, value, pointer, &form, sizeof(form));
    const char *url = form.base_url != NULL ? form.base_url : "";
    if (form.base_url != NULL && strncmp(url, "http://", 7) != 0 &&
        strncmp(url, "https://", 8) != 0)
        error_hint(config_fault(load, url_at, "\"%.80s\" is no http address", url),
                   "as in https://api.openai.com/v1");
    size_t len = strlen(url);
    while (len > 0 && url[len - 1] == '/')
        len--;
    endpoint->endpoint.name = arena_ndup(&load->config->arena, name, strlen(name));
    endpoint->endpoint.base_url = arena_ndup(&load->config->arena, url, len);
    /* An empty key (an empty variable) is none. */
    if (form.api_key != NULL && form.api_key[0] != '\0')
        endpoint->endpoint.api_key =
            arena_ndup(&load->config->arena, form.api_key, strlen(form.api_key));
    endpoint->endpoint.timeout_ms = form.timeout_ms;
    endpoint->rpm = form.rpm;
    endpoint->tpm = form.tpm;
    endpoint->burst = form.burst;
    endpoint->max_in_flight = form.max_in_flight;
    read_prices(load, endpoint, json_object_get(value, "prices"), prices_at);
}

static void read_endpoints(struct load *load, const json_t *value)
{
    struct config *config = load->config;
    if (value != NULL && !json_is_object(value))
        config_fault(load, "/endpoints", "must be an object of endpoints by name");
    struct config_endpoint *endpoints =
        arena_alloc(&config->arena, (json_object_size(value) + 1) * sizeof(*endpoints));
    const char *name;
    json_t *settings;
    json_object_foreach ((json_t *)value, name, settings) {
        read_endpoint(load, &endpoints[config->endpoint_count++], name, settings);
    }
    config->endpoints = endpoints;
    const char **names = arena_alloc(&config->arena, (config->endpoint_count + 1) * sizeof(char *));
    for (size_t i = 0; i < config->endpoint_count; i++)
        names[i] = endpoints[i].endpoint.name;
    config->endpoint_names = names;
}

static void read_dead(struct load *load, const json_t *value)
{
    struct config *config = load->config;
    struct config_form_dead form = {0};
    config_read_section(load, &config_dead_rows, value, "/dead", &form, sizeof(form));
    config->dead_budget = form.budget;
    config->dead_breaker = form.breaker;
    json_hold json_t *usual = json_pack("[sss]", "5m", "30m", "2h");
    const json_t *schedule = json_object_get(value, "schedule");
    const char *const *words =
        config_words(load, schedule != NULL ? schedule : usual, "/dead/schedule", NULL);
    size_t count = 0;
    while (words[count] != NULL)
        count++;
    if (count > STORE_SCHEDULE_MAX)
        config_fault(load, "/dead/schedule", "at most %d times, not %zu", STORE_SCHEDULE_MAX,
                     count);
    uint64_t *delays = arena_alloc(&config->arena, (count + 1) * sizeof(*delays));
    for (size_t i = 0; i < count; i++) {
        struct error why = {0};
        mem_auto char *pointer = mem_format("/dead/schedule/%zu", i);
        if (unit_parse_duration(words[i], &delays[i], &why) != MR_OK)
            error_hint(config_fault(load, pointer, "%s", why.message), "%s", why.hint);
    }
    config->dead_schedule_ms = delays;
    config->dead_schedule_count = count;
}

static void read_limits(struct load *load, const json_t *value)
{
    struct config_limits *limits = &load->config->limits;
    /* A row cannot be a list of strings. */
    json_hold json_t *rest = json_is_object(value) ? json_copy((json_t *)value) : NULL;
    const json_t *allow = json_object_get(value, "address_allow");
    json_object_del(rest, "address_allow");
    config_read_section(load, &config_limits_rows, rest != NULL ? rest : value, "/limits", limits,
                        sizeof(*limits));
    limits->address_allow = config_words(load, allow, "/limits/address_allow", NULL);
    for (size_t i = 0; limits->address_allow[i] != NULL; i++) {
        const char *const one[] = {limits->address_allow[i], NULL};
        mem_auto char *pointer = mem_format("/limits/address_allow/%zu", i);
        struct guard guard = {0};
        struct error why = {0};
        if (guard_init(&guard, one, &why) != MR_OK)
            error_hint(config_fault(load, pointer, "%s", why.message), "%s", why.hint);
        guard_done(&guard);
    }
}

static void read_log(struct load *load, const json_t *value)
{
    struct config *config = load->config;
    struct config_form_log form = {0};
    config_read_section(load, &config_log_rows, value, "/log", &form, sizeof(form));
    config->log_level = (enum log_level)form.level;
    config->log_format = (enum log_format)form.format;
    if (form.file != NULL && strcmp(form.file, "stderr") != 0)
        config->log_file = config_path(load, form.file);
}

static void read_prefix(struct load *load, const char *text)
{
    size_t len = strlen(text);
    while (len > 0 && text[len - 1] == '/')
        len--;
    if (len > 0 && (text[0] != '/' || strpbrk(text, "?# ") != NULL))
        error_hint(config_fault(load, "/prefix", "\"%.80s\" is no path", text), "as in \"/jobs\"");
    load->config->prefix = arena_ndup(&load->config->arena, text, len);
}

static const char *add_folder(struct load *load, const char *word)
{
    const char *path = config_path(load, word);
    char *real = realpath(path, NULL);
    if (real != NULL)
        path = config_dup(load, real);
    free(real);
    return path;
}

/* All of it. The JSON in `form` is borrowed from `root`. */
static void read_all(struct load *load, const json_t *root)
{
    struct config *config = load->config;
    struct config_form form = {0};
    config_read_section(load, &config_rows, root, "", &form, sizeof(form));
    if (form.listen != NULL)
        read_listen(load, &form);
    if (form.listen_mode != NULL)
        read_mode(load, form.listen_mode);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    config->workers = form.workers != 0 ? form.workers : cores > 0 ? (cores < 64 ? cores : 64) : 1;
    config->role = form.role;
    config->concurrency = form.concurrency;
    config->lease_ms = form.lease_ms;
    config->stall_ms = form.stall_ms;
    config->drain_ms = form.drain_ms;
    config->max_crashes = form.max_crashes;
    config->pid_file = form.pid_file;
    config->user = form.user;
    config->group = form.group;
    config->id_namespace = form.id_namespace != NULL ? form.id_namespace : ID_NAMESPACE_DEFAULT;
    if (!id_is_valid(config->id_namespace))
        config_fault(load, "/id_namespace", "is not a UUID");
    read_prefix(load, form.prefix != NULL ? form.prefix : "");
    config->pipelines = form.pipelines != NULL
                            ? config_words(load, form.pipelines, "/pipelines", add_folder)
                            : config_default_pipelines(load);
    config->plugins = form.plugins != NULL
                          ? config_words(load, form.plugins, "/plugins", add_folder)
                          : config_default_plugins(load);
    read_redis(load, form.redis);
    read_queues(load, form.queues);
    read_endpoints(load, form.endpoints);
    struct config_form_retention retention = {0};
    config_read_section(load, &config_retention_rows, form.retention, "/retention", &retention,
                        sizeof(retention));
    config->retention_status_ms = retention.status_ms;
    config->retention_result_ms = retention.result_ms;
    read_dead(load, form.dead);
    read_limits(load, form.limits);
    read_log(load, form.log);
    config_read_auth(load, form.auth);
    struct config_form_tasks tasks = {0};
    config_read_section(load, &config_tasks_rows, form.tasks, "/tasks", &tasks, sizeof(tasks));
    config->tasks_pipeline = tasks.pipeline != NULL ? tasks.pipeline : "prompt";
    if (!pipeline_name_is_valid(config->tasks_pipeline))
        config_fault(load, "/tasks/pipeline", "is not the name of a pipeline");
    struct config_form_cors cors = {0};
    config_read_section(load, &config_cors_rows, form.cors, "/cors", &cors, sizeof(cors));
    config->cors_origins =
        config_words(load, json_object_get(form.cors, "origins"), "/cors/origins", NULL);
    struct config_form_webhooks webhooks = {0};
    config_read_section(load, &config_webhooks_rows, form.webhooks, "/webhooks", &webhooks,
                        sizeof(webhooks));
    config->webhooks_secret = webhooks.secret;
}

/* Finding and loading */

static char *absolute(const char *path)
{
    if (path[0] == '/')
        return mem_dup(path);
    char *here = getcwd(NULL, 0);
    char *full = mem_format("%s/%s", here != NULL ? here : "", path);
    free(here);
    return full;
}

char *config_find(const char *given)
{
    const char *named = given != NULL ? given : getenv("MILLRACE_CONFIG");
    if (named != NULL && named[0] != '\0')
        return absolute(named);
    static const char *const usual[] = {"millrace.json", "/etc/millrace/millrace.json"};
    for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]); i++)
        if (access(usual[i], F_OK) == 0)
            return absolute(usual[i]);
    return NULL;
}

json_t *config_read(const char *file, struct report *report)
{
    return config_file_read(file, config_kind, report);
}

struct config *config_make(const char *file, const json_t *root, struct report *report)
{
    size_t before = report_errors(report);
    struct config *config = mem_zalloc(sizeof(*config));
    arena_init(&config->arena);
    mem_auto char *full = file != NULL ? absolute(file) : absolute(".");
    const char *slash = strrchr(full, '/');
    mem_auto char *folder = slash == full ? mem_dup("/") : mem_ndup(full, (size_t)(slash - full));
    char *real = realpath(folder, NULL);
    const char *dir = real != NULL ? real : folder;
    config->dir = arena_ndup(&config->arena, dir, strlen(dir));
    free(real);
    if (file != NULL)
        config->file = arena_ndup(&config->arena, full, strlen(full));
    struct load load = {config, report, file != NULL ? file : "configuration"};
    read_all(&load, root);
    if (report_errors(report) == before && config_check_redis(config, report)) {
        config_warn_pending(config, report);
        return config;
    }
    config_free(config);
    return NULL;
}

struct config *config_load(const char *file, struct report *report)
{
    json_hold json_t *root = config_read(file, report);
    return root != NULL ? config_make(file, root, report) : NULL;
}

void config_free(struct config *config)
{
    if (config == NULL)
        return;
    arena_done(&config->arena);
    free(config);
}
