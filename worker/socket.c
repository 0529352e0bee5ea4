#include "worker/socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

static int set_flag(int fd, int level, int option)
{
	int on = 1;
	return setsockopt(fd, level, option, &on, sizeof(on)) ? -errno : 0;
}

static int set_stream_options(int fd)
{
	int err = set_flag(fd, SOL_SOCKET, SO_OOBINLINE);
	return err ? err : set_flag(fd, IPPROTO_TCP, TCP_NODELAY);
}

// The port is chosen by connect, per destination, so that a source address is not used up
// by 28,000 sockets.
static int bind_source(int fd, const struct sp_target *source)
{
	struct sockaddr_storage ss;
	socklen_t len;
	int err = sp_target_to_sockaddr(source, &ss, &len);
	if (!err)
		err = set_flag(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT);
	if (!err && bind(fd, (struct sockaddr *)&ss, len))
		err = -errno;
	return err;
}

int wrk_socket_new(const struct wrk_socket_options *opt, int family, int type)
{
	const struct sp_target *source = family == AF_INET ? &opt->bind4 : &opt->bind6;
	int flags = SOCK_NONBLOCK | (opt->cloexec ? SOCK_CLOEXEC : 0);
	int fd = socket(family, type | flags, 0);
	if (fd < 0)
		return -errno;
	int err = 0;
	if (type == SOCK_STREAM)
		err = set_stream_options(fd);
	if (!err && family == AF_INET6)
		err = set_flag(fd, IPPROTO_IPV6, IPV6_V6ONLY);
	if (!err && source->kind)
		err = bind_source(fd, source);
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}
