#!lua flags=no-writes
-- What the journal holds past an entry, so that a read costs what is new since the last one.
-- KEYS  state, journal
-- ARGV  1 run  2 first id wanted  3 how many at most  4 bytes of events after which no more are taken
-- Answers {'read', opening, first id of the stream ('' empty), more (1 or 0), entries} or {'closed'}
local mark = redis.call('HMGET', KEYS[1], 'run', 'opening')
if mark[1] ~= ARGV[1] then return {'closed'} end
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
local entries, bytes, start, more = {}, 0, ARGV[2], 0
while #entries < tonumber(ARGV[3]) and bytes < tonumber(ARGV[4]) do
  local page = redis.call('XRANGE', KEYS[2], start, '+', 'COUNT', 16)
  for _, entry in ipairs(page) do
    if #entries == tonumber(ARGV[3]) or bytes >= tonumber(ARGV[4]) then break end
    entries[#entries + 1] = entry
    bytes = bytes + #entry[2][12]
  end
  if #page < 16 then break end
  start = '(' .. page[16][1]
end
if #entries > 0 and #redis.call('XRANGE', KEYS[2], '(' .. entries[#entries][1], '+', 'COUNT', 1) > 0 then more = 1 end
return {'read', mark[2], first and first[1] or '', more, entries}
