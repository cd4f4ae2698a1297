-- Functions that take a callback, as functions that return a promise.

local native, compat, check, promise = ...

local pack, unpack = compat.pack, compat.unpack
local OPTIONS = { error_first = "boolean" }

local function resolve(self, ...)
  if self.status == promise.STARTED and not self.is_locked then return promise.resolve(self, ...) end
end

--- The callback that settles a promise: with all that it is given, or by the rule that the first is an error or nil.
local function settler(self, is_error_first)
  if not is_error_first then
    return function(...)
      return resolve(self, ...)
    end
  end
  return function(err, ...)
    if err == nil or err == false then return resolve(self, ...) end
    if not self.is_locked then return promise.reject(self, err) end
  end
end

local function call_with(fn, callback, ...)
  local args = pack(...)
  args[args.n + 1] = callback
  fn(unpack(args, 1, args.n + 1))
end

local function call(self, fn, is_error_first, ...)
  return call_with(fn, settler(self, is_error_first), ...)
end

--- `scheduler.promisify`.
return function(fn, options)
  check.callable(fn, 1, "promisify")
  local is_error_first = check.options(options, OPTIONS, 2, "promisify").error_first ~= false
  return function(...)
    return promise.start(promise.new(native.origin()), call, fn, is_error_first, ...)
  end
end
