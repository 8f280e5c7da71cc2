/* What the files of raft_world share. */
#pragma once

#include "raft_world.h"

#define CHECK(w, e) ((e) ? (void) 0 : world_check_failed((w), #e, __FILE__, __LINE__))

/* Fails the test, naming what w->what says. */
void world_check_failed(const struct world *w, const char *what, const char *file, int line);

void world_trace(struct world *w, const char *fmt, ...) _printf_(2, 3);
unsigned world_trace_context(struct world *w, uint64_t context);
void world_trace_config(struct world *w, const struct raft_config *c);
void world_trace_message(struct world *w, const struct raft_message *m);
void world_trace_entries(struct world *w, const struct raft_entry *e, size_t n);
bool world_entry_equal(const struct raft_entry *a, const struct raft_entry *b);
void world_check_commit(struct world *w, struct world_node *n, const struct raft_effects *fx);
void world_check_leader(struct world *w, struct world_node *n);
void world_check_peers(struct world *w, struct world_node *n);
void world_check_sent(struct world *w, struct world_node *n, const struct raft_message *m);

/* @p with room for one more than @count elements of @size bytes; *cap is their number. In place of
 * @p, which the caller owned; lack of memory fails the test, as everywhere here. */
void *world_grow(void *p, size_t *cap, size_t count, size_t size);
/* Owned, with references to the data; NULL when @n is 0. */
struct raft_entry *world_entries_copy(const struct raft_entry *e, size_t n);
/* Both the references and the array. */
void world_entries_free(struct raft_entry *e, size_t n);

/* ---- raft_world_disk.c ----------------------------------------------------------------------- */

/* Index of the newest entry on its disk. */
uint64_t world_disk_last(const struct world_node *n);
/* Of the entry at @index, which is on the disk or the last one that is gone. */
uint64_t world_disk_term(const struct world_node *n, uint64_t index);
/* The configuration in force at @index, and its own index; ret->count is 0 when there is none. */
void world_disk_config(struct world *w, const struct world_node *n, uint64_t index,
                       struct raft_config *ret, uint64_t *ret_index);
/* A batch reaches the disk, which takes its entries over; what may never be lost is checked. */
void world_disk_write(struct world *w, struct world_node *n, struct world_batch *b);
