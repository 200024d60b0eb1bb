/*
 * Runs every function of csrc/ over success and failure, for test_sanitizers.py to build with sanitizers.
 *
 *   sanitize_driver FOLDER DEVICE      FOLDER on a file system with reflink, DEVICE a block device
 *
 * Ends non-zero at the first answer that is not the one expected. Built with PLANT_OVERFLOW it overruns a buffer, which
 * shows that the sanitizers are watching.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/ioprio.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "native.h"

#define EXPECT(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "line %d: not so: %s\n", __LINE__, #condition); \
			exit(2); \
		} \
	} while (0)

enum { BLOCK = 4096, SCATTERED = 300 };

static void transfer(int fd)
{
	char *block = malloc(BLOCK);
	size_t length = BLOCK;

	EXPECT(block != NULL);
	memset(block, 'x', BLOCK);
#ifdef PLANT_OVERFLOW
	length += 1;
#endif
	EXPECT(sys_pwrite(fd, block, length, 0) == BLOCK);
	EXPECT(sys_pwrite(fd, block, length, -1) == -EINVAL);
	EXPECT(sys_pwrite(-1, block, length, 0) == -EBADF);
	EXPECT(sys_pread(fd, block, length, 0) == BLOCK);
	EXPECT(sys_pread(fd, block, BLOCK, BLOCK) == 0);
	EXPECT(sys_pread(fd, block, BLOCK, -1) == -EINVAL);
	EXPECT(sys_pread(-1, block, BLOCK, 0) == -EBADF);
	EXPECT(sys_fsync(fd) == 0);
	EXPECT(sys_fsync(-1) == -EBADF);
	EXPECT(sys_fdatasync(fd) == 0);
	EXPECT(sys_fdatasync(-1) == -EBADF);
	free(block);
}

static void allocation(int fd)
{
	EXPECT(sys_fallocate(fd, 0, BLOCK, BLOCK) == 0);
	EXPECT(sys_fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, BLOCK, BLOCK) == 0);
	EXPECT(sys_fallocate(fd, 0, -1, BLOCK) == -EINVAL);
	EXPECT(sys_fallocate(fd, 0, INT64_MAX, INT64_MAX) == -EFBIG);
	EXPECT(sys_fallocate(-1, 0, 0, BLOCK) == -EBADF);
	EXPECT(sys_lseek(fd, 0, SEEK_DATA) == 0);
	EXPECT(sys_lseek(fd, 0, SEEK_HOLE) == BLOCK);
	EXPECT(sys_lseek(fd, INT64_MAX, SEEK_DATA) == -ENXIO);
	EXPECT(sys_lseek(-1, 0, SEEK_DATA) == -EBADF);
}

static void file_system(int fd)
{
	struct native_statfs found;
	int64_t flags = sys_fs_ioc_getflags(fd);

	EXPECT(sys_fstatfs(fd, &found) == 0);
	EXPECT(found.type == XFS_SUPER_MAGIC && found.bsize == BLOCK && found.namelen == 255);
	EXPECT(sys_fstatfs(-1, &found) == -EBADF);
	EXPECT(flags >= 0);
	EXPECT(sys_fs_ioc_getflags(-1) == -EBADF);
	EXPECT(sys_fs_ioc_setflags(fd, (uint32_t)flags) == 0);
	EXPECT(sys_fs_ioc_setflags(fd, UINT32_MAX) == -EOPNOTSUPP);
	EXPECT(sys_fs_ioc_setflags(-1, 0) == -EBADF);
}

static void reflink(int fd, int other)
{
	EXPECT(sys_ficlone(fd, other) == 0);
	EXPECT(sys_ficlone(-1, other) == -EBADF);
	EXPECT(sys_ficlone(fd, -1) == -EBADF);
	EXPECT(sys_ocfs2_ioc_reflink(fd, "a", "b", 0) == -ENOTTY);
	EXPECT(sys_ocfs2_ioc_reflink(-1, "a", "b", 1) == -EBADF);
}

static void extents(int fd)
{
	struct native_extent *found = calloc(SCATTERED, sizeof(*found));

	EXPECT(found != NULL);
	/* The size first: XFS preallocates behind the end of a file that grows by writing. */
	EXPECT(ftruncate(fd, SCATTERED * 2 * BLOCK) == 0);
	for (int64_t i = 0; i < SCATTERED; i++)
		EXPECT(sys_pwrite(fd, "x", 1, i * 2 * BLOCK) == 1);
	EXPECT(sys_fiemap(fd, 0, UINT64_MAX, FIEMAP_FLAG_SYNC, found, 1) == 1);
	EXPECT(found[0].logical == 0 && found[1].length == 0);
	/* More than one call returns, and then the rest. */
	EXPECT(sys_fiemap(fd, 0, UINT64_MAX, 0, found, SCATTERED) == 256);
	EXPECT(found[255].logical == 255 * 2 * BLOCK);
	EXPECT(sys_fiemap(fd, 256 * 2 * BLOCK, UINT64_MAX - 256 * 2 * BLOCK, 0, found, SCATTERED) == SCATTERED - 256);
	EXPECT((found[SCATTERED - 257].flags & FIEMAP_EXTENT_LAST) != 0);
	EXPECT(sys_fiemap(fd, 0, BLOCK, 0, NULL, 0) == -EINVAL);
	EXPECT(sys_fiemap(fd, 0, 0, 0, found, 1) == -EINVAL);
	EXPECT(sys_fiemap(fd, 0, BLOCK, UINT32_MAX, found, 1) == -EBADR);
	EXPECT(sys_fiemap(-1, 0, BLOCK, 0, found, 1) == -EBADF);
	free(found);
}

static void block_device(int device, int fd)
{
	EXPECT(sys_blkgetsize64(device) > 0);
	EXPECT(sys_blkgetsize64(fd) == -ENOTTY);
	EXPECT(sys_blkgetsize64(-1) == -EBADF);
	EXPECT(sys_blksszget(device) == 512);
	EXPECT(sys_blksszget(fd) == -ENOTTY);
	EXPECT(sys_blkpbszget(device) >= 512);
	EXPECT(sys_blkpbszget(fd) == -ENOTTY);
}

/* LONG_RUN: blocks that no device reads in a millisecond. */
enum { GRANULES = 64, LONG_RUN = 1 << 17, STEP = 1000 };

static int ran_to_the_end(struct native_digest *digest)
{
	int result;

	do
		result = digest_run(digest, STEP);
	while (result == 1);
	return result;
}

/* A run over one range, which stays valid until the next one is begun. */
static int begin(struct native_digest *digest, uint64_t start, uint64_t length, unsigned char *digests, int32_t *errors)
{
	static struct native_range range;

	range = (struct native_range){ .start = start, .length = length };
	return digest_begin(digest, &range, 1, digests, errors);
}

/* Several ranges in one run, in any order, some of them empty: one digest after the other, each as in a run of its own. */
static void scattered(struct native_digest *digest, const unsigned char *expected)
{
	struct native_range ranges[GRANULES];
	unsigned char *values = malloc(GRANULES * 16);
	int32_t *errors = calloc(GRANULES, sizeof(*errors));

	EXPECT(values != NULL && errors != NULL);
	for (uint32_t i = 0; i < GRANULES; i++)
		ranges[i] = (struct native_range){ (uint64_t)(GRANULES - 1 - i) * BLOCK, i % 3 == 2 ? 0 : BLOCK };
	EXPECT(digest_begin(digest, ranges, GRANULES, values, errors) == 0);
	EXPECT(ran_to_the_end(digest) == 0);
	for (uint32_t i = 0, at = 0; i < GRANULES; i++)
		if (i % 3 != 2)
			EXPECT(memcmp(values + 16 * at++, expected + (size_t)(GRANULES - 1 - i) * 16, 16) == 0);
	EXPECT(digest_begin(digest, ranges + 2, 1, NULL, NULL) == 0);
	EXPECT(ran_to_the_end(digest) == 0);
	free(errors);
	free(values);
}

/* The first bytes of a device, with one way of reading, against a second look at them in other pieces. */
static void device_digests(int device, uint32_t engine)
{
	struct native_digest_plan plan = {
		.granularity = BLOCK, .request = 16 * BLOCK, .depth = 4, .sector = 512, .engine = engine
	};
	struct native_digest *digest = NULL;
	unsigned char *first = malloc(GRANULES * 16), *second = malloc(GRANULES * 16);
	int32_t *errors = calloc(GRANULES, sizeof(*errors));

	EXPECT(first != NULL && second != NULL && errors != NULL);
	EXPECT(digest_open(device, &plan, &digest) == 0);
	EXPECT(digest_engine(digest) == (int)engine);
	EXPECT(begin(digest, 1, BLOCK, first, errors) == -EINVAL);
	EXPECT(begin(digest, UINT64_MAX - BLOCK + 1, BLOCK, first, errors) == -EINVAL);
	EXPECT(begin(digest, 0, UINT64_MAX, first, errors) == -EINVAL);
	EXPECT(begin(digest, 0, (uint64_t)GRANULES * BLOCK, first, errors) == 0);
	EXPECT(digest_run(digest, 0) == 1);
	EXPECT(ran_to_the_end(digest) == 0);
	EXPECT(ran_to_the_end(digest) == 0);
	EXPECT(digest_failed(digest) == 0);
	for (uint64_t i = 0; i < GRANULES; i++) {
		EXPECT(begin(digest, i * BLOCK, BLOCK, second + i * 16, errors + i) == 0);
		EXPECT(ran_to_the_end(digest) == 0);
	}
	EXPECT(memcmp(first, second, GRANULES * 16) == 0);
	scattered(digest, first);
	/* What is given up half way writes no more to memory that has gone, and not to that of the next run. */
	for (uint64_t i = 0; i < 20; i++) {
		unsigned char *gone = malloc(LONG_RUN * 16), *next = malloc(16);
		int32_t *gone_errors = calloc(LONG_RUN, sizeof(*gone_errors)), next_error = -1;

		EXPECT(gone != NULL && next != NULL && gone_errors != NULL);
		EXPECT(begin(digest, 0, (uint64_t)LONG_RUN * BLOCK, gone, gone_errors) == 0);
		EXPECT(digest_run(digest, 1) == 1);
		digest_abandon(digest);
		free(gone_errors);
		free(gone);
		EXPECT(begin(digest, i * BLOCK, BLOCK, next, &next_error) == 0);
		EXPECT(ran_to_the_end(digest) == 0);
		EXPECT(next_error == 0 && memcmp(next, first + i * 16, 16) == 0);
		free(next);
	}
	EXPECT(begin(digest, 0, 0, NULL, NULL) == 0);
	EXPECT(ran_to_the_end(digest) == 0);
	digest_cancel(digest);
	EXPECT(begin(digest, 0, BLOCK, first, errors) == 0);
	EXPECT(digest_run(digest, STEP) == -ECANCELED);
	EXPECT(digest_close(digest) == 0);
	free(errors);
	free(second);
	free(first);
}

/* The end of a device, within a block and behind it. */
static void digests_at_the_end(int device, uint32_t engine)
{
	struct native_digest_plan plan = {
		.granularity = 1 << 20, .request = 1 << 20, .depth = 1, .sector = 512, .engine = engine
	};
	struct native_digest *digest = NULL;
	unsigned char values[3 * 16], zeroes[16] = { 0 };
	int32_t errors[3] = { 0 };
	uint64_t start = (uint64_t)sys_blkgetsize64(device) - (1 << 20);

	EXPECT(digest_open(device, &plan, &digest) == 0);
	EXPECT(begin(digest, start, (1 << 20) + 512 + (1 << 20), values, errors) == 0);
	EXPECT(ran_to_the_end(digest) == 0);
	EXPECT(digest_failed(digest) == 2);
	EXPECT(errors[0] == 0 && errors[1] == EIO && errors[2] == EIO);
	EXPECT(memcmp(values + 16, zeroes, 16) == 0 && memcmp(values, zeroes, 16) != 0);
	EXPECT(digest_close(digest) == 0);
}

static void digests_refused(int device)
{
	struct native_digest_plan plans[] = {
		{ .granularity = 0, .request = BLOCK, .depth = 1, .sector = 512 },
		{ .granularity = 2048, .request = BLOCK, .depth = 1, .sector = 512 },
		{ .granularity = 3 * BLOCK, .request = 3 * BLOCK, .depth = 1, .sector = 512 },
		{ .granularity = BLOCK, .request = BLOCK, .depth = 1, .sector = 2 * BLOCK },
		{ .granularity = BLOCK, .request = BLOCK, .depth = 1, .sector = 0 },
		{ .granularity = 2 * BLOCK, .request = BLOCK, .depth = 1, .sector = 512 },
		{ .granularity = BLOCK, .request = BLOCK + 512, .depth = 1, .sector = 512 },
		{ .granularity = BLOCK, .request = UINT32_MAX, .depth = 1, .sector = 512 },
		{ .granularity = BLOCK, .request = BLOCK, .depth = 0, .sector = 512 },
		{ .granularity = BLOCK, .request = BLOCK, .depth = UINT32_MAX, .sector = 512 },
		{ .granularity = BLOCK, .request = BLOCK, .depth = 1, .sector = 512, .engine = 3 },
	};
	struct native_digest_plan plan = { .granularity = BLOCK, .request = BLOCK, .depth = 1, .sector = 512 };
	struct native_digest *digest = NULL;

	for (size_t i = 0; i < sizeof(plans) / sizeof(*plans); i++)
		EXPECT(digest_open(device, &plans[i], &digest) == -EINVAL);
	EXPECT(digest_open(-1, &plan, &digest) == -EBADF);
	EXPECT(digest == NULL);
}

/* To the idle class, which every process may take, and no further: this process ends with it. */
static void priority(void)
{
	int idle = IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0);

	EXPECT(sys_ioprio_get() >= 0);
	EXPECT(sys_ioprio_set(idle) == 0);
	EXPECT(IOPRIO_PRIO_CLASS(sys_ioprio_get()) == IOPRIO_CLASS_IDLE);
	EXPECT(sys_ioprio_set(IOPRIO_PRIO_VALUE(7, 0)) == -EINVAL);
}

int main(int argc, char **argv)
{
	EXPECT(argc == 3);
	EXPECT(chdir(argv[1]) == 0);

	int fd = open("a", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int other = open("b", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int scattered = open("c", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int device = open(argv[2], O_RDONLY | O_CLOEXEC);
	int direct = open(argv[2], O_RDONLY | O_CLOEXEC | O_DIRECT);

	EXPECT(fd >= 0 && other >= 0 && scattered >= 0 && device >= 0 && direct >= 0);
	transfer(fd);
	allocation(fd);
	file_system(fd);
	reflink(fd, other);
	extents(scattered);
	block_device(device, fd);
	digests_refused(direct);
#ifndef WITHOUT_IO_URING
	device_digests(direct, NATIVE_DIGEST_IO_URING);
	digests_at_the_end(direct, NATIVE_DIGEST_IO_URING);
#endif
	device_digests(direct, NATIVE_DIGEST_THREADS);
	digests_at_the_end(direct, NATIVE_DIGEST_THREADS);
	priority();
	close(direct);
	close(device);
	close(scattered);
	close(other);
	close(fd);
	return 0;
}
