/* What a supervisor, a balancer and a person ask first: alive, able, which version. */
#include "fcgi/front.h"
#include "fcgi/problem.h"
#include "state/store.h"
#include <string.h>

#define READY_PING_MS 2000u

void health_live(struct front *front, struct exchange *exchange, struct response *response)
{
    (void)exchange;
    (void)front;
    json_hold json_t *body = json_pack("{s:s}", "status", "ok");
    response_json(response, 200, body);
}

static bool redis_answers(struct front *front)
{
    if (!store_is_up(front->store)) {
        return false;
    }
    struct reply reply = {0};
    const struct arg ping = arg_text("PING");
    struct error err;
    int rc = redis_call(front->redis, 1, &ping, READY_PING_MS, &reply, &err);
    if (rc == MR_OK) {
        reply_done(&reply);
    }
    return rc == MR_OK;
}

void health_ready(struct front *front, struct exchange *exchange, struct response *response)
{
    bool redis = redis_answers(front);
    bool store = redis && front->has_joined;
    bool serving = !front->is_draining;
    bool pipelines = front->pipeline_count > 0;
    bool ready = redis && store && serving && pipelines;
    json_hold json_t *checks =
        json_pack("{s:s,s:s,s:s,s:s}", "redis", redis ? "ok" : "Redis does not answer", "store",
                  store ? "ok" : "the store has not been checked", "serving",
                  serving ? "ok" : "the process is stopping", "pipelines",
                  pipelines ? "ok" : "no pipeline is loaded");
    if (ready) {
        json_hold json_t *body = json_pack("{s:s,s:O}", "status", "ready", "checks", checks);
        response_json(response, 200, body);
        return;
    }
    enum problem problem = serving ? PROBLEM_STORE_UNAVAILABLE : PROBLEM_DRAINING;
    problem_with(response, problem, exchange->request.id, "a check failed", "checks", checks);
    response_header(response, "Retry-After", "2");
}

void health_version(struct front *front, struct exchange *exchange, struct response *response)
{
    (void)exchange;
    (void)front;
    json_hold json_t *body = json_pack("{s:s,s:s}", "name", "millrace", "version", MR_VERSION);
    response_json(response, 200, body);
}
