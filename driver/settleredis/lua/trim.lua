#!lua flags=allow-oom
-- Notes how far a log reaches now, and drops a bounded number of messages that are older than the
-- retention and acknowledged by every group.
-- KEYS log, ticks, ends. ARGV the log's name, retention in ms, how many to drop at most.
-- Returns how many were dropped, and the group that holds others back.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local last = redis.call('HGET', KEYS[3], ARGV[1])
if not last or redis.call('EXISTS', KEYS[1]) == 0 then
  return {0, ''}
end
if not redis.call('ZSCORE', KEYS[2], last) then
  redis.call('ZADD', KEYS[2], now, last)
end
local old = redis.call('ZREVRANGEBYSCORE', KEYS[2], string.format('%.0f', now - tonumber(ARGV[2])), '-inf', 'LIMIT', 0, 1)
if not old[1] then
  return {0, ''}
end
local function sequence(id)
  return tonumber(string.match(id, '^0%-(%d+)$') or '0')
end
local bound, holder = tonumber(old[1]), ''
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local of = {}
  for i = 1, #info, 2 do
    of[info[i]] = info[i + 1]
  end
  local settled = sequence(of['last-delivered-id'])
  if of['pending'] > 0 then
    settled = math.min(settled, sequence(redis.call('XPENDING', KEYS[1], of['name'])[2]) - 1)
  end
  if settled < bound then
    bound, holder = settled, of['name']
  end
end
local dropped = redis.call('XTRIM', KEYS[1], 'MINID', '~', '0-' .. string.format('%.0f', bound + 1), 'LIMIT', ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. redis.call('ZSCORE', KEYS[2], old[1]))
return {dropped, holder}
