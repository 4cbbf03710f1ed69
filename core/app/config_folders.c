/* Where pipelines and plugins are: the default folders, and looking a name up in them.
 *
 * Without a word in the configuration: a folder beside it, when there is what we look for in it;
 * else beside the program, as in a build tree (build/bin, build/plugins) and as installed (bin,
 * lib…/millrace/plugins, share/millrace/pipelines). */
#include "app/config_parts.h"

#include "base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <glob.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool has_suffix(const char *name, const char *suffix)
{
    size_t len = strlen(name), end = strlen(suffix);
    return len > end && strcmp(name + len - end, suffix) == 0;
}

/* Whether a folder holds a file of that kind. */
static bool holds(const char *folder, const char *suffix)
{
    DIR *dir = opendir(folder);
    bool found = false;
    if (dir == NULL)
        return false;
    for (struct dirent *entry; !found && (entry = readdir(dir)) != NULL;)
        found = has_suffix(entry->d_name, suffix);
    closedir(dir);
    return found;
}

/* The folder of the running program, malloc'ed; NULL when /proc is not there. */
static char *program_dir(void)
{
    char path[4096];
    ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 1);
    if (len <= 0)
        return NULL;
    path[len] = '\0';
    char *slash = strrchr(path, '/');
    if (slash == NULL)
        return NULL;
    *slash = '\0';
    return mem_dup(path);
}

/* The first folder of a list of patterns that holds such files; NULL: none. */
static const char *first_folder(struct load *load, const char *const *patterns, const char *suffix)
{
    mem_auto char *program = program_dir();
    const char *found = NULL;
    for (; found == NULL && *patterns != NULL; patterns++) {
        const char *rest = *patterns;
        const char *base = "";
        if (rest[0] == '@' && program == NULL)
            continue;
        if (rest[0] == '@')
            base = program;
        else if (rest[0] == '.')
            base = load->config->dir;
        mem_auto char *pattern = mem_format("%s%s", base, base[0] != '\0' ? rest + 1 : rest);
        glob_t matches;
        if (glob(pattern, 0, NULL, &matches) != 0)
            continue;
        for (size_t i = 0; found == NULL && i < matches.gl_pathc; i++) {
            if (!holds(matches.gl_pathv[i], suffix))
                continue;
            char *real = realpath(matches.gl_pathv[i], NULL);
            found = config_dup(load, real != NULL ? real : matches.gl_pathv[i]);
            free(real);
        }
        globfree(&matches);
    }
    return found;
}

static const char *const *one(struct load *load, const char *folder, const char *otherwise)
{
    const char **list = arena_alloc(&load->config->arena, 2 * sizeof(char *));
    list[0] = folder != NULL ? folder : config_path(load, otherwise);
    return list;
}

const char *const *config_default_pipelines(struct load *load)
{
    static const char *const patterns[] = {
        "./pipelines",
        "@/../../pipelines",
        "@/../share/millrace/pipelines",
        "/usr/share/millrace/pipelines",
        NULL,
    };
    return one(load, first_folder(load, patterns, ".json"), "pipelines");
}

const char *const *config_default_plugins(struct load *load)
{
    static const char *const patterns[] = {
        "./plugins",
        "@/../plugins",
        "@/../lib/millrace/plugins",
        "@/../lib/*/millrace/plugins",
        "@/../lib64/millrace/plugins",
        "/usr/lib/millrace/plugins",
        "/usr/lib/*/millrace/plugins",
        NULL,
    };
    return one(load, first_folder(load, patterns, ".so"), "plugins");
}

char *config_pipeline_file(const struct config *config, const char *name)
{
    if (!pipeline_name_is_valid(name))
        return NULL;
    for (const char *const *folder = config->pipelines; *folder != NULL; folder++) {
        char *path = mem_format("%s/%s.json", *folder, name);
        /* A link that leads nowhere counts: reading it tells. */
        if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
            return path;
        free(path);
    }
    return NULL;
}

/* Whether a file is the configuration itself, which may lie among the pipelines. */
static bool is_config(const struct config *config, const char *folder, const char *file)
{
    struct stat one, other;
    mem_auto char *path = mem_format("%s/%s", folder, file);
    return config->file != NULL && stat(config->file, &one) == 0 && stat(path, &other) == 0 &&
           one.st_ino == other.st_ino && one.st_dev == other.st_dev;
}

static bool is_pipeline(void *arg, const char *folder, const char *name)
{
    mem_auto char *file = mem_format("%s.json", name);
    return pipeline_name_is_valid(name) && !is_config(arg, folder, file);
}

char **config_pipeline_names(const struct config *config)
{
    return file_names(config->pipelines, ".json", is_pipeline, (void *)config);
}
