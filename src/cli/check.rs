//! `corelane check` and `corelane schema`: whether a configuration is right, what it comes to, and what can be written.

use super::CANNOT_START;
use super::serve::Flags;
use super::settings::Given;
use crate::config::keys::{Absent, Key, SECTIONS, Section};
use crate::config::kind::Kind;
use crate::config::value::Value;
use serde_json::{Map, Value as Json, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// The flags of `check`.
#[derive(clap::Args)]
pub(super) struct Options {
    /// The configuration file. Without one, what holds without a file is checked: the defaults and the environment.
    #[arg(env = "CORELANE_CONFIG")]
    file: Option<PathBuf>,

    /// Print every value that holds, and where it comes from: the default, the file, an environment variable, or a flag. The
    /// output is a configuration file that says the same.
    #[arg(long)]
    print_effective: bool,

    #[command(flatten)]
    flags: Flags,
}

/// Checks; binds nothing and starts nothing.
pub(super) fn run(options: &Options) -> ExitCode {
    let mut error = std::io::stderr();
    let checked =
        Given::take(options.file.as_deref()).map(|given| given.with_flags(&options.flags));
    let checked = checked.and_then(|given| Ok((given.check()?, given)));
    let (config, given) = match checked {
        Ok(checked) => checked,
        Err(wrong) => {
            let _ = writeln!(error, "{wrong}");
            return ExitCode::from(CANNOT_START);
        }
    };
    for expired in config.expired() {
        let _ = writeln!(error, "{expired}");
    }
    if !config.expired().is_empty() {
        return ExitCode::from(CANNOT_START);
    }
    for warning in config.warnings() {
        let _ = writeln!(error, "warning: {warning}");
    }
    let text = match (options.print_effective, &options.file) {
        (true, _) => given.draft.effective(),
        (false, Some(file)) => format!("{}: nothing is wrong with it\n", file.display()),
        (false, None) => {
            "the defaults and the environment: nothing is wrong with them\n".to_owned()
        }
    };
    print(&text)
}

/// Prints the JSON schema of a configuration file.
pub(super) fn schema() -> ExitCode {
    print(&format!("{:#}\n", schema_of_file()))
}

fn print(text: &str) -> ExitCode {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Draft 7, which is what editors of TOML read.
fn schema_of_file() -> Json {
    let mut properties = Map::new();
    for section in SECTIONS {
        let table = schema_of(section);
        let value = if section.repeated {
            json!({ "type": "array", "items": table, "description": section.doc })
        } else {
            table
        };
        properties.insert(section.name.to_owned(), value);
    }
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Corelane",
        "description": "The configuration of a Corelane server.",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

fn schema_of(section: &Section) -> Json {
    let properties: Map<String, Json> =
        section.keys.iter().map(|key| (key.name.to_owned(), schema_of_key(key))).collect();
    let required: Vec<&str> = section
        .keys
        .iter()
        .filter(|key| matches!(key.absent, Absent::Wrong))
        .map(|key| key.name)
        .collect();
    let mut schema = json!({
        "type": "object",
        "description": section.doc,
        "additionalProperties": false,
        "properties": properties,
        "required": required,
    });
    if !section.one_of.is_empty() {
        let alternatives = section.one_of.iter().map(|key| json!({ "required": [key.name] }));
        schema["oneOf"] = alternatives.collect();
    }
    if !section.not_both.is_empty() {
        let names: Vec<&str> = section.not_both.iter().map(|key| key.name).collect();
        schema["not"] = json!({ "required": names });
    }
    schema
}

fn schema_of_key(key: &Key) -> Json {
    let mut schema = match &key.kind {
        Kind::Count { least, most } => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Kind::Time { .. } => json!({ "type": "string", "pattern": "^[0-9]+ *(us|ms|s|m|h|d)$" }),
        Kind::Choice(words) => json!({ "type": "string", "enum": words }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Text
        | Kind::Address
        | Kind::SocketPath
        | Kind::FilePath
        | Kind::FileName
        | Kind::FieldValue
        | Kind::Target
        | Kind::Host => json!({ "type": "string" }),
        Kind::OneOf(numbers) => json!({ "type": "integer", "enum": numbers }),
        Kind::Yes => json!({ "const": true }),
        Kind::FileMode => json!({ "type": "string", "pattern": "^0?[0-7]{3}$" }),
        Kind::Name => json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" }),
        Kind::Names => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Path => json!({ "type": "string", "pattern": "^/[^ *?#]*\\*?$" }),
        Kind::Cpu => json!({ "type": "integer", "minimum": 0 }),
        Kind::Cores => json!({ "anyOf": [
            { "type": "string" },
            { "type": "integer", "minimum": 1 },
            { "type": "array", "items": { "type": "integer", "minimum": 0 }, "minItems": 1 },
        ] }),
        Kind::Fields => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::Table(section) => schema_of(section),
        Kind::Tables(section) => {
            json!({ "type": "array", "items": schema_of(section), "minItems": 1 })
        }
    };
    schema["description"] = json!(format!("{} Expected: {}.", key.doc, key.kind));
    if let Some(default) = key.default() {
        schema["default"] = match default {
            Value::Count(count) => json!(count),
            Value::Flag(flag) => json!(flag),
            Value::Fields(_) => json!({}),
            Value::Text(text) => json!(text),
            other => json!(other.to_string().trim_matches('"')),
        };
    }
    schema
}
