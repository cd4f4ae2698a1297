-- Whether a misuse raises as it should: `misuse(fn, message)` checks that `fn`, which stands on one line, raises the
-- message with the place of that line.

return function(fn, message)
  local info = debug.getinfo(fn, "S")
  local ok, err = pcall(fn)
  assert(not ok, "nothing is raised")
  local expected = ("%s:%d: %s"):format(info.short_src, info.linedefined, message)
  if err ~= expected then error(("expected: %s\nraised: %s"):format(expected, tostring(err)), 2) end
end
