//! Which CPUs the contenders run on, and which the load generator.
//!
//! The contenders have those that were asked for, and no others, also those that pin nothing: a scheduler that is free to use more
//! than the others would be measured on another machine. The generator has what is left; if nothing is, it shares them all.

use super::Options;
use super::model::Machine;
use crate::id::CpuId;
use crate::sys::cpus;
use crate::topology::Placement;

/// The CPUs of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// In the order in which they were asked for: a thread each.
    pub(super) contenders: Vec<CpuId>,
    pub(super) generator: Vec<CpuId>,
    /// CPUs that this process may use.
    pub(super) allowed: usize,
}

impl Places {
    /// Those that the options ask for.
    ///
    /// # Errors
    /// They cannot be had.
    pub(super) fn plan(options: &Options) -> Result<Places, String> {
        let allowed =
            cpus::allowed().map_err(|error| format!("the CPUs cannot be read: {error}"))?;
        let placement = Placement::plan(&cpus::topology(), &allowed, &options.cores)
            .map_err(|error| error.to_string())?;
        Ok(Places::split(placement.cpus, &allowed))
    }

    fn split(contenders: Vec<CpuId>, allowed: &[CpuId]) -> Places {
        let left: Vec<CpuId> =
            allowed.iter().copied().filter(|cpu| !contenders.contains(cpu)).collect();
        let generator = if left.is_empty() { allowed.to_vec() } else { left };
        Places { contenders, generator, allowed: allowed.len() }
    }

    /// Threads of the generator: one for each CPU of its own. Of those that it shares it takes half, two at least, as the
    /// contenders want them too.
    pub(super) fn generator_threads(&self) -> usize {
        let count = self.generator.len();
        let shares = self.generator.iter().any(|cpu| self.contenders.contains(cpu));
        if shares { (count / 2).max(2).min(count) } else { count }
    }

    /// The first of the contenders' CPUs.
    pub(super) fn first(&self) -> CpuId {
        self.contenders.first().copied().unwrap_or(CpuId(0))
    }

    /// Writes them down.
    pub(super) fn note(&self, machine: &mut Machine) {
        let numbers = |cpus: &[CpuId]| cpus.iter().map(|cpu| cpu.0).collect();
        machine.contender_cpus = numbers(&self.contenders);
        machine.generator_cpus = numbers(&self.generator);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_generator_has_what_is_left_or_everything() {
        let cpus = |numbers: &[usize]| numbers.iter().copied().map(CpuId).collect::<Vec<_>>();
        let allowed = cpus(&[0, 1, 4, 5]);
        let places = Places::split(cpus(&[4, 0]), &allowed);
        assert_eq!(places.generator_threads(), 2);
        assert_eq!((places.contenders, places.generator), (cpus(&[4, 0]), cpus(&[1, 5])));
        let places = Places::split(allowed.clone(), &allowed);
        assert_eq!(places.generator, allowed);
        let shared = |count: usize| {
            let all: Vec<CpuId> = (0..count).map(CpuId).collect();
            Places::split(all.clone(), &all).generator_threads()
        };
        assert_eq!([1, 2, 3, 16].map(shared), [1, 2, 2, 8]);
    }
}
