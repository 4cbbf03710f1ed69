/* Plugins: the registry, and every check between a file and a descriptor that may be used.
 *
 * A plugin is code that runs with our rights, so nothing of a file is loaded before its owner, mode
 * and folder have been looked at. dlopen then gets a path inside a folder in which nobody else can
 * exchange files. The descriptor is copied field by field as far as both sides know it; its option
 * rows stay where they are and are stepped through by the row size of the plugin's build. Loaded
 * plugins stay loaded until the process ends: fibers may have frames in them, and sanitizers want
 * the symbols. */
#include "run/plugin.h"

#include "base/file.h"
#include "base/mem.h"
#include "run/plugin_symbols.h"
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PLUGIN_NAME_MAX     48u
#define PLUGIN_OPTIONS_MAX  256u
#define PLUGIN_SETTINGS_MAX (1u << 20)

struct plugin_registry {
    char **folders; /* NULL-ended */
    struct plugin **items;
    size_t count;
};

struct plugin_registry *plugin_registry_new(const char *const *folders)
{
    struct plugin_registry *registry = mem_zalloc(sizeof(*registry));
    size_t count = 0;
    while (folders != NULL && folders[count] != NULL)
        count++;
    registry->folders = mem_zalloc((count + 1) * sizeof(char *));
    for (size_t i = 0; i < count; i++)
        registry->folders[i] = mem_dup(folders[i]);
    return registry;
}

static void plugin_free(struct plugin *plugin)
{
    free(plugin->name);
    free(plugin->path);
    free(plugin);
}

void plugin_registry_free(struct plugin_registry *registry)
{
    if (registry == NULL)
        return;
    for (size_t i = 0; i < registry->count; i++)
        plugin_free(registry->items[i]);
    free(registry->items);
    for (size_t i = 0; registry->folders[i] != NULL; i++)
        free(registry->folders[i]);
    free(registry->folders);
    free(registry);
}

/* A plugin's name is a part of a C symbol and of a path. */
static bool name_is_valid(const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || len > PLUGIN_NAME_MAX)
        return false;
    return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == len;
}

static bool is_plugin(void *arg, const char *folder, const char *name)
{
    (void)arg;
    (void)folder;
    return name_is_valid(name);
}

char **plugin_names(struct plugin_registry *registry)
{
    return file_names((const char *const *)registry->folders, ".so", is_plugin, NULL);
}

/* The hint for a name that is not there: the nearest one, or all. */
static void hint_names(struct plugin_registry *registry, const char *name, struct error *err)
{
    char **names = plugin_names(registry);
    const char *near = error_nearest(name, (const char *const *)names);
    if (near != NULL) {
        error_hint(err, "did you mean \"%s\"? Run \"millrace plugins\" for the list", near);
    } else if (names[0] == NULL) {
        error_hint(err, "there are no plugins in %s",
                   registry->folders[0] != NULL ? registry->folders[0] : "any folder");
    } else {
        struct buf buf;
        buf_init(&buf, 200);
        for (size_t i = 0; names[i] != NULL; i++)
            if (!buf_format(&buf, "%s%s", i > 0 ? ", " : "", names[i]))
                break;
        error_hint(err, "there are: %s", buf_text(&buf));
        buf_done(&buf);
    }
    for (size_t i = 0; names[i] != NULL; i++)
        free(names[i]);
    free(names);
}

/* Owner and mode: of root or of us, and nobody else may change it. */
static int check_trust(const struct stat *st, const char *path, const char *what, struct error *err)
{
    if (st->st_uid != 0 && st->st_uid != geteuid()) {
        error_set(err, MR_E_PLUGIN, "%s %s belongs to user %lu", what, path,
                  (unsigned long)st->st_uid);
        error_hint(err, "it must belong to root or to the user that runs millrace");
        return MR_E_PLUGIN;
    }
    if (st->st_mode & (S_IWGRP | S_IWOTH)) {
        error_set(err, MR_E_PLUGIN, "%s %s may be written by others (mode %04o)", what, path,
                  (unsigned)(st->st_mode & 07777));
        error_hint(err, "chmod go-w %s", path);
        return MR_E_PLUGIN;
    }
    return MR_OK;
}

/* MR_OK: a file that may be loaded. 1: not in this folder. */
static int check_file(const char *folder, const char *file, struct error *err)
{
    struct stat st;
    int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return 1;
    int fd = openat(dir, file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    int problem = errno;
    int rc = 1;
    if (fd < 0 && problem == ELOOP) {
        rc = error_set(err, MR_E_PLUGIN, "%s/%s is a symbolic link", folder, file);
        error_hint(err, "put the file itself there");
    } else if (fd < 0 && problem != ENOENT) {
        rc = error_set(err, MR_E_PLUGIN, "%s/%s cannot be opened: %s", folder, file,
                       strerror(problem));
    } else if (fd >= 0 && fstat(fd, &st) == 0) {
        mem_auto char *path = mem_format("%s/%s", folder, file);
        if (!S_ISREG(st.st_mode))
            rc = error_set(err, MR_E_PLUGIN, "%s is not a regular file", path);
        else
            rc = check_trust(&st, path, "plugin file", err);
        if (rc == MR_OK && fstat(dir, &st) == 0)
            rc = check_trust(&st, folder, "plugin folder", err);
    }
    if (fd >= 0)
        close(fd);
    close(dir);
    return rc;
}

/* Whether the rows are what option_read may walk: names, sentences, offsets inside the settings. */
static int check_rows(const struct option_rows *rows, uint32_t settings_size, unsigned depth,
                      struct error *err)
{
    if (rows->count > PLUGIN_OPTIONS_MAX || depth > 4)
        return error_set(err, MR_E_PLUGIN, "too many options");
    if (rows->rows == NULL && rows->count > 0)
        return error_set(err, MR_E_PLUGIN, "options are counted, but there are no rows");
    for (uint32_t i = 0; i < rows->count; i++) {
        const struct mr_option *row =
            (const void *)((const char *)rows->rows + (size_t)i * rows->row_size);
        if (row->name == NULL || row->name[0] == '\0' || row->doc == NULL || row->doc[0] == '\0')
            return error_set(err, MR_E_PLUGIN, "option row %u has no name or no sentence",
                             (unsigned)i);
        if (row->type < MR_TYPE_TEXT || row->type > MR_TYPE_LIST)
            return error_set(err, MR_E_PLUGIN, "option \"%s\" has the unknown type %u", row->name,
                             (unsigned)row->type);
        if (row->offset > settings_size || settings_size - row->offset < sizeof(int32_t))
            return error_set(err, MR_E_PLUGIN, "option \"%s\" lies outside the settings",
                             row->name);
        if (row->type == MR_TYPE_CHOICE && row->choices == NULL)
            return error_set(err, MR_E_PLUGIN, "option \"%s\" has no choices", row->name);
        if (row->type != MR_TYPE_LIST)
            continue;
        if (row->rows == NULL || row->item_size == 0)
            return error_set(err, MR_E_PLUGIN, "option \"%s\" has no rows", row->name);
        struct option_rows inner = {row->rows, row->row_count, rows->row_size};
        int rc = check_rows(&inner, row->item_size, depth + 1, err);
        if (rc != MR_OK)
            return rc;
    }
    return MR_OK;
}

static int check_descriptor(const struct mr_plugin *given, const char *name, struct error *err)
{
    if (given->abi_major != MR_ABI_MAJOR || given->abi_minor > MR_ABI_MINOR ||
        (MR_ABI_MAJOR == 0 && given->abi_minor != MR_ABI_MINOR)) {
        error_set(err, MR_E_PLUGIN,
                  "built for %u.%u, this host offers %d.%d: upgrade the host or rebuild against "
                  "its header",
                  (unsigned)given->abi_major, (unsigned)given->abi_minor, MR_ABI_MAJOR,
                  MR_ABI_MINOR);
        error_hint(err, "the header of this host is millrace/plugin.h %d.%d", MR_ABI_MAJOR,
                   MR_ABI_MINOR);
        return MR_E_PLUGIN;
    }
    if (given->size < offsetof(struct mr_plugin, close) ||
        given->option_size < offsetof(struct mr_option, reserved) ||
        given->settings_size > PLUGIN_SETTINGS_MAX) {
        error_set(err, MR_E_PLUGIN,
                  "the descriptor's sizes make no sense (struct mr_plugin %u bytes, option row %u, "
                  "settings %u)",
                  (unsigned)given->size, (unsigned)given->option_size,
                  (unsigned)given->settings_size);
        error_hint(err, "begin it with MR_PLUGIN_HEAD(\"%s\", struct settings, options)", name);
        return MR_E_PLUGIN;
    }
    if (given->name == NULL || strcmp(given->name, name) != 0) {
        error_set(err, MR_E_PLUGIN, "the descriptor says that its name is \"%s\"",
                  given->name != NULL ? given->name : "");
        error_hint(err, "file, symbol and name must be the same: %s.so, mr_plugin_%s, \"%s\"", name,
                   name, name);
        return MR_E_PLUGIN;
    }
    if (given->run == NULL)
        return error_set(err, MR_E_PLUGIN, "the descriptor has no `run`");
    if (given->option_count > 0 && given->options == NULL)
        return error_set(err, MR_E_PLUGIN, "the descriptor has no option rows");
    return MR_OK;
}

static struct plugin *plugin_load(const char *name, const char *path, struct error *err)
{
    /* No RTLD_NODELETE games: the handle is simply never closed. */
    dlerror();
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        const char *why = dlerror();
        error_set(err, MR_E_PLUGIN, "%s cannot be loaded: %s", path, why != NULL ? why : "");
        error_hint(err, "%s",
                   why != NULL && strstr(why, "undefined symbol") != NULL
                       ? "a plugin must not need symbols of the host: calls go through its context"
                       : "a plugin is built with: cc -shared -fPIC -fvisibility=hidden");
        error_where(err, "%s", path);
        return NULL;
    }
    mem_auto char *symbol = mem_format("mr_plugin_%s", name);
    const struct mr_plugin *given = dlsym(handle, symbol);
    if (given == NULL) {
        mem_auto char *found = plugin_symbols(path);
        error_set(err, MR_E_PLUGIN, "%s does not export the symbol %s", path, symbol);
        error_hint(err, "%s%.180s; declare MR_PLUGIN(%s) = {…}",
                   found != NULL ? "it exports: " : "it exports nothing",
                   found != NULL ? found : "", name);
        error_where(err, "%s", path);
        return NULL;
    }
    if (check_descriptor(given, name, err) != MR_OK) {
        error_where(err, "%s", path);
        return NULL;
    }
    struct plugin *plugin = mem_zalloc(sizeof(*plugin));
    memcpy(&plugin->about, given,
           given->size < sizeof(plugin->about) ? given->size : sizeof(plugin->about));
    plugin->options = (struct option_rows){given->options, given->option_count, given->option_size};
    if (check_rows(&plugin->options, given->settings_size, 0, err) != MR_OK) {
        error_where(err, "%s", path);
        free(plugin);
        return NULL;
    }
    plugin->name = mem_dup(name);
    plugin->path = mem_dup(path);
    return plugin;
}

const struct plugin *plugin_find(struct plugin_registry *registry, const char *name,
                                 struct error *err)
{
    for (size_t i = 0; i < registry->count; i++)
        if (strcmp(registry->items[i]->name, name) == 0)
            return registry->items[i];
    if (!name_is_valid(name)) {
        error_set(err, MR_E_PLUGIN, "\"%.64s\" is not a plugin's name", name);
        error_hint(err, "names are made of a-z, 0-9 and _, at most %u of them", PLUGIN_NAME_MAX);
        return NULL;
    }
    mem_auto char *file = mem_format("%s.so", name);
    for (char **folder = registry->folders; *folder != NULL; folder++) {
        int rc = check_file(*folder, file, err);
        if (rc > 0)
            continue;
        mem_auto char *path = mem_format("%s/%s", *folder, file);
        if (rc < 0) {
            error_where(err, "%s", path);
            return NULL;
        }
        struct plugin *plugin = plugin_load(name, path, err);
        if (plugin == NULL)
            return NULL;
        registry->items =
            mem_resize(registry->items, registry->count + 1, sizeof(*registry->items));
        registry->items[registry->count++] = plugin;
        return plugin;
    }
    error_set(err, MR_E_PLUGIN, "there is no plugin \"%s\"", name);
    hint_names(registry, name, err);
    return NULL;
}
