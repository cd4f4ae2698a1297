//! Calling a function on another thread, wherever that is at the moment, by a signal.
//!
//! # Ground rules
//!
//! 1. The signal is SIGURG, which the system ignores by default and hardly any program uses; Go's runtime interrupts its
//!    threads by it for that reason. The handler is installed when the first signal is sent, not before.
//! 2. The host's own SIGURGs stay the host's. A handler that was there before gets those that are not ours, on the
//!    host's threads. If the host has replaced our handler since, nothing is sent any more.
//! 3. The handler allocates nothing, takes no lock, and uses no thread-local variable: the first use of one allocates, and
//!    SIGURG may come to any thread of the host's. It finds its thread in a list of atomics, whose entries are never freed.
//! 4. A thread's entry is changed by that thread alone. So the handler, which runs on the same one, never meets a change
//!    that goes on beside it.

#![expect(unsafe_code, reason = "a signal handler is installed and run")]

use std::cell::UnsafeCell;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::libc::{self, c_int, c_void, siginfo_t};
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::{SigSet, Signal};

use super::PerProcess;

/// See the ground rules.
const SIGNAL: Signal = Signal::SIGURG;

/// How often a thread that ends gives a signal that is on its way the chance to arrive. Once is enough, unless the
/// handler was replaced in the meantime.
const CHANCES: u32 = 100;

/// What is called in the signal handler.
///
/// # Safety
/// `on_signal` does only what is safe in a signal handler that interrupts its thread anywhere.
pub unsafe trait OnSignal: Send + Sync {
    /// Called on the thread that the signal was sent to.
    fn on_signal(&self);
}

/// Makes the calling thread one that can be signalled, until it is dropped, on the same thread.
pub struct Signalled {
    slot: &'static Slot,
    generation: u64,
    /// Belongs to its thread.
    _not_send: PhantomData<*const ()>,
}

/// Sends signals to one thread.
#[derive(Clone, Copy)]
pub struct Signaller {
    slot: &'static Slot,
    generation: u64,
}

/// An entry in the list of threads.
struct Slot {
    /// Whether a thread has taken the entry.
    is_taken: AtomicBool,
    /// The process of that thread: a fork copies the list, but not the threads in it.
    pid: AtomicU32,
    /// The thread, as the system numbers them; 0 if there is none.
    thread: AtomicUsize,
    /// Whether a signal was sent that has not arrived. As long as that is so none is sent, so that each arrival belongs
    /// to one sending, and all others are the host's.
    is_sent: AtomicBool,
    /// What is to be called. Changed by the thread alone, while `thread` is 0.
    target: UnsafeCell<Option<Arc<dyn OnSignal>>>,
    /// Which of the threads that have used the entry one after the other it belongs to, if that has not ended. Held while
    /// a signal is sent, as a thread must not be named to the system after its end.
    current: Mutex<Option<u64>>,
    generations: AtomicUsize,
    next: AtomicPtr<Slot>,
}

// SAFETY: all fields but `target` are made for many threads; that one is touched by the thread alone which has taken the
// entry (see `Signalled::new` and `Slot::of_this_thread`), and what it holds may be used and dropped by any.
unsafe impl Sync for Slot {}

/// The list of threads.
static SLOTS: AtomicPtr<Slot> = AtomicPtr::new(ptr::null_mut());

/// The handler that was there before ours, and whether it takes three arguments.
static FORMER: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);
static FORMER_TAKES_INFO: AtomicBool = AtomicBool::new(false);

impl Signalled {
    /// Lets the calling thread be signalled: `target` is what is called then.
    pub fn new(target: Arc<dyn OnSignal>) -> Self {
        let slot = Slot::take();
        slot.pid.store(std::process::id(), SeqCst);
        slot.is_sent.store(false, SeqCst);
        let generation = slot.generations.fetch_add(1, SeqCst) as u64;
        // SAFETY: this thread has taken the entry, and the handler does not look into it while it names no thread.
        unsafe { *slot.target.get() = Some(target) };
        slot.thread.store(pthread_self() as usize, SeqCst);
        *slot.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(generation);
        let mut ours = SigSet::empty();
        ours.add(SIGNAL);
        // It fails for bad arguments only.
        let _ = ours.thread_unblock();
        Signalled { slot, generation, _not_send: PhantomData }
    }

    /// What sends signals to this thread.
    pub fn signaller(&self) -> Signaller {
        Signaller { slot: self.slot, generation: self.generation }
    }
}

impl Drop for Signalled {
    fn drop(&mut self) {
        *self.slot.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // From here on none is sent. One that is on its way arrives when the thread leaves the kernel; later it would be
        // taken for one of the host's.
        for _ in 0..CHANCES {
            if !self.slot.is_sent.load(SeqCst) {
                break;
            }
            thread::yield_now();
        }
        self.slot.thread.store(0, SeqCst);
        // SAFETY: as in `new`.
        drop(unsafe { (*self.slot.target.get()).take() });
        self.slot.is_taken.store(false, SeqCst);
    }
}

impl Signaller {
    /// Has the target called on the thread soon. False if the thread has ended, or the host has a handler of its own
    /// in the place of ours. If one is on its way, there is no second one.
    pub fn send(&self) -> bool {
        let current = self.slot.current.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != Some(self.generation) || !is_handled() {
            return false;
        }
        if self.slot.is_sent.swap(true, SeqCst) {
            return true;
        }
        // The thread lives: it would have to take the lock to end.
        let is_sent = pthread_kill(self.slot.thread.load(SeqCst) as Pthread, SIGNAL).is_ok();
        if !is_sent {
            self.slot.is_sent.store(false, SeqCst);
        }
        is_sent
    }
}

impl Slot {
    /// Takes an entry that no thread uses, or a new one.
    fn take() -> &'static Slot {
        for slot in Slot::all() {
            // In a forked process the lock of an entry may be held for ever.
            if slot.current.try_lock().is_ok() && !slot.is_taken.swap(true, SeqCst) {
                return slot;
            }
        }
        let slot: &'static Slot = Box::leak(Box::new(Slot {
            is_taken: AtomicBool::new(true),
            pid: AtomicU32::new(0),
            thread: AtomicUsize::new(0),
            is_sent: AtomicBool::new(false),
            target: UnsafeCell::new(None),
            current: Mutex::new(None),
            generations: AtomicUsize::new(0),
            next: AtomicPtr::new(ptr::null_mut()),
        }));
        let mut first = SLOTS.load(SeqCst);
        loop {
            slot.next.store(first, SeqCst);
            match SLOTS.compare_exchange(first, ptr::from_ref(slot).cast_mut(), SeqCst, SeqCst) {
                Ok(_) => return slot,
                Err(other) => first = other,
            }
        }
    }

    fn all() -> impl Iterator<Item = &'static Slot> {
        // SAFETY: what the list names was leaked, and so lives for ever.
        let follow = |slot: &AtomicPtr<Slot>| unsafe { slot.load(SeqCst).as_ref() };
        std::iter::successors(follow(&SLOTS), move |slot| follow(&slot.next))
    }

    /// That of the calling thread. Safe in a signal handler.
    fn of_this_thread() -> Option<&'static Slot> {
        // As numbers: `std::process::id` and `pthread_self` are plain calls of functions that handlers may call.
        let (pid, thread) = (std::process::id(), pthread_self() as usize);
        Slot::all().find(|slot| slot.thread.load(SeqCst) == thread && slot.pid.load(SeqCst) == pid)
    }
}

/// Whether SIGURG comes to our handler, which is installed if it was not yet.
fn is_handled() -> bool {
    static INSTALLED: PerProcess<()> = PerProcess::new();
    // A forked process has the handler of its parent: to note that one as the former would be without end.
    let install = || -> Result<(), Infallible> {
        if !action().is_some_and(|action| is_ours(&action)) {
            install();
        }
        Ok(())
    };
    let Ok(()) = INSTALLED.get_or_try_init(install);
    action().is_some_and(|action| is_ours(&action))
}

fn is_ours(action: &libc::sigaction) -> bool {
    action.sa_sigaction == handler()
}

/// Our handler, as the system writes it.
fn handler() -> usize {
    on_signal as *const () as usize
}

/// What is done at a SIGURG.
fn action() -> Option<libc::sigaction> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with no new action given, the call only writes the present one, as a whole if it succeeds.
    unsafe { (libc::sigaction(SIGNAL as c_int, ptr::null(), action.as_mut_ptr()) == 0).then(|| action.assume_init()) }
}

fn install() {
    let Some(former) = action() else { return };
    let is_function = former.sa_sigaction != libc::SIG_DFL && former.sa_sigaction != libc::SIG_IGN;
    let mut new = former;
    new.sa_sigaction = handler();
    // What a host has chosen for its own handler, the calls that are not restarted and the signals that are blocked
    // meanwhile, holds on.
    let kept = if is_function { former.sa_flags & (libc::SA_RESTART | libc::SA_NODEFER) } else { libc::SA_RESTART };
    new.sa_flags = kept | libc::SA_SIGINFO | libc::SA_ONSTACK;
    FORMER.store(former.sa_sigaction, SeqCst);
    FORMER_TAKES_INFO.store(former.sa_flags & libc::SA_SIGINFO != 0, SeqCst);
    // SAFETY: `new` is complete, and its handler has the signature that SA_SIGINFO asks for, is safe in signals, and is
    // never unmapped (see build.rs).
    unsafe { libc::sigaction(SIGNAL as c_int, &raw const new, ptr::null_mut()) };
}

/// The handler.
extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let errno = Errno::last_raw();
    match Slot::of_this_thread() {
        Some(slot) if slot.is_sent.swap(false, SeqCst) => {
            // SAFETY: the entry is this thread's, which changes it only while the entry names no thread. So it holds
            // its target, and goes on holding it while the handler runs.
            if let Some(target) = unsafe { &*slot.target.get() } {
                target.on_signal();
            }
        }
        // It was sent to the process, and the host has blocked it on its threads for the moment.
        Some(_) => pass_on(signal, info, context),
        None => call_former(signal, info, context),
    }
    Errno::set_raw(errno);
}

/// Gives the host's signal to the host's main thread, where it waits until that lets it in.
#[cfg(target_os = "linux")]
fn pass_on(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: a plain system call, with the information that the kernel has just written. A process may send itself any.
    unsafe {
        let main = libc::getpid();
        libc::syscall(libc::SYS_rt_tgsigqueueinfo, main, main, signal, info);
    }
}

/// Calls the host's handler on this thread, as nobody knows another one.
#[cfg(not(target_os = "linux"))]
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    call_former(signal, info, context);
}

fn call_former(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let former = FORMER.load(SeqCst);
    if former == libc::SIG_DFL || former == libc::SIG_IGN {
        return;
    }
    // SAFETY: the system would have called the same function with the same arguments; what it was installed with tells
    // which of the two signatures it has.
    unsafe {
        if FORMER_TAKES_INFO.load(SeqCst) {
            let former: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = std::mem::transmute(former);
            former(signal, info, context);
        } else {
            let former: extern "C" fn(c_int) = std::mem::transmute(former);
            former(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use super::*;

    /// Notes which thread it was called on, and how often.
    #[derive(Default)]
    struct Note {
        calls: AtomicUsize,
        thread: AtomicUsize,
    }

    // SAFETY: it stores numbers.
    unsafe impl OnSignal for Note {
        fn on_signal(&self) {
            self.thread.store(pthread_self() as usize, SeqCst);
            self.calls.fetch_add(1, SeqCst);
        }
    }

    fn wait_for(what: impl Fn() -> bool) {
        while !what() {
            thread::yield_now();
        }
    }

    #[test]
    fn a_thread_that_computes_is_called_and_goes_on() {
        let (tell, told) = mpsc::channel();
        let note = Arc::new(Note::default());
        let target = Arc::clone(&note);
        let computing = thread::spawn(move || {
            let signalled = Signalled::new(Arc::clone(&target) as Arc<dyn OnSignal>);
            tell.send(signalled.signaller()).unwrap();
            wait_for(|| target.calls.load(SeqCst) == 1);
            pthread_self() as usize
        });
        let signaller = told.recv().unwrap();
        assert!(signaller.send());
        assert_eq!(computing.join().unwrap(), note.thread.load(SeqCst));
        assert!(!signaller.send(), "its thread has ended");
        assert_eq!(note.calls.load(SeqCst), 1);
    }

    #[test]
    fn a_thread_that_uses_an_entry_again_is_not_meant() {
        let start = || {
            let (tell, told) = mpsc::channel();
            let (end, ended) = mpsc::channel::<()>();
            let note = Arc::new(Note::default());
            let target = Arc::clone(&note);
            let thread = thread::spawn(move || {
                let signalled = Signalled::new(target as Arc<dyn OnSignal>);
                tell.send(signalled.signaller()).unwrap();
                let _ = ended.recv();
            });
            (thread, told.recv().unwrap(), end, note)
        };
        let (former, to_former, end, _) = start();
        drop(end);
        former.join().unwrap();
        let others: Vec<_> = (0..4).map(|_| start()).collect();
        assert!(!to_former.send());
        for (thread, signaller, end, note) in others {
            assert_eq!(note.calls.load(SeqCst), 0);
            assert!(signaller.send());
            drop(end);
            thread.join().unwrap();
            assert_eq!(note.calls.load(SeqCst), 1, "what was sent arrives before the thread ends");
        }
    }
}
