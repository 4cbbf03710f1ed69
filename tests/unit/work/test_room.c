/* Slots, and who is parked when a process is full. */
#include "work/work.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct room {
    struct worker_setup setup;
    struct worker worker;
    struct work_lane lanes[4];
};

/* Four lanes in hand, each with one stage at work. */
static struct room *room_new(void)
{
    struct room *room = mem_zalloc(sizeof *room);
    room->setup = (struct worker_setup){.concurrency = 5, .fibers_max = 100, .memory_max = 1000};
    room->worker.setup = &room->setup;
    room->worker.waiting_end = &room->worker.waiting;
    scope_init(&room->worker.lanes_scope, NULL);
    for (size_t i = 0; i < 4; i++) {
        struct work_lane *lane = &room->lanes[i];
        lane->worker = &room->worker;
        lane->has_run = true;
        lane->run.running[0] = 1;
        lane->run.doc = doc_new();
        scope_init(&lane->run.scope, &room->worker.lanes_scope);
        room_take(lane);
    }
    return room;
}

static void room_end(struct room *room)
{
    for (size_t i = 0; i < 4; i++) {
        struct work_lane *lane = &room->lanes[i];
        while (lane->calls)
            room_call_end(lane);
        room_leave(lane);
        doc_free(lane->run.doc);
        scope_done(&lane->run.scope);
    }
    assert_int_equal(room->worker.busy, 0);
    assert_int_equal(room->worker.bytes, 0);
    assert_int_equal(room->worker.parking, 0);
    assert_int_equal(room->worker.parking_bytes, 0);
    assert_null(room->worker.waiting);
    assert_ptr_equal(room->worker.waiting_end, &room->worker.waiting);
    scope_done(&room->worker.lanes_scope);
    free(room);
}

static void waiting_gives_the_slot_back(void **state)
{
    (void)state;
    struct room *room = room_new();
    assert_int_equal(room_slots(&room->worker, QUEUE_LOW), 1);
    room_call_begin(&room->lanes[0]);
    room_call_begin(&room->lanes[0]); /* two calls side by side: one slot */
    assert_int_equal(room_slots(&room->worker, QUEUE_LOW), 2);
    room_call_end(&room->lanes[0]);
    assert_int_equal(room_slots(&room->worker, QUEUE_LOW), 2);
    room_call_end(&room->lanes[0]);
    assert_int_equal(room_slots(&room->worker, QUEUE_LOW), 1);
    room->worker.draining = true;
    assert_int_equal(room_slots(&room->worker, QUEUE_RECOVERED), 0);
    room_end(room);
}

/* Concurrency 5: two suspects at once with two takeovers, one from three on; the highest count
 * among those in hand decides, and a checkpoint makes room. */
static void suspects_share_ever_less(void **state)
{
    (void)state;
    struct room *room = room_new();
    assert_true(room_suspect(&room->lanes[0], 2));
    assert_false(room_suspect(&room->lanes[1], 3)); /* would be one of one */
    assert_true(room_suspect(&room->lanes[1], 2));
    assert_false(room_suspect(&room->lanes[2], 2));
    room_trust(&room->lanes[0]);
    assert_true(room_suspect(&room->lanes[2], 2));
    room_trust(&room->lanes[1]);
    room_trust(&room->lanes[2]);
    assert_true(room_suspect(&room->lanes[3], 20));
    assert_false(room_suspect(&room->lanes[0], 2)); /* not beside that one */
    assert_int_equal(scope_error(&room->lanes[3].run.scope), MR_OK);
    room_leave(&room->lanes[3]);
    room_take(&room->lanes[3]);
    /* One that only waits for a child makes room, and the child comes back later. */
    assert_true(room_suspect(&room->lanes[0], 5));
    room_call_begin(&room->lanes[0]);
    assert_false(room_suspect(&room->lanes[1], 5));
    assert_true(room->lanes[0].is_parked);
    assert_int_equal(scope_error(&room->lanes[0].run.scope), MR_E_STOPPING);
    room_end(room);
}

/* All that a suspect does is wait in two calls at once: it makes room too, or its children, which
 * are suspects themselves, would not run before the calls are out of time. */
static void suspect_with_two_calls_makes_room(void **state)
{
    (void)state;
    struct room *room = room_new();
    struct work_lane *parent = &room->lanes[0];
    parent->run.running[0] = 3;
    assert_true(room_suspect(parent, 5));
    room_call_begin(parent);
    assert_false(room_suspect(&room->lanes[1], 5));
    assert_false(parent->is_parked); /* the other stage works */
    room_call_begin(parent);
    assert_false(room_suspect(&room->lanes[1], 5));
    assert_true(parent->is_parked);
    room_end(room);
}

static void full_process_takes_children_only(void **state)
{
    (void)state;
    struct room *room = room_new();
    room->worker.loop.fibers = 101;
    assert_int_equal(room_slots(&room->worker, QUEUE_HIGH), 0);
    assert_int_equal(room_slots(&room->worker, QUEUE_CALL), 1);
    assert_int_equal(room_slots(&room->worker, QUEUE_RECOVERED), 1);
    room_end(room);
}

static void longest_waiting_parents_are_parked(void **state)
{
    (void)state;
    struct room *room = room_new();
    for (size_t i = 3; i > 0; i--)
        room_call_begin(&room->lanes[i]);
    room_call_end(&room->lanes[3]); /* waits no more, and begins again: the last in order */
    room_call_begin(&room->lanes[3]);
    room->worker.loop.fibers = 101;
    room_park(&room->worker);
    room_park(&room->worker); /* one too many, one is on its way: no other */
    assert_true(room->lanes[2].is_parked);
    assert_int_equal(scope_error(&room->lanes[2].run.scope), MR_E_STOPPING);
    assert_false(room->lanes[1].is_parked || room->lanes[3].is_parked || room->lanes[0].is_parked);
    room->worker.loop.fibers = 103;
    room_park(&room->worker);
    assert_true(room->lanes[1].is_parked && room->lanes[3].is_parked);
    assert_false(room->lanes[0].is_parked); /* it works */
    room_end(room);
}

static void lane_that_works_beside_its_call_is_not_parked(void **state)
{
    (void)state;
    struct room *room = room_new();
    room->lanes[1].run.running[0] = 3;
    room_call_begin(&room->lanes[1]);
    room->worker.loop.fibers = 1000;
    room_park(&room->worker);
    assert_false(room->lanes[1].is_parked);
    room_end(room);
}

static void documents_count_as_they_grow(void **state)
{
    (void)state;
    char text[902];
    memset(text, 'x', sizeof text);
    text[0] = text[901] = '"';
    struct room *room = room_new();
    for (size_t i = 0; i < 2; i++) {
        doc_set_text(room->lanes[i].run.doc, "a", text, sizeof text);
        room_count(&room->lanes[i]);
        room_count(&room->lanes[i]);
    }
    assert_int_equal(room->worker.bytes, 2 * sizeof text);
    assert_int_equal(room_slots(&room->worker, QUEUE_NORMAL), 0);
    room_call_begin(&room->lanes[1]);
    room_park(&room->worker);
    assert_true(room->lanes[1].is_parked);
    room_end(room);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waiting_gives_the_slot_back),
        cmocka_unit_test(suspects_share_ever_less),
        cmocka_unit_test(suspect_with_two_calls_makes_room),
        cmocka_unit_test(full_process_takes_children_only),
        cmocka_unit_test(longest_waiting_parents_are_parked),
        cmocka_unit_test(lane_that_works_beside_its_call_is_not_parked),
        cmocka_unit_test(documents_count_as_they_grow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
