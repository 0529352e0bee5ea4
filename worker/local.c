#include "worker/local.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

union fd_message {
	struct cmsghdr head;
	char room[CMSG_SPACE(sizeof(int))];
};

static int send_packet(int sock, void *buf, size_t len, int fd)
{
	struct iovec iov = {.iov_base = buf, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	union fd_message control = {0};
	ssize_t n;
	if (fd >= 0) {
		msg.msg_control = control.room;
		msg.msg_controllen = sizeof(control.room);
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(fd));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

int wrk_local_send(int sock, const ProtobufCMessage *m, int fd)
{
	size_t len = protobuf_c_message_get_packed_size(m);
	if (len > WRK_LOCAL_PACKET_MAX)
		return SP_E_LIMIT;
	// An empty packet would read as the end.
	if (!len)
		return SP_E_MALFORMED;
	uint8_t *buf = malloc(len);
	if (!buf)
		return -ENOMEM;
	protobuf_c_message_pack(m, buf);
	int err = send_packet(sock, buf, len, fd);
	free(buf);
	return err;
}

// The first descriptor of the message; whatever else came is closed.
static int take_fd(struct msghdr *msg)
{
	int ret = -1;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (ret < 0)
				ret = fd;
			else
				close(fd);
		}
	}
	return ret;
}

ssize_t wrk_local_receive(int sock, uint8_t *buf, int *ret_fd)
{
	struct iovec iov = {.iov_base = buf, .iov_len = WRK_LOCAL_PACKET_MAX};
	union fd_message control;
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.room,
			     .msg_controllen = sizeof(control.room)};
	ssize_t n;
	do
		n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	int fd = take_fd(&msg);
	if (msg.msg_flags & MSG_TRUNC) {
		if (fd >= 0)
			close(fd);
		return SP_E_LIMIT;
	}
	*ret_fd = fd;
	return n;
}

int wrk_local_memfd(const char *name, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	while (len) {
		ssize_t n = write(fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			goto fail;
		p += n;
		len -= (size_t)n;
	}
	if (fcntl(fd, F_ADD_SEALS, SEALS) == 0)
		return fd;
fail:;
	int err = -errno;
	close(fd);
	return err;
}

int wrk_local_memfd_read(int fd, size_t max, uint8_t **ret, size_t *ret_len)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 ||
	    (seals & (F_SEAL_WRITE | F_SEAL_SHRINK)) != (F_SEAL_WRITE | F_SEAL_SHRINK))
		return SP_E_PROTOCOL;
	if (fstat(fd, &st))
		return -errno;
	if (st.st_size < 0 || (uint64_t)st.st_size > max)
		return SP_E_LIMIT;
	size_t len = (size_t)st.st_size, at = 0;
	uint8_t *buf = malloc(len + 1);
	if (!buf)
		return -ENOMEM;
	while (at < len) {
		ssize_t n = pread(fd, buf + at, len - at, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			int err = n ? -errno : SP_E_PROTOCOL;
			free(buf);
			return err;
		}
		at += (size_t)n;
	}
	buf[len] = '\0';
	*ret = buf;
	*ret_len = len;
	return 0;
}
