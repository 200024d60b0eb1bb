/* The priority of the calling thread's I/O; glibc has no functions for it. */
#include <errno.h>
#include <linux/ioprio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "native.h"

/* ioprio_get(2): class and level as the kernel packs them. */
int sys_ioprio_get(void)
{
	long found = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0);

	return found < 0 ? -errno : (int)found;
}

/* ioprio_set(2). */
int sys_ioprio_set(int priority)
{
	return syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) < 0 ? -errno : 0;
}
