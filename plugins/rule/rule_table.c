/* Rules in memory: files → a hash table of key → JSON text.
 *
 * A value stays the text that stands in the file: numbers keep their digits, and an answer needs no
 * printing. Files are parsed once by jansson, which refuses what is not JSON, duplicate keys and
 * bad UTF-8, after a scan that bounds the nesting; then the texts of the members are cut out by a
 * scanner that may rely on that. Everything lies in the bytes that were read and one array of
 * slots.
 *
 * This runs on pool threads and touches only what it is given. */
#include "rule.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SOURCE_MAX_BYTES (64u << 20) /* all files of a source */
#define DEPTH_MAX        64u
#define ENTRIES_MAX      (1u << 24)
/* A file that was written this recently may be written again within the same tick of its clock. */
#define SETTLED_NS 50000000

struct entry {
    char *key;
    const char *value; /* in a block */
    size_t key_len, value_len;
    uint32_t hash;
};

struct rule_table {
    struct entry *entries;
    size_t count, cap;
    uint32_t *slots; /* index + 1 into entries; 0: free. A power of two, at most half full */
    size_t slot_count;
    char **blocks; /* the bytes of the files */
    size_t block_count, bytes;
};

static void *grow(void *old, size_t count, size_t size)
{
    void *data = reallocarray(old, count, size);
    if (!data)
        abort();
    return data;
}

static uint32_t hash_of(const char *key, size_t len)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (unsigned char)key[i]) * 16777619u;
    return hash;
}

void rule_table_free(struct rule_table *table)
{
    if (!table)
        return;
    for (size_t i = 0; i < table->count; i++)
        free(table->entries[i].key);
    for (size_t i = 0; i < table->block_count; i++)
        free(table->blocks[i]);
    free(table->entries);
    free(table->slots);
    free(table->blocks);
    free(table);
}

size_t rule_table_count(const struct rule_table *table)
{
    return table->count;
}

const char *rule_table_find(const struct rule_table *table, const char *key, size_t len,
                            size_t *ret_len)
{
    uint32_t hash = hash_of(key, len);
    for (size_t at = hash & (table->slot_count - 1); table->slots[at];
         at = (at + 1) & (table->slot_count - 1)) {
        const struct entry *entry = &table->entries[table->slots[at] - 1];
        if (entry->hash == hash && entry->key_len == len && memcmp(entry->key, key, len) == 0) {
            *ret_len = entry->value_len;
            return entry->value;
        }
    }
    return NULL;
}

static void add_entry(struct rule_table *table, const char *key, size_t key_len, const char *value,
                      size_t value_len)
{
    if (table->count == table->cap) {
        table->cap = table->cap ? table->cap * 2 : 64;
        table->entries = grow(table->entries, table->cap, sizeof(*table->entries));
    }
    char *copy = grow(NULL, key_len + 1, 1);
    memcpy(copy, key, key_len);
    copy[key_len] = 0;
    table->entries[table->count++] =
        (struct entry){copy, value, key_len, value_len, hash_of(key, key_len)};
}

/* Builds the slots when all entries are there. */
static void index_entries(struct rule_table *table)
{
    table->slot_count = 16;
    while (table->slot_count < table->count * 2)
        table->slot_count *= 2;
    table->slots = calloc(table->slot_count, sizeof(*table->slots));
    if (!table->slots)
        abort();
    for (size_t i = 0; i < table->count; i++) {
        size_t at = table->entries[i].hash & (table->slot_count - 1);
        while (table->slots[at])
            at = (at + 1) & (table->slot_count - 1);
        table->slots[at] = (uint32_t)(i + 1);
    }
}

/* Text of a file that jansson has accepted */

static const char *skip_space(const char *at)
{
    return at + strspn(at, " \t\r\n");
}

static const char *skip_string(const char *at)
{
    for (at++; *at != '"'; at++)
        if (*at == '\\')
            at++;
    return at + 1;
}

/* The end of the value that begins at `at`. */
static const char *skip_value(const char *at)
{
    size_t depth = 0;
    for (;;) {
        if (*at == '"')
            at = skip_string(at);
        else if (*at == '{' || *at == '[')
            depth++, at++;
        else if (*at == '}' || *at == ']')
            depth--, at++;
        else if (depth == 0)
            return at + strcspn(at, ",}] \t\r\n");
        else
            at++;
        if (depth == 0)
            return at;
    }
}

/* Cuts the members out of an object's text; the keys come from the tree, in the same order. */
static void add_members(struct rule_table *table, const char *text, json_t *tree)
{
    const char *key;
    json_t *value;
    const char *at = skip_space(text) + 1;
    json_object_foreach (tree, key, value) {
        at = skip_string(skip_space(at));
        at = skip_space(skip_space(at) + 1);
        const char *end = skip_value(at);
        add_entry(table, key, strlen(key), at, (size_t)(end - at));
        at = skip_space(end) + 1;
    }
}

static int is_too_deep(const char *text)
{
    unsigned depth = 0;
    for (; *text; text++) {
        if (*text == '"') {
            for (text++; *text && *text != '"'; text++)
                if (*text == '\\' && text[1])
                    text++;
            if (!*text)
                return 0;
        } else if (*text == '{' || *text == '[') {
            if (++depth > DEPTH_MAX)
                return 1;
        } else if ((*text == '}' || *text == ']') && depth > 0)
            depth--;
    }
    return 0;
}

/* Files */

static void set_problem(struct rule_read *read, const char *path, const char *what)
{
    snprintf(read->problem, sizeof(read->problem), "%s: %s", path, what);
}

/* Reads a file whole into a block of the table. NULL with `problem`. */
static char *read_block(struct rule_table *table, struct rule_read *read, const char *path,
                        size_t *ret_len)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe would wait for a writer */
    if (fd < 0 || fstat(fd, &st) != 0) {
        set_problem(read, path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    if (!S_ISREG(st.st_mode) || st.st_size < 0 ||
        (uint64_t)st.st_size > SOURCE_MAX_BYTES - table->bytes) {
        set_problem(read, path,
                    S_ISREG(st.st_mode) ? "the source is larger than 64 MiB" : "is not a file");
        close(fd);
        return NULL;
    }
    size_t size = (size_t)st.st_size;
    char *data = grow(NULL, size + 1, 1);
    size_t len = 0;
    ssize_t n = 1;
    while (len < size && n > 0) {
        n = pread(fd, data + len, size - len, (off_t)len);
        if (n < 0 && errno == EINTR)
            n = 1;
        else if (n > 0)
            len += (size_t)n;
    }
    if (n < 0)
        set_problem(read, path, strerror(errno));
    close(fd);
    if (n < 0) {
        free(data);
        return NULL;
    }
    data[len] = 0;
    table->blocks = grow(table->blocks, table->block_count + 1, sizeof(*table->blocks));
    table->blocks[table->block_count++] = data;
    table->bytes += len;
    *ret_len = len;
    return data;
}

/* Adds a file: as the answer to `key`, or (key NULL) an object of answers. False with `problem`. */
static int add_file(struct rule_table *table, struct rule_read *read, const char *path,
                    const char *key, size_t key_len)
{
    size_t len = 0;
    json_error_t error;
    char *text = read_block(table, read, path, &len);
    if (!text)
        return 0;
    if (strlen(text) != len) {
        set_problem(read, path, "holds a NUL byte");
        return 0;
    }
    if (is_too_deep(text)) {
        set_problem(read, path, "is nested more than 64 deep");
        return 0;
    }
    json_t *tree = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (!tree) {
        char *near = strstr(error.text, " near '"); /* what the file holds is nobody's business */
        if (near)
            *near = 0;
        snprintf(read->problem, sizeof(read->problem), "%s: is not JSON at line %d column %d: %s",
                 path, error.line, error.column, error.text);
        return 0;
    }
    int is_right = key || json_is_object(tree);
    if (!is_right)
        set_problem(read, path, "is not a JSON object of key and answer");
    else if (key) {
        const char *begin = skip_space(text);
        add_entry(table, key, key_len, begin, (size_t)(skip_value(begin) - begin));
    } else
        add_members(table, text, tree);
    json_decref(tree);
    return is_right;
}

/* Whether a file of a folder is one of its answers: NAME.json, not hidden. */
static int is_answer(const char *name)
{
    size_t len = strlen(name);
    return name[0] != '.' && len > 5 && strcmp(name + len - 5, ".json") == 0;
}

/* Calls `fn` for the files of the source until it says no. False with `problem`. */
static int each_file(struct rule_read *read,
                     int (*fn)(void *arg, struct rule_read *read, const char *path,
                               const char *name),
                     void *arg)
{
    struct stat st;
    if (stat(read->source, &st) != 0) {
        set_problem(read, read->source, strerror(errno));
        return 0;
    }
    if (!S_ISDIR(st.st_mode))
        return fn(arg, read, read->source, NULL);
    DIR *dir = opendir(read->source);
    if (!dir) {
        set_problem(read, read->source, strerror(errno));
        return 0;
    }
    int go_on = 1;
    for (const struct dirent *file; go_on && (file = readdir(dir));) {
        char path[4096];
        if (!is_answer(file->d_name))
            continue;
        int n = snprintf(path, sizeof(path), "%s/%s", read->source, file->d_name);
        if (n > 0 && (size_t)n < sizeof(path))
            go_on = fn(arg, read, path, file->d_name);
    }
    closedir(dir);
    return go_on;
}

/* The fingerprint of a source: a sum over its files of a hash of name, inode, size and time, so the
 * order of the folder does not matter. */
enum { NO_FILES = 1, SOURCE_AWAY = 2 };
struct print {
    uint64_t sum;
    int64_t newest_ns;
};

static int add_print(void *arg, struct rule_read *read, const char *path, const char *name)
{
    struct print *print = arg;
    struct stat st;
    (void)read;
    if (stat(path, &st) != 0)
        return 1; /* gone since readdir: it counts as not there */
    int64_t ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    uint64_t parts[] = {(uint64_t)ns, (uint64_t)st.st_ino, (uint64_t)st.st_size,
                        name ? hash_of(name, strlen(name)) : 0};
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        for (int bit = 0; bit < 64; bit += 8)
            hash = (hash ^ (parts[i] >> bit & 0xff)) * 1099511628211u;
    print->sum += hash;
    if (ns > print->newest_ns)
        print->newest_ns = ns;
    return 1;
}

static int load_file(void *arg, struct rule_read *read, const char *path, const char *name)
{
    struct rule_table *table = arg;
    if (table->count >= ENTRIES_MAX) {
        set_problem(read, path, "the source has more than 16 million answers");
        return 0;
    }
    return add_file(table, read, path, name, name ? strlen(name) - 5 : 0);
}

void rule_read(void *arg)
{
    struct rule_read *read = arg;
    struct print print = {NO_FILES, 0};
    struct timespec now;
    read->table = NULL;
    read->problem[0] = 0;
    if (!each_file(read, add_print, &print)) {
        /* A source that is away is a change of its own, told once. */
        if (read->seen == SOURCE_AWAY)
            read->problem[0] = 0;
        read->seen = SOURCE_AWAY;
        return;
    }
    if (print.sum == read->seen)
        return;
    struct rule_table *table = calloc(1, sizeof(*table));
    if (!table)
        abort();
    if (each_file(read, load_file, table)) {
        index_entries(table);
        read->table = table;
    } else
        rule_table_free(table);
    /* The fingerprint is from before the reading, so a change meanwhile is seen next time; one
     * that could hide in the same tick makes us look again. */
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t now_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    int settled = now_ns - print.newest_ns > SETTLED_NS;
    read->seen = settled || !read->table ? print.sum : 0;
}
