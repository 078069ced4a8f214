//! Which CPUs the calling thread may run on: pinning it to one, and giving it a mask back.
//!
//! Owns nothing. Every call is about the thread that makes it and no other; on Linux a thread inherits the mask of
//! the thread that starts it, so whatever a pinned thread starts (the blocking pool, a helper) must be given the
//! process's mask, taken with `AffinityMask::current` before anything was pinned.
//!
//! Masks hold `CPU_LIMIT` CPUs. A larger number is refused, and a system whose masks are larger gives an error;
//! nothing is ever cut off or written past the end.
//!
//! It never changes another thread's mask, never remembers one, and never logs: the caller knows which shard it was.

use crate::id::CpuId;
use std::io;

/// CPU numbers from here on are not supported.
pub(crate) const CPU_LIMIT: usize = 1024;

/// Lets the calling thread run on this CPU only.
///
/// # Errors
///
/// What the operating system says: denied (`EPERM`), or no such CPU or none this process may use (`EINVAL`). A number
/// of `CPU_LIMIT` or more is `InvalidInput`.
pub(crate) fn pin_current_thread(cpu: CpuId) -> io::Result<()> {
    if cpu.0 >= CPU_LIMIT {
        return Err(beyond(cpu));
    }
    if core_affinity::set_for_current(core_affinity::CoreId { id: cpu.0 }) {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

fn beyond(cpu: CpuId) -> io::Error {
    let message = format!("{cpu} is beyond the highest supported one ({})", CPU_LIMIT - 1);
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Words for the `EINVAL` that reading a mask gives on a system whose masks are larger than ours.
pub(crate) fn reading_failed(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::InvalidInput {
        return error;
    }
    let message = format!(
        "this system's CPU masks are for more than {CPU_LIMIT} CPUs, which is not supported"
    );
    io::Error::new(io::ErrorKind::Unsupported, message)
}

pub(crate) use mask::AffinityMask;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod mask {
    use super::CPU_LIMIT;
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    use std::io;

    const _: () = assert!(CpuSet::MAX_CPU == CPU_LIMIT);

    /// The CPUs a thread may run on, as the kernel gave them.
    #[derive(Clone, Copy)]
    pub(crate) struct AffinityMask(CpuSet);

    impl AffinityMask {
        /// These CPUs.
        ///
        /// # Errors
        /// One of them has a number of `CPU_LIMIT` or more.
        #[cfg(feature = "compare")]
        pub(crate) fn of(cpus: &[crate::id::CpuId]) -> io::Result<Self> {
            let mut set = CpuSet::new();
            for cpu in cpus {
                if cpu.0 >= CPU_LIMIT {
                    return Err(super::beyond(*cpu));
                }
                set.set(cpu.0);
            }
            Ok(AffinityMask(set))
        }

        /// The mask of the calling thread.
        pub(crate) fn current() -> io::Result<Self> {
            let set =
                sched_getaffinity(None).map_err(|errno| super::reading_failed(errno.into()))?;
            Ok(AffinityMask(set))
        }

        /// Makes this the mask of the calling thread.
        pub(crate) fn apply_to_current_thread(&self) -> io::Result<()> {
            Ok(sched_setaffinity(None, &self.0)?)
        }
    }
}

/// Where threads have no mask that they inherit there is nothing to take and nothing to give back.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod mask {
    use std::io;

    /// Stands for the mask of a thread.
    #[derive(Clone, Copy)]
    pub(crate) struct AffinityMask(());

    impl AffinityMask {
        /// Succeeds.
        #[cfg(feature = "compare")]
        pub(crate) fn of(_cpus: &[crate::id::CpuId]) -> io::Result<Self> {
            Ok(AffinityMask(()))
        }

        /// Succeeds.
        pub(crate) fn current() -> io::Result<Self> {
            Ok(AffinityMask(()))
        }

        /// Succeeds, and does nothing.
        pub(crate) fn apply_to_current_thread(&self) -> io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::sys::cpus::allowed;
    use std::thread;

    #[test]
    fn a_pinned_thread_runs_on_its_cpu_only() {
        let cpu = *allowed().unwrap().last().unwrap();
        thread::spawn(move || {
            pin_current_thread(cpu).unwrap();
            assert_eq!(allowed().unwrap(), [cpu]);
        })
        .join()
        .unwrap();
        assert!(allowed().unwrap().contains(&cpu));
    }

    #[test]
    fn what_a_pinned_thread_starts_can_have_the_first_mask_back() {
        let before = allowed().unwrap();
        let mask = AffinityMask::current().unwrap();
        let cpu = before[0];
        let (inherited, restored) = thread::spawn(move || {
            pin_current_thread(cpu).unwrap();
            let child = thread::spawn(move || {
                let inherited = allowed().unwrap();
                mask.apply_to_current_thread().unwrap();
                (inherited, allowed().unwrap())
            });
            child.join().unwrap()
        })
        .join()
        .unwrap();
        assert_eq!(inherited, [cpu]);
        assert_eq!(restored, before);
    }

    #[cfg(feature = "compare")]
    #[test]
    fn a_mask_of_some_cpus_is_that_of_what_is_started_under_it() {
        let cpu = *allowed().unwrap().last().unwrap();
        let inherited = thread::spawn(move || {
            AffinityMask::of(&[cpu]).unwrap().apply_to_current_thread().unwrap();
            thread::spawn(|| allowed().unwrap()).join().unwrap()
        });
        assert_eq!(inherited.join().unwrap(), [cpu]);
        assert!(AffinityMask::of(&[cpu, CpuId(CPU_LIMIT)]).is_err());
    }

    #[test]
    fn cpu_numbers_beyond_the_mask_are_refused() {
        for number in [CPU_LIMIT, CPU_LIMIT + 1, usize::MAX] {
            let error = pin_current_thread(CpuId(number)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert_eq!(
                error.to_string(),
                format!("CPU {number} is beyond the highest supported one (1023)")
            );
        }
    }

    #[test]
    fn a_cpu_that_is_not_there_is_the_systems_error() {
        let absent = CpuId(CPU_LIMIT - 1);
        if allowed().unwrap().contains(&absent) {
            return;
        }
        assert_eq!(pin_current_thread(absent).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn a_mask_that_is_too_large_is_named() {
        let error = reading_failed(io::Error::from_raw_os_error(libc::EINVAL));
        assert_eq!(
            error.to_string(),
            "this system's CPU masks are for more than 1024 CPUs, which is not supported"
        );
        let error = reading_failed(io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }
}
