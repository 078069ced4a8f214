//! Closing one shard's sockets: what has begun is waited for, and nothing is done by halves.
//!
//! Runs on the shard that closes, and in the future of whoever asked for it.

use super::Group;
use crate::error::{Error, ErrorKind};
use crate::id::ShardId;
use crate::sys::steer::half_open;
use crate::time::{clock, sleep};
use std::collections::HashSet;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// By now what the kernel was doing when a program was replaced has been done.
const SETTLED: Duration = Duration::from_millis(20);
/// The first pause between two looks at handshakes that have not ended, and the longest; each is twice as long.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
const LOOK_PAUSE_LONGEST: Duration = Duration::from_millis(160);
/// How long a close waits for handshakes. If an answer gets lost it is sent anew after a second, and again after two more.
const HANDSHAKES: Duration = Duration::from_millis(3500);
/// How long it waits where handshakes cannot be seen.
const UNSEEN: Duration = Duration::from_millis(500);

/// Why a shard's socket is not closed.
pub(super) enum Refusal {
    /// Nobody would be left to accept.
    Last,
    /// No program is taken.
    System(io::Error),
}

impl Refusal {
    fn of(self, shard: ShardId, address: SocketAddr) -> Error {
        match self {
            Refusal::Last => {
                let text = format!(
                    "{shard} is the last that accepts on {address}: to stop that too, shut the runtime down"
                );
                Error::new(ErrorKind::Config, text)
            }
            Refusal::System(error) => {
                let text = format!(
                    "{shard} cannot stop accepting on {address} without losing connections: the system does not let \
                     us send them elsewhere: {error}"
                );
                Error::new(ErrorKind::Config, text).because(error)
            }
        }
    }
}

/// Waits until the connections to this port that are being made now have been made, or a while is over. Those that begin
/// meanwhile are none of ours.
pub(super) async fn handshakes_ended(port: u16) {
    sleep(SETTLED).await;
    let Some(mut ours) = half_open_elsewhere(port).await else { return sleep(UNSEEN).await };
    let (mut pause, until) = (LOOK_PAUSE, clock::now() + HANDSHAKES);
    // A look may take long where there are many connections.
    while !ours.is_empty() && clock::now() < until {
        sleep(pause).await;
        pause = (pause * 2).min(LOOK_PAUSE_LONGEST);
        let Some(now) = half_open_elsewhere(port).await else { return sleep(UNSEEN).await };
        ours.retain(|connection| now.contains(connection));
    }
    // From the end of its handshake to the queue it is a moment.
    sleep(SETTLED).await;
}

/// On a thread that may take its time.
async fn half_open_elsewhere(port: u16) -> Option<HashSet<String>> {
    crate::spawn_blocking(move || half_open(port).ok()).await.ok().flatten()
}

/// Closes this shard's sockets of all groups, and waits until it is done.
///
/// # Errors
/// It is the last that listens on some address, or the system refuses to steer; nothing has been done then.
pub(in crate::server) async fn stop_accepting(
    groups: &[Arc<Group>],
    addresses: &[SocketAddr],
    shard: ShardId,
) -> Result<(), Error> {
    let index = shard.index();
    let mut begun: Vec<&Arc<Group>> = Vec::new();
    for (group, address) in groups.iter().zip(addresses) {
        match group.begin_close(index) {
            Ok(true) => begun.push(group),
            Ok(false) => {}
            Err(refusal) => {
                begun.iter().for_each(|group| group.undo_close(index));
                return Err(refusal.of(shard, *address));
            }
        }
    }
    groups.iter().for_each(|group| group.close(index));
    poll_fn(|context| {
        let open = groups.iter().filter(|group| group.poll_closed(index, context).is_pending());
        if open.count() == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    Ok(())
}
