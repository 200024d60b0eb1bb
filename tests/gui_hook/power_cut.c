// A test's power switch for one program: preloaded into it (LD_PRELOAD), it counts the calls that change a file system,
// notes each in the file $POWER_CUT_LOG, and kills the process instead of making number $POWER_CUT_AT.
//
// With $POWER_CUT_ALL its whole process group dies; with $POWER_CUT_STOPS it is stopped there instead, until it gets a SIGCONT.
//
// So the program under test has no fault points of its own. Processes other than the one whose command line holds
// $POWER_CUT_WHO are left alone: a package's scripts start many.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define NEXT(name) __typeof__(name) *really = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static int wanted; // whether this process is meant
static char log_path[256];
static int deadly = SIGKILL, whole_group, limit, calls;

// Before main(), which may change its environment.
__attribute__((constructor)) static void begin(void)
{
    const char *who = getenv("POWER_CUT_WHO"), *log = getenv("POWER_CUT_LOG"), *at = getenv("POWER_CUT_AT");
    char line[512];
    FILE *file = fopen("/proc/self/cmdline", "r");
    size_t size = file ? fread(line, 1, sizeof line - 1, file) : 0;

    if (file)
        fclose(file);
    if (!who || !log || !size)
        return;
    wanted = memmem(line, size, who, strlen(who)) != NULL;
    snprintf(log_path, sizeof log_path, "%s", log);
    limit = at ? atoi(at) : 0;
    if (getenv("POWER_CUT_STOPS"))
        deadly = SIGSTOP;
    whole_group = getenv("POWER_CUT_ALL") != NULL;
}

static void step(const char *name)
{
    if (!wanted)
        return;
    calls++;
    NEXT(open);
    int log = really(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log >= 0) {
        dprintf(log, "%s\n", name);
        close(log);
    }
    if (calls == limit)
        kill(whole_group ? 0 : getpid(), deadly);
}

#define OPEN(name)                                                                  \
    int name(const char *path, int flags, ...)                                      \
    {                                                                               \
        NEXT(name);                                                                 \
        va_list list;                                                               \
        va_start(list, flags);                                                      \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;     \
        va_end(list);                                                               \
        if (flags & O_CREAT)                                                        \
            step("create");                                                         \
        return really(path, flags, mode);                                           \
    }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *data, size_t size)
{
    NEXT(write);
    if (fd > 2) {
        step("write");
        // a cut in the middle of the data, too
        if (wanted && calls + 1 == limit) {
            really(fd, data, size / 2);
            step("half a write");
        }
    }
    return really(fd, data, size);
}

int fchmod(int fd, mode_t mode)
{
    NEXT(fchmod);
    step("fchmod");
    return really(fd, mode);
}

int fchown(int fd, uid_t uid, gid_t gid)
{
    NEXT(fchown);
    step("fchown");
    return really(fd, uid, gid);
}

int fsync(int fd)
{
    NEXT(fsync);
    struct stat what;
    step(fstat(fd, &what) == 0 && S_ISDIR(what.st_mode) ? "fsync of the folder" : "fsync");
    return really(fd);
}

int rename(const char *from, const char *to)
{
    NEXT(rename);
    step("rename");
    return really(from, to);
}

int unlink(const char *path)
{
    NEXT(unlink);
    step("unlink");
    return really(path);
}
