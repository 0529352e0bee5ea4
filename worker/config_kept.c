#include "worker/config_kept.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/file.h"
#include "worker/keeper_upgrade.h"

#define TEXT_MAX (64 << 20)

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

static int keep(int32_t *slot, const char *name, const void *text, size_t len)
{
	int old = *slot - 1;
	int fd = memfd_create(name, 0); // survives exec
	if (fd < 0)
		return -errno;
	int err = write_all(fd, text, len);
	if (err) {
		close(fd);
		return err;
	}
	*slot = fd + 1;
	if (old > 2)
		close(old);
	return 0;
}

// What the last exit kept, which becomes this one's; malloc'd. NULL: nothing.
static char *kept(struct wrk_kept *k, int32_t *slot, size_t *ret_len)
{
	struct stat st;
	int fd = *slot - 1;
	if (fd < 3 || fd >= k->n_taken || k->taken[fd] || fstat(fd, &st) ||
	    !S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > TEXT_MAX) {
		*slot = 0;
		return NULL;
	}
	k->taken[fd] = true;
	char *text = malloc((size_t)st.st_size);
	*ret_len = (size_t)st.st_size;
	if (text && pread(fd, text, *ret_len, 0) == st.st_size)
		return text;
	free(text);
	return NULL;
}

int wrk_config_keep(struct wrk_kept *k, const struct wrk_config *cfg)
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
		err = keep(&wrk_upgrade_of(k->life)->config, "sallyport-config", text,
			   len);
	free(text);
	return err;
}

struct wrk_config *wrk_config_kept(struct wrk_kept *k, const char *path)
{
	struct sp_conf_errors errs = {0};
	size_t len = 0;
	char *text = kept(k, &wrk_upgrade_of(k->life)->config, &len);
	struct wrk_config *cfg =
		text ? sp_conf_parse(&wrk_config_table, path, NULL, text, len, &errs)
		     : NULL;
	free(text);
	return cfg;
}

int wrk_fleet_keep(struct wrk_kept *k, const void *json, size_t len)
{
	return keep(&wrk_upgrade_of(k->life)->fleet, "sallyport-fleet", json, len);
}

void wrk_fleet_kept(struct wrk_kept *k, struct wrk_identity *id)
{
	char why[SP_WHY_MAX];
	struct sp_fleet_worker *f;
	struct sp_policy *policy;
	size_t len = 0;
	char *text = kept(k, &wrk_upgrade_of(k->life)->fleet, &len);
	bool good = text && !id->fleet &&
		    sp_fleet_worker_parse(text, len, &f, why, sizeof(why)) == 0;
	free(text);
	if (!good)
		return;
	if (wrk_identity_policy(f, &policy, why, sizeof(why))) {
		sp_fleet_worker_free(f);
		return;
	}
	sp_policy_free(id->policy);
	id->policy = policy;
	id->fleet = f;
}

int wrk_members_keep(struct wrk_kept *k, const void *json, size_t len)
{
	return keep(&wrk_upgrade_of(k->life)->members, "sallyport-members", json, len);
}

void wrk_members_kept(struct wrk_kept *k, struct sp_fleet_members *ret)
{
	size_t len = 0;
	char *text = kept(k, &wrk_upgrade_of(k->life)->members, &len);
	*ret = (struct sp_fleet_members){0};
	if (text && sp_fleet_members_parse(text, len, ret, NULL, 0))
		*ret = (struct sp_fleet_members){0};
	free(text);
}
