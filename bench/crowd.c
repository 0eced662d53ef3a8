/*
 * A crowded box: `crowd PROCESSES DESCRIPTORS CONNECTIONS LISTENERS PORT` makes so many idle processes with so many open
 * descriptors each (TCP sockets, unix sockets, /dev/null in turns), so many established connections to PORT (one process
 * holds the near ends, another the far ends), and LISTENERS listeners on PORT and the ports after it. The last one is
 * held by two processes. Prints "ready"; all of it ends with it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static pid_t fork_child(void) {
  pid_t parent = getpid();
  pid_t child = fork();
  if (child < 0) fail("fork");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
  }
  return child;
}

static void sleep_for_ever(void) {
  for (;;) pause();
}

static void allow_descriptors(int wanted) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) fail("getrlimit");
  if (limit.rlim_max < (rlim_t)wanted) limit.rlim_max = wanted;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) fail("setrlimit: the descriptors that the connections need");
}

static struct sockaddr_in loopback(int port) {
  struct sockaddr_in address;
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

static int listen_on(int port) {
  int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = loopback(port);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0) fail("bind");
  if (listen(listener, 4096) != 0) fail("listen");
  return listener;
}

static void open_descriptors(int count) {
  for (int at = 0; at < count; at++) {
    int fd = at % 3 == 0 ? socket(AF_INET, SOCK_STREAM, 0) : at % 3 == 1 ? socket(AF_UNIX, SOCK_STREAM, 0) : open("/dev/null", O_RDONLY);
    if (fd < 0) fail("open");
  }
}

int main(int count, char **words) {
  if (count < 6) {
    fprintf(stderr, "usage: crowd PROCESSES DESCRIPTORS CONNECTIONS LISTENERS PORT\n");
    return 2;
  }
  int processes = atoi(words[1]), descriptors = atoi(words[2]), connections = atoi(words[3]);
  int listeners = atoi(words[4]), port = atoi(words[5]);
  allow_descriptors(connections + 1000);
  for (int at = 0; at < processes; at++) {
    if (fork_child() != 0) continue;
    open_descriptors(descriptors);
    sleep_for_ever();
  }
  /* The listeners after the first, each in a process of its own, the last one in two. */
  for (int at = 1; at < listeners; at++) {
    int listener = listen_on(port + at);
    for (int holder = 0; holder < (at == listeners - 1 ? 2 : 1); holder++) if (fork_child() == 0) sleep_for_ever();
    close(listener);
  }
  if (listeners > 0) {
    int listener = listen_on(port);
    if (fork_child() == 0) for (;;) if (accept(listener, NULL, NULL) < 0 && errno != EINTR) fail("accept");
    close(listener);
  }
  struct sockaddr_in address = loopback(port);
  for (int at = 0; at < connections; at++) {
    int near_end = socket(AF_INET, SOCK_STREAM, 0);
    if (near_end < 0) fail("socket");
    if (connect(near_end, (struct sockaddr *)&address, sizeof address) != 0) fail("connect");
  }
  puts("ready");
  fflush(stdout);
  sleep_for_ever();
}
