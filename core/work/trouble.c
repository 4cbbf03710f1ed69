/* Trouble of the whole worker, mostly Redis's: each kind is told once, and while it lasts every ten
 * seconds, with how often it came meanwhile. */
#include "work/work.h"

void worker_trouble(struct worker *worker, enum trouble kind, const char *what,
                    const struct error *err)
{
    char times[24];
    if (log_pace(&worker->trouble[kind], times))
        log_error(what, err, "times", times[0] ? times : NULL, NULL);
}
