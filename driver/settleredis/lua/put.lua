-- Stores a value unless a newer one is there. ARGV version of 20 digits, kind and value, ms to live.
local had = redis.call('GETRANGE', KEYS[1], 0, 19)
if #had == 20 and had > ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
return 1
