/* Hearing of a failover while the old primary still answers: it was cut off from the sentinels but
 * not from us, or they were told to switch by hand. It goes on taking writes, for ten seconds or
 * so, until it is told to follow the new one, and then they are lost.
 *
 * So every connection that was made through sentinels has a second one, to a sentinel, over which
 * it asks twice a second who the master is, and is dropped when that has changed. A sentinel that
 * has never agreed (it is late, cut off, or wrong for good) is left for the next one after
 * SWITCH_DOUBT_MS; when more than half of them in a row do not agree they are believed. */
#pragma once

#include "io/redis_link.h"

#define SWITCH_ASK_MS   500u
#define SWITCH_DOUBT_MS 4000u /* sentinels tell one another within two seconds */

struct link_switch;
/* For a link whose configuration has sentinels; lives as long as the link. */
struct link_switch *link_switch_open(struct redis_link *of);
void link_switch_close(struct link_switch *watch);
