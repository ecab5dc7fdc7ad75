/* Faults in file operations, for tests: a library for LD_PRELOAD (Linux, glibc).

   It numbers the operations that change anything under one folder (files and folders created,
   written, cut, renamed, linked, removed), from 1 on over all threads of a process, and at one of
   them does what it was asked to:

     count  nothing
     kill   the process ends before the operation, as by `kill -9` or a lost machine
     torn   the same, after the first half of what the operation would have written
     term   the process sends itself SIGTERM, and the operation is done
     full   this operation and all later ones that take room fail with ENOSPC

   It is told by the environment (FAULTS_FOLDER, FAULTS_AT, FAULTS_KIND, and FAULTS_LOG, a file that
   has a line for each operation), read when the library is loaded, or by a call of `faults_arm`. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { COUNT, KILL, TORN, TERM, FULL };

static char folder[PATH_MAX];
static char log_path[PATH_MAX];
static enum kind kind = COUNT;
static int fault_at = 0;
static atomic_int number = 0;

int faults_seen(void) { return atomic_load(&number); }

void faults_arm(const char *where, int at, const char *what, const char *log) {
  static const char *names[] = {"count", "kill", "torn", "term", "full"};
  snprintf(folder, sizeof folder, "%s", where ? where : "");
  snprintf(log_path, sizeof log_path, "%s", log ? log : "");
  kind = COUNT;
  for (int i = 0; i < 5; i++)
    if (what && !strcmp(what, names[i])) kind = (enum kind)i;
  fault_at = at;
  atomic_store(&number, 0);
}

__attribute__((constructor)) static void from_environment(void) {
  const char *at = getenv("FAULTS_AT");
  if (getenv("FAULTS_FOLDER"))
    faults_arm(getenv("FAULTS_FOLDER"), at ? atoi(at) : 0, getenv("FAULTS_KIND"),
               getenv("FAULTS_LOG"));
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* The path that an operation is about, whole; "" where it cannot be told. */
static void whole_path(int dirfd, const char *path, char *out) {
  char link[64];
  out[0] = 0;
  if (path && path[0] == '/') {
    snprintf(out, PATH_MAX, "%s", path);
    return;
  }
  if (dirfd == AT_FDCWD) {
    if (!getcwd(out, PATH_MAX)) out[0] = 0;
  } else {
    snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
    ssize_t length = readlink(link, out, PATH_MAX - 1);
    out[length > 0 ? length : 0] = 0;
  }
  if (path && out[0]) {
    size_t length = strlen(out);
    snprintf(out + length, PATH_MAX - length, "/%s", path);
  }
}

static int is_inside(const char *path) {
  size_t length = strlen(folder);
  return length && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

/* Counts an operation. Returns 1 where it has to fail for want of room; does not return where the
   process ends, but calls `tear` first where the write is to be torn. */
static int counted(const char *name, int dirfd, const char *path, int takes_room,
                   int fd, const void *bytes, size_t size) {
  char where[PATH_MAX];
  if (!folder[0]) return 0;
  int saved = errno;
  whole_path(dirfd, path, where);
  if (!is_inside(where)) {
    errno = saved;
    return 0;
  }
  int now = atomic_fetch_add(&number, 1) + 1;
  if (log_path[0]) {
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%d %s %s\n", now, name, where + strlen(folder));
    int out = syscall(SYS_openat, AT_FDCWD, log_path, O_WRONLY | O_APPEND | O_CREAT, 0644);
    if (out >= 0) {
      if (syscall(SYS_write, out, line, length) < 0) perror("faults");
      syscall(SYS_close, out);
    }
  }
  errno = saved;
  if (kind == FULL && fault_at && now >= fault_at && takes_room) return 1;
  if (now != fault_at) return 0;
  if (kind == TORN && bytes && syscall(SYS_write, fd, bytes, size / 2) < 0) perror("faults");
  if (kind == KILL || kind == TORN) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
  }
  if (kind == TERM) kill(getpid(), SIGTERM);
  errno = saved;
  return 0;
}

static int no_room(void) {
  errno = ENOSPC;
  return -1;
}

static int creates(int dirfd, const char *path, int flags) {
  struct stat found;
  int saved = errno;
  int is_new = (flags & O_CREAT) && fstatat(dirfd, path, &found, AT_SYMLINK_NOFOLLOW) != 0;
  errno = saved;
  return is_new || (flags & O_TRUNC);
}

#define MODE                                      \
  mode_t mode = 0;                                \
  if (flags & (O_CREAT | __O_TMPFILE)) {          \
    va_list more;                                 \
    va_start(more, flags);                        \
    mode = va_arg(more, mode_t);                  \
    va_end(more);                                 \
  }

#define OPEN(name)                                                                         \
  int name(const char *path, int flags, ...) {                                             \
    MODE if (creates(AT_FDCWD, path, flags) &&                                             \
             counted("create", AT_FDCWD, path, !!(flags & O_CREAT), -1, NULL, 0))          \
        return no_room();                                                                  \
    return REAL(name)(path, flags, mode);                                                  \
  }

#define OPENAT(name)                                                                       \
  int name(int dirfd, const char *path, int flags, ...) {                                  \
    MODE if (creates(dirfd, path, flags) &&                                                \
             counted("create", dirfd, path, !!(flags & O_CREAT), -1, NULL, 0))             \
        return no_room();                                                                  \
    return REAL(name)(dirfd, path, flags, mode);                                           \
  }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *bytes, size_t size) {
  if (counted("write", fd, NULL, 1, fd, bytes, size)) return no_room();
  return REAL(write)(fd, bytes, size);
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t at) {
  if (counted("write", fd, NULL, 1, fd, bytes, size)) return no_room();
  return REAL(pwrite)(fd, bytes, size, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t at) {
  if (counted("write", fd, NULL, 1, fd, bytes, size)) return no_room();
  return REAL(pwrite64)(fd, bytes, size, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  const void *first = count ? parts[0].iov_base : NULL;
  if (counted("write", fd, NULL, 1, fd, first, count ? parts[0].iov_len : 0)) return no_room();
  return REAL(writev)(fd, parts, count);
}

ssize_t sendfile(int out, int in, off_t *at, size_t size) {
  if (counted("write", out, NULL, 1, -1, NULL, 0)) return no_room();
  return ((ssize_t(*)(int, int, off_t *, size_t))dlsym(RTLD_NEXT, "sendfile"))(out, in, at, size);
}

ssize_t sendfile64(int out, int in, off64_t *at, size_t size) {
  if (counted("write", out, NULL, 1, -1, NULL, 0)) return no_room();
  return ((ssize_t(*)(int, int, off64_t *, size_t))dlsym(RTLD_NEXT, "sendfile64"))(out, in, at,
                                                                                   size);
}

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size,
                        unsigned int flags) {
  if (counted("write", out, NULL, 1, -1, NULL, 0)) return no_room();
  return REAL(copy_file_range)(in, from, out, to, size, flags);
}

int ftruncate(int fd, off_t size) {
  counted("truncate", fd, NULL, 0, -1, NULL, 0);
  return REAL(ftruncate)(fd, size);
}

int ftruncate64(int fd, off64_t size) {
  counted("truncate", fd, NULL, 0, -1, NULL, 0);
  return REAL(ftruncate64)(fd, size);
}

int rename(const char *from, const char *to) {
  counted("rename", AT_FDCWD, to, 0, -1, NULL, 0);
  return REAL(rename)(from, to);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to) {
  counted("rename", to_fd, to, 0, -1, NULL, 0);
  return REAL(renameat)(from_fd, from, to_fd, to);
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned int flags) {
  counted("rename", to_fd, to, 0, -1, NULL, 0);
  return REAL(renameat2)(from_fd, from, to_fd, to, flags);
}

int link(const char *from, const char *to) {
  if (counted("link", AT_FDCWD, to, 1, -1, NULL, 0)) return no_room();
  return REAL(link)(from, to);
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags) {
  if (counted("link", to_fd, to, 1, -1, NULL, 0)) return no_room();
  return REAL(linkat)(from_fd, from, to_fd, to, flags);
}

int unlink(const char *path) {
  counted("unlink", AT_FDCWD, path, 0, -1, NULL, 0);
  return REAL(unlink)(path);
}

int unlinkat(int dirfd, const char *path, int flags) {
  counted("unlink", dirfd, path, 0, -1, NULL, 0);
  return REAL(unlinkat)(dirfd, path, flags);
}

int remove(const char *path) {
  counted("unlink", AT_FDCWD, path, 0, -1, NULL, 0);
  return REAL(remove)(path);
}

int rmdir(const char *path) {
  counted("rmdir", AT_FDCWD, path, 0, -1, NULL, 0);
  return REAL(rmdir)(path);
}

int mkdir(const char *path, mode_t mode) {
  if (counted("mkdir", AT_FDCWD, path, 1, -1, NULL, 0)) return no_room();
  return REAL(mkdir)(path, mode);
}

int mkdirat(int dirfd, const char *path, mode_t mode) {
  if (counted("mkdir", dirfd, path, 1, -1, NULL, 0)) return no_room();
  return REAL(mkdirat)(dirfd, path, mode);
}
