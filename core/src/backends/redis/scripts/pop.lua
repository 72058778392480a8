-- KEYS: the key [, the receipt]. ARGV: [fingerprint, life of the receipt in ms]. The value, or nil.
if KEYS[2] then
  local kept = redis.call('GET', KEYS[2])
  if kept then
    if string.sub(kept, 1, #ARGV[1]) ~= ARGV[1] then return redis.error_reply('CFRECEIPT') end
    return string.sub(kept, #ARGV[1] + 1)
  end
end
local value = redis.pcall('GET', KEYS[1])
if type(value) == 'table' or not value then return value end
redis.call('DEL', KEYS[1])
if KEYS[2] then redis.call('SET', KEYS[2], ARGV[1] .. value, 'PX', ARGV[2]) end
return value
