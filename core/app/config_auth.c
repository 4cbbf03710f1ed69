/* `auth.tokens`: names, scopes and hashes. */
#include "app/config_parts.h"

#include <ctype.h>
#include <string.h>

static uint32_t read_scopes(struct load *load, const json_t *value, const char *pointer)
{
    static const char *const names[] = {"submit", "read", "admin", NULL};
    uint32_t scopes = 0;
    if (!json_is_array(value) || json_array_size(value) == 0) {
        error_hint(config_fault(load, pointer, "must be an array of scopes"),
                   "submit, read, admin");
        return 0;
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        const char *word = json_string_value(json_array_get(value, i));
        uint32_t bit = 0;
        for (uint32_t n = 0; word != NULL && names[n] != NULL; n++)
            bit |= strcmp(word, names[n]) == 0 ? 1u << n : 0;
        if (bit == 0)
            error_hint(config_fault(load, pointer, "\"%.40s\" is no scope", word ? word : "?"),
                       "submit, read, admin");
        scopes |= bit;
    }
    return scopes;
}

void config_read_auth(struct load *load, const json_t *value)
{
    struct config *config = load->config;
    struct config_form_auth form = {0};
    if (!config_read_section(load, &config_auth_rows, value, "/auth", &form, sizeof(form)))
        return;
    const json_t *raw = json_object_get(value, "tokens");
    struct config_token *tokens =
        arena_alloc(&config->arena, ((size_t)form.tokens.count + 1) * sizeof(*tokens));
    for (uint32_t i = 0; i < form.tokens.count; i++) {
        const struct config_form_token *row =
            (const struct config_form_token *)form.tokens.items + i;
        mem_auto char *scopes_at = mem_format("/auth/tokens/%u/scopes", (unsigned)i);
        mem_auto char *hash_at = mem_format("/auth/tokens/%u/sha256", (unsigned)i);
        size_t len = strlen(row->sha256);
        if (len != 64 || strspn(row->sha256, "0123456789abcdefABCDEF") != len)
            error_hint(config_fault(load, hash_at, "is no SHA-256 in hex"),
                       "printf %%s TOKEN | sha256sum");
        char *hash = arena_ndup(&config->arena, row->sha256, len);
        for (char *c = hash; *c != '\0'; c++)
            *c = (char)tolower((unsigned char)*c);
        tokens[i] = (struct config_token){
            row->name, hash,
            read_scopes(load, json_object_get(json_array_get(raw, i), "scopes"), scopes_at)};
        for (uint32_t n = 0; n < i; n++)
            if (strcmp(tokens[n].name, row->name) == 0)
                config_fault(load, scopes_at, "the name \"%s\" is used twice", row->name);
    }
    config->tokens = tokens;
    config->token_count = form.tokens.count;
}
