// The directory's scripts (controller/directory.h says what they are for). Each runs as a
// whole in Redis, touches only the keys of one session and its user, and answers with a
// word. Not here: who calls them.
#ifndef CON_DIRECTORY_LUA_H
#define CON_DIRECTORY_LUA_H

// KEYS session, live set of the user; ARGV device, user, epoch, home, boot, record, ttl,
// now, live seconds (0: no carrier), most devices, member (device[16] id[16]).
// ok; old: an earlier put came later; over: too many devices; home, device: not yours.
extern const char con_directory_lua_put[];
// KEYS session; ARGV expected device, home, boot, epoch; new home, boot, epoch; ttl.
// ok; changed: it is not what was expected.
extern const char con_directory_lua_adopt[];
// KEYS session; ARGV home, prefix of live sets, id. ok; home: not yours, or gone.
extern const char con_directory_lua_drop[];
// KEYS session, leases. A list: device, home, boot, epoch, user, record (nil: none), boot
// of the home that was heard of last (nil: none) and how many ms ago.
extern const char con_directory_lua_read[];
// KEYS leases; ARGV lines "worker boot age_ms". ok.
extern const char con_directory_lua_leases[];

#endif
