//! Memory of tasks that have ended, for those that come.
//!
//! One shard's. Blocks are of few sizes, so that one fits another task's future; one that waits holds the way to the
//! next. Most tasks then need no call of the allocator.

#![allow(unsafe_code)]

use crate::sync::dealloc;
use std::alloc::{Layout, alloc, handle_alloc_error};
use std::cell::Cell;
use std::ptr::{self, NonNull};

/// See the module.
pub(super) struct FreeList {
    sizes: [Kept; SIZES],
    /// Bytes kept of each size.
    most: usize,
}

struct Kept {
    first: Cell<*mut Block>,
    blocks: Cell<u32>,
}

struct Block {
    next: *mut Block,
}

/// The size and the alignment of every block is a multiple of this.
pub(super) const UNIT: usize = 64;
/// Larger blocks go back to the allocator.
pub(super) const KEPT_MAX: usize = SIZES * UNIT;
const SIZES: usize = 32;
/// Bytes kept of each size: a thousand tasks of 256 bytes, or more than a hundred connections of a server. None in debug
/// builds, so that memory checkers see every task's memory come and go.
const KEPT: usize = if cfg!(any(debug_assertions, loom)) { 0 } else { 256 << 10 };

impl FreeList {
    pub(super) const fn new() -> FreeList {
        FreeList::keeping(KEPT)
    }

    const fn keeping(most: usize) -> FreeList {
        FreeList {
            sizes: [const { Kept { first: Cell::new(ptr::null_mut()), blocks: Cell::new(0) } };
                SIZES],
            most,
        }
    }

    #[inline]
    pub(super) fn take(&self, layout: Layout) -> NonNull<u8> {
        let kept = self.sizes.get(layout.size() / UNIT - 1);
        match kept.and_then(Kept::take) {
            Some(block) => block.cast(),
            None => Self::allocate(layout),
        }
    }

    #[cold]
    fn allocate(layout: Layout) -> NonNull<u8> {
        // SAFETY: the size is at least UNIT, so not zero.
        NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
    }

    /// # Safety
    /// `block` was taken with this layout and is not used again.
    #[inline]
    pub(super) unsafe fn keep(&self, block: NonNull<u8>, layout: Layout) {
        match self.sizes.get(layout.size() / UNIT - 1) {
            Some(kept) if kept.bytes(layout) < self.most => {
                let block = block.cast::<Block>();
                // SAFETY: the block is ours, larger than this and aligned to UNIT.
                unsafe { block.write(Block { next: kept.first.get() }) };
                kept.first.set(block.as_ptr());
                kept.blocks.set(kept.blocks.get() + 1);
            }
            // SAFETY: by contract.
            _ => unsafe { dealloc(block.as_ptr(), layout) },
        }
    }
}

impl Kept {
    /// In blocks of this layout.
    #[inline]
    fn bytes(&self, layout: Layout) -> usize {
        self.blocks.get() as usize * layout.size()
    }

    #[inline]
    fn take(&self) -> Option<NonNull<Block>> {
        let block = NonNull::new(self.first.get())?;
        // SAFETY: the blocks of the list are ours, and `keep` has written this.
        self.first.set(unsafe { block.as_ref() }.next);
        self.blocks.set(self.blocks.get() - 1);
        Some(block)
    }
}

impl Drop for FreeList {
    fn drop(&mut self) {
        for (index, kept) in self.sizes.iter().enumerate() {
            let layout =
                Layout::from_size_align((index + 1) * UNIT, UNIT).expect("a few thousand bytes");
            while let Some(block) = kept.take() {
                // SAFETY: the block was taken with a layout of this size, see `Allocation::LAYOUT`, and is nobody's.
                unsafe { dealloc(block.as_ptr().cast(), layout) };
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).expect("a layout")
    }

    #[test]
    fn blocks_come_back_up_to_the_bound_and_are_freed_at_the_end() {
        let list = FreeList::keeping(4 * UNIT);
        for units in [1, 2, SIZES, SIZES + 1] {
            let layout = layout(units * UNIT, UNIT);
            let blocks: Vec<_> = (0..6).map(|_| list.take(layout)).collect();
            for block in &blocks {
                // SAFETY: the block is ours and of this size; AddressSanitizer sees if it is not.
                unsafe { ptr::write_bytes(block.as_ptr(), 0x5a, layout.size()) };
            }
            for &block in &blocks {
                // SAFETY: taken with this layout above, and not used again.
                unsafe { list.keep(block, layout) };
            }
            let kept = list.sizes.get(units - 1).map_or(0, |kept| kept.blocks.get());
            let expected = if units > SIZES { 0 } else { 4_usize.div_ceil(units) };
            assert_eq!(kept as usize, expected, "of {units} units");
            if expected > 0 {
                let again = list.take(layout);
                assert!(blocks[..expected].contains(&again), "a block that was kept");
                // SAFETY: taken with this layout, and not used again.
                unsafe { list.keep(again, layout) };
            }
        }
    }

    #[test]
    fn a_larger_alignment_is_never_kept() {
        let list = FreeList::keeping(usize::MAX);
        let layout = layout(KEPT_MAX + UNIT, 4 * UNIT);
        let block = list.take(layout);
        assert_eq!(block.as_ptr().addr() % layout.align(), 0);
        // SAFETY: taken with this layout, and not used again.
        unsafe { list.keep(block, layout) };
        assert!(list.sizes.iter().all(|kept| kept.blocks.get() == 0));
    }
}
