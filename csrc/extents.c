/* The map of a file's extents. */
#include <errno.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "native.h"

/* As many as one call may return: the kernel wants header and extents in one piece, and this one lies on the stack. */
enum { EXTENTS_A_CALL = 256 };

/*
 * FS_IOC_FIEMAP (Documentation/filesystems/fiemap.rst): the first extents that touch start..start+length, at most count
 * and at most EXTENTS_A_CALL of them. Returns how many were stored.
 */
int sys_fiemap(int fd, uint64_t start, uint64_t length, uint32_t flags, struct native_extent *extents, uint32_t count)
{
	union {
		struct fiemap request;
		char room[sizeof(struct fiemap) + EXTENTS_A_CALL * sizeof(struct fiemap_extent)];
	} map;
	const struct fiemap_extent *found = map.request.fm_extents;

	/* With no room the kernel would only count, and the count is not what this function returns. */
	if (count == 0)
		return -EINVAL;
	map.request = (struct fiemap){
		.fm_start = start,
		.fm_length = length,
		.fm_flags = flags,
		.fm_extent_count = count < EXTENTS_A_CALL ? count : EXTENTS_A_CALL,
	};
	if (ioctl(fd, FS_IOC_FIEMAP, &map.request) < 0)
		return -errno;
	for (uint32_t i = 0; i < map.request.fm_mapped_extents; i++)
		extents[i] = (struct native_extent){
			.logical = found[i].fe_logical,
			.physical = found[i].fe_physical,
			.length = found[i].fe_length,
			.flags = found[i].fe_flags,
		};
	return (int)map.request.fm_mapped_extents;
}
