//! `coroutine.resume`, `wrap` and `close` for workers. They do what those of the interpreter do (`lcorolib.c`, in 5.1
//! `lbaselib.c`), in the same words, and note which coroutine runs, for who wants to interrupt it (`vm/interrupt.rs`).
//!
//! It is noted around `lua_resume` itself, not around a call of the interpreter's function: that may raise, and what was
//! noted would stay noted. In the rest, what it checks and what it says, that function is called or copied.
//!
//! LuaJIT has one hook for all coroutines, and keeps its own functions.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;

use mlua::{Function, Lua, Result, Table, ffi};

use crate::vm::interrupt::{Activity, activity_at, push_activity};

/// What the upvalues are: of the functions of the module `coroutine`, the activity and the interpreter's function.
const ACTIVITY: c_int = ffi::lua_upvalueindex(1);
const STOCK: c_int = ffi::lua_upvalueindex(2);
/// Of `wrap`, whose stock function is `create`, and of a function that it made: `close`, or nil where there is none.
const CLOSE: c_int = ffi::lua_upvalueindex(3);
/// Of a function that `wrap` made.
const WRAPPED: c_int = ffi::lua_upvalueindex(2);

/// What `resume_noted` returns if the coroutine has failed: its error lies on top then.
const FAILED: c_int = -1;

/// The values for which a C function has room, beside its arguments. Calls into the interpreter's library that need not be
/// made are left out here: unlike the stock function's, they lead from one library to another.
const ROOM: c_int = 20;

const HAS_CLOSE: bool = cfg!(any(feature = "lua54", feature = "lua55"));

#[cfg(feature = "lua51")]
unsafe extern "C-unwind" {
    /// Takes the depth of calls over into a coroutine: `lua_resume` has no argument for it yet.
    fn lua_setlevel(from: *mut ffi::lua_State, to: *mut ffi::lua_State);
}

/// Replaces the functions, in a state that has an `Interrupter`, before anybody has taken the former ones.
pub fn replace_functions(lua: &Lua) -> Result<()> {
    let coroutine: Table = lua.globals().raw_get("coroutine")?;
    let stock = |name| coroutine.raw_get::<Option<Function>>(name);
    let (resume_stock, create, close_stock) = (stock("resume")?, stock("create")?, stock("close")?);
    coroutine.raw_set("resume", with_activity(lua, resume, &resume_stock, &None)?)?;
    coroutine.raw_set("wrap", with_activity(lua, wrap, &create, &close_stock)?)?;
    if close_stock.is_some() {
        coroutine.raw_set("close", with_activity(lua, close, &close_stock, &None)?)?;
    }
    Ok(())
}

/// A function with the three upvalues.
fn with_activity(
    lua: &Lua,
    function: ffi::lua_CFunction,
    stock: &Option<Function>,
    close: &Option<Function>,
) -> Result<Function> {
    // SAFETY: two values lie on the stack, and the activity is put below them.
    unsafe {
        lua.exec_raw((stock.clone(), close.clone()), |state| {
            push_activity(state);
            ffi::lua_insert(state, 1);
            ffi::lua_pushcclosure(state, function, 3);
        })
    }
}

unsafe extern "C-unwind" fn resume(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `replace_functions` sets them. No local of this frame has a destructor.
    unsafe {
        let co = ffi::lua_tothread(state, 1);
        if co.is_null() {
            return call_stock(state, STOCK);
        }
        let count = resume_noted(state, activity_at(state, ACTIVITY), co, ffi::lua_gettop(state) - 1);
        ffi::lua_pushboolean(state, c_int::from(count != FAILED));
        let results = if count == FAILED { 1 } else { count };
        if results > 0 {
            ffi::lua_insert(state, -(results + 1));
        }
        results + 1
    }
}

unsafe extern "C-unwind" fn wrap(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: as in `resume`. The stock `create` checks its argument and pushes the coroutine.
    unsafe {
        call_stock(state, STOCK);
        ffi::lua_pushvalue(state, ACTIVITY);
        ffi::lua_insert(state, -2);
        ffi::lua_pushvalue(state, CLOSE);
        ffi::lua_pushcclosure(state, resume_wrapped, 3);
        1
    }
}

/// A function that `wrap` made.
unsafe extern "C-unwind" fn resume_wrapped(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `wrap` sets them. No local of this frame has a destructor.
    unsafe {
        let (activity, co) = (activity_at(state, ACTIVITY), ffi::lua_tothread(state, WRAPPED));
        let count = resume_noted(state, activity, co, ffi::lua_gettop(state));
        if count != FAILED {
            return count;
        }
        let status = ffi::lua_status(co);
        if HAS_CLOSE && status != ffi::LUA_OK && status != ffi::LUA_YIELD {
            // Closes its variables, which gives the error anew. `close` takes the coroutine as its first argument.
            ffi::lua_settop(state, 0);
            ffi::lua_pushvalue(state, WRAPPED);
            close_noted(state, activity, co, CLOSE);
        }
        if has_position(state, status) {
            ffi::luaL_where(state, 1);
            ffi::lua_insert(state, -2);
            ffi::lua_concat(state, 2);
        }
        ffi::lua_error(state)
    }
}

/// Whether the error on top is told with the place where the function was called.
///
/// # Safety
/// A value is on top.
unsafe fn has_position(state: *mut ffi::lua_State, status: c_int) -> bool {
    // SAFETY: plain calls of the C API that do not raise.
    unsafe {
        if cfg!(any(feature = "lua51", feature = "lua52")) {
            ffi::lua_isstring(state, -1) != 0
        } else {
            !(HAS_CLOSE && status == ffi::LUA_ERRMEM) && ffi::lua_type(state, -1) == ffi::LUA_TSTRING
        }
    }
}

unsafe extern "C-unwind" fn close(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: as in `resume`. Where it is not noted, the stock function raises.
    unsafe {
        let co = ffi::lua_tothread(state, 1);
        if co.is_null() || ffi::lua_status(co) == ffi::LUA_OK && has_frames(co) {
            return call_stock(state, STOCK);
        }
        close_noted(state, activity_at(state, ACTIVITY), co, STOCK)
    }
}

/// Calls the stock `close`, for the first argument of the running function, whose pending variables are closed in it.
///
/// # Safety
/// The argument is `co`, and that does not run, so that the stock function does not raise.
unsafe fn close_noted(
    state: *mut ffi::lua_State,
    activity: Option<&Activity>,
    co: *mut ffi::lua_State,
    stock: c_int,
) -> c_int {
    // SAFETY: the argument keeps the coroutine alive.
    unsafe {
        if let Some(activity) = activity {
            activity.enters(co);
        }
        let count = call_stock(state, stock);
        if let Some(activity) = activity {
            activity.returns(state);
        }
        count
    }
}

/// Calls a C function of the interpreter, which is an upvalue, in the frame of the running function: it finds the same
/// arguments, and names the same caller in its errors.
///
/// # Safety
/// That function has no upvalues, and nothing in the frames up to Lua has a destructor.
unsafe fn call_stock(state: *mut ffi::lua_State, upvalue: c_int) -> c_int {
    // SAFETY: the stock functions take a stack with room for 20 values beside their arguments, as they find it here.
    unsafe { ffi::lua_tocfunction(state, upvalue).map_or(0, |function| function(state)) }
}

/// Resumes a coroutine with so many values from the top of the stack, and returns how many it has given, or `FAILED`.
///
/// # Safety
/// The coroutine is an argument or an upvalue of the running function. Nothing in the frames up to Lua has a destructor.
unsafe fn resume_noted(
    state: *mut ffi::lua_State,
    activity: Option<&Activity>,
    co: *mut ffi::lua_State,
    arguments: c_int,
) -> c_int {
    // SAFETY: as the stock function does it. Between the two notes nothing raises: `lua_resume` returns an error of the
    // coroutine as its status. It could but say that a coroutine is not suspended, and fail to get the memory for that
    // message; such a coroutine is not noted. (There is one more, "C stack overflow": if the memory for this one is not
    // to be had, the error goes to the main thread, whose next resumption notes another coroutine.)
    unsafe {
        if refuse(state, co, arguments) {
            return FAILED;
        }
        if arguments > 0 {
            ffi::lua_xmove(state, co, arguments);
        }
        #[cfg(feature = "lua51")]
        lua_setlevel(state, co);
        let activity = activity.filter(|_| is_suspended(co, arguments));
        if let Some(activity) = activity {
            activity.enters(co);
        }
        let mut count = 0;
        let status = ffi::lua_resume(co, state, arguments, ptr::from_mut(&mut count));
        if let Some(activity) = activity {
            activity.returns(state);
        }
        if status != ffi::LUA_OK && status != ffi::LUA_YIELD {
            ffi::lua_xmove(co, state, 1);
            return FAILED;
        }
        if count >= ROOM && ffi::lua_checkstack(state, count + 1) == 0 {
            return too_many_results(state, co, count);
        }
        if count > 0 {
            ffi::lua_xmove(co, state, count);
        }
        count
    }
}

/// Whether a coroutine can be resumed that was given its arguments already.
///
/// # Safety
/// The coroutine is alive.
unsafe fn is_suspended(co: *mut ffi::lua_State, arguments: c_int) -> bool {
    // SAFETY: plain calls of the C API that do not raise.
    unsafe {
        match ffi::lua_status(co) {
            ffi::LUA_YIELD => true,
            ffi::LUA_OK => ffi::lua_gettop(co) > arguments && !has_frames(co),
            _ => false,
        }
    }
}

/// Whether a coroutine runs, or has resumed the one that does, given that it is not suspended in a yield.
///
/// # Safety
/// The coroutine is alive.
unsafe fn has_frames(co: *mut ffi::lua_State) -> bool {
    let mut record = MaybeUninit::uninit();
    // SAFETY: the record is written, not read.
    unsafe { ffi::lua_getstack(co, 0, record.as_mut_ptr()) > 0 }
}

/// Says why a coroutine is not resumed at all, if that is so.
///
/// # Safety
/// The coroutine is alive. Nothing in the frames up to Lua has a destructor.
#[cfg(feature = "lua51")]
unsafe fn refuse(state: *mut ffi::lua_State, co: *mut ffi::lua_State, arguments: c_int) -> bool {
    // SAFETY: nothing in the frames up to Lua has a destructor when `luaL_error` leaves them.
    unsafe {
        let kind = match ffi::lua_status(co) {
            _ if co == state => c"running",
            ffi::LUA_YIELD => c"",
            ffi::LUA_OK if has_frames(co) => c"normal",
            ffi::LUA_OK if ffi::lua_gettop(co) > 0 => c"",
            _ => c"dead",
        };
        if arguments > 0 && ffi::lua_checkstack(co, arguments) == 0 {
            ffi::luaL_error(state, c"too many arguments to resume".as_ptr());
        }
        if kind.is_empty() {
            return false;
        }
        ffi::lua_pushfstring(state, c"cannot resume %s coroutine".as_ptr(), kind.as_ptr());
        true
    }
}

/// Says why a coroutine is not resumed at all, if that is so.
///
/// # Safety
/// The coroutine is alive. Nothing in the frames up to Lua has a destructor.
#[cfg(not(feature = "lua51"))]
unsafe fn refuse(state: *mut ffi::lua_State, co: *mut ffi::lua_State, arguments: c_int) -> bool {
    // SAFETY: pushing may raise; nothing in the frames up to Lua has a destructor.
    unsafe {
        let is_checked = cfg!(any(feature = "lua52", feature = "lua53"));
        let message = if arguments > 0 && ffi::lua_checkstack(co, arguments) == 0 {
            c"too many arguments to resume"
        } else if is_checked && ffi::lua_status(co) == ffi::LUA_OK && ffi::lua_gettop(co) == 0 {
            c"cannot resume dead coroutine"
        } else {
            return false;
        };
        ffi::lua_pushstring(state, message.as_ptr());
        true
    }
}

/// Says that there is no room for what a coroutine has given.
///
/// # Safety
/// So many values lie on top of the coroutine. Nothing in the frames up to Lua has a destructor.
unsafe fn too_many_results(state: *mut ffi::lua_State, co: *mut ffi::lua_State, count: c_int) -> c_int {
    let message = c"too many results to resume";
    // SAFETY: nothing in the frames up to Lua has a destructor when these raise.
    unsafe {
        if cfg!(feature = "lua51") {
            ffi::luaL_error(state, message.as_ptr());
        }
        ffi::lua_pop(co, count);
        ffi::lua_pushstring(state, message.as_ptr());
        FAILED
    }
}
