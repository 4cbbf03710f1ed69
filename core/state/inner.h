/* What the files of this layer share and no one else includes: the scripts, and a call of one. */
#pragma once

#include "base/mem.h"
#include "state/store.h"

/* One for each core/state/NAME.lua; the texts are generated into scripts_text.h. */
enum script {
#define SCRIPT_TEXT(name, text) SCRIPT_##name,
#include "scripts_text.h"
#undef SCRIPT_TEXT
    SCRIPTS
};
const char *script_text(enum script script);
const char *script_name(enum script script);

struct store_private {
    struct redis_config where; /* when has_where */
    bool has_where;
    struct durable *durable; /* durable.c; NULL: not asked for yet */
    struct redis_script scripts[SCRIPTS];
    char conf[STORE_SCHEDULE_MAX * 21 + 16]; /* SCHEDULE;BREAKER, as scripts take it */
    char keep[48];                           /* default retention, as submit takes it */
};

/* A script on one partition: keys and arguments are collected, then it is run. A script that finds
 * it needs keys that were not declared writes nothing and names them; call_run adds them and
 * repeats. */
struct call {
    struct store *store;
    enum script script;
    uint32_t partition;
    struct arena arena;
    struct arg *keys, *args;
    size_t key_count, key_cap, arg_count, arg_cap;
};
void call_init(struct call *call, struct store *store, enum script script, uint32_t partition);
void call_done(struct call *call);
#define call_auto __attribute__((cleanup(call_done)))
/* PREFIX:{P}:KIND or PREFIX:{P}:KIND:NAME. */
void call_key(struct call *call, const char *kind, const char *name);
/* A key in full. */
void call_key_text(struct call *call, const char *key);
/* PREFIX:{P}:queue:QUEUE:CLASS, unless it is there already. */
void call_queue(struct call *call, const char *queue, enum queue_class class);
/* Keys 1 to 6 of every script on a job (job out log due dead dead:info), and argument 1, its id. */
void call_job(struct call *call, const char *id);
void call_text(struct call *call, const char *text); /* NULL: "" ; borrowed */
void call_bytes(struct call *call, const char *data, size_t len);
void call_int(struct call *call, int64_t value);
void call_u64(struct call *call, uint64_t value);
/* `timeout_ms` as redis_run. */
MR_SUSPENDS int call_run(struct call *call, uint64_t timeout_ms, struct reply *ret_reply,
                         struct error *err);

/* Reading replies; what has another type than asked for reads as "", 0. */
const struct reply *reply_item(const struct reply *reply, size_t i);
const char *reply_text(const struct reply *reply, size_t i);
uint64_t reply_u64(const struct reply *reply, size_t i);
uint64_t text_u64(const char *text, size_t len);
/* The error of a reply that the protocol does not have. */
int call_surprise(enum script script, const struct reply *reply, struct error *err);

/* Appends `{"code":…}` of a failure: code, message, stage, class, retryable. */
char *error_json(const char *code, const char *message, const char *stage, const char *class,
                 bool is_retryable);

/* One element of a log, or line of a channel, to an event. False: it is none. */
struct job_event;
bool event_parse(const char *id, const char *text, size_t len, uint64_t number,
                 struct job_event *ret);
