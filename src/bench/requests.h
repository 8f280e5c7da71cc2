/* Encoded requests, made once and sent millions of times. */
#pragma once

#include "base/bytes.h"

#define PATH_SUBMIT_JOB "/chronos.v1.JobService/SubmitJob"
#define PATH_SUBMIT_JOBS "/chronos.v1.JobService/SubmitJobs"
#define PATH_WATCH_JOBS "/chronos.v1.JobService/WatchJobs"
#define PATH_STATUS "/chronos.v1.ClusterService/GetClusterStatus"

#define REQUEST_BATCH_MAX 1000U

enum request_payload { REQUEST_NOOP, REQUEST_TRUE /* /bin/true */ };

/* NULL when memory is out. @payload_bytes: of an environment variable, to give the job a size. */
struct bytes *request_submit(enum request_payload what, size_t payload_bytes) _must_check_;
struct bytes *request_submit_batch(enum request_payload what, size_t payload_bytes,
                                   uint32_t jobs) _must_check_;
struct bytes *request_watch(uint64_t after_index) _must_check_;
struct bytes *request_status(void) _must_check_;
