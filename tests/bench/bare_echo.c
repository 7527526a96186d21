// SPDX-License-Identifier: Apache-2.0
/* PID 1 of the bare chain's sandbox: for every message on standard input reads FILE (4 KiB) and writes its bytes out.
 * Linked static. */
#include <fcntl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static char buffer[65536];
    if (argc != 2)
        return 2;
    while (read(0, buffer, 4096) > 0) {
        int fd = open(argv[1], O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return 1;
        ssize_t n = read(fd, buffer, sizeof buffer);
        close(fd);
        if (n <= 0 || write(1, buffer, (size_t)n) != n)
            return 1;
    }
    return 0;
}
