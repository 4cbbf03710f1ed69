/* The shared page: one fixed slot a child, mapped by the master and by its children from a memfd.
 *
 * A child writes only its own slot, the master writes a slot only while no child lives in it. What
 * the master leaves there tells the next child of the slot how the last one ended: which instance
 * was reaped, and whom to charge for the crash. */
#pragma once

#include "base/error.h"
#include "loop/watchdog.h"

#define PAGE_SLOTS    130 /* a front and up to 64 workers, twice: a reload starts new ones first */
#define PAGE_INSTANCE 40
#define PAGE_NAME     160

struct page_slot {
    struct watchdog_mark mark; /* what the loop runs now */
    _Atomic uint32_t ready;    /* the child serves */
    _Atomic uint32_t draining;
    _Atomic uint64_t running; /* jobs in flight in a worker, requests in the front */
    _Atomic uint64_t served;  /* lanes or requests ended since the child began */
    /* Of the child that lives here, once it is registered: random for each process start, and the
     * name it got. */
    char instance[PAGE_INSTANCE], name[PAGE_NAME];
    /* Written by the master before it starts a child. */
    char reaped[PAGE_INSTANCE]; /* the instance that died here before, surely dead; "" none */
    char reaped_name[PAGE_NAME];
    int32_t reaped_signal;
    char culprit_job[40], culprit_stage[WATCHDOG_TEXT], culprit_plugin[WATCHDOG_TEXT];
};

struct page {
    uint32_t magic, slot_size;
    struct page_slot slots[PAGE_SLOTS];
};

/* Makes a page on a new memfd (close-on-exec off). MR_E_INTERNAL when the kernel refuses. */
int page_new(struct page **ret_page, int *ret_fd, struct error *err);
/* Maps the page behind a file descriptor that was inherited; checks magic and size. */
int page_open(int fd, struct page **ret_page, struct error *err);
void page_close(struct page *page);
