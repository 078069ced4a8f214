//! Made-up reports for the tests: with winners both ways, ties, errors, failures and names that mean harm.

use crate::cli::compare::model::{Contender, Crossed, FORMAT, Machine, Report, Round, Scenario};

/// A small generator of numbers that are random enough, and the same each time.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Between 0 and 1, neither of them included (splitmix64).
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// From the normal distribution (Box and Muller).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// A round of ten seconds with the given requests per second, p99 in microseconds and CPU microseconds per request.
pub(super) fn round(number: u32, rate: f64, tail: f64, cpu: f64) -> Round {
    let requests = (rate * 10.0) as u64;
    // Each latency, and how many of 100,000 requests have it.
    let shape = [
        (0.3, 50_000),
        (0.4, 25_000),
        (0.55, 15_000),
        (1.0, 9_000),
        (1.6, 950),
        (2.1, 45),
        (2.6, 5),
    ];
    let bins = shape.map(|(times, share)| ((tail * times) as u64, share));
    Round {
        number,
        seconds: 10.0,
        requests,
        latencies: bins.to_vec(),
        user_micros: (cpu > 0.0).then_some((requests as f64 * cpu * 0.4) as u64),
        system_micros: (cpu > 0.0).then_some((requests as f64 * cpu * 0.6) as u64),
        context_switches: Some(requests / 50),
        rss_bytes: 12_500_000,
        generator_busy: 0.6,
        ..Round::default()
    }
}

/// A contender with these rounds.
pub(super) fn contender(name: &str, rounds: Vec<Round>) -> Contender {
    let architecture = match name {
        "thread-per-core" => "thread per core",
        "work-stealing" => "work stealing",
        "tokio" => "Tokio, multi-thread",
        "tokio-per-core" => "Tokio, one runtime per core",
        "blocking" => "one thread, blocking",
        "thread-per-connection" => "thread per connection",
        other => other,
    };
    Contender {
        name: name.into(),
        architecture: architecture.into(),
        rounds,
        failure: None,
        dropped: Vec::new(),
    }
}

/// A scenario with these contenders.
pub(super) fn scenario(name: &str, contenders: Vec<Contender>) -> Scenario {
    Scenario {
        name: name.into(),
        asks: format!("What does {name} cost when nothing else is going on?"),
        expects: "Whoever moves the least between cores.".into(),
        connections: 256,
        rate: None,
        payload: 0,
        pipeline: 1,
        contenders,
    }
}

/// A report of these scenarios.
pub(super) fn report(scenarios: Vec<Scenario>) -> Report {
    Report {
        format: FORMAT,
        command: "corelane compare --scenario hello".into(),
        date: "2026-11-25 09:30 UTC".into(),
        machine: Machine {
            cpu: "Imaginary CPU @ 3.0 GHz".into(),
            cpus: 2,
            memory_bytes: 8 << 30,
            kernel: "Linux 6.12.0".into(),
            version: "0.1.0".into(),
            ..Machine::default()
        },
        versions: Vec::new(),
        seconds: 10.0,
        rounds: 5,
        interrupted: false,
        scenarios,
    }
}

/// Rounds that scatter by one per cent around what is given.
fn scattered(random: &mut Random, rounds: u32, rate: f64, tail: f64, cpu: f64) -> Vec<Round> {
    let rounds = (0..rounds).map(|number| {
        let mut near = |value: f64| value * (0.01 * random.normal()).exp();
        round(number, near(rate), near(tail), near(cpu))
    });
    rounds.collect()
}

/// The six contenders, from the rate, tail and CPU of each.
fn six(random: &mut Random, levels: [(f64, f64, f64); 6]) -> Vec<Contender> {
    let names = [
        "thread-per-core",
        "work-stealing",
        "tokio",
        "tokio-per-core",
        "blocking",
        "thread-per-connection",
    ];
    let both = names.into_iter().zip(levels);
    let mut all: Vec<Contender> = both
        .map(|(name, (rate, tail, cpu))| contender(name, scattered(random, 5, rate, tail, cpu)))
        .collect();
    for round in &mut all[0].rounds {
        round.per_core = vec![round.requests / 2, round.requests - round.requests / 2];
        round.crossed = Some(Crossed::default());
    }
    for round in &mut all[1].rounds {
        round.per_core = vec![round.requests * 3 / 5, round.requests * 2 / 5];
        let wakes = round.requests / 20;
        round.crossed =
            Some(Crossed { foreign_wakes: wakes, steals: wakes / 7, inbox_messages: 40 });
    }
    all
}

/// Everything that a report may hold, good and bad.
pub(super) fn sample() -> Report {
    let mut random = Random::new(7);
    let hello = scenario(
        "hello",
        six(
            &mut random,
            [
                (212_000.0, 2_100.0, 4.6),
                (187_000.0, 2_600.0, 5.2),
                (189_000.0, 2_580.0, 5.3),
                (205_000.0, 2_300.0, 4.9),
                (31_000.0, 140_000.0, 6.1),
                (96_000.0, 21_000.0, 10.2),
            ],
        ),
    );
    let mut tail = scenario(
        "heavy-tail",
        six(
            &mut random,
            [
                (31_000.0, 34_000.0, 62.0),
                (31_100.0, 9_000.0, 62.1),
                (30_900.0, 9_300.0, 62.4),
                (31_050.0, 35_000.0, 61.9),
                (15_000.0, 310_000.0, 61.0),
                (29_500.0, 11_000.0, 66.0),
            ],
        ),
    );
    tail.rate = Some(31_000.0);
    tail.contenders[4].rounds[1].errors =
        [("timeout".to_owned(), 812), ("read".to_owned(), 3)].into();
    (tail.contenders[0].rounds[1].generator_busy, tail.contenders[0].rounds[1].generator_waited) =
        (0.99, 0.4);
    tail.contenders[5].failure = Some("thread-per-connection died: signal 9".into());
    tail.contenders[5].rounds.truncate(2);
    let mut same = scenario(
        "few",
        vec![
            contender("thread-per-core", scattered(&mut random, 5, 90_000.0, 90.0, 9.0)),
            contender("work-stealing", scattered(&mut random, 5, 90_200.0, 90.0, 9.0)),
            contender("<script>alert('x')</script> & |co|", Vec::new()),
            contender("elsewhere", scattered(&mut random, 5, 70_000.0, 120.0, 0.0)),
        ],
    );
    same.payload = 1 << 20;
    same.contenders[0].rounds[2].generator_busy = 0.97;
    same.contenders[2].failure = Some("never ready:\n<b>refused</b> `for 5 s`".into());
    for round in &mut same.contenders[3].rounds {
        (round.rss_bytes, round.context_switches) = (0, None);
    }
    report(vec![hello, tail, same])
}

/// Reports of which much is missing.
pub(super) fn poor() -> Vec<Report> {
    let mut interrupted = sample();
    interrupted.interrupted = true;
    for contender in interrupted.scenarios.iter_mut().flat_map(|one| &mut one.contenders) {
        contender.rounds.truncate(1);
    }
    let zero = || Round { number: 1, ..Round::default() };
    let overflowing = Round {
        number: 2,
        seconds: f64::MIN_POSITIVE,
        requests: u64::MAX,
        latencies: vec![(0, 1), (u64::MAX, u64::MAX)],
        user_micros: Some(u64::MAX),
        per_core: vec![0, u64::MAX],
        generator_busy: f64::NAN,
        ..Round::default()
    };
    vec![
        report(Vec::new()),
        report(vec![scenario("nobody", Vec::new())]),
        report(vec![scenario(
            "nothing",
            vec![contender("a", Vec::new()), contender("", Vec::new())],
        )]),
        report(vec![scenario(
            "zero",
            vec![contender("a", vec![zero(); 4]), contender("a", vec![zero(), overflowing])],
        )]),
        interrupted,
    ]
}
