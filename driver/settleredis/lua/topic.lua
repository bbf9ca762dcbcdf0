#!lua flags=allow-oom
-- Returns the incarnation and how many partitions a topic has, which is how many it was created with.
-- KEYS life, topics. ARGV topic, partitions if it is new.
local incarnation = redis.call('HGET', KEYS[1], 'incarnation')
if not incarnation then
  return {}
end
redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2])
return {incarnation, redis.call('HGET', KEYS[2], ARGV[1])}
