/* The digest engine's reads through io_uring (io_uring(7)). */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

#include "digest.h"

struct digest_ring {
	struct io_uring ring;
	int fd;
	uint32_t running;
};

static struct __kernel_timespec timespec_of(int64_t milliseconds)
{
	return (struct __kernel_timespec){
		.tv_sec = milliseconds / 1000,
		.tv_nsec = milliseconds % 1000 * 1000000,
	};
}

/* One operation that does nothing, there and back: a filter may allow the setup and refuse what follows. */
static int try_ring(struct io_uring *ring)
{
	struct __kernel_timespec patience = timespec_of(DIGEST_PATIENCE_MS);
	struct io_uring_sqe *entry = io_uring_get_sqe(ring);
	struct io_uring_cqe *done = NULL;
	int result;

	if (entry == NULL)
		return -EBUSY;
	io_uring_prep_nop(entry);
	result = io_uring_submit(ring);
	if (result < 0)
		return result;
	result = io_uring_wait_cqe_timeout(ring, &done, &patience);
	if (result < 0)
		return result;
	result = done->res;
	io_uring_cqe_seen(ring, done);
	return result;
}

int digest_ring_open(struct digest_ring **made, int fd, uint32_t depth)
{
	struct digest_ring *ring = calloc(1, sizeof(*ring));
	int result;

	if (ring == NULL)
		return -ENOMEM;
	ring->fd = fd;
	/* One entry more than reads, for their cancellation. */
	result = io_uring_queue_init(depth + 1, &ring->ring, 0);
	if (result < 0) {
		free(ring);
		return result;
	}
	result = try_ring(&ring->ring);
	if (result < 0) {
		io_uring_queue_exit(&ring->ring);
		free(ring);
		return result;
	}
	*made = ring;
	return 0;
}

/* Hand what is queued to the kernel; an entry it did not take is still queued, and goes with the next call. */
static int flush(struct io_uring *ring)
{
	int result;

	do
		result = io_uring_submit(ring);
	while (result == -EINTR);
	return result == -EAGAIN || result == -EBUSY ? 0 : result;
}

int digest_ring_submit(struct digest_ring *ring, struct digest_read *read)
{
	struct io_uring_sqe *entry = io_uring_get_sqe(&ring->ring);
	int result;

	if (entry == NULL)
		return -EBUSY;
	io_uring_prep_read(entry, ring->fd, read->memory, read->length, read->offset);
	io_uring_sqe_set_data(entry, read);
	ring->running++;
	result = flush(&ring->ring);
	return result < 0 ? result : 0;
}

int digest_ring_reap(struct digest_ring *ring, int64_t milliseconds, struct digest_read **done)
{
	struct __kernel_timespec patience = timespec_of(milliseconds);
	struct io_uring_cqe *entry = NULL;
	int result;

	if (io_uring_sq_ready(&ring->ring) > 0) {
		result = flush(&ring->ring);
		if (result < 0)
			return result;
	}
	result = io_uring_peek_cqe(&ring->ring, &entry);
	if (result < 0)
		result = io_uring_wait_cqe_timeout(&ring->ring, &entry, &patience);
	if (result < 0)
		return result == -EINTR || result == -EAGAIN ? -ETIME : result;
	*done = io_uring_cqe_get_data(entry);
	if (*done != NULL) {
		(*done)->result = entry->res;
		ring->running--;
	}
	io_uring_cqe_seen(&ring->ring, entry);
	return *done == NULL ? -ETIME : 0;
}

/* Ask the kernel to give up all reads; those a device already has come back when it answers. */
static void cancel_all(struct io_uring *ring)
{
	struct io_uring_sqe *entry = io_uring_get_sqe(ring);

	if (entry == NULL)
		return;
	io_uring_prep_cancel(entry, NULL, IORING_ASYNC_CANCEL_ANY);
	io_uring_sqe_set_data(entry, NULL);
	(void)flush(ring);
}

int digest_ring_close(struct digest_ring *ring)
{
	int64_t end = digest_now() + DIGEST_PATIENCE_MS;
	uint32_t running;
	struct digest_read *done = NULL;

	if (ring->running > 0)
		cancel_all(&ring->ring);
	while (ring->running > 0 && digest_now() < end) {
		int result = digest_ring_reap(ring, end - digest_now(), &done);

		if (result < 0 && result != -ETIME)
			break;
	}
	running = ring->running;
	io_uring_queue_exit(&ring->ring);
	free(ring);
	return running > 0 ? -EBUSY : 0;
}
