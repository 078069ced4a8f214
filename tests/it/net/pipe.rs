//! Pipes: anonymous and named ones, their ends, and what is no pipe.

use super::{fill, run};
use crate::harness::poll_now;
use corelane::net::Interest;
use corelane::net::unix::pipe::{self, OpenOptions, Receiver, Sender};
use futures::{AsyncReadExt, AsyncWriteExt};
use std::fs::File;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

#[test]
fn what_is_written_to_one_end_comes_out_of_the_other() {
    run(|| async {
        let (mut sender, mut receiver) = pipe::pipe().expect("a pipe");
        let sent: Vec<u8> = (0..1_000_000_u32).map(|number| number as u8).collect();
        let all = sent.clone();
        let writing = corelane::spawn_local(async move { sender.write_all(&all).await });
        let mut received = Vec::new();
        receiver.read_to_end(&mut received).await.expect("the end comes with the sender's");
        writing.await.expect("no panic").expect("written");
        assert!(received == sent);
    });
}

#[test]
fn each_end_tells_when_it_is_ready() {
    run(|| async {
        let (sender, receiver) = pipe::pipe().expect("a pipe");
        assert!(poll_now(sender.writable()).await.is_ready(), "there is room");
        assert!(poll_now(receiver.readable()).await.is_pending());
        let nothing = receiver.try_read(&mut [0]).expect_err("nothing is there");
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        assert_eq!(
            sender.try_write_vectored(&[IoSlice::new(b"a"), IoSlice::new(b"b")]).ok(),
            Some(2)
        );
        receiver.readable().await.expect("it has arrived");
        let (mut one, mut other, mut grown) = ([0], [0], Vec::new());
        let mut slices = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut other)];
        assert_eq!(receiver.try_read_vectored(&mut slices).ok(), Some(2));
        assert_eq!((one, other), ([b'a'], [b'b']));

        let written = fill(|bytes| sender.try_write(bytes)).await;
        assert!(poll_now(sender.writable()).await.is_pending());
        while grown.len() < written {
            receiver.readable().await.expect("it has arrived");
            receiver.try_read_buf(&mut grown).expect("read");
        }
        sender.writable().await.expect("there is room again");

        drop(receiver);
        assert!(sender.ready(Interest::ERROR).await.expect("nobody reads").is_error());
        let broken = sender.try_write(b"!").expect_err("nobody reads");
        assert_eq!(broken.kind(), ErrorKind::BrokenPipe);
    });
}

/// A pipe with a name, in a directory that goes with the value.
fn named() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo");
    assert!(made.success());
    (directory, path)
}

#[test]
fn a_pipe_with_a_name_is_opened_without_waiting() {
    run(|| async {
        let (_directory, path) = named();
        OpenOptions::new().open_sender(&path).expect_err("nobody reads");
        let mut receiver = OpenOptions::new().open_receiver(&path).expect("it need not wait");
        let early = receiver.try_read(&mut [0]).expect_err("no end before a beginning");
        assert_eq!(early.kind(), ErrorKind::WouldBlock);
        assert!(poll_now(receiver.read(&mut [0])).await.is_pending());
        let mut sender = OpenOptions::new().open_sender(&path).expect("somebody reads");
        sender.write_all(b"hello").await.expect("written");
        drop(sender);
        let mut text = String::new();
        receiver.read_to_string(&mut text).await.expect("read");
        assert_eq!(text, "hello");
        let both = OpenOptions::new().read_write(true).open_sender(&path);
        drop(receiver);
        let both = both.expect("it is its own reader");
        both.writable().await.expect("there is room");
        assert_eq!(both.try_write(b"!").ok(), Some(1));
    });
}

#[test]
fn what_is_no_pipe_or_the_wrong_end_is_refused() {
    run(|| async {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let refused = [
            OpenOptions::new().open_receiver(file.path()).map(drop),
            OpenOptions::new().open_sender(file.path()).map(drop),
            Receiver::from_file(file.reopen().expect("opened")).map(drop),
            Sender::from_file(file.reopen().expect("opened")).map(drop),
        ];
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let wrong = [
            Receiver::from_owned_fd(OwnedFd::from(writer)).map(drop),
            Sender::from_owned_fd(OwnedFd::from(reader)).map(drop),
        ];
        for refused in refused.into_iter().chain(wrong) {
            assert_eq!(refused.expect_err("refused").kind(), ErrorKind::InvalidInput);
        }
    });
}

#[test]
fn an_end_goes_back_to_the_standard_library() {
    run(|| async {
        let (sender, receiver) = pipe::pipe().expect("a pipe");
        assert!(poll_now(receiver.readable()).await.is_pending(), "it is registered");
        let mut file = File::from(receiver.into_nonblocking_fd().expect("given back"));
        assert_eq!(file.read(&mut [0]).expect_err("nothing").kind(), ErrorKind::WouldBlock);
        let receiver = Receiver::from_file(file).expect("it is a pipe's");
        sender.try_write(b"!").expect("there is room");
        receiver.readable().await.expect("it has arrived");
        let mut file = File::from(receiver.into_blocking_fd().expect("given back"));
        drop(sender);
        let mut text = String::new();
        file.read_to_string(&mut text).expect("read to the end, blocking");
        assert_eq!(text, "!");
    });
}
