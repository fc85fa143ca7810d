#!lua
-- Mode Redis: agents of whose events or facts some may have no vector, for one sidecar at a time.
-- KEYS  state, agents, claims
-- ARGV  1 run  2 instance  3 for how long (ms)  4 how many at most  5 model  6 for how long its sidecars count as there (ms)
-- Answers {'claimed', agent..} or {'closed'} | {'other'}: vectors are of another model, which a sidecar has | {'begin'}: or
-- none has any more
local mark = redis.call('HMGET', KEYS[1], 'run', 'model', 'model_until')
if mark[1] ~= ARGV[1] then return {'closed'} end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local there = tonumber(mark[3] or 0)
if mark[2] ~= ARGV[5] then return {there > now and 'other' or 'begin'} end
-- Not at every look: it would be a write.
if there < now + tonumber(ARGV[6]) / 2 then
  redis.call('HSET', KEYS[1], 'model_until', string.format('%.0f', now + tonumber(ARGV[6])))
end
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
