//! Stands in for Corelane's server in a build without the `corelane` feature.

use std::error::Error;

use super::Options;

/// Says why there is no such server here.
pub(super) fn run(_options: &Options) -> Result<(), Box<dyn Error>> {
    Err("built without the `corelane` feature".into())
}
