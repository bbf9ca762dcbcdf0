#!lua flags=allow-oom
-- Ends leases of their holder, and its membership if it leaves.
-- KEYS members. ARGV member or '', prefix of leases, the group's bell, then names and tokens.
if ARGV[1] ~= '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
for i = 4, #ARGV, 2 do
  if redis.call('GET', ARGV[2] .. ARGV[i]) == ARGV[i + 1] then
    redis.call('DEL', ARGV[2] .. ARGV[i])
  end
end
redis.call('PUBLISH', ARGV[3], '')
return 1
