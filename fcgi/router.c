/* The router: see router.h. A dozen routes are walked in order; a path's segments were split and
 * decoded by the request. */
#include "fcgi/router.h"
#include <stdio.h>
#include <string.h>

static const struct route routes[] = {
#define ROUTE_ROW(method, pattern, handler, scope, text)                                           \
    {METHOD_##method, pattern, handler, AUTH_##scope, text},
    ROUTES(ROUTE_ROW)
#undef ROUTE_ROW
};

static bool route_matches(const struct route *route, const struct request *request,
                          const char **ret_arg)
{
    const char *at = route->pattern;
    size_t i = 0;
    size_t args = 0;
    while (*at == '/') {
        at++;
        size_t len = strcspn(at, "/");
        if (i >= request->segments) {
            return false;
        }
        const char *segment = request->segment[i++];
        if (*at == '{') {
            if (*segment == '\0' || args == REQUEST_ARGS) {
                return false;
            }
            ret_arg[args++] = segment;
        } else if (strlen(segment) != len || memcmp(segment, at, len) != 0) {
            return false;
        }
        at += len;
    }
    return i == request->segments;
}

const struct route *router_find(struct request *request, char ret_allow[ROUTER_ALLOW_BYTES])
{
    ret_allow[0] = '\0';
    if (request->segments == SIZE_MAX) {
        return NULL;
    }
    enum request_method method = request->method == METHOD_HEAD ? METHOD_GET : request->method;
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        const char *arg[REQUEST_ARGS] = {NULL};
        if (!route_matches(&routes[i], request, arg)) {
            continue;
        }
        if (routes[i].method == method) {
            ret_allow[0] = '\0';
            memcpy(request->arg, arg, sizeof(arg));
            return &routes[i];
        }
        size_t len = strlen(ret_allow);
        snprintf(ret_allow + len, ROUTER_ALLOW_BYTES - len, "%s%s%s", len > 0 ? ", " : "",
                 request_method_name(routes[i].method),
                 routes[i].method == METHOD_GET ? ", HEAD" : "");
    }
    return NULL;
}
