#!lua flags=allow-oom
-- First step of an opening in Redis: close the shard, and say what is found.
-- KEYS  state, journal
-- ARGV  1 run  2 opening
-- Answers {'put', last entry found, trimmed} or {'behind', highest opening known here}
local state = redis.call('HMGET', KEYS[1], 'run', 'opening', 'token_run', 'token_opening', 'trimmed')
local last = '0-0'
if redis.call('EXISTS', KEYS[2]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[2])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
  end
end
local highest = tonumber(string.match(last, '^(%d+)-'))
if state[1] == ARGV[1] then highest = math.max(highest, tonumber(state[2])) end
if state[3] == ARGV[1] then highest = math.max(highest, tonumber(state[4])) end
if highest >= tonumber(ARGV[2]) then return {'behind', highest} end
redis.call('HDEL', KEYS[1], 'run', 'opening')
redis.call('HSET', KEYS[1], 'token_run', ARGV[1], 'token_opening', ARGV[2])
return {'put', last, state[5] or ''}
