#!lua flags=allow-oom
-- Takes leases that are free. KEYS the leases. ARGV time to live in ms, then their tokens.
-- Returns 1 for each that was taken, 0 for others.
local taken = {}
for i, lease in ipairs(KEYS) do
  taken[i] = redis.call('SET', lease, ARGV[i + 1], 'NX', 'PX', ARGV[1]) and 1 or 0
end
return taken
