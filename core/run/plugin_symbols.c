/* What a shared object exports: its dynamic symbol table, read from the file.
 *
 * The file is mapped and every offset is checked against its size; the format is that of elf(5)
 * (SHT_DYNSYM and the string table that its section links to). Nothing of the object is run. */
#include "run/plugin_symbols.h"

#include "base/buf.h"
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* `count` records of `size` bytes at `at`, or NULL when they are not wholly inside. */
static const void *inside(const char *file, size_t len, uint64_t at, uint64_t count, uint64_t size)
{
    uint64_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || at > len || bytes > len - at ||
        at % _Alignof(uint64_t) != 0)
        return NULL;
    return file + at;
}

static void list_symbols(const char *file, size_t len, struct buf *buf)
{
    const ElfW(Ehdr) *head = inside(file, len, 0, 1, sizeof(*head));
    if (head == NULL || memcmp(head->e_ident, ELFMAG, SELFMAG) != 0 ||
        head->e_ident[EI_CLASS] != (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32) ||
        head->e_shentsize != sizeof(ElfW(Shdr)))
        return;
    const ElfW(Shdr) *sections =
        inside(file, len, head->e_shoff, head->e_shnum, sizeof(ElfW(Shdr)));
    if (sections == NULL)
        return;
    for (size_t i = 0; i < head->e_shnum; i++) {
        const ElfW(Shdr) *section = &sections[i];
        if (section->sh_type != SHT_DYNSYM || section->sh_link >= head->e_shnum)
            continue;
        const ElfW(Shdr) *names = &sections[section->sh_link];
        const ElfW(Sym) *symbols = inside(file, len, section->sh_offset, section->sh_size, 1);
        if (symbols == NULL || names->sh_offset > len || names->sh_size > len - names->sh_offset)
            continue;
        const char *text = file + names->sh_offset;
        for (size_t n = 0; n < section->sh_size / sizeof(*symbols); n++) {
            const ElfW(Sym) *symbol = &symbols[n];
            size_t rest = symbol->st_name < names->sh_size ? names->sh_size - symbol->st_name : 0;
            if (symbol->st_shndx == SHN_UNDEF || symbol->st_name == 0 || rest == 0 ||
                memchr(text + symbol->st_name, '\0', rest) == NULL)
                continue;
            if (!buf_format(buf, "%s%s", buf->len > 0 ? ", " : "", text + symbol->st_name))
                return;
        }
    }
}

char *plugin_symbols(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    struct buf buf;
    buf_init(&buf, 400);
    if (fstat(fd, &st) == 0 && st.st_size > 0) {
        size_t len = (size_t)st.st_size;
        void *file = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);
        if (file != MAP_FAILED) {
            list_symbols(file, len, &buf);
            munmap(file, len);
        }
    }
    close(fd);
    if (buf.len == 0) {
        buf_done(&buf);
        return NULL;
    }
    /* A list that was cut at the bound is still of use. */
    buf.failed = false;
    return buf_take(&buf);
}
