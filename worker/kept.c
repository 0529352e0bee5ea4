// The exit's side of what outlives it: the descriptors that it inherited, and whose they
// are by now.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/keeper_internal.h"

int keeper_table_size(void)
{
	char line[256];
	int n = -ENOENT;
	FILE *f = fopen("/proc/self/status", "re");
	if (!f)
		return -errno;
	while (n < 0 && fgets(line, sizeof(line), f))
		if (sscanf(line, "FDSize: %d", &n) != 1)
			n = -ENOENT;
	fclose(f);
	return n;
}

// Asking for each is cheaper by far than listing /proc/self/fd, which makes an inode for
// each.
int keeper_list_inherited(struct wrk_kept *k)
{
	int n = keeper_table_size();
	if (n < 0)
		return n;
	k->taken = malloc((size_t)n * sizeof(*k->taken) + 1);
	if (!k->taken)
		return -ENOMEM;
	for (int fd = 0; fd < n; fd++)
		k->taken[fd] = fd < 3 || fd == k->fd || fcntl(fd, F_GETFD) < 0;
	k->n_taken = n;
	return 0;
}

void wrk_kept_signals(sigset_t *ret)
{
	sigemptyset(ret);
	sigaddset(ret, SIGHUP);
	sigaddset(ret, SIGTERM);
	sigaddset(ret, SIGINT);
}

int wrk_kept_sweep(struct wrk_kept *k)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	int n = 0;
	for (int fd = 3; fd < k->n_taken; fd++) {
		if (k->taken[fd])
			continue;
		k->taken[fd] = true;
		(void)connect(fd, &none, sizeof(none));
		close(fd);
		n++;
	}
	free(k->taken);
	k->taken = NULL;
	k->n_taken = 0;
	return n;
}
