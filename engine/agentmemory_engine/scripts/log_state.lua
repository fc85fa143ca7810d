#!lua flags=no-writes
-- Mode Redis: whether what stood at a position is lost: it was never given, or an opening after its own found less.
-- KEYS  state, openings
-- ARGV  1 run  2 opening  3 sequence
-- Answers 'kept', 'lost' or 'closed'
local mark = redis.call('HMGET', KEYS[1], 'run', 'opening', 'sequence')
if mark[1] ~= ARGV[1] then return 'closed' end
local opening, sequence = tonumber(ARGV[2]), tonumber(ARGV[3])
if opening > tonumber(mark[2]) or sequence > tonumber(mark[3] or 0) and opening == tonumber(mark[2]) then return 'lost' end
local openings = redis.call('HGETALL', KEYS[2])
for i = 1, #openings, 2 do
  local o, s = string.match(openings[i + 1], '^(%d+)-(%d+)$')
  o, s = tonumber(o), tonumber(s)
  local later = tonumber(openings[i])
  if later > opening and (o < opening or (o == opening and s < sequence)) then return 'lost' end
  if later == opening and sequence <= s then return 'lost' end
end
return 'kept'
