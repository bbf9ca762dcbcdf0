#!lua flags=allow-oom
-- Begins a new incarnation unless it has another one already.
-- KEYS life. ARGV the incarnation that ended, the new one, how all before it ended.
if redis.call('HGET', KEYS[1], 'incarnation') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'incarnation', ARGV[2], 'ended', ARGV[3])
return 1
