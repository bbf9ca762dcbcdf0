#!lua flags=allow-oom
-- Returns the state of the logs, after it has begun a new life where one is due: in a run of the server
-- that is not the one the life began in, or when a log that had messages is gone. It does so before
-- anything is published in that run, as publish.lua refuses until then.
-- KEYS life, topics, ends. ARGV a fresh incarnation, a fresh life, prefix of logs, prefix of ticks.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local life = redis.call('HMGET', KEYS[1], 'incarnation', 'run')
local offsets, gone = {}, false
local topics = redis.call('HGETALL', KEYS[2])
for i = 1, #topics, 2 do
  for p = 0, tonumber(topics[i + 1]) - 1 do
    local name = topics[i] .. '/' .. p
    local last = redis.call('HGET', KEYS[3], name)
    if last and redis.call('EXISTS', ARGV[3] .. name) == 0 then
      redis.call('HDEL', KEYS[3], name)
      redis.call('DEL', ARGV[4] .. name)
      last, gone = false, true
    end
    offsets[#offsets + 1] = name
    offsets[#offsets + 1] = last or '0'
  end
end
if not life[1] then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'incarnation', ARGV[1], 'ended', '[]')
end
if not life[1] or life[2] ~= run or gone then
  redis.call('HSET', KEYS[1], 'run', run, 'life', ARGV[2], 'opened', table.concat(offsets, ' '))
end
local now = redis.call('HMGET', KEYS[1], 'incarnation', 'life', 'opened', 'ended')
return {now[1], now[2], now[3], now[4], table.concat(offsets, ' ')}
