/* Rate limits: spacing, windows, tokens, calls in flight, and what a lost reply or a dead worker
 * does to them. */
#include "fixture.h"
#include "state/limit.h"

static uint64_t names;

static enum limit_outcome take(const struct limit_rule *rule, uint32_t tokens, uint64_t wait_max_ms,
                               uint64_t *ret_wait_ms)
{
    char holder[32];
    enum limit_outcome outcome;
    snprintf(holder, sizeof(holder), "call-%" PRIu64, ++names);
    OK(limit_take(store, rule, holder, tokens, 1000, wait_max_ms, &outcome, ret_wait_ms, &err));
    return outcome;
}

static void spacing(void)
{
    struct limit_rule rule = {.name = "model", .rpm = 600}; /* one each 100 ms */
    uint64_t wait, last = 0;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(take(&rule, 0, 60000, &wait), LIMIT_TAKEN);
        /* Booked ahead, 100 ms after the one before, less what has passed since. */
        assert_in_range(wait, i ? last + 60 : 0, last + 101);
        last = wait;
    }
    assert_int_equal(take(&rule, 0, 500, &wait), LIMIT_LATER); /* too far: nothing is booked */
    uint64_t again;
    assert_int_equal(take(&rule, 0, 500, &again), LIMIT_LATER);
    assert_true(again <= wait);
    struct limit_rule other = {.name = "other", .rpm = 600};
    assert_int_equal(take(&other, 0, 0, &wait), LIMIT_TAKEN);
}
ON_FIBER(spacing)

/* Whatever the burst, no 60 s hold more than rpm. */
static void windows(void)
{
    for (uint32_t burst = 1; burst <= 12; burst++) {
        char name[16];
        snprintf(name, sizeof(name), "burst-%u", burst);
        struct limit_rule rule = {.name = name, .rpm = 10, .burst = burst};
        uint64_t waits[30], first_at = clock_now_ms();
        for (int i = 0; i < 30; i++) {
            assert_int_equal(take(&rule, 0, 1000000, &waits[i]), LIMIT_TAKEN);
            waits[i] += clock_now_ms() - first_at;
        }
        unsigned at_once = 0;
        for (int i = 0; i < 30; i++)
            at_once += waits[i] < 1000;
        assert_int_equal(at_once, burst < 10 ? burst : 10);
        for (int i = 0; i + 10 < 30; i++) /* the eleventh comes a minute after the first */
            assert_true(waits[i + 10] + 5 - waits[i] >= 60000);
    }
}
ON_FIBER(windows)

static void tokens(void)
{
    struct limit_rule rule = {.name = "model", .tpm = 60000}; /* one a millisecond */
    uint64_t wait;
    assert_int_equal(take(&rule, 500, 0, &wait), LIMIT_TAKEN);
    assert_int_equal(take(&rule, 500, 100, &wait), LIMIT_LATER);
    assert_in_range(wait, 300, 501);
    char holder[32];
    snprintf(holder, sizeof(holder), "call-%" PRIu64, names - 1);
    OK(limit_release(store, &rule, holder, 1000, &err)); /* it used more than was thought */
    OK(limit_release(store, &rule, holder, 1000, &err)); /* and is settled once */
    assert_int_equal(take(&rule, 500, 100, &wait), LIMIT_LATER);
    assert_in_range(wait, 1200, 1501);
}
ON_FIBER(tokens)

static void in_flight(void)
{
    struct limit_rule rule = {.name = "model", .max_in_flight = 2};
    enum limit_outcome outcome;
    uint64_t wait;
    OK(limit_take(store, &rule, "one", 0, 60000, 0, &outcome, &wait, &err));
    assert_int_equal(outcome, LIMIT_TAKEN);
    OK(limit_take(store, &rule, "one", 0, 60000, 0, &outcome, &wait, &err)); /* reply lost */
    assert_int_equal(outcome, LIMIT_TAKEN);
    OK(limit_take(store, &rule, "two", 0, 60, 0, &outcome, &wait, &err));
    assert_int_equal(outcome, LIMIT_TAKEN);
    OK(limit_take(store, &rule, "three", 0, 60000, 0, &outcome, &wait, &err));
    assert_int_equal(outcome, LIMIT_LATER);
    assert_true(wait > 0);
    OK(limit_release(store, &rule, "one", 0, &err));
    OK(limit_take(store, &rule, "three", 0, 60000, 0, &outcome, &wait, &err));
    assert_int_equal(outcome, LIMIT_TAKEN);
    /* The worker of "two" has died: it leaves by itself. */
    for (uint64_t stop = clock_now_ms() + 5000; clock_now_ms() < stop;) {
        OK(limit_take(store, &rule, "four", 0, 60000, 0, &outcome, &wait, &err));
        if (outcome == LIMIT_TAKEN)
            break;
        assert_int_equal(wait_sleep(&loop, 10), MR_OK);
    }
    assert_int_equal(outcome, LIMIT_TAKEN);
}
ON_FIBER(in_flight)

static void cooling(void)
{
    struct limit_rule rule = {.name = "model", .rpm = 60000};
    uint64_t wait;
    assert_int_equal(take(&rule, 0, 0, &wait), LIMIT_TAKEN);
    OK(limit_cool(store, &rule, 5000, &err));
    OK(limit_cool(store, &rule, 10, &err)); /* a shorter one changes nothing */
    assert_int_equal(take(&rule, 0, 100, &wait), LIMIT_LATER);
    assert_in_range(wait, 4000, 5001);
    assert_int_equal(take(&rule, 0, 6000, &wait), LIMIT_TAKEN);
}
ON_FIBER(cooling)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(spacing), CASE(windows), CASE(tokens), CASE(in_flight), CASE(cooling),
    };
    return cmocka_run_group_tests_name("limit", tests, fixture_server, fixture_server_end);
}
