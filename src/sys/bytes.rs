//! Receiving into a `bytes::BufMut`, whose free part is memory that need not be initialized.
//!
//! One system call each, into the first contiguous part of the buffer. It keeps no state.

// `BufMut` hands its memory out, and is told how much of it was filled, through unsafe functions only.
#![allow(unsafe_code)]

use super::socket::{internet_address, recv_uninit, std_unix_address};
use bytes::BufMut;
use socket2::{SockAddr, SockRef};
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net as unix;

/// Receives from a socket and says how many bytes.
pub(crate) fn recv(socket: &impl AsFd, buf: &mut impl BufMut) -> io::Result<usize> {
    let received = recv_uninit(socket, memory(buf))?;
    // SAFETY: the kernel has written so many bytes into `memory(buf)`.
    unsafe { buf.advance_mut(received) };
    Ok(received)
}

/// Reads from a pipe, which has no `recv`, and says how many bytes.
pub(crate) fn read(pipe: &impl AsFd, buf: &mut impl BufMut) -> io::Result<usize> {
    let read = rustix::io::read(pipe, memory(buf))?.0.len();
    // SAFETY: as in `recv`.
    unsafe { buf.advance_mut(read) };
    Ok(read)
}

/// Receives a datagram and says who sent it.
pub(crate) fn recv_from(
    socket: &impl AsFd,
    buf: &mut impl BufMut,
) -> io::Result<(usize, SocketAddr)> {
    let (received, sender) = receive_from(socket, buf)?;
    Ok((received, internet_address(&sender)?))
}

/// [`recv_from`] of a Unix socket.
pub(crate) fn recv_from_unix(
    socket: &impl AsFd,
    buf: &mut impl BufMut,
) -> io::Result<(usize, unix::SocketAddr)> {
    let (received, sender) = receive_from(socket, buf)?;
    Ok((received, std_unix_address(&sender)?))
}

fn receive_from(socket: &impl AsFd, buf: &mut impl BufMut) -> io::Result<(usize, SockAddr)> {
    let (received, sender) = SockRef::from(socket).recv_from(memory(buf))?;
    // SAFETY: as in `recv`.
    unsafe { buf.advance_mut(received) };
    Ok((received, sender))
}

/// The free memory of `buf`. Private to this file, which gives it to the kernel only: nothing that was initialized in it
/// is made uninitialized.
fn memory(buf: &mut impl BufMut) -> &mut [MaybeUninit<u8>] {
    // SAFETY: see above.
    unsafe { buf.chunk_mut().as_uninit_slice_mut() }
}
