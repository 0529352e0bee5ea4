// Replays files, and files in folders, through a fuzz target: the corpus in `make check`,
// a finding by hand.
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned long replayed;

static int replay_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	struct stat st;

	if (!f || fstat(fileno(f), &st)) {
		perror(path);
		return 1;
	}
	size_t size = (size_t)st.st_size;
	uint8_t *data = malloc(size ? size : 1); // exactly, so that overreads are seen
	if (!data || fread(data, 1, size, f) != size) {
		perror(path);
		return 1;
	}
	fclose(f);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	replayed++;
	return 0;
}

static int replay(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *e;
	char inside[4096];
	int failed = 0;

	if (!dir)
		return replay_file(path);
	while (!failed && (e = readdir(dir))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(inside, sizeof(inside), "%s/%s", path, e->d_name);
		failed = replay(inside);
	}
	closedir(dir);
	return failed;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (replay(argv[i]))
			return 1;
	printf("%lu inputs\n", replayed);
	return replayed ? 0 : 1;
}
