//! The hyper floor: the least that can drive hyper on epoll, as a bound for every runtime.
//!
//! One edge-triggered epoll loop per thread. A connection is a future in a slab that is polled when
//! its descriptor has an event or its waker was called; nothing is registered anew, no timers exist,
//! and each response leaves in one flat `send`. A connection's state never leaves its thread.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::io::{self, ErrorKind};
use std::mem;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use hyper::rt::ReadBufCursor;
use hyper::service::service_fn;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags, sockopt};
use rustix::time::Timespec;
use slab::Slab;

use super::{ACCEPT_PAUSE, Options, hello, on_each_cpu};

/// Events taken from the kernel at a time.
const EVENTS: usize = 1024;

/// The listener's token; a slab never grows that far.
const LISTENER: u64 = u64::MAX;

thread_local! {
    /// Connections of this thread whose waker was called since the loop last looked.
    static WOKEN: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Serves with one pinned loop per thread.
pub(super) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let http = options.http();
    on_each_cpu(options, move |listener| {
        drive(listener, |io| http.serve_connection(io, service_fn(hello)))
    })
}

/// One connection: its future, the waker it is polled with, and what its descriptor last said.
struct Connection<F> {
    future: Pin<Box<F>>,
    waker: Waker,
    ready: Rc<Readiness>,
}

/// The loop: events, then whoever was woken, for ever.
fn drive<F: Future>(listener: TcpListener, make: impl Fn(Io) -> F) -> io::Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut connections = Slab::new();
    let mut events = Vec::with_capacity(EVENTS);
    let mut woken = Vec::new();
    let at_once = Timespec::default();
    loop {
        let timeout = if woken.is_empty() { None } else { Some(&at_once) };
        match epoll::wait(&poll, spare_capacity(&mut events), timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            if event.data.u64() == LISTENER {
                accept(&poll, &listener, &mut connections, &make)?;
            } else {
                let token = event.data.u64() as usize;
                if let Some(connection) = connections.get(token) {
                    connection.ready.note(event.flags);
                    advance(&mut connections, token);
                }
            }
        }
        for token in woken.drain(..) {
            advance(&mut connections, token);
        }
        WOKEN.with_borrow_mut(|list| mem::swap(list, &mut woken));
    }
}

/// Takes every waiting connection. The first event of each starts its future: nothing to read yet.
fn accept<F: Future>(
    poll: &OwnedFd,
    listener: &TcpListener,
    connections: &mut Slab<Connection<F>>,
    make: impl Fn(Io) -> F,
) -> io::Result<()> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    loop {
        let socket = match rustix::net::accept_with(listener, flags) {
            Ok(socket) => socket,
            Err(Errno::AGAIN) => return Ok(()),
            Err(Errno::INTR | Errno::CONNABORTED) => continue,
            Err(_) => {
                std::thread::sleep(ACCEPT_PAUSE);
                return Ok(());
            }
        };
        // A connection that is gone already fails at its first read instead.
        let _ = sockopt::set_tcp_nodelay(&socket, true);
        let entry = connections.vacant_entry();
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(poll, &socket, EventData::new_u64(entry.key() as u64), interest)?;
        let ready = Rc::new(Readiness::default());
        let waker = Waker::from(Arc::new(Token(entry.key())));
        let future = Box::pin(make(Io { socket, ready: Rc::clone(&ready) }));
        entry.insert(Connection { future, waker, ready });
    }
}

/// Polls one connection, if it still exists, and drops it when it is done.
fn advance<F: Future>(connections: &mut Slab<Connection<F>>, token: usize) {
    let Some(connection) = connections.get_mut(token) else { return };
    let mut context = Context::from_waker(&connection.waker);
    if connection.future.as_mut().poll(&mut context).is_ready() {
        connections.remove(token);
    }
}

/// A waker that puts its connection on the list of the thread it is called on, which is the
/// connection's own: nothing here is handed to another thread.
struct Token(usize);

impl Wake for Token {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        WOKEN.with_borrow_mut(|list| list.push(self.0));
    }
}

/// What the descriptor can do, as of its last event and its last system call.
#[derive(Default)]
struct Readiness {
    readable: Cell<bool>,
    writable: Cell<bool>,
    /// The peer has closed or the socket failed. No further edge will tell, so a short read must
    /// not clear `readable` any more.
    ended: Cell<bool>,
}

impl Readiness {
    fn note(&self, events: EventFlags) {
        let ended = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        if events.intersects(ended) {
            self.ended.set(true);
        }
        if events.intersects(ended | EventFlags::IN) {
            self.readable.set(true);
        }
        if events.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR) {
            self.writable.set(true);
        }
    }
}

/// A connection's socket as hyper sees it.
struct Io {
    socket: OwnedFd,
    ready: Rc<Readiness>,
}

impl hyper::rt::Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ready.readable.get() {
            return Poll::Pending;
        }
        // SAFETY: the slice is only written to, by `recv`.
        let space = unsafe { buffer.as_mut() };
        let room = space.len();
        loop {
            match rustix::net::recv(&self.socket, &mut *space, RecvFlags::empty()) {
                Ok((_, count)) => {
                    if count < room && !self.ready.ended.get() {
                        self.ready.readable.set(false);
                    }
                    // SAFETY: `recv` has initialized the first `count` bytes of the slice.
                    unsafe { buffer.advance(count) };
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::AGAIN) => {
                    self.ready.readable.set(false);
                    return Poll::Pending;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.ready.writable.get() {
            return Poll::Pending;
        }
        loop {
            match rustix::net::send(&self.socket, buffer, SendFlags::NOSIGNAL) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(Errno::AGAIN) => {
                    self.ready.writable.set(false);
                    return Poll::Pending;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match rustix::net::shutdown(&self.socket, Shutdown::Write) {
            Err(error) if error.kind() != ErrorKind::NotConnected => Poll::Ready(Err(error.into())),
            _ => Poll::Ready(Ok(())),
        }
    }
}
