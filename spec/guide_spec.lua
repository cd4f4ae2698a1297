-- Every Lua block of the README and of the guide runs as it stands, and prints what its comments say.

local child = require("spec.support.child")

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

local function pages()
  local found = { "README.md" }
  local list = assert(io.popen("ls docs/guide/*.md"))
  for path in list:lines() do
    found[#found + 1] = path
  end
  list:close()
  return found
end

local function blocks(text)
  local found = {}
  for before, block in text:gmatch("(.-)```lua\n(.-)```") do
    local former = found[#found]
    local title = before:match(".*\n#+ ([^\n]+)") or former and former.title or "the first"
    found[#found + 1] = { title = title, source = block }
  end
  return found
end

describe("the guide", function()
  local count = 0

  for _, page in ipairs(pages()) do
    for i, block in ipairs(blocks(read(page))) do
      count = count + 1
      -- Debian has none of these for Lua 5.5.
      local runs = _VERSION == "Lua 5.5" and block.source:find('require%("[ls][uo][vc]') and pending or it
      runs(("%s, block %d (%s) runs"):format(page, i, block.title), function()
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
  end

  it("has blocks", function()
    assert.is_true(count >= 55, count)
  end)
end)
