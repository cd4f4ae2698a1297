-- Modules for one test, in files that workers find too.

local child = require("spec.support.child")

--- Writes files for `sources`, by the names of the modules, and calls `fn` with these on `package.path`. A worker keeps
--- what it has loaded: each test takes names of its own.
return function(sources, fn)
  local prefix, path, files = os.tmpname(), package.path, {}
  os.remove(prefix)
  for name, source in pairs(sources) do
    local file = prefix .. "_" .. name .. ".lua"
    os.rename(child.write(source), file)
    files[name] = file
  end
  package.path = prefix .. "_?.lua;" .. path
  local ok, err = pcall(fn)
  package.path = path
  for name, file in pairs(files) do
    os.remove(file)
    package.loaded[name] = nil
  end
  if not ok then error(err, 0) end
end
