/* System calls on an open block device. */
#include <errno.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "native.h"

/* BLKGETSIZE64: the size of the device in bytes. */
int64_t sys_blkgetsize64(int fd)
{
	uint64_t size = 0;

	return ioctl(fd, BLKGETSIZE64, &size) < 0 ? -errno : (int64_t)size;
}

/* BLKSSZGET: the size of a logical sector in bytes, the unit of O_DIRECT. */
int sys_blksszget(int fd)
{
	int size = 0;

	return ioctl(fd, BLKSSZGET, &size) < 0 ? -errno : size;
}

/* BLKPBSZGET: the size of a physical sector in bytes. */
int64_t sys_blkpbszget(int fd)
{
	unsigned int size = 0;

	return ioctl(fd, BLKPBSZGET, &size) < 0 ? -errno : (int64_t)size;
}
