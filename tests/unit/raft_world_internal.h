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
/* Index of the newest entry on its disk. */
uint64_t world_disk_last(const struct world_node *n);
bool world_entry_equal(const struct raft_entry *a, const struct raft_entry *b);
void world_check_commit(struct world *w, struct world_node *n, const struct raft_effects *fx);
void world_check_leader(struct world *w, struct world_node *n);
void world_check_peers(struct world *w, struct world_node *n);
void world_check_sent(struct world *w, struct world_node *n, const struct raft_message *m);
