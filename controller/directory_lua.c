#include "controller/directory_lua.h"

// A user's devices are counted, not its sessions: a device's warm standby, or the session
// that it is about to move, is no second use. More than 256 live sessions are too many
// for anybody, so that the loop is short.
const char con_directory_lua_put[] =
	"local r = redis.call('HMGET', KEYS[1], 'd', 'u', 'h', 'b', 'e')\n"
	"local epoch, now, live = tonumber(ARGV[3]), tonumber(ARGV[8]), "
	"tonumber(ARGV[9])\n"
	"if r[1] then\n"
	"  if r[1] ~= ARGV[1] or r[2] ~= ARGV[2] then return 'device' end\n"
	"  if r[3] ~= ARGV[4] then return 'home' end\n"
	"  if r[4] ~= ARGV[5] and epoch <= tonumber(r[5]) then return 'home' end\n"
	"  if epoch < tonumber(r[5]) then return 'old' end\n"
	"end\n"
	"if live == 0 then\n"
	"  redis.call('ZREM', KEYS[2], ARGV[11])\n"
	"else\n"
	"  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)\n"
	"  if not redis.call('ZSCORE', KEYS[2], ARGV[11]) then\n"
	"    local all = redis.call('ZRANGE', KEYS[2], 0, 256)\n"
	"    local own, seen, n = string.sub(ARGV[11], 1, 16), {}, 0\n"
	"    for _, m in ipairs(all) do\n"
	"      local device = string.sub(m, 1, 16)\n"
	"      if device ~= own and not seen[device] then\n"
	"        seen[device] = true\n"
	"        n = n + 1\n"
	"      end\n"
	"    end\n"
	"    if n >= tonumber(ARGV[10]) or #all > 256 then return 'over' end\n"
	"  end\n"
	"  redis.call('ZADD', KEYS[2], now + live, ARGV[11])\n"
	"  redis.call('EXPIRE', KEYS[2], live)\n"
	"end\n"
	"redis.call('HSET', KEYS[1], 'd', ARGV[1], 'u', ARGV[2], 'e', ARGV[3],\n"
	"  'h', ARGV[4], 'b', ARGV[5], 'r', ARGV[6])\n"
	"redis.call('EXPIRE', KEYS[1], ARGV[7])\n"
	"return 'ok'\n";

const char con_directory_lua_adopt[] =
	"local r = redis.call('HMGET', KEYS[1], 'd', 'h', 'b', 'e')\n"
	"for i = 1, 4 do if r[i] ~= ARGV[i] then return 'changed' end end\n"
	"redis.call('HSET', KEYS[1], 'h', ARGV[5], 'b', ARGV[6], 'e', ARGV[7])\n"
	"redis.call('EXPIRE', KEYS[1], ARGV[8])\n"
	"return 'ok'\n";

const char con_directory_lua_drop[] =
	"local r = redis.call('HMGET', KEYS[1], 'h', 'u', 'd')\n"
	"if r[1] ~= ARGV[1] then return 'home' end\n"
	"redis.call('DEL', KEYS[1])\n"
	"redis.call('ZREM', ARGV[2] .. r[2], string.sub(r[3], 1, 16) .. ARGV[3])\n"
	"return 'ok'\n";

const char con_directory_lua_read[] =
	"local r = redis.call('HMGET', KEYS[1], 'd', 'h', 'b', 'e', 'u', 'r')\n"
	"if not r[1] or not r[2] then return r end\n"
	"local w = redis.call('HGET', KEYS[2], r[2])\n"
	"local boot, ms = string.match(w or '', '^(%d+) (%d+)$')\n"
	"if boot then\n"
	"  local t = redis.call('TIME')\n"
	"  r[7] = boot\n"
	"  r[8] = string.format('%.0f', math.max(0,\n"
	"    t[1] * 1000 + math.floor(t[2] / 1000) - tonumber(ms)))\n"
	"end\n"
	"return r\n";

// An hour after the last word of any controller nothing is left of it.
const char con_directory_lua_leases[] =
	"local t = redis.call('TIME')\n"
	"local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
	"for worker, boot, age in string.gmatch(ARGV[1], '(%S+) (%d+) (%d+)\\n') do\n"
	"  redis.call('HSET', KEYS[1], worker, boot .. ' ' ..\n"
	"    string.format('%.0f', now - tonumber(age)))\n"
	"end\n"
	"redis.call('EXPIRE', KEYS[1], 3600)\n"
	"return 'ok'\n";
