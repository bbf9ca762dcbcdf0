#!lua flags=allow-oom
-- Acknowledges a range of messages for the owner of the lease.
-- KEYS log, lease. ARGV group, token, first offset, last offset.
if redis.call('GET', KEYS[2]) ~= ARGV[2] then
  return 0
end
local ids = {}
for n = tonumber(ARGV[3]), tonumber(ARGV[4]) do
  ids[#ids + 1] = '0-' .. string.format('%.0f', n)
  if #ids == 1000 then
    redis.call('XACK', KEYS[1], ARGV[1], unpack(ids))
    ids = {}
  end
end
if #ids > 0 then
  redis.call('XACK', KEYS[1], ARGV[1], unpack(ids))
end
return 1
