/* Bearer tokens: see auth.h. */
#include "fcgi/auth.h"
#include "base/hash.h"
#include <string.h>
#include <strings.h>

/* Whether two texts of `len` bytes are equal, in a time that does not depend on where they differ.
 */
static bool is_equal(const char *a, const char *b, size_t len)
{
    unsigned char difference = 0;
    for (size_t i = 0; i < len; i++) {
        difference |= (unsigned char)(a[i] ^ b[i]);
    }
    return difference == 0;
}

static const struct config_token *find(const struct config *config, const char *sent)
{
    char hex[HASH_HEX_BYTES];
    hash_text(sent, strlen(sent), hex);
    const struct config_token *found = NULL;
    for (size_t i = 0; i < config->token_count; i++) {
        const struct config_token *token = &config->tokens[i];
        if (strlen(token->sha256) == HASH_HEX_BYTES - 1 &&
            is_equal(token->sha256, hex, HASH_HEX_BYTES - 1)) {
            found = token;
        }
    }
    return found;
}

enum auth_verdict auth_check(const struct config *config, const struct request *request,
                             enum auth_scope scope, const struct config_token **ret_token)
{
    *ret_token = NULL;
    if (config->token_count == 0 || scope == AUTH_NONE) {
        return AUTH_OK;
    }
    const char *header = request_header(request, "Authorization");
    if (header == NULL || strncasecmp(header, "Bearer ", 7) != 0) {
        return AUTH_UNKNOWN;
    }
    const struct config_token *token = find(config, header + 7 + strspn(header + 7, " "));
    if (token == NULL) {
        return AUTH_UNKNOWN;
    }
    if (!config_token_may(token, (enum config_scope)scope)) {
        return AUTH_REFUSED;
    }
    *ret_token = token;
    return AUTH_OK;
}

bool auth_sees(const struct config_token *token, const char *owner)
{
    if (token == NULL || config_token_may(token, CONFIG_ADMIN)) {
        return true;
    }
    return owner != NULL && strcmp(owner, token->name) == 0;
}

int auth_namespace(const struct config *config, const struct config_token *token,
                   char ret_ns[ID_BYTES], struct error *err)
{
    const char *ns = config->id_namespace != NULL ? config->id_namespace : ID_NAMESPACE_DEFAULT;
    if (token == NULL) {
        if (!id_is_valid(ns)) {
            return error_set(err, MR_E_SCHEMA, "id_namespace is not a UUID");
        }
        memcpy(ret_ns, ns, ID_BYTES);
        return MR_OK;
    }
    return id_of_bytes(ns, token->name, strlen(token->name), ret_ns, err);
}
