/* What the kernel can do: one thread, epoll, and sendfile of a file to a number of sockets.
 *
 * limit PORT FILE STEP SOCKETS
 *
 * Connects to 127.0.0.1, sends the whole file on each socket in steps of STEP bytes, and prints
 * the seconds and CPU seconds from the first step until the kernel has taken the last byte.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void need(int ok, const char *what) {
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static double now(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

int main(int argc, char **argv) {
    need(argc == 5, "usage");
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int file = open(argv[2], O_RDONLY), n = atoi(argv[4]), left = n, poll = epoll_create1(0);
    size_t step = strtoul(argv[3], NULL, 10);
    struct stat status;
    need(file >= 0 && !fstat(file, &status) && poll >= 0 && n > 0, "open");
    int *socks = calloc(n, sizeof *socks);
    off_t *at = calloc(n, sizeof *at);
    for (int i = 0; i < n; i++) {
        int yes = 1;
        struct epoll_event event = {.events = EPOLLOUT, .data.u32 = i};
        socks[i] = socket(AF_INET, SOCK_STREAM, 0);
        need(!connect(socks[i], (void *)&to, sizeof to), "connect");
        setsockopt(socks[i], IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        need(!fcntl(socks[i], F_SETFL, O_NONBLOCK), "fcntl");
        need(!epoll_ctl(poll, EPOLL_CTL_ADD, socks[i], &event), "epoll_ctl");
    }
    double wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    while (left > 0) {
        struct epoll_event ready[64];
        int count = epoll_wait(poll, ready, 64, -1);
        for (int k = 0; k < count; k++) {
            int i = ready[k].data.u32;
            ssize_t sent = sendfile(socks[i], file, &at[i], step);
            need(sent > 0 || (sent < 0 && errno == EAGAIN), "sendfile");
            if (at[i] == status.st_size) {
                epoll_ctl(poll, EPOLL_CTL_DEL, socks[i], NULL);
                left--;
            }
        }
    }
    printf("%.9f %.9f\n", now(CLOCK_MONOTONIC) - wall, now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    for (int i = 0; i < n; i++) {
        char end;
        /* The receiver closes when it has read everything. */
        fcntl(socks[i], F_SETFL, 0);
        shutdown(socks[i], SHUT_WR);
        need(read(socks[i], &end, 1) == 0, "read");
    }
    return 0;
}
