#!lua flags=allow-oom
-- Makes a log's new owner ready to read after a position of its own: makes the group, takes over what the
-- old owner had pending, acknowledges what the position covers, and says where to go on.
-- KEYS life, ends, log, lease, ticks. ARGV the log's name, group, consumer, token, incarnation, offset, '1'
-- to go on from the position whatever is pending, retention in ms.
local log, group, consumer = KEYS[3], ARGV[2], ARGV[3]
if redis.call('GET', KEYS[4]) ~= ARGV[4] then
  return {'revoked'}
end
local incarnation = redis.call('HGET', KEYS[1], 'incarnation')
local last = redis.call('HGET', KEYS[2], ARGV[1])
if not incarnation or (last and redis.call('EXISTS', log) == 0) then
  return {'gone'}
end
last = tonumber(last or '0')
local function sequence(id)
  return tonumber(string.match(id, '^0%-(%d+)$') or '0')
end
local function id(n)
  return '0-' .. string.format('%.0f', n)
end
local made = redis.pcall('XGROUP', 'CREATE', log, group, '0', 'MKSTREAM')
if made.err and string.sub(made.err, 1, 9) ~= 'BUSYGROUP' then
  return made
end
local head = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)
local first = head[1] and sequence(head[1][1]) or last + 1
local delivered, settled = 0, 0
for _, info in ipairs(redis.call('XINFO', 'GROUPS', log)) do
  local of = {}
  for i = 1, #info, 2 do
    of[info[i]] = info[i + 1]
  end
  if of['name'] == group then
    delivered = sequence(of['last-delivered-id'])
    settled = delivered
    if of['pending'] > 0 then
      settled = math.min(settled, sequence(redis.call('XPENDING', log, group)[2]) - 1)
    end
  end
end
local at = tonumber(ARGV[6])
if ARGV[5] ~= incarnation then
  at = 0
  if ARGV[5] ~= '' then
    -- Read again what is retained; but not what this group has settled and only others hold back: inboxes
    -- forget after a time that is reckoned from the retention.
    local time = redis.call('TIME')
    local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
    local old = redis.call('ZREVRANGEBYSCORE', KEYS[5], string.format('%.0f', now - tonumber(ARGV[8])), '-inf', 'LIMIT', 0, 1)
    at = math.min(tonumber(old[1] or '0'), settled)
  end
end
if at > last then
  return {'past', incarnation, string.format('%.0f', last)}
end
if at > 0 and first > at + 1 then
  return {'lost', incarnation, string.format('%.0f', first)}
end
at = math.max(at, first - 1)

local pending, highest, cursor = 0, 0, '0-0'
repeat
  local claimed = redis.call('XAUTOCLAIM', log, group, consumer, 0, cursor, 'COUNT', 500, 'JUSTID')
  cursor = claimed[1]
  for _, entry in ipairs(claimed[2]) do
    if sequence(entry) <= at then
      redis.call('XACK', log, group, entry)
    else
      pending, highest = pending + 1, math.max(highest, sequence(entry))
    end
  end
until cursor == '0-0'

-- What is pending comes first when it is exactly what lies between the position and the group's own.
if delivered ~= at + pending or (pending > 0 and highest ~= delivered) or ARGV[7] == '1' then
  redis.call('XGROUP', 'SETID', log, group, id(at))
  pending = 0
end
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', log, group)) do
  if info[2] ~= consumer then
    redis.call('XGROUP', 'DELCONSUMER', log, group, info[2])
  end
end
return {'ok', incarnation, string.format('%.0f', at), pending}
