#!lua flags=no-writes
-- The current documents of some agents, under the opening that their entries were read under.
-- KEYS  state, documents..
-- ARGV  1 run  2 opening  3 bytes after which no more are read
-- Answers {'read', trimmed, document..} or {'closed'}; fewer documents than keys when they are large
local mark = redis.call('HMGET', KEYS[1], 'run', 'opening', 'trimmed')
if mark[1] ~= ARGV[1] or mark[2] ~= ARGV[2] then return {'closed'} end
local answer = {'read', mark[3] or ''}
local bytes = 0
for i = 2, #KEYS do
  if bytes >= tonumber(ARGV[3]) then break end
  local document = redis.pcall('GET', KEYS[i])
  -- What is no string is not ours: as if there were none.
  if type(document) == 'table' then document = false end
  answer[i + 1] = document
  if document then bytes = bytes + #document end
end
return answer
