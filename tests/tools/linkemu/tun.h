// A network namespace of its own with a TUN device in it, made without a name: it goes
// when the last process in it and the last descriptor of it are gone, so nothing has to
// be cleaned up. Not here: what goes through the device.
#ifndef EMU_TUN_H
#define EMU_TUN_H

#include <stdint.h>

#define EMU_TUN_MTU 1500

struct emu_tun {
	int fd; // of the device, non-blocking; a read or write is one packet
	int ns; // of the namespace, for setns
};

// Makes both, with loopback up and the device `link0` up, its address `address` (host
// byte order) with a prefix of `bits`. The caller's own namespace stays as it was. 0, or
// -errno and *ret_why what could not be done.
int emu_tun_open(uint32_t address, unsigned bits, struct emu_tun *ret,
		 const char **ret_why);
void emu_tun_close(struct emu_tun *t);

#endif
