/* Between a program and its C library: another date, and other addresses for names, as two files say while the program runs.
 *
 * WANPROXY_TEST_DATE names a file of eight bytes: by how many seconds the date is ahead (a negative number: behind). What only goes forward, the
 * monotonic clock, is left alone, as it is when somebody sets a machine's date.
 * WANPROXY_TEST_NAMES names a file of lines `NAME ADDRESS...`; names that are not in it are asked of the real resolver. Each question is
 * a line of a file beside it, with `.asked` behind its name. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

typedef int (*clock_gettime_t)(clockid_t, struct timespec *);
typedef int (*getaddrinfo_t)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

static clock_gettime_t real_clock;
static const volatile int64_t *ahead;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("WANPROXY_TEST_DATE");
    real_clock = (clock_gettime_t)dlsym(RTLD_NEXT, "clock_gettime");
    if (path == NULL)
        return;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return;
    void *map = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (map != MAP_FAILED)
        ahead = map;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    if (real_clock == NULL)
        real_clock = (clock_gettime_t)dlsym(RTLD_NEXT, "clock_gettime");
    int result = real_clock(clock, time);
    if (result == 0 && ahead != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += *ahead;
    return result;
}

/* The rest of the line of `name`; NULL if there is none. */
static char *addresses_of(FILE *names, const char *name, char *line, int size)
{
    while (fgets(line, size, names) != NULL) {
        char *rest = NULL;
        char *first = strtok_r(line, " \n", &rest);
        if (first != NULL && strcasecmp(first, name) == 0)
            return rest;
    }
    return NULL;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
    getaddrinfo_t real = (getaddrinfo_t)dlsym(RTLD_NEXT, "getaddrinfo");
    const char *path = getenv("WANPROXY_TEST_NAMES");
    FILE *names = path == NULL || node == NULL ? NULL : fopen(path, "re");
    if (names == NULL)
        return real(node, service, hints, result);
    char line[1024];
    char *rest = addresses_of(names, node, line, sizeof line);
    fclose(names);
    if (rest == NULL)
        return real(node, service, hints, result);

    char asked[1024];
    snprintf(asked, sizeof asked, "%s.asked", path);
    int log = open(asked, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (log >= 0) {
        dprintf(log, "%s\n", node);
        close(log);
    }
    struct addrinfo numeric = {0};
    if (hints != NULL)
        numeric = *hints;
    numeric.ai_flags = AI_NUMERICHOST;
    struct addrinfo **end = result;
    *result = NULL;
    for (char *one = strtok_r(NULL, " \n", &rest); one != NULL; one = strtok_r(NULL, " \n", &rest)) {
        if (real(one, service, &numeric, end) != 0)
            continue;
        while (*end != NULL)
            end = &(*end)->ai_next;
    }
    return *result == NULL ? EAI_NONAME : 0;
}
