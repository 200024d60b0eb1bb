/* System calls that make one file share the blocks of another. */
#include <errno.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "native.h"

/* From fs/ocfs2/ocfs2_ioctl.h, which the kernel does not export to user space. */
struct reflink_arguments {
	uint64_t old_path;
	uint64_t new_path;
	uint64_t preserve;
};

#define OCFS2_IOC_REFLINK _IOW('o', 4, struct reflink_arguments)

/* FICLONE of ioctl_ficlone(2): the target gets all of the source's contents, shared. */
int sys_ficlone(int source_fd, int target_fd)
{
	return ioctl(target_fd, FICLONE, source_fd) < 0 ? -errno : 0;
}

/* OCFS2_IOC_REFLINK (fs/ocfs2/ioctl.c): makes new_path a reflink of old_path. fd is any file of the file system. */
int sys_ocfs2_ioc_reflink(int fd, const char *old_path, const char *new_path, int preserve)
{
	struct reflink_arguments arguments = {
		.old_path = (uintptr_t)old_path,
		.new_path = (uintptr_t)new_path,
		.preserve = preserve != 0,
	};

	return ioctl(fd, OCFS2_IOC_REFLINK, &arguments) < 0 ? -errno : 0;
}
