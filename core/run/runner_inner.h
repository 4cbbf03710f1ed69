/* What the files of the runner share. */
#pragma once

#include "run/instance.h"

struct batch;

struct runner_private {
    struct instance *instances;
    struct batch *batches;
    struct group helpers; /* fibers that open instances and handle batches */
};
