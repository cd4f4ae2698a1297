-- Every Lua block of the README runs as it stands.

local child = require("spec.support.child")

local function blocks()
  local file = assert(io.open("README.md", "rb"))
  local text = file:read("*a")
  file:close()
  local found = {}
  for before, block in text:gmatch("(.-)```lua\n(.-)```") do
    found[#found + 1] = { title = before:match(".*\n#+ ([^\n]+)") or "the first", source = block }
  end
  return found
end

describe("the README", function()
  local found = blocks()

  it("has blocks", function()
    assert.is_true(#found >= 8, #found)
  end)

  for i, block in ipairs(found) do
    it(("block %d (%s) runs"):format(i, block.title), function()
      local path = child.write(block.source)
      local result = child.run({ path })
      os.remove(path)
      assert.are.equal("", result.err)
      assert.are.equal(0, result.code)
      for expected in block.source:gmatch("%-%-> +([^\n.]+)") do
        local words = expected:gsub("%s+", "%%s+"):gsub("[()%[%]'#,-]", "%%%0")
        assert.is_truthy(result.out:find((words:gsub("%%%%s", "%%s"))), expected .. "\nnot in\n" .. result.out)
      end
    end)
  end
end)
