#include "tests/tools/linkemu/tun.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEVICE       "link0"
#define DEVICE_QUEUE 20000 // packets that wait for the emulator; it must never drop there

static void name_it(struct ifreq *r, const char *name)
{
	memset(r, 0, sizeof(*r));
	strncpy(r->ifr_name, name, IFNAMSIZ - 1);
}

static void put_addr(struct sockaddr *sa, uint32_t address)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(address)}};
	memcpy(sa, &in, sizeof(in));
}

static int set_up(int s, const char *name)
{
	struct ifreq r;
	name_it(&r, name);
	if (ioctl(s, SIOCGIFFLAGS, &r))
		return -errno;
	r.ifr_flags |= IFF_UP | IFF_RUNNING;
	return ioctl(s, SIOCSIFFLAGS, &r) ? -errno : 0;
}

static int configure(int s, uint32_t address, unsigned bits)
{
	struct ifreq r;
	name_it(&r, DEVICE);
	r.ifr_mtu = EMU_TUN_MTU;
	if (ioctl(s, SIOCSIFMTU, &r))
		return -errno;
	name_it(&r, DEVICE);
	r.ifr_qlen = DEVICE_QUEUE;
	if (ioctl(s, SIOCSIFTXQLEN, &r))
		return -errno;
	name_it(&r, DEVICE);
	put_addr(&r.ifr_addr, address);
	if (ioctl(s, SIOCSIFADDR, &r))
		return -errno;
	name_it(&r, DEVICE);
	put_addr(&r.ifr_netmask, bits ? UINT32_MAX << (32 - bits) : 0);
	if (ioctl(s, SIOCSIFNETMASK, &r))
		return -errno;
	int err = set_up(s, "lo");
	return err ? err : set_up(s, DEVICE);
}

// In the new namespace.
static int make_device(uint32_t address, unsigned bits, int *ret, const char **ret_why)
{
	struct ifreq r;
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), err;
	*ret_why = "cannot open /dev/net/tun";
	if (fd < 0)
		return -errno;
	name_it(&r, DEVICE);
	r.ifr_flags = IFF_TUN | IFF_NO_PI;
	*ret_why = "cannot make a TUN device";
	err = ioctl(fd, TUNSETIFF, &r) ? -errno : 0;
	int s = err ? -1 : socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (!err) {
		*ret_why = "cannot set up the TUN device";
		err = s < 0 ? -errno : configure(s, address, bits);
	}
	if (s >= 0)
		close(s);
	if (err)
		close(fd);
	else
		*ret = fd;
	return err;
}

int emu_tun_open(uint32_t address, unsigned bits, struct emu_tun *ret,
		 const char **ret_why)
{
	struct emu_tun t = {-1, -1};
	int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), err;
	*ret_why = "cannot see the network namespace";
	if (home < 0)
		return -errno;
	*ret_why = "cannot make a network namespace";
	err = unshare(CLONE_NEWNET) ? -errno : 0;
	if (!err) {
		t.ns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
		err = t.ns < 0 ? -errno : make_device(address, bits, &t.fd, ret_why);
		if (setns(home, CLONE_NEWNET) && !err) {
			*ret_why = "cannot go back to the own network namespace";
			err = -errno;
		}
	}
	close(home);
	if (err)
		emu_tun_close(&t);
	else
		*ret = t;
	return err;
}

void emu_tun_close(struct emu_tun *t)
{
	if (t->fd >= 0)
		close(t->fd);
	if (t->ns >= 0)
		close(t->ns);
	t->fd = t->ns = -1;
}
