-- What Lua makes of errors.

--- What is caught where nil was raised: nil, but words in Lua 5.5.
local _, none = pcall(error)

local raised = { none = none }

--- What is caught where `value` was raised.
function raised.as(value)
  if value == nil then return none end
  return value
end

local function ignore() end

--- Values of all types, nil but for the type `table` last.
function raised.values_of_all_types()
  return { "text", 42, 0.5, true, false, ignore, io.stdout, coroutine.create(ignore), {} }
end

return raised
