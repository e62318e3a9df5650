/* A disk under test, to be loaded with LD_PRELOAD: it stands between a process and the files below one directory.
 *
 * It owns two things, each switched on by the environment. A trace: every change and every sync of these files, in an
 * order in which they could have been made, so that `cargo xtask power` can say what a disk had at each moment.
 * Faults: calls that fail as a control file says, which may change while the process runs, for `cargo xtask faults`.
 * It sees what is called by way of the C library; a call past it, straight to the kernel, it does not.
 *
 *   RHASH_DISK_ROOT     the directory, without links
 *   RHASH_DISK_TRACE    the file that the trace is appended to, outside of the directory
 *   RHASH_DISK_CONTROL  the file that says what fails
 *   RHASH_DISK_SYNC_US  how much longer a sync takes: what is written meanwhile is not covered by it
 *
 * All changes happen under one lock with their record, so their order in the trace is the order on the disk. A sync
 * has two records, for its begin and its end, and holds the lock for neither: others write while it goes on.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* What a record of the trace tells; xtask/src/power/trace.rs reads them. */
enum record_kind {
    CREATED = 1,
    WRITTEN = 2,
    CUT = 3,
    SYNC_BEGAN = 4,
    SYNC_ENDED = 5,
    SYNC_FAILED = 6,
    RENAMED = 7,
    UNLINKED = 8,
    DIR_MADE = 9,
    DIR_REMOVED = 10,
    LINKED = 11,
    RANGE_SYNCED = 12,
};

struct record {
    uint32_t bytes; /* of the record, this head included */
    uint32_t kind;
    uint64_t at_ns;
    uint64_t file;
    uint64_t number; /* an offset, a length, or the number of a sync */
};

/* Kinds of calls and classes of paths that can fail; xtask/src/faults/control.rs writes them. */
enum call_kind {
    WRITE = 1,
    SYNC = 2,
    RENAME = 4,
    READ = 8,
    OPEN = 16,
    CREATE = 32,
    TRUNCATE = 64,
    ALLOCATE = 128,
    REMOVE = 256,
};

enum path_class { LOG = 1, RUNS = 2, SLED = 4, MANIFEST = 8, OTHER = 16 };

struct control {
    _Atomic uint32_t armed;
    uint32_t kinds;
    uint32_t classes;
    uint32_t error;
    uint64_t from;    /* the number of the first call that fails, from 1 */
    uint64_t count;   /* how many fail from there */
    uint32_t growing; /* a full disk: only what needs more room than there is fails */
    uint32_t mildly;  /* every other write that would fail is cut short instead; what was read to its end once lies in
                         the page cache, and is read again without an error */
    _Atomic uint64_t seen; /* calls since it was armed, … */
    _Atomic uint64_t hits; /* … and those that failed */
    _Atomic int64_t room;  /* what a full disk has left: what is given back can be taken again */
};

#define FDS_MAX 65536
#define INODES_MAX (1 << 16)
#define ROOT_ID 1
#define BLOCK_BYTES 4096

static char root[PATH_MAX];
static size_t root_bytes;
static int trace_fd = -1;
static struct control *control;
static long sync_us;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* What is open below the root; 0: nothing of it. Written by the thread that opens or closes. */
static struct {
    _Atomic uint32_t file;
    _Atomic uint32_t class;
} fds[FDS_MAX];

/* Which file an inode is. Guarded by the lock. One whose inode is used again takes the place of the one before. */
static struct {
    uint64_t inode;
    uint32_t file;
} inodes[INODES_MAX];
static uint32_t last_file = ROOT_ID;
/* Which files were read to their end. */
static _Atomic uint8_t read_through[INODES_MAX];
static uint64_t last_sync;

static void die(const char *why)
{
    dprintf(2, "disk.c: %s (%s)\n", why, strerror(errno));
    abort();
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint32_t *slot_of(uint64_t inode)
{
    for (uint64_t at = inode * 0x9e3779b97f4a7c15u >> 48, looked = 0; looked < INODES_MAX; at++, looked++) {
        uint64_t index = at % INODES_MAX;
        if (inodes[index].inode == 0)
            inodes[index].inode = inode;
        if (inodes[index].inode == inode)
            return &inodes[index].file;
    }
    die("too many files");
    return NULL;
}

__attribute__((constructor)) static void begin(void)
{
    const char *directory = getenv("RHASH_DISK_ROOT");
    const char *trace = getenv("RHASH_DISK_TRACE");
    const char *faults = getenv("RHASH_DISK_CONTROL");
    const char *longer = getenv("RHASH_DISK_SYNC_US");
    struct stat status;
    if (directory == NULL)
        return;
    if (longer != NULL)
        sync_us = atol(longer);
    if (strlen(directory) >= sizeof root || stat(directory, &status) != 0)
        die("RHASH_DISK_ROOT");
    *slot_of(status.st_ino) = ROOT_ID;
    if (trace != NULL) {
        trace_fd = (int)syscall(SYS_openat, AT_FDCWD, trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (trace_fd < 0)
            die("RHASH_DISK_TRACE");
    }
    if (faults != NULL) {
        int fd = (int)syscall(SYS_openat, AT_FDCWD, faults, O_RDWR | O_CLOEXEC, 0);
        if (fd < 0)
            die("RHASH_DISK_CONTROL");
        void *map = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED)
            die("RHASH_DISK_CONTROL");
        syscall(SYS_close, fd);
        control = map;
    }
    strcpy(root, directory);
    root_bytes = strlen(root);
}

/* The path, if it lies below the root, whole in `whole` if need be; none for all others. */
static const char *resolve(int at, const char *path, char *whole)
{
    if (root_bytes == 0 || path == NULL)
        return NULL;
    if (path[0] != '/') {
        char link[64];
        if (at < 0 || at >= FDS_MAX || atomic_load(&fds[at].file) == 0)
            return NULL;
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t length = readlink(link, whole, PATH_MAX - 1);
        if (length < 0 || (size_t)length + strlen(path) + 2 > PATH_MAX)
            die("the path of a directory");
        whole[length] = '/';
        strcpy(whole + length + 1, path);
        path = whole;
    }
    if (strncmp(path, root, root_bytes) != 0 || (path[root_bytes] != '/' && path[root_bytes] != 0))
        return NULL;
    return path;
}

/* A path as the trace has it: below the root, without a slash in front. */
static const char *relative(const char *path)
{
    path += root_bytes;
    while (*path == '/')
        path++;
    return path;
}

/* The data directory lies in the root; what lies in it tells the class. */
static uint32_t class_of(const char *path)
{
    const char *below = strchr(relative(path), '/');
    if (below == NULL)
        return MANIFEST; /* whose name is synced with the data directory */
    below++;
    if (strncmp(below, "MANIFEST", 8) == 0)
        return MANIFEST;
    if (strncmp(below, "sled", 4) == 0)
        return SLED;
    if (strncmp(below, "runs", 4) == 0)
        return RUNS;
    if (strncmp(below, "log", 3) == 0)
        return LOG;
    return OTHER;
}

static uint32_t file_of(int fd)
{
    return fd < 0 || fd >= FDS_MAX ? 0 : atomic_load_explicit(&fds[fd].file, memory_order_acquire);
}

static uint32_t class_of_fd(int fd)
{
    return atomic_load(&fds[fd].class);
}

static void forget(int fd)
{
    if (fd >= 0 && fd < FDS_MAX)
        atomic_store_explicit(&fds[fd].file, 0, memory_order_release);
}

static void hold(void)
{
    pthread_mutex_lock(&lock);
}

static void release(void)
{
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
}

/* Appends a record; `parts` have at least `bytes` bytes. Call it with the lock held. */
static void tell(enum record_kind kind, uint64_t at_ns, uint64_t file, uint64_t number, const struct iovec *parts,
                 int count, size_t bytes)
{
    if (trace_fd < 0)
        return;
    int error = errno;
    struct record head = {(uint32_t)(sizeof head + bytes), kind, at_ns, file, number};
    struct iovec all[IOV_MAX];
    int used = 1;
    size_t left = bytes;
    all[0] = (struct iovec){&head, sizeof head};
    for (int part = 0; part < count && left > 0; part++) {
        if (used == IOV_MAX)
            die("a write in too many parts");
        size_t taken = parts[part].iov_len < left ? parts[part].iov_len : left;
        all[used++] = (struct iovec){parts[part].iov_base, taken};
        left -= taken;
    }
    if (syscall(SYS_writev, trace_fd, all, used) != (long)head.bytes)
        die("the trace cannot be written");
    errno = error;
}

static void tell_text(enum record_kind kind, uint64_t at_ns, uint64_t file, const char *text, size_t bytes)
{
    struct iovec part = {(void *)text, bytes};
    tell(kind, at_ns, file, 0, &part, 1, bytes);
}

static void tell_two(enum record_kind kind, uint64_t at_ns, const char *from, const char *to)
{
    /* With the zero between them. */
    struct iovec parts[2] = {{(void *)from, strlen(from) + 1}, {(void *)to, strlen(to)}};
    tell(kind, at_ns, 0, 0, parts, 2, parts[0].iov_len + parts[1].iov_len);
}

/* The error that a call shall fail with; 0: none. Counts the call. */
static int fault(uint32_t kind, uint32_t class)
{
    struct control *c = control;
    if (c == NULL || atomic_load(&c->armed) == 0 || (c->kinds & kind) == 0 || (c->classes & class) == 0)
        return 0;
    uint64_t number = atomic_fetch_add(&c->seen, 1) + 1;
    if (number < c->from || number - c->from >= c->count)
        return 0;
    atomic_fetch_add(&c->hits, 1);
    return (int)c->error;
}

static int is_full_disk(void)
{
    return control != NULL && atomic_load(&control->armed) != 0 && control->growing;
}

static int64_t disk_bytes(const struct stat *status)
{
    return (int64_t)status->st_blocks * 512;
}

/* Takes room of a full disk, if there is so much. */
static int take_room(int64_t bytes)
{
    int64_t room = atomic_load(&control->room);
    while (room >= bytes)
        if (atomic_compare_exchange_weak(&control->room, &room, room - bytes))
            return 1;
    return 0;
}

static void give_room(uint32_t class, int64_t bytes)
{
    if (is_full_disk() && (control->classes & class) && bytes > 0)
        atomic_fetch_add(&control->room, bytes);
}

/* What a call that needs more room fails with, if it does. */
static int room_fault(uint32_t kind, uint32_t class, int64_t bytes)
{
    struct control *c = control;
    if (bytes <= 0 || (c->kinds & kind) == 0 || (c->classes & class) == 0 || take_room(bytes))
        return 0;
    return fault(kind, class);
}

/* What of a write is done, and in `error` what it fails with if that is nothing. */
static size_t write_fault(int fd, size_t bytes, uint64_t offset, int *error)
{
    struct control *c = control;
    *error = 0;
    if (c == NULL || atomic_load(&c->armed) == 0)
        return bytes;
    if (c->growing) {
        struct stat status;
        if (fstat(fd, &status) != 0)
            return bytes;
        uint64_t room = ((uint64_t)status.st_size + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
        if ((uint64_t)disk_bytes(&status) > room)
            room = (uint64_t)disk_bytes(&status);
        int64_t more = (int64_t)((offset + bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES) - (int64_t)room;
        *error = room_fault(WRITE, class_of_fd(fd), more);
        if (*error == 0)
            return bytes;
        return offset < room ? room - offset : 0;
    }
    *error = fault(WRITE, class_of_fd(fd));
    if (*error == 0)
        return bytes;
    if (c->mildly && bytes > 1 && atomic_load(&c->hits) % 2 == 1)
        return bytes / 2;
    return 0;
}

static int fail(int error)
{
    errno = error;
    return -1;
}

/* Opening and closing */

static int open_file(int at, const char *path, int flags, mode_t mode)
{
    char whole[PATH_MAX];
    const char *ours = resolve(at, path, whole);
    if (ours == NULL) {
        int fd = (int)syscall(SYS_openat, at, path, flags, mode);
        forget(fd);
        return fd;
    }
    struct stat status;
    uint32_t class = class_of(ours);
    hold();
    int creates = (flags & O_CREAT) != 0 && lstat(ours, &status) != 0;
    int error = is_full_disk() ? room_fault(CREATE, class, creates ? BLOCK_BYTES : 0)
                               : fault(creates ? CREATE : OPEN, class);
    if (error != 0) {
        release();
        return fail(error);
    }
    if (!creates && (flags & O_TRUNC) && lstat(ours, &status) == 0)
        give_room(class, disk_bytes(&status));
    uint64_t at_ns = now_ns();
    int fd = (int)syscall(SYS_openat, at, path, flags, mode);
    if (fd >= FDS_MAX)
        die("too many descriptors");
    if (fd >= 0) {
        if (fstat(fd, &status) != 0)
            die("an open file");
        uint32_t *file = slot_of(status.st_ino);
        if (creates || *file == 0)
            *file = ++last_file;
        if (creates)
            tell_text(CREATED, at_ns, *file, relative(ours), strlen(relative(ours)));
        else if (flags & O_TRUNC)
            tell(CUT, at_ns, *file, 0, NULL, 0, 0);
        atomic_store(&fds[fd].class, class);
        atomic_store_explicit(&fds[fd].file, *file, memory_order_release);
    }
    release();
    return fd;
}

#define MODE_OF(flags, mode)                     \
    mode_t mode = 0;                             \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {     \
        va_list arguments;                       \
        va_start(arguments, flags);              \
        mode = va_arg(arguments, mode_t);        \
        va_end(arguments);                       \
    }

int open(const char *path, int flags, ...)
{
    MODE_OF(flags, mode)
    return open_file(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE_OF(flags, mode)
    return open_file(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int openat(int at, const char *path, int flags, ...)
{
    MODE_OF(flags, mode)
    return open_file(at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...)
{
    MODE_OF(flags, mode)
    return open_file(at, path, flags | O_LARGEFILE, mode);
}

int creat(const char *path, mode_t mode)
{
    return open_file(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int creat64(const char *path, mode_t mode)
{
    return open_file(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC | O_LARGEFILE, mode);
}

int close(int fd)
{
    forget(fd);
    return (int)syscall(SYS_close, fd);
}

int closedir(DIR *directory)
{
    static int (*real)(DIR *);
    if (real == NULL)
        real = (int (*)(DIR *))dlsym(RTLD_NEXT, "closedir");
    /* The library closes the descriptor without asking for `close` by name. */
    forget(dirfd(directory));
    return real(directory);
}

/* Writing */

/* Writes at an offset, or at the file's own position. */
static ssize_t write_file(int fd, const struct iovec *parts, int count, int64_t offset)
{
    uint32_t file = file_of(fd);
    if (file == 0) {
        if (offset < 0)
            return syscall(SYS_writev, fd, parts, count);
        return syscall(SYS_pwritev, fd, parts, count, (long)offset, 0L);
    }
    size_t bytes = 0;
    for (int part = 0; part < count; part++)
        bytes += parts[part].iov_len;
    hold();
    uint64_t where = (uint64_t)offset;
    if (offset < 0) {
        struct stat status;
        int flags = fcntl(fd, F_GETFL);
        if (flags >= 0 && (flags & O_APPEND) && fstat(fd, &status) == 0)
            where = (uint64_t)status.st_size;
        else
            where = (uint64_t)lseek(fd, 0, SEEK_CUR);
    }
    int error;
    size_t done = write_fault(fd, bytes, where, &error);
    if (done == 0 && error != 0) {
        release();
        return fail(error);
    }
    /* Of what is cut short, the first part alone. */
    struct iovec first = {parts[0].iov_base, parts[0].iov_len < done ? parts[0].iov_len : done};
    if (done < bytes) {
        parts = &first;
        count = 1;
    }
    uint64_t at_ns = now_ns();
    ssize_t written = offset < 0 ? syscall(SYS_writev, fd, parts, count)
                                 : syscall(SYS_pwritev, fd, parts, count, (long)offset, 0L);
    if (written > 0)
        tell(WRITTEN, at_ns, file, where, parts, count, (size_t)written);
    release();
    return written;
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    if (file_of(fd) == 0)
        return syscall(SYS_write, fd, bytes, count);
    struct iovec part = {(void *)bytes, count};
    return write_file(fd, &part, 1, -1);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    return write_file(fd, parts, count, -1);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
    struct iovec part = {(void *)bytes, count};
    return write_file(fd, &part, 1, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
    struct iovec part = {(void *)bytes, count};
    return write_file(fd, &part, 1, offset);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    return write_file(fd, parts, count, offset);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset)
{
    return write_file(fd, parts, count, offset);
}

ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    if (file_of(fd) == 0)
        return syscall(SYS_pwritev2, fd, parts, count, (long)offset, 0L, flags);
    return write_file(fd, parts, count, offset);
}

ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags)
{
    return pwritev2(fd, parts, count, offset, flags);
}

/* Copies inside the kernel are refused, and whoever asks for them reads and writes instead. */
ssize_t copy_file_range(int from, off64_t *from_offset, int to, off64_t *to_offset, size_t bytes, unsigned flags)
{
    if (file_of(to) != 0)
        return fail(ENOSYS);
    return syscall(SYS_copy_file_range, from, from_offset, to, to_offset, bytes, flags);
}

ssize_t sendfile64(int to, int from, off64_t *offset, size_t bytes)
{
    if (file_of(to) != 0)
        return fail(ENOSYS);
    return syscall(SYS_sendfile, to, from, offset, bytes);
}

static int cut_file(int fd, int64_t bytes)
{
    uint32_t file = file_of(fd);
    if (file == 0)
        return (int)syscall(SYS_ftruncate, fd, (long)bytes);
    int error = is_full_disk() ? 0 : fault(TRUNCATE, class_of_fd(fd));
    if (error != 0)
        return fail(error);
    struct stat before = {0}, after = {0};
    hold();
    fstat(fd, &before);
    uint64_t at_ns = now_ns();
    int result = (int)syscall(SYS_ftruncate, fd, (long)bytes);
    if (result == 0) {
        fstat(fd, &after);
        give_room(class_of_fd(fd), disk_bytes(&before) - disk_bytes(&after));
        tell(CUT, at_ns, file, (uint64_t)bytes, NULL, 0, 0);
    }
    release();
    return result;
}

int ftruncate(int fd, off_t bytes)
{
    return cut_file(fd, bytes);
}

int ftruncate64(int fd, off64_t bytes)
{
    return cut_file(fd, bytes);
}

static int allocate(int fd, int mode, int64_t offset, int64_t bytes)
{
    uint32_t file = file_of(fd);
    if (file == 0)
        return (int)syscall(SYS_fallocate, fd, mode, (long)offset, (long)bytes);
    if (mode & ~FALLOC_FL_KEEP_SIZE)
        die("a way to allocate that the trace does not know");
    struct stat status;
    int error = 0;
    if (!is_full_disk())
        error = fault(ALLOCATE, class_of_fd(fd));
    else if (fstat(fd, &status) == 0)
        error = room_fault(ALLOCATE, class_of_fd(fd), offset + bytes - disk_bytes(&status));
    if (error != 0)
        return fail(error);
    hold();
    uint64_t at_ns = now_ns();
    int result = (int)syscall(SYS_fallocate, fd, mode, (long)offset, (long)bytes);
    /* Room alone is nothing that a reader sees. */
    if (result == 0 && mode == 0 && fstat(fd, &status) == 0)
        tell(CUT, at_ns, file, (uint64_t)status.st_size, NULL, 0, 0);
    release();
    return result;
}

int fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    return allocate(fd, mode, offset, bytes);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t bytes)
{
    return allocate(fd, mode, offset, bytes);
}

int posix_fallocate(int fd, off_t offset, off_t bytes)
{
    return allocate(fd, 0, offset, bytes) == 0 ? 0 : errno;
}

int posix_fallocate64(int fd, off64_t offset, off64_t bytes)
{
    return allocate(fd, 0, offset, bytes) == 0 ? 0 : errno;
}

/* Syncing */

static int sync_file(int fd, long call)
{
    uint32_t file = file_of(fd);
    if (file == 0)
        return (int)syscall(call, fd);
    int error = fault(SYNC, class_of_fd(fd));
    hold();
    uint64_t number = ++last_sync;
    tell(SYNC_BEGAN, now_ns(), file, number, NULL, 0, 0);
    release();
    int result = error != 0 ? fail(error) : (int)syscall(call, fd);
    if (sync_us > 0) {
        struct timespec longer = {sync_us / 1000000, sync_us % 1000000 * 1000};
        int kept = errno;
        nanosleep(&longer, NULL);
        errno = kept;
    }
    hold();
    tell(result == 0 ? SYNC_ENDED : SYNC_FAILED, now_ns(), file, number, NULL, 0, 0);
    release();
    return result;
}

int fsync(int fd)
{
    return sync_file(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return sync_file(fd, SYS_fdatasync);
}

int sync_file_range(int fd, off64_t offset, off64_t bytes, unsigned flags)
{
    uint32_t file = file_of(fd);
    if (file == 0)
        return (int)syscall(SYS_sync_file_range, fd, (long)offset, (long)bytes, flags);
    int error = fault(SYNC, class_of_fd(fd));
    if (error != 0)
        return fail(error);
    hold();
    uint64_t at_ns = now_ns();
    int result = (int)syscall(SYS_sync_file_range, fd, (long)offset, (long)bytes, flags);
    if (result == 0)
        tell(RANGE_SYNCED, at_ns, file, (uint64_t)offset, NULL, 0, 0);
    release();
    return result;
}

/* Names */

static int rename_file(int from_at, const char *from, int to_at, const char *to, unsigned flags)
{
    char whole_from[PATH_MAX], whole_to[PATH_MAX];
    const char *our_from = resolve(from_at, from, whole_from);
    const char *our_to = resolve(to_at, to, whole_to);
    if (our_from == NULL && our_to == NULL)
        return (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (our_from == NULL || our_to == NULL || flags & ~1u)
        die("a rename that the trace does not know");
    int error = fault(RENAME, class_of(our_from) | class_of(our_to));
    if (error != 0)
        return fail(error);
    hold();
    uint64_t at_ns = now_ns();
    int result = (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (result == 0)
        tell_two(RENAMED, at_ns, relative(our_from), relative(our_to));
    release();
    return result;
}

int rename(const char *from, const char *to)
{
    return rename_file(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat(int from_at, const char *from, int to_at, const char *to)
{
    return rename_file(from_at, from, to_at, to, 0);
}

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags)
{
    return rename_file(from_at, from, to_at, to, flags);
}

static int link_file(int from_at, const char *from, int to_at, const char *to, int flags)
{
    char whole_from[PATH_MAX], whole_to[PATH_MAX];
    const char *our_from = resolve(from_at, from, whole_from);
    const char *our_to = resolve(to_at, to, whole_to);
    if (our_from != NULL && our_to == NULL)
        return (int)syscall(SYS_linkat, from_at, from, to_at, to, flags);
    if (our_to == NULL)
        return (int)syscall(SYS_linkat, from_at, from, to_at, to, flags);
    if (our_from == NULL)
        die("a link that the trace does not know");
    int error = fault(CREATE, class_of(our_to));
    if (error != 0)
        return fail(error);
    hold();
    uint64_t at_ns = now_ns();
    int result = (int)syscall(SYS_linkat, from_at, from, to_at, to, flags);
    if (result == 0)
        tell_two(LINKED, at_ns, relative(our_from), relative(our_to));
    release();
    return result;
}

int link(const char *from, const char *to)
{
    return link_file(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int linkat(int from_at, const char *from, int to_at, const char *to, int flags)
{
    return link_file(from_at, from, to_at, to, flags);
}

static int remove_name(int at, const char *path, int flags)
{
    char whole[PATH_MAX];
    const char *ours = resolve(at, path, whole);
    if (ours == NULL)
        return (int)syscall(SYS_unlinkat, at, path, flags);
    int error = is_full_disk() ? 0 : fault(REMOVE, class_of(ours));
    if (error != 0)
        return fail(error);
    struct stat status = {0};
    hold();
    lstat(ours, &status);
    uint64_t at_ns = now_ns();
    int result = (int)syscall(SYS_unlinkat, at, path, flags);
    if (result == 0)
        give_room(class_of(ours), disk_bytes(&status));
    if (result == 0)
        tell_text(flags & AT_REMOVEDIR ? DIR_REMOVED : UNLINKED, at_ns, 0, relative(ours), strlen(relative(ours)));
    release();
    return result;
}

int unlink(const char *path)
{
    return remove_name(AT_FDCWD, path, 0);
}

int unlinkat(int at, const char *path, int flags)
{
    return remove_name(at, path, flags);
}

int rmdir(const char *path)
{
    return remove_name(AT_FDCWD, path, AT_REMOVEDIR);
}

static int make_dir(int at, const char *path, mode_t mode)
{
    char whole[PATH_MAX];
    const char *ours = resolve(at, path, whole);
    if (ours == NULL)
        return (int)syscall(SYS_mkdirat, at, path, mode);
    struct stat status;
    int error = is_full_disk() ? room_fault(CREATE, class_of(ours), BLOCK_BYTES) : fault(CREATE, class_of(ours));
    if (error != 0)
        return fail(error);
    hold();
    uint64_t at_ns = now_ns();
    int result = (int)syscall(SYS_mkdirat, at, path, mode);
    if (result == 0) {
        if (lstat(ours, &status) != 0)
            die("a new directory");
        uint32_t *file = slot_of(status.st_ino);
        *file = ++last_file;
        tell_text(DIR_MADE, at_ns, *file, relative(ours), strlen(relative(ours)));
    }
    release();
    return result;
}

int mkdir(const char *path, mode_t mode)
{
    return make_dir(AT_FDCWD, path, mode);
}

int mkdirat(int at, const char *path, mode_t mode)
{
    return make_dir(at, path, mode);
}

/* Reading: nothing of it is in the trace. */

static int read_fault(int fd)
{
    uint32_t file = file_of(fd);
    if (file == 0 || control == NULL)
        return 0;
    if (control->mildly && atomic_load(&read_through[file % INODES_MAX]))
        return 0;
    return fault(READ, class_of_fd(fd));
}

ssize_t read(int fd, void *bytes, size_t count)
{
    int error = read_fault(fd);
    if (error != 0)
        return fail(error);
    ssize_t done = syscall(SYS_read, fd, bytes, count);
    uint32_t file = file_of(fd);
    if (file != 0 && done == 0 && count > 0)
        atomic_store(&read_through[file % INODES_MAX], 1);
    return done;
}

ssize_t readv(int fd, const struct iovec *parts, int count)
{
    int error = read_fault(fd);
    return error != 0 ? fail(error) : syscall(SYS_readv, fd, parts, count);
}

ssize_t pread(int fd, void *bytes, size_t count, off_t offset)
{
    int error = read_fault(fd);
    return error != 0 ? fail(error) : syscall(SYS_pread64, fd, bytes, count, (long)offset);
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t offset)
{
    return pread(fd, bytes, count, offset);
}

ssize_t preadv(int fd, const struct iovec *parts, int count, off_t offset)
{
    int error = read_fault(fd);
    return error != 0 ? fail(error) : syscall(SYS_preadv, fd, parts, count, (long)offset, 0L);
}

ssize_t preadv64(int fd, const struct iovec *parts, int count, off64_t offset)
{
    return preadv(fd, parts, count, offset);
}

ssize_t preadv2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    int error = read_fault(fd);
    return error != 0 ? fail(error) : syscall(SYS_preadv2, fd, parts, count, (long)offset, 0L, flags);
}

ssize_t preadv64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags)
{
    return preadv2(fd, parts, count, offset, flags);
}
