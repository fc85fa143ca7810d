#!lua flags=no-writes
-- The current documents of some agents, under the opening that their entries were read under.
-- KEYS  state, documents..
-- ARGV  1 run  2 opening
-- Answers {'read', trimmed, document..} or {'closed'}
local mark = redis.call('HMGET', KEYS[1], 'run', 'opening', 'trimmed')
if mark[1] ~= ARGV[1] or mark[2] ~= ARGV[2] then return {'closed'} end
local answer = {'read', mark[3] or ''}
for i = 2, #KEYS do answer[i + 1] = redis.call('GET', KEYS[i]) end
return answer
