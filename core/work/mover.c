/* The mover: wakes what is due (delays, retries, deadlines, reprocessing). Every worker has one; a
 * script wakes a member only if it is still there, so that many of them do no harm. */
#include "work/work.h"

#include "base/log.h"

#define MOVER_PAUSE_MS 1000u /* after an error */

void mover_fiber(void *arg)
{
    struct worker *worker = arg;
    while (scope_error(&worker->scope) == MR_OK) {
        uint64_t pause_ms = MOVER_PAUSE_MS;
        for (uint32_t partition = 0; partition < worker->store->partitions; partition++) {
            struct error err = {0};
            uint64_t sleep_ms = 0;
            uint32_t woken = 0;
            int rc = mover_turn(worker->store, partition, &sleep_ms, &woken, &err);
            if (rc == MR_OK && sleep_ms < pause_ms)
                pause_ms = sleep_ms;
            else if (rc != MR_OK && scope_error(&worker->scope) == MR_OK)
                worker_trouble(worker, TROUBLE_MOVER, "cannot look at what is due", &err);
        }
        /* A turn that found more than it may wake at once says 0: go on after the others. */
        if (pause_ms ? wait_sleep(&worker->loop, pause_ms) : wait_yield(&worker->loop))
            break;
    }
}
