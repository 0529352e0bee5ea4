#include "worker/config_kept.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/keeper_upgrade.h"

#define TEXT_MAX (1 << 20)

static int write_all(int fd, const char *text, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = write(fd, text + done, len - done);
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

static int write_text(int fd, const struct wrk_config *cfg)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	if (!f)
		return -ENOMEM;
	int err = sp_conf_dump(&wrk_config_table, cfg, f);
	if (fclose(f) && !err)
		err = -ENOMEM;
	if (!err)
		err = write_all(fd, text, len);
	free(text);
	return err;
}

int wrk_config_keep(struct wrk_kept *k, const struct wrk_config *cfg)
{
	struct wrk_upgrade *up = wrk_upgrade_of(k->life);
	int old = up->config - 1;
	int fd = memfd_create("sallyport-config", 0); // survives exec
	if (fd < 0)
		return -errno;
	int err = write_text(fd, cfg);
	if (err) {
		close(fd);
		return err;
	}
	up->config = fd + 1;
	if (old > 2)
		close(old);
	return 0;
}

// Whether the descriptor is what the last exit says.
static bool is_there(const struct wrk_kept *k, int fd, size_t *ret_len)
{
	struct stat st;
	if (fd < 3 || fd >= k->n_taken || k->taken[fd] || fstat(fd, &st) ||
	    !S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > TEXT_MAX)
		return false;
	*ret_len = (size_t)st.st_size;
	return true;
}

struct wrk_config *wrk_config_kept(struct wrk_kept *k, const char *path)
{
	struct wrk_upgrade *up = wrk_upgrade_of(k->life);
	int fd = up->config - 1;
	size_t len;
	if (!is_there(k, fd, &len)) {
		up->config = 0;
		return NULL;
	}
	k->taken[fd] = true;
	struct sp_conf_errors errs = {0};
	struct wrk_config *cfg = NULL;
	char *text = malloc(len);
	if (text && pread(fd, text, len, 0) == (ssize_t)len)
		cfg = sp_conf_parse(&wrk_config_table, path, NULL, text, len, &errs);
	free(text);
	return cfg;
}
