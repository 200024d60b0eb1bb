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

int main(int argc, char **argv)
{
	EXPECT(argc == 3);
	EXPECT(chdir(argv[1]) == 0);

	int fd = open("a", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int other = open("b", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int scattered = open("c", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int device = open(argv[2], O_RDONLY | O_CLOEXEC);

	EXPECT(fd >= 0 && other >= 0 && scattered >= 0 && device >= 0);
	transfer(fd);
	allocation(fd);
	file_system(fd);
	reflink(fd, other);
	extents(scattered);
	block_device(device, fd);
	close(device);
	close(scattered);
	close(other);
	close(fd);
	return 0;
}
