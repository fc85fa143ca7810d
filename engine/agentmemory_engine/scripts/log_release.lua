#!lua flags=allow-oom
-- Mode Redis: give back what a sidecar has claimed, all of it or some agents.
-- KEYS  state, claims
-- ARGV  1 run  2 instance  3.. agents (none: all)
-- Answers 1, or 0 where the shard is closed
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return 0 end
local agents = {unpack(ARGV, 3)}
if #agents == 0 then agents = redis.call('HKEYS', KEYS[2]) end
for _, agent in ipairs(agents) do
  local claim = redis.call('HGET', KEYS[2], agent)
  if claim and string.match(claim, '^%d+ (.*)$') == ARGV[2] then redis.call('HDEL', KEYS[2], agent) end
end
return 1
