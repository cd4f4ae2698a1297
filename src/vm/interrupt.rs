//! Stopping what a worker's state computes, asked for from another thread.
//!
//! An endless loop in Lua is ended as the stock interpreter ends one at Ctrl-C: in a signal handler a hook is set, which
//! raises an error at the next instruction. `lua_sethook` is the one function of Lua that may be called in a handler: its
//! sources say so (`ldebug.c`, "This function can be called during a signal, under 'reasonable' assumptions"), and `lua.c`
//! and `luajit.c` do so at SIGINT. They do on the thread that runs the state: from another one it would race with Lua, as
//! it walks through the active calls. So the thread is sent a signal (see `runtime/signal.rs`).
//!
//! # Ground rules
//!
//! 1. In PUC Lua each coroutine has a hook of its own, so it has to be known which one runs. The functions that resume
//!    one, in `binding/raw/coroutine.rs`, note it in the [`Activity`]. In LuaJIT one hook is there for all.
//! 2. What is noted is alive: it runs, so it lies on the stack of the one that resumed it, and so on down to the main
//!    thread. It is read while a job runs, and not any more when the state is closing.
//! 3. Only a job is stopped, never the loop that runs it: the hook raises in coroutines, not on the main thread, and not
//!    where one of the module's own functions runs, whose tables could be left half changed. It comes back there at each
//!    instruction until other code runs.
//! 4. Who asks names the job by a token. If that job has ended in the meantime, nothing happens.
//!
//! Out of reach are C functions, which run to their end first; finalizers, message handlers and, after an interruption
//! that was not caught, `__close`, in which Lua calls no hooks; coroutines that a C module resumes; code that removes
//! hooks all the time; and in LuaJIT loops that are compiled.

#![expect(unsafe_code, reason = "a hook is set in a signal handler")]

use std::ffi::{CStr, c_int};
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use mlua::{IntoLua, Lua, Result, ffi};

use super::OWN_CHUNKS;
use crate::runtime::signal::{OnSignal, Signalled, Signaller};

/// After an interruption that was caught, code has so many instructions until the next, then half as many, and so on
/// down to one: some for what it has to clean up, and in the end none between one `pcall` and the next.
const PATIENCE: u32 = 1000;

/// The addresses of these are keys of the registry.
static ACTIVITY: u8 = 0;
static ERROR: u8 = 1;

/// Stops jobs of one worker's state. It belongs to the worker's thread.
pub struct Interrupter {
    activity: Arc<Activity>,
    signalled: Signalled,
    _not_send: PhantomData<*const ()>,
}

/// Asks for it, from any thread.
#[derive(Clone)]
pub struct InterruptHandle {
    activity: Arc<Activity>,
    signaller: Signaller,
}

/// What a worker's thread notes for the signal handler. All but `asked` is written by that thread, the handler included.
#[derive(Debug)]
pub struct Activity {
    main: AtomicPtr<ffi::lua_State>,
    /// The coroutine, or main thread, that runs.
    running: AtomicPtr<ffi::lua_State>,
    /// The job that runs; 0 if there is none.
    token: AtomicU64,
    /// The job that is to be stopped: of those that were named, the one that begins last.
    asked: AtomicU64,
    /// Whether that is the one that runs.
    is_stopping: AtomicBool,
    /// Whether the error was raised in it.
    has_raised: AtomicBool,
    /// How often patience with it has been lessened.
    hits: AtomicU32,
    /// Whether it has waited: while it does, the loop is told to stop it.
    has_waited: AtomicBool,
    /// Whether the thread is parked. Known on LuaJIT by this alone.
    is_parked: AtomicBool,
}

/// What the userdata holds through which Lua functions reach the activity: `None` when the state is closing.
type ActivityHolder = Option<Arc<Activity>>;

impl Interrupter {
    /// That of a fresh state, whose main thread runs, on the thread that will run it. `error` is what is raised in a job
    /// that is stopped.
    pub fn new(lua: &Lua, error: impl IntoLua) -> Result<Self> {
        let activity = Arc::new(Activity {
            main: AtomicPtr::default(),
            running: AtomicPtr::default(),
            token: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            is_stopping: AtomicBool::new(false),
            has_raised: AtomicBool::new(false),
            hits: AtomicU32::new(0),
            has_waited: AtomicBool::new(false),
            is_parked: AtomicBool::new(false),
        });
        let error = error.into_lua(lua)?;
        let for_lua = Arc::into_raw(Arc::clone(&activity));
        // SAFETY: the error lies at 1; the holder is pushed above it. The count that `into_raw` keeps goes over to it.
        unsafe {
            lua.exec_raw::<()>(error, |state| {
                (*for_lua).main.store(state, SeqCst);
                (*for_lua).running.store(state, SeqCst);
                push_holder(state, for_lua);
                ffi::lua_rawsetp(state, ffi::LUA_REGISTRYINDEX, (&raw const ACTIVITY).cast());
                ffi::lua_rawsetp(state, ffi::LUA_REGISTRYINDEX, (&raw const ERROR).cast());
            })?;
        }
        let signalled = Signalled::new(Arc::clone(&activity) as Arc<dyn OnSignal>);
        Ok(Interrupter { activity, signalled, _not_send: PhantomData })
    }

    /// What others ask by. It may outlive this.
    pub fn handle(&self) -> InterruptHandle {
        InterruptHandle { activity: Arc::clone(&self.activity), signaller: self.signalled.signaller() }
    }

    /// A job begins. Its token is greater than those of all before it in the state.
    pub fn begin(&self, token: u64) {
        self.activity.begin(token);
    }

    /// The job waits. From now on it is interrupted only while it computes.
    pub fn waits(&self) {
        self.activity.has_waited.store(true, SeqCst);
    }

    /// Whether the job that runs is being interrupted.
    pub fn is_stopping(&self) -> bool {
        self.activity.is_stopping.load(SeqCst)
    }

    /// The job that runs; 0 if there is none.
    pub fn token(&self) -> u64 {
        self.activity.token.load(SeqCst)
    }

    /// The job has ended: it is not interrupted any more. Returns whether it was. Then what it has left in the state may
    /// be half done.
    pub fn end(&self) -> bool {
        self.activity.end()
    }
}

impl InterruptHandle {
    /// Told by the thread itself: whether it is parked.
    pub fn set_parked(&self, is_parked: bool) {
        self.activity.is_parked.store(is_parked, SeqCst);
    }

    /// Interrupts a job, if it is the one that runs or is about to begin. False if that is not to be had: another job
    /// runs, the worker has ended, or its signal is not ours. May be repeated.
    pub fn interrupt(&self, token: u64) -> bool {
        let running = self.activity.token.load(SeqCst);
        if running != 0 && running != token {
            return false;
        }
        // Where none is noted, one may be about to begin, and that is the last of those that wait: it must not be forgotten
        // for another, whose wait the loop ends.
        self.activity.asked.fetch_max(token, SeqCst);
        self.signaller.send()
    }
}

impl Activity {
    fn begin(&self, token: u64) {
        self.hits.store(0, SeqCst);
        self.has_raised.store(false, SeqCst);
        self.has_waited.store(false, SeqCst);
        self.token.store(token, SeqCst);
        // Who asks after this sends a signal that finds the token.
        self.look();
    }

    fn end(&self) -> bool {
        self.token.store(0, SeqCst);
        if self.is_stopping.swap(false, SeqCst) && cfg!(feature = "luajit") {
            let main = self.main.load(SeqCst);
            if !main.is_null() {
                // SAFETY: the state is open, and this is its thread.
                unsafe { ffi::lua_sethook(main, None, 0, 0) };
            }
        }
        self.has_raised.load(SeqCst)
    }

    /// The state is closing.
    fn close(&self) {
        self.end();
        self.running.store(ptr::null_mut(), SeqCst);
        self.main.store(ptr::null_mut(), SeqCst);
    }

    /// Begins to stop the job that runs, if that was asked for. Safe in a signal handler.
    fn look(&self) {
        let token = self.token.load(SeqCst);
        if token == 0 || self.asked.load(SeqCst) != token {
            return;
        }
        let running = self.running.load(SeqCst);
        let is_in_loop =
            if cfg!(feature = "luajit") { self.is_parked.load(SeqCst) } else { running == self.main.load(SeqCst) };
        // The loop itself stops a job that waits, which can then clean up.
        if is_in_loop && self.has_waited.load(SeqCst) {
            return;
        }
        self.is_stopping.store(true, SeqCst);
        // On the main thread the loop runs. The next coroutine that it resumes is given the hook then.
        if !running.is_null() && (cfg!(feature = "luajit") || running != self.main.load(SeqCst)) {
            // SAFETY: it is alive by ground rule 2, and this is its thread.
            unsafe { set_hook(running, 1) };
        }
    }

    /// How many instructions there are until the next interruption.
    fn next_count(&self) -> c_int {
        let hits = self.hits.fetch_add(1, Relaxed).min(u32::BITS - 1);
        (PATIENCE >> hits).max(1) as c_int
    }
}

/// What the functions that resume coroutines tell.
#[cfg(not(feature = "luajit"))]
impl Activity {
    /// A coroutine is about to be resumed.
    ///
    /// # Safety
    /// It lies on the stack of the one that runs, and [`Activity::returns`] follows when it gives back control.
    #[inline]
    pub unsafe fn enters(&self, co: *mut ffi::lua_State) {
        self.note(co);
    }

    /// A coroutine that was resumed has given back control to this one.
    ///
    /// # Safety
    /// This one runs.
    #[inline]
    pub unsafe fn returns(&self, state: *mut ffi::lua_State) {
        self.note(state);
    }

    /// Relaxed, as the handler that reads it runs on the same thread, and the functions of Lua called before and after
    /// are unknown to the compiler, so that nothing is moved over them.
    #[inline]
    fn note(&self, state: *mut ffi::lua_State) {
        self.running.store(state, Relaxed);
        if self.is_stopping.load(Relaxed) {
            self.go_on_stopping(state);
        }
    }

    #[cold]
    fn go_on_stopping(&self, state: *mut ffi::lua_State) {
        if state != self.main.load(Relaxed) {
            // SAFETY: the callers vouch for the coroutine.
            unsafe { set_hook(state, self.next_count()) };
        }
    }
}

// SAFETY: `look` reads and writes atomics and calls `lua_sethook` on the thread of the state, as lua.c does in its handler
// of SIGINT. That writes fields of the coroutine that Lua reads anew before each instruction, and in 5.4 marks its active
// calls in the list of them, which is whole at any moment (see the comment at `settraps` in ldebug.c). Neither allocates
// nor locks, whatever was interrupted: an allocation, the collector, a C function. LuaJIT exchanges its dispatch table,
// as it does for luajit.c.
unsafe impl OnSignal for Activity {
    fn on_signal(&self) {
        self.look();
    }
}

/// Sets the hook.
///
/// # Safety
/// The coroutine is alive, and this is the thread that runs it.
unsafe fn set_hook(state: *mut ffi::lua_State, count: c_int) {
    // SAFETY: see above.
    unsafe { ffi::lua_sethook(state, Some(hook), ffi::LUA_MASKCOUNT, count) };
}

/// Raises the error in a job that is to be stopped. Coroutines that are made while it is set inherit it, and those that
/// were suspended with it keep it beyond the job: it then removes itself.
unsafe extern "C-unwind" fn hook(state: *mut ffi::lua_State, activation: *mut ffi::lua_Debug) {
    // SAFETY: Lua calls a hook with room for 20 values, and with the record of the function that runs. The
    // registry holds what `Interrupter::new` has put there. Nothing in this frame has a destructor when `lua_error` leaves
    // it.
    unsafe {
        ffi::lua_rawgetp(state, ffi::LUA_REGISTRYINDEX, (&raw const ACTIVITY).cast());
        let activity = activity_at(state, -1);
        ffi::lua_pop(state, 1);
        let Some(activity) = activity.filter(|activity| activity.is_stopping.load(Relaxed)) else {
            ffi::lua_sethook(state, None, 0, 0);
            return;
        };
        if state == activity.main.load(Relaxed) {
            return;
        }
        if is_own(state, activation) {
            set_hook(state, 1);
            return;
        }
        activity.has_raised.store(true, Relaxed);
        set_hook(state, activity.next_count());
        ffi::lua_rawgetp(state, ffi::LUA_REGISTRYINDEX, (&raw const ERROR).cast());
        ffi::lua_error(state);
    }
}

/// Whether a hook was called in one of the module's own functions.
///
/// # Safety
/// The record is what Lua has called the hook with.
pub unsafe fn is_own(state: *mut ffi::lua_State, activation: *mut ffi::lua_Debug) -> bool {
    // SAFETY: see above. Asked for "S", `lua_getinfo` cannot raise.
    unsafe {
        ffi::lua_getinfo(state, c"S".as_ptr(), activation);
        CStr::from_ptr((*activation).source).to_bytes().starts_with(OWN_CHUNKS)
    }
}

/// Pushes the holder of a state's activity, to be an upvalue for [`activity_at`].
///
/// # Safety
/// The state has an [`Interrupter`]. There is room for a value.
#[cfg(not(feature = "luajit"))]
pub unsafe fn push_activity(state: *mut ffi::lua_State) {
    // SAFETY: the registry holds what `Interrupter::new` has put there.
    unsafe { ffi::lua_rawgetp(state, ffi::LUA_REGISTRYINDEX, (&raw const ACTIVITY).cast()) };
}

/// The activity whose holder lies at an index, unless the state is closing.
///
/// # Safety
/// There lies the holder, and it is kept as long as the reference.
#[inline]
pub unsafe fn activity_at<'a>(state: *mut ffi::lua_State, index: c_int) -> Option<&'a Activity> {
    // SAFETY: the userdata is what `push_holder` made, which has been written.
    unsafe { (*ffi::lua_touserdata(state, index).cast::<ActivityHolder>()).as_deref() }
}

/// Pushes a userdata that owns `activity`.
///
/// # Safety
/// `activity` comes from `Arc::into_raw`, and its count goes over to the userdata. There is room for three values. If Lua is
/// out of memory it raises, and the activity is not freed: a leak, no more.
unsafe fn push_holder(state: *mut ffi::lua_State, activity: *const Activity) {
    // SAFETY: the userdata is as large as a holder and aligned for anything; it is written before anybody reads it, and
    // has its finalizer from then on. Nothing in this frame has a destructor when Lua may raise.
    unsafe {
        let holder = ffi::lua_newuserdata(state, size_of::<ActivityHolder>()).cast::<ActivityHolder>();
        ffi::lua_createtable(state, 0, 1);
        ffi::lua_pushcclosure(state, finalize, 0);
        ffi::lua_setfield(state, -2, c"__gc".as_ptr());
        holder.write(Some(Arc::from_raw(activity)));
        ffi::lua_setmetatable(state, -2);
    }
}

/// `__gc` of the holder, which is in the registry and so is finalized when the state closes, before any memory of it is
/// freed: in the midst of a job too, if that calls `os.exit`.
unsafe extern "C-unwind" fn finalize(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: Lua passes the userdata whose metatable this is in, and a program does not get hold of that metatable but
    // by the debug library. `take` leaves `None`, so that a second call finds nothing. Dropping an `Arc` of an `Activity`
    // does not panic.
    let holder = unsafe { ffi::lua_touserdata(state, 1).cast::<ActivityHolder>().as_mut() };
    if let Some(activity) = holder.and_then(Option::take) {
        activity.close();
    }
    0
}
