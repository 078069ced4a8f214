//! Stands in for Corelane's operations in a build without the `corelane` feature.

use super::Operation;
use super::sample::Figures;

/// Says why there is no such contender here.
pub(super) fn measure(_operation: Operation, _cpus: [usize; 2]) -> Result<Figures, String> {
    Err("built without the `corelane` feature".to_owned())
}
