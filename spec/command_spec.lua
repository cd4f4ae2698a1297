-- The command `scheduler`, in processes of its own: what it runs, what it writes, and its exit status.

local child = require("spec.support.child")

local COMMAND = "bin/scheduler"

local function command(...)
  return child.run({ COMMAND, ... })
end

--- Runs the command with a script of this text.
local function run_script(source, ...)
  local path = child.write(source)
  local result = command(path, ...)
  os.remove(path)
  return result, path
end

--- Runs the command with what a shell script writes as its standard input.
local function command_after(writer, ...)
  local words = { child.interpreter, COMMAND, ... }
  for i, word in ipairs(words) do
    words[i] = child.quote(word)
  end
  return child.command({ "sh", "-c", ("(%s) | %s"):format(writer, table.concat(words, " ")) })
end

local function command_with(input, ...)
  return command_after("printf %s " .. child.quote(input), ...)
end

describe("the command", function()
  it("runs a script, then the loop until nothing is left", function()
    local result = run_script([[
      local scheduler = require("scheduler")
      scheduler.setTimeout(print, 2, "a timer")
      print(scheduler.task.name((coroutine.running())))
      scheduler.task.wait(0.001)
      print("after a wait")
    ]])
    assert.are.equal("", result.err)
    assert.are.equal("main\nafter a wait\na timer\n", result.out)
    assert.are.equal(0, result.code)
  end)

  it("runs a script that turns the loop itself", function()
    local result = run_script("local s = require('scheduler') s.setTimeout(print, 1, 'fired') s.run() print('over')")
    assert.are.equal("fired\nover\n", result.out)
    assert.are.equal(0, result.code)
  end)

  it("hands arguments on, as the interpreter does", function()
    local result, path = run_script("print(arg[0], arg[1], arg[2], arg[-1], arg[-3], #arg, ...)", "one", "-i")
    assert.are.equal(
      table.concat({ path, "one", "-i", COMMAND, "nil", "2", "one", "-i" }, "\t") .. "\n", result.out)
    assert.is_truthy(command("--stats", "-e", "", "-", "x").err:find("turns"))
    local piped = command_with("print(arg[0], arg[1], arg[-1], ...)", "--", "-", "x")
    assert.are.equal("-\tx\t--\tx\n", piped.out)
  end)

  it("runs the codes of -e in order, then the script", function()
    local result = run_script("print(x, scheduler ~= nil)", "an argument")
    assert.are.equal("nil\tfalse\n", result.out)
    local path = child.write("print(x, ...)")
    result = command("-e", "x = await(Promise.delay(0.001):andThenReturn(1))", "-ex = x + 1", path, "more")
    os.remove(path)
    assert.are.equal("2\tmore\n", result.out)
    assert.are.equal(0, result.code)
  end)

  it("reports an error of the script, goes on with the loop, and fails", function()
    local result, path = run_script("require('scheduler').setTimeout(print, 5, 'goes on')\nerror('boom')")
    assert.are.equal("goes on\n", result.out)
    assert.are.equal(1, result.code)
    assert.are.equal("scheduler: " .. path .. ":2: boom\n", result.err:match("^[^\n]*\n"))
    assert.is_truthy(result.err:find("stack traceback"))
    assert.is_nil(result.err:find(COMMAND, 1, true))
  end)

  it("fails after an error in a callback, and after a rejection that nobody handles", function()
    local result = command("-e", "scheduler.setTimeout(function() error('late') end, 1)")
    local expected = "uncaught error in a timer set at (command line):1: (command line):1: late"
    assert.is_truthy(result.err:find(expected, 1, true), result.err)
    assert.are.equal(1, result.code)
    result = command("-e", "Promise.reject('refused')")
    assert.is_truthy(result.err:find("refused"))
    assert.are.equal(1, result.code)
  end)

  it("does not fail where the script has a handler for errors", function()
    local result = command("-e", "scheduler.on_error(function(err) print(err) end) task.spawn(error, 'mine', 0)")
    assert.are.equal("mine\n", result.out)
    assert.are.equal(0, result.code)
  end)

  it("fails where the script has set no handler but the default one, or one that fails", function()
    for _, handler in ipairs({ "nil", "error" }) do
      local result = command("-e", "scheduler.on_error(" .. handler .. ") task.spawn(error, 'mine', 0)")
      assert.is_truthy(result.err:find("mine", 1, true))
      assert.are.equal(1, result.code)
    end
  end)

  it("fails if the script waits for what nobody can bring, and not if it stops the loop", function()
    local result = command("-e", "scheduler.event():wait() print('never')")
    assert.are.equal(1, result.code)
    assert.are.equal("", result.out)
    assert.is_truthy(result.err:find("wait"))
    assert.are.equal(0, command("-e", "scheduler.setTimeout(scheduler.stop, 1) task.wait(1000)").code)
  end)

  it("ends with the status that the script asks for", function()
    assert.are.equal(7, command("-e", "scheduler.setTimeout(os.exit, 1, 7) task.wait(1000)").code)
  end)

  it("tells what it cannot read or compile, and runs none of it", function()
    local result = command("-e", "print('never')", "no/such/file.lua")
    assert.are.equal("", result.out)
    assert.is_truthy(result.err:find("^scheduler: cannot open no/such/file.lua"))
    assert.are.equal(1, result.code)
    result = command("-e", "x(")
    assert.is_truthy(result.err:find("^scheduler: %(command line%):1: "))
    assert.are.equal(1, result.code)
  end)

  it("tells its version, and how it is used", function()
    local version = require("scheduler")._VERSION
    for _, option in ipairs({ "-v", "--version" }) do
      local result = command(option)
      assert.are.equal(1, (result.out:find("scheduler " .. version .. " on Lua", 1, true)))
      assert.are.equal(0, result.code)
    end
    for _, option in ipairs({ "-h", "--help" }) do
      local result = command(option)
      assert.is_truthy(result.out:find("^usage: scheduler"))
      assert.are.equal("", result.err)
      assert.are.equal(0, result.code)
    end
  end)

  for _, case in ipairs({
    { words = {}, says = "nothing to run" },
    { words = { "--" }, says = "nothing to run" },
    { words = { "--bogus" }, says = "unknown option '--bogus'" },
    { words = { "-x" }, says = "unknown option '-x'" },
    { words = { "-e" }, says = "option '-e' needs CODE" },
    { words = { "--stats=1", "-e", "" }, says = "option '--stats' takes no value: '--stats=1'" },
    { words = { "--watchdog", "soon", "-e", "" }, says = "wants a number of seconds above 0, not 'soon'" },
    { words = { "--watchdog=-1", "-e", "" }, says = "wants a number of seconds above 0, not '-1'" },
    { words = { "-i", "-" }, says = "standard input cannot be the script and the lines of '-i' as well" },
  }) do
    it(("refuses '%s'"):format(table.concat(case.words, " ")), function()
      local result = command((table.unpack or unpack)(case.words))
      assert.are.equal("", result.out)
      assert.is_truthy(result.err:find(case.says, 1, true), result.err)
      assert.is_truthy(result.err:find("\nusage: scheduler", 1, true), result.err)
      assert.are.equal(2, result.code)
    end)
  end

  it("writes counters at the end, to standard error", function()
    local result = command("--stats", "-e", "task.wait(0.001) print('done')")
    assert.are.equal("done\n", result.out)
    assert.is_truthy(result.err:find("\ntimers_fired +1\n"), result.err)
    assert.are.equal(0, result.code)
  end)

  it("reports a callback that holds the loop, or says that it has no watchdog", function()
    local busy = "local t = os.clock() while os.clock() < t + 0.3 do end"
    local result = command("--watchdog", "0.05", "-e", ("task.wait() %s"):format(busy))
    assert.is_truthy(result.err:find("%S"), "nothing was reported")
    if not require("scheduler").watchdog then
      assert.is_truthy(result.err:find("has no watchdog"))
      assert.are.equal(2, result.code)
    end
  end)
end)

describe("the lines that -i reads", function()
  it("are run one by one, and their values shown", function()
    local result = command_with("1 + 1, nil\nx = 5\n= x\nfor i = 1, 2 do\nprint(i)\nend\nlast", "-i")
    assert.are.equal("", result.err)
    local expected = "^scheduler [^\n]* on Lua[^\n]*\n> 2\tnil\n> > 5\n> >> >> 1\n2\n> nil\n> \n$"
    assert.is_truthy(result.out:find(expected), result.out)
    assert.are.equal(0, result.code)
  end)

  it("may wait", function()
    local lines = "await(Promise.delay(0.001):andThenReturn('waited'))\ntask.wait(0.001) > 0\nscheduler.run()\n"
    local result = command_with(lines, "-i")
    assert.are.equal("", result.err)
    assert.is_truthy(result.out:find("> waited\n> true\n> > \n$"), result.out)
  end)

  it("do not hold up the loop while they are awaited", function()
    -- The second line is typed when the timer of the first has fired.
    local path = os.tmpname()
    os.remove(path)
    local first = ("scheduler.setTimeout(function() io.open(%q, 'w'):close() end, 1)"):format(path)
    local writer = ("echo %s; until [ -e %s ]; do sleep 0.01; done; echo '\"typed\"'"):format(child.quote(first), path)
    local result = command_after(writer, "-i")
    os.remove(path)
    assert.are.equal("", result.err)
    assert.is_truthy(result.out:find("> typed\n"), result.out)
  end)

  it("may fail, and the next ones are run", function()
    local lines = "do error('mine') end\nx(\n\n)\nscheduler.setTimeout(error, 0, 'late')\ntask.wait(0.01)\n'on'"
    local result = command_with(lines, "-i")
    assert.is_truthy(result.err:find("scheduler: stdin:1: mine\n", 1, true), result.err)
    assert.is_truthy(result.err:find("'x'", 1, true), result.err)
    assert.is_truthy(result.err:find("in a timer set at stdin:1: ", 1, true), result.err)
    assert.is_nil(result.err:find(COMMAND, 1, true))
    assert.is_truthy(result.out:find("> on\n"), result.out)
    assert.are.equal(0, result.code)
  end)

  it("go on after a callback has stopped the loop", function()
    local path = os.tmpname()
    os.remove(path)
    local stop = ("scheduler.setTimeout(function() scheduler.stop() io.open(%q, 'w'):close() end, 1)"):format(path)
    local writer = ("echo %s; until [ -e %s ]; do sleep 0.01; done; echo '\"typed\"'"):format(child.quote(stop), path)
    local result = command_after(writer, "-i")
    os.remove(path)
    assert.are.equal("", result.err)
    assert.is_truthy(result.out:find("> typed\n"), result.out)
  end)

  it("are read beside a script that goes on", function()
    local path = child.write("require('scheduler') x = 'set' scheduler.setInterval(function() y = 1 end, 1)")
    local result = command_with("x\ntask.wait(0.01)\ny", "-i", path)
    os.remove(path)
    assert.is_truthy(result.out:find("> set\n"), result.out)
    assert.is_truthy(result.out:find("> 1\n"), result.out)
    assert.are.equal(0, result.code)
  end)

  it("read the same input as the program", function()
    local result = command_with("io.read('*l')\nfor the program\n'next'", "-i")
    assert.is_truthy(result.out:find("> for the program\n> next\n"), result.out)
  end)
end)
