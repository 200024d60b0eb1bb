/*
 * What pvedrbdstor._native offers to Python.
 *
 * build_native.py hands this file to cffi as it is, so it holds declarations alone: no #include, no #ifdef, no macro.
 * C sources include native.h instead. Every sys_* function makes one system call and returns >= 0, or -errno; cffi releases
 * the GIL for its time. The digest_* functions are an engine with a handle (README.md). Sizes and offsets are bytes.
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

/* priority.c */
int sys_ioprio_get(void);
int sys_ioprio_set(int priority);

/* How a digest engine reads. AUTO: through io_uring, or with threads where the kernel refuses that. */
enum { NATIVE_DIGEST_AUTO = 0, NATIVE_DIGEST_IO_URING = 1, NATIVE_DIGEST_THREADS = 2 };

/* granularity: of the digests; request: of a read; depth: reads in flight; sector: the unit of offsets and lengths. */
struct native_digest_plan {
	uint32_t granularity;
	uint32_t request;
	uint32_t depth;
	uint32_t sector;
	uint32_t engine;
};

struct native_digest;

/* A part of a device. */
struct native_range {
	uint64_t start;
	uint64_t length;
};

/*
 * digest.c, the handle. One thread at a time may use it; digest_cancel alone may come from any, at any time before the close.
 *
 * digest_open: 0 or -errno. The handle has a descriptor of its own.
 * digest_engine: NATIVE_DIGEST_IO_URING or NATIVE_DIGEST_THREADS.
 * digest_cancel: every run of this handle, now and later, ends with -ECANCELED.
 * digest_close: 0, or -EBUSY when reads did not come back in time; their memory stays, and the handle is gone in any case.
 */
int digest_open(int fd, const struct native_digest_plan *plan, struct native_digest **made);
int digest_engine(const struct native_digest *digest);
void digest_cancel(struct native_digest *digest);
int digest_close(struct native_digest *digest);

/*
 * digest_run.c, a run.
 *
 * digest_begin: set out ranges; 0 or -errno. digests: room for 16 bytes a block, one range's after the other's, errors: for one
 * number; these and the ranges must be valid until the run is done or abandoned.
 * digest_run: work on it for about so many milliseconds: 1 when there is more to do, 0 when all is done, or -errno when
 * nothing of it can go on. A block that cannot be read is no such failure: its errno is in errors, and its digest is zeroes.
 * digest_failed: how many blocks have an errno.
 * digest_abandon: forget the ranges; nothing is written to digests and errors any more.
 */
int digest_begin(struct native_digest *digest, const struct native_range *ranges, uint32_t count, unsigned char *digests,
		 int32_t *errors);
int digest_run(struct native_digest *digest, uint32_t milliseconds);
int64_t digest_failed(const struct native_digest *digest);
void digest_abandon(struct native_digest *digest);
