-- KEYS: the name in front of all records. ARGV: kind, id; or kind, the name of an index, its fields (two, '' for none), their values. {0, 0}: none;
-- {1, 0, kind, record}
local function ask(...)
  local said = redis.pcall(...)
  if type(said) == 'table' and said.err then error(said, 0) end
  return said
end
local function look()
  local kind, id, index = ARGV[1], ARGV[2], ARGV[3] and ARGV[2]
  if index then
    id = ask('GET', KEYS[1] .. index .. ARGV[5] .. (ARGV[4] ~= '' and '\n' .. ARGV[6] or ''))
    if not id then return {0, 0} end
  end
  local record = ask('HGETALL', KEYS[1] .. kind .. ':' .. id)
  if #record == 0 then return {0, 0} end
  if index then
    -- An index that names a record which says something else names nobody.
    local is = {}
    for i = 1, #record, 2 do is[record[i]] = record[i + 1] end
    if is[ARGV[3]] ~= ARGV[5] or (ARGV[4] ~= '' and is[ARGV[4]] ~= ARGV[6]) then return {0, 0} end
  end
  return {1, 0, kind, record}
end
local fine, answer = pcall(look)
if fine or type(answer) == 'table' then return answer end
return redis.error_reply('CFDAMAGED')
