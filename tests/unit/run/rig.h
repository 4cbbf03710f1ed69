/* What the tests of the run layer share: a loop, the plugins that ship, pipelines from text, and
 * stages whose `run` is a function of the test. */
#pragma once

#include "base/clock.h"
#include "loop/timer.h"
#include "run/runner.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct rig {
    struct loop loop;
    struct runner runner;
    struct plugin_registry *plugins;
    struct report report;
};

__attribute__((unused)) static void rig_open(struct rig *rig)
{
    static const char *const folders[] = {MR_BUILD_DIR "/plugins", MR_BUILD_DIR "/tests/plugins",
                                          NULL};
    memset(rig, 0, sizeof(*rig));
    assert_int_equal(loop_init(&rig->loop, NULL), MR_OK);
    runner_init(&rig->runner, &rig->loop, NULL);
    rig->plugins = plugin_registry_new(folders);
    report_init(&rig->report);
}

__attribute__((unused)) static void rig_close(struct rig *rig)
{
    struct fiber_stats stats;
    runner_done(&rig->runner);
    plugin_registry_free(rig->plugins);
    report_done(&rig->report);
    loop_done(&rig->loop);
    fiber_trim();
    fiber_get_stats(&stats);
    assert_int_equal(stats.live, 0);
}

/* Builds; NULL when something was reported. */
__attribute__((unused)) static struct pipeline *rig_build(struct rig *rig, const char *name,
                                                          const char *text)
{
    const struct pipeline_setup setup = {.plugins = rig->plugins};
    report_done(&rig->report);
    report_init(&rig->report);
    struct pipeline_source *source = pipeline_source_new(name, name, "/tmp", text, strlen(text));
    struct pipeline *pipeline = pipeline_build(source, &setup, &rig->report);
    pipeline_source_free(source);
    return pipeline;
}

__attribute__((unused)) static struct pipeline *rig_must(struct rig *rig, const char *name,
                                                         const char *text)
{
    struct pipeline *pipeline = rig_build(rig, name, text);
    for (size_t i = 0; pipeline == NULL && i < rig->report.count; i++)
        print_error("%s: %s\n", rig->report.items[i].where, rig->report.items[i].message);
    assert_non_null(pipeline);
    return pipeline;
}

/* Has a stage run a function of the test instead of its plugin; undone with the pipeline. */
__attribute__((unused)) static struct plugin *rig_fake(struct pipeline *pipeline, const char *stage,
                                                       int (*run)(mr_context *, const void *))
{
    struct stage *found = pipeline_stage(pipeline, stage);
    assert_non_null(found);
    struct plugin *fake = arena_alloc(&pipeline->arena, sizeof(*fake));
    *fake = *found->plugin;
    fake->about.run = run;
    found->plugin = fake;
    return fake;
}

struct rig_call {
    void (*fn)(void *arg);
    void *arg;
    struct rig *rig;
};

__attribute__((unused)) static void rig_main(void *arg)
{
    struct rig_call *call = arg;
    call->fn(call->arg);
    runner_settle(&call->rig->runner);
}

/* Runs fn(arg) on a fiber, and the loop until all fibers have ended. */
__attribute__((unused)) static void rig_run(struct rig *rig, void (*fn)(void *arg), void *arg)
{
    struct rig_call call = {fn, arg, rig};
    assert_int_equal(loop_spawn(&rig->loop, NULL, rig_main, &call), MR_OK);
    loop_run_fibers(&rig->loop);
}

/* Whether a report has an error (or warning) whose place ends in `pointer` and whose message or
 * hint contains `text`. */
__attribute__((unused)) static bool report_has(const struct report *report, const char *pointer,
                                               const char *text)
{
    for (size_t i = 0; i < report->count; i++) {
        const struct error *item = &report->items[i];
        size_t len = strlen(item->where), want = strlen(pointer);
        if (len >= want && strcmp(item->where + len - want, pointer) == 0 &&
            (strstr(item->message, text) != NULL || strstr(item->hint, text) != NULL))
            return true;
    }
    for (size_t i = 0; i < report->count; i++)
        print_error("reported: %s: %s (%s)\n", report->items[i].where, report->items[i].message,
                    report->items[i].hint);
    return false;
}
