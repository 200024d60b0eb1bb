/*
 * LD_PRELOAD shim for User Mode Linux on hosts whose CPU has AMX.
 *
 * UML keeps the floating point state of a process in a buffer of fixed size, smaller than what the host's kernel
 * demands for NT_X86_XSTATE when tile data exist: PTRACE_SETREGSET then fails with EINVAL and UML panics. This shim
 * stands between UML and the system call: it always moves the whole state, and writes back UML's part of it.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
	WHOLE_STATE = 65536,  /* bytes; the largest XSAVE area known is about 11 KiB */
	XSTATE_BV = 512,      /* offset of the header's first word: which components the area holds */
	X87_TO_ZMM = 0xff,    /* the components that UML knows */
};

static long call(long request, long pid, void *addr, void *data)
{
	return syscall(SYS_ptrace, request, pid, addr, data);
}

static long move_xstate(int request, long pid, void *addr, struct iovec *part)
{
	/* not on the stack: UML's is small; UML makes these calls from one thread */
	static char whole[WHOLE_STATE] __attribute__((aligned(64)));
	struct iovec all = { whole, sizeof(whole) };
	long result = call(PTRACE_GETREGSET, pid, addr, &all);
	size_t length = part->iov_len < all.iov_len ? part->iov_len : all.iov_len;
	unsigned long long components;

	if (result != 0)
		return result;
	if (request == PTRACE_GETREGSET) {
		memcpy(part->iov_base, whole, length);
		part->iov_len = length;
		return 0;
	}
	memcpy(whole, part->iov_base, length);
	memcpy(&components, whole + XSTATE_BV, sizeof(components));
	components &= X87_TO_ZMM;
	memcpy(whole + XSTATE_BV, &components, sizeof(components));
	return call(PTRACE_SETREGSET, pid, addr, &all);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list arguments;
	long pid, word, result;
	void *addr, *data;

	va_start(arguments, request);
	pid = va_arg(arguments, int);
	addr = va_arg(arguments, void *);
	data = va_arg(arguments, void *);
	va_end(arguments);

	switch ((int)request) {
	case PTRACE_PEEKTEXT:
	case PTRACE_PEEKDATA:
	case PTRACE_PEEKUSER: /* the library's function returns the word, the system call stores it */
		result = call(request, pid, addr, &word);
		if (result != 0)
			return result;
		errno = 0;
		return word;
	case PTRACE_GETREGSET:
	case PTRACE_SETREGSET:
		if ((long)addr == NT_X86_XSTATE)
			return move_xstate(request, pid, addr, data);
		return call(request, pid, addr, data);
	default:
		return call(request, pid, addr, data);
	}
}
