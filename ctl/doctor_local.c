// A program's config on this host, and what it names: the program's own --check, modes of
// secrets, ends of certificates, room on disks. Blocking I/O; starts the programs.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/cert.h"
#include "ctl/checks.h"
#include "ctl/parse.h"
#include "lib/file.h"
#include "lib/yaml.h"

#define OUTPUT_MAX  65536
#define RUN_S       20 // a --check may ask nobody, and takes milliseconds
#define FILE_MAX    65536
#define FOLDER_MAX  256 // files of a state folder that are looked at
#define CERT_WARN_S (21 * 86400)
#define CERT_BAD_S  (3 * 86400)

struct look {
	const struct ctl_call *call;
	struct ctl_checks *k;
	const char *path;       // of the config
	uid_t owner;            // of the secrets that it names; (uid_t)-1: none found yet
	unsigned secrets, open; // open: to others
};

// ---- running a program ----

// The program beside this one, or the one of that name in PATH.
static void find_program(const char *name, char *ret, size_t cap)
{
	ssize_t n = readlink("/proc/self/exe", ret, cap - 1);
	ret[n > 0 ? n : 0] = '\0';
	char *slash = strrchr(ret, '/');
	if (slash && (size_t)(slash + 1 - ret) + strlen(name) < cap) {
		strcpy(slash + 1, name);
		if (access(ret, X_OK) == 0)
			return;
	}
	snprintf(ret, cap, "%s", name);
}

// Root looks as whom the program runs as, else its secrets seem another's.
static void become(uid_t uid)
{
	struct passwd *pw = uid ? getpwuid(uid) : NULL;
	if (geteuid() != 0 || !uid || uid == (uid_t)-1)
		return;
	if ((pw && initgroups(pw->pw_name, pw->pw_gid)) ||
	    setgid(pw ? pw->pw_gid : (gid_t)uid) || setuid(uid))
		_exit(127);
}

static void run_child(const char *program, const char *config, const char *option,
		      uid_t uid, int fd)
{
	int null = open("/dev/null", O_RDONLY);
	if (null < 0 || dup2(null, 0) < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
		_exit(127);
	alarm(RUN_S);
	become(uid);
	execlp(program, program, "-c", config, option, (char *)NULL);
	_exit(127);
}

// Its exit status (127: cannot be started, 128 + n: a signal) and what it said.
static int run(const char *name, const char *config, const char *option, uid_t uid,
	       char **ret_text)
{
	char program[PATH_MAX];
	int fd[2], status = 0;
	size_t len = 0;
	*ret_text = calloc(1, OUTPUT_MAX);
	find_program(name, program, sizeof(program));
	if (!*ret_text || pipe(fd))
		return 127;
	pid_t pid = fork();
	if (pid == 0) {
		close(fd[0]);
		run_child(program, config, option, uid, fd[1]);
	}
	close(fd[1]);
	ssize_t n = 0;
	char spill[512];
	do {
		len += n > 0 ? (size_t)n : 0;
		n = len < OUTPUT_MAX - 1
			    ? read(fd[0], *ret_text + len, OUTPUT_MAX - 1 - len)
		    : read(fd[0], spill, sizeof(spill)) > 0 ? 0
							    : -1;
	} while (n > 0 || (n < 0 && errno == EINTR));
	close(fd[0]);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 127;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// ---- what a config names ----

static void check_secret(struct look *l, const char *path, const struct stat *st)
{
	char remedy[PATH_MAX + 32];
	l->secrets++;
	if (l->owner == (uid_t)-1)
		l->owner = st->st_uid;
	if (!(st->st_mode & 077))
		return;
	l->open++;
	snprintf(remedy, sizeof(remedy), "chmod 600 %s", path);
	ctl_check_add(l->k, CTL_BAD, "secret", path, remedy,
		      "others may use it: mode %04o", st->st_mode & 07777);
}

static void check_certificate(struct look *l, const char *path)
{
	struct ctl_cert_info info;
	char when[CTL_TIME_CAP];
	uint64_t now = l->call->now_s;
	if (ctl_cert_read(path, &info)) {
		ctl_check_add(l->k, CTL_BAD, "certificate", path,
			      "get it again from its authority", "cannot be read");
		return;
	}
	bool bad = info.expires_s < now + CERT_BAD_S;
	bool near = info.expires_s < now + CERT_WARN_S;
	ctl_check_add(l->k,
		      bad    ? CTL_BAD
		      : near ? CTL_WARN
			     : CTL_GOOD,
		      "certificate", path,
		      bad || near ? "renew it, and let the program read it again "
				    "(systemctl reload)"
				  : NULL,
		      "%s %s", info.expires_s < now ? "ended" : "ends",
		      ctl_format_distance(info.expires_s, now, when));
}

static bool is_secret_name(const char *key)
{
	return strstr(key, "password") || strstr(key, "token");
}

static void look_at_file(struct look *l, const char *key, const char *path,
			 const struct stat *st)
{
	const struct sp_file_read opt = {.max = FILE_MAX};
	uint8_t *buf;
	size_t len;
	if (sp_file_read(path, &opt, &buf, &len, NULL, 0)) {
		if (is_secret_name(key) || strstr(key, "key"))
			check_secret(l, path, st);
		return;
	}
	const char *text = (const char *)buf;
	const char *colon = strchr(text, ':');
	bool ours = !strncmp(text, "sallyport-", 10) && colon && colon - text > 7 &&
		    !strncmp(colon - 7, "-secret", 7);
	if (ours || is_secret_name(key) || strstr(text, "PRIVATE KEY-----"))
		check_secret(l, path, st);
	if (!strncmp(text, "-----BEGIN CERTIFICATE-----", 27))
		check_certificate(l, path);
	sp_file_free(buf, len);
}

static void look_at_folder(struct look *l, const char *path)
{
	struct statvfs fs;
	struct dirent *e;
	unsigned n = 0;
	DIR *d = opendir(path);
	if (statvfs(path, &fs) == 0)
		ctl_check_room(l->k, "disk", path, (uint64_t)fs.f_bavail * fs.f_frsize,
			       (uint64_t)fs.f_blocks * fs.f_frsize);
	while (d && n++ < FOLDER_MAX && (e = readdir(d))) {
		char file[PATH_MAX];
		struct stat st;
		if (e->d_name[0] == '.' ||
		    (size_t)snprintf(file, sizeof(file), "%s/%s", path, e->d_name) >=
			    sizeof(file))
			continue;
		if (lstat(file, &st) == 0 && S_ISREG(st.st_mode))
			look_at_file(l, "", file, &st);
	}
	if (d)
		closedir(d);
}

// Every text of the config that is the path of something there.
static void look_at(struct look *l, const char *key, const json_t *v)
{
	const char *name, *path = json_string_value(v);
	const json_t *e;
	size_t i;
	struct stat st;
	json_object_foreach((json_t *)(uintptr_t)v, name, e) look_at(l, name, e);
	json_array_foreach((json_t *)(uintptr_t)v, i, e) look_at(l, key, e);
	if (!path || path[0] != '/' || stat(path, &st))
		return;
	if (S_ISDIR(st.st_mode))
		look_at_folder(l, path);
	else if (S_ISREG(st.st_mode))
		look_at_file(l, key, path, &st);
}

// ---- which program it is ----

static const char *program_of(const json_t *config)
{
	static const struct {
		const char *key, *program; // the first that is there tells
	} marks[] = {{"socks", "sallyport"},
		     {"http", "sallyport"},
		     {"exits", "sallyport"},
		     {"endpoints", "sallyport"},
		     {"bus", "sallyport-controller"},
		     {"state_dir", "sallyport-controller"},
		     {"node", "sallyport-worker"},
		     {"probe", "sallyport-healthcheck"},
		     {"controls", "sallyport-healthcheck"},
		     {"control", "sallyport-healthcheck"}};
	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++)
		if (json_object_get(config, marks[i].key))
			return marks[i].program;
	return NULL;
}

static json_t *load_yaml(const char *text, size_t len)
{
	unsigned line;
	char why[160];
	return sp_yaml_load(text, len, &line, why, sizeof(why));
}

// What the file says by itself, so that its program is known. NULL: said.
static const char *find_program_of(struct look *l)
{
	const struct sp_file_read opt = {.max = FILE_MAX};
	char why[SP_WHY_MAX];
	uint8_t *buf;
	size_t len;
	if (sp_file_read(l->path, &opt, &buf, &len, why, sizeof(why))) {
		ctl_check_add(l->k, CTL_BAD, "config", l->path,
			      "run this as root, or as who runs the program", "%s", why);
		return NULL;
	}
	json_t *o = load_yaml((const char *)buf, len);
	const char *program = program_of(o);
	sp_file_free(buf, len);
	json_decref(o);
	if (!program)
		ctl_check_add(
			l->k, CTL_BAD, "config", l->path,
			"name the config of a controller, worker, health checker or "
			"client",
			"no config of ours");
	return program;
}

static void check_by_program(struct look *l, const char *program)
{
	char *text, remedy[PATH_MAX + 64];
	int status = run(program, l->path, "--check", l->owner, &text);
	snprintf(remedy, sizeof(remedy), "mend it, then %s -c %s --check", program,
		 l->path);
	if (text)
		text[strcspn(text, "\n")] = '\0'; // the first of its mistakes
	if (status == 127)
		ctl_check_add(l->k, CTL_BAD, "config", l->path,
			      "install it beside sallyportctl", "%s cannot be started",
			      program);
	else if (status)
		ctl_check_add(l->k, CTL_BAD, "config", l->path, remedy, "%s",
			      text && *text ? text : "its program refuses it");
	else
		ctl_check_add(l->k, CTL_GOOD, "config", l->path, NULL,
			      "good, says %s --check", program);
	free(text);
}

void ctl_check_config(const struct ctl_call *call, struct ctl_checks *k, const char *path)
{
	char whole[PATH_MAX]; // what it names is then named wholly, too
	if (realpath(path, whole))
		path = whole;
	struct look l = {.call = call, .k = k, .path = path, .owner = (uid_t)-1};
	char *text = NULL;
	const char *program = find_program_of(&l);
	if (!program)
		return;
	if (run(program, path, "--dump-config", (uid_t)-1, &text) == 0) {
		json_t *o = load_yaml(text, strlen(text));
		look_at(&l, "", o);
		json_decref(o);
	}
	free(text);
	check_by_program(&l, program);
	if (l.secrets && !l.open)
		ctl_check_add(k, CTL_GOOD, "secrets", path, NULL,
			      "%u are their owner's alone", l.secrets);
}
