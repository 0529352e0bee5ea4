#include "ctl/io.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/file.h"

char *ctl_text(const char *fmt, ...)
{
	char *text;
	va_list ap;
	va_start(ap, fmt);
	int n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0) {
		fputs("sallyportctl: out of memory\n", stderr);
		exit(EX_OSERR);
	}
	return text;
}

static int read_code(int err)
{
	switch (err) {
	case -ENOENT:
	case -ENOTDIR:
	case -EISDIR:
		return EX_NOINPUT;
	case -EPERM:
	case -EACCES:
		return EX_NOPERM;
	case -ENOMEM:
		return EX_OSERR;
	default:
		return err > -1000 ? EX_IOERR : EX_DATAERR;
	}
}

int ctl_read(const struct ctl_call *call, const char *path, bool secret, uint8_t **ret,
	     size_t *ret_len)
{
	const struct sp_file_read opt = {.max = CTL_FILE_MAX, .secret = secret};
	char why[SP_WHY_MAX];
	int err = sp_file_read(path, &opt, ret, ret_len, why, sizeof(why));
	return err ? ctl_fail(call, read_code(err), "%s", why) : 0;
}

int ctl_write(const struct ctl_call *call, const char *path, const void *buf, size_t len,
	      mode_t mode, bool replace)
{
	char why[SP_WHY_MAX];
	int err = replace ? sp_file_write(path, buf, len, mode, why, sizeof(why))
			  : sp_file_create(path, buf, len, mode, why, sizeof(why));
	if (err == -EEXIST && call->verb && ctl_has_option(call->verb, "force"))
		return ctl_fail(
			call, EX_CANTCREAT,
			"%s exists already; choose another name, or replace it by "
			"--force",
			path);
	if (err)
		return ctl_fail(call,
				err == -EIO || err == -ENOSPC ? EX_IOERR : EX_CANTCREAT,
				"%s", why);
	return 0;
}

int ctl_make_folder(const struct ctl_call *call, const char *path, mode_t mode)
{
	if (mkdir(path, mode) == 0)
		return 0;
	if (errno != EEXIST)
		return ctl_fail(call, EX_CANTCREAT, "%s: cannot make the folder: %s",
				path, strerror(errno));
	DIR *d = opendir(path);
	if (!d)
		return ctl_fail(call, EX_CANTCREAT, "%s: %s", path, strerror(errno));
	bool empty = true;
	for (struct dirent *e; empty && (e = readdir(d));)
		empty = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
	closedir(d);
	if (!empty)
		return ctl_fail(call, EX_CANTCREAT,
				"%s is not empty; name a new folder or empty this one",
				path);
	return 0;
}

int ctl_public_key(const struct ctl_call *call, const char *option, const char *value,
		   enum sp_key_kind kind, uint8_t *ret)
{
	char why[SP_WHY_MAX];
	if (!strncmp(value, "sallyport-", 10) && strchr(value, ':'))
		return sp_key_parse(kind, false, value, strlen(value), ret, why,
				    sizeof(why))
			       ? ctl_fail(call, EX_DATAERR, "%s: %s", option, why)
			       : 0;
	int err = sp_key_load(value, kind, false, ret, why, sizeof(why));
	return err ? ctl_fail(call, read_code(err), "%s: %s", option, why) : 0;
}

int ctl_secret_key(const struct ctl_call *call, const char *path, enum sp_key_kind kind,
		   uint8_t *ret)
{
	char why[SP_WHY_MAX];
	int err = sp_key_load(path, kind, true, ret, why, sizeof(why));
	return err ? ctl_fail(call, read_code(err), "%s", why) : 0;
}

int ctl_trusted_keys(const struct ctl_call *call, const char *option,
		     struct sp_signed_keys *ret)
{
	char name[64];
	size_t at = 0;
	snprintf(name, sizeof(name), "--%s", option);
	for (const char *value; (value = ctl_next(call, option, &at));) {
		uint8_t key[SP_SIGNED_PUBLIC_BYTES];
		int code = ctl_public_key(call, name, value, SP_KEY_SIGNING, key);
		if (code)
			return code;
		int err = sp_signed_keys_add(ret, key);
		if (err == SP_E_LIMIT)
			return ctl_fail(call, EX_USAGE, "%s: at most %d keys", name,
					SP_SIGNED_KEYS_MAX);
		if (err)
			return ctl_fail(call, EX_DATAERR,
					"%s: %s: not the public half of a signing key",
					name, value);
	}
	return 0;
}
