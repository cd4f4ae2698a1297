-- Runs the examples as users run them, in processes of their own.

local child = require("spec.support.child")

local unpack = table.unpack or unpack

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

local function read(name)
  local file = io.open(folder .. "/" .. name, "rb")
  if not file then return nil end
  local text = file:read("*a")
  file:close()
  return text
end

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

local function make_folder()
  folder = os.tmpname()
  os.remove(folder)
  shell("mkdir", folder)
end

local function remove_folder()
  shell("rm -r", folder)
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
    make_folder()
    shell("mkdir", folder .. "/it's deep")
  end)

  after_each(remove_folder)

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
      local result = analyse(unpack(words))
      assert.are.equal(2, result.code)
      assert.are.equal("", result.out)
      assert.matches("^analyse: [^\n]+\n\nusage: ", result.err)
    end
  end)
end)

--- Builds by a description, in the folder "it's made".
local function build(description, ...)
  write("build.lua", description)
  return child.run({ "examples/build.lua", "--file", folder .. "/build.lua", "--folder", folder .. "/it's made", ... })
end

--- A list of rules whose commands note in the file "trace" when each begins and ends.
local function traced(rules)
  local pattern = "{ target = '(%w+)',"
  return "return {" .. rules:gsub(pattern, function(target)
    local command = ("echo +%s >>trace; sleep 0.1; cat $in >$out; echo -%s >>trace"):format(target, target)
    return ("{ target = '%s', run = '%s',"):format(target, command)
  end) .. "}"
end

local function trace()
  return ((read("it's made/trace") or ""):gsub("\n", " "))
end

local function most_at_once()
  local now, most = 0, 0
  for sign in trace():gmatch("[+-]") do
    now = sign == "+" and now + 1 or now - 1
    most = math.max(most, now)
  end
  return most
end

local FOUR = traced([[
  { target = 'a', from = { 'first.txt' } },
  { target = 'b', from = { 'first.txt' } },
  { target = 'c', from = { 'first.txt' } },
  { target = 'd', from = { 'first.txt' } },
  { target = 'all', from = { 'a', 'b', 'c', 'd' } },
]])

describe("examples/build.lua", function()
  before_each(function()
    make_folder()
    write("first.txt", "first\n")
    write("second.txt", "second\n")
  end)

  after_each(remove_folder)

  it("builds its own description", function()
    local result = child.run({ "examples/build.lua", "--folder", folder .. "/made" })
    assert.are.equal("", result.err)
    assert.are.equal(0, result.code)
    assert.matches("\n%[10/10%] ", result.out)
    assert.matches("\n10 targets built in ", result.out)
    assert.are.equal("passed\n", read("made/test"))
  end)

  it("removes the temporary folder in which it builds when none is given", function()
    write("build.lua", "return { { target = 'here', run = 'pwd' } }")
    local temporary, description = "TMPDIR=" .. folder, folder .. "/build.lua"
    local words = { "env", temporary, child.interpreter, "examples/build.lua", "--file", description }
    assert.are.equal(0, child.command(words).code)
    assert.are.same({ code = 0, out = "build.lua\nfirst.txt\nsecond.txt\n", err = "" }, child.command({ "ls", folder }))
  end)

  it("builds each target after those that it needs", function()
    local result = build(traced([[
      { target = 'last', from = { 'middle', 'second.txt' }, also = { 'other' } },
      { target = 'middle', from = { 'first.txt' } },
      { target = 'other', from = { 'middle' } },
    ]]), "--jobs", "8")
    assert.are.equal("", result.err)
    assert.are.equal(0, result.code)
    assert.are.equal("+middle -middle +other -other +last -last ", trace())
    assert.are.equal("first\nsecond\n", read("it's made/last"))
  end)

  it("runs as many commands at once as it may", function()
    assert.are.equal(0, build(FOUR, "--jobs", "3", "all").code)
    assert.are.equal(3, most_at_once())
  end)

  it("runs them one by one", function()
    assert.are.equal(0, build(FOUR, "--jobs", "1", "all").code)
    assert.are.equal("+a -a +b -b +c -c +d -d +all -all ", trace())
  end)

  it("builds the targets that it is given, or the first one", function()
    assert.are.equal(0, build(FOUR, "--jobs", "1").code)
    assert.are.equal("+a -a ", trace())
    assert.are.equal(0, build(FOUR, "--jobs", "1", "c", "d", "a").code)
    assert.are.equal("+a -a +c -c +d -d ", trace())
  end)

  it("takes a rule without a command for a name", function()
    local result = build([[return {
      { target = "both", from = { "first.txt", "second.txt" } },
      { target = "copy", from = { "both" }, run = "cat $in >$out" },
    }]], "copy")
    assert.are.equal(0, result.code)
    assert.are.equal("first\nsecond\n", read("it's made/copy"))
  end)

  it("builds nothing that is up to date, and what was changed with all that it is part of", function()
    local description = [[return {
      { target = "all", from = { "x", "y" } },
      { target = "x", from = { "first.txt" }, run = "cp $in $out" },
      { target = "y", from = { "z" }, run = "cp $in $out" },
      { target = "z", from = { "second.txt" }, run = "cp $in $out" },
    }]]
    assert.matches("\n3 targets built", build(description).out)
    assert.are.same({ code = 0, out = "nothing to do\n", err = "" }, build(description))
    write("second.txt", "changed\n")
    local result = build(description, "--jobs", "1")
    assert.matches("^%[1/2%] z, [^\n]+\n%[2/2%] y, [^\n]+\n2 targets built", result.out)
    assert.are.equal("changed\n", read("it's made/y"))
  end)

  it("stops at the first error, and says which command it was and what it wrote", function()
    local start = os.time()
    local result = build([[return {
      { target = "all", from = { "slow", "bad", "later" } },
      { target = "slow", run = "trap 'echo stopped >>trace; exit 1' TERM; echo half >$out; sleep 30 & wait" },
      { target = "bad", run = "echo what happened; echo half >$out; sleep 0.2; exit 3" },
      { target = "later", from = { "bad" }, run = "echo later >>trace" },
    }]], "--jobs", "8")
    assert.are.equal(1, result.code)
    assert.matches("^build: bad failed: exit status 3\n  echo what happened; [^\n]+\nwhat happened\n$", result.err)
    assert.are.equal("stopped ", trace())
    assert.is_nil(read("it's made/bad"))
    assert.is_nil(read("it's made/slow"))
    assert.is_true(os.time() - start < 20)
  end)

  --- Builds a target that takes too long, with a command that goes on writing until it is killed.
  local function build_too_long(command)
    local result = build(("return { { target = 'slow', run = [[%s]] } }"):format(command), "--timeout", "0.2")
    assert.are.equal(1, result.code)
    assert.matches("^build: slow failed: not done within 0.2 s\n", result.err)
    local written = trace()
    os.execute("sleep 0.3")
    assert.are_not.equal("", written)
    assert.are.equal(written, trace())
  end

  it("gives up a command that takes too long, with all that it has started", function()
    build_too_long("(while echo here >>trace; do sleep 0.05; done) & sleep 30")
  end)

  it("kills a command that does not want to end", function()
    build_too_long("trap '' TERM; while echo here >>trace; do sleep 0.05; done")
  end)

  it("rewrites one line on a terminal", function()
    write("build.lua", FOUR)
    local words = { child.interpreter, "examples/build.lua", "--file", folder .. "/build.lua", "all" }
    for i, word in ipairs(words) do
      words[i] = child.quote(word)
    end
    local result = child.command({ "script", "-q", "-e", "-c", table.concat(words, " "), "/dev/null" })
    assert.are.equal(0, result.code)
    assert.matches("\r\27%[K%[%d/5%] %d+%.%d s: a", result.out)
    assert.matches("^[^\n]*\r\27%[K5 targets built", result.out)
  end)

  it("refuses descriptions that make no sense", function()
    local refused = {
      ["syntax"] = { "return {", "build.lua:1: " },
      ["no rules"] = { "return {}", "build.lua: no rules$" },
      ["no target"] = { "return { {} }", "build.lua: rule 1 has no target$" },
      ["a list that is none"] = { "return { { target = 'a', from = 'b' } }", "'from' of a must be a list$" },
      ["a command that is none"] = { "return { { target = 'a', run = {} } }", "'run' of a must be a command$" },
      ["twice"] = { "return { { target = 'a' }, { target = 'a' } }", "two rules make a$" },
      ["missing"] = { "return { { target = 'a', from = { 'b' } } }", "/b is missing, and no rule makes it$" },
      ["a cycle"] = {
        "return { { target = 'a', from = { 'b' } }, { target = 'b', also = { 'a' } } }",
        "^build: a target needs itself: a %-> b %-> a$",
      },
    }
    for what, case in pairs(refused) do
      local result = build(case[1])
      assert.are.equal(1, result.code, what)
      assert.are.equal("", result.out)
      assert.matches("^build: [^\n]+\n$", result.err)
      assert.matches(case[2], (result.err:gsub("\n$", "")))
    end
    assert.are.equal("build: no rule makes b\n", build("return { { target = 'a' } }", "b").err)
  end)

  it("explains itself", function()
    local result = child.run({ "examples/build.lua", "--help" })
    assert.are.equal(0, result.code)
    assert.matches("^usage: ", result.out)
  end)

  it("refuses options that make no sense", function()
    local refused = { { "--bad" }, { "--jobs" }, { "--jobs", "0" }, { "--jobs", "1.5" }, { "--timeout", "0" } }
    for _, words in ipairs(refused) do
      local result = child.run({ "examples/build.lua", unpack(words) })
      assert.are.equal(2, result.code)
      assert.are.equal("", result.out)
      assert.matches("^build: [^\n]+\n\nusage: ", result.err)
    end
  end)
end)

--- Runs the pipeline on the folder, or on what is named besides, in an unreliability that the options tell.
local function pipeline(...)
  return child.run({ "examples/pipeline.lua", "--latency", "0.01", ... })
end

--- The lines about retries, sorted.
local function retries(result)
  local lines = {}
  for line in result.out:gmatch("[^\n]+; retry %d+\n") do
    lines[#lines + 1] = line
  end
  table.sort(lines)
  return lines
end

describe("examples/pipeline.lua", function()
  before_each(function()
    make_folder()
    shell("mkdir", folder .. "/it's deep")
    write("first.txt", "one two three\n")
    write("it's deep/second.txt", "one, two")
    write("third.txt", "")
  end)

  after_each(remove_folder)

  it("counts the words of all documents in its folders", function()
    local result = pipeline("--failures", "0", folder)
    assert.are.equal("", result.err)
    assert.are.equal(0, result.code)
    assert.matches("] " .. folder .. "/first.txt: 3 words\n", result.out)
    assert.matches("] " .. folder .. "/it's deep/second.txt: 2 words\n", result.out)
    assert.matches("] " .. folder .. "/third.txt: 0 words\n", result.out)
    assert.matches("\n3 of 3 documents, 5 words, 0 retries, %d+%.%d+ s\n$", result.out)
  end)

  it("fetches the examples when it is given nothing", function()
    local result = pipeline("--failures", "0")
    assert.are.equal("", result.err)
    assert.matches("] examples/build/words/main.c: %d+ words\n", result.out)
    assert.are.equal(0, result.code)
  end)

  it("fetches at most so many at a time", function()
    local seconds = function(at_once)
      local result = pipeline("--failures", "0", "--latency", "0.2", "--at-once", at_once, folder)
      return tonumber(result.out:match("([%d.]+) s\n$"))
    end
    -- An answer takes between 0.1 and 0.3 seconds.
    assert.is_true(seconds("1") >= 0.3)
    assert.is_true(seconds("2") >= 0.2)
  end)

  it("tries again what failed or hung, and fails in the same way for the same seed", function()
    -- The chance depends on the names of the documents: these are always the same.
    local words = { "--seed", "3", "--failures", "0.5", "--timeout", "0.5", "examples/build/words" }
    local first, second = pipeline(unpack(words)), pipeline(unpack(words))
    assert.are.equal("", first.err)
    assert.are.equal(0, first.code)
    assert.matches("\n6 of 6 documents, %d+ words, 5 retries, ", first.out)
    assert.matches("table.c: timed out after 0.5 s; retry 1\n", first.out)
    assert.matches("table.c: the server is busy; retry 2\n", first.out)
    assert.are.same(retries(first), retries(second))
  end)

  it("gives up what fails too often", function()
    local result = pipeline("--failures", "1", "--retries", "2", "--timeout", "0.05", folder)
    assert.are.equal(1, result.code)
    assert.matches("retry 2\n", result.out)
    assert.is_nil(result.out:find("retry 3"))
    assert.matches("\n0 of 3 documents, 0 words, [2-6] retries, ", result.out)
    assert.matches("^pipeline: [^\n]+; the rest was cancelled\n$", result.err)
  end)

  it("does not try again what is missing, and cancels what is under way", function()
    local start, missing = os.time(), folder .. "/missing.txt"
    local result = pipeline("--latency", "100", "--timeout", "60", missing, folder)
    assert.are.equal(1, result.code)
    assert.are.equal("pipeline: there is no document " .. missing .. "; the rest was cancelled\n", result.err)
    assert.matches("^0 of 4 documents, 0 words, 0 retries, ", result.out)
    assert.is_true(os.time() - start < 20)
  end)

  it("does not begin with what comes after an error", function()
    -- One at a time, in their order: the last document would be fetched after the one that is missing.
    local missing = folder .. "/missing.txt"
    local result = pipeline("--failures", "0", "--at-once", "1", missing, folder)
    assert.are.equal(1, result.code)
    assert.matches("\n2 of 4 documents, 5 words, 0 retries, ", result.out)
  end)

  it("stops at its deadline", function()
    local start = os.time()
    local result = pipeline("--latency", "100", "--timeout", "60", "--deadline", "0.2", folder)
    assert.are.equal(1, result.code)
    assert.are.equal("pipeline: not done within 0.2 s; the rest was cancelled\n", result.err)
    assert.matches("^0 of 3 documents, 0 words, 0 retries, 0.%d+ s\n$", result.out)
    assert.is_true(os.time() - start < 20)
  end)

  it("explains itself", function()
    local result = pipeline("--help")
    assert.are.equal(0, result.code)
    assert.matches("^usage: ", result.out)
  end)

  it("refuses options that make no sense", function()
    local refused = { { "--bad" }, { "--at-once", "0" }, { "--retries", "0.5" }, { "--failures", "2" }, { "--seed" } }
    for _, words in ipairs(refused) do
      local result = pipeline(unpack(words))
      assert.are.equal(2, result.code)
      assert.are.equal("", result.out)
      assert.matches("^pipeline: [^\n]+\n\nusage: ", result.err)
    end
  end)
end)

describe("examples/check.lua", function()
  before_each(function()
    make_folder()
    shell("mkdir", folder .. "/it's deep")
  end)

  after_each(remove_folder)

  --- Runs it on the folder, and says whether there is a luacheck.
  local function check()
    local result = child.run({ "examples/check.lua", folder })
    return result, not result.out:find("luacheck is not installed", 1, true)
  end

  it("finds in workers what luacheck finds here", function()
    write("first.lua", "local unused = 1\n")
    write("it's deep/second.lua", "return nothing\n")
    write("it's deep/third.lua", "return return\n")
    write("none.txt", "local unused = 1\n")
    local result, is_installed = check()
    assert.are.equal("", result.err)
    assert.are.equal(0, result.code)
    if not is_installed then return pending("luacheck is not installed") end
    assert.matches("^luacheck [%d.]+, 3 Lua files\n", result.out)
    assert.matches("\nspeed%-up %d+%.%d+; the same 3 messages:\n", result.out)
    assert.matches("\n  " .. folder .. "/first.lua:1:7: unused variable 'unused'\n", result.out)
    local deep = folder .. "/it's deep"
    assert.matches("\n  " .. deep .. "/second.lua:1:8: accessing undefined variable 'nothing'\n", result.out)
    assert.matches("\n  " .. deep .. "/third.lua:1:8: expected", result.out)
  end)

  it("says so if there is nothing to check", function()
    local result, is_installed = check()
    if not is_installed then return pending("luacheck is not installed") end
    assert.are.equal("check: no Lua files in " .. folder .. "\n", result.err)
    assert.are.equal(1, result.code)
  end)
end)

describe("examples/mandelbrot.lua", function()
  before_each(make_folder)
  after_each(remove_folder)

  it("writes the image that it has drawn twice", function()
    local result = child.run({ "examples/mandelbrot.lua", folder .. "/it's.pgm", 60 })
    assert.are.equal("", result.err)
    assert.are.equal(0, result.code)
    assert.matches("^60 x 40 points: %d+%.%d+ s with %d+ workers?\n", result.out)
    assert.matches("speed%-up %d+%.%d+, the same image\n", result.out)
    local image = read("it's.pgm")
    local head = "P5\n60 40\n255\n"
    assert.are.equal(head, image:sub(1, #head))
    assert.are.equal(#head + 60 * 40, #image)
    -- From -2 on the axis, a point that stays, to 1, which leaves in three steps.
    local axis = image:sub(#head + 20 * 60 + 1, #head + 21 * 60)
    assert.are.equal(0, axis:byte(1))
    assert.are.equal(0, axis:byte(41))
    assert.is_true(axis:byte(60) > 240)
  end)

  it("refuses a width in which its known points are no pixels", function()
    local result = child.run({ "examples/mandelbrot.lua", folder .. "/it's.pgm", 61 })
    assert.are_not.equal(0, result.code)
    assert.matches("the width must be a multiple of 6", result.err)
  end)
end)

describe("examples/stages.lua", function()
  before_each(function()
    make_folder()
    shell("mkdir", folder .. "/it's deep")
  end)

  after_each(remove_folder)

  it("counts the words of all files", function()
    for i = 1, 30 do
      write(("it's deep/%d.txt"):format(i), ("The word, the WORD %d\n"):format(i):rep(i))
    end
    write("binary", "the \0 word")
    local result = child.run({ "examples/stages.lua", folder })
    assert.are.equal("", result.err)
    assert.are.equal(0, result.code)
    assert.are.equal("skipped " .. folder .. "/binary: it is no text", line_with(result, "skipped"))
    assert.are.equal("30 files, 1 more skipped; 2 different words", line_with(result, "30 files"))
    assert.matches("\n +930  the\n +930  word\n", result.out)
    assert.matches("one by one: equal counts\n$", result.out)
  end)

  it("counts nothing where there is nothing", function()
    local result = child.run({ "examples/stages.lua", folder })
    assert.are.equal("", result.err)
    assert.matches("^0 files, 0 more skipped; 0 different words\n", result.out)
    assert.are.equal(0, result.code)
  end)
end)
