/* Encoded requests, made once and sent millions of times. */
#pragma once

#include "base/bytes.h"

#define PATH_SUBMIT_JOB "/chronos.v1.JobService/SubmitJob"
#define PATH_SUBMIT_JOBS "/chronos.v1.JobService/SubmitJobs"
#define PATH_WATCH_JOBS "/chronos.v1.JobService/WatchJobs"
#define PATH_GET_JOB "/chronos.v1.JobService/GetJob"
#define PATH_TRANSFER "/chronos.v1.ClusterService/TransferLeader"
#define PATH_REPLACE "/chronos.v1.ClusterService/ReplaceNode"
#define PATH_STATUS "/chronos.v1.ClusterService/GetClusterStatus"

#define REQUEST_BATCH_MAX 1000U

enum request_payload { REQUEST_NOOP, REQUEST_TRUE /* /bin/true */ };

/* NULL when memory is out. @payload_bytes: of an environment variable, to give the job a size. From
 * 1 KiB on it is random text, another in each job: what a store would compress to nothing is no
 * state worth measuring. */
struct bytes *request_submit(enum request_payload what, size_t payload_bytes) _must_check_;
struct bytes *request_submit_batch(enum request_payload what, size_t payload_bytes,
                                   uint32_t jobs) _must_check_;
struct bytes *request_watch(uint64_t after_index) _must_check_;
struct bytes *request_status(void) _must_check_;
struct bytes *request_get_job(struct slice id) _must_check_;
struct bytes *request_transfer(uint64_t to) _must_check_;
struct bytes *request_replace(uint64_t old_id, uint64_t new_id, const char *peer_address,
                              const char *client_address) _must_check_;
