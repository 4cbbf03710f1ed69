/* Fuzz target: a model's answer, from the envelope to the parsed content, through the real llm
 * plugin and a fake host. The first byte chooses status and settings, the rest is the body.
 * Whatever comes, the task must end with an output or an error, and leak nothing. */
#include "fake_host.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SETTINGS                                                                                   \
    "{'endpoint': 'openai', 'model': 'm', 'messages': [{'role': 'user', 'content': 'q'}]"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int statuses[] = {200, 200, 200, 200, 400, 429, 500, 302};
    if (size < 1 || size > 1 << 16)
        return 0;
    char *body = malloc(size);
    memcpy(body, data + 1, size - 1);
    body[size - 1] = '\0';
    struct fake *fake =
        fake_new("llm", data[0] & 8 ? SETTINGS "}" : SETTINGS ", 'response': 'json'}");
    const struct fake_reply reply = {.status = statuses[data[0] & 7], .body = body};
    fake_will_answer(fake, reply);
    fake_will_answer(fake, reply); /* of the repair */
    int rc = fake_run(fake);
    if (rc > 0)
        abort();
    fake_free(fake);
    free(body);
    return 0;
}
