/*
 * The handle of the digest engine: digests of the blocks of a device, read with several requests in flight.
 *
 * A handle owns its engine, its descriptor and its memory, which is the same whatever is read. There is one more buffer
 * than reads in flight: the next read starts before what the last one brought is hashed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "digest.h"

/* HUGE_PAGE: the alignment the kernel wants for huge pages: fewer pieces to pin and to hand to the device. */
enum { MIN_BLOCK = 4096, MAX_BLOCK = 1 << 20, MAX_REQUEST = 16 << 20, HUGE_PAGE = 2 << 20 };

int64_t digest_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool power_of_two(uint32_t value)
{
	return value != 0 && (value & (value - 1)) == 0;
}

static bool sound(const struct native_digest_plan *plan)
{
	return power_of_two(plan->granularity) && plan->granularity >= MIN_BLOCK && plan->granularity <= MAX_BLOCK &&
	       power_of_two(plan->sector) && plan->granularity % plan->sector == 0 && plan->request <= MAX_REQUEST &&
	       plan->request >= plan->granularity && plan->request % plan->granularity == 0 && plan->depth >= 1 &&
	       plan->depth <= DIGEST_MAX_DEPTH && plan->engine <= NATIVE_DIGEST_THREADS;
}

static int map_buffers(struct native_digest *digest)
{
	uint32_t count = digest->plan.depth + 1;
	size_t needed = (size_t)count * digest->plan.request;
	unsigned char *first;
	void *memory;

	digest->mapped = needed + HUGE_PAGE;
	memory = mmap(NULL, digest->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return -errno;
	digest->memory = memory;
	first = digest->memory + (HUGE_PAGE - (uintptr_t)memory % HUGE_PAGE) % HUGE_PAGE;
	(void)madvise(first, needed, MADV_HUGEPAGE);
	/* A child that the caller forks must not share what the kernel writes to. */
	(void)madvise(memory, digest->mapped, MADV_DONTFORK);
	for (uint32_t i = 0; i < count; i++) {
		digest->slots[i].memory = first + (size_t)i * digest->plan.request;
		digest->idle[digest->idle_count++] = &digest->slots[i];
	}
	return 0;
}

static int open_engine(struct native_digest *digest)
{
	int result = 0;

	if (digest->plan.engine != NATIVE_DIGEST_THREADS) {
		result = digest_ring_open(&digest->ring, digest->fd, digest->plan.depth);
		if (result == 0 || digest->plan.engine == NATIVE_DIGEST_IO_URING)
			return result;
	}
	return digest_crew_open(&digest->crew, digest->fd, digest->plan.depth);
}

int digest_open(int fd, const struct native_digest_plan *plan, struct native_digest **made)
{
	struct native_digest *digest;
	int result;

	if (!sound(plan))
		return -EINVAL;
	digest = calloc(1, sizeof(*digest));
	if (digest == NULL)
		return -ENOMEM;
	digest->plan = *plan;
	digest->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	result = digest->fd < 0 ? -errno : map_buffers(digest);
	if (result == 0)
		result = open_engine(digest);
	if (result < 0) {
		(void)digest_close(digest);
		return result;
	}
	*made = digest;
	return 0;
}

int digest_close(struct native_digest *digest)
{
	int result = 0;

	if (digest->ring != NULL)
		result = digest_ring_close(digest->ring);
	if (digest->crew != NULL)
		result = digest_crew_close(digest->crew);
	if (digest->fd >= 0)
		close(digest->fd);
	/* Reads that never came back may still write: then their memory stays until the process ends. */
	if (result == -EBUSY)
		return result;
	if (digest->memory != NULL)
		munmap(digest->memory, digest->mapped);
	free(digest);
	return 0;
}

int digest_engine(const struct native_digest *digest)
{
	return digest->ring != NULL ? NATIVE_DIGEST_IO_URING : NATIVE_DIGEST_THREADS;
}

void digest_cancel(struct native_digest *digest)
{
	atomic_store(&digest->cancelled, true);
}
