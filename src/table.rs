//! A table of values under small numbers that stay the same while the value is there.
//!
//! Plain data: one owner, no sharing. A number is used again after its value was removed; who keeps numbers beyond
//! that must keep a generation beside them.

/// See the module.
#[derive(Debug)]
pub(crate) struct Table<T> {
    entries: Vec<Entry<T>>,
    first_free: u32,
    len: usize,
}

#[derive(Debug)]
enum Entry<T> {
    Used(T),
    /// Number of the next free entry, or NONE.
    Free(u32),
}

const NONE: u32 = u32::MAX;

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Table { entries: Vec::new(), first_free: NONE, len: 0 }
    }

    /// Every number in use is below this.
    pub(crate) fn capacity(&self) -> u32 {
        self.entries.len() as u32
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Stores a value under the number that was freed last, or a new one.
    ///
    /// # Panics
    /// Beyond four billion values.
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        let index = self.first_free;
        match self.entries.get_mut(index as usize) {
            Some(entry) => {
                if let Entry::Free(next) = *entry {
                    self.first_free = next;
                }
                *entry = Entry::Used(value);
                index
            }
            None => {
                let index = u32::try_from(self.entries.len()).ok().filter(|&index| index != NONE);
                self.entries.push(Entry::Used(value));
                index.expect("a table holds at most u32::MAX - 1 values")
            }
        }
    }

    /// The number that the next value gets.
    pub(crate) fn vacant(&self) -> u32 {
        if self.first_free == NONE { self.capacity() } else { self.first_free }
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        match self.entries.get(index as usize) {
            Some(Entry::Used(value)) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.entries.get_mut(index as usize) {
            Some(Entry::Used(value)) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().filter_map(|entry| match entry {
            Entry::Used(value) => Some(value),
            Entry::Free(_) => None,
        })
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let entry = self.entries.get_mut(index as usize)?;
        if let Entry::Free(_) = entry {
            return None;
        }
        let old = std::mem::replace(entry, Entry::Free(self.first_free));
        self.first_free = index;
        self.len -= 1;
        match old {
            Entry::Used(value) => Some(value),
            Entry::Free(_) => None,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec((any::<bool>(), 0u32..20), 0..200)) {
            let mut table = Table::new();
            let mut model = HashMap::new();
            for (step, (insert, index)) in steps.into_iter().enumerate() {
                if insert {
                    let vacant = table.vacant();
                    let index = table.insert(step);
                    prop_assert_eq!(index, vacant);
                    prop_assert!(model.insert(index, step).is_none(), "number {index} was in use");
                } else {
                    prop_assert_eq!(table.remove(index), model.remove(&index));
                }
                prop_assert_eq!(table.len(), model.len());
                for index in 0..table.capacity() {
                    prop_assert_eq!(table.get(index), model.get(&index));
                }
            }
        }
    }
}
