/* What a four-stage job costs Redis: submit, begin, four commits, and claiming, by many fibers at
 * once. Prints figures only; nothing here passes or fails.
 *
 *     bench_state [JOBS] [FIBERS]
 */
#include "base/clock.h"
#include "redis_server.h"
#include "state/job.h"
#include "state/lane.h"
#include <inttypes.h>

static struct loop loop;
static struct redis_server server;
static struct redis *redis;
static struct store *store;
static long jobs = 20000, fibers = 200, submitted, ended;

static void must(int rc, const struct error *err)
{
    if (rc != MR_OK) {
        fprintf(stderr, "%s (%s)\n", err->message, err->detail);
        exit(1);
    }
}

static void submit_some(void *arg)
{
    (void)arg;
    static const struct job_first first = {"vision", "default"};
    static const char input[] = "{\"user_id\":\"user-1234\",\"image_url\":"
                                "\"https://images.example.com/0123456789abcdef.jpg\"}";
    struct error err = {0};
    while (submitted < jobs) {
        char id[ID_BYTES];
        snprintf(id, sizeof(id), "%08lx-0000-5000-8000-000000000000", submitted++);
        struct job_submit job = {.id = id,
                                 .pipeline = "waste-sorting",
                                 .digest =
                                     "0123456789abcdef0123456789abcdef0123456789abcdef0123456789"
                                     "abcdef",
                                 .input = input,
                                 .input_len = sizeof(input) - 1,
                                 .req = id,
                                 .prio = QUEUE_NORMAL,
                                 .first = &first,
                                 .first_count = 1,
                                 .queue_max = 100000000};
        struct job_submitted ret;
        must(job_submit(store, &job, &ret, &err), &err);
    }
}

static void run_some(void *arg)
{
    (void)arg;
    static const char *const stages[] = {"vision", "rule", "answer", "reward"};
    static const char output[] = "{\"major\":\"plastic\",\"middle\":\"bottle\",\"confidence\":0.93,"
                                 "\"text\":\"two hundred bytes of an answer, more or less, so that "
                                 "there is something to store and to send\"}";
    struct lane_stream stream = {0, "default", QUEUE_NORMAL};
    struct lane_begin begin = {.revision =
                                   "0123456789abcdef0123456789abcdef0123456789abcdef01234567"
                                   "89abcdef"};
    struct error err = {0};
    while (ended < jobs) {
        struct lane lanes[4];
        size_t count;
        must(lane_claim(store, redis, &stream, 1, 4, 0, lanes, &count, &err), &err);
        if (count == 0)
            return;
        for (size_t i = 0; i < count; i++) {
            struct lane_grant grant;
            must(lane_begin(store, &lanes[i], &begin, &grant, &err), &err);
            lane_grant_done(&grant);
            for (uint32_t s = 0; s < 4; s++) {
                const char *needs[] = {stages[s]};
                struct lane_successor successor = {s < 3 ? stages[s + 1] : "", "default", needs, 1};
                struct lane_commit commit = {.stage = stages[s],
                                             .output = output,
                                             .output_len = sizeof(output) - 1,
                                             .successors = &successor,
                                             .successor_count = s < 3,
                                             .total = 4,
                                             .known = s + 1,
                                             .result = s == 3 ? output : NULL,
                                             .result_len = sizeof(output) - 1};
                struct lane_next next;
                must(lane_commit(store, &lanes[i], &commit, &next, &err), &err);
                lane_next_done(&next);
            }
            ended++;
        }
    }
}

static double cpu_seconds(void)
{
    char info[4096];
    redis_server_ask(&server, "INFO cpu", info, sizeof(info));
    double sum = 0;
    static const char *const names[] = {"used_cpu_sys_main_thread:", "used_cpu_user_main_thread:"};
    for (int i = 0; i < 2; i++) {
        const char *at = strstr(info, names[i]);
        if (at)
            sum += strtod(at + strlen(names[i]), NULL);
    }
    return sum;
}

/* Microseconds inside scripts, and how many there were. */
static void script_time(double *ret_us, double *ret_calls)
{
    char info[16384];
    redis_server_ask(&server, "INFO commandstats", info, sizeof(info));
    const char *at = strstr(info, "cmdstat_evalsha:calls=");
    *ret_us = *ret_calls = 0;
    if (at) {
        *ret_calls = strtod(at + 22, NULL);
        at = strstr(at, "usec=");
        if (at)
            *ret_us = strtod(at + 5, NULL);
    }
}

static void phase(const char *name, void (*fn)(void *arg))
{
    double us0, us1, calls0, calls1, cpu0 = cpu_seconds();
    script_time(&us0, &calls0);
    uint64_t begin_us = clock_now_us();
    for (long i = 0; i < fibers; i++)
        if (loop_spawn(&loop, NULL, fn, NULL) != MR_OK)
            exit(1);
    loop_run_fibers(&loop);
    double seconds = (double)(clock_now_us() - begin_us) / 1e6, cpu1 = cpu_seconds();
    script_time(&us1, &calls1);
    printf("%-8s %9.0f jobs/s  %6.1f us of Redis CPU a job  %6.1f us in scripts a job  %5.2f us a "
           "script\n",
           name, (double)jobs / seconds, (cpu1 - cpu0) * 1e6 / (double)jobs,
           (us1 - us0) / (double)jobs, (us1 - us0) / (calls1 - calls0));
}

int main(int argc, char **argv)
{
    if (argc > 1)
        jobs = strtol(argv[1], NULL, 10);
    if (argc > 2)
        fibers = strtol(argv[2], NULL, 10);
    struct error err = {0};
    redis_server_start(&server);
    must(loop_init(&loop, &err), &err);
    struct redis_config at = {.path = server.path};
    redis = redis_open(&loop, &at, "bench");
    struct store_config config = {.loop = &loop, .redis = redis};
    must(store_open(&config, &store, &err), &err);
    store->worker = strdup("bench/w1");
    phase("submit", submit_some);
    phase("run", run_some);
    char info[4096];
    redis_server_ask(&server, "INFO memory", info, sizeof(info));
    const char *used = strstr(info, "used_memory:");
    printf("memory   %9.0f bytes a completed job\n",
           used ? strtod(used + 12, NULL) / (double)jobs : 0.0);
    store_close(store);
    redis_close(redis);
    loop_done(&loop);
    redis_server_stop(&server);
    fiber_trim();
    return 0;
}
