/*
 * Inside the digest engine: what digest.c (the work) and its two ways to read, digest_uring.c and digest_threads.c,
 * know of each other. Each way takes reads of one descriptor and gives them back when they are done, in any order.
 */
#ifndef PVEDRBDSTOR_DIGEST_H
#define PVEDRBDSTOR_DIGEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "native.h"

/* How long closing waits for reads that still run: milliseconds. */
enum { DIGEST_PATIENCE_MS = 1000 };

enum { DIGEST_MAX_DEPTH = 128 };

/* One read. It is the engine's from submit to reap; then result is the count of bytes, or -errno. */
struct digest_read {
	struct digest_read *next;
	unsigned char *memory;
	uint64_t offset;
	uint32_t length;
	int32_t result;
};

/* The monotonic clock in milliseconds. */
int64_t digest_now(void);

/* A request: read as a whole, or (block >= 0) block by block after that failed. index: of its first block in the answers. */
struct digest_slot {
	struct digest_read read;
	unsigned char *memory;
	uint64_t offset;
	uint64_t index;
	uint32_t length;
	uint32_t got;
	int32_t block;
	int32_t tries;
	bool stale;
};

struct digest_ring;
struct digest_crew;

/*
 * ring or crew: the engine. idle: the slots without a read, a stack. stale slots: their read is of a run that was given up,
 * and is only waited for. range, next, index: what is to be read next, the number of its range, its place on the device and that of
 * its digest. broken: the -errno of an engine that failed, after which nothing goes on.
 */
struct native_digest {
	struct native_digest_plan plan;
	struct digest_ring *ring;
	struct digest_crew *crew;
	int fd;
	int broken;
	unsigned char *memory;
	size_t mapped;
	atomic_bool cancelled;

	struct digest_slot slots[DIGEST_MAX_DEPTH + 1];
	struct digest_slot *idle[DIGEST_MAX_DEPTH + 1];
	uint32_t idle_count;
	uint32_t stale_count;
	uint32_t in_flight;

	const struct native_range *ranges;
	uint32_t range_count;
	uint32_t range;
	uint64_t next;
	uint64_t index;
	unsigned char *digests;
	int32_t *errors;
	int64_t failed;
};

/*
 * open: 0 or -errno. submit: 0 or -errno, never waits for the device. reap: 0 with a read that is done, or -ETIME when
 * none was within so many milliseconds, or -errno. close: 0 when no read runs any more; -EBUSY when some still may write
 * to their memory, which must then stay mapped.
 */
int digest_ring_open(struct digest_ring **made, int fd, uint32_t depth);
int digest_ring_submit(struct digest_ring *ring, struct digest_read *read);
int digest_ring_reap(struct digest_ring *ring, int64_t milliseconds, struct digest_read **done);
int digest_ring_close(struct digest_ring *ring);

int digest_crew_open(struct digest_crew **made, int fd, uint32_t depth);
int digest_crew_submit(struct digest_crew *crew, struct digest_read *read);
int digest_crew_reap(struct digest_crew *crew, int64_t milliseconds, struct digest_read **done);
int digest_crew_close(struct digest_crew *crew);

#endif
