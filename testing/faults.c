/* Preloaded into a process, counts the calls that change a folder, keeps a log of them, and lets some fail.
 *
 * A call counts when its path, or the path that its descriptor was opened by, lies in the folder that faults_watch
 * names.  Rules (faults_rule) say at which call what happens; without one every call goes through.  Python calls the
 * faults_ functions through ctypes.  One thread only.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

/* Calls that write in other ways (pwrite, writev, ftruncate, renameat ...) are not here, as nothing makes them:
 * kill_writes.py compares what the log tells with what is there, and would find one. */
enum { OPEN, WRITE, SYNC, CLOSE, RENAME, LINK, UNLINK, MODE, OWNER, LOCK, KINDS, ANY = -1 };
enum { FAIL, KILL_BEFORE, KILL_AFTER, SHORT, TORN }; /* half of a write; the same, and the process ends */
enum { MOST_RULES = 8, MOST_DESCRIPTORS = 4096 };

static const char *const names[KINDS] = {"open",   "write", "fsync",  "close",  "rename",
                                         "link",   "unlink", "fchmod", "fchown", "flock"};

typedef struct {
    int kind, action, error, forever;
    long at; /* which call of its kind, the first is 1 */
} rule;

static struct {
    char folder[PATH_MAX];
    int watching, rules;
    long calls[KINDS], all;
    rule rule[MOST_RULES];
    char watched[MOST_DESCRIPTORS];
    char *log;
    size_t length, room;
} state;

/* The function of the C library that one here stands before */
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* What Python calls */

void faults_watch(const char *folder) {
    free(state.log);
    memset(&state, 0, sizeof state);
    snprintf(state.folder, sizeof state.folder, "%s", folder);
    state.watching = folder[0] != 0;
}

int faults_rule(int kind, long at, int forever, int action, int error) {
    if (state.rules == MOST_RULES) return -1;
    state.rule[state.rules++] = (rule){kind, action, error, forever, at};
    return 0;
}

const char *faults_log(void) { return state.log ? state.log : ""; }

long faults_calls(int kind) { return kind == ANY ? state.all : state.calls[kind]; }

const char *faults_name(int kind) { return kind >= 0 && kind < KINDS ? names[kind] : NULL; }

/* Counting, and what a rule wants */

static void note(const char *format, ...) {
    for (;;) {
        size_t room = state.room - state.length;
        va_list arguments;
        va_start(arguments, format);
        int n = vsnprintf(state.log ? state.log + state.length : NULL, room, format, arguments);
        va_end(arguments);
        if ((size_t)n < room) {
            state.length += (size_t)n;
            return;
        }
        state.room = 2 * state.room + (size_t)n + 4096;
        state.log = realloc(state.log, state.room);
        if (!state.log) abort();
    }
}

static int in_folder(const char *path) {
    size_t n = strlen(state.folder);
    return state.watching && path && !strncmp(path, state.folder, n) && (path[n] == '/' || path[n] == 0);
}

static int watched(int fd) { return state.watching && fd >= 0 && fd < MOST_DESCRIPTORS && state.watched[fd]; }

/* The rule for this call, or NULL; one that kills before it does not return. */
static const rule *wanted(int kind) {
    state.all++;
    state.calls[kind]++;
    for (int i = 0; i < state.rules; i++) {
        const rule *r = &state.rule[i];
        long now = r->kind == ANY ? state.all : state.calls[kind];
        if (r->kind != ANY && r->kind != kind) continue;
        if (now != r->at && !(r->forever && now > r->at)) continue;
        if (r->action == KILL_BEFORE) raise(SIGKILL);
        return r;
    }
    return NULL;
}

static int fails(const rule *r) {
    if (!r || r->action != FAIL) return 0;
    errno = r->error;
    return 1;
}

static void done(const rule *r) {
    if (r && (r->action == KILL_AFTER || r->action == TORN)) raise(SIGKILL);
}

/* The calls */

static int opened(int fd, const char *path, int flags, int made) {
    if (fd >= 0 && fd < MOST_DESCRIPTORS) {
        state.watched[fd] = 1;
        note("open %d %s %d %d\n", fd, path, made, (flags & O_TRUNC) != 0);
    }
    return fd;
}

#define OPENING(call)                                                                                            \
    mode_t mode = 0;                                                                                                   \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                               \
        va_list arguments;                                                                                             \
        va_start(arguments, flags);                                                                                    \
        mode = va_arg(arguments, mode_t);                                                                              \
        va_end(arguments);                                                                                             \
    }                                                                                                                  \
    if (!in_folder(path)) return call;                                                                                 \
    const rule *r = wanted(OPEN);                                                                                      \
    if (fails(r)) return -1;                                                                                           \
    int made = (flags & O_CREAT) && access(path, F_OK);                                                                \
    int fd = opened(call, path, flags, made);                                                                                 \
    done(r);                                                                                                           \
    return fd;

int open(const char *path, int flags, ...) { OPENING(REAL(open)(path, flags, mode)) }
int open64(const char *path, int flags, ...) { OPENING(REAL(open)(path, flags, mode)) }
int openat(int at, const char *path, int flags, ...) { OPENING(REAL(openat)(at, path, flags, mode)) }
int openat64(int at, const char *path, int flags, ...) { OPENING(REAL(openat)(at, path, flags, mode)) }

ssize_t write(int fd, const void *bytes, size_t n) {
    if (!watched(fd)) return REAL(write)(fd, bytes, n);
    const rule *r = wanted(WRITE);
    if (fails(r)) return -1;
    if (r && (r->action == SHORT || r->action == TORN) && n > 1) n /= 2;
    ssize_t written = REAL(write)(fd, bytes, n);
    if (written > 0) {
        note("write %d %lld ", fd, (long long)lseek(fd, 0, SEEK_CUR) - written);
        for (ssize_t i = 0; i < written; i++) note("%02x", ((const unsigned char *)bytes)[i]);
        note("\n");
    }
    done(r);
    return written;
}

#define ON_DESCRIPTOR(kind, call, ...)                                                                                 \
    if (!watched(fd)) return call;                                                                                     \
    const rule *r = wanted(kind);                                                                                      \
    if (fails(r)) return -1;                                                                                           \
    int result = call;                                                                                                 \
    if (result == 0) note(__VA_ARGS__);                                                                                \
    done(r);                                                                                                           \
    return result;

int fsync(int fd) { ON_DESCRIPTOR(SYNC, REAL(fsync)(fd), "fsync %d\n", fd) }
int fdatasync(int fd) { ON_DESCRIPTOR(SYNC, REAL(fdatasync)(fd), "fsync %d\n", fd) }
int fchmod(int fd, mode_t mode) { ON_DESCRIPTOR(MODE, REAL(fchmod)(fd, mode), "fchmod %d\n", fd) }
int fchown(int fd, uid_t user, gid_t group) {
    ON_DESCRIPTOR(OWNER, REAL(fchown)(fd, user, group), "fchown %d\n", fd)
}
int flock(int fd, int operation) { ON_DESCRIPTOR(LOCK, REAL(flock)(fd, operation), "flock %d\n", fd) }

int close(int fd) {
    if (!watched(fd)) return REAL(close)(fd);
    const rule *r = wanted(CLOSE);
    state.watched[fd] = 0;
    int result = REAL(close)(fd);
    note("close %d\n", fd);
    if (fails(r)) return -1; /* closed all the same, as Linux does it */
    done(r);
    return result;
}

#define ON_NAMES(kind, ours, call, ...)                                                                                \
    if (!(ours)) return call;                                                                                          \
    const rule *r = wanted(kind);                                                                                      \
    if (fails(r)) return -1;                                                                                           \
    int result = call;                                                                                                 \
    if (result == 0) note(__VA_ARGS__);                                                                                \
    done(r);                                                                                                           \
    return result;

int rename(const char *from, const char *to) {
    ON_NAMES(RENAME, in_folder(from) || in_folder(to), REAL(rename)(from, to), "rename %s %s\n", from, to)
}
int link(const char *from, const char *to) {
    ON_NAMES(LINK, in_folder(from) || in_folder(to), REAL(link)(from, to), "link %s %s\n", from, to)
}
int linkat(int a, const char *from, int b, const char *to, int flags) {
    ON_NAMES(LINK, in_folder(from) || in_folder(to), REAL(linkat)(a, from, b, to, flags), "link %s %s\n", from, to)
}
int unlink(const char *path) { ON_NAMES(UNLINK, in_folder(path), REAL(unlink)(path), "unlink %s\n", path) }
