//! `report.html`: one page that needs nothing else: no script, no font, no picture from elsewhere.
//!
//! Every text that comes from outside passes through [`escaped`]. The style sheet has both colour schemes.

use super::chart::{self, STYLES, Series};
use super::matrix;
use super::rows::{self, COLUMNS, CROSSED_COLUMNS, ERRORS, Row};
use super::statistics::Figures;
use super::verdict::{self, Line};
use super::{bytes, circumstances, command, counted, number, one_line};
use crate::cli::compare::model::{Report, Scenario};

/// The style sheet.
const STYLE: &str = include_str!("style.css");

/// The whole page.
pub(crate) fn html(report: &Report) -> String {
    let styles = Styles::of(report);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>corelane compare, {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        escaped(&report.date)
    );
    page.push_str(&header(report));
    page.push_str(&verdict(report));
    if let Some(matrix) = matrix::matrix(report, &styles) {
        page.push_str(&format!(
            "<section>\n<h2>At a glance</h2>\n<figure class=\"matrix\">\n{matrix}\n<figcaption>Requests per \
             second in per cent of the best, and p99 as a multiple of the lowest. Where a load was due at a \
             fixed rate, p99 comes first. ≈ best: no difference from the best. Colours: near the best is \
             dark, far from it is pale, striped does not count.</figcaption>\n</figure>\n</section>\n"
        ));
    }
    for (index, scenario) in report.scenarios.iter().enumerate() {
        page.push_str(&part(index, scenario, &styles));
    }
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

/// Which colour and shape each contender has, in all scenarios.
pub(super) struct Styles {
    names: Vec<String>,
}

impl Styles {
    /// In the order in which contenders first appear.
    pub(super) fn of(report: &Report) -> Styles {
        let mut names: Vec<String> = Vec::new();
        for contender in report.scenarios.iter().flat_map(|scenario| &scenario.contenders) {
            if !names.contains(&contender.name) {
                names.push(contender.name.clone());
            }
        }
        Styles { names }
    }

    /// All contenders.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The style of a contender; beyond [`STYLES`] they begin again.
    pub(super) fn style(&self, name: &str) -> usize {
        self.names.iter().position(|known| known == name).unwrap_or(0) % STYLES
    }
}

/// A text in which nothing is markup, also within an attribute.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

fn header(report: &Report) -> String {
    let machine = &report.machine;
    let cpus = counted(machine.cpus as u64, "CPU");
    let rounds = counted(u64::from(report.rounds), "round");
    let facts = [
        ("Machine", format!("{}, {cpus}, {}", machine.cpu, bytes(machine.memory_bytes))),
        ("Kernel", machine.kernel.clone()),
        ("Corelane", machine.version.clone()),
        ("Date", report.date.clone()),
        ("Rounds", format!("{rounds} of {} s for each contender", number(report.seconds))),
    ];
    let mut html = String::from(
        "<header>\n<p class=\"kind\">corelane compare</p>\n<h1>The same work, measured</h1>\n<dl class=\"facts\">\n",
    );
    for (name, value) in facts.into_iter().chain(circumstances(report)) {
        html.push_str(&format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", escaped(&value)));
    }
    html.push_str(&format!(
        "</dl>\n<pre class=\"command\"><code>{}</code></pre>\n",
        escaped(&command(&report.command))
    ));
    if report.interrupted {
        html.push_str(
            "<p class=\"warning\">The run was interrupted: what was not measured is missing.</p>\n",
        );
    }
    html.push_str("</header>\n");
    html
}

fn verdict(report: &Report) -> String {
    let verdict = verdict::of(report);
    let mut html =
        format!("<section class=\"verdict\">\n<h2>Verdict</h2>\n{}", lines(&verdict.summary));
    html.push_str("<div class=\"cards\">\n");
    for (index, section) in verdict.sections.iter().enumerate() {
        html.push_str(&format!(
            "<article>\n<h3><a href=\"#scenario-{index}\">{}</a></h3>\n{}</article>\n",
            escaped(&section.scenario),
            lines(&section.lines)
        ));
    }
    html.push_str("</div>\n</section>\n");
    html
}

fn lines(lines: &[Line]) -> String {
    let mut html = String::from("<dl class=\"lines\">\n");
    for Line { topic, text } in lines {
        html.push_str(&format!(
            "<div><dt>{}</dt><dd>{}</dd></div>\n",
            escaped(topic),
            // A number stays with its sign.
            escaped(text).replace(" %", "&nbsp;%")
        ));
    }
    html.push_str("</dl>\n");
    html
}

/// One scenario: its sentences, charts and table.
fn part(index: usize, scenario: &Scenario, styles: &Styles) -> String {
    let series: Vec<Series> = scenario
        .contenders
        .iter()
        .map(|contender| Series {
            name: one_line(&contender.name),
            style: styles.style(&contender.name),
            figures: Figures::of(contender),
        })
        .collect();
    let mut html = format!(
        "<section class=\"scenario\" id=\"scenario-{index}\">\n<h2>{}</h2>\n<p class=\"asks\">{}</p>\n\
         <p class=\"expects\">{}</p>\n<p class=\"load\">{}</p>\n<div class=\"charts\">\n",
        escaped(&one_line(&scenario.name)),
        escaped(&scenario.asks),
        escaped(&scenario.expects),
        escaped(&rows::load(scenario))
    );
    html.push_str(&figure(
        "latency",
        ("Latency by percentile", "Lower is better. Both axes are logarithmic."),
        chart::latencies(&series).map(|drawn| format!("{drawn}\n{}", legend(&series))),
    ));
    html.push_str(&figure(
        "throughput",
        (
            "Requests per second",
            "Higher is better. The median of the rounds, and the range from the lowest to the highest.",
        ),
        chart::throughput(&series),
    ));
    html.push_str(&figure(
        "cpu",
        ("CPU time per request", "Lower is better. User time (solid) and system time (pale)."),
        chart::cpu(&series),
    ));
    if let Some(drawn) = chart::per_core(&series) {
        html.push_str(&figure(
            "per-core",
            ("Requests by core", "The dashed line is the even share."),
            Some(drawn),
        ));
    }
    html.push_str("</div>\n");
    html.push_str(&table(scenario, &rows::rows(scenario), styles));
    html.push_str("</section>\n");
    html
}

fn figure(name: &str, (title, explanation): (&str, &str), drawn: Option<String>) -> String {
    let drawn = drawn.unwrap_or_else(|| "<p class=\"empty\">Nothing was measured.</p>".to_owned());
    format!(
        "<figure class=\"chart chart-{name}\">\n<figcaption><strong>{title}</strong> {explanation}\
         </figcaption>\n{drawn}\n</figure>\n"
    )
}

fn legend(series: &[Series]) -> String {
    let mut html = String::from("<ul class=\"legend\">");
    for one in series {
        html.push_str(&format!("<li>{}{}</li>", chart::key(one.style), escaped(&one.name)));
    }
    html.push_str("</ul>");
    html
}

/// The table of a scenario, the one of what crossed between cores, and what must be known to read them.
fn table(scenario: &Scenario, rows: &[Row], styles: &Styles) -> String {
    if rows.is_empty() {
        return "<p class=\"empty\">Nobody took part.</p>\n".to_owned();
    }
    let signs: Vec<String> = scenario
        .contenders
        .iter()
        .zip(rows)
        .map(|(contender, row)| {
            let mark = match row.mark.sign() {
                "" => String::new(),
                sign => format!(
                    "<span class=\"mark-sign\" title=\"{}\">{sign}</span> ",
                    row.mark.meaning()
                ),
            };
            format!(
                "<th scope=\"row\">{}{mark}{}</th>",
                chart::key(styles.style(&contender.name)),
                escaped(&row.label)
            )
        })
        .collect();
    let figures = rows.iter().zip(&signs).map(|(row, sign)| (sign, figure_cells(row)));
    let mut html = grid(&COLUMNS, figures);
    let crossed: Vec<(&String, String)> = rows
        .iter()
        .zip(&signs)
        .filter_map(|(row, sign)| Some((sign, plain_cells(row.crossed.as_ref()?))))
        .collect();
    if !crossed.is_empty() {
        html.push_str("<h3>Between cores, per 1,000 requests</h3>\n");
        html.push_str(&grid(&CROSSED_COLUMNS, crossed));
    }
    let notes: Vec<String> = rows::marks(rows)
        .map(|mark| format!("{} {}", mark.sign(), mark.meaning()))
        .chain(rows::warnings(rows))
        .collect();
    if !notes.is_empty() {
        html.push_str("<ul class=\"notes\">\n");
        for note in notes {
            html.push_str(&format!("<li>{}</li>\n", escaped(&note)));
        }
        html.push_str("</ul>\n");
    }
    html
}

/// The cells of a row. One that has no figures says why.
fn figure_cells(row: &Row) -> String {
    if !row.cells.is_empty() {
        return plain_cells(&row.cells);
    }
    let text = match &row.failure {
        Some(failure) => format!("failed: {failure}"),
        None => "not measured".to_owned(),
    };
    format!("<td class=\"failure\" colspan=\"{}\">{}</td>", COLUMNS.len(), escaped(&text))
}

fn plain_cells(cells: &[String]) -> String {
    let cell = |(index, cell): (usize, &String)| {
        let is_alarming = cells.len() == COLUMNS.len() && index == ERRORS && cell != "0";
        let class = if is_alarming { " class=\"errors\"" } else { "" };
        format!("<td{class}>{}</td>", escaped(cell))
    };
    cells.iter().enumerate().map(cell).collect()
}

fn grid<'a>(columns: &[&str], lines: impl IntoIterator<Item = (&'a String, String)>) -> String {
    let mut html = String::from(
        "<div class=\"scroll\" tabindex=\"0\"><table class=\"figures\"><thead><tr><th scope=\"col\">Architecture</th>",
    );
    for column in columns {
        html.push_str(&format!("<th scope=\"col\">{}</th>", escaped(column)));
    }
    html.push_str("</tr></thead><tbody>\n");
    for (head, cells) in lines {
        html.push_str(&format!("<tr>{head}{cells}</tr>\n"));
    }
    html.push_str("</tbody></table></div>\n");
    html
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::sample::{poor, sample};
    use super::*;

    /// Elements that have no end.
    const VOID: [&str; 1] = ["meta"];

    /// Checks that each tag is closed by its own and that what stands between tags is escaped; the first fault in words.
    fn fault(page: &str) -> Option<String> {
        let page = page.strip_prefix("<!DOCTYPE html>")?;
        let (before, rest) = page.split_once("<style>")?;
        let (_, after) = rest.split_once("</style>")?;
        let page = format!("{before}{after}");
        let mut open: Vec<&str> = Vec::new();
        let mut pieces = page.split('<');
        if pieces.next().is_some_and(|text| text.contains('>')) {
            return Some("a text before the first tag has a >".into());
        }
        for piece in pieces {
            let Some((tag, text)) = piece.split_once('>') else {
                return Some(format!("no end: <{piece}"));
            };
            let name = tag.split([' ', '/']).find(|name| !name.is_empty()).unwrap_or("");
            if tag.matches('"').count() % 2 == 1 || tag.contains('\'') || text.contains('>') {
                return Some(format!("<{tag}>{text}"));
            }
            if tag.starts_with('/') {
                if open.pop() != Some(name) {
                    return Some(format!("<{tag}> closes nothing: {open:?}"));
                }
            } else if !tag.ends_with('/') && !VOID.contains(&name) {
                open.push(name);
            }
        }
        (!open.is_empty()).then(|| format!("never closed: {open:?}"))
    }

    #[test]
    fn the_checker_finds_faults() {
        let with = |body: &str| format!("<!DOCTYPE html><p><style></style></p>{body}");
        for good in ["<p>a</p>", "<meta x=\"1\"><p class=\"a b\"><br/></p>"] {
            assert_eq!(fault(&with(good)), None);
        }
        for bad in
            ["<p>", "</p>", "<p><b></p></b>", "<p>a > b</p>", "<p a=\"1></p>", "<p a='1'></p>"]
        {
            assert!(fault(&with(bad)).is_some(), "{bad}");
        }
    }

    #[test]
    fn tags_are_balanced_whatever_is_missing() {
        for report in poor().into_iter().chain([sample()]) {
            let page = html(&report);
            assert_eq!(fault(&page), None);
            assert!(!page.contains("NaN") && !page.contains(">inf"), "{page}");
        }
    }

    #[test]
    fn each_scenario_has_each_chart_once() {
        let page = html(&sample());
        for name in ["latency", "throughput", "cpu"] {
            let class = format!("<figure class=\"chart chart-{name}\">");
            assert_eq!(page.matches(&class).count(), 3, "{name}");
        }
        let scenarios: Vec<&str> = page.split("<section class=\"scenario\"").skip(1).collect();
        let telling: Vec<bool> = scenarios
            .iter()
            .map(|one| one.contains("<figure class=\"chart chart-per-core\">"))
            .collect();
        assert_eq!(telling, [true, true, false]);
        assert_eq!(page.matches("<figure class=\"matrix\">").count(), 1);
        assert_eq!(page.matches("<figcaption>").count(), page.matches("<figure").count());
    }

    #[test]
    fn nothing_from_outside_is_markup() {
        let mut report = sample();
        let evil = "\"><script>alert(1)</script><img src=x onerror='x'>";
        report.command = evil.into();
        report.date = evil.into();
        report.machine.cpu = evil.into();
        report.machine.kernel = evil.into();
        report.machine.version = evil.into();
        for scenario in &mut report.scenarios {
            scenario.name.push_str(evil);
            scenario.asks = evil.into();
            scenario.expects = evil.into();
            for contender in &mut scenario.contenders {
                contender.name.push_str(evil);
                contender.architecture = evil.into();
                contender.failure = Some(evil.into());
                for round in &mut contender.rounds {
                    round.errors.insert(evil.into(), 9);
                }
            }
        }
        let page = html(&report);
        assert_eq!(fault(&page), None);
        assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
        assert!(page.contains("&lt;script&gt;"), "{page}");
    }

    #[test]
    fn it_needs_nothing_from_elsewhere() {
        let page = html(&sample());
        for word in ["http:", "https:", "url(", "@import", "<script", "<link", "src="] {
            assert!(!page.contains(word), "{word}");
        }
        assert!(page.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn contenders_keep_their_style_in_all_scenarios() {
        let mut report = sample();
        report.scenarios[1].contenders.reverse();
        let styles = Styles::of(&report);
        assert_eq!(styles.style("thread-per-core"), 0);
        assert_eq!(styles.style("elsewhere"), 7);
        assert_eq!(styles.names().len(), 8);
    }

    /// Not a test: writes the page where somebody can look at it.
    #[test]
    #[ignore = "writes a file, to be looked at"]
    fn sample_page() {
        let path = std::env::temp_dir().join("corelane-report.html");
        std::fs::write(&path, html(&sample())).expect("written");
        println!("{}", path.display());
    }
}
