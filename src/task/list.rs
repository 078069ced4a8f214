//! Lists that link through the tasks themselves: the run queue, and all tasks of a shard.
//!
//! They need no memory of their own, and a task leaves one from wherever it stands. Only the home touches them; it keeps
//! every task in a list alive until it has taken it out.

#![allow(unsafe_code)]

use super::cell::Header;
use crate::sync::Cell;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

/// A task's place in one list.
pub(super) struct Links {
    previous: Cell<*mut Header>,
    next: Cell<*mut Header>,
}

impl Links {
    pub(super) fn new() -> Links {
        Links { previous: Cell::new(ptr::null_mut()), next: Cell::new(ptr::null_mut()) }
    }
}

/// Which of its links a list uses.
pub(super) trait Chain {
    fn links(header: &Header) -> &Links;
}

/// See the module.
pub(super) struct List<C> {
    first: Cell<*mut Header>,
    last: Cell<*mut Header>,
    chain: PhantomData<C>,
}

impl<C: Chain> List<C> {
    pub(super) fn new() -> List<C> {
        List {
            first: Cell::new(ptr::null_mut()),
            last: Cell::new(ptr::null_mut()),
            chain: PhantomData,
        }
    }

    #[inline(always)]
    pub(super) fn first(&self) -> Option<NonNull<Header>> {
        NonNull::new(self.first.get())
    }

    /// The one behind `header`.
    ///
    /// # Safety
    /// `header` is in this list.
    pub(super) unsafe fn after(&self, header: NonNull<Header>) -> Option<NonNull<Header>> {
        // SAFETY: what is in a list is alive.
        NonNull::new(C::links(unsafe { header.as_ref() }).next.get())
    }

    /// # Safety
    /// `header` is alive until it is taken out, and in no list of this chain.
    #[inline(always)]
    pub(super) unsafe fn push_back(&self, header: NonNull<Header>) {
        let last = self.last.replace(header.as_ptr());
        // SAFETY: by contract, of this task and of those in the list.
        let (links, last_task) = unsafe { (C::links(header.as_ref()), last.as_ref()) };
        links.previous.set(last);
        links.next.set(ptr::null_mut());
        match last_task {
            Some(last) => C::links(last).next.set(header.as_ptr()),
            None => self.first.set(header.as_ptr()),
        }
    }

    #[inline(always)]
    pub(super) fn pop_front(&self) -> Option<NonNull<Header>> {
        let first = self.first()?;
        // SAFETY: what is in a list is alive, and so is the one behind it.
        unsafe {
            let next = C::links(first.as_ref()).next.get();
            self.first.set(next);
            match next.as_ref() {
                Some(next) => C::links(next).previous.set(ptr::null_mut()),
                None => self.last.set(ptr::null_mut()),
            }
        }
        Some(first)
    }

    /// # Safety
    /// `header` is in this list.
    #[inline(always)]
    pub(super) unsafe fn remove(&self, header: NonNull<Header>) {
        // SAFETY: what is in a list is alive, and so are its neighbours.
        unsafe {
            let links = C::links(header.as_ref());
            let (previous, next) = (links.previous.get(), links.next.get());
            match previous.as_ref() {
                Some(previous) => C::links(previous).next.set(next),
                None => self.first.set(next),
            }
            match next.as_ref() {
                Some(next) => C::links(next).previous.set(previous),
                None => self.last.set(previous),
            }
        }
    }
}
