/* Preloaded into a process, makes calls of the system lie as the words in STONE_TEST_LIES say (see test_lying_system.py). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

static int lies(const char *word)
{
    const char *words = getenv("STONE_TEST_LIES");
    return words && strstr(words, word);
}

static int refused(const char *word)
{
    if (!lies(word))
        return 0;
    errno = EPERM;
    return 1;
}

int rename(const char *from, const char *to)
{
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    int result = real(from, to);
    if (result || !strstr(from, ".stone-"))
        return result;
    if (lies("interrupt"))
        kill(getpid(), SIGINT);
    if (lies("rename-fails")) {
        errno = EIO;
        return -1;
    }
    return 0;
}

int fsync(int file)
{
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    static int done;
    struct stat status;
    char name[64], path[4096];
    ssize_t length;
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    length = readlink(name, path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    if (lies("twice") && !done && strstr(path, ".stone-") && !fstat(file, &status)) {
        done = 1;
        kill(getpid(), SIGINT);
    }
    return real(file);
}

#define REFUSABLE(word, name, parameters, types, arguments)      \
    int name parameters                                          \
    {                                                            \
        int (*real) types = dlsym(RTLD_NEXT, #name);             \
        return refused(word) ? -1 : real arguments;              \
    }

REFUSABLE("mode", chmod, (const char *a, mode_t b), (const char *, mode_t), (a, b))
REFUSABLE("mode", fchmod, (int a, mode_t b), (int, mode_t), (a, b))
REFUSABLE("mode", fchmodat, (int a, const char *b, mode_t c, int d), (int, const char *, mode_t, int), (a, b, c, d))
REFUSABLE("owner", chown, (const char *a, uid_t b, gid_t c), (const char *, uid_t, gid_t), (a, b, c))
REFUSABLE("owner", lchown, (const char *a, uid_t b, gid_t c), (const char *, uid_t, gid_t), (a, b, c))
REFUSABLE("owner", fchown, (int a, uid_t b, gid_t c), (int, uid_t, gid_t), (a, b, c))
REFUSABLE("owner", fchownat, (int a, const char *b, uid_t c, gid_t d, int e),
          (int, const char *, uid_t, gid_t, int), (a, b, c, d, e))
REFUSABLE("times", utimensat, (int a, const char *b, const struct timespec c[2], int d),
          (int, const char *, const struct timespec[2], int), (a, b, c, d))
REFUSABLE("times", futimens, (int a, const struct timespec b[2]), (int, const struct timespec[2]), (a, b))
REFUSABLE("times", utimes, (const char *a, const struct timeval b[2]), (const char *, const struct timeval[2]), (a, b))
