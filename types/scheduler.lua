---@meta

-- What `require("scheduler")` returns, in the form that lua-language-server reads.
--
-- Units: milliseconds in the JavaScript family, `now` and `poll`; seconds elsewhere.
-- A bad argument raises at the call, "bad argument #2 to 'setTimeout' (number expected, got string)", and leaves no
-- trace. Rules that were taken from somewhere name the source:
--  * HTML: <https://html.spec.whatwg.org/multipage/timers-and-user-prompts.html>
--  * Node: <https://nodejs.org/api/timers.html>
--  * Roblox: <https://create.roblox.com/docs/reference/engine/libraries/task>
--  * trio: <https://trio.readthedocs.io/en/stable/reference-core.html> (nurseries, cancel scopes)
--  * A+: <https://promisesaplus.com>
--  * evaera: <https://eryn.io/roblox-lua-promise/api/Promise>
--  * tokio: <https://docs.rs/tokio/latest/tokio/sync/> (Semaphore, Mutex, Notify, mpsc)
--
-- A call that waits suspends the coroutine that it is called in, and whoever resumed that gets `scheduler.pending`. On
-- the main thread it turns the loop. Resumed by hand before its time, it returns what was passed to `resume`. It raises
-- where the coroutine cannot yield ("cannot wait here: ..."; in Lua 5.1 and 5.2 it is Lua's own error), on the main
-- thread while the scheduler is running, after `stop` and when nothing is left that could end the wait, and a
-- cancellation (`scheduler.scope`). PUC Lua 5.1 cannot yield inside `pcall` (`scheduler.pcall` can), a metamethod or an
-- iterator.

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

---How long something took so far, in seconds. The percentiles are at most 6 % above the true ones.
---@class scheduler.Distribution
---@field count integer How often it was measured.
---@field mean number
---@field p50 number What half of them did not exceed.
---@field p99 number What 99 of 100 did not exceed.
---@field max number

---Counters since the module was loaded, and what is pending. While `scheduler.clock` is paused nothing is measured.
---@class scheduler.Stats
---@field turns integer Turns of the loop.
---@field turn scheduler.Distribution How long turns took, without the time that was slept in between.
---@field lag scheduler.Distribution How late the loop was: in each turn that has timers, the first of them.
---@field timers_pending integer Timers, intervals and immediates that are set, and tasks that wait for their time.
---@field timers_fired integer Timers that fired; each tick of an interval counts, and each wait that was over.
---@field immediates_run integer Immediates that ran.
---@field microtasks_pending integer Microtasks that are queued.
---@field microtasks_run integer Microtasks that ran.
---@field tasks_alive integer What `tasks` would list. They are looked for, which takes some 100 ns for each.
---@field tasks_ended integer Tasks that have returned, failed or were cancelled; not those that other code has resumed
---to an error, or has closed.
---@field tasks_waiting integer Coroutines that wait in lists: for tasks, jobs, scopes, locks, events, queues, channels.
---@field tasks_resumed integer Coroutines that the loop started or woke. `task.spawn` starts them without the loop.
---@field completions integer What other threads have told this one: outcomes of jobs, locks, messages.
---@field jobs_pending integer Jobs whose outcome is still to come.
---@field jobs_sent integer Jobs that were sent from this Lua state.
---@field workers integer Worker threads that the default pool has now; all Lua states of the process share it.
---@field pool scheduler.PoolStats The default pool.
---@field shared integer Channels, and what is of `scheduler.shared`, that this process has.
---@field errors integer Errors that nothing caught.
---@field errors_written integer Those of them that no error handler took: they were written to stderr.

---Anything that `await` can wait for: a promise, or an object with a method `andThen`, `then_` or `await`.
---@alias scheduler.Awaitable scheduler.PromiseOf<any>|table|userdata

---A call that was sent to a worker: the promise of what it returns. It is rejected with a `scheduler.Error` of the kind
---"error", "memory" or "lost".
---
---Cancelled while it is queued, the job never starts. If it waits, it gets an error of the kind "cancelled" there. If
---it computes, it is interrupted within milliseconds, however often it catches that, and its worker gets a fresh Lua
---state. Out of reach are C functions before they return, loops that LuaJIT has compiled, and coroutines that a C
---module resumes: the promise is cancelled all the same, and another thread takes the place of the worker, which
---computes on.
---@alias scheduler.Job scheduler.PromiseOf<any>

---The errors of the library that a program may want to tell apart. `tostring` gives the message, and the traceback if
---there is one. The kind is
--- * `"cancelled"`: the task or promise was cancelled, or the scope that it is in;
--- * `"timeout"`: the time of `timeout`, or of a `scope` or `execute_tasks`, was over;
--- * `"task"`: a task of `execute_tasks` failed;
--- * `"closed"`: the queue, channel or pool is closed;
--- * `"error"`: the function of a job raised, or its results cannot cross, or its worker could not be set up;
--- * `"memory"`: the worker of a job had no memory left, or no more than its pool's `memory_limit`;
--- * `"watchdog"`, `"deadlock"`: not raised, see `watchdog` and `run`;
--- * `"lost"`: the worker of a job died or could not be made, or this process was forked while the job was in flight;
---   or a task ended where other code had resumed it, so that nothing is known of its results.
---@class scheduler.Error
---@field kind "cancelled"|"timeout"|"task"|"closed"|"error"|"memory"|"lost"|"watchdog"|"deadlock"
---@field message string The error in words.
---@field reason? any "cancelled": what was given to `cancel`, or why the scope was cancelled.
---@field key? any "task": the key of the task.
---@field value? any "task", "error": the error value itself; nil where it cannot cross from a worker.
---@field traceback? string "task", "error", "memory", "lost": that of the task or the worker; "" where there is none.
---@field origin? string "error", "memory", "lost": where the job or map was started, "file:line".
---@field index? integer Of a map: the position of the item, from 1; nil where it is not known which one it was.
---@field tasks? thread[] "deadlock": the tasks that wait.
---@field later? any[] Errors of a scope that came after this one.

---@class scheduler
---@field _VERSION string
---@field pending function A mark: what a call that waits makes a coroutine yield to whoever resumed it.
local scheduler = {}

-- The loop --------------------------------------------------------------------------------------------------------

---Turns the loop until nothing is left that could wake it: no timer that keeps it, no job, no coroutine that is ready.
---
---With `main`, runs `main(...)` in a coroutine too, and returns its results or raises its error once nothing is left.
---
---Raises if the scheduler is running already, and if `main` waits and nothing is left that could wake it. Returns
---nothing if `stop` was called before `main` had ended.
---
---If other tasks wait then for what nothing can bring any more, an error of the kind "deadlock" goes to the error
---handler, which names them and what they wait for; once for each wait. Left out are tasks that are parked in a
---`coroutine.yield` of their own, sleep for ever, or wait with a limit of `math.huge` seconds, and those that wait for
---them. None is told while a timer is set that does not keep the loop, or on a paused clock.
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

---Waits for `x` and returns its results. With further arguments, waits for all and returns the first result of each.
---
---Raises what `x`, or the first of them that fails, failed with.
---@param x scheduler.Awaitable|thread
---@param ... scheduler.Awaitable|thread
---@return any ...
function scheduler.await(x, ...) end

---Sets what uncaught errors go to, and returns the former handler. Nil restores the default, which writes to stderr. An
---error in the handler is written to stderr, with the one that it was given. A handler must not wait.
---@param handler? scheduler.ErrorHandler|table
---@return scheduler.ErrorHandler|table|nil former
function scheduler.on_error(handler) end

---@return scheduler.Stats
function scheduler.stats() end

---A task that is alive, as `tasks` found it.
---@class scheduler.TaskEntry
---@field task thread Its coroutine.
---@field name? string What `task.name` has set.
---@field description string In words: "a task spawned at main.lua:3".
---@field state "running"|"normal"|"ready"|"waiting"|"parked" As `task.status` tells it.
---@field age? number Seconds since it was spawned, to a hundredth; nil in its first run, before it has waited.
---@field origin? string Where it was spawned, "main.lua:3"; for a callback, where that was set.
---@field waits_for? string What it waits for, in words: "a mutex, which task 'writer' spawned at main.lua:3 holds".
---@field object? any The task, promise, lock, queue, event, channel or pool that it waits for.
---@field at? string Where it waits, "main.lua:5"; nil without the debug library.
---@field traceback string "" without the debug library.

---The tasks that are alive, the oldest first: those that wait, are ready or run, those that are parked in a
---`coroutine.yield` of their own, and callbacks and handlers that wait. They are looked for among what is to wake them:
---a program that does not ask pays nothing. Of those that have resumed the running one, those are found that did so by
---`coroutine.resume` or `wrap`.
---@return scheduler.TaskEntry[]
function scheduler.tasks() end

---Prints what `tasks` tells, alike ones together, each with the lines of its traceback that are the program's.
---@param out? file*|table|fun(text: string) What has a method `write`, or a function; stderr unless given.
function scheduler.dump(out) end

---From now on reports each callback or task that holds the loop for longer than so many seconds, once: while it still
---does, to `fn(seconds, traceback, source)`, which runs in the midst of it and must not wait; without `fn`, to the
---error handler, as an error of the kind "watchdog". Nil takes the watchdog off.
---
---C functions, and code that LuaJIT has compiled, are reported when they have ended, with "" for the traceback. So are
---coroutines that other code has made before, and those that have another hook (`debug.sethook`), which is left alone.
---While there is a watchdog, a count hook is set, by which code takes twice as long on Lua 5.4, half as long again on
---5.3, hardly longer elsewhere.
---
---Raises if `seconds` is not above 0.
---@param seconds? number
---@param fn? fun(seconds: number, traceback: string, source: string)
function scheduler.watchdog(seconds, fn) end

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

-- Tasks -----------------------------------------------------------------------------------------------------------

---Coroutines that the loop resumes. A task that is waited for, by `join` or by a scope, gives its error there; that of
---any other goes to the error handler.
---@class scheduler.task
scheduler.task = {}

---The coroutine of a task whose function returns an `R` first.
---@class scheduler.Task<R>: thread

---@alias scheduler.TaskStatus
---| "running" # it is the one that asks
---| "normal" # it waits for a coroutine that it has resumed
---| "ready" # it goes on in this turn or the next
---| "waiting" # it waits in a call of the library
---| "parked" # it is suspended in a `coroutine.yield` of its own, or has not begun and nothing is going to start it
---| "done" # it has returned
---| "failed" # it has raised
---| "cancelled" # it was cancelled

---Runs `f(...)` as a task now, up to its first wait, or resumes a coroutine with `...` (Roblox). Returns the coroutine,
---also if it has ended or failed; the caller goes on.
---
---Raises if `f` cannot be called, and if the coroutine is dead, cancelled or running.
---@generic R
---@param f fun(...: any): R, ...: any
---@param ... any
---@return scheduler.Task<R> co
---@overload fun(co: thread|scheduler.Callable, ...: any): thread
function scheduler.task.spawn(f, ...) end

---Runs `f(...)` as a task, or resumes a coroutine, after all that is ready now, in the same turn; first in first out
---(Roblox). Of tasks that defer without end, 10,000 run in a turn.
---
---Raises if `f` cannot be called, and if the coroutine is dead or cancelled.
---@generic R
---@param f fun(...: any): R, ...: any
---@param ... any
---@return scheduler.Task<R> co
---@overload fun(co: thread|scheduler.Callable, ...: any): thread
function scheduler.task.defer(f, ...) end

---Runs `f(...)` as a task, or resumes a coroutine, after so many seconds; never early, never in the same turn (Roblox).
---Who resumes it before runs `f` with those arguments, followed by what is passed to `resume`; the delay is dropped.
---
---Raises if `seconds` is NaN or no number, if `f` cannot be called, and if the coroutine is dead or cancelled.
---@generic R
---@param seconds? number Nil or negative is 0; `math.huge` is never.
---@param f fun(...: any): R, ...: any
---@param ... any
---@return scheduler.Task<R> co
---@overload fun(seconds?: number, co: thread|scheduler.Callable, ...: any): thread
function scheduler.task.delay(seconds, f, ...) end

---Waits, and returns the seconds that have elapsed (Roblox). Never returns in the same turn: without a duration it goes
---on in the next one, in a game that calls `scheduler.poll` once a frame in the next frame.
---
---Raises if `seconds` is NaN or no number.
---@param seconds? number Missing or negative is 0; `math.huge` waits until resumed or cancelled.
---@return number elapsed
function scheduler.task.wait(seconds) end

---Gives way: goes on after all that is ready now, in the same turn (tokio's `yield_now`).
function scheduler.task.yield() end

---Waits for the end of a task and returns its results. May be called at any time, by many, and again.
---
---Raises the error of the task; a `scheduler.Error` of the kind "cancelled" if it was cancelled; and at once if the
---wait would never end, since the task waits for the caller ("this join would never end: ...").
---@generic R
---@param co scheduler.Task<R>
---@return R
---@return any ...
---@overload fun(co: thread): any ...
function scheduler.task.join(co) end

---Ends a task where it waits, or before it has begun: it is never resumed again (Roblox). Lua 5.4 closes its `<close>`
---variables; nothing else of it runs, no `pcall` sees it. Semaphores and mutexes that it holds in `with` are given
---back, and scopes that it runs are cancelled. Dead or cancelled: does nothing.
---
---Raises if the task is running, or waits for a coroutine that it has resumed.
---@param co thread|scheduler.Task<any>
function scheduler.task.cancel(co) end

---@param co thread|scheduler.Task<any>
---@return scheduler.TaskStatus
function scheduler.task.status(co) end

---The name of a task, which messages use; sets it if a second argument is given, nil too.
---
---Raises if the name is neither a string nor nil.
---@param co thread|scheduler.Task<any>
---@param name? string
---@return string? name
function scheduler.task.name(co, name) end

---Options of `execute_tasks`.
---@class scheduler.ExecuteOptions
---"first" unless given: the first error cancels the rest. "collect": all run, and their errors are returned.
---@field errors? "first"|"collect"
---@field timeout? number Seconds for all together.
---@field progress? fun(done: integer, total: integer) Called for each task that has ended.

---Runs the functions of a table as tasks, at most so many at a time, and waits for them. They start in the order of
---their keys: numbers, then strings. Returns the first result of each under the same key.
---
---The first error cancels the rest and is raised, as a `scheduler.Error` of the kind "task" with `key` and `value`.
---With `errors = "collect"` all run, and a second table has the errors themselves, by key.
---
---Raises "timeout" if the time is over; and if `tasks` is no table of functions, if the limit is not a whole number
---above 0, and for an unknown option.
---@generic K, R
---@param tasks table<K, fun(): R>
---@param max_concurrency? integer No limit unless given.
---@param options? scheduler.ExecuteOptions
---@return table<K, R> results
---@return table<K, any>? errors
function scheduler.execute_tasks(tasks, max_concurrency, options) end

-- Promises --------------------------------------------------------------------------------------------------------

---"Started" until the promise is settled.
---@alias scheduler.Status "Started"|"Resolved"|"Rejected"|"Cancelled"

---A value that will come. `R` is the type of its first value. The methods are those of evaera's Promise for Roblox
---(https://eryn.io/roblox-lua-promise/api/Promise), the timing is that of Promises/A+ (https://promisesaplus.com):
---handlers run as microtasks, in the order in which they were added, and each may wait.
---@class scheduler.PromiseOf<R>
local PromiseMethods = {}

---Calls `on_resolved` with the values, or `on_rejected` with the reason; what cannot be called is passed over.
---What the handler returns settles the promise that is returned: values, or the outcome of a promise or thenable; what
---it raises rejects that. If this promise was cancelled, the one returned is rejected with an AlreadyCancelled error.
---@param on_resolved? fun(...: any): any ...
---@param on_rejected? fun(reason: any, ...: any): any ...
---@return scheduler.PromiseOf<any>
function PromiseMethods:andThen(on_resolved, on_rejected) end

---`andThen(nil, on_rejected)`.
---@param on_rejected? fun(reason: any, ...: any): any ...
---@return scheduler.PromiseOf<any>
function PromiseMethods:catch(on_rejected) end

---Calls `on_end(status)` when the promise is resolved, rejected or cancelled. The promise that is returned has the same
---outcome, unless `on_end` raises or returns a promise that is rejected; a promise that it returns is waited for.
---@param on_end? fun(status: scheduler.Status): any
---@return scheduler.PromiseOf<any>
function PromiseMethods:finally(on_end) end

---Calls `fn` with the values, waits for a promise that it returns, and passes the values on.
---@param fn fun(...: any): any
---@return scheduler.PromiseOf<any>
function PromiseMethods:tap(fn) end

---Calls `fn(...)` when the promise is resolved.
---@param fn fun(...: any): any ...
---@param ... any
---@return scheduler.PromiseOf<any>
function PromiseMethods:andThenCall(fn, ...) end

---Resolves with these values when the promise is resolved.
---@param ... any
---@return scheduler.PromiseOf<any>
function PromiseMethods:andThenReturn(...) end

---Calls `fn(...)` when the promise is resolved, rejected or cancelled.
---@param fn fun(...: any): any
---@param ... any
---@return scheduler.PromiseOf<any>
function PromiseMethods:finallyCall(fn, ...) end

---`finally` with a handler that returns these: the outcome is passed on, once a promise among them is settled.
---@param ... any
---@return scheduler.PromiseOf<any>
function PromiseMethods:finallyReturn(...) end

---A promise with the same outcome if that comes within so many seconds. If not, it is rejected with `value`, or with a
---`Promise.Error` of the kind TimedOut, and this promise is cancelled, unless others want it.
---@param seconds number
---@param value? any
---@return scheduler.PromiseOf<any>
function PromiseMethods:timeout(seconds, value) end

---A promise with the same values if this one is resolved by now; otherwise one that is rejected with `value`, or with a
---`Promise.Error` of the kind NotResolvedInTime.
---@param value? any
---@return scheduler.PromiseOf<any>
function PromiseMethods:now(value) end

---Cancels the promise if it is pending: the code that works for it gets an error of the kind "cancelled" where it
---waits, its `onCancel` hooks are called, what was made from it is cancelled, and what it was made from too if nobody
---else wants that.
---@param reason? any For the error and the hooks.
function PromiseMethods:cancel(reason) end

---@return scheduler.Status
function PromiseMethods:getStatus() end

---Waits until the promise is settled.
---@return boolean ok Whether it was resolved.
---@return any ... The values, or what it was rejected with; an error of the kind "cancelled" if it was cancelled.
function PromiseMethods:await() end

---Waits until the promise is settled.
---@return scheduler.Status
---@return any ... As `await`.
function PromiseMethods:awaitStatus() end

---Waits for the values; raises what the promise was rejected with, as it is, or an error of the kind "cancelled".
---
---If the wait is cancelled, by a scope, a timeout or `task.cancel`, so is the promise, unless others want it.
---@return any ...
function PromiseMethods:expect() end

---An error of promises: what went wrong, its kind, and the error that it comes from.
---@class scheduler.PromiseError
---@field error string In words.
---@field kind? "ExecutionError"|"AlreadyCancelled"|"NotResolvedInTime"|"TimedOut"
---@field context? string What it concerns.
---@field trace? string
---@field parent? scheduler.PromiseError
---@field createdAt? string Where it was made, "file:line".
local PromiseError = {}

---A new error that comes from this one, of the same kind unless told otherwise.
---@param options? table The fields of the new one.
---@return scheduler.PromiseError
function PromiseError:extend(options) end

---This error, the one that it comes from, and so on to the first.
---@return scheduler.PromiseError[]
function PromiseError:getErrorChain() end

---@class scheduler.PromiseErrorClass
---@field Kind table<string, string> The kinds; to ask for another one raises.
---@field new fun(options?: table, parent?: scheduler.PromiseError): scheduler.PromiseError
---@field is fun(anything: any): boolean
---@field isKind fun(anything: any, kind: string): boolean

---How `Promise.retry` goes on.
---@class scheduler.RetryOptions
---@field times number Retries after the first attempt, at the most.
---Seconds before the first retry; none unless given. Without it the loop turns after each hundred retries, at least.
---@field delay? number
---@field backoff? number What the delay is multiplied with for each further retry; 1 unless given.
---@field max_delay? number Seconds that a delay is at the most.
---@field jitter? number By which share of itself a delay is made longer or shorter by chance, 0 to 1.
---@field when? fun(err: any, retry: integer): boolean Whether to try again after this error.

---@class scheduler.PromiseClass
---@field Status table<string, scheduler.Status> To ask for another one raises.
---@field Error scheduler.PromiseErrorClass
---@field prototype table The methods.
local Promise = {}
scheduler.Promise = Promise

---Calls `executor` at once, up to its first wait. What it raises rejects the promise.
---
---`resolve(...)` takes values, or a promise or thenable whose outcome is taken over. `onCancel(hook)` has
---`hook(reason)` called when the promise is cancelled, and returns whether it was already.
---@param executor fun(resolve: fun(...: any), reject: fun(...: any), onCancel: fun(hook?: fun(reason: any)): boolean)
---@return scheduler.PromiseOf<any>
function Promise.new(executor) end

---As `new`, but `executor` is called as `task.defer` would do it. `Promise.async` is another name for it.
---@param executor fun(resolve: fun(...: any), reject: fun(...: any), onCancel: fun(hook?: fun(reason: any)): boolean)
---@return scheduler.PromiseOf<any>
function Promise.defer(executor) end

---A promise that is resolved with values or with the outcome of a thenable; a promise is returned as it is.
---@generic R
---@param value? R
---@param ... any
---@return scheduler.PromiseOf<R>
function Promise.resolve(value, ...) end

---A promise that is rejected with these values.
---@param ... any
---@return scheduler.PromiseOf<any>
function Promise.reject(...) end

---The promise of `fn(...)`, which is called at once.
---@generic R
---@param fn fun(...: any): R, ...: any
---@param ... any
---@return scheduler.PromiseOf<R>
Promise["try"] = function(fn, ...) end

---`scheduler.async`.
---@generic R
---@param fn fun(...: any): R, ...: any
---@return fun(...: any): scheduler.PromiseOf<R>
function Promise.promisify(fn) end

---Is resolved after so many seconds, with the seconds that have passed.
---@param seconds? number
---@return scheduler.PromiseOf<number>
function Promise.delay(seconds) end

---Is resolved with what the event fires next, or with the first for which `predicate` is true. The event has a method
---`Connect(event, callback)` (or `connect`) whose result has `Disconnect` (or `disconnect`), or is a function.
---@param event table|userdata
---@param predicate? fun(...: any): boolean
---@return scheduler.PromiseOf<any>
function Promise.fromEvent(event, predicate) end

---A list in which entries are promises, tasks, thenables, or objects with `await`.
---@alias scheduler.Awaitables (scheduler.PromiseOf<any>|thread|table)[]

---@class scheduler.ListOptions
---@field pack? boolean Gives all values of each, with their count `n` and the `status`, instead of the first value.

---Is resolved with the list of first values once all are; rejected with the first rejection. The others are then
---cancelled, unless somebody else wants them.
---@param list scheduler.Awaitables
---@param options? scheduler.ListOptions
---@return scheduler.PromiseOf<any[]>
function Promise.all(list, options) end

---Is resolved with the list of all statuses once all are settled.
---@param list scheduler.Awaitables
---@param options? scheduler.ListOptions
---@return scheduler.PromiseOf<any[]>
function Promise.allSettled(list, options) end

---Is resolved with the first values of the first `count` that are resolved, in that order; rejected when so many cannot
---be any more.
---@param list scheduler.Awaitables
---@param count integer
---@return scheduler.PromiseOf<any[]>
function Promise.some(list, count) end

---Is resolved with the values of the first that is resolved; rejected when none can be any more.
---@param list scheduler.Awaitables
---@return scheduler.PromiseOf<any>
function Promise.any(list) end

---Has the outcome of the first that is settled; of an empty list, none ever.
---@param list scheduler.Awaitables
---@return scheduler.PromiseOf<any>
function Promise.race(list) end

---Calls `predicate(value, index)` for each value of the list, one after the other. Promises among the values and among
---the results are waited for. Is resolved with the list of results.
---@generic T, R
---@param list T[]
---@param predicate fun(value: T, index: integer): R
---@return scheduler.PromiseOf<R[]>
function Promise.each(list, predicate) end

---Calls `result = reducer(result, value, index)` for each value of the list, as `each` does. Is resolved with the last.
---@generic T, R
---@param list T[]
---@param reducer fun(result: R, value: T, index: integer): R
---@param initial R
---@return scheduler.PromiseOf<R>
function Promise.fold(list, reducer, initial) end

---@class scheduler.PromiseMapOptions
---@field concurrency? integer How many calls may be under way at a time; no limit unless given.

---Calls `fn(value, index)` for each value of the list. Is resolved with the list of results, in the order of the list;
---the first error rejects it and cancels the rest.
---@generic T, R
---@param list T[]
---@param fn fun(value: T, index: integer): R
---@param options? scheduler.PromiseMapOptions
---@return scheduler.PromiseOf<R[]>
function Promise.map(list, fn, options) end

---Calls `fn(...)`, which may wait or return a promise, again and again until that is resolved.
---@param fn fun(...: any): any
---@param times integer|scheduler.RetryOptions Retries after the first attempt, at the most; or how to go on.
---@param ... any
---@return scheduler.PromiseOf<any>
function Promise.retry(fn, times, ...) end

---`retry` with a delay of so many seconds before each retry.
---@param fn fun(...: any): any
---@param times integer
---@param seconds number
---@param ... any
---@return scheduler.PromiseOf<any>
function Promise.retryWithDelay(fn, times, seconds, ...) end

---Whether something is a promise, or has a method `andThen` or `then_`.
---@param anything any
---@return boolean
function Promise.is(anything) end

---Has `hook(promise, ...)` called, with the values, for each rejection that nobody has handled within a turn; besides
---the report to the error handler. What a hook rejects itself is not told to it again, unless it has waited before.
---@param hook fun(promise: scheduler.PromiseOf<any>, ...: any)
---@return fun() unregister
function Promise.onUnhandledRejection(hook) end

---A function that calls `fn` with its arguments, in a coroutine that may wait, and returns a promise of the results.
---@generic R
---@param fn fun(...: any): R, ...: any
---@return fun(...: any): scheduler.PromiseOf<R>
function scheduler.async(fn) end

---@class scheduler.PromisifyOptions
---@field error_first? boolean Whether the first argument of the callback is an error or nil; true unless given.

---A function that calls `fn` with its arguments and a callback after them, and returns a promise that the callback
---settles: `callback(err, ...)`, or `callback(...)`.
---@param fn fun(...: any)
---@param options? scheduler.PromisifyOptions
---@return fun(...: any): scheduler.PromiseOf<any>
function scheduler.promisify(fn, options) end

---An iterator that waits for the next tick and returns its number. The schedule is fixed, from the call on; of ticks
---that were missed only the last is given. A generic `for` cannot wait in a coroutine of PUC Lua 5.1: call it there.
---@param seconds number The period, above 0.
---@return fun(): integer
function scheduler.interval(seconds) end

-- Scopes ----------------------------------------------------------------------------------------------------------

---@class scheduler.ScopeOptions
---@field timeout? number Seconds after which the scope is cancelled; it then raises an error of the kind "timeout".
---@field name? string For messages.

---Tasks that end together; given to the function of `scheduler.scope`.
---@class scheduler.Scope
local Scope = {}

---Starts a child, as `task.spawn` does.
---
---Raises if `f` cannot be called, and if the scope is closing: an error or a cancellation has come, or it has ended.
---@generic R
---@param f fun(...: any): R, ...: any
---@param ... any
---@return scheduler.Task<R> co
function Scope:spawn(f, ...) end

---Makes something that can be awaited a child, a promise say: the scope waits for it and fails with it, and cancels it
---when it is cancelled, unless others want it.
---@generic T
---@param thing T A promise, a task, a thenable, or an object with `await`.
---@return T thing
function Scope:hold(thing) end

---Cancels all children, and the function of the scope. That is no error: the scope then returns nothing.
---@param reason? any The field `reason` of the errors that they get.
function Scope:cancel(reason) end

---Calls `fn(scope)` as the first child of a scope, and waits for all children. Returns what `fn` returned (trio: a
---nursery).
---
---The first error of a child cancels the others and is raised when all have ended. Later ones are attached to it: to a
---string in words, to a table in the field `later`; if it is neither they go to the error handler. Whoever cancels the
---task that runs the scope cancels the children.
---
---A child that is cancelled gets a `scheduler.Error` of the kind "cancelled" raised where it waits, and at every wait
---from then on (trio); after a hundred that it has caught it ends there. `shield` is for clean-up that waits. A child
---that is parked in a `coroutine.yield` of its own ends as by `task.cancel`.
---@generic R
---@param fn fun(scope: scheduler.Scope): R, ...: any
---@param options? scheduler.ScopeOptions
---@return R
---@return any ...
function scheduler.scope(fn, options) end

---Calls `fn(...)` in a scope of its own and returns its results; raises a `scheduler.Error` of the kind "timeout" if it
---takes longer than so many seconds (trio: `fail_after`). `fn` is cancelled first, see `scope`, and may clean up.
---
---Raises if `seconds` is NaN or no number, and if `fn` cannot be called.
---@generic R
---@param seconds number
---@param fn fun(...: any): R, ...: any
---@param ... any
---@return R
---@return any ...
function scheduler.timeout(seconds, fn, ...) end

---Calls `fn(...)` in a task that no cancellation of the caller reaches, and waits for it in spite of any; the next wait
---outside raises again (trio: a shielded cancel scope). Returns or raises what `fn` does.
---@generic R
---@param fn fun(...: any): R, ...: any
---@param ... any
---@return R
---@return any ...
function scheduler.shield(fn, ...) end

-- Limits and queues -----------------------------------------------------------------------------------------------

-- All are first come, first served. A task that is cancelled while it waits leaves no hole, and what it was woken with
-- goes to the next. Every duration is in seconds; NaN raises; nil is no limit.

---At most so many at a time (tokio).
---@class scheduler.Semaphore
local Semaphore = {}

---Makes a semaphore with so many permits. Raises if that is not a whole number above 0.
---@param permits integer
---@return scheduler.Semaphore
function scheduler.semaphore(permits) end

---Takes a permit, and waits for one if there is none. False and "timeout" if that takes too long.
---@param seconds? number
---@return boolean acquired
---@return "timeout"? reason
function Semaphore:acquire(seconds) end

---Takes a permit if there is one.
---@return boolean acquired
function Semaphore:try_acquire() end

---Gives a permit back: any task may. Raises if all are back already.
function Semaphore:release() end

---How many permits are left.
---@return integer
function Semaphore:available() end

---Calls `fn(...)` with a permit, and gives it back however that ends: also when the task is cancelled.
---@generic R
---@param fn fun(...: any): R, ...: any
---@param ... any
---@return R
---@return any ...
function Semaphore:with(fn, ...) end

---One task at a time; the task that has locked it has to unlock it (tokio).
---@class scheduler.Mutex
local Mutex = {}

---@return scheduler.Mutex
function scheduler.mutex() end

---Locks the mutex, and waits until it can. False and "timeout" if that takes too long. Raises if the task has locked it
---already.
---@param seconds? number
---@return boolean locked
---@return "timeout"? reason
function Mutex:lock(seconds) end

---Locks the mutex if nobody has.
---@return boolean locked
function Mutex:try_lock() end

---Unlocks the mutex. Raises if it is not locked, or not by this task.
function Mutex:unlock() end

---@return boolean
function Mutex:is_locked() end

---Calls `fn(...)` with the mutex locked, and unlocks it however that ends: also when the task is cancelled.
---@generic R
---@param fn fun(...: any): R, ...: any
---@param ... any
---@return R
---@return any ...
function Mutex:with(fn, ...) end

---Something has happened, or not yet (trio).
---@class scheduler.Event
local Event = {}

---@return scheduler.Event
function scheduler.event() end

---Sets the event, and wakes all that wait for it.
function Event:set() end

---Makes later waits wait again.
function Event:clear() end

---@return boolean
function Event:is_set() end

---Waits until the event is set. False and "timeout" if that takes too long.
---@param seconds? number
---@return boolean is_set
---@return "timeout"? reason
function Event:wait(seconds) end

---Values from tasks to tasks, any but nil: first in first out (tokio: `mpsc`, with as many receivers as you like).
---Called, it pops: `for value in queue do` goes on until the queue is closed and empty. `#` gives its length from Lua
---5.2 on.
---@class scheduler.Queue
---@overload fun(): any
local Queue = {}

---Makes a queue that holds so many values at the most; with 0, each push waits for a pop.
---
---Raises if the capacity is neither a whole number nor `math.huge`.
---@param capacity? integer No limit unless given.
---@return scheduler.Queue
function scheduler.queue(capacity) end

---Puts a value in, and waits for room if there is none. False and "timeout" if that takes too long: the value is not in
---then.
---
---Raises if the value is nil; a `scheduler.Error` of the kind "closed" if the queue is closed, also while it waits.
---@param value any
---@param seconds? number
---@return boolean pushed
---@return "timeout"? reason
function Queue:push(value, seconds) end

---Puts a value in if there is room, or somebody waits for it. Raises as `push` does.
---@param value any
---@return boolean pushed
function Queue:try_push(value) end

---Takes the first value out, and waits for one if there is none. Nil and "timeout" if that takes too long; nil and
---"closed" when the queue is closed and empty.
---@param seconds? number
---@return any value
---@return "timeout"|"closed"|nil reason
function Queue:pop(seconds) end

---Takes the first value out; nil if there is none.
---@return any value
function Queue:try_pop() end

---Closes the queue: what is in it can still be popped, a push raises. Closed before: does nothing.
function Queue:close() end

---Whether the queue was closed; there may be values in it.
---@return boolean
function Queue:is_closed() end

---How many values are in it.
---@return integer
function Queue:len() end

-- Channels ---------------------------------------------------------------------------------------------------------

---Messages between tasks, in this Lua state and in workers: first in first out, first come first served (Go: `chan`).
---Called, it receives: `for value in channel do` goes on until the channel is closed and empty, or a message begins
---with nil. `#` gives its length. The same channel is the same object, however often it arrives.
---@class scheduler.Channel
---@operator len: integer
---@overload fun(): ...: any
local Channel = {}

---Makes a channel with room for so many messages.
---
---Raises if the capacity is neither a whole number nor `math.huge`.
---@param capacity? integer With 0, which is the default, each send waits for a receiver.
---@return scheduler.Channel
function scheduler.channel(capacity) end

---Sends all values as one message; waits until it is received or there is room.
---
---Raises if a value cannot cross; a `scheduler.Error` of the kind "closed" if the channel is closed, also while it
---waits.
---@param ... any
---@return boolean sent
function Channel:send(...) end

---As `send`. False and "timeout" if that takes too long: the message is not sent then.
---@param seconds number
---@param ... any
---@return boolean sent
---@return "timeout"? reason
function Channel:send_timeout(seconds, ...) end

---Sends if somebody waits for a message or there is room. Raises as `send` does.
---@param ... any
---@return boolean sent
function Channel:try_send(...) end

---Takes the first message, and waits for one if there is none: its values. Nil and "timeout" if that takes too long;
---nil and "closed" when the channel is closed and empty.
---@param seconds? number
---@return any ...
function Channel:recv(seconds) end

---Takes the first message: true and its values. False if there is none, and "closed" if there will be none.
---@return boolean received
---@return any ...
function Channel:try_recv() end

---Closes the channel: what is in it can still be received, a send raises. Closed before: does nothing.
function Channel:close() end

---Whether the channel was closed; there may be messages in it.
---@return boolean
function Channel:is_closed() end

---How many messages are in it; those of sends that wait are not counted.
---@return integer
function Channel:len() end

---What `select` does one of: a list of cases, `{ channel, "recv" }` or `{ channel, "send", values... }`. A case with
---nils among its values has their number in `n`.
---@class scheduler.Cases
---@field timeout? number Seconds to wait at the most.
---@field default? boolean Whether it does not wait at all.
---@field [integer] { [1]: scheduler.Channel, [2]: "recv"|"send", [integer]: any, n?: integer }

---Does one of the cases, one at random if several can be done, and waits if none can. Returns its index and what it
---received: nil and "closed" from a channel that is closed and empty. Nil and "timeout", or "default", if none was
---done.
---
---Raises an error of the kind "closed" if the case is a send to a closed channel.
---@param cases scheduler.Cases
---@return integer? index
---@return any ...
function scheduler.select(cases) end

-- Coroutines in tasks ---------------------------------------------------------------------------------------------

---For generators that wait: these pass their waits on to the task, and their values to the consumer.
---@class scheduler.coroutine
scheduler.coroutine = {}

---`coroutine.resume` for a coroutine that may wait.
---@param co thread
---@param ... any
---@return boolean ok
---@return any ...
function scheduler.coroutine.resume(co, ...) end

---`coroutine.wrap` for a function that may wait.
---@param fn scheduler.Callable
---@return fun(...: any): any ...
function scheduler.coroutine.wrap(fn) end

---`pcall` in which one can wait, on PUC Lua 5.1 too. Elsewhere it is the stock function.
---@generic R
---@param fn fun(...: any): R, ...: any
---@param ... any
---@return boolean ok
---@return R|any result
---@return any ...
function scheduler.pcall(fn, ...) end

---`xpcall` in which one can wait, on PUC Lua 5.1 too, with arguments for the function. Elsewhere it is the stock
---function. On 5.1 the handler is called when the stack of the error is gone already; `debug.traceback` gives that of
---the error all the same.
---@generic R
---@param fn fun(...: any): R, ...: any
---@param handler fun(err: any): any
---@param ... any
---@return boolean ok
---@return R|any result
---@return any ...
function scheduler.xpcall(fn, handler, ...) end

-- Virtual time ----------------------------------------------------------------------------------------------------

---Time that tests can stop and move. It moves the timers and waits of this Lua state and `scheduler.now`; jobs go on in
---real time.
---@class scheduler.clock
scheduler.clock = {}

---Stops time where it is. Timers and waits then keep neither `run` nor `poll`'s `alive`.
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

---Runs `fn(...)` in a worker of the default pool: a thread with a Lua state of its own, out of as many as there are
---cores. The worker has the sender's `package.path` and `package.cpath`, and its own globals, which outlive the job. If
---`fn` returns a promise, its outcome is the job's. Timers and tasks that the job leaves behind are dropped.
---
---What crosses, there and back: nil, booleans, numbers, strings; tables with metatables, cycles included; Lua functions
---with their upvalues; C functions that a loaded module has; userdata and tables with `__transfer`, which returns a
---function and its arguments, called on the other side; promises that are settled. All are copies; upvalues and
---metatables that are loaded modules are those that `require` gives there. By reference: channels, pools, the promises
---of jobs and what is of `scheduler.shared`.
---
---A job that waits for jobs, channels or mutexes does not hold its worker, as another one takes its place; one that
---waits for time does.
---
---Raises if `fn` is no function, if something cannot cross ("cannot transfer argument #2.handlers[3], upvalue 'sock':
---userdata"), and if no thread can be started. A failure that nobody waits for goes to the error handler.
---@param fn function
---@param ... any
---@return scheduler.Job
function scheduler.parallel.run(fn, ...) end

---@class scheduler.MapOptions
---"first" unless given: the first error cancels the rest. "collect": all items are done.
---@field errors? "first"|"collect"
---@field as_completed? boolean Whether an iterator over the results as they come is returned, and not a promise.
---True draws a bar on stderr if that is a terminal. A function is called after each part, with how many items are done,
---and of how many; nil for an iterator. An error in it is the map's.
---@field progress? boolean|fun(done: integer, total: integer?)
---@field chunk? integer Items that are sent at a time. Unless given, as many as take about 5 milliseconds, or 256 KiB.

---What a map with `as_completed` returns: index and result, or index, nil and error.
---@alias scheduler.Completions fun(): index: integer?, result: any, err: scheduler.Error?

---Calls `fn(item, index)` for each item, in workers of the default pool, and promises the list of the first result of
---each, in their order. With `errors = "collect"`, that list, in which what failed is nil, and the errors by their
---indices: of the class `scheduler.Error`, with the `index`, and in `value` what was raised. Items and results cross as
---the arguments and results of `run` do, and `fn` is sent to each worker once.
---
---An iterator is called until it returns nil, a few parts ahead of the workers; it may wait. With `as_completed` an
---iterator is returned, which waits for the next result: its index and the result. It raises the first error; where
---they are collected, it returns the index, nil and the error.
---
---Raises for bad options, and if `fn` cannot cross. The map fails if an item cannot ("cannot transfer item #2:
---userdata") or if the iterator raises.
---@generic T, R
---@param list T[]|fun(): T?
---@param fn fun(item: T, index: integer): R
---@param options? scheduler.MapOptions
---@return scheduler.PromiseOf<R[]> results
---@overload fun(list: table|function, fn: function, options: { as_completed: true }): scheduler.Completions
function scheduler.parallel.map(list, fn, options) end

---@class scheduler.PoolOptions
---@field size? integer Workers at the most; the number of cores unless given.
---Jobs that wait for a worker at the most, or `math.huge`, which is the default. Who sends more waits for room, but for
---a job that sends to its own pool.
---@field queue? number
---Jobs that one worker has at a time: others run while some wait. 1 unless given. With more than 1, a job that has
---waited and computes then cannot be interrupted.
---@field concurrency? integer
---Bytes that the Lua state of a worker may take. A job that needs more fails with the kind "memory", and its worker
---gets a fresh state. With a `concurrency` above 1, the jobs that wait in that worker go on there, and may fail with it.
---In LuaJIT a job is stopped soon after it has taken more, and versions of before August 2023 do not compile jobs that
---have a limit, as they do not survive it where memory is refused; `init = jit.on` has them compiled.
---@field memory_limit? integer
---Called in each worker before its first job; may wait. If it raises, the jobs fail. It crosses as a job does.
---@field init? function
---@field idle? number Seconds after which a worker without a job ends; 10 unless given. `math.huge` is never.
---@field name? string What the system calls the threads, with a number; cut off after 15 bytes. "pool" unless given.

---@class scheduler.PoolStats
---@field size integer Workers at the most.
---Worker threads that are there. More than `size` while some wait for others or cannot be stopped.
---@field workers integer
---@field idle integer Workers that wait for a job.
---@field queued integer Jobs that wait for a worker; a part of a map is one.
---@field running integer Jobs that run, or wait in a worker.
---@field done integer Jobs that ended with results.
---@field failed integer Jobs that ended with an error, or were lost.
---@field cancelled integer Jobs that were cancelled.
---@field wait scheduler.Distribution How long jobs were queued that have ended, but for those that were cancelled.
---@field run scheduler.Distribution How long they took from there on, with what they waited for.

---Workers of one's own. A pool crosses to workers by reference. One that is collected is closed, and ends what it has.
---@class scheduler.Pool
local Pool = {}

---Makes a pool; no worker is started before there is a job.
---
---Raises for bad options, and if `init` cannot cross.
---@param options? scheduler.PoolOptions
---@return scheduler.Pool
function scheduler.parallel.pool(options) end

---`parallel.run` in this pool; waits for room in the queue. Raises a `scheduler.Error` of the kind "closed" too.
---@param fn function
---@param ... any
---@return scheduler.Job
function Pool:run(fn, ...) end

---`parallel.map` in this pool. If the pool is closed, the map fails with the kind "closed".
---@generic T, R
---@param list T[]|fun(): T?
---@param fn fun(item: T, index: integer): R
---@param options? scheduler.MapOptions
---@return scheduler.PromiseOf<R[]> results
---@overload fun(self: scheduler.Pool, list: table, fn: function, options: scheduler.MapOptions): scheduler.Completions
function Pool:map(list, fn, options) end

---Takes no more jobs, and waits until those that are queued or run have ended. What has not ended after so many seconds
---is cancelled; with 0 that is at once. Closed before: waits as well.
---
---Raises in a job of the pool, unless with 0.
---@param seconds? number No limit unless given.
---@return boolean all_ended Whether nothing had to be cancelled.
function Pool:close(seconds) end

---@return scheduler.PoolStats
function Pool:stats() end

-- Shared memory ---------------------------------------------------------------------------------------------------

---What all Lua states of the process have in common: these cross to workers and back by reference, alone, in tables, as
---upvalues and in shared tables, and are the same ones (`==`) wherever they arrive. Each is freed with the last that
---refers to it; a shared table that holds itself, never. A forked process has copies of its own.
---@class scheduler.shared
scheduler.shared = {}

---A whole number: of 64 bits, or of 53 where Lua has floats only. Each method is one step that no other can interrupt.
---All raise for what is no whole number.
---@class scheduler.shared.Atomic
local Atomic = {}

---@param value? integer 0 unless given.
---@return scheduler.shared.Atomic
function scheduler.shared.atomic(value) end

---@return integer
function Atomic:get() end

---@param value integer
function Atomic:set(value) end

---Adds, and returns the new number (JavaScript's `Atomics.add` returns the former one). Integers wrap around; where Lua
---has floats only, it raises if the sum would have more than 53 bits.
---@param number integer
---@return integer new
function Atomic:add(number) end

---Subtracts, and returns the new number. As `add`.
---@param number integer
---@return integer new
function Atomic:sub(number) end

---Sets the number, and returns the former one.
---@param value integer
---@return integer former
function Atomic:swap(value) end

---Sets the number if it is `expected`.
---@param expected integer
---@param value integer
---@return boolean exchanged
---@return integer found The number before.
function Atomic:compare_exchange(expected, value) end

---@alias scheduler.shared.Element "i8"|"u8"|"i16"|"u16"|"i32"|"u32"|"i64"|"u64"|"f32"|"f64"

---An array of numbers, from position 1 on. All may read and write at once: a reader gets a whole element, which some
---state has written; of several elements, in no order. All methods raise for positions outside of it and for numbers
---that the type does not hold; floats are rounded. Of "i64" and "u64" only what Lua's numbers tell from each other can
---be set.
---@class scheduler.shared.Buffer
---@operator len: integer
local Buffer = {}

---So many zeroes. Raises if there is not enough memory.
---@param type scheduler.shared.Element
---@param length integer
---@return scheduler.shared.Buffer
function scheduler.shared.buffer(type, length) end

---@param index integer
---@return number
function Buffer:get(index) end

---@param index integer
---@param value number
function Buffer:set(index, value) end

---Sets all elements, or those of a part.
---@param value number
---@param from? integer 1 unless given.
---@param to? integer The length unless given.
function Buffer:fill(value, from, to) end

---Copies elements of another buffer of the same type, or of this one, or those whose bytes a string has. Raises if they
---do not fit.
---@param source scheduler.shared.Buffer|string
---@param at? integer Where to; 1 unless given.
---@param from? integer The first element of `source`; 1 unless given.
---@param to? integer The last one; that of `source` unless given.
function Buffer:copy(source, at, from, to) end

---A part of the buffer, in the same memory.
---@param from? integer 1 unless given.
---@param to? integer The length unless given.
---@return scheduler.shared.Buffer
function Buffer:slice(from, to) end

---The bytes of the elements, in the order of this machine.
---@param from? integer 1 unless given.
---@param to? integer The length unless given.
---@return string
function Buffer:tostring(from, to) end

---The address of the first element, for `ffi.cast` of LuaJIT. It is valid as long as there is a buffer with this
---memory: keep one.
---@return lightuserdata
function Buffer:pointer() end

---@alias scheduler.shared.Key string|number|boolean

---Keys and values. A value is whatever crosses to a worker, and each `get` gives a copy; what is shared itself, by
---reference. All methods raise for other keys.
---@class scheduler.shared.Table
---@operator len: integer
local Table = {}

---@return scheduler.shared.Table
function scheduler.shared.table() end

---@param key scheduler.shared.Key
---@return any
function Table:get(key) end

---Sets a value; nil deletes it. Raises if the value cannot cross.
---@param key scheduler.shared.Key
---@param value any
function Table:set(key, value) end

---Sets the value to what `fn` returns for it, while nobody else can change it; others get the old value meanwhile. If
---`fn` raises, the value stays, and the error goes on.
---
---Who wants to change the entry blocks its thread until `fn` is done. So `fn` should be short. If it waits, or changes
---any shared table, that raises.
---@param key scheduler.shared.Key
---@param fn fun(value: any): any Nil for a key without a value; if it returns nil, the key is deleted.
---@return any value The new value.
function Table:update(key, fn) end

---@param key scheduler.shared.Key
---@return boolean was_there
function Table:delete(key) end

---The keys, in no order.
---@return scheduler.shared.Key[]
function Table:keys() end

---A mutex between all Lua states: one task at a time, first come, first served. To wait suspends the task, or turns the
---loop on the main thread. A task or job that ends lets go what it holds, and so does a Lua state that closes.
---@class scheduler.shared.Mutex
local SharedMutex = {}

---@return scheduler.shared.Mutex
function scheduler.shared.mutex() end

---Locks the mutex, and waits until it can. False and "timeout" if that takes too long. Raises if the task has locked it
---already.
---@param seconds? number
---@return boolean locked
---@return "timeout"? reason
function SharedMutex:lock(seconds) end

---Locks the mutex if nobody has.
---@return boolean locked
function SharedMutex:try_lock() end

---Unlocks the mutex. Raises if it is not locked, or not by this task.
function SharedMutex:unlock() end

---@return boolean
function SharedMutex:is_locked() end

---Calls `fn(...)` with the mutex locked, and unlocks it however that ends: also when the task is cancelled.
---@generic R
---@param fn fun(...: any): R, ...: any
---@param ... any
---@return R
---@return any ...
function SharedMutex:with(fn, ...) end

return scheduler
