/* Shifts the wall clock of one process by CLOCK_SHIFT seconds; other clocks stay as they are. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    const char *shift = getenv("CLOCK_SHIFT");
    if (!failed && clock == CLOCK_REALTIME && shift)
        now->tv_sec += atol(shift);
    return failed;
}
