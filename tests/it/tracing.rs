//! What a runtime tells through `tracing`, as a subscriber records it.

use super::harness::*;
use corelane::{Runtime, tracing as events};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

/// Level, target and fields of each event.
type Recorded = (Level, String, BTreeMap<&'static str, String>);

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Recorded>>>);

struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(BTreeMap::new());
        event.record(&mut fields);
        let (level, target) = (*event.metadata().level(), event.metadata().target().to_owned());
        self.0.lock().expect("no panic").push((level, target, fields.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Recorder {
    /// The events with this message.
    fn of(&self, message: &str) -> Vec<Recorded> {
        let all = self.0.lock().expect("no panic");
        all.iter().filter(|(.., fields)| fields["message"] == message).cloned().collect()
    }
}

/// Tells of it in this recorder's name, on whatever thread.
fn recorded<E, T>(recorder: &Recorder, tell: T) -> impl Fn(E) + Send + Sync + use<E, T>
where
    T: Fn(E) + Send + Sync,
{
    let dispatch = Dispatch::new(recorder.clone());
    move |event| tracing::dispatcher::with_default(&dispatch, || tell(event))
}

#[test]
fn a_stall_a_panic_and_the_end_are_events_with_fields() {
    within_reason(|| {
        let recorder = Recorder::default();
        let builder = Runtime::builder().on_trouble(recorded(&recorder, events::troubles()));
        let runtime = start(1, builder).expect("started");
        recorded(&recorder, |runtime: &Runtime| events::started(runtime))(&runtime);
        let started = recorder.of("a shard has started");
        let [(Level::INFO, target, fields)] = &started[..] else { panic!("{started:?}") };
        assert_eq!((target.as_str(), fields["shard"].as_str()), ("corelane::runtime", "0"));
        assert!(fields.contains_key("cpu") && fields.contains_key("pinned"));

        let panicked = runtime.handle().spawn_on(FIRST, || async { deliberate() });
        assert!(wait(panicked.expect("a shard")).is_err());
        eventually("the panic is told", || {
            !recorder.of("tasks or requests have panicked").is_empty()
        });
        let (level, _, fields) = &recorder.of("tasks or requests have panicked")[0];
        assert_eq!((*level, fields["count"].as_str()), (Level::ERROR, "1"));

        let gate = Gate::close(runtime.handle(), FIRST);
        eventually("the stall is told", || !recorder.of("a task holds its shard").is_empty());
        gate.open();
        let (level, _, fields) = &recorder.of("a task holds its shard")[0];
        assert_eq!(*level, Level::WARN);
        assert!(fields["held_ms"].parse::<u64>().expect("a number") >= 25);

        let task = runtime.handle().spawn_on(FIRST, std::future::pending::<()>);
        let report = runtime.shutdown(Duration::ZERO);
        drop(task);
        recorded(&recorder, |report| events::ended(&report))(report);
        let ended = recorder.of("the runtime has ended before its tasks");
        let [(Level::WARN, _, fields)] = &ended[..] else { panic!("{ended:?}") };
        assert_eq!(fields["tasks_dropped"], "1");
    });
}

#[test]
fn events_of_a_server_have_their_fields() {
    let recorder = Recorder::default();
    let tell = recorded(&recorder, events::server_events());
    tell(corelane::server::Event::NotSteered {
        address: "127.0.0.1:80".parse().expect("an address"),
        error: std::io::ErrorKind::PermissionDenied.into(),
    });
    let all = recorder.0.lock().expect("no panic");
    let [(Level::WARN, target, fields)] = &all[..] else { panic!("{all:?}") };
    assert_eq!((target.as_str(), fields["address"].as_str()), ("corelane::server", "127.0.0.1:80"));
    assert_eq!(fields["error"], "permission denied");
}
