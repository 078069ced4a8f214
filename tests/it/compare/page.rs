//! The report in a real browser.

use super::{run, text};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Names of the browser's program.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Reads off the page what is to be seen: each figure with the size of its drawing, its bars and its lines, and whether the page is
/// wider than its window.
const LOOK: &str = "<script>addEventListener('load', () => {
    const seen = [...document.querySelectorAll('figure')].map(figure => {
        const box = figure.querySelector('svg, table').getBoundingClientRect();
        const bars = [...figure.querySelectorAll('rect.bar')];
        const drawn = bars.filter(bar => bar.getBoundingClientRect().width > 0).length;
        const lines = [...figure.querySelectorAll('polyline.line')];
        const long = lines.filter(line => line.getTotalLength() > 50).length;
        const size = Math.round(box.width) + 'x' + Math.round(box.height);
        return figure.className + '=' + [size, drawn, long].join(',');
    });
    const root = document.documentElement;
    document.body.setAttribute('data-seen', seen.join(';'));
    document.body.setAttribute('data-fits', root.scrollWidth <= root.clientWidth);
});</script>";

/// The page as the browser has it, in a window of this width.
fn rendered(browser: &str, page: &Path, width: u32) -> String {
    let profile = tempfile::tempdir().expect("a directory");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={width},900"))
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .output()
        .expect("started");
    text(&output.stdout)
}

fn attribute(page: &str, name: &str) -> String {
    let start = page.find(&format!("{name}=\"")).unwrap_or_else(|| panic!("no {name}: {page}"));
    let value = &page[start + name.len() + 2..];
    value[..value.find('"').expect("its end")].to_owned()
}

#[test]
fn every_chart_is_seen() {
    let found = |name: &&str| {
        let version = Command::new(name).arg("--version").stdout(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    let Some(browser) = BROWSERS.iter().copied().find(found) else {
        assert!(std::env::var_os("CORELANE_TEST_BROWSER").is_none(), "there is no browser");
        eprintln!("SKIPPED: there is no browser; apt-get install chromium");
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().to_str().expect("a path");
    let output = run(&[
        "compare",
        "--out",
        out,
        "--duration",
        "0.3",
        "--rounds",
        "3",
        "--scenario",
        "hello",
        "--scenario",
        "few",
        "--contender",
        "thread-per-core",
        "--contender",
        "work-stealing",
        "--contender",
        "tokio",
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let page = fs::read_to_string(directory.path().join("report.html")).expect("written");
    let watched = directory.path().join("watched.html");
    fs::write(&watched, page.replace("</body>", &format!("{LOOK}</body>"))).expect("written");
    for width in [1280, 500] {
        let page = rendered(browser, &watched, width);
        let seen = attribute(&page, "data-seen");
        for chart in ["chart-latency", "chart-throughput", "chart-cpu", "chart-per-core", "matrix"]
        {
            let drawings: Vec<[f64; 4]> = seen
                .split(';')
                .filter_map(|figure| figure.split_once('='))
                .filter(|(class, _)| class.split(' ').any(|class| class == chart))
                .map(|(_, drawing)| {
                    let mut numbers =
                        drawing.split(['x', ',']).map(|it| it.parse().expect("a number"));
                    std::array::from_fn(|_| numbers.next().expect("four"))
                })
                .collect();
            let expected = if chart == "matrix" { 1 } else { 2 };
            assert_eq!(drawings.len(), expected, "{chart} in {seen}");
            // Of three contenders. Those of Corelane tell what each core has done.
            let (bars, lines) = match chart {
                "chart-latency" => (0.0, 3.0),
                "chart-throughput" | "chart-cpu" => (3.0, 0.0),
                "chart-per-core" => (2.0, 0.0),
                _ => (0.0, 0.0),
            };
            for [width, height, drawn, long] in drawings {
                assert!(width >= 200.0 && height >= 60.0, "{chart}: {width} x {height}");
                assert!(drawn >= bars && long >= lines, "{chart}: {drawn} bars, {long} lines");
            }
        }
        assert_eq!(attribute(&page, "data-fits"), "true", "at {width}");
        assert!(!page.contains("NaN"), "a figure is none");
    }
}
