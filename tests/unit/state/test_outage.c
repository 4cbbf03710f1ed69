/* Which trouble an error record or Redis's words mean.
 * Fails with: core/state/outage.c, outage_of_words: `at = NULL;` in place of the look behind ": ".
 */
#include "state/outage.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static enum outage of(const char *message)
{
    struct error err = {0};
    error_set(&err, MR_E_STORE, "%s", message);
    return outage_of(&err);
}

static void records(void **state)
{
    (void)state;
    assert_int_equal(of("Redis refused script submit: OOM allow-oom flag is not set on the script"),
                     OUTAGE_MEMORY);
    assert_int_equal(of("Redis refused SET: MISCONF Errors writing to the AOF file: No space left"),
                     OUTAGE_DISK);
    assert_int_equal(of("Redis refused SET: READONLY You can't write"), OUTAGE_READ_ONLY);
    assert_int_equal(of("Redis refused SET: NOREPLICAS Not enough good replicas to write."),
                     OUTAGE_REPLICAS);
    assert_int_equal(of("Redis refused SET: NOPERM this user"), OUTAGE_ACCESS);
    assert_int_equal(of("Redis refused SET: ERR something"), OUTAGE_REFUSED);
    assert_int_equal(of("Redis at h:1 does not answer"), OUTAGE_AWAY);
    assert_int_equal(of("this Redis is a replica of h:1 and takes no writes"), OUTAGE_READ_ONLY);
}

static void words(void **state)
{
    (void)state;
    assert_int_equal(outage_of_words("WRONGPASS invalid username", OUTAGE_AWAY), OUTAGE_ACCESS);
    assert_int_equal(outage_of_words("10.0.0.1:6379: LOADING Redis is loading", OUTAGE_AWAY),
                     OUTAGE_LOADING);
    assert_int_equal(outage_of_words("Connection refused", OUTAGE_AWAY), OUTAGE_AWAY);
    assert_int_equal(outage_of_words("OOMPH", OUTAGE_AWAY), OUTAGE_AWAY);
    assert_int_equal(outage_of_words("", OUTAGE_AWAY), OUTAGE_AWAY);
    for (int outage = OUTAGE_AWAY; outage <= OUTAGE_REFUSED; outage++)
        assert_true(outage_title((enum outage)outage)[0] &&
                    outage_sentence((enum outage)outage)[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(records), cmocka_unit_test(words)};
    return cmocka_run_group_tests_name("outage", tests, NULL, NULL);
}
