/* What a supervisor, a balancer and a person ask first: alive, able, which version.
 *
 * Able means: a submit would be taken now, and somebody is there to run it. Redis itself is asked,
 * by a script that it refuses whenever it would refuse a submit, and that counts the registered
 * workers of all hosts; so a disk that is full or a replica in the primary's place shows here
 * before a client meets it. On a host of role front workers are told and do not count: they are
 * other hosts', and a queue without a worker still takes jobs. */
#include "fcgi/front.h"
#include "fcgi/problem.h"
#include "state/store.h"
#include <string.h>

#define READY_ASK_MS 2000u

void health_live(struct front *front, struct exchange *exchange, struct response *response)
{
    (void)exchange;
    (void)front;
    json_hold json_t *body = json_pack("{s:s}", "status", "ok");
    response_json(response, 200, body);
}

/* Fills the checks that Redis answers; returns whether all are well, else what is wrong. */
static bool ask_redis(struct front *front, json_t *checks, enum outage *ret_outage)
{
    uint64_t workers = 0;
    struct error err = {0};
    bool answers = store_is_up(front->store);
    int rc = answers ? store_ready(front->store, READY_ASK_MS, &workers, &err) : MR_E_STORE;
    *ret_outage = !answers           ? outage_of_words(redis_reason(front->redis), OUTAGE_AWAY)
                  : rc == MR_E_STORE ? outage_of(&err)
                                     : OUTAGE_AWAY;
    const char *sentence = outage_sentence(*ret_outage);
    answers = answers && (rc == MR_OK || (rc == MR_E_STORE && *ret_outage != OUTAGE_AWAY));
    json_object_set_new(checks, "redis", json_string(answers ? "ok" : sentence));
    json_object_set_new(checks, "writes",
                        json_string(rc == MR_OK ? "ok"
                                    : answers   ? sentence
                                                : "not known: Redis does not answer"));
    bool has_workers = workers > 0;
    json_object_set_new(checks, "workers",
                        json_string(rc != MR_OK   ? "not known"
                                    : has_workers ? "ok"
                                                  : "no worker is registered in Redis"));
    return rc == MR_OK && (has_workers || front->config->role == CONFIG_FRONT);
}

void health_ready(struct front *front, struct exchange *exchange, struct response *response)
{
    const char *id = exchange->request.id;
    json_hold json_t *checks = json_object();
    enum outage outage;
    bool redis = ask_redis(front, checks, &outage);
    bool serving = !front->is_draining;
    bool pipelines = front->pipeline_count > 0;
    json_object_set_new(
        checks, "store",
        json_string(front->has_joined ? "ok" : "Redis has not been checked since the start"));
    json_object_set_new(checks, "serving", json_string(serving ? "ok" : "the process is stopping"));
    json_object_set_new(checks, "pipelines",
                        json_string(pipelines ? "ok" : "no pipeline is loaded"));
    if (redis && front->has_joined && serving && pipelines) {
        json_hold json_t *body = json_pack("{s:s,s:O}", "status", "ready", "checks", checks);
        response_json(response, 200, body);
        return;
    }
    problem_with(response, serving ? PROBLEM_STORE_UNAVAILABLE : PROBLEM_DRAINING, "Not ready", id,
                 "a check failed", "checks", checks);
    response_header(response, "Retry-After", "2");
}

void health_version(struct front *front, struct exchange *exchange, struct response *response)
{
    (void)exchange;
    (void)front;
    json_hold json_t *body = json_pack("{s:s,s:s}", "name", "millrace", "version", MR_VERSION);
    response_json(response, 200, body);
}
