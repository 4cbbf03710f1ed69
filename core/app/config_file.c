/* The configuration's text: reading files, `include`, `${…}`, and the environment on top.
 *
 * Strings are expanded file by file, then files are merged (members of the including file stand,
 * objects are merged member by member), then the environment replaces scalars. Values are expanded
 * once: what a variable holds is not looked into again. No message shows a value. */
#include "app/config_file.h"

#include "base/file.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/utf8.h"
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define INCLUDE_DEPTH 8u
#define VALUE_BYTES   (64u << 10) /* a file that is a value */

extern char **environ;

struct reader {
    struct report *report;
    json_t *used; /* names of variables that strings refer to */
    unsigned depth;
};

/* One file while its strings are expanded. */
struct file {
    struct reader *reader;
    const char *path, *dir;
    struct buf pointer;
};

static char *resolve(const char *dir, const char *path)
{
    return path[0] == '/' ? mem_dup(path) : mem_format("%s/%s", dir, path);
}

/* Expansion */

__attribute__((format(printf, 2, 3))) static struct error *fault(struct file *file,
                                                                 const char *format, ...)
{
    char message[300];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    return report_add(file->reader->report, file->path, buf_text(&file->pointer), "%s", message);
}

static bool is_variable(const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)name[i]) && name[i] != '_')
            return false;
    return len > 0 && !isdigit((unsigned char)name[0]);
}

static bool expand_file(struct file *file, const char *name, struct buf *out)
{
    mem_auto char *path = resolve(file->dir, name);
    struct error why = {0};
    size_t len = 0;
    mem_auto char *text = file_read(path, VALUE_BYTES, &len, &why);
    if (text == NULL) {
        report_add(file->reader->report, file->path, buf_text(&file->pointer), "file %s %s", path,
                   why.message);
        return false;
    }
    /* A file that an editor or `echo` has written ends with a line end that is not meant. */
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        len--;
    if (memchr(text, '\0', len) != NULL || !utf8_is_valid(text, len)) {
        fault(file, "file %s is not UTF-8 text", path);
        return false;
    }
    return buf_add(out, text, len);
}

static bool expand_variable(struct file *file, const char *body, size_t len, struct buf *out)
{
    const char *otherwise = NULL;
    size_t name_len = len;
    for (size_t i = 0; i + 1 < len; i++) {
        if (body[i] == ':' && body[i + 1] == '-') {
            otherwise = body + i + 2;
            name_len = i;
            break;
        }
    }
    mem_auto char *name = mem_ndup(body, name_len);
    if (!is_variable(name, name_len)) {
        error_hint(fault(file, "\"${%s}\" is not a variable", name),
                   "${VAR}, ${VAR:-default} or ${file:PATH}; $${ stands for ${ itself");
        return false;
    }
    json_object_set_new(file->reader->used, name, json_true());
    const char *value = getenv(name);
    if (value != NULL && (value[0] != '\0' || otherwise == NULL)) {
        if (!utf8_is_valid(value, strlen(value))) {
            fault(file, "the environment variable %s is not UTF-8 text", name);
            return false;
        }
        return buf_add_text(out, value);
    }
    if (otherwise != NULL)
        return buf_add(out, otherwise, len - name_len - 2);
    error_hint(fault(file, "the environment variable %s is not set", name),
               "set it, or give a default: ${%s:-…}", name);
    return false;
}

/* The expanded string, new reference; NULL when it was reported. */
static json_t *expand(struct file *file, const char *text)
{
    struct buf out;
    buf_init(&out, LIMIT_CONFIG_BYTES);
    buf_add(&out, "", 0);
    bool fine = true;
    while (fine && *text != '\0') {
        const char *dollar = strstr(text, "${");
        if (dollar == NULL) {
            fine = buf_add_text(&out, text);
            break;
        }
        if (dollar > text && dollar[-1] == '$') {
            fine = buf_add(&out, text, (size_t)(dollar - text - 1)) && buf_add_text(&out, "${");
            text = dollar + 2;
            continue;
        }
        fine = buf_add(&out, text, (size_t)(dollar - text));
        const char *end = strchr(dollar, '}');
        if (end == NULL) {
            error_hint(fault(file, "\"${\" without \"}\""), "$${ stands for ${ itself");
            fine = false;
            break;
        }
        size_t len = (size_t)(end - dollar) - 2;
        mem_auto char *body = mem_ndup(dollar + 2, len);
        if (fine && strncmp(body, "file:", 5) == 0)
            fine = expand_file(file, body + 5, &out);
        else if (fine)
            fine = expand_variable(file, body, len, &out);
        text = end + 1;
    }
    json_t *value = fine ? json_stringn(buf_text(&out), out.len) : NULL;
    buf_done(&out);
    return value;
}

static void expand_all(struct file *file, json_t *value);

/* What is to stand in the place of a child; NULL: as it is. */
static json_t *expand_child(struct file *file, json_t *child)
{
    if (!json_is_string(child)) {
        expand_all(file, child);
        return NULL;
    }
    const char *text = json_string_value(child);
    return strstr(text, "${") != NULL ? expand(file, text) : NULL;
}

static void expand_all(struct file *file, json_t *value)
{
    size_t mark = file->pointer.len;
    const char *key;
    json_t *child;
    void *next;
    json_object_foreach_safe(value, next, key, child)
    {
        if (strncmp(key, "//", 2) == 0) {
            json_object_del(value, key);
            continue;
        }
        json_pointer_push(&file->pointer, key);
        json_t *expanded = expand_child(file, child);
        if (expanded != NULL)
            json_object_set_new(value, key, expanded);
        file->pointer.len = mark;
        if (file->pointer.data != NULL)
            file->pointer.data[mark] = '\0';
    }
    for (size_t i = 0; json_is_array(value) && i < json_array_size(value); i++) {
        json_pointer_push_index(&file->pointer, i);
        json_t *expanded = expand_child(file, json_array_get(value, i));
        if (expanded != NULL)
            json_array_set_new(value, i, expanded);
        file->pointer.len = mark;
        if (file->pointer.data != NULL)
            file->pointer.data[mark] = '\0';
    }
}

/* Files */

/* Adds what `from` has and `into` has not. */
static void merge(json_t *into, json_t *from)
{
    const char *key;
    json_t *value;
    json_object_foreach (from, key, value) {
        json_t *own = json_object_get(into, key);
        if (own == NULL)
            json_object_set(into, key, value);
        else if (json_is_object(own) && json_is_object(value))
            merge(own, value);
    }
}

static json_t *read_file(struct reader *reader, const char *path);

static void include(struct file *file, json_t *root, const json_t *name, const char *pointer)
{
    struct reader *reader = file->reader;
    if (!json_is_string(name)) {
        report_add(reader->report, file->path, pointer, "must be a path, or an array of paths");
        return;
    }
    if (reader->depth >= INCLUDE_DEPTH) {
        report_add(reader->report, file->path, pointer,
                   "files include one another more than %u deep", INCLUDE_DEPTH);
        return;
    }
    mem_auto char *path = resolve(file->dir, json_string_value(name));
    reader->depth++;
    json_hold json_t *other = read_file(reader, path);
    reader->depth--;
    if (other != NULL)
        merge(root, other);
}

static void include_all(struct file *file, json_t *root)
{
    json_hold json_t *names = json_incref(json_object_get(root, "include"));
    if (names == NULL)
        return;
    json_object_del(root, "include");
    if (!json_is_array(names)) {
        include(file, root, names, "/include");
        return;
    }
    /* A later file stands over an earlier one, and the including one over all. */
    for (size_t i = json_array_size(names); i-- > 0;) {
        mem_auto char *pointer = mem_format("/include/%zu", i);
        include(file, root, json_array_get(names, i), pointer);
    }
}

static json_t *read_file(struct reader *reader, const char *path)
{
    struct error why = {0};
    size_t len = 0;
    mem_auto char *text = file_read(path, LIMIT_CONFIG_BYTES, &len, &why);
    if (text == NULL) {
        report_add(reader->report, path, "", "%s", why.message);
        return NULL;
    }
    json_t *root = json_read(text, len, 0, &why);
    if (!json_is_object(root)) {
        struct error *err =
            report_add(reader->report, path, "", "%s",
                       root != NULL ? "a configuration is a JSON object" : why.message);
        if (why.hint[0] != '\0')
            error_hint(err, "%s", why.hint);
        json_decref(root);
        return NULL;
    }
    const char *slash = strrchr(path, '/');
    mem_auto char *dir = slash == NULL   ? mem_dup(".")
                         : slash == path ? mem_dup("/")
                                         : mem_ndup(path, (size_t)(slash - path));
    struct file file = {.reader = reader, .path = path, .dir = dir};
    buf_init(&file.pointer, 4096);
    expand_all(&file, root);
    buf_done(&file.pointer);
    include_all(&file, root);
    return root;
}

/* The environment */

#define PREFIX    "MILLRACE_"
#define PARTS_MAX 4u

static json_t *list_of(const char *text)
{
    json_t *list = json_array();
    while (*text != '\0') {
        size_t len = strcspn(text, ",");
        size_t from = 0, to = len;
        while (from < to && text[from] == ' ')
            from++;
        while (to > from && text[to - 1] == ' ')
            to--;
        json_array_append_new(list, json_stringn(text + from, to - from));
        text += len;
        text += *text == ',';
    }
    return list;
}

/* The value that a text means for a key; NULL: not UTF-8. */
static json_t *value_of(enum config_kind kind, const char *text)
{
    bool json = kind == CONFIG_NUMBER || (kind == CONFIG_LIST && strchr("[{", text[0]) != NULL);
    json_t *value = json ? json_read(text, strlen(text), 0, NULL) : NULL;
    if (value != NULL)
        return value;
    if (!utf8_is_valid(text, strlen(text)))
        return NULL;
    return kind == CONFIG_LIST ? list_of(text) : json_string(text);
}

/* The member that a part of the name means: `my_model` may be `my-model` in the file. A name that
 * is not in the file (`named`: where names stand) has hyphens, since none has underscores. */
static void find_member(const json_t *object, char *part, bool named)
{
    const char *key;
    json_t *ignored;
    json_object_foreach ((json_t *)object, key, ignored) {
        mem_auto char *plain = mem_dup(key);
        for (char *c = plain; *c != '\0'; c++)
            *c = *c == '-' ? '_' : *c;
        if (strcmp(plain, part) == 0) {
            memcpy(part, key, strlen(part));
            return;
        }
    }
    for (char *c = part; named && *c != '\0'; c++)
        *c = *c == '_' ? '-' : *c;
}

static void set_variable(struct reader *reader, json_t *root, config_kind_of *kind_of,
                         const char *name, const char *text)
{
    mem_auto char *copy = mem_dup(name + strlen(PREFIX));
    const char *path[PARTS_MAX + 1] = {0};
    size_t count = 0;
    for (char *c = copy; *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
    const json_t *at = root;
    for (char *part = copy; part != NULL && count < PARTS_MAX;) {
        char *end = strstr(part, "__");
        if (end != NULL)
            *end = '\0';
        bool named =
            count == 1 && (strcmp(path[0], "endpoints") == 0 || strcmp(path[0], "queues") == 0);
        find_member(at, part, named);
        path[count++] = part;
        at = json_object_get(at, part);
        part = end != NULL ? end + 2 : NULL;
    }
    enum config_kind kind = kind_of(path);
    if (kind == CONFIG_UNKNOWN || kind == CONFIG_SECTION) {
        if (json_object_get(reader->used, name) == NULL)
            error_hint(report_warn(reader->report, "environment", NULL,
                                   "%s names no key of the configuration", name),
                       "MILLRACE_SECTION__KEY, with two underscores after each section");
        return;
    }
    json_t *value = value_of(kind, text);
    if (value == NULL) {
        report_add(reader->report, "environment", NULL, "%s is not UTF-8 text", name);
        return;
    }
    json_t *object = root;
    for (size_t i = 0; i + 1 < count; i++) {
        json_t *inner = json_object_get(object, path[i]);
        if (!json_is_object(inner)) {
            inner = json_object();
            json_object_set_new(object, path[i], inner);
        }
        object = inner;
    }
    json_object_set_new(object, path[count - 1], value);
}

static void overlay(struct reader *reader, json_t *root, config_kind_of *kind_of)
{
    static const char *const other[] = {"MILLRACE_CONFIG", "MILLRACE_CHILD", NULL};
    for (char **entry = environ; entry != NULL && *entry != NULL; entry++) {
        const char *equals = strchr(*entry, '=');
        if (strncmp(*entry, PREFIX, strlen(PREFIX)) != 0 || equals == NULL || equals[1] == '\0')
            continue;
        mem_auto char *name = mem_ndup(*entry, (size_t)(equals - *entry));
        bool known = false;
        for (const char *const *word = other; *word != NULL; word++)
            known = known || strcmp(*word, name) == 0;
        if (!known)
            set_variable(reader, root, kind_of, name, equals + 1);
    }
}

json_t *config_file_read(const char *file, config_kind_of *kind_of, struct report *report)
{
    size_t before = report_errors(report);
    struct reader reader = {.report = report, .used = json_object()};
    json_t *root = file != NULL ? read_file(&reader, file) : json_object();
    if (root != NULL)
        overlay(&reader, root, kind_of);
    json_decref(reader.used);
    if (report_errors(report) == before)
        return root;
    json_decref(root);
    return NULL;
}
