#!lua
-- Mode Redis: agents of whose events or facts some may have no vector, for one sidecar at a time.
-- KEYS  state, agents, claims
-- ARGV  1 run  2 instance  3 for how long (ms)  4 how many at most
-- Answers {'claimed', agent..} or {'closed'}
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return {'closed'} end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local answer, start = {'claimed'}, 0
while start do
  local page = redis.call('ZRANGEBYSCORE', KEYS[2], '+inf', '+inf', 'LIMIT', start, 50)
  for _, agent in ipairs(page) do
    local claim = redis.call('HGET', KEYS[3], agent)
    if not claim or tonumber(string.match(claim, '^%d+')) <= now then
      redis.call('HSET', KEYS[3], agent, string.format('%.0f ', now + tonumber(ARGV[3])) .. ARGV[2])
      answer[#answer + 1] = agent
      if #answer > tonumber(ARGV[4]) then return answer end
    end
  end
  start = #page == 50 and start < 1000 and start + 50
end
return answer
