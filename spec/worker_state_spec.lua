-- The Lua state that jobs run in is like that of the program.

local child = require("spec.support.child")

describe("a worker's state", function()
  it("has the libraries of the interpreter, field by field", function()
    -- In a process of its own: the test framework adds to them.
    local result = child.run({ "-e", [[
      local scheduler = require("scheduler")
      local function libraries()
        local names = { "_G", "bit", "bit32", "coroutine", "debug", "ffi", "io", "jit", "math", "os", "package",
          "string", "table", "utf8" }
        local found = {}
        for _, name in ipairs(names) do
          for field, value in pairs(package.loaded[name] or {}) do found[name .. "." .. field] = type(value) end
        end
        for name in pairs(package.preload) do found["preloaded " .. name] = "function" end
        return found
      end
      local ours = libraries()
      local theirs = scheduler.await(scheduler.parallel.run(libraries))
      -- What the interpreter gives the script, and this module the worker.
      ours["_G.arg"], theirs["preloaded scheduler"] = nil, nil
      local count = 0
      for name, kind in pairs(ours) do
        count = count + 1
        if theirs[name] ~= kind then print("the worker lacks " .. name) end
      end
      for name, kind in pairs(theirs) do
        if ours[name] ~= kind then print("the worker has " .. name) end
      end
      print(count > 100)
    ]] })
    assert.are.equal("true\n", result.out, result.err)
  end)
end)
