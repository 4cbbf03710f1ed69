/* Every maximum of the system, with its reason. What the configuration may change is a default
 * here. */
#pragma once

#define LIMIT_BODY_BYTES      (8u << 20) /* a request body; base64 images fit */
#define LIMIT_JSON_DEPTH      64u        /* jansson recurses: 305 B of stack a level to print */
#define LIMIT_BATCH           1000u
#define LIMIT_WAIT_MS         25000u /* under the smallest time-out of the web servers (h2o: 30 s) */
#define LIMIT_STREAMS         10000u /* SSE streams a process */
#define LIMIT_PROMPT_BYTES    (1u << 20)
#define LIMIT_QUEUE           1000000u
#define LIMIT_FIBERS          20000u       /* two mappings each; vm.max_map_count is 65530 */
#define LIMIT_MEMORY_BYTES    (1ull << 30) /* documents in a process */
#define LIMIT_OUTPUT_BYTES    (1u << 20)   /* a stage's output */
#define LIMIT_JOB_BYTES       (16u << 20)  /* input and outputs of a job */
#define LIMIT_EVENT_BYTES     (16u << 10)
#define LIMIT_LOG_LINE        8192u
#define LIMIT_STAGES          256u /* stages of a pipeline: bits of one Lua reply, and a person's eye */
#define LIMIT_PIPELINE_BYTES  (4u << 20) /* a pipeline file with its prompt files inlined */
#define LIMIT_CONFIG_BYTES    (4u << 20)
#define LIMIT_RULE_BYTES      (64u << 20) /* all files of one rule source */
#define LIMIT_ANCESTORS       16u         /* nesting of calls */
#define LIMIT_SCRIPT_ITEMS    200u        /* items a Lua script touches */
#define LIMIT_FRONT_THREADS   64u
#define LIMIT_PARAMS_BYTES    (64u << 10) /* FastCGI parameters of a request */
#define LIMIT_REQUEST_MS      10000u      /* reading a request: this and 1 s per MiB */
#define LIMIT_IDEMPOTENCY_KEY 255u
#define LIMIT_METADATA        16u
#define LIMIT_HTTP_HEADERS    (64u << 10) /* of a reply that we fetch */
#define LIMIT_HTTP_HANDLES    32u /* curl multi handles: cost per transfer grows with those in one */
#define LIMIT_PROGRESS_EVENTS 1000u        /* numbered progress events a job */
#define LIMIT_STACK_BYTES     (256u << 10) /* a fiber's stack; untouched pages cost nothing */
#define LIMIT_HOLD_MS         50u     /* the watchdog names a stage that holds the loop longer */
#define LIMIT_REPORT          200u    /* errors that one check keeps; more are only counted */
#define LIMIT_EXPR_BYTES      4096u   /* text of one expression */
#define LIMIT_EXPR_VALUES     100000u /* JSON values that jq takes in, or gives, at a time */
