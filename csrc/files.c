/* System calls on an open file: allocation, position, transfer, durability, file system, inode flags. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "native.h"

_Static_assert(sizeof(off_t) == 8, "offsets must have 64 bits");

/* fallocate(2). Linux's own call: posix_fallocate() would write zeroes where the file system cannot allocate. */
int sys_fallocate(int fd, int mode, int64_t offset, int64_t length)
{
	return fallocate(fd, mode, offset, length) < 0 ? -errno : 0;
}

/* lseek(2), for SEEK_DATA and SEEK_HOLE. */
int64_t sys_lseek(int fd, int64_t offset, int whence)
{
	off_t position = lseek(fd, offset, whence);

	return position < 0 ? -errno : position;
}

/* pread(2). May read less than asked for. */
int64_t sys_pread(int fd, void *buffer, size_t length, int64_t offset)
{
	ssize_t done = pread(fd, buffer, length, offset);

	return done < 0 ? -errno : done;
}

/* pwrite(2). May write less than asked for. */
int64_t sys_pwrite(int fd, const void *buffer, size_t length, int64_t offset)
{
	ssize_t done = pwrite(fd, buffer, length, offset);

	return done < 0 ? -errno : done;
}

/* fsync(2). */
int sys_fsync(int fd)
{
	return fsync(fd) < 0 ? -errno : 0;
}

/* fdatasync(2). */
int sys_fdatasync(int fd)
{
	return fdatasync(fd) < 0 ? -errno : 0;
}

/* fstatfs(2). The type keeps its 32 bits: glibc's field is signed, and narrower on some architectures. */
int sys_fstatfs(int fd, struct native_statfs *result)
{
	struct statfs found;

	if (fstatfs(fd, &found) < 0)
		return -errno;
	*result = (struct native_statfs){
		.type = (uint32_t)found.f_type,
		.bsize = (uint64_t)found.f_bsize,
		.blocks = found.f_blocks,
		.bfree = found.f_bfree,
		.bavail = found.f_bavail,
		.files = found.f_files,
		.ffree = found.f_ffree,
		.namelen = (uint64_t)found.f_namelen,
		.frsize = (uint64_t)found.f_frsize,
		.flags = (uint64_t)found.f_flags,
		.fsid = { (uint32_t)found.f_fsid.__val[0], (uint32_t)found.f_fsid.__val[1] },
	};
	return 0;
}

/* FS_IOC_GETFLAGS of ioctl_iflags(2). Its number says long, but the kernel stores an int. */
int64_t sys_fs_ioc_getflags(int fd)
{
	unsigned int flags = 0;

	return ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0 ? -errno : (int64_t)flags;
}

/* FS_IOC_SETFLAGS of ioctl_iflags(2). Its number says long, but the kernel reads an int. */
int sys_fs_ioc_setflags(int fd, uint32_t flags)
{
	unsigned int wanted = flags;

	return ioctl(fd, FS_IOC_SETFLAGS, &wanted) < 0 ? -errno : 0;
}
