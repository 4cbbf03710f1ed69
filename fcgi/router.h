/* From a request to its handler, by the table in routes.h. */
#pragma once

#include "fcgi/auth.h"
#include "fcgi/request.h"
#include "fcgi/response.h"
#include "fcgi/routes.h"

struct front;
struct exchange;

/* A handler runs on a fiber and fills the response; it may suspend. One that has answered by itself
 * (an event stream) sets exchange->is_answered. */
typedef void route_fn(struct front *front, struct exchange *exchange, struct response *response);

#define ROUTE_DECLARE(method, pattern, handler, scope, text) route_fn handler;
ROUTES(ROUTE_DECLARE)
#undef ROUTE_DECLARE

#define ROUTER_ALLOW_BYTES 64
struct route {
    enum request_method method;
    const char *pattern;
    route_fn *handler;
    enum auth_scope scope;
    const char *text;
};

/* The route of a request, with request->arg filled; NULL when there is none. Then `ret_allow` (64
 * bytes) is empty for a path that nothing is at, or the value of Allow. */
const struct route *router_find(struct request *request, char ret_allow[ROUTER_ALLOW_BYTES]);
