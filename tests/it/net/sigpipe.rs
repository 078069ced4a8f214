//! Writing to a peer that has gone must not kill a program that has not asked to ignore `SIGPIPE`.
//!
//! Rust programs ignore the signal from their start, so the test runs itself again with the default action.

use super::{run, tcp_pair};
use corelane::net::{UnixDatagram, UnixStream};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use std::io::{ErrorKind, IoSlice};
use std::net::Shutdown;
use std::process::Command;

const CHILD: &str = "CORELANE_TEST_SIGPIPE";

#[test]
fn a_write_to_a_peer_that_has_gone_is_an_error_and_no_signal() {
    if std::env::var_os(CHILD).is_some() {
        default_sigpipe();
        run(write_to_peers_that_have_gone);
        return;
    }
    let name = "a_write_to_a_peer_that_has_gone_is_an_error_and_no_signal";
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args([name, "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {text}", output.status);
    assert!(text.contains("1 passed"), "{text}");
}

async fn write_to_peers_that_have_gone() {
    let (mut a, b) = UnixStream::pair().expect("a pair");
    drop(b);
    let slices = [IoSlice::new(b"a"), IoSlice::new(b"b")];
    assert_eq!(a.write(b"x").await.expect_err("gone").kind(), ErrorKind::BrokenPipe);
    assert_eq!(a.write_vectored(&slices).await.expect_err("gone").kind(), ErrorKind::BrokenPipe);
    assert_eq!(a.try_write(b"x").expect_err("gone").kind(), ErrorKind::BrokenPipe);
    assert_eq!(a.try_write_vectored(&slices).expect_err("gone").kind(), ErrorKind::BrokenPipe);

    let (mut a, b) = tcp_pair().await;
    b.set_zero_linger().expect("set");
    drop(b);
    a.read(&mut [0]).await.expect_err("reset");
    assert_eq!(a.write(b"x").await.expect_err("gone").kind(), ErrorKind::BrokenPipe);
    assert_eq!(a.write_vectored(&slices).await.expect_err("gone").kind(), ErrorKind::BrokenPipe);

    let (a, _b) = UnixDatagram::pair().expect("a pair");
    a.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(a.send(b"x").await.expect_err("shut down").kind(), ErrorKind::BrokenPipe);
}

#[allow(unsafe_code)]
fn default_sigpipe() {
    // SAFETY: the default action is no handler, so no code runs in a signal's context.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}
