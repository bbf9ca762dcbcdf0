#!lua flags=allow-oom
-- A member's sign of life: renews its place in the group and its leases, and returns what there is to
-- share: members, owners, and which of its leases it has lost.
-- KEYS members, joins, topics. ARGV member, time to live in ms, its topics, prefix of leases, the group's
-- bell, then names and tokens of its leases.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local changed = false
local mine = redis.call('HGET', KEYS[1], ARGV[1])
local join = mine and string.match(mine, '^%d+ (%d+) ')
if not join then
  join, changed = redis.call('INCR', KEYS[2]), true
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s %s', now + tonumber(ARGV[2]), join, ARGV[3]))
local lost = {}
for i = 6, #ARGV, 2 do
  local lease = ARGV[4] .. ARGV[i]
  if redis.call('GET', lease) == ARGV[i + 1] then
    redis.call('PEXPIRE', lease, ARGV[2])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
local members, owners, wanted = {}, {}, {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local expires, joined, topics = string.match(all[i + 1], '^(%d+) (%d+) (.*)$')
  if not expires or tonumber(expires) < now then
    redis.call('HDEL', KEYS[1], all[i])
    changed = true
  else
    members[#members + 1] = all[i]
    members[#members + 1] = joined
    members[#members + 1] = topics
    members[#members + 1] = expires
    for topic in string.gmatch(topics, '[^,]+') do
      wanted[topic] = true
    end
  end
end
for topic in pairs(wanted) do
  for p = 0, tonumber(redis.call('HGET', KEYS[3], topic) or '0') - 1 do
    local name = topic .. '/' .. p
    owners[#owners + 1] = name
    owners[#owners + 1] = redis.call('GET', ARGV[4] .. name) or ''
  end
end
if changed then
  redis.call('PUBLISH', ARGV[5], '')
end
return {members, owners, lost}
