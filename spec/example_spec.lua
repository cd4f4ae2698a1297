-- Runs examples/analyse.lua as users run it, in a process of its own.

local child = require("spec.support.child")

local FIRST = [==[
#!/usr/bin/env lua
-- Two functions, one of them without a name.

local function outer(value)
  -- function in a comment
  local text = "function in \" a string" -- end
  return function()
    return value, text

  end
end

return outer
]==]

local SECOND = [==[
--[[ A long comment,

function that_is_none() end ]]
local page = [[
  while true do

]]
local M = {}
M.handler = function(value)
  for i = 1, value do
    repeat
      if i > 2 then print(i) else print(value) end
    until page == 'it\'s'
  end
end
function M.sub:method(value) return value end
]==]

-- The last line has no end.
local THIRD = "value = 1\r\n\r\nvalue = value"

local folder

local function write(name, text)
  local file = assert(io.open(folder .. "/" .. name, "wb"))
  file:write(text)
  file:close()
end

local function shell(command, ...)
  local words = {}
  for i, word in ipairs({ ... }) do
    words[i] = child.quote(word)
  end
  os.execute(command .. " " .. table.concat(words, " "))
end

local function analyse(...)
  return child.run({ "examples/analyse.lua", ... })
end

--- The line of the output that begins with these words, its columns one space apart.
local function line_with(result, words)
  for line in result.out:gmatch("[^\n]+") do
    local text = line:gsub("%s+", " "):gsub(" $", "")
    if text:sub(1, #words) == words then return text end
  end
  return nil
end

describe("examples/analyse.lua", function()
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    shell("mkdir", folder, folder .. "/it's deep")
  end)

  after_each(function()
    shell("rm -r", folder)
  end)

  describe("given a folder with three files", function()
    before_each(function()
      write("first.lua", FIRST)
      write("it's deep/second.lua", SECOND)
      write("third.lua", THIRD)
      write("no-lua.txt", FIRST)
    end)

    it("counts lines, functions and identifiers", function()
      local result = analyse("--no-compare", folder)
      assert.are.equal("", result.err)
      assert.are.equal(0, result.code)
      local first, second = folder .. "/first.lua", folder .. "/it's deep/second.lua"
      assert.are.equal(second .. " 16 13 3 0 2 M.handler, 7 lines", line_with(result, second))
      assert.are.equal(first .. " 13 7 3 3 2 outer, 8 lines", line_with(result, first))
      assert.are.equal(folder .. "/third.lua 3 2 0 1 0", line_with(result, folder .. "/third.lua"))
      assert.are.equal("all files 32 22 6 4 4", line_with(result, "all files"))
      assert.are.equal("longest function: outer, 8 lines (" .. first .. ":4)", line_with(result, "longest function"))
      assert.are.equal("value 10", line_with(result, "value "))
    end)

    it("says that the work was done, but draws no progress into a file", function()
      local result = analyse("--no-compare", folder)
      assert.matches("\nin parallel: 3 of 3 files, %d+%.%d+ s\n", result.out)
      assert.is_nil(result.out:find("\r"))
      assert.is_nil(line_with(result, "speed-up"))
    end)

    it("compares with one VM", function()
      local result = analyse("--repeat", "7", folder)
      assert.are.equal(0, result.code)
      local announced = "3 Lua files in " .. folder .. ", in 3 jobs; each file is analysed 7 times"
      assert.are.equal(announced, line_with(result, announced))
      assert.matches("\nin one VM: 3 of 3 files, %d+%.%d+ s\n", result.out)
      assert.matches("\nspeed%-up: %d+%.%d+ with %d+ workers?, equal results\n", result.out)
    end)

    it("gives up when its time is over", function()
      local result = analyse("--limit", "0.1", "--repeat", "1000000", folder)
      assert.are.equal(1, result.code)
      assert.are.equal("analyse: not done within 0.1 s, the limit\n", result.err)
    end)

    it("skips what it cannot read, with the reason", function()
      shell("ln -s nowhere", folder .. "/dangling.lua")
      shell("mkdir", folder .. "/folder.lua")
      local result = analyse(folder)
      assert.are.equal(0, result.code)
      assert.are.equal("skipped: 1", line_with(result, "skipped"))
      assert.matches("dangling.lua: No such file or directory", result.out, 1, true)
      assert.are.equal("all files 32 22 6 4 4", line_with(result, "all files"))
    end)
  end)

  it("has no trouble with an empty folder", function()
    local result = analyse(folder .. "/")
    assert.are.same({ code = 0, out = "no Lua files in " .. folder .. "\n", err = "" }, result)
  end)

  it("refuses a folder that is missing", function()
    local result = analyse(folder .. "/missing")
    assert.are.same({ code = 1, out = "", err = "analyse: there is no folder '" .. folder .. "/missing'\n" }, result)
  end)

  it("analyses the libraries of the interpreter when no folder is given", function()
    local result = analyse("--no-compare")
    assert.are.equal(0, result.code)
    assert.matches("^%d+ Lua files in /", result.out)
    assert.matches("\nall files +%d+", result.out)
  end)

  it("explains itself", function()
    local result = analyse("--help")
    assert.are.equal(0, result.code)
    assert.matches("^usage: ", result.out)
  end)

  it("refuses options that make no sense", function()
    for _, words in ipairs({ { "--bad" }, { "--limit" }, { "--limit", "0" }, { "--repeat", "1.5" }, { "a", "b" } }) do
      local result = analyse((table.unpack or unpack)(words))
      assert.are.equal(2, result.code)
      assert.are.equal("", result.out)
      assert.matches("^analyse: [^\n]+\n\nusage: ", result.err)
    end
  end)
end)
