-- Appends messages, all of them in the life of the logs that their publisher knows, or none.
-- KEYS life, ends, then logs. ARGV incarnation, life, prefix of bells, the logs' names, then for each
-- message: which log, how many arguments, and these.
local life = redis.call('HMGET', KEYS[1], 'incarnation', 'life', 'run')
if life[1] ~= ARGV[1] or life[2] ~= ARGV[2] then
  return {'life'}
end
if life[3] ~= string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') then
  return {'run'}
end
local logs = #KEYS - 2
for k = 1, logs do
  if redis.call('EXISTS', KEYS[k + 2]) == 0 and redis.call('HEXISTS', KEYS[2], ARGV[k + 3]) == 1 then
    return {'gone'}
  end
end
local results, last = {'ok'}, {}
local i = logs + 4
while i <= #ARGV do
  local k, n = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  local id = redis.pcall('XADD', KEYS[k + 2], '0-*', unpack(ARGV, i + 2, i + 1 + n))
  if type(id) == 'table' then
    results[#results + 1] = id.err
  else
    results[#results + 1] = ''
    last[k] = id
  end
  i = i + 2 + n
end
for k, id in pairs(last) do
  redis.call('HSET', KEYS[2], ARGV[k + 3], string.sub(id, 3))
  redis.call('PUBLISH', ARGV[3] .. ARGV[k + 3], '')
end
return results
