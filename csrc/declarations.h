/*
 * What pvedrbdstor._native offers to Python.
 *
 * build_native.py hands this file to cffi as it is, so it holds declarations alone: no #include, no #ifdef, no macro.
 * C sources include native.h instead. Every function makes one system call and returns >= 0, or -errno; cffi releases
 * the GIL for its time. Sizes and offsets are bytes.
 */

/* One extent of a file: struct fiemap_extent of linux/fiemap.h without its reserved fields. */
struct native_extent {
	uint64_t logical;
	uint64_t physical;
	uint64_t length;
	uint32_t flags;
	uint32_t padding;
};

/* struct statfs of statfs(2), the same on every architecture. */
struct native_statfs {
	uint64_t type;
	uint64_t bsize;
	uint64_t blocks;
	uint64_t bfree;
	uint64_t bavail;
	uint64_t files;
	uint64_t ffree;
	uint64_t namelen;
	uint64_t frsize;
	uint64_t flags;
	uint32_t fsid[2];
};

/* files.c */
int sys_fallocate(int fd, int mode, int64_t offset, int64_t length);
int64_t sys_lseek(int fd, int64_t offset, int whence);
int64_t sys_pread(int fd, void *buffer, size_t length, int64_t offset);
int64_t sys_pwrite(int fd, const void *buffer, size_t length, int64_t offset);
int sys_fsync(int fd);
int sys_fdatasync(int fd);
int sys_fstatfs(int fd, struct native_statfs *result);
int64_t sys_fs_ioc_getflags(int fd);
int sys_fs_ioc_setflags(int fd, uint32_t flags);

/* reflink.c */
int sys_ficlone(int source_fd, int target_fd);
int sys_ocfs2_ioc_reflink(int fd, const char *old_path, const char *new_path, int preserve);

/* extents.c */
int sys_fiemap(int fd, uint64_t start, uint64_t length, uint32_t flags, struct native_extent *extents, uint32_t count);

/* blockdev.c */
int64_t sys_blkgetsize64(int fd);
int sys_blksszget(int fd);
int64_t sys_blkpbszget(int fd);
