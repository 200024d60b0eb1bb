/* DRBD's fence-peer and unfence-peer handler: asks the guard, waits, and passes its answer on. It decides nothing.
 *
 * Installed under both names. DRBD has frozen I/O while it runs, so that nothing here touches a mount, /etc/pve or a log, and
 * its memory is locked. Environment: drbd.conf(5), "handlers"; DRBD_MINOR, DRBD_RESOURCE and the peer's names go to the guard.
 * Exit status: 7, the peer is fenced and this node goes on; 1, nothing is known, I/O stays frozen. Never another: 5 would let
 * both nodes go on.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

#define GO_ON 7
#define FROZEN 1
#define PATIENCE 300 /* seconds; constants.py DEADLINE_SECONDS */

#define SOCKET_PATH "/run/pvedrbdstor-fence/guard.sock"

static int ask_socket(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	memcpy(address.sun_path, SOCKET_PATH, sizeof SOCKET_PATH);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
		return fd;
	close(fd);
	return -1;
}

static int send_all(int fd, const char *text, size_t length)
{
	while (length > 0) {
		ssize_t sent = send(fd, text, length, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return -1;
		text += sent;
		length -= (size_t)sent;
	}
	return 0;
}

/* The handler's name and every DRBD_ variable, each closed by a newline; then the end. */
static int send_request(int fd, const char *name)
{
	if (send_all(fd, name, strlen(name)) || send_all(fd, "\n", 1))
		return -1;
	for (char **variable = environ; *variable; variable++) {
		if (strncmp(*variable, "DRBD_", 5) != 0 || strchr(*variable, '\n'))
			continue;
		if (send_all(fd, *variable, strlen(*variable)) || send_all(fd, "\n", 1))
			return -1;
	}
	return shutdown(fd, SHUT_WR);
}

/* The guard's answer, one digit; -1 when it has ended without one. */
static int read_answer(int fd)
{
	char digit;
	ssize_t got;

	do
		got = read(fd, &digit, 1);
	while (got < 0 && errno == EINTR);
	return got == 1 ? digit - '0' : -1;
}

static int ask(const char *name)
{
	int fd = ask_socket(), answer = -1;

	if (fd < 0)
		return -1;
	if (send_request(fd, name) == 0)
		answer = read_answer(fd);
	close(fd);
	return answer;
}

int main(int argc, char **argv)
{
	const struct timespec pause = { .tv_nsec = 200 * 1000 * 1000 };
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
	const char *name = slash ? slash + 1 : argc > 0 ? argv[0] : "fence-peer";
	int answer;

	(void)mlockall(MCL_CURRENT | MCL_FUTURE); /* as much as is allowed */
	(void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0); /* nor wait for I/O where memory is short */
	if (strcmp(name, "unfence-peer") == 0) {
		alarm(5);
		(void)ask(name);
		return 0;
	}
	signal(SIGALRM, SIG_DFL);
	alarm(PATIENCE + 10); /* ended by a signal is no answer either */
	for (int tries = PATIENCE * 5; tries > 0; tries--) { /* the guard may be starting again */
		answer = ask(name);
		if (answer == GO_ON)
			return GO_ON;
		if (answer >= 0)
			return FROZEN;
		nanosleep(&pause, NULL);
	}
	return FROZEN;
}
