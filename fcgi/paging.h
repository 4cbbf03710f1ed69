/* Lists in pages: `?limit` and `?after`, and what stands around the data:
 * `{"object":"list","data":[…],"has_more","last_id"}`. */
#pragma once

#include "fcgi/front.h"

#define PAGING_LIMIT     50u
#define PAGING_LIMIT_MAX 200u
/* How long a request looks for what its filter meets; then it answers with what it has. */
#define PAGING_MS 5000u

struct paging {
    uint32_t limit;     /* 1 to 200, else 50 */
    const char *after;  /* an id; NULL: from the newest, or `before_ms` */
    uint64_t before_ms; /* of `after=@MS`: where a page ended that had nothing to name; 0: none */
};
/* Reads `limit` and `after`. False: the response is a 400. */
bool paging_read(const struct request *request, struct response *response, struct paging *ret);
/* The 410 of an `after` that is not in the list any more. */
void paging_expired(struct exchange *exchange, struct response *response);
void paging_begin(struct buf *text);
/* `last_id` NULL or "": null; else what `after` goes on from. */
void paging_end(struct buf *text, bool has_more, const char *last_id);
