//! Which shard's listening socket the kernel gives a new connection to, where that is not left to its hash; and closing one
//! shard's sockets without losing a connection.
//!
//! Each address has a [`Group`]: the kernel's list of the sockets that listen there, in the kernel's order, copied. A
//! program that is attached to the list names sockets by their places in it, so copy and list change together, under the
//! group's lock. That lock is taken when a server starts, when a socket is closed and when weights change, never for a
//! connection.
//!
//! # Who holds the sockets
//!
//! The group has a duplicate of each socket's descriptor: whoever changes weights may do so while the shard that owns the
//! socket is held up. A duplicate keeps a socket in the kernel's list, with nobody who accepts from it. So it lives no
//! longer than the shard's own descriptor: it is in the hands of the shard's accepting task as its [`Place`], and when
//! that task ends, in whatever way (the listener is closed or has died, the task panics, the shard ends), it first drops its
//! own descriptor and then the place. The place takes the duplicate out and closes it under the lock, which is what
//! closes the socket, lets the last take its place, in the copy too, and attaches the program of those that are left.
//! Duplicates are used under that lock only; so nobody uses one that is closed.
//!
//! # Who changes the weights
//!
//! A thread, `corelane-steer`, while some address has the policy `weighted`: a shard that is held up cannot say so itself. It
//! reads what shards publish, owns nothing of theirs, and ends by itself when no address has that policy any more or the last
//! of its sockets has been closed, which is at the latest when the runtime's shards end. Nobody waits for it.

mod close;
mod weigh;

use crate::balance::Policy;
use crate::balance::weights::WEIGHT_MAX;
use crate::id::CpuId;
use crate::runtime::shutdown_requested;
use crate::sync::{AtomicU32, Mutex, Ordering, lock};
use crate::sys::cpus;
use crate::sys::steer::{attach, by_cpu, detach, weighted};
use crate::task::waker::wake_counted;
use close::Refusal;
pub(super) use close::stop_accepting;
use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
pub(super) use weigh::Weigher;

/// The sockets of one address. See the module.
#[derive(Debug)]
pub(super) struct Group {
    /// The place of its policy in [`Policy::ALL`]. Written under the lock of the state; the shards that accept read it without.
    policy: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// In the kernel's order.
    members: Vec<Member>,
    /// Shards that have not said yet where they run.
    expected: usize,
    /// By shard; those that are not named weigh the same.
    weights: Vec<u16>,
    /// A program chooses.
    attached: bool,
    /// The system refuses programs, or none can be right: there is to be no other attempt.
    refused: bool,
    /// Who waits for a member to leave.
    waiting: Vec<Waker>,
    /// The thread that changes the weights, to be told of the end.
    thread: Option<thread::Thread>,
}

#[derive(Debug)]
struct Member {
    shard: usize,
    cpu: Option<CpuId>,
    /// A duplicate: see the module.
    socket: TcpListener,
    close: Arc<Close>,
    closing: bool,
}

/// Whether a socket is to be closed. In steady state only its own shard touches it.
#[derive(Debug, Default)]
struct Close(Mutex<(bool, Option<Waker>)>);

fn place_of(policy: Policy) -> u32 {
    let place = Policy::ALL.iter().position(|&one| one == policy);
    place.expect("every policy is among all") as u32
}

/// A shard's place in a group. Whoever has it closes the socket before it drops this.
#[derive(Debug)]
pub(super) struct Place {
    group: Arc<Group>,
    shard: usize,
    close: Arc<Close>,
}

impl Group {
    /// Of a shared port the kernel's list has sockets of other processes, which no program of ours can name.
    pub(super) fn new(policy: Policy, members: usize, shared: bool) -> Arc<Group> {
        let state = State {
            members: Vec::new(),
            expected: members,
            weights: Vec::new(),
            attached: false,
            refused: shared,
            waiting: Vec::new(),
            thread: None,
        };
        Arc::new(Group { policy: AtomicU32::new(place_of(policy)), state: Mutex::new(state) })
    }

    /// How new connections are spread now.
    #[inline]
    pub(super) fn policy(&self) -> Policy {
        Policy::ALL[self.policy.load(Ordering::Relaxed) as usize]
    }

    /// Spreads connections that come from now on by this policy.
    ///
    /// # Errors
    /// The policy needs a program, and the system refuses that; then nothing is different.
    pub(super) fn set_policy(&self, policy: Policy) -> io::Result<()> {
        let mut state = lock(&self.state);
        if state.refused && policy.is_by_kernel_program() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        state.steer(policy)?;
        self.policy.store(place_of(policy), Ordering::Relaxed);
        Ok(())
    }

    /// The next socket that has begun to listen.
    ///
    /// # Errors
    /// There is no descriptor for a duplicate.
    pub(super) fn enter(
        group: &Arc<Group>,
        shard: usize,
        socket: &TcpListener,
    ) -> io::Result<Place> {
        let (socket, close) = (socket.try_clone()?, Arc::new(Close::default()));
        let member = Member { shard, cpu: None, socket, close: close.clone(), closing: false };
        lock(&group.state).members.push(member);
        Ok(Place { group: group.clone(), shard, close })
    }

    /// The thread's turn: these weights, by shard, are to hold from now on.
    fn weigh(&self, weights: &[u16]) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.weights = weights.to_vec();
        match self.policy() {
            Policy::Weighted => state.steer(Policy::Weighted),
            _ => Ok(()),
        }
    }

    /// Where its shards are, for the thread. None: it needs no thread now.
    fn shards(&self) -> Option<Vec<usize>> {
        let state = lock(&self.state);
        let live = self.policy() == Policy::Weighted && !state.members.is_empty() && !state.refused;
        live.then(|| state.members.iter().map(|member| member.shard).collect())
    }

    /// No new connection for this shard. False: it has no socket here, or one that is to be closed already.
    fn begin_close(&self, shard: usize) -> Result<bool, Refusal> {
        let mut state = lock(&self.state);
        let open = |member: &Member| !member.closing;
        let Some(place) = state.members.iter().position(|one| one.shard == shard && open(one))
        else {
            return Ok(false);
        };
        if state.members.iter().filter(|member| open(member)).count() == 1 {
            return Err(Refusal::Last);
        }
        if state.refused {
            return Err(Refusal::System(io::ErrorKind::Unsupported.into()));
        }
        state.members[place].closing = true;
        state.steer(self.policy()).map_err(|error| {
            state.members[place].closing = false;
            Refusal::System(error)
        })?;
        Ok(true)
    }

    /// Takes `begin_close` back.
    fn undo_close(&self, shard: usize) {
        let mut state = lock(&self.state);
        let member = state.members.iter_mut().find(|member| member.shard == shard);
        member.into_iter().for_each(|member| member.closing = false);
        // The system has taken programs a moment ago. If it does not take this one, the shard gets nothing new.
        let _ = state.steer(self.policy());
    }

    /// Has the shard close its socket, which gets no new connections any more.
    fn close(&self, shard: usize) {
        let state = lock(&self.state);
        let member = state.members.iter().find(|member| member.shard == shard);
        let close = member.map(|member| member.close.clone());
        drop(state);
        if let Some(close) = close {
            let waker = {
                let mut close = lock(&close.0);
                close.0 = true;
                close.1.take()
            };
            waker.into_iter().for_each(wake_counted);
        }
    }

    /// Waits until the shard has closed its socket.
    fn poll_closed(&self, shard: usize, context: &Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        if !state.members.iter().any(|member| member.shard == shard) {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            state.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}

impl State {
    /// Has the right program attached, if the system lets us.
    ///
    /// # Errors
    /// The first time that the system refuses.
    fn steer(&mut self, policy: Policy) -> io::Result<()> {
        let Some(first) = self.members.first() else { return Ok(()) };
        if self.refused {
            return Ok(());
        }
        let closes = self.members.iter().any(|member| member.closing);
        let cpus: Vec<_> = self.members.iter().map(Member::open_cpu).collect();
        let program = match policy {
            // It has no choice.
            _ if self.members.len() == 1 => None,
            Policy::Cpu if self.expected == 0 && cpus.iter().any(Option::is_some) => {
                let others = closes.then(|| weighted(&self.member_weights(policy))).transpose();
                Some(others.and_then(|others| by_cpu(&cpus, others)))
            }
            Policy::Weighted => Some(weighted(&self.member_weights(policy))),
            _ => closes.then(|| weighted(&self.member_weights(policy))),
        };
        let chooses = program.is_some();
        let outcome = match program {
            Some(program) => program.and_then(|program| attach(&first.socket, &program)),
            None if self.attached => detach(&first.socket),
            None => return Ok(()),
        };
        match outcome {
            Ok(()) => self.attached = chooses,
            Err(_) => {
                self.refused = true;
                // What was in force is out of date, and nobody will mend it.
                if std::mem::take(&mut self.attached) {
                    let _ = detach(&first.socket);
                }
            }
        }
        outcome
    }

    /// In the order of the members, and never all nothing as long as one goes on.
    fn member_weights(&self, policy: Policy) -> Vec<u16> {
        let own = |member: &Member| match policy {
            _ if member.closing => 0,
            Policy::Weighted => *self.weights.get(member.shard).unwrap_or(&WEIGHT_MAX),
            _ => 1,
        };
        let weights: Vec<u16> = self.members.iter().map(own).collect();
        if weights.iter().any(|&weight| weight > 0) {
            return weights;
        }
        self.members.iter().map(|member| u16::from(!member.closing)).collect()
    }
}

impl Member {
    /// The CPU whose connections it is to have.
    fn open_cpu(&self) -> Option<CpuId> {
        self.cpu.filter(|_| !self.closing)
    }
}

impl Place {
    /// The shard, on which this runs, begins to accept. The last one to say so has the policy `cpu`, if it is that, put in
    /// force: only then is it known where all run.
    ///
    /// # Errors
    /// The system refuses programs.
    pub(super) fn arrive(&self) -> io::Result<()> {
        let group = &self.group;
        // A thread that may run on several has no CPU whose connections are its own.
        let cpu = cpus::allowed().ok().filter(|allowed| allowed.len() == 1).map(|one| one[0]);
        let mut state = lock(&group.state);
        if let Some(member) = state.members.iter_mut().find(|member| member.shard == self.shard) {
            member.cpu = cpu;
        }
        state.expected -= 1;
        if state.expected == 0 && group.policy() == Policy::Cpu {
            return state.steer(Policy::Cpu);
        }
        Ok(())
    }

    /// Ends when the shard is to close its listening socket: at a shutdown at once; at a planned close when no
    /// connection is on its way to it any more.
    pub(super) async fn until_close(&self) {
        let mut shutdown = pin!(shutdown_requested());
        let mut close = pin!(self.until_planned_close());
        poll_fn(|context| match shutdown.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => close.as_mut().poll(context),
        })
        .await;
    }

    async fn until_planned_close(&self) {
        poll_fn(|context| self.close.poll_asked(context)).await;
        let port = lock(&self.group.state).port_of(self.shard);
        if let Some(port) = port {
            close::handshakes_ended(port).await;
        }
    }
}

impl State {
    fn port_of(&self, shard: usize) -> Option<u16> {
        let member = self.members.iter().find(|member| member.shard == shard)?;
        member.socket.local_addr().ok().map(|address| address.port())
    }
}

impl Close {
    fn poll_asked(&self, context: &Context<'_>) -> Poll<()> {
        let mut close = lock(&self.0);
        if close.0 {
            return Poll::Ready(());
        }
        if !close.1.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            close.1 = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = lock(&self.group.state);
        if let Some(place) = state.members.iter().position(|member| member.shard == self.shard) {
            // As the kernel does it, at this moment.
            drop(state.members.swap_remove(place));
        }
        // Told before if the system refuses: there is a program only where it did not.
        let _ = state.steer(self.group.policy());
        let waiting = std::mem::take(&mut state.waiting);
        let thread = state.members.is_empty().then(|| state.thread.take()).flatten();
        drop(state);
        waiting.into_iter().for_each(wake_counted);
        if let Some(thread) = thread {
            thread.unpark();
        }
    }
}
