// The reference for CPU per GB: one process, one flow at a time, that does nothing but
// recv from the origin, AES-256-GCM in records of 16 KB, send. No SOCKS, no handshake, no
// other flow, no loop: no proxy that encrypts can be cheaper with the same system calls.
//
// usage: rawloop ORIGIN_PORT [RECORDS]
// RECORDS (1..64, default 16): how many records are read, sealed and sent at once.
// A client sends 8 bytes, the count, which go on to the origin. It gets count bytes as
// records of 16,384 (the last one shorter) each followed by a tag of 16. Prints its port.
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/benchlib.h"

enum { WIRE_RECORD = BL_RECORD_BYTES + BL_TAG_BYTES, MAX_RECORDS = 64 };

struct raw {
	EVP_CIPHER_CTX *ctx;
	uint64_t nonce;
	size_t records;
	uint8_t plain[MAX_RECORDS * BL_RECORD_BYTES];
	uint8_t wire[MAX_RECORDS * WIRE_RECORD];
};

// Seals len bytes of plain into wire; returns the length there.
static size_t seal(struct raw *r, size_t len)
{
	size_t out = 0;

	for (size_t at = 0; at < len;) {
		size_t n = len - at < BL_RECORD_BYTES ? len - at : BL_RECORD_BYTES;
		uint8_t iv[12] = {0};
		int k;

		bl_put64(iv + 4, r->nonce++);
		if (EVP_EncryptInit_ex(r->ctx, NULL, NULL, NULL, iv) != 1 ||
		    EVP_EncryptUpdate(r->ctx, r->wire + out, &k, r->plain + at, (int)n) !=
			    1 ||
		    EVP_EncryptFinal_ex(r->ctx, r->wire + out + k, &k) != 1 ||
		    EVP_CIPHER_CTX_ctrl(r->ctx, EVP_CTRL_AEAD_GET_TAG, BL_TAG_BYTES,
					r->wire + out + n) != 1) {
			fputs("AES-256-GCM failed\n", stderr);
			exit(1);
		}
		at += n;
		out += n + BL_TAG_BYTES;
	}
	return out;
}

static int send_all(int fd, const uint8_t *buf, size_t len)
{
	while (len) {
		ssize_t n = send(fd, buf, len, MSG_NOSIGNAL);

		if (n < 0)
			return -errno;
		buf += n;
		len -= (size_t)n;
	}
	return 0;
}

// Carries left bytes from the origin to the client. A record is sealed when it is full;
// what is there of the next one waits at the front of plain.
static int carry(struct raw *r, int origin, int client, uint64_t left)
{
	size_t have = 0;

	while (left || have) {
		size_t room = r->records * BL_RECORD_BYTES - have;
		size_t want = left < room ? left : room;
		size_t ready;
		ssize_t n = want ? recv(origin, r->plain + have, want, 0) : 0;
		int err;

		if (n < 0 || (want && n == 0))
			return n < 0 ? -errno : -EPIPE;
		left -= (uint64_t)n;
		have += (size_t)n;
		ready = left ? have - have % BL_RECORD_BYTES : have;
		err = send_all(client, r->wire, seal(r, ready));
		if (err)
			return err;
		memmove(r->plain, r->plain + ready, have - ready);
		have -= ready;
	}
	return 0;
}

static int flow(struct raw *r, int client, uint16_t origin_port)
{
	uint8_t head[8];
	int err, origin;

	if (recv(client, head, sizeof(head), MSG_WAITALL) != sizeof(head))
		return -EPIPE;
	origin = bl_connect(origin_port, 0);
	if (origin < 0)
		return origin;
	err = send_all(origin, head, sizeof(head));
	if (!err)
		err = carry(r, origin, client, bl_get64(head));
	close(origin);
	return err;
}

int main(int argc, char **argv)
{
	static struct raw r;
	uint8_t key[32] = {1};
	uint16_t port, origin_port;
	int lfd, fd;

	if (argc < 2 || argc > 3) {
		fputs("usage: rawloop ORIGIN_PORT [RECORDS]\n", stderr);
		return 2;
	}
	origin_port = (uint16_t)bl_number(argv[1], 65535, "ORIGIN_PORT");
	r.records = argc > 2 ? bl_number(argv[2], MAX_RECORDS, "RECORDS") : 16;
	if (!r.records)
		r.records = 1;
	r.ctx = EVP_CIPHER_CTX_new();
	if (!r.ctx || EVP_EncryptInit_ex(r.ctx, EVP_aes_256_gcm(), NULL, key, NULL) != 1)
		bl_die("AES-256-GCM");
	lfd = bl_listen(0, &port);
	printf("{\"port\":%u}\n", port);
	fflush(stdout);
	for (;;) {
		int err;

		fd = bl_accept(lfd);
		err = flow(&r, fd, origin_port);
		if (err)
			fprintf(stderr, "rawloop: flow: %s\n", strerror(-err));
		close(fd);
	}
}
