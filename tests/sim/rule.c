/*
 * rule: see rule.h. Reading is a walk over the members with one row per known member (read_answer),
 * so that what is not known is an error by construction.
 */
#include "rule.h"

#include "buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define OVERSIZE_MAX ((int64_t)256 * 1024 * 1024)
#define RULES_MAX    100000

/* Where an error is reported, and the place that is being read. */
struct reading {
    char *error;
    size_t max;
    const char *where; /* "match" or "answer" */
    size_t index;      /* of the rule */
};

static bool wrong(const struct reading *r, const char *member, const char *what)
{
    snprintf(r->error, r->max, "/%zu/%s/%s: %s", r->index, r->where, member, what);
    return false;
}

static bool parse_duration(const char *text, size_t n, uint64_t *ret_ms)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    char number[32];
    size_t digits = strspn(text, "0123456789.");

    if (digits == 0 || digits >= n || digits >= sizeof number || text[0] == '.')
        return false;
    memcpy(number, text, digits);
    number[digits] = '\0';
    char *end;
    double value = strtod(number, &end);
    if (*end != '\0')
        return false;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strlen(units[i].unit) == n - digits &&
            memcmp(units[i].unit, text + digits, n - digits) == 0) {
            double ms = value * units[i].ms;
            if (ms > 366.0 * 86400000)
                return false;
            *ret_ms = (uint64_t)(ms + 0.5);
            return true;
        }
    }
    return false;
}

bool span_parse(const char *text, struct span_ms *ret_span)
{
    const char *dots = strstr(text, "..");
    struct span_ms span;

    if (!parse_duration(text, dots ? (size_t)(dots - text) : strlen(text), &span.min))
        return false;
    span.max = span.min;
    if (dots && !parse_duration(dots + 2, strlen(dots + 2), &span.max))
        return false;
    if (span.max < span.min)
        return false;
    *ret_span = span;
    return true;
}

/* ---- typed readers: each returns false with the error written ---- */

static bool read_string(const struct reading *r, const char *key, json_t *v, const char **ret)
{
    if (!json_is_string(v))
        return wrong(r, key, "must be a string");
    *ret = json_string_value(v);
    return true;
}

static bool read_bool(const struct reading *r, const char *key, json_t *v, bool *ret)
{
    if (!json_is_boolean(v))
        return wrong(r, key, "must be true or false");
    *ret = json_is_true(v);
    return true;
}

static bool read_count(const struct reading *r, const char *key, json_t *v, int64_t max,
                       int64_t *ret)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > max)
        return wrong(r, key, "must be a whole number from 0 (at most 256 MiB for sizes)");
    *ret = json_integer_value(v);
    return true;
}

static bool read_span(const struct reading *r, const char *key, json_t *v, struct span_ms *ret)
{
    if (!json_is_string(v) || !span_parse(json_string_value(v), ret))
        return wrong(r, key, "must be a duration such as \"250ms\" or a range \"100ms..400ms\"");
    return true;
}

static bool read_strings(const struct reading *r, const char *key, json_t *v, json_t **ret)
{
    const char *name;
    json_t *value;

    if (!json_is_object(v))
        return wrong(r, key, "must be an object of strings");
    json_object_foreach (v, name, value) {
        if (!json_is_string(value) || strpbrk(name, "\r\n:") ||
            strpbrk(json_string_value(value), "\r\n"))
            return wrong(r, key, "must be an object of strings without line breaks");
    }
    *ret = v;
    return true;
}

static bool read_base64(const struct reading *r, const char *key, json_t *v, struct answer *a)
{
    static const char table[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *text;
    uint32_t bits = 0;
    unsigned held = 0;

    if (!read_string(r, key, v, &text))
        return false;
    a->body = xcalloc(strlen(text) + 1, 1);
    for (; *text && *text != '='; text++) {
        const char *at = strchr(table, *text);

        if (!at)
            return wrong(r, key, "must be base64");
        bits = (bits << 6 | (uint32_t)(at - table)) & 0xFFFFFF;
        held += 6;
        if (held >= 8) {
            held -= 8;
            a->body[a->body_len++] = (char)(bits >> held & 0xFF);
        }
    }
    return true;
}

static bool read_drip(const struct reading *r, json_t *v, struct answer *a)
{
    const char *key;
    json_t *value;
    int64_t number;
    struct span_ms every;

    if (json_is_boolean(v)) {
        a->drip_bytes = json_is_true(v) ? 1 : 0;
        return true;
    }
    if (!json_is_object(v))
        return wrong(r, "drip", "must be true or {\"bytes\", \"every\", \"stop_after\"}");
    a->drip_bytes = 1;
    json_object_foreach (v, key, value) {
        if (strcmp(key, "bytes") == 0) {
            if (!read_count(r, "drip/bytes", value, OVERSIZE_MAX, &number))
                return false;
            a->drip_bytes = number ? (size_t)number : 1;
        } else if (strcmp(key, "every") == 0) {
            if (!read_span(r, "drip/every", value, &every))
                return false;
            a->drip_every_ms = every.min;
        } else if (strcmp(key, "stop_after") == 0) {
            if (!read_count(r, "drip/stop_after", value, OVERSIZE_MAX, &a->drip_stop_after))
                return false;
        } else {
            return wrong(r, "drip", "knows \"bytes\", \"every\", \"stop_after\" only");
        }
    }
    return true;
}

/* `true` stands for a number of its own in members that take a count. */
static bool read_true_or_count(const struct reading *r, const char *key, json_t *v,
                               int64_t when_true, int64_t *ret)
{
    if (json_is_true(v)) {
        *ret = when_true;
        return true;
    }
    return read_count(r, key, v, OVERSIZE_MAX, ret);
}

static bool read_stream_cut(const struct reading *r, const char *key, json_t *v, struct answer *a)
{
    int64_t number = -1;

    if (strcmp(key, "stream") == 0) {
        bool on;
        if (!read_bool(r, key, v, &on))
            return false;
        a->no_stream = !on;
        return true;
    }
    if (!read_true_or_count(r, key, v, INT64_MAX, &number))
        return false;
    a->stream_cut = number;
    a->stream_reset = strcmp(key, "stream_reset") == 0;
    a->stream_stall = strcmp(key, "stream_stall") == 0;
    return true;
}

static bool read_content(const struct reading *r, const char *key, json_t *v, struct answer *a)
{
    int64_t number;

    if (strcmp(key, "text") == 0)
        return read_string(r, key, v, &a->text);
    if (strcmp(key, "json") == 0) {
        a->json = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
        return a->json || wrong(r, key, "cannot be written as JSON");
    }
    if (strcmp(key, "body_base64") == 0)
        return read_base64(r, key, v, a);
    if (strcmp(key, "body") == 0) {
        a->body = json_is_string(v)
                      ? xstrndup(json_string_value(v), json_string_length(v))
                      : json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
        a->body_len = json_is_string(v) ? json_string_length(v) : strlen(a->body ? a->body : "");
        return a->body || wrong(r, key, "cannot be written as JSON");
    }
    if (!read_count(r, key, v, OVERSIZE_MAX, &number))
        return false;
    a->oversize = (size_t)number;
    return true;
}

static bool is_one_of(const char *key, const char *const *names)
{
    for (; *names; names++) {
        if (strcmp(key, *names) == 0)
            return true;
    }
    return false;
}

static bool read_answer_member(const struct reading *r, const char *key, json_t *v,
                               struct answer *a)
{
    static const char *const contents[] = {"text", "json", "body", "body_base64", "oversize", NULL};
    static const char *const cuts[] = {"stream", "stream_cut", "stream_reset", "stream_stall",
                                       NULL};
    const struct {
        const char *key;
        bool *flag;
    } flags[] = {{"broken_json", &a->broken_json},
                 {"bad_content", &a->bad_content},
                 {"hold", &a->hold},
                 {"hang", &a->hang},
                 {"reset", &a->reset},
                 {"close", &a->close}};
    const struct {
        const char *key;
        const char **text;
    } texts[] = {{"code", &a->code},
                 {"message", &a->message},
                 {"finish_reason", &a->finish_reason},
                 {"stream_error", &a->stream_error}};
    int64_t number;
    struct span_ms span;

    if (key[0] == '/' && key[1] == '/')
        return true; /* a comment */
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if (strcmp(key, flags[i].key) == 0)
            return read_bool(r, key, v, flags[i].flag);
    }
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (strcmp(key, texts[i].key) == 0)
            return read_string(r, key, v, texts[i].text);
    }
    if (is_one_of(key, contents))
        return read_content(r, key, v, a);
    if (is_one_of(key, cuts))
        return read_stream_cut(r, key, v, a);
    if (strcmp(key, "drip") == 0)
        return read_drip(r, v, a);
    if (strcmp(key, "headers") == 0)
        return read_strings(r, key, v, &a->headers);
    if (strcmp(key, "latency") == 0)
        return a->has_latency = true, read_span(r, key, v, &a->latency);
    if (strcmp(key, "reset_after_bytes") == 0)
        return read_count(r, key, v, OVERSIZE_MAX, &a->reset_after_bytes);
    if (strcmp(key, "truncate") == 0)
        return read_true_or_count(r, key, v, INT64_MAX, &a->truncate);
    if (strcmp(key, "usage") == 0) {
        a->usage = v;
        return json_is_object(v) || json_is_null(v) || wrong(r, key, "must be an object or null");
    }
    if (strcmp(key, "status") == 0) {
        if (!read_count(r, key, v, 599, &number) || number < 200)
            return wrong(r, key, "must be from 200 to 599");
        a->status = (int)number;
        return true;
    }
    if (strcmp(key, "stream_every") == 0) {
        if (!read_span(r, key, v, &span))
            return false;
        a->stream_every_ms = span.min;
        return a->has_stream_every = true;
    }
    if (strcmp(key, "stream_bytes") == 0) {
        if (!read_count(r, key, v, OVERSIZE_MAX, &number))
            return false;
        a->stream_bytes = (size_t)number;
        return true;
    }
    return wrong(r, key, "is not known (see mr-sim --help)");
}

static bool read_match_member(const struct reading *r, const char *key, json_t *v,
                              struct rule *rule)
{
    bool stream;

    if (strcmp(key, "model") == 0)
        return read_string(r, key, v, &rule->model);
    if (strcmp(key, "contains") == 0)
        return read_string(r, key, v, &rule->contains);
    if (strcmp(key, "path") == 0)
        return read_string(r, key, v, &rule->path);
    if (strcmp(key, "header") == 0)
        return read_strings(r, key, v, &rule->header);
    if (strcmp(key, "stream") == 0) {
        if (!read_bool(r, key, v, &stream))
            return false;
        rule->stream = stream;
        return true;
    }
    return wrong(r, key, "is not known (see mr-sim --help)");
}

static void answer_done(struct answer *a)
{
    free(a->json);
    free(a->body);
}

static bool read_rule(struct reading *r, json_t *source, struct rule *rule)
{
    const char *key;
    json_t *v;
    json_t *match = json_object_get(source, "match");
    json_t *answer = json_object_get(source, "answer");
    json_t *times = json_object_get(source, "times");
    json_t *every = json_object_get(source, "every");

    r->where = "";
    if (!json_is_object(source) || !json_is_object(answer) || (match && !json_is_object(match)))
        return wrong(r, "", "a rule is {\"match\": {...}, \"times\": N, \"answer\": {...}}");
    json_object_foreach (source, key, v) {
        if (strcmp(key, "match") != 0 && strcmp(key, "answer") != 0 && strcmp(key, "times") != 0 &&
            strcmp(key, "every") != 0 && strncmp(key, "//", 2) != 0)
            return wrong(r, key, "is not known (see mr-sim --help)");
    }
    if (times && (!json_is_integer(times) || json_integer_value(times) < 1))
        return wrong(r, "times", "must be a whole number from 1");
    if (every && (!json_is_integer(every) || json_integer_value(every) < 1))
        return wrong(r, "every", "must be a whole number from 1");
    rule->every = every ? (uint64_t)json_integer_value(every) : 0;
    rule->times = times ? (uint64_t)json_integer_value(times) : 0;

    r->where = "match";
    json_object_foreach (match, key, v) {
        if (!read_match_member(r, key, v, rule))
            return false;
    }
    r->where = "answer";
    json_object_foreach (answer, key, v) {
        if (!read_answer_member(r, key, v, &rule->answer))
            return false;
    }
    struct answer *a = &rule->answer;
    if ((a->text != NULL) + (a->json != NULL) + (a->body != NULL) + (a->oversize > 0) +
            a->broken_json + a->bad_content >
        1)
        return wrong(r, "", "only one of text, json, body, oversize, broken_json, bad_content");
    return true;
}

bool rules_add(struct rules *rules, struct rule_list *list, json_t *source, char *error, size_t max)
{
    json_t *array = json_is_object(source) ? json_object_get(source, "rules") : source;
    struct reading reading = {.error = error, .max = max};

    if (!json_is_array(array)) {
        snprintf(error, max, "rules are an array, or an object with the array \"rules\"");
        return false;
    }
    size_t add = json_array_size(array);
    if (list->count + add > RULES_MAX) {
        snprintf(error, max, "more than %d rules", RULES_MAX);
        return false;
    }
    if (list->count + add > list->cap) {
        size_t cap = (list->count + add) * 2;
        struct rule *items = xcalloc(cap, sizeof *items);

        if (list->count)
            memcpy(items, list->items, list->count * sizeof *items);
        free(list->items);
        list->items = items;
        list->cap = cap;
    }
    for (size_t i = 0; i < add; i++) {
        struct rule *rule = &list->items[list->count + i];

        *rule = (struct rule){.stream = -1,
                              .answer = {.reset_after_bytes = -1,
                                         .truncate = -1,
                                         .drip_every_ms = 10,
                                         .drip_stop_after = -1,
                                         .stream_cut = -1}};
        reading.index = i;
        if (!read_rule(&reading, json_array_get(array, i), rule)) {
            for (size_t k = 0; k <= i; k++) {
                answer_done(&list->items[list->count + k].answer);
                json_decref(list->items[list->count + k].source);
            }
            return false;
        }
        rule->source = json_incref(json_array_get(array, i));
        rule->id = ++rules->last_id;
    }
    list->count += add;
    return true;
}

/* A pattern that ends in * stands for everything that begins so. */
static bool matches_pattern(const char *pattern, const char *text, size_t n)
{
    size_t len = strlen(pattern);

    if (len > 0 && pattern[len - 1] == '*')
        return n >= len - 1 && memcmp(pattern, text, len - 1) == 0;
    return n == len && memcmp(pattern, text, n) == 0;
}

static bool rule_matches(const struct rule *rule, const struct http_request *r,
                         const struct ask *ask)
{
    const char *name;
    json_t *value;
    size_t len;

    if (rule->times && rule->used >= rule->times)
        return false;
    if (rule->model &&
        (!ask->model || !matches_pattern(rule->model, ask->model, strlen(ask->model))))
        return false;
    if (rule->path && !matches_pattern(rule->path, r->base + r->head->path.at, r->head->path.n))
        return false;
    if (rule->stream >= 0 && rule->stream != ask->stream)
        return false;
    json_object_foreach (rule->header, name, value) {
        const char *has = http_header_find(r, name, &len);

        if (!has || len != json_string_length(value) ||
            memcmp(has, json_string_value(value), len) != 0)
            return false;
    }
    if (!rule->contains)
        return true;
    if (ask->messages)
        return ask_contains(ask, rule->contains);
    return memmem(r->body, r->body_len, rule->contains, strlen(rule->contains)) != NULL;
}

struct rule *rules_pick(struct rules *rules, const struct http_request *r, const struct ask *ask)
{
    struct rule_list *lists[] = {&rules->control, &rules->script};

    for (size_t k = 0; k < 2; k++) {
        for (size_t i = 0; i < lists[k]->count; i++) {
            struct rule *rule = &lists[k]->items[i];

            if (rule_matches(rule, r, ask)) {
                if (rule->every > 1 && ++rule->seen % rule->every != 0)
                    continue;
                rule->used++;
                return rule;
            }
        }
    }
    return NULL;
}

void rules_format(const struct rules *rules, struct buf *out)
{
    const struct rule_list *lists[] = {&rules->control, &rules->script};
    bool first = true;

    buf_text(out, "[");
    for (size_t k = 0; k < 2; k++) {
        for (size_t i = 0; i < lists[k]->count; i++) {
            const struct rule *rule = &lists[k]->items[i];
            char *text = json_dumps(rule->source, JSON_COMPACT | JSON_REAL_PRECISION(15));

            buf_format(out, "%s{\"id\":%llu,\"list\":\"%s\",\"used\":%llu,\"rule\":%s}",
                       first ? "" : ",", (unsigned long long)rule->id, k ? "script" : "control",
                       (unsigned long long)rule->used, text ? text : "null");
            free(text);
            first = false;
        }
    }
    buf_text(out, "]");
}

void rule_list_clear(struct rule_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        answer_done(&list->items[i].answer);
        json_decref(list->items[i].source);
    }
    free(list->items);
    *list = (struct rule_list){.items = NULL};
}

void rule_list_rewind(struct rule_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        list->items[i].used = list->items[i].seen = 0;
}
