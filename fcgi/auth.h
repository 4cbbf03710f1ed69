/* Who asks: bearer tokens (RFC 6750), off unless `auth.tokens` has any.
 *
 * The configuration holds SHA-256 hashes; what is sent is hashed and compared with all of them in
 * constant time. A token's jobs have ids of a namespace of their own, made from the installation's
 * and the token's name, and are visible to it and to tokens with the scope `admin`. */
#pragma once

#include "app/config.h"
#include "base/id.h"
#include "fcgi/request.h"

enum auth_scope {
    AUTH_NONE, /* open to all */
    AUTH_SUBMIT = CONFIG_SUBMIT,
    AUTH_READ = CONFIG_READ,
    AUTH_ADMIN = CONFIG_ADMIN,
};
enum auth_verdict { AUTH_OK, AUTH_UNKNOWN /* 401 */, AUTH_REFUSED /* 403 */ };

/* The token of a request in `ret_token` (NULL when auth is off or the scope is NONE). */
enum auth_verdict auth_check(const struct config *config, const struct request *request,
                             enum auth_scope scope, const struct config_token **ret_token);
/* Whether a job of `owner` ("" or NULL: nobody's) may be seen with that token. */
bool auth_sees(const struct config_token *token, const char *owner);
/* The namespace of ids for that token. */
int auth_namespace(const struct config *config, const struct config_token *token,
                   char ret_ns[ID_BYTES], struct error *err);
