/* See page.h. The page is plain memory on a memfd, so it lives as long as one process has it
 * mapped, and a child that dies in any way leaves what it had written for the master to read. */
#include "work/page.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_MAGIC 0x4d52504bu

static struct page *page_map(int fd)
{
    void *memory = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

int page_new(struct page **ret_page, int *ret_fd, struct error *err)
{
    int fd = memfd_create("millrace-page", 0);
    if (fd < 0 || ftruncate(fd, sizeof(struct page)) != 0) {
        int code =
            error_set(err, MR_E_INTERNAL, "cannot make the shared page: %s", strerror(errno));
        if (fd >= 0)
            close(fd);
        return code;
    }
    struct page *page = page_map(fd);
    if (!page) {
        int code = error_set(err, MR_E_INTERNAL, "cannot map the shared page: %s", strerror(errno));
        close(fd);
        return code;
    }
    page->magic = PAGE_MAGIC;
    page->slot_size = sizeof(struct page_slot);
    *ret_page = page;
    *ret_fd = fd;
    return MR_OK;
}

int page_open(int fd, struct page **ret_page, struct error *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || st.st_size != (off_t)sizeof(struct page))
        return error_set(err, MR_E_INTERNAL, "descriptor %d is not the shared page", fd);
    struct page *page = page_map(fd);
    if (!page)
        return error_set(err, MR_E_INTERNAL, "cannot map the shared page: %s", strerror(errno));
    if (page->magic != PAGE_MAGIC || page->slot_size != sizeof(struct page_slot)) {
        page_close(page);
        return error_set(err, MR_E_INTERNAL, "the shared page is of another version");
    }
    *ret_page = page;
    return MR_OK;
}

void page_close(struct page *page)
{
    if (page)
        munmap(page, sizeof *page);
}
