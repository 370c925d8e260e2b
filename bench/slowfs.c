/* A read-only view of a directory in which every request takes a time of its own, like that of a
 * file server: slowfs DIRECTORY MOUNTPOINT MICROSECONDS. Ends when it is unmounted.
 *
 * What the kernel may remember, it remembers for as long as over NFS (attributes: 3 seconds).
 */
#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int root;
static struct timespec latency;

static const char *arrive(const char *path)
{
    nanosleep(&latency, NULL);
    return path[1] ? path + 1 : ".";
}

static int slow_getattr(const char *path, struct stat *found, struct fuse_file_info *file)
{
    (void)file;
    return fstatat(root, arrive(path), found, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

static int slow_readlink(const char *path, char *target, size_t size)
{
    ssize_t length = readlinkat(root, arrive(path), target, size - 1);
    if (length < 0)
        return -errno;
    target[length] = 0;
    return 0;
}

static int slow_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
                        struct fuse_file_info *file, enum fuse_readdir_flags flags)
{
    (void)offset, (void)file, (void)flags;
    int fd = openat(root, arrive(path), O_RDONLY | O_DIRECTORY);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory)
        return -errno;
    for (struct dirent *entry; (entry = readdir(directory));) {
        struct stat known = {.st_ino = entry->d_ino, .st_mode = DTTOIF(entry->d_type)};
        fill(buffer, entry->d_name, &known, 0, 0);
    }
    closedir(directory);
    return 0;
}

static int slow_open(const char *path, struct fuse_file_info *file)
{
    int fd = openat(root, arrive(path), O_RDONLY);
    file->fh = fd;
    return fd < 0 ? -errno : 0;
}

static int slow_read(const char *path, char *data, size_t size, off_t offset,
                     struct fuse_file_info *file)
{
    arrive(path);
    ssize_t length = pread(file->fh, data, size, offset);
    return length < 0 ? -errno : (int)length;
}

static int slow_release(const char *path, struct fuse_file_info *file)
{
    (void)path;
    close(file->fh);
    return 0;
}

static void *slow_init(struct fuse_conn_info *connection, struct fuse_config *config)
{
    config->use_ino = 1;
    config->entry_timeout = config->attr_timeout = 3;
    connection->max_background = connection->congestion_threshold = 256;
    connection->want &= ~FUSE_CAP_READDIRPLUS;
    connection->want |= connection->capable & FUSE_CAP_PARALLEL_DIROPS;
    return NULL;
}

static const struct fuse_operations operations = {
    .init = slow_init,
    .getattr = slow_getattr,
    .readlink = slow_readlink,
    .readdir = slow_readdir,
    .open = slow_open,
    .read = slow_read,
    .release = slow_release,
};

int main(int count, char **words)
{
    if (count != 4 || (root = open(words[1], O_RDONLY | O_DIRECTORY)) < 0) {
        fprintf(stderr, "usage: slowfs DIRECTORY MOUNTPOINT MICROSECONDS\n");
        return 2;
    }
    long microseconds = atol(words[3]);
    latency = (struct timespec){microseconds / 1000000, microseconds % 1000000 * 1000};
    char *options[] = {words[0], words[2], "-f", "-o", "max_threads=256,max_idle_threads=256,fsname=slowfs", NULL};
    return fuse_main(5, options, &operations, NULL);
}
