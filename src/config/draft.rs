//! The file form: what was given of each section, and where, before anybody has asked whether it makes sense together.
//!
//! Everything that gives values gives them to a draft: the file, the environment, flags, a program. Later givers replace
//! earlier ones.

use super::keys::{self, Section};
use super::kind::Raw;
use super::problem::{Place, Problem, Source, closest};
use super::value::{Origin, Table, Value};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    pub(crate) source: Source,
    pub(crate) runtime: Table,
    pub(crate) shard: Table,
    pub(crate) cores: Vec<Table>,
    pub(crate) listeners: Vec<Table>,
    pub(crate) routes: Vec<Table>,
    pub(crate) access_log: Table,
}

/// The name of the listener that there is if none is given.
pub(crate) const DEFAULT_LISTENER: &str = "default";

/// Where a server listens that was not told where.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// What every variable's name begins with.
const PREFIX: &str = "CORELANE";

impl Draft {
    /// The listener that there is if none is given.
    pub(crate) fn default_listener() -> Table {
        let mut table = Table::default();
        table.set(&keys::NAME, Value::Text(DEFAULT_LISTENER.to_owned()), Origin::Code);
        table.set(&keys::ADDRESS, Value::Address(DEFAULT_ADDRESS), Origin::Code);
        table
    }

    /// Takes what the environment gives: `CORELANE_RUNTIME_MODE`, `CORELANE_SHARD_BUSY_POLL`, and so on for every key of
    /// `[runtime]`, `[shard]` and `[access_log]`. Other variables are left alone.
    ///
    /// Returns what is wrong with them.
    pub(crate) fn take_environment(
        &mut self,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Vec<Problem> {
        let mut problems = Vec::new();
        let sections = [
            (&keys::RUNTIME, &mut self.runtime),
            (&keys::SHARD, &mut self.shard),
            (&keys::ACCESS_LOG, &mut self.access_log),
        ];
        let mut sections =
            sections.map(|(section, table)| (variable(section.name), section, table));
        for (name, value) in variables {
            for (prefix, section, table) in &mut sections {
                if let Some(rest) =
                    name.strip_prefix(prefix.as_str()).and_then(|rest| rest.strip_prefix('_'))
                {
                    problems.extend(take_variable(section, table, &name, rest, &value).err());
                }
            }
        }
        problems
    }
}

/// The part of a name that stands for a section or a key.
fn variable(name: &str) -> String {
    format!("{PREFIX}_{}", name.to_ascii_uppercase())
}

fn take_variable(
    section: &Section,
    table: &mut Table,
    name: &str,
    rest: &str,
    value: &str,
) -> Result<(), Problem> {
    let place = Place::Named(name.to_owned());
    let wanted = rest.to_ascii_lowercase();
    let Some(key) =
        section.keys.iter().find(|key| key.name == wanted && rest == wanted.to_ascii_uppercase())
    else {
        let meant = closest(&wanted, section.keys.iter().map(|key| key.name));
        let hint = meant.map(|key| {
            format!("did you mean {}_{}?", variable(section.name), key.to_ascii_uppercase())
        });
        return Err(Problem::new(place, format!("{} has no such key", section.title())).hint(hint));
    };
    match key.kind.read(Raw::Word(value.trim())) {
        Ok(value) => {
            table.set(key, value, Origin::Environment(name.to_owned()));
            Ok(())
        }
        Err(refusal) => Err(Problem::new(place, refusal.message).hint(refusal.hint)),
    }
}
