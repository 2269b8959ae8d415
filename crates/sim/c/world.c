/*
 * Chance and time for simulated worlds.
 *
 * Libraries draw random numbers (hash maps, select!, elections) and read clocks behind our back, all of them through these
 * functions of the C library. Linked into an executable, these definitions come before the C library's. On a thread
 * whose name is "seed-" and a hexadecimal number, random bytes are a stream that depends on that number alone, and clocks
 * stand still; simulated time is tokio's. On every other thread the kernel answers.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static __thread int simulated;
static __thread uint64_t state;

static int in_simulation(void)
{
	if (!simulated) {
		char name[16];
		if (pthread_getname_np(pthread_self(), name, sizeof name) != 0 ||
		    strncmp(name, "seed-", 5) != 0)
			return 0;
		state = strtoull(name + 5, NULL, 16);
		simulated = 1;
	}
	return 1;
}

/* splitmix64, by Sebastiano Vigna */
static uint64_t next(void)
{
	uint64_t mixed = state += 0x9e3779b97f4a7c15u;
	mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
	mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
	return mixed ^ (mixed >> 31);
}

static void fill(unsigned char *bytes, size_t length)
{
	for (size_t at = 0; at < length;) {
		uint64_t number = next();
		for (int i = 0; i < 8 && at < length; i++, at++) {
			bytes[at] = (unsigned char)number;
			number >>= 8;
		}
	}
}

ssize_t getrandom(void *buffer, size_t length, unsigned int flags)
{
	if (!in_simulation())
		return syscall(SYS_getrandom, buffer, length, flags);
	fill(buffer, length);
	return (ssize_t)length;
}

int getentropy(void *buffer, size_t length)
{
	if (length > 256) {
		errno = EIO;
		return -1;
	}
	return getrandom(buffer, length, 0) == (ssize_t)length ? 0 : -1;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	if (!in_simulation())
		return (int)syscall(SYS_clock_gettime, clock, now);
	now->tv_sec = clock == CLOCK_REALTIME ? 1700000000 : 1000000;
	now->tv_nsec = 0;
	return 0;
}
