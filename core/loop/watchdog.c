/* The mark is written by the loop's thread and read by another, or by another process after a
 * crash.
 *
 * `since_us` and `running` are single relaxed stores at each resume. The texts change only when a
 * fiber with another label runs: `seq` goes odd, the texts are stored word by word, `seq` goes even
 * (a sequence lock). A reader copies the words and takes them only if `seq` was even and did not
 * change meanwhile. While the loop itself runs `running` is 0 and the texts stay where they are.
 *
 * What crashes on a thread of offload.h is nowhere in these texts: a handler of the fatal signals
 * notes it, on that thread, with stores alone, and lets the signal go on. On the loop's own thread
 * it does nothing (and on a fiber's stack that is used up it does not even begin, unless the thread
 * has a stack for signals: the kernel ends the process). */
#include "loop/watchdog.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "loop/inner.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>

struct mark_text {
    char job[40], stage[WATCHDOG_TEXT], plugin[WATCHDOG_TEXT];
};
#define MARK_WORDS (sizeof(struct mark_text) / sizeof(uint64_t))
_Static_assert(offsetof(struct watchdog_mark, job) % sizeof(uint64_t) == 0, "words");
_Static_assert(offsetof(struct watchdog_mark, blamed) - offsetof(struct watchdog_mark, job) ==
                   sizeof(struct mark_text),
               "the texts lie side by side");

/* Copies at most size - 1 bytes; the rest of `ret` is zeros already. */
static void cut(char *ret, size_t size, const char *text)
{
    if (text)
        memcpy(ret, text, strnlen(text, size - 1));
}

static void write_texts(struct watchdog_mark *mark, const struct strand *strand)
{
    struct mark_text text = {0};
    cut(text.job, sizeof(text.job), strand->job);
    cut(text.stage, sizeof(text.stage), strand->stage);
    cut(text.plugin, sizeof(text.plugin), strand->plugin);
    uint64_t words[MARK_WORDS];
    memcpy(words, &text, sizeof(words));
    uint64_t *to = (void *)mark->job;
    uint32_t seq = atomic_load_explicit(&mark->seq, memory_order_relaxed);
    atomic_store_explicit(&mark->seq, seq + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    for (size_t i = 0; i < MARK_WORDS; i++)
        __atomic_store_n(&to[i], words[i], __ATOMIC_RELAXED);
    atomic_store_explicit(&mark->seq, seq + 2, memory_order_release);
}

static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
enum { FATAL_COUNT = sizeof(fatal) / sizeof(fatal[0]) };
static struct sigaction before[FATAL_COUNT];
static _Thread_local const struct strand *working_for;

void watchdog_note_thread(const struct strand *strand)
{
    working_for = strand;
}

static void on_fatal(int sig, siginfo_t *info, void *context)
{
    (void)context;
    const struct strand *strand = working_for;
    struct watchdog_mark *mark = strand ? strand->loop->priv->mark : NULL;
    uint32_t nobody = 0;
    if (mark && strand->label_id != 0 &&
        atomic_compare_exchange_strong(&mark->blamed, &nobody, 1)) {
        cut(mark->blamed_job, sizeof(mark->blamed_job), strand->job);
        cut(mark->blamed_stage, sizeof(mark->blamed_stage), strand->stage);
        cut(mark->blamed_plugin, sizeof(mark->blamed_plugin), strand->plugin);
        atomic_store_explicit(&mark->blamed, 2, memory_order_release);
    }
    for (size_t i = 0; i < FATAL_COUNT; i++)
        if (fatal[i] == sig)
            sigaction(sig, &before[i], NULL);
    if (info->si_code <= 0)
        raise(sig); /* sent, not caused by an instruction that is now done again */
}

static void watch_signals(void)
{
    static bool watched;
    if (watched)
        return;
    watched = true;
    struct sigaction action = {.sa_sigaction = on_fatal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < FATAL_COUNT; i++)
        sigaction(fatal[i], &action, &before[i]);
}

void watchdog_start(struct loop *loop, struct watchdog_mark *mark)
{
    loop->priv->mark = mark;
    loop->priv->marked_label = 0;
    if (!mark)
        return;
    watch_signals();
    atomic_store_explicit(&mark->running, 0, memory_order_relaxed);
    atomic_store_explicit(&mark->since_us, clock_now_us(), memory_order_relaxed);
}

void watchdog_note_poll(struct loop_private *priv)
{
    if (priv->mark)
        atomic_store_explicit(&priv->mark->since_us, 0, memory_order_relaxed);
}

void watchdog_note_work(struct loop_private *priv, uint64_t now_us)
{
    if (priv->mark)
        atomic_store_explicit(&priv->mark->since_us, now_us, memory_order_relaxed);
}

void watchdog_touch(struct loop *loop)
{
    if (loop->priv->mark)
        watchdog_note_work(loop->priv, clock_now_us());
}

void watchdog_note_resume(struct loop_private *priv, const struct strand *strand)
{
    struct watchdog_mark *mark = priv->mark;
    if (!mark || strand->label_id == 0)
        return;
    if (priv->marked_label != strand->label_id) {
        priv->marked_label = strand->label_id;
        write_texts(mark, strand);
    }
    priv->resume_named = true;
    atomic_store_explicit(&mark->running, 1, memory_order_relaxed);
}

void watchdog_note_back(struct loop_private *priv, uint64_t begin_us, uint64_t end_us)
{
    struct watchdog_mark *mark = priv->mark;
    if (!mark)
        return;
    bool named = priv->resume_named;
    priv->resume_named = false;
    atomic_store_explicit(&mark->running, 0, memory_order_relaxed);
    atomic_store_explicit(&mark->since_us, end_us, memory_order_relaxed);
    uint64_t held_us = end_us > begin_us ? end_us - begin_us : 0;
    if (held_us <= LIMIT_HOLD_MS * 1000u)
        return;
    priv->holds++;
    if (held_us > priv->hold_longest_us)
        priv->hold_longest_us = held_us;
    char ms[24];
    snprintf(ms, sizeof(ms), "%llu", (unsigned long long)(held_us / 1000));
    log_event(LOG_WARN, "a fiber held the loop", "ms", ms, "job", named ? mark->job : NULL, "stage",
              named ? mark->stage : NULL, "plugin", named ? mark->plugin : NULL, NULL);
}

void watchdog_label(const char *job, const char *stage, const char *plugin)
{
    struct strand *strand = strand_self();
    if (!strand)
        loop_misuse("watchdog_label outside of a fiber");
    struct loop_private *priv = strand->loop->priv;
    strand->job = job;
    strand->stage = stage;
    strand->plugin = plugin;
    strand->label_id = job || stage || plugin ? ++priv->label_ids : 0;
    if (strand->label_id != 0)
        watchdog_note_resume(priv, strand);
    else if (priv->mark)
        atomic_store_explicit(&priv->mark->running, 0, memory_order_relaxed);
}

uint64_t watchdog_holds(const struct loop *loop, uint64_t *ret_longest_ms)
{
    if (ret_longest_ms)
        *ret_longest_ms = loop->priv->hold_longest_us / 1000;
    return loop->priv->holds;
}

uint64_t watchdog_standing_ms(const struct watchdog_mark *mark)
{
    uint64_t since_us = atomic_load_explicit(&mark->since_us, memory_order_relaxed);
    uint64_t now_us = clock_now_us();
    return since_us != 0 && now_us > since_us ? (now_us - since_us) / 1000 : 0;
}

bool watchdog_read(const struct watchdog_mark *mark, char ret_job[40],
                   char ret_stage[WATCHDOG_TEXT], char ret_plugin[WATCHDOG_TEXT])
{
    if (atomic_load_explicit(&mark->blamed, memory_order_acquire) == 2) {
        memcpy(ret_job, mark->blamed_job, sizeof(mark->blamed_job));
        memcpy(ret_stage, mark->blamed_stage, sizeof(mark->blamed_stage));
        memcpy(ret_plugin, mark->blamed_plugin, sizeof(mark->blamed_plugin));
        return true;
    }
    const uint64_t *from = (const void *)mark->job;
    /* The loop may have died while it wrote: a bounded number of tries. */
    for (int i = 0; i < 1000; i++) {
        uint32_t seq = atomic_load_explicit(&mark->seq, memory_order_acquire);
        bool running = atomic_load_explicit(&mark->running, memory_order_relaxed) != 0;
        uint64_t words[MARK_WORDS];
        for (size_t w = 0; w < MARK_WORDS; w++)
            words[w] = __atomic_load_n(&from[w], __ATOMIC_RELAXED);
        atomic_thread_fence(memory_order_acquire);
        if (seq % 2 != 0 || seq != atomic_load_explicit(&mark->seq, memory_order_relaxed))
            continue;
        if (!running)
            return false;
        struct mark_text text;
        memcpy(&text, words, sizeof(text));
        memcpy(ret_job, text.job, sizeof(text.job));
        memcpy(ret_stage, text.stage, sizeof(text.stage));
        memcpy(ret_plugin, text.plugin, sizeof(text.plugin));
        return true;
    }
    return false;
}
