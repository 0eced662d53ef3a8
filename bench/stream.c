/*
 * One stream at the least cost: `stream serve PORT` is who sends and receives at the far end, a process for each connection;
 * `stream down PORT BYTES` and `stream up PORT BYTES` connect there, have so much sent or send it, and print how many
 * seconds passed from the connect to the last byte, which of `up` is the word of the far end that it has all.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROOM (256 * 1024)
static char room[ROOM];

struct request {
  char direction; /* 'd': the far end sends */
  char bytes[15]; /* decimal, ended by a zero */
};

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void put(int fd, long long left) {
  while (left > 0) {
    ssize_t done = write(fd, room, left < ROOM ? (size_t)left : ROOM);
    if (done <= 0) fail("write");
    left -= done;
  }
}

static void get(int fd, long long left) {
  while (left > 0) {
    ssize_t done = read(fd, room, left < ROOM ? (size_t)left : ROOM);
    if (done < 0) fail("read");
    if (done == 0) {
      fprintf(stderr, "ended %lld bytes early\n", left);
      exit(1);
    }
    left -= done;
  }
}

static struct sockaddr_in address_of(const char *port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

static void answer(int fd) {
  struct request request;
  for (size_t have = 0; have < sizeof request;) {
    ssize_t done = read(fd, (char *)&request + have, sizeof request - have);
    if (done <= 0) _exit(0); /* somebody who only looks */
    have += done;
  }
  if (request.direction == 'd') {
    put(fd, atoll(request.bytes));
  } else {
    get(fd, atoll(request.bytes));
    put(fd, 1);
  }
  _exit(0);
}

static void serve(const char *port) {
  struct sockaddr_in address = address_of(port);
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  int yes = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 128)) fail("listen");
  signal(SIGCHLD, SIG_IGN);
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) fail("accept");
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      answer(fd);
    }
    close(fd);
  }
}

int main(int count, char **words) {
  if (count == 3 && !strcmp(words[1], "serve")) serve(words[2]);
  if (count != 4) return 2;
  struct sockaddr_in address = address_of(words[2]);
  struct request request = {.direction = words[1][0]};
  struct timespec began, ended;
  strncpy(request.bytes, words[3], sizeof request.bytes - 1);
  clock_gettime(CLOCK_MONOTONIC, &began);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
  if (write(fd, &request, sizeof request) != sizeof request) fail("write");
  if (request.direction == 'd') {
    get(fd, atoll(words[3]));
  } else {
    put(fd, atoll(words[3]));
    get(fd, 1);
  }
  clock_gettime(CLOCK_MONOTONIC, &ended);
  printf("%.6f\n", (double)(ended.tv_sec - began.tv_sec) + (double)(ended.tv_nsec - began.tv_nsec) / 1e9);
  return 0;
}
