// Throughput of the record layer: seal from segments and open in place, in GB of
// plaintext a CPU second, best of several runs. Beside it the same bytes by one bare EVP
// call per record.
#include "lib/record.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <sodium.h>

#define RUNS  9
#define BATCH 64 // records in a batch, as one read or write would have

static uint8_t plain[SP_RECORD_MAX], sealed[BATCH][SP_RECORD_MAX];
static const uint8_t key[32] = {1, 2, 3};

struct shape {
	const char *name;
	size_t head, body; // a header of `head` bytes before every `body` bytes
	size_t total;
};

static const struct shape shapes[] = {
	{"16 KB in one piece", 0, SP_RECORD_PLAIN_MAX, SP_RECORD_PLAIN_MAX},
	{"16 KB, 12 + 4096 each", 12, 4096, SP_RECORD_PLAIN_MAX},
	{"1.4 KB in one piece", 0, 1400, 1400},
	{"1.4 KB, 12 + rest", 12, 1388, 1400},
	{"100 B, 12 + rest", 12, 88, 100},
};

static double cpu_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int make_segments(const struct shape *s, struct iovec *iov)
{
	size_t at = 0;
	int n = 0;

	while (at < s->total) {
		size_t want = n % 2 == 0 && s->head ? s->head : s->body;

		if (want > s->total - at)
			want = s->total - at;
		iov[n++] = (struct iovec){plain + at, want};
		at += want;
	}
	return n;
}

static double run_seal(enum sp_suite suite, const struct shape *s, int rounds)
{
	struct sp_record_tx tx;
	struct iovec iov[32];
	int n = make_segments(s, iov);
	double start;

	if (sp_record_tx_init(&tx, suite, key, 0))
		return 0;
	start = cpu_s();
	for (int r = 0; r < rounds; r++)
		for (int i = 0; i < BATCH; i++)
			if (sp_record_tx_seal(&tx, iov, n, sealed[i], SP_RECORD_MAX) < 0)
				return 0;
	start = cpu_s() - start;
	sp_record_tx_done(&tx);
	return start;
}

static double run_open(enum sp_suite suite, const struct shape *s, int rounds)
{
	size_t size = s->total + SP_RECORD_OVERHEAD, len;
	struct sp_record_rx rx;
	double start, sum = 0;
	uint8_t *p;

	for (int r = 0; r < rounds; r++) {
		run_seal(suite, s, 1);
		if (sp_record_rx_init(&rx, suite, key))
			return 0;
		start = cpu_s();
		for (int i = 0; i < BATCH; i++)
			if (sp_record_rx_open(&rx, sealed[i], size, &p, &len))
				return 0;
		sum += cpu_s() - start;
		sp_record_rx_done(&rx);
	}
	return sum;
}

static double run_bare(enum sp_suite suite, const struct shape *s, int rounds)
{
	const EVP_CIPHER *cipher =
		suite == SP_SUITE_AES256GCM ? EVP_aes_256_gcm() : EVP_chacha20_poly1305();
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t nonce[12] = {0};
	double start;
	int len;

	EVP_EncryptInit_ex(ctx, cipher, NULL, key, NULL);
	start = cpu_s();
	for (int i = 0; i < rounds * BATCH; i++) {
		uint8_t *out = sealed[i % BATCH];

		memcpy(nonce + 4, &i, sizeof(i));
		EVP_EncryptInit_ex(ctx, NULL, NULL, NULL, nonce);
		EVP_EncryptUpdate(ctx, out, &len, plain, (int)s->total);
		EVP_EncryptFinal_ex(ctx, out + s->total, &len);
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, out + s->total);
	}
	start = cpu_s() - start;
	EVP_CIPHER_CTX_free(ctx);
	return start;
}

static double best(double (*run)(enum sp_suite, const struct shape *, int),
		   enum sp_suite suite, const struct shape *s)
{
	int rounds = (int)(40 * 1024 * 1024 / (s->total + 1000) / BATCH);
	double least = 1e9, t;

	for (int i = 0; i < RUNS; i++) {
		t = run(suite, s, rounds);
		if (t < least)
			least = t;
	}
	return (double)s->total * rounds * BATCH / least / 1e9;
}

int main(void)
{
	static const enum sp_suite suites[] = {SP_SUITE_AES256GCM,
					       SP_SUITE_CHACHA20POLY1305};

	if (sodium_init() < 0)
		return 1;
	printf("%-18s %-22s %8s %8s %8s   GB/s\n", "suite", "record", "seal", "open",
	       "bare");
	for (unsigned s = 0; s < 2; s++)
		for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
			printf("%-18s %-22s %8.2f %8.2f %8.2f\n",
			       sp_aead_suite_name(suites[s]), shapes[i].name,
			       best(run_seal, suites[s], &shapes[i]),
			       best(run_open, suites[s], &shapes[i]),
			       best(run_bare, suites[s], &shapes[i]));
	return 0;
}
