/*
 * A guest's whole work: counts on its disk, as a database commits.
 *
 * Number n is written, with O_DIRECT and O_DSYNC, all over block n modulo the number of blocks; only when the write has
 * been acknowledged the guest says "ack n" on its console. So the disk must always hold an unbroken sequence that ends at
 * the last number acknowledged or after it, whatever happened. At the start it finds the last number on the disk, says
 * "found n", and goes on from there.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, WORDS = BLOCK / sizeof(uint64_t), BLOCKS_AT_ONCE = 256, PAUSE_NS = 5000000 };

static uint64_t buffer[BLOCKS_AT_ONCE * WORDS] __attribute__((aligned(BLOCK)));

static void fail(const char *what)
{
	perror(what);
	for (;;)
		pause(); /* the first process must not end */
}

static uint64_t last_number(int disk, off_t blocks)
{
	uint64_t last = 0;

	for (off_t first = 0; first < blocks; first += BLOCKS_AT_ONCE) {
		ssize_t got = pread(disk, buffer, sizeof buffer, first * BLOCK);

		if (got < 0)
			fail("read");
		for (ssize_t word = 0; word < got / (ssize_t)sizeof(uint64_t); word += WORDS)
			if (buffer[word] > last)
				last = buffer[word];
	}
	return last;
}

static void write_number(int disk, off_t blocks, uint64_t number)
{
	for (int word = 0; word < WORDS; word++)
		buffer[word] = number;
	if (pwrite(disk, buffer, BLOCK, (off_t)(number % (uint64_t)blocks) * BLOCK) != BLOCK)
		fail("write");
}

int main(int argc, char **argv)
{
	const struct timespec pause_between = {.tv_nsec = PAUSE_NS};
	int disk = argc == 2 ? open(argv[1], O_RDWR | O_DIRECT | O_DSYNC) : -1;

	if (disk < 0)
		fail("disk");
	setvbuf(stdout, NULL, _IOLBF, 0);
	off_t blocks = lseek(disk, 0, SEEK_END) / BLOCK;
	uint64_t number = last_number(disk, blocks);

	printf("found %llu\n", (unsigned long long)number);
	for (;;) {
		write_number(disk, blocks, ++number);
		printf("ack %llu\n", (unsigned long long)number);
		nanosleep(&pause_between, NULL);
	}
}
