/*
 * The digest engine's reads through threads that call pread(2), where the kernel refuses io_uring.
 *
 * The threads are detached and count as users of the crew: one that hangs in a read outlives its closing, and the last
 * user frees it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "digest.h"

enum { STACK_BYTES = 128 * 1024 };

struct queue {
	struct digest_read *first;
	struct digest_read **end;
};

struct digest_crew {
	pthread_mutex_t lock;
	pthread_cond_t more_to_do;
	pthread_cond_t some_done;
	struct queue todo;
	struct queue done;
	uint32_t users;
	bool closing;
	int fd;
};

static void put(struct queue *queue, struct digest_read *read)
{
	read->next = NULL;
	*queue->end = read;
	queue->end = &read->next;
}

static struct digest_read *take(struct queue *queue)
{
	struct digest_read *read = queue->first;

	if (read != NULL) {
		queue->first = read->next;
		if (queue->first == NULL)
			queue->end = &queue->first;
	}
	return read;
}

/* With the lock held, which it lets go of. */
static void leave(struct digest_crew *crew)
{
	bool last = --crew->users == 0;

	pthread_cond_broadcast(&crew->some_done);
	pthread_mutex_unlock(&crew->lock);
	if (!last)
		return;
	close(crew->fd);
	pthread_cond_destroy(&crew->some_done);
	pthread_cond_destroy(&crew->more_to_do);
	pthread_mutex_destroy(&crew->lock);
	free(crew);
}

static void *work(void *argument)
{
	struct digest_crew *crew = argument;

	pthread_mutex_lock(&crew->lock);
	while (!crew->closing) {
		struct digest_read *read = take(&crew->todo);
		ssize_t moved;

		if (read == NULL) {
			pthread_cond_wait(&crew->more_to_do, &crew->lock);
			continue;
		}
		pthread_mutex_unlock(&crew->lock);
		moved = pread(crew->fd, read->memory, read->length, (off_t)read->offset);
		read->result = moved < 0 ? -errno : (int32_t)moved;
		pthread_mutex_lock(&crew->lock);
		put(&crew->done, read);
		pthread_cond_signal(&crew->some_done);
	}
	leave(crew);
	return NULL;
}

/* Start the threads: with small stacks, and deaf to signals, which are for the caller's own threads. */
static int hire(struct digest_crew *crew, uint32_t depth)
{
	pthread_attr_t attributes;
	pthread_t thread;
	sigset_t all, before;
	int error = pthread_attr_init(&attributes);

	if (error != 0)
		return -error;
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_mutex_lock(&crew->lock);
	for (uint32_t i = 0; i < depth && error == 0; i++) {
		error = pthread_create(&thread, &attributes, work, crew);
		if (error == 0)
			crew->users++;
	}
	pthread_mutex_unlock(&crew->lock);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return -error;
}

/* The descriptor is a copy: a thread may need it after the caller has closed its own. */
int digest_crew_open(struct digest_crew **made, int fd, uint32_t depth)
{
	struct digest_crew *crew = calloc(1, sizeof(*crew));
	pthread_condattr_t monotonic;
	int result;

	if (crew == NULL)
		return -ENOMEM;
	crew->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (crew->fd < 0) {
		result = -errno;
		free(crew);
		return result;
	}
	crew->users = 1;
	crew->todo.end = &crew->todo.first;
	crew->done.end = &crew->done.first;
	pthread_mutex_init(&crew->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&crew->more_to_do, NULL);
	pthread_cond_init(&crew->some_done, &monotonic);
	pthread_condattr_destroy(&monotonic);
	result = hire(crew, depth);
	if (result < 0) {
		(void)digest_crew_close(crew);
		return result;
	}
	*made = crew;
	return 0;
}

int digest_crew_submit(struct digest_crew *crew, struct digest_read *read)
{
	pthread_mutex_lock(&crew->lock);
	put(&crew->todo, read);
	pthread_cond_signal(&crew->more_to_do);
	pthread_mutex_unlock(&crew->lock);
	return 0;
}

/* Wait for a sign of the threads, with the lock held, until a time of the monotonic clock; false when it has come. */
static bool wait_for_sign(struct digest_crew *crew, int64_t until)
{
	struct timespec end = { .tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000 };

	return pthread_cond_timedwait(&crew->some_done, &crew->lock, &end) != ETIMEDOUT;
}

int digest_crew_reap(struct digest_crew *crew, int64_t milliseconds, struct digest_read **done)
{
	int64_t until = digest_now() + milliseconds;

	pthread_mutex_lock(&crew->lock);
	do
		*done = take(&crew->done);
	while (*done == NULL && wait_for_sign(crew, until));
	pthread_mutex_unlock(&crew->lock);
	return *done == NULL ? -ETIME : 0;
}

int digest_crew_close(struct digest_crew *crew)
{
	int64_t until = digest_now() + DIGEST_PATIENCE_MS;
	bool alone;

	pthread_mutex_lock(&crew->lock);
	crew->closing = true;
	pthread_cond_broadcast(&crew->more_to_do);
	while (crew->users > 1 && wait_for_sign(crew, until))
		;
	alone = crew->users == 1;
	leave(crew);
	return alone ? 0 : -EBUSY;
}
