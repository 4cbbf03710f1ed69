/* millrace-fcgi, the daemon. By hand it is the master: it reads the configuration, takes the
 * socket, has a child check everything, and supervises. As a child (child.h) it is the check, the
 * front or a worker. With `"role": "front"` on `fd:0` it is one plain process, as web servers that
 * start one a request want it. */
#include "app/bundle.h"
#include "app/check.h"
#include "app/privilege.h"
#include "app/stdio.h"
#include "app/supervisor.h"
#include "base/log.h"
#include "fcgi/front_main.h"
#include "work/worker.h"
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define DAEMON_SPARE_FILES 256u /* Redis, logs, plugins' own */

static const char daemon_usage[] =
    "usage: millrace-fcgi [-c FILE] [-t]\n"
    "\n"
    "The Millrace daemon: accepts jobs over FastCGI behind a web server and runs them.\n"
    "It stays in the foreground.\n"
    "\n"
    "  -c, --config FILE   configuration; else $MILLRACE_CONFIG, ./millrace.json,\n"
    "                      /etc/millrace/millrace.json\n"
    "  -t, --test          check configuration, pipelines and plugins, and exit\n"
    "  -V, --version       print the version\n"
    "  -h, --help          this text\n"
    "\n"
    "Signals: TERM and QUIT drain and stop, INT stops at once, HUP and USR2 reload the\n"
    "configuration after checking it, USR1 reopens the log.\n";

struct daemon {
    struct child child;
    char *file;
    struct config *config;
};

/* The configuration of `root`, or, without one, of the file. */
static struct config *daemon_config(const char *file, const json_t *root, bool quiet)
{
    struct report report;
    report_init(&report);
    struct config *config = root ? config_make(file, root, &report) : config_load(file, &report);
    check_print(&report, quiet);
    report_done(&report);
    return config;
}

/* The limit on open files covers a connection a transfer and a stream a client, or the
 * configuration is refused, with the sum. */
static bool daemon_files(const struct config *config, enum child_role role)
{
    uint64_t wanted = DAEMON_SPARE_FILES;
    if (role == CHILD_WORKER)
        wanted += (uint64_t)config->concurrency * 2;
    else if (role == CHILD_FRONT)
        wanted += (uint64_t)config->limits.streams_max;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return true;
    if (limit.rlim_cur < wanted && limit.rlim_max >= wanted) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    } else if (limit.rlim_cur < wanted) {
        struct rlimit raised = {.rlim_cur = wanted, .rlim_max = wanted}; /* root may */
        if (setrlimit(RLIMIT_NOFILE, &raised) != 0) {
            log_line(
                LOG_ERROR,
                role == CHILD_WORKER
                    ? "\"concurrency\": %llu jobs of two connections each and %u others need %llu "
                      "open files, the limit is %llu: raise it (ulimit -n, LimitNOFILE) or lower "
                      "concurrency"
                    : "\"limits.streams_max\": %llu streams and %u others need %llu open files, "
                      "the limit is %llu: raise it (ulimit -n, LimitNOFILE) or lower streams_max",
                (unsigned long long)(role == CHILD_WORKER ? (uint64_t)config->concurrency
                                                          : (uint64_t)config->limits.streams_max),
                DAEMON_SPARE_FILES, (unsigned long long)wanted, (unsigned long long)limit.rlim_max);
            return false;
        }
    }
    return true;
}

/* Signals of operators that end a process which does not take them: held back while the master
 * starts (the supervisor takes them then; a HUP that came meanwhile is a reload). Those that are to
 * end it do so while it checks, which may take long, and are held (`stops`) from the moment when
 * there is a socket to remove; a shell may also have had them ignored. */
static void daemon_hold_signals(int how, bool stops)
{
    sigset_t set;
    sigemptyset(&set);
    if (stops) {
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGQUIT);
        sigaddset(&set, SIGINT);
    }
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigprocmask(how, &set, NULL);
}

static bool daemon_redis(const struct config *config, struct redis_config *ret)
{
    struct error err = {0};
    if (config_redis(config, ret, &err) == MR_OK)
        return true;
    log_error("redis.url is not usable", &err, NULL);
    return false;
}

static int daemon_front(struct daemon *self, const struct bundle *bundle, struct page *page,
                        int listen_fd)
{
    struct redis_config redis = {0};
    if (!daemon_files(self->config, CHILD_FRONT) || !daemon_redis(self->config, &redis))
        return 1;
    const struct front_setup setup = {.config = self->config,
                                      .redis = &redis,
                                      .listen_fd = listen_fd,
                                      .lifeline_fd = self->child.lifeline_fd,
                                      .page = page ? &page->slots[self->child.slot] : NULL,
                                      .sources =
                                          (const struct pipeline_source *const *)bundle->sources,
                                      .plugins = bundle->plugins};
    int code = front_run(&setup);
    redis_config_done(&redis);
    return code;
}

static int daemon_worker(struct daemon *self, const struct bundle *bundle, struct page *page)
{
    struct config *config = self->config;
    struct redis_config redis = {0};
    if (!daemon_files(config, CHILD_WORKER) || !daemon_redis(config, &redis))
        return 1;
    const struct worker_setup setup = {.redis = &redis,
                                       .prefix = config->redis.prefix,
                                       .partitions = (unsigned)config->redis.partitions,
                                       .node = self->child.node,
                                       .slot = self->child.slot,
                                       .page = &page->slots[self->child.slot],
                                       .lifeline_fd = self->child.lifeline_fd,
                                       .sources =
                                           (const struct pipeline_source *const *)bundle->sources,
                                       .plugin_folders = config->plugins,
                                       .queues = config->queues,
                                       .concurrency = (size_t)config->concurrency,
                                       .fibers_max = (size_t)config->limits.fibers_max,
                                       .memory_max = config->limits.memory,
                                       .lease_ms = config->lease_ms,
                                       .stall_ms = config->stall_ms,
                                       .drain_ms = config->drain_ms,
                                       .retention_status_ms = config->retention_status_ms,
                                       .retention_result_ms = config->retention_result_ms,
                                       .max_crashes = (unsigned)config->max_crashes,
                                       .dead_schedule_ms = config->dead_schedule_ms,
                                       .dead_schedule_count = config->dead_schedule_count,
                                       .dead_budget = (unsigned)config->dead_budget,
                                       .dead_breaker = (unsigned)config->dead_breaker,
                                       .queue_max = (uint64_t)config->limits.queue_max,
                                       .address_allow = config->limits.address_allow,
                                       .has_endpoint = config_has_endpoint,
                                       .find_endpoint = config_find_endpoint,
                                       .find_limit = config_find_limit,
                                       .arg = config};
    int code = worker_run(&setup);
    redis_config_done(&redis);
    return code;
}

/* The check: everything is loaded as workers will load it; configuration and pipelines are handed
 * back, or, for a reload, the reasons why not. */
static int daemon_check(struct daemon *self)
{
    struct report report;
    report_init(&report);
    struct error err = {0};
    struct bundle bundle = {0};
    int fd = self->child.bundle_fd;
    json_hold json_t *root = config_read(self->file, &report);
    self->config = root ? config_make(self->file, root, &report) : NULL;
    bool good = self->config && bundle_read(self->config, &bundle, &report);
    bundle.config = json_incref(root);
    good = good && check_bundle(self->config, &bundle, NULL, NULL, &report);
    if (good && bundle_write(&bundle, fd, &err) != MR_OK) {
        report_add(&report, NULL, NULL, "%s", err.message);
        good = false;
    }
    if (good || strcmp(self->child.node, SUPERVISOR_RELOAD) != 0)
        check_print(&report, false);
    else
        check_write(&report, fd);
    bundle_done(&bundle);
    report_done(&report);
    return good ? 0 : 1;
}

static int daemon_child(struct daemon *self)
{
    if (self->child.role == CHILD_CHECK)
        return daemon_check(self);
    char title[32];
    child_title(&self->child, title);
    struct error err = {0};
    struct bundle bundle = {0};
    struct page *page = NULL;
    int code = 1;
    if (page_open(self->child.page_fd, &page, &err) != MR_OK ||
        bundle_load(self->child.bundle_fd, &bundle, &err) != MR_OK)
        log_error("cannot start", &err, NULL);
    else if (!(self->config = daemon_config(self->file, bundle.config, true)))
        log_line(LOG_ERROR, "cannot start: the configuration that was checked is refused");
    else if (log_open(self->config->log_file, self->config->log_format, self->config->log_level,
                      title, &err) != MR_OK)
        log_error("cannot open the log", &err, NULL);
    else if (self->child.role == CHILD_FRONT)
        code = daemon_front(self, &bundle, page, self->child.listen_fd);
    else
        code = daemon_worker(self, &bundle, page);
    bundle_done(&bundle);
    page_close(page);
    return code;
}

static bool daemon_write_pid(const char *path)
{
    if (!path)
        return true;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    bool good = fd >= 0 && dprintf(fd, "%d\n", getpid()) > 0;
    if (!good)
        log_line(LOG_ERROR, "cannot write pid_file %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return good;
}

/* One process, spawned by a web server on fd 0. */
static int daemon_plain(struct daemon *self, const struct listener *listener)
{
    struct bundle bundle = {0};
    struct report report;
    report_init(&report);
    int code = 1;
    self->child = (struct child){.role = CHILD_FRONT,
                                 .page_fd = -1,
                                 .lifeline_fd = -1,
                                 .listen_fd = listener->fd,
                                 .bundle_fd = -1};
    signal(SIGHUP, SIG_IGN); /* until the front watches them: what was held is forgotten */
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
    daemon_hold_signals(SIG_UNBLOCK, true);
    if (bundle_read(self->config, &bundle, &report))
        code = daemon_front(self, &bundle, NULL, listener->fd);
    check_print(&report, true);
    report_done(&report);
    bundle_done(&bundle);
    return code;
}

static int daemon_master(struct daemon *self, bool only_test)
{
    struct config *config = self->config;
    struct error err = {0};
    struct listener listener = {.fd = -1, .lock_fd = -1};
    int bundle_fd = -1, code = 1;
    bool has_front = config->role != CONFIG_WORKER;
    bool good =
        bundle_file(&bundle_fd, &err) == MR_OK && supervisor_check(self->file, bundle_fd, &err);
    if (good && !only_test)
        daemon_hold_signals(SIG_BLOCK, true);
    if (!good) {
        log_error("not started", &err, NULL);
    } else if (only_test) {
        printf("configuration and pipelines are good\n");
        code = 0;
    } else if ((has_front && !daemon_files(config, CHILD_FRONT)) ||
               (config->role != CONFIG_FRONT && !daemon_files(config, CHILD_WORKER))) {
        code = 1; /* told already; root raises the limit here, before it is given up */
    } else if (has_front && listener_open(config->listen, (mode_t)config->listen_mode,
                                          config->listen_trusted != 0, &listener, &err) != MR_OK) {
        log_error("not started", &err, NULL);
    } else if (privilege_drop(config->user, config->group, listener.path, &err) != MR_OK) {
        log_error("not started", &err, NULL);
    } else if (daemon_write_pid(config->pid_file)) {
        bool plain = config->role == CONFIG_FRONT && strcmp(config->listen, "fd:0") == 0;
        const struct supervisor_setup setup = {.config = config,
                                               .file = self->file,
                                               .listener = has_front ? &listener : NULL,
                                               .bundle_fd = bundle_fd};
        if (!plain)
            bundle_fd = -1; /* the supervisor's now */
        code = plain ? daemon_plain(self, &listener) : supervisor_run(&setup);
        if (config->pid_file)
            unlink(config->pid_file);
    }
    listener_close(&listener);
    if (bundle_fd >= 0)
        close(bundle_fd);
    return code;
}

/* argv[0] is what `ps` shows: written over the words of the command line, which lie one after the
 * other. */
static void daemon_set_title(int argc, char **argv, const char *title)
{
    char *end = argv[0];
    for (int i = 0; i < argc && argv[i] == end; i++)
        end += strlen(argv[i]) + 1;
    size_t room = (size_t)(end - argv[0]);
    if (room < 2)
        return;
    memset(argv[0], 0, room);
    memcpy(argv[0], title, strlen(title) < room - 1 ? strlen(title) : room - 1);
}

int main(int argc, char **argv)
{
    struct daemon self = {0};
    struct error err = {0};
    bool only_test = false;
    const char *given = NULL;
    if (!stdio_fill())
        return 1;
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"test", no_argument, NULL, 't'},
                                            {"version", no_argument, NULL, 'V'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "c:tVh", options, NULL)) != -1;) {
        switch (c) {
        case 'c':
            given = optarg;
            break;
        case 't':
            only_test = true;
            break;
        case 'V':
            printf("millrace-fcgi %s\n", MR_VERSION);
            return 0;
        case 'h':
            fputs(daemon_usage, stdout);
            return 0;
        default:
            fputs(daemon_usage, stderr);
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "millrace-fcgi: \"%s\" is one word too many\n%s", argv[optind],
                daemon_usage);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a log at the limit of a file's size fails to be written */
    if (child_from_env(&self.child, &err) != MR_OK) {
        fprintf(stderr, "millrace-fcgi: %s\n", err.message);
        return 1;
    }
    if (self.child.role == CHILD_NONE)
        daemon_hold_signals(SIG_BLOCK, false);
    self.file = config_find(given);
    int code;
    if (self.child.role != CHILD_NONE) {
        code = daemon_child(&self);
    } else {
        self.config = daemon_config(self.file, NULL, true);
        if (!self.config)
            return 1;
        if (log_open(self.config->log_file, self.config->log_format, self.config->log_level,
                     "master", &err) != MR_OK) {
            log_error("cannot open the log", &err, NULL);
            return 1;
        }
        if (!only_test)
            daemon_set_title(argc, argv, "millrace: master");
        code = daemon_master(&self, only_test);
    }
    config_free(self.config);
    free(self.file);
    return code;
}
