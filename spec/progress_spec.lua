-- The bar that `parallel.map` draws: on terminals, and only there.

local child = require("spec.support.child")

local PROGRAM = [[
local parallel = require("scheduler").parallel
local results = parallel.map({ 1, 2, 3 }, function(n) return n end, { progress = true, chunk = 1 }):expect()
collectgarbage()
collectgarbage()
io.write("#", #results, "#\n")
]]

describe("the bar of a map", function()
  local path

  before_each(function()
    path = child.write(PROGRAM)
  end)

  after_each(function()
    os.remove(path)
  end)

  it("is drawn on a terminal, and what is written after it begins a line", function()
    local command = child.quote(child.interpreter) .. " " .. child.quote(path)
    local result = child.command({ "script", "-q", "-e", "-c", command, "/dev/null" })
    assert.are.equal(0, result.code)
    local bar = assert(result.out:match("^(.*)\r\n#3#\r\n$"), result.out)
    assert.matches(" 3/3 %d+s", bar)
    assert.is_nil(bar:find("\n", 1, true))
  end)

  it("is not drawn elsewhere", function()
    assert.are.same({ code = 0, out = "#3#\n", err = "" }, child.run({ path }))
  end)
end)
