/* See stdio.h. open() gives the lowest free number: as long as it is one of the three it was free,
 * and stays with /dev/null. */
#include "app/stdio.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool stdio_fill(void)
{
    int fd;
    do {
        fd = open("/dev/null", O_RDWR); /* not close-on-exec: for children too */
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
    return fd >= 0;
}

bool stdio_flush(void)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return true;
    /* A failure of an earlier flush left its reason nowhere. */
    fprintf(stderr, "millrace: writing to stdout failed%s%s\n", errno != 0 ? ": " : "",
            errno != 0 ? strerror(errno) : "");
    return false;
}
