/* See bundle.h. On the memfd the bundle is one JSON object: `config`, and `pipelines`, an array of
 * objects with the members of struct pipeline_source; a pipeline's text is a string in it, so that
 * its bytes, and with them the revision, stay what they were. */
#include "app/bundle.h"

#include "base/limits.h"
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUNDLE_BYTES (64u << 20) /* pipelines of an installation, prompts inlined */

bool bundle_read(const struct config *config, struct bundle *ret_bundle, struct report *report)
{
    size_t before = report_errors(report), count = 0;
    char **names = config_pipeline_names(config);
    while (names[count])
        count++;
    struct bundle bundle = {.sources = mem_zalloc((count + 1) * sizeof *bundle.sources)};
    for (size_t i = 0; i < count; i++) {
        mem_auto char *path = config_pipeline_file(config, names[i]);
        struct pipeline_source *source = path ? pipeline_read(path, report) : NULL;
        if (source)
            bundle.sources[bundle.count++] = source;
        free(names[i]);
    }
    free(names);
    *ret_bundle = bundle;
    return report_errors(report) == before;
}

int bundle_file(int *ret_fd, struct error *err)
{
    int fd = memfd_create("millrace-bundle", MFD_CLOEXEC);
    if (fd < 0)
        return error_set(err, MR_E_INTERNAL, "cannot make a file for the pipelines: %s",
                         strerror(errno));
    *ret_fd = fd;
    return MR_OK;
}

int bundle_write(const struct bundle *bundle, int fd, struct error *err)
{
    json_t *list = json_array();
    json_hold json_t *all = json_pack("{s:O*, s:O*, s:o}", "config", bundle->config, "plugins",
                                      bundle->plugins, "pipelines", list);
    for (size_t i = 0; i < bundle->count; i++) {
        const struct pipeline_source *source = bundle->sources[i];
        json_t *item =
            json_pack("{s:s, s:s, s:s, s:s%}", "name", source->name, "file", source->file, "dir",
                      source->dir, "text", source->text, source->len);
        if (!item || json_array_append_new(list, item) != 0)
            return error_set(err, MR_E_INTERNAL, "pipeline %s cannot be handed over: not UTF-8",
                             source->name);
    }
    size_t len = 0;
    mem_auto char *text = json_print(all, BUNDLE_BYTES, &len, err);
    if (!text)
        return err ? err->code : MR_E_INTERNAL;
    if (ftruncate(fd, 0) != 0 || lseek(fd, 0, SEEK_SET) != 0)
        return error_set(err, MR_E_INTERNAL, "cannot write the pipelines: %s", strerror(errno));
    for (size_t done = 0; done < len;) {
        ssize_t n = write(fd, text + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set(err, MR_E_INTERNAL, "cannot write the pipelines: %s", strerror(errno));
        done += (size_t)n;
    }
    return MR_OK;
}

static int bundle_read_text(int fd, char **ret_text, size_t *ret_len, struct error *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || st.st_size <= 0 || st.st_size > BUNDLE_BYTES)
        return error_set(err, MR_E_INTERNAL, "descriptor %d does not hold the pipelines", fd);
    size_t len = (size_t)st.st_size;
    mem_auto char *text = mem_alloc(len + 1);
    for (size_t done = 0; done < len;) {
        ssize_t n = pread(fd, text + done, len - done, (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set(err, MR_E_INTERNAL, "cannot read the pipelines: %s",
                             n ? strerror(errno) : "cut short");
        done += (size_t)n;
    }
    text[len] = '\0';
    *ret_text = text;
    *ret_len = len;
    text = NULL;
    return MR_OK;
}

int bundle_load(int fd, struct bundle *ret_bundle, struct error *err)
{
    mem_auto char *text = NULL;
    size_t len = 0;
    int rc = bundle_read_text(fd, &text, &len, err);
    if (rc != MR_OK)
        return rc;
    json_hold json_t *all = json_read(text, len, 0, err);
    const json_t *list = json_object_get(all, "pipelines");
    if (!json_is_array(list))
        return error_set(err, MR_E_INTERNAL, "descriptor %d does not hold the pipelines", fd);
    struct bundle bundle = {.config = json_incref(json_object_get(all, "config")),
                            .plugins = json_incref(json_object_get(all, "plugins")),
                            .sources =
                                mem_zalloc((json_array_size(list) + 1) * sizeof *bundle.sources)};
    size_t i;
    json_t *item;
    json_array_foreach (list, i, item) {
        json_t *body = json_object_get(item, "text");
        bundle.sources[bundle.count++] = pipeline_source_new(
            json_text_or(item, "name", ""), json_text_or(item, "file", ""),
            json_text_or(item, "dir", "."), json_string_value(body), json_string_length(body));
    }
    *ret_bundle = bundle;
    return MR_OK;
}

void bundle_done(struct bundle *bundle)
{
    for (size_t i = 0; i < bundle->count; i++)
        pipeline_source_free(bundle->sources[i]);
    free(bundle->sources);
    json_decref(bundle->config);
    json_decref(bundle->plugins);
    *bundle = (struct bundle){0};
}

const struct pipeline_source *bundle_find(const struct bundle *bundle, const char *name)
{
    for (size_t i = 0; i < bundle->count; i++)
        if (strcmp(bundle->sources[i]->name, name) == 0)
            return bundle->sources[i];
    return NULL;
}
