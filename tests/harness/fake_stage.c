/* One stage in the harness: loading the plugin, reading its options, running tasks. */
#include "base/option.h"
#include "fake_host.h"
#include <dlfcn.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* Files */

static char folder[128];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void remove_folder(void)
{
    nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

const char *fake_dir(void)
{
    if (!folder[0]) {
        const char *tmp = getenv("TMPDIR");
        snprintf(folder, sizeof(folder), "%s/millrace-test-XXXXXX", tmp ? tmp : "/tmp");
        assert_non_null(mkdtemp(folder));
        atexit(remove_folder);
    }
    return folder;
}

void fake_write(const char *name, const char *text)
{
    mem_auto char *path = mem_format("%s/%s", fake_dir(), name);
    for (char *slash = strchr(path + strlen(fake_dir()) + 1, '/'); slash;
         slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(path, 0700);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

/* Texts */

char *fake_json(const char *text)
{
    char *json = mem_dup(text);
    if (strchr(json, '"'))
        return json;
    for (char *c = json; *c; c++)
        if (*c == '\'')
            *c = '"';
    return json;
}

static json_t *read_json(const char *quoted)
{
    struct error err = {0};
    mem_auto char *text = fake_json(quoted);
    json_t *value = json_read(text, strlen(text), 0, &err);
    if (!value)
        fail_msg("the test's own JSON is wrong: %s\n%s", err.message, text);
    return value;
}

void fake_assert_json_at(const char *got, const char *want, const char *file, int line)
{
    json_hold json_t *right = read_json(want);
    json_hold json_t *value = got ? json_read(got, strlen(got), 0, NULL) : NULL;
    if (!value || !json_equal(value, right)) {
        print_error("got  %s\nwant %s\n", got ? got : "(nothing)", want);
        _fail(file, line);
    }
}

void fake_assert_message_at(const struct fake_task *task, const char *words, const char *file,
                            int line)
{
    if (!strstr(task->error.message, words)) {
        print_error("message \"%s\"\nlacks \"%s\"\n", task->error.message, words);
        _fail(file, line);
    }
}

/* Loading and options */

static const struct mr_plugin *load(const char *name)
{
    mem_auto char *path = mem_format("%s/plugins/%s.so", MR_BUILD_DIR, name);
    mem_auto char *symbol = mem_format("mr_plugin_%s", name);
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL); /* kept, as in the host */
    if (!handle)
        fail_msg("%s", dlerror());
    const struct mr_plugin *plugin = dlsym(handle, symbol);
    assert_non_null(plugin);
    assert_int_equal(plugin->size, sizeof(struct mr_plugin));
    assert_int_equal(plugin->option_size, sizeof(struct mr_option));
    assert_int_equal(plugin->abi_major, MR_ABI_MAJOR);
    assert_int_equal(plugin->abi_minor, MR_ABI_MINOR);
    assert_string_equal(plugin->name, name);
    return plugin;
}

static void on_error(void *self, const char *pointer, const char *message, const char *hint)
{
    struct error *err = report_add(self, "test", pointer, "%s", message);
    error_hint(err, "%s", hint ? hint : "");
}

static void on_warn(void *self, const char *pointer, const char *message, const char *hint)
{
    struct error *err = report_warn(self, "test", pointer, "%s", message);
    error_hint(err, "%s", hint ? hint : "");
}

static struct option_rows rows_of(const struct mr_plugin *plugin)
{
    return (struct option_rows){
        .rows = plugin->options, .count = plugin->option_count, .row_size = plugin->option_size};
}

static struct fake *read_stage(const char *name, const char *options, struct report *report)
{
    struct fake *fake = mem_zalloc(sizeof(*fake));
    struct fake_private *priv = fake->priv = mem_zalloc(sizeof(*priv));
    fake->plugin = load(name);
    fake->time_left_ms = 30000;
    fake->clock_ms = 1000000;
    buf_init(&fake->trace, 1u << 20);
    arena_init(&priv->arena);
    priv->doc = doc_new();
    priv->exprs = expr_set_new();
    priv->steps = json_object();
    priv->options = read_json(options);
    fake->settings = mem_zalloc(fake->plugin->settings_size);
    struct option_rows rows = rows_of(fake->plugin);
    struct option_source source = {
        .file = "test", .pointer = "", .dir = fake_dir(), .exprs = priv->exprs};
    option_read(&rows, priv->options, &source, fake->settings, fake->plugin->settings_size,
                &priv->arena, report);
    expr_set_compile(priv->exprs, report, "test");
    if (fake->plugin->check) {
        struct mr_check check = {
            .self = report, .error = on_error, .warn = on_warn, .options = priv->options};
        fake->plugin->check(fake->settings, &check);
    }
    return fake;
}

static char *report_text(const struct report *report)
{
    struct buf buf;
    buf_init(&buf, 1u << 20);
    for (size_t i = 0; i < report->count; i++) {
        const struct error *err = &report->items[i];
        const char *where = err->where;
        if (strncmp(where, "test", 4) == 0)
            where += where[4] == ':' ? 5 : 4;
        while (*where == ' ')
            where++;
        buf_format(&buf, "%s %s: %s (%s)\n", err->code == MR_OK ? "warn" : "error", where,
                   err->message, err->hint);
    }
    return buf_take(&buf) ?: mem_dup("");
}

char *fake_check(const char *name, const char *options)
{
    struct report report;
    report_init(&report);
    struct fake *fake = read_stage(name, options, &report);
    char *text = report_text(&report);
    report_done(&report);
    fake_free(fake);
    return text;
}

void fake_assert_check(const char *name, const char *options, ...)
{
    mem_auto char *all = fake_check(name, options);
    mem_auto char *lines = mem_dup(all);
    for (char *line = strtok(lines, "\n"); line; line = strtok(NULL, "\n")) {
        va_list words;
        va_start(words, options);
        bool found = true;
        for (const char *word; (word = va_arg(words, const char *));)
            found &= strstr(line, word) != NULL;
        va_end(words);
        if (found)
            return;
    }
    fail_msg("no line of the check has all the words: %s", all);
}

struct fake *fake_try(const char *name, const char *options, int *ret_code)
{
    struct report report;
    report_init(&report);
    struct fake *fake = read_stage(name, options, &report);
    if (report_errors(&report) > 0) {
        mem_auto char *text = report_text(&report);
        fail_msg("options refused: %s", text);
    }
    report_done(&report);
    *ret_code = MR_OK;
    if (!fake->plugin->open)
        return fake;
    fake_start(fake, &fake->priv->opening);
    assert_true(fake->priv->opening.done);
    *ret_code = fake->priv->opening.code;
    fake->priv->instance = fake->priv->opening.instance;
    return fake;
}

struct fake *fake_new(const char *name, const char *options)
{
    int code = MR_OK;
    struct fake *fake = fake_try(name, options, &code);
    if (code != MR_OK)
        fail_msg("open: %s", fake->priv->opening.error.message);
    return fake;
}

void fake_free(struct fake *fake)
{
    if (!fake)
        return;
    struct fake_private *priv = fake->priv;
    struct option_rows rows = rows_of(fake->plugin);
    if (priv->instance && fake->plugin->close)
        fake->plugin->close(priv->instance);
    fake_task_done(&priv->opening);
    fake_task_done(&fake->task);
    option_release(&rows, fake->settings);
    free(fake->settings);
    for (size_t i = 0; i < fake->request_count; i++) {
        struct fake_request *request = &fake->requests[i];
        free(request->method);
        free(request->endpoint);
        free(request->url);
        free(request->headers);
        free(request->body);
    }
    for (size_t i = 0; i < priv->end_count; i++) {
        free(priv->ends[i].target);
        free(priv->ends[i].json);
    }
    free(fake->requests);
    free(priv->replies);
    free(priv->ends);
    buf_done(&fake->trace);
    expr_set_free(priv->exprs);
    json_decref(priv->options);
    json_decref(priv->steps);
    doc_free(priv->doc);
    arena_done(&priv->arena);
    free(priv);
    free(fake);
    fiber_trim();
}

/* Scripts */

void fake_set(struct fake *fake, const char *member, const char *json)
{
    mem_auto char *text = fake_json(json);
    doc_set_text(fake->priv->doc, member, text, strlen(text));
}

void fake_will_answer(struct fake *fake, struct fake_reply reply)
{
    struct fake_private *priv = fake->priv;
    priv->replies = mem_resize(priv->replies, priv->reply_count + 1, sizeof(*priv->replies));
    priv->replies[priv->reply_count++] = reply;
}

void fake_will_end(struct fake *fake, const char *target, int code, const char *json)
{
    struct fake_private *priv = fake->priv;
    priv->ends = mem_resize(priv->ends, priv->end_count + 1, sizeof(*priv->ends));
    priv->ends[priv->end_count++] =
        (struct fake_end){mem_dup(target), code, json ? fake_json(json) : NULL, false};
}

const char *fake_step(struct fake *fake, const char *name)
{
    return json_string_value(json_object_get(fake->priv->steps, name));
}

void fake_clear_trace(struct fake *fake)
{
    buf_clear(&fake->trace);
}

/* Tasks */

static void run_task(void *arg)
{
    struct fake_task *task = arg;
    struct fake *fake = task->fake;
    bool is_opening = task == &fake->priv->opening;
    task->code = is_opening ? fake->plugin->open(&task->cx, fake->settings, &task->instance)
                            : fake->plugin->run(&task->cx, fake->settings);
    if (!is_opening)
        fake_defers_run(task);
    task->done = true;
}

void fake_start(struct fake *fake, struct fake_task *task)
{
    *task = (struct fake_task){.cx = {.host = &fake_table}, .fake = fake};
    arena_init(&task->arena);
    task->doc = doc_view(fake->priv->doc);
    struct fiber *fiber = fiber_new(run_task, task);
    assert_non_null(fiber);
    fiber_resume(fiber);
}

void fake_task_done(struct fake_task *task)
{
    if (!task->fake)
        return;
    assert_true(task->done);
    fake_defers_run(task);
    free(task->output);
    doc_free(task->doc);
    arena_done(&task->arena);
    task->fake = NULL;
}

int fake_run(struct fake *fake)
{
    fake_task_done(&fake->task);
    fake_start(fake, &fake->task);
    assert_true(fake->task.done);
    if (fake->task.code == MR_OK)
        assert_non_null(fake->task.output);
    else if (fake->torture_at == 0)
        assert_int_equal(fake->task.error.code, fake->task.code);
    return fake->task.code;
}

static const int torture_codes[] = {MR_E_CANCELLED, MR_E_TIMEOUT, MR_E_RESET, MR_E_STORE,
                                    MR_E_LOST};
#define TORTURE_CODES (sizeof(torture_codes) / sizeof(torture_codes[0]))

unsigned fake_torture_open(const char *name, const char *options)
{
    unsigned runs = 0;
    for (size_t c = 0; c < TORTURE_CODES; c++)
        for (int after = 0; after < 2; after++)
            for (unsigned at = 1;; at++) {
                struct report report;
                report_init(&report);
                struct fake *fake = read_stage(name, options, &report);
                struct fake_task *opening = &fake->priv->opening;
                report_done(&report);
                fake->torture_at = at;
                fake->torture_code = torture_codes[c];
                fake->torture_after = after;
                fake_start(fake, opening);
                bool was_hit = opening->suspensions >= at;
                assert_int_equal(opening->code, was_hit ? torture_codes[c] : MR_OK);
                fake->priv->instance = opening->instance;
                fake_free(fake);
                if (!was_hit)
                    break;
                runs++;
            }
    return runs;
}

unsigned fake_torture(struct fake *(*prepare)(void), void (*check)(struct fake *fake))
{
    unsigned runs = 0;
    for (size_t c = 0; c < TORTURE_CODES; c++)
        for (int after = 0; after < 2; after++)
            for (unsigned at = 1;; at++) {
                struct fake *fake = prepare();
                fake->torture_at = at;
                fake->torture_code = torture_codes[c];
                fake->torture_after = after;
                fake_run(fake);
                bool was_hit = fake->task.suspensions >= at;
                if (check && was_hit)
                    check(fake);
                fake_free(fake);
                if (!was_hit)
                    break;
                runs++;
            }
    return runs;
}
