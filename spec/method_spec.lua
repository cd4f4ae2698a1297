local scheduler = require("scheduler")
local refuses = require("spec.support.refuses")

--- The scope that a function was given.
local function some_scope()
  local given
  scheduler.scope(function(scope)
    given = scope
  end)
  return given
end

-- What has methods, and those; the ones of userdata are in the specs of each.
local CLASSES = {
  promise = {
    make = scheduler.Promise.resolve,
    "andThen", "catch", "finally", "tap", "andThenCall", "andThenReturn", "finallyCall", "finallyReturn", "timeout",
    "now", "cancel", "getStatus", "await", "awaitStatus", "expect",
  },
  scope = { make = some_scope, "spawn", "hold", "cancel" },
  semaphore = {
    make = function() return scheduler.semaphore(1) end,
    "acquire", "try_acquire", "release", "available", "with",
  },
  mutex = { make = scheduler.mutex, "lock", "try_lock", "unlock", "is_locked", "with" },
  event = { make = scheduler.event, "set", "clear", "is_set", "wait" },
  queue = { make = scheduler.queue, "push", "try_push", "pop", "try_pop", "close", "is_closed", "len" },
}

describe("a method that is called with a dot in place of a colon", function()
  for class, methods in pairs(CLASSES) do
    for _, name in ipairs(methods) do
      it(("is refused at the line of the call: %s.%s()"):format(class, name), function()
        local object = methods.make()
        refuses(("calling '%s' on bad self %%(%s expected, got nil%%)"):format(name, class), object[name])
      end)
    end
  end

  it("is refused with a function for its object", function()
    local promise, scope = scheduler.Promise.resolve(), some_scope()
    for _, name in ipairs({ "andThen", "catch", "finally", "tap", "andThenCall", "finallyCall" }) do
      refuses("calling '" .. name .. "' on bad self %(promise expected, got function%)", promise[name], print)
    end
    refuses("calling 'spawn' on bad self %(scope expected, got function%)", scope.spawn, print)
    refuses("calling 'with' on bad self %(mutex expected, got function%)", scheduler.mutex().with, print)
    refuses("calling 'with' on bad self %(semaphore expected, got function%)", scheduler.semaphore(1).with, print)
  end)

  it("is refused with a value for its object", function()
    refuses("calling 'push' on bad self %(queue expected, got string%)", scheduler.queue().push, "a", "b")
    refuses("calling 'timeout' on bad self %(promise expected, got number%)", scheduler.Promise.resolve().timeout, 1)
    refuses("calling 'cancel' on bad self %(promise expected, got table%)", scheduler.Promise.resolve().cancel, {})
    refuses("calling 'cancel' on bad self %(scope expected, got table%)", some_scope().cancel, {})
  end)
end)
