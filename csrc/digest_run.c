/*
 * A run of the digest engine: requests, blocks, and their hash: XXH3 with 128 bits in its canonical form (big endian).
 */
#include <errno.h>
#include <string.h>
#include <xxhash.h>
#if defined(__x86_64__) && __has_include(<xxh_x86dispatch.h>)
#include <xxh_x86dispatch.h> /* the same hash by the widest registers that the processor has */
#endif

#include "digest.h"

/* TRIES: of a block that the kernel was only too busy to read. */
enum { WHOLE = -1, TRIES = 10 };

/* --- blocks ----------------------------------------------------------------------------------------------------- */

static uint32_t least(uint32_t a, uint64_t b)
{
	return a < b ? a : (uint32_t)b;
}

/* Hash one block of a slot, from the start of the given memory. */
static void hash(const struct native_digest *digest, const struct digest_slot *slot, uint32_t block, const unsigned char *memory)
{
	uint32_t granularity = digest->plan.granularity;
	uint32_t length = least(granularity, slot->length - block * granularity);
	uint64_t index = slot->index + block;
	XXH128_canonical_t canonical;

	XXH128_canonicalFromHash(&canonical, XXH3_128bits(memory, length));
	memcpy(digest->digests + index * sizeof(canonical), &canonical, sizeof(canonical));
	digest->errors[index] = 0;
}

static void mark(struct native_digest *digest, const struct digest_slot *slot, uint32_t block, int32_t error)
{
	uint64_t index = slot->index + block;

	memset(digest->digests + index * sizeof(XXH128_canonical_t), 0, sizeof(XXH128_canonical_t));
	digest->errors[index] = error;
	digest->failed++;
}

static uint32_t blocks_of(const struct native_digest *digest, const struct digest_slot *slot)
{
	return (slot->length + digest->plan.granularity - 1) / digest->plan.granularity;
}

/* --- requests --------------------------------------------------------------------------------------------------- */

static int submit(struct native_digest *digest, struct digest_slot *slot)
{
	digest->in_flight++;
	return digest->ring != NULL ? digest_ring_submit(digest->ring, &slot->read)
				    : digest_crew_submit(digest->crew, &slot->read);
}

static int reap(struct native_digest *digest, int64_t milliseconds, struct digest_slot **slot)
{
	struct digest_read *read = NULL;
	int result = digest->ring != NULL ? digest_ring_reap(digest->ring, milliseconds, &read)
					  : digest_crew_reap(digest->crew, milliseconds, &read);

	*slot = (struct digest_slot *)read; /* its first member */
	if (result == 0)
		digest->in_flight--;
	return result;
}

/* Submit a read of a slot's bytes from a place in it. O_DIRECT wants whole sectors, also at the end of a file. */
static int submit_part(struct native_digest *digest, struct digest_slot *slot, uint32_t from, uint32_t length)
{
	uint32_t sector = digest->plan.sector;

	slot->read.offset = slot->offset + from;
	slot->read.memory = slot->memory + from;
	slot->read.length = (length + sector - 1) / sector * sector;
	return submit(digest, slot);
}

/* Go on with this range, or the next one that has anything in it. */
static void enter(struct native_digest *digest, uint32_t range)
{
	while (range < digest->range_count && digest->ranges[range].length == 0)
		range++;
	digest->range = range;
	if (range < digest->range_count)
		digest->next = digest->ranges[range].start;
}

/* Keep as many reads in flight as planned, while there is something left to read. A request lies in one range. */
static int fill(struct native_digest *digest)
{
	while (digest->range < digest->range_count && digest->in_flight < digest->plan.depth && digest->idle_count > 0) {
		const struct native_range *range = &digest->ranges[digest->range];
		uint64_t end = range->start + range->length;
		struct digest_slot *slot = digest->idle[--digest->idle_count];
		int result;

		slot->offset = digest->next;
		slot->length = least(digest->plan.request, end - digest->next);
		slot->index = digest->index;
		slot->block = WHOLE;
		slot->stale = false;
		digest->next += slot->length;
		digest->index += blocks_of(digest, slot);
		if (digest->next == end)
			enter(digest, digest->range + 1);
		result = submit_part(digest, slot, 0, slot->length);
		if (result < 0)
			return result;
	}
	return 0;
}

static void release(struct native_digest *digest, struct digest_slot *slot)
{
	digest->idle[digest->idle_count++] = slot;
}

/* Read the next block of a request that failed as a whole; after the last one the slot is free. */
static int next_block(struct native_digest *digest, struct digest_slot *slot)
{
	uint32_t granularity = digest->plan.granularity;
	uint32_t block = (uint32_t)++slot->block;

	if (block == blocks_of(digest, slot)) {
		release(digest, slot);
		return 0;
	}
	slot->got = 0;
	slot->tries = 0;
	return submit_part(digest, slot, block * granularity, least(granularity, slot->length - block * granularity));
}

static bool busy(int32_t result)
{
	return result == -EAGAIN || result == -EINTR || result == -ENOMEM;
}

/* One read of a single block is done: read the rest of it, or try again, or hash or mark it and go on. */
static int settle_block(struct native_digest *digest, struct digest_slot *slot)
{
	uint32_t granularity = digest->plan.granularity;
	uint32_t block = (uint32_t)slot->block, begin = block * granularity;
	uint32_t wanted = least(granularity, slot->length - begin);
	int32_t result = slot->read.result;

	if (busy(result) && ++slot->tries < TRIES)
		return submit_part(digest, slot, begin + slot->got, wanted - slot->got);
	if (result > 0)
		slot->got += (uint32_t)result;
	if (slot->got >= wanted)
		hash(digest, slot, block, slot->memory + begin);
	else if (result > 0 && (uint32_t)result % digest->plan.sector == 0)
		return submit_part(digest, slot, begin + slot->got, wanted - slot->got);
	else
		mark(digest, slot, block, result < 0 ? -result : EIO); /* EIO: what should be there has an end */
	return next_block(digest, slot);
}

static int settle(struct native_digest *digest, struct digest_slot *slot)
{
	if (slot->stale) {
		digest->stale_count--;
		release(digest, slot);
		return 0;
	}
	if (slot->block != WHOLE)
		return settle_block(digest, slot);
	if (slot->read.result < 0 || (uint32_t)slot->read.result < slot->length)
		return next_block(digest, slot);
	for (uint32_t block = 0; block < blocks_of(digest, slot); block++)
		hash(digest, slot, block, slot->memory + (size_t)block * digest->plan.granularity);
	release(digest, slot);
	return 0;
}

/* --- runs ------------------------------------------------------------------------------------------------------- */

int digest_begin(struct native_digest *digest, const struct native_range *ranges, uint32_t count, unsigned char *digests,
		 int32_t *errors)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t start = ranges[i].start, length = ranges[i].length;

		if (start % digest->plan.granularity != 0 || start > INT64_MAX || length > INT64_MAX - start)
			return -EINVAL;
	}
	digest_abandon(digest);
	digest->ranges = ranges;
	digest->range_count = count;
	digest->index = 0;
	digest->digests = digests;
	digest->errors = errors;
	digest->failed = 0;
	enter(digest, 0);
	return 0;
}

void digest_abandon(struct native_digest *digest)
{
	bool is_idle[DIGEST_MAX_DEPTH + 1] = { false };

	for (uint32_t i = 0; i < digest->idle_count; i++)
		is_idle[digest->idle[i] - digest->slots] = true;
	digest->stale_count = 0;
	for (uint32_t i = 0; i <= digest->plan.depth; i++) {
		digest->slots[i].stale = !is_idle[i];
		digest->stale_count += !is_idle[i];
	}
	digest->ranges = NULL;
	digest->range_count = digest->range = 0;
}

static bool finished(const struct native_digest *digest)
{
	return digest->range == digest->range_count && digest->idle_count + digest->stale_count == digest->plan.depth + 1;
}

/* One step: start what can be started, wait for one read, deal with it. 1: it goes on, 0: all is done, or -errno. */
static int step(struct native_digest *digest, int64_t milliseconds)
{
	struct digest_slot *slot = NULL;
	int result = fill(digest);

	if (result < 0)
		return result;
	if (finished(digest))
		return 0;
	result = reap(digest, milliseconds, &slot);
	if (result == -ETIME)
		return 1;
	/* The buffer to spare takes the next read before this one's is hashed. */
	if (result == 0)
		result = fill(digest);
	if (result == 0)
		result = settle(digest, slot);
	return result < 0 ? result : 1;
}

int digest_run(struct native_digest *digest, uint32_t milliseconds)
{
	int64_t until = digest_now() + milliseconds;
	int result = 1;

	while (result == 1) {
		int64_t left = until - digest_now();

		if (atomic_load(&digest->cancelled))
			return -ECANCELED;
		if (digest->broken < 0)
			return digest->broken;
		if (left <= 0)
			return 1;
		result = step(digest, left);
		if (result < 0)
			digest->broken = result;
	}
	return result;
}

int64_t digest_failed(const struct native_digest *digest)
{
	return digest->failed;
}
