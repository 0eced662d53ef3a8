/*
 * The least that a look-up of all holders costs: `floor PORT` reads the LISTEN rows of /proc/net/tcp and tcp6 up to the
 * first row of a connection, then every descriptor of every process, and prints what it found and the milliseconds.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 64, LISTEN_STATE = 0x0A };
static unsigned long inodes[MOST];
static int inode_count;

static double now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static void read_listeners(const char *path, unsigned wanted) {
  FILE *table = fopen(path, "r");
  char line[512];
  if (!table) return;
  if (!fgets(line, sizeof line, table)) line[0] = 0;
  while (fgets(line, sizeof line, table)) {
    unsigned port, state;
    unsigned long inode;
    if (sscanf(line, " %*d: %*[0-9A-F]:%x %*[0-9A-F]:%*x %x %*s %*s %*s %*d %*d %lu", &port, &state, &inode) != 3) continue;
    if (state != LISTEN_STATE) break;
    if (port == wanted && inode_count < MOST) inodes[inode_count++] = inode;
  }
  fclose(table);
}

static int is_wanted(int folder, const char *name) {
  char link[64];
  ssize_t length = readlinkat(folder, name, link, sizeof link - 1);
  if (length < 9 || memcmp(link, "socket:[", 8) != 0) return 0;
  link[length] = 0;
  unsigned long inode = strtoul(link + 8, NULL, 10);
  for (int at = 0; at < inode_count; at++) if (inodes[at] == inode) return 1;
  return 0;
}

int main(int count, char **words) {
  int holders = 0, processes = 0, descriptors = 0;
  double began = now_ms();
  if (count < 2) return 2;
  read_listeners("/proc/net/tcp", atoi(words[1]));
  read_listeners("/proc/net/tcp6", atoi(words[1]));
  DIR *proc = opendir("/proc");
  if (!proc) return 1;
  for (struct dirent *process; (process = readdir(proc));) {
    char path[300];
    if (process->d_name[0] < '1' || process->d_name[0] > '9') continue;
    processes++;
    snprintf(path, sizeof path, "%s/fd", process->d_name);
    int folder = openat(dirfd(proc), path, O_RDONLY | O_DIRECTORY);
    DIR *fds = folder < 0 ? NULL : fdopendir(folder);
    if (!fds) continue;
    int holds = 0;
    for (struct dirent *fd; (fd = readdir(fds));) {
      if (fd->d_name[0] == '.') continue;
      descriptors++;
      if (is_wanted(folder, fd->d_name)) holds = 1;
    }
    holders += holds;
    closedir(fds);
  }
  printf("{\"ms\":%.3f,\"holders\":%d,\"processes\":%d,\"descriptors\":%d}\n", now_ms() - began, holders, processes, descriptors);
}
