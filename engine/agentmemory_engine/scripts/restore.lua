#!lua flags=allow-oom
-- During an opening: bring working memory in line with what Postgres holds. The recent windows may have gone back as
-- well; they are dropped, and read from Postgres and the journal until they have filled again.
-- KEYS  state, journal, leases, then document and window of each agent
-- ARGV  1 run  2 opening  3 now (ms)  then of each agent: agent, tombstone entry ('' none), snapshot's version ('' none),
--       its lease (ms; 0: do not put it back)
-- Answers {'done', agents whose snapshot is to be put back..}, or {'superseded'} when another opening has begun
local token = redis.call('HMGET', KEYS[1], 'token_run', 'token_opening')
if token[1] ~= ARGV[1] or token[2] ~= ARGV[2] then return {'superseded'} end

local function past(a, b)
  local ao, as = string.match(a, '^(%d+)-(%d+)')
  local bo, bs = string.match(b, '^(%d+)-(%d+)')
  ao, as, bo, bs = tonumber(ao), tonumber(as), tonumber(bo), tonumber(bs)
  return ao > bo or (ao == bo and as > bs)
end

local answer = {'done'}
for i = 0, (#KEYS - 3) / 2 - 1 do
  local document, window = KEYS[4 + i * 2], KEYS[5 + i * 2]
  local agent, tombstone, snapshotted, lease = unpack(ARGV, 4 + i * 4, 7 + i * 4)
  local head = redis.pcall('GETRANGE', document, 0, 63)
  local version = type(head) == 'string' and string.match(head, '^(%d+%-%d+) ') or nil
  -- What is not ours stays until its bytes are kept.
  local foreign = not version and head ~= ''
  redis.call('DEL', window)
  if tombstone ~= '' and version and not past(version, tombstone) then
    redis.call('DEL', document)
    version = nil
  end
  if not foreign and snapshotted ~= '' and (not version or past(snapshotted, version)) then
    if tonumber(lease) > 0 then
      answer[#answer + 1] = agent
    else
      redis.call('DEL', document)
      redis.call('ZREM', KEYS[3], agent)
    end
  elseif version and (snapshotted == '' or past(version, snapshotted)) and redis.call('PTTL', document) >= 0 then
    -- Postgres does not have this version (any more): it must not expire before it is snapshotted, and an entry
    -- in the journal sees to that.
    redis.call('PERSIST', document)
    redis.call('ZADD', KEYS[3], '+inf', agent)
    redis.call('XADD', KEYS[2], ARGV[2] .. '-*',
      'a', agent, 't', ARGV[3], 'k', '', 'f', '', 's', '', 'e', '[]', 'd', 'w')
  end
end
return answer
