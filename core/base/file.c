/* See file.h. */
#include "base/file.h"

#include "base/buf.h"
#include "base/mem.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_BLOCK 8192

char *file_read(const char *path, size_t max_bytes, size_t *ret_len, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        error_set(err, MR_E_SCHEMA, "cannot be opened: %s", strerror(errno));
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    if (S_ISDIR(st.st_mode)) {
        error_set(err, MR_E_SCHEMA, "is a folder");
        close(fd);
        return NULL;
    }
    struct buf buf;
    buf_init(&buf, max_bytes);
    buf_add(&buf, "", 0);
    char block[FILE_BLOCK];
    ssize_t got;
    while ((got = read(fd, block, sizeof block)) > 0 || (got < 0 && errno == EINTR))
        if (got > 0 && !buf_add(&buf, block, (size_t)got))
            break;
    int saved = errno;
    close(fd);
    if (got < 0 || buf.failed) {
        if (buf.failed)
            error_set(err, MR_E_SCHEMA, "has more than %zu bytes", max_bytes);
        else
            error_set(err, MR_E_SCHEMA, "cannot be read: %s", strerror(saved));
        buf_done(&buf);
        return NULL;
    }
    *ret_len = buf.len;
    char *text = buf_take(&buf);
    return text ? text : mem_dup("");
}

static int file_order(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool file_has(char **names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

char **file_names(const char *const *folders, const char *suffix,
                  bool (*wants)(void *arg, const char *folder, const char *name), void *arg)
{
    char **names = mem_zalloc(sizeof(char *));
    size_t count = 0, tail = strlen(suffix);
    for (const char *const *folder = folders; *folder; folder++) {
        DIR *dir = opendir(*folder);
        if (!dir)
            continue;
        for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
            size_t len = strlen(entry->d_name);
            if (len <= tail || strcmp(entry->d_name + len - tail, suffix) != 0)
                continue;
            mem_auto char *name = mem_ndup(entry->d_name, len - tail);
            if (file_has(names, count, name) || (wants && !wants(arg, *folder, name)))
                continue;
            names = mem_resize(names, count + 2, sizeof(char *));
            names[count++] = mem_dup(name);
            names[count] = NULL;
        }
        closedir(dir);
    }
    qsort(names, count, sizeof(char *), file_order);
    return names;
}
