-- Lets busted be loaded in Lua 5.5, where code may not assign to the variables of its loops: libraries that do so are
-- given locals of the same names.

--- Adds a local to the loop at or before a line whose variable this is; nil if there is none.
local function with_local(lines, line, name)
  for i = line, 1, -1 do
    local variables = lines[i]:match("%f[%w_]for%s+([%w_,%s]-)%s+in%s") or lines[i]:match("%f[%w_]for%s+([%w_]+)%s*=")
    local is_its = variables and ("," .. variables:gsub("%s", "") .. ","):find("," .. name .. ",", 1, true)
    for j = i, is_its and line or 0 do
      local before, rest = lines[j]:match("^(.-%f[%w_]do%f[^%w_])(.*)$")
      if before then
        lines[j] = ("%s local %s = %s;%s"):format(before, name, name, rest)
        return true
      end
    end
  end
end

--- Compiles a text, changed as often as it takes.
local function compile(text, chunk)
  local lines = {}
  for line in (text .. "\n"):gmatch("(.-)\n") do
    lines[#lines + 1] = line
  end
  while true do
    local fn, err = load(table.concat(lines, "\n"), chunk)
    if fn then return fn end
    local line, name = err:match(":(%d+): attempt to assign to const variable '([%w_]+)'")
    if not line or not with_local(lines, tonumber(line), name) then return nil, err end
  end
end

table.insert(package.searchers, 2, function(name)
  local path = package.searchpath(name, package.path)
  if not path then return nil end
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  local fn, err = compile(text, "@" .. path)
  return fn or error(err, 0), path
end)
