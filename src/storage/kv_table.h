/* An ordered map of byte strings in memory: the skip list under storage/kv_mem.c (Pugh 1990).
 *
 * What it is not: durable or transactional; kv_mem.c adds both planes. Counted: whoever holds a
 * reference sees it as it is, so a writer that shares one copies it first (kv_table_copy shares
 * keys and values, which never change). Levels come from an own generator with a fixed seed, so two
 * tables with the same history are equal node by node. Invariant: keys strictly ascend by memcmp,
 * and each node has the checksum of its record. Thread: none; the reference counts are plain. */
#pragma once

#include "base/bytes.h"
#include "base/rand.h"

#define KV_TABLE_LEVELS_MAX 16U

struct kv_node {
    struct bytes *key;   /* owned reference; NULL in the head */
    struct bytes *value; /* owned reference */
    uint32_t crc;        /* of both */
    uint32_t levels;
    struct kv_node *next[]; /* borrowed, @levels of them */
};

struct kv_table {
    uint32_t refs;
    struct kv_node *head; /* owned, as all nodes */
    struct rng rng;
    uint64_t bytes; /* of all keys and values */
};

struct kv_table *kv_table_new(void) _must_check_; /* one reference; NULL: no memory */
struct kv_table *kv_table_ref(struct kv_table *t);
struct kv_table *kv_table_unref(struct kv_table *t); /* NULL allowed; returns NULL */
/* An independent table of the same records; NULL: no memory. */
struct kv_table *kv_table_copy(const struct kv_table *t) _must_check_;

/* A node for kv_table_link, its level drawn; takes a reference of both. NULL: no memory. */
struct kv_node *kv_table_node(struct kv_table *t, struct bytes *key,
                              struct bytes *value) _must_check_;
struct kv_node *kv_node_free(struct kv_node *n); /* not linked; NULL allowed; returns NULL */
/* Does the record still have its checksum? */
bool kv_node_intact(const struct kv_node *n);

/* The first node with a key >= @key, NULL at the end; @ret_before (may be NULL) gets the last node
 * before @key on each level. */
struct kv_node *kv_table_find(const struct kv_table *t, struct slice key,
                              struct kv_node *ret_before[KV_TABLE_LEVELS_MAX]);
/* The node of exactly @key, or NULL. */
struct kv_node *kv_table_get(const struct kv_table *t, struct slice key,
                             struct kv_node *ret_before[KV_TABLE_LEVELS_MAX]);
/* Insert @n, which becomes the table's, behind @before of its key. */
void kv_table_link(struct kv_table *t, struct kv_node *n,
                   struct kv_node *const before[KV_TABLE_LEVELS_MAX]);
/* Remove and free @n. */
void kv_table_remove(struct kv_table *t, struct kv_node *n,
                     struct kv_node *const before[KV_TABLE_LEVELS_MAX]);
/* Replace the value of @n; takes a reference of @value. */
void kv_table_set(struct kv_table *t, struct kv_node *n, struct bytes *value);
/* True when the keys ascend and every record has its checksum; otherwise *ret_nth is the first
 * that is wrong, counted from 0. */
bool kv_table_check(const struct kv_table *t, uint64_t *ret_nth);
