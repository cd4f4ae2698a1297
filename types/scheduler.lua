---@meta

-- What `require("scheduler")` returns, for lua-language-server. Nothing here runs.
--
-- Units: milliseconds in the JavaScript family, `now` and `poll`; seconds in `clock`.
-- A bad argument raises at the call, "bad argument #2 to 'setTimeout' (number expected, got string)", and leaves no
-- trace. Rules that were taken from somewhere name the source:
--   HTML: https://html.spec.whatwg.org/multipage/timers-and-user-prompts.html
--   Node: https://nodejs.org/api/timers.html

---A function, or a value whose metatable has `__call`.
---@alias scheduler.Callable function|table|userdata

---The id of a timer, interval or immediate: a whole number above 0 and below 2^53, never given out twice in a process.
---@alias scheduler.TimerId integer

---What an interval does about ticks that it could not fire in time (the names are those of tokio's
---`MissedTickBehavior`):
--- * `"skip"`: fires once for all of them and goes on with its schedule;
--- * `"burst"`: fires once for each;
--- * `"delay"`: fires once, and the schedule starts anew from there.
---@alias scheduler.Missed "skip"|"burst"|"delay"

---How an interval goes, in place of its period.
---@class scheduler.IntervalOptions
---@field ms number The period in milliseconds.
---@field missed? scheduler.Missed `"skip"` unless given.
---@field overlap? boolean Whether it fires while its last callback still waits; unless true, such ticks are skipped.

---Receives an error that nothing caught: its value as it was raised, the traceback ("" where there is none), and where
---it comes from ("a timer set at main.lua:3").
---@alias scheduler.ErrorHandler fun(err: any, traceback: string, source: string)

---Counters since the module was loaded, and what is pending.
---@class scheduler.Stats
---@field turns integer Turns of the loop.
---@field timers_pending integer Timers, intervals and immediates that are set.
---@field timers_fired integer Timers that fired; each tick of an interval counts.
---@field immediates_run integer Immediates that ran.
---@field microtasks_pending integer Microtasks that are queued.
---@field microtasks_run integer Microtasks that ran.
---@field tasks_waiting integer Coroutines that wait in `await`.
---@field tasks_resumed integer Coroutines that the loop started or woke.
---@field jobs_pending integer Jobs whose outcome is still to come.
---@field jobs_sent integer Jobs that were sent from this Lua state.
---@field workers integer Worker threads that were started in this process, by all Lua states of it.
---@field errors integer Errors that went to the error handler.

---Anything that `await` can wait for.
---@class scheduler.Awaitable
---@field await fun(self: any): any ...

---A call that was sent to a worker. `tostring` tells its state: "job 1 (pending)", "(done)" or "(failed)".
---@class scheduler.Job: scheduler.Awaitable
---@field number integer Counts the jobs of this Lua state.
---@field origin string Where it was started, "file:line".
local Job = {}

---Waits for the job and returns its results; may be called again, by many. See `scheduler.await` for where one can
---wait.
---
---Raises a `scheduler.JobError` if the job failed.
---@return any ...
function Job:await() end

---What a job fails with. `tostring` gives the message and the traceback. The kind is
--- * `"error"`: the function raised, or its results cannot cross;
--- * `"lost"`: the worker died or could not be made, or this process was forked while the job was in flight.
---@class scheduler.JobError
---@field kind "error"|"lost"
---@field message string The error in words.
---@field traceback string That of the worker; "" where there is none.
---@field value any The error value itself; nil where it cannot cross.
---@field origin string Where the job was started, "file:line".

---@class scheduler
---@field _VERSION string
---@field pending table What a call that waits makes a coroutine yield to whoever resumed it.
local scheduler = {}

-- The loop --------------------------------------------------------------------------------------------------------

---Turns the loop until nothing is left that could wake it: no timer that keeps it, no job, no coroutine that is ready.
---
---With `main`, runs `main(...)` in a coroutine too, and returns its results or raises its error once nothing is left.
---
---Raises if the scheduler is running already, and if `main` waits and nothing is left that could wake it. Returns
---nothing if `stop` was called before `main` had ended.
---@param main? scheduler.Callable
---@param ... any The arguments of `main`.
---@return any ... The results of `main`.
function scheduler.run(main, ...) end

---One turn, without waiting: for hosts with a loop of their own. With a budget the turn ends about that long after its
---start: the time is looked at every 16 callbacks, microtasks aside. What was not reached comes first in the next turn.
---
---Raises if the scheduler is running already.
---@param budget_ms? number Milliseconds; no limit unless given.
---@return boolean alive Whether something is left that would keep `run`.
---@return number? wait_ms Milliseconds until the next turn is needed; nil if no deadline asks for one.
function scheduler.poll(budget_ms) end

---A descriptor that is readable when `poll` has work: a timer is due, a job is done. The same one at each call. Only
---watch it: `poll` makes it unreadable. POSIX only. After a fork the child asks for its own.
---
---Raises if the system has no descriptor left.
---@return integer
function scheduler.fd() end

---Makes `run` return after the callback that is running. What is pending stays, and a later `run` goes on with it.
function scheduler.stop() end

---Monotonic time in milliseconds with a fraction, the same for all Lua states of the process. In a turn it stands still
---at the turn's start; delays count from the call all the same.
---@return number ms
function scheduler.now() end

---Waits for `x` and returns its results: calls `x:await()`.
---
---In a callback or another coroutine it suspends that coroutine, and whoever resumed it gets `scheduler.pending`. Who
---resumes it before its time makes the call return what was passed to `resume`. On the main thread it turns the loop
---until `x` is settled.
---
---Raises what `x` failed with; "cannot wait here: ..." where the coroutine cannot yield (in Lua 5.1 and 5.2 it is Lua's
---own error); on the main thread also when nothing is left that could end the wait, after `stop`, and in an error
---handler while the scheduler is running. In PUC Lua 5.1 a coroutine cannot wait inside `pcall`, a metamethod or an
---iterator.
---@param x scheduler.Awaitable
---@return any ...
function scheduler.await(x) end

---Sets what uncaught errors go to, and returns the former handler. Nil restores the default, which writes to stderr. An
---error in the handler is written to stderr, with the one that it was given. A handler must not wait.
---@param handler? scheduler.ErrorHandler|table
---@return scheduler.ErrorHandler|table|nil former
function scheduler.on_error(handler) end

---@return scheduler.Stats
function scheduler.stats() end

-- Timers ----------------------------------------------------------------------------------------------------------

---Calls `fn(...)` once, after `ms` milliseconds; the callback may wait. Never early; by deadline, then in order of
---creation; a timer that is set in a callback never fires in the same pass.
---
---Missing or negative is 0, and one function clears all (HTML). Not from there: fractions count, a delay is never
---shortened, `math.huge` never fires and does not keep the loop.
---
---Raises if `fn` cannot be called, and if `ms` is NaN or no number.
---@param fn scheduler.Callable
---@param ms? number
---@param ... any The arguments of `fn`, nils included.
---@return scheduler.TimerId
function scheduler.setTimeout(fn, ms, ...) end

---Calls `fn(...)` every `ms` milliseconds, until it is cleared; an error in `fn` does not end it. Ticks keep to the
---schedule that begins with the call. A period of 0 or less is 1 ms (Node).
---
---Raises if `fn` cannot be called, if the period is NaN or no number, and if `missed` is none of its three values.
---@param fn scheduler.Callable
---@param ms? number|scheduler.IntervalOptions
---@param ... any The arguments of `fn`, nils included.
---@return scheduler.TimerId
function scheduler.setInterval(fn, ms, ...) end

---Calls `fn(...)` after the due timers and ready coroutines of the turn; first in first out. One that is set in an
---immediate runs in the next turn (Node).
---
---Raises if `fn` cannot be called.
---@param fn scheduler.Callable
---@param ... any The arguments of `fn`, nils included.
---@return scheduler.TimerId
function scheduler.setImmediate(fn, ...) end

---Calls `fn(...)` after the callback that is running, before anything else; first in first out (HTML).
---
---Raises if `fn` cannot be called.
---@param fn scheduler.Callable
---@param ... any The arguments of `fn`, nils included.
function scheduler.queueMicrotask(fn, ...) end

---Clears a timer, interval or immediate. Nil, unknown, fired or cleared before: does nothing (HTML).
---
---Raises if `id` is neither a number nor nil.
---@param id? scheduler.TimerId
function scheduler.clearTimeout(id) end

---The same function as `clearTimeout` (HTML).
---@param id? scheduler.TimerId
function scheduler.clearInterval(id) end

---The same function as `clearTimeout`.
---@param id? scheduler.TimerId
function scheduler.clearImmediate(id) end

---Makes a timer keep `run` from returning, as it does from the beginning (Node). Raises if `id` is no number.
---@param id scheduler.TimerId
---@return scheduler.TimerId id
function scheduler.ref(id) end

---Makes a timer not keep `run` from returning; it fires as long as something else keeps it (Node). Raises if `id` is no
---number.
---@param id scheduler.TimerId
---@return scheduler.TimerId id
function scheduler.unref(id) end

---Whether a timer is set and keeps `run` from returning (Node). Raises if `id` is no number.
---@param id scheduler.TimerId
---@return boolean
function scheduler.hasRef(id) end

---Starts the delay of a timer anew (Node). False if it has fired or was cleared: Node would set it again, here its id
---is dead. Raises if `id` is no number.
---@param id scheduler.TimerId
---@return boolean is_set
function scheduler.refresh(id) end

-- Virtual time ----------------------------------------------------------------------------------------------------

---Time that tests can stop and move. It moves the timers of this Lua state and `scheduler.now`; jobs go on in real
---time.
---@class scheduler.clock
scheduler.clock = {}

---Stops time where it is. Timers then keep neither `run` nor `poll`'s `alive`.
function scheduler.clock.pause() end

---Moves stopped time forward from deadline to deadline, and runs what is due or ready at each.
---
---Raises if the clock is not paused, if `seconds` is negative, infinite or NaN, if the scheduler is running already,
---and after 100,000 turns at one moment.
---@param seconds number
function scheduler.clock.advance(seconds) end

---Lets time run on from where it stands.
function scheduler.clock.resume() end

-- Jobs ------------------------------------------------------------------------------------------------------------

---@class scheduler.parallel
scheduler.parallel = {}

---Runs `fn(...)` in a worker: a thread with a Lua state of its own, out of as many as there are cores. The worker has
---the sender's `package.path` and `package.cpath`, and its own globals. Timers that the job leaves behind are dropped.
---
---What crosses, there and back: nil, booleans, numbers, strings; tables without metatables, cycles included; Lua
---functions with their upvalues. All are copies.
---
---Raises if `fn` is no function, if something cannot cross ("cannot transfer argument #2.handlers[3], upvalue 'sock':
---userdata"), and if no thread can be started. A failure that nobody waits for goes to the error handler.
---@param fn function A Lua function.
---@param ... any
---@return scheduler.Job
function scheduler.parallel.run(fn, ...) end

return scheduler
