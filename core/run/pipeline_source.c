/* A pipeline file to its source: the text that is stored, sent and hashed.
 *
 * The file is read whole, parsed, and every `{"file": "PATH"}` that stands where options and
 * templates may stand is replaced by the text of that file, as it is. What comes out is compact
 * JSON with the members in the order of the file (the order of a JSON Schema's properties means
 * something to a model), so that spaces and line ends of the file do not make another revision. */
#include "base/file.h"
#include "base/limits.h"
#include "base/utf8.h"
#include "run/pipeline.h"
#include "run/pipeline_inner.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool pipeline_name_is_valid(const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || len > 64 || name[0] == '-')
        return false;
    return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

struct inliner {
    const char *file, *dir;
    struct report *report;
    struct buf pointer;
    size_t bytes; /* inlined so far */
};

static void pointer_cut(struct buf *pointer, size_t len)
{
    pointer->len = len;
    if (pointer->data != NULL)
        pointer->data[len] = '\0';
}

/* The path of `{"file": "PATH"}`, NULL for anything else. */
static const char *file_form(const json_t *value)
{
    if (!json_is_object(value) || json_object_size(value) != 1)
        return NULL;
    return json_string_value(json_object_get(value, "file"));
}

/* The string that stands for a file, new reference; NULL when it was reported. */
static json_t *file_text(struct inliner *in, const char *name)
{
    mem_auto char *path = name[0] == '/' ? mem_dup(name) : mem_format("%s/%s", in->dir, name);
    struct error why = {0};
    size_t len = 0;
    mem_auto char *text = file_read(path, LIMIT_PIPELINE_BYTES - in->bytes, &len, &why);
    if (text == NULL) {
        struct error *err = report_add(in->report, in->file, buf_text(&in->pointer),
                                       "file \"%s\" %s", name, why.message);
        error_hint(err, "paths are relative to the folder of the pipeline file, %s", in->dir);
        return NULL;
    }
    if (!utf8_is_valid(text, len) || memchr(text, '\0', len) != NULL) {
        report_add(in->report, in->file, buf_text(&in->pointer), "file \"%s\" is not UTF-8 text",
                   name);
        return NULL;
    }
    in->bytes += len;
    return json_stringn(text, len);
}

static void inline_files(struct inliner *in, json_t *value);

/* One member or element: gives what is to stand in its place, or NULL for "as it is". */
static json_t *inline_child(struct inliner *in, json_t *child)
{
    const char *name = file_form(child);
    if (name != NULL)
        return file_text(in, name);
    inline_files(in, child);
    return NULL;
}

static void inline_files(struct inliner *in, json_t *value)
{
    size_t mark = in->pointer.len;
    if (json_is_object(value)) {
        const char *key;
        json_t *child;
        void *next;
        json_object_foreach_safe(value, next, key, child)
        {
            json_pointer_push(&in->pointer, key);
            json_t *text = inline_child(in, child);
            if (text != NULL)
                json_object_set_new(value, key, text);
            pointer_cut(&in->pointer, mark);
        }
    } else if (json_is_array(value)) {
        for (size_t i = 0; i < json_array_size(value); i++) {
            json_pointer_push_index(&in->pointer, i);
            json_t *text = inline_child(in, json_array_get(value, i));
            if (text != NULL)
                json_array_set_new(value, i, text);
            pointer_cut(&in->pointer, mark);
        }
    }
}

/* Where the form counts: a stage's options, and what a pipeline has of templates. An input schema
 * or an `else` may well have a member "file" of its own. */
static void inline_root(struct inliner *in, json_t *root)
{
    static const char *const members[] = {"result", "tasks_input", "on_complete", "on_failure"};
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        json_t *child = json_object_get(root, members[i]);
        json_pointer_push(&in->pointer, members[i]);
        json_t *text = child != NULL ? inline_child(in, child) : NULL;
        if (text != NULL)
            json_object_set_new(root, members[i], text);
        pointer_cut(&in->pointer, 0);
    }
    const json_t *stages = json_object_get(root, "stages");
    for (size_t i = 0; i < json_array_size(stages); i++) {
        json_t *options = json_object_get(json_array_get(stages, i), "options");
        if (options == NULL)
            continue;
        buf_format(&in->pointer, "/stages/%zu/options", i);
        inline_files(in, options);
        pointer_cut(&in->pointer, 0);
    }
}

/* The name that a path gives, malloc'ed; NULL when it was reported. */
static char *name_of_path(const char *path, struct report *report)
{
    const char *base = strrchr(path, '/');
    base = base != NULL ? base + 1 : path;
    size_t len = strlen(base);
    if (len > 5 && strcmp(base + len - 5, ".json") == 0) {
        char *name = mem_ndup(base, len - 5);
        if (pipeline_name_is_valid(name))
            return name;
        free(name);
    }
    struct error *err = report_add(report, path, "", "is not the name of a pipeline file");
    error_hint(err, "NAME.json, with a name of a-z, 0-9 and -, at most 64 characters");
    return NULL;
}

static char *absolute_dir(const char *path)
{
    const char *slash = strrchr(path, '/');
    mem_auto char *dir = slash == NULL   ? mem_dup(".")
                         : slash == path ? mem_dup("/")
                                         : mem_ndup(path, (size_t)(slash - path));
    char *real = realpath(dir, NULL);
    return real != NULL ? real : mem_dup(dir);
}

static json_t *read_root(const char *path, struct report *report)
{
    struct error why = {0};
    size_t len = 0;
    mem_auto char *text = file_read(path, LIMIT_PIPELINE_BYTES, &len, &why);
    if (text == NULL) {
        report_add(report, path, "", "%s", why.message);
        return NULL;
    }
    json_t *root = json_read(text, len, 0, &why);
    if (root == NULL) {
        struct error *err = report_add(report, path, "", "%s", why.message);
        if (why.hint[0] != '\0')
            error_hint(err, "%s", why.hint);
        return NULL;
    }
    if (json_is_object(root))
        return root;
    report_add(report, path, "", "a pipeline is a JSON object");
    json_decref(root);
    return NULL;
}

struct pipeline_source *pipeline_read(const char *path, struct report *report)
{
    size_t before = report_errors(report);
    mem_auto char *name = name_of_path(path, report);
    if (name == NULL)
        return NULL;
    json_hold json_t *root = read_root(path, report);
    if (root == NULL)
        return NULL;
    mem_auto char *dir = absolute_dir(path);
    struct inliner in = {.file = path, .dir = dir, .report = report};
    buf_init(&in.pointer, 4096);
    inline_root(&in, root);
    buf_done(&in.pointer);

    const char *declared = json_string_value(json_object_get(root, "name"));
    if (declared != NULL && strcmp(declared, name) != 0) {
        struct error *err =
            report_add(report, path, "/name", "the name is \"%s\", but the file is called %s.json",
                       declared, name);
        error_hint(err, "they must be the same");
    }
    struct error why = {0};
    size_t len = 0;
    mem_auto char *text = json_print(root, LIMIT_PIPELINE_BYTES, &len, &why);
    if (text == NULL) {
        struct error *err = report_add(report, path, "", "%s with its files inlined", why.message);
        error_hint(err, "a pipeline has at most %u bytes, prompts included", LIMIT_PIPELINE_BYTES);
    }
    if (report_errors(report) > before)
        return NULL;
    return pipeline_source_new(name, path, dir, text, len);
}

struct pipeline_source *pipeline_source_new(const char *name, const char *file, const char *dir,
                                            const char *text, size_t len)
{
    struct pipeline_source *source = mem_zalloc(sizeof(*source));
    source->name = mem_dup(name);
    source->file = mem_dup(file != NULL ? file : name);
    source->dir = mem_dup(dir != NULL ? dir : ".");
    source->text = mem_ndup(text, len);
    source->len = len;
    hash_text(text, len, source->revision);
    return source;
}

void pipeline_source_free(struct pipeline_source *source)
{
    if (source == NULL)
        return;
    free(source->name);
    free(source->file);
    free(source->dir);
    free(source->text);
    free(source);
}
