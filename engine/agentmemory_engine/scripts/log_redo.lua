#!lua flags=allow-oom
-- Mode Redis: another model. All agents are looked at again; call after call, until none is left.
-- KEYS  state, agents, then about and log of each agent of a page
-- ARGV  1 run  2 model  3 whether this is the last page (1 or 0)  4.. the agents
-- Answers 1, or 0 where the shard is closed
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return 0 end
-- At first, so that what sidecars of the model before do in the meantime does not count.
redis.call('HSET', KEYS[1], 'model', ARGV[2], 'redo', 1)
for i = 4, #ARGV do
  local about, log = KEYS[2 * i - 5], KEYS[2 * i - 4]
  local counts = redis.call('HMGET', about, 'events', 'embedded')
  local events, embedded = tonumber(counts[1] or 0), tonumber(counts[2] or 0)
  -- What the log holds no longer is not waited for: at least as many events as turns are.
  local left = math.max(0, events - redis.call('XLEN', log))
  if left < embedded then
    redis.call('HSET', about, 'embedded', left)
    redis.call('HINCRBY', KEYS[1], 'waiting', embedded - left)
  end
  redis.call('ZADD', KEYS[2], 'XX', '+inf', ARGV[i])
end
redis.call('HDEL', KEYS[1], 'searchable')
if ARGV[3] == '1' then redis.call('HDEL', KEYS[1], 'redo') end
return 1
