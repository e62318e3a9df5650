//! A run as one page: charts with their numbers beside them, and what was run where. The file needs
//! nothing else: no network, no script. It is well-formed XML too, so that programs can read it.

use std::fmt::{Display, Write as _};

use super::{
    chart::{self, Group},
    figures::{Percentiles, SetupFigures, StepFigures},
    report::Report,
};
use crate::{
    failure::Outcome,
    output::{count, number_short, size, time_short},
};

/// How the page looks; what makes charts fit a dark page follows it.
const STYLE: &str = include_str!("page.css");

/// The page of a run.
///
/// # Errors
/// A chart cannot be drawn.
pub(crate) fn page(report: &Report) -> Outcome<String> {
    let mut html = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n");
    html.push_str("<meta charset=\"utf-8\"/>\n<title>rhash bench</title>\n");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/>\n");
    html.push_str("<style>\n");
    html.push_str(STYLE);
    html.push_str(&chart::dark_rules());
    html.push_str("}\n</style>\n</head>\n<body>\n<main>\n");
    head(report, &mut html);
    rates(report, &mut html)?;
    times(report, &mut html)?;
    latencies(report, &mut html)?;
    memory(report, &mut html)?;
    html.push_str("</main>\n</body>\n</html>\n");
    Ok(html)
}

fn head(report: &Report, html: &mut String) {
    let machine = &report.machine;
    let settings = &report.settings;
    let facts = [
        (
            "command",
            format!("<code>{}</code>", escaped(&report.command)),
        ),
        (
            "version",
            format!("rhash {}, {}", report.version, report.date),
        ),
        (
            "machine",
            escaped(&format!(
                "{}, {} cores, {}, {}",
                machine.processor,
                machine.cores,
                size(machine.memory_bytes),
                machine.system
            )),
        ),
        (
            "data",
            format!(
                "keys of {} and values of {} bytes; lists of postings of {} bytes",
                settings.key_bytes, settings.value_bytes, settings.posting_bytes
            ),
        ),
        (
            "gets",
            format!(
                "on one connection, past the client's cache; batches of {} keys; uniform, and by \
                 Zipf's law with exponent {}; {} s each",
                count(settings.batch_keys as u64),
                settings.zipf_exponent,
                settings.get_seconds
            ),
        ),
        (
            "rounds",
            format!(
                "{} on each server, in turn; seed {}; all answers were checked",
                settings.rounds, settings.seed
            ),
        ),
    ];
    html.push_str("<h1>rhash bench</h1>\n<dl>\n");
    for (name, fact) in facts {
        put(html, format_args!("<dt>{name}</dt><dd>{fact}</dd>\n"));
    }
    html.push_str("</dl>\n<div class=\"card\">\n");
    let headings = [
        "server",
        "data",
        "memory limit",
        "data / limit",
        "most memory",
        "most disk",
        "round trip",
    ];
    table(html, &headings, report.setups.iter().map(server_row));
    html.push_str("</div>\n");
}

fn server_row(setup: &SetupFigures) -> (bool, Vec<String>) {
    let cells = vec![
        setup.name.clone(),
        size(setup.data_bytes),
        size(setup.limit_bytes),
        format!(
            "{:.2}",
            setup.data_bytes as f64 / setup.limit_bytes.max(1) as f64
        ),
        size(setup.memory_bytes_max),
        if setup.memory_only {
            "none".to_owned()
        } else {
            size(setup.disk_bytes_max)
        },
        time_short(setup.round_trip_ms),
    ];
    (false, cells)
}

fn rates(report: &Report, html: &mut String) -> Outcome {
    let steps = steps(report);
    let groups: Vec<Group> = steps.iter().filter_map(|step| Group::rates(step)).collect();
    html.push_str("<h2>Rates</h2>\n<p class=\"faint\">More is better. The median of all rounds; each step has a scale of its own.</p>\n<div class=\"pair\">\n");
    figure(
        report,
        "Rates of each step on each server",
        &chart::bars(&groups)?,
        html,
    );
    html.push_str("<div class=\"card\">\n");
    let headings = [
        "step",
        "server",
        "a second",
        "least",
        "most",
        "of the first",
    ];
    let rows = lines(report, &steps, |step, first| {
        let rate = step.per_second?;
        let share = first
            .per_second
            .map_or(1.0, |first| rate.median / first.median.max(1e-9));
        Some(vec![
            number_short(rate.median),
            number_short(rate.least),
            number_short(rate.most),
            format!("{:.0} %", share * 100.0),
        ])
    });
    table(html, &headings, rows);
    html.push_str("</div>\n</div>\n");
    Ok(())
}

fn times(report: &Report, html: &mut String) -> Outcome {
    let is_timed = |step: &Vec<Option<&StepFigures>>| {
        let first = step.iter().flatten().next();
        first.is_some_and(|first| first.step.is_timed())
    };
    let steps: Vec<_> = steps(report)
        .into_iter()
        .filter(|step| !is_timed(step))
        .collect();
    let groups: Vec<Group> = steps.iter().filter_map(|step| Group::times(step)).collect();
    html.push_str("<h2>Times</h2>\n<p class=\"faint\">Less is better. Settling is the time after a build or a load until spills and merges rest.</p>\n<div class=\"pair\">\n");
    figure(
        report,
        "Times of each step on each server",
        &chart::bars(&groups)?,
        html,
    );
    html.push_str("<div class=\"card\">\n");
    let headings = ["step", "server", "time", "least", "most"];
    let rows = lines(report, &steps, |step, _| {
        let seconds = [step.seconds.median, step.seconds.least, step.seconds.most];
        Some(seconds.map(|seconds| time_short(seconds * 1e3)).to_vec())
    });
    table(html, &headings, rows);
    html.push_str("</div>\n</div>\n");
    Ok(())
}

fn latencies(report: &Report, html: &mut String) -> Outcome {
    let steps: Vec<_> = steps(report)
        .into_iter()
        .filter(|step| step.iter().flatten().any(|step| step.latency.is_some()))
        .collect();
    let latency = |step: &Option<&StepFigures>| step.and_then(|step| step.latency);
    let groups: Vec<(String, Vec<Option<Percentiles>>)> = steps
        .iter()
        .map(|step| {
            let name = step.iter().flatten().next().map(|step| step.step.name());
            (
                name.unwrap_or_default().to_owned(),
                step.iter().map(latency).collect(),
            )
        })
        .collect();
    html.push_str("<h2>Latencies</h2>\n<p class=\"faint\">Less is better. From the median (the largest dot) over the 99th and the 99.9th percentile to the longest call, on a logarithmic scale. Of writes, the time to hand over a batch: a writer waits when the server has enough to do.</p>\n<div class=\"pair\">\n");
    figure(
        report,
        "Latencies of each step on each server",
        &chart::latencies(&groups)?,
        html,
    );
    html.push_str("<div class=\"card\">\n");
    let headings = [
        "step", "server", "p50", "p90", "p99", "p99.9", "most", "calls",
    ];
    let rows = lines(report, &steps, |step, _| {
        let of = step.latency?;
        let mut cells: Vec<String> = [of.p50_ms, of.p90_ms, of.p99_ms, of.p999_ms, of.max_ms]
            .map(time_short)
            .to_vec();
        cells.push(count(of.calls));
        Some(cells)
    });
    table(html, &headings, rows);
    html.push_str("</div>\n</div>\n");
    Ok(())
}

fn memory(report: &Report, html: &mut String) -> Outcome {
    html.push_str("<h2>Memory and disk</h2>\n<p class=\"faint\">What the servers say of themselves, of the first round. Numbers stand where a step begins: ");
    let names = report.setups.first().map(|setup| {
        let marks = setup.marks.iter().enumerate();
        let names: Vec<String> = marks
            .map(|(at, mark)| format!("{} {}", at + 1, mark.step.name()))
            .collect();
        names.join(", ")
    });
    put(html, format_args!("{}.</p>\n", names.unwrap_or_default()));
    let headings = [
        "step",
        "most memory",
        "disk",
        "spilled",
        "merged",
        "cold reads",
        "promoted",
        "stalled",
    ];
    for setup in &report.setups {
        put(
            html,
            format_args!("<h3>{}</h3>\n<div class=\"pair\">\n", escaped(&setup.name)),
        );
        let legend = chart::over_time_legend(setup);
        let legend = legend
            .into_iter()
            .map(|(colour, name)| (colour, name.to_owned()));
        let text = format!("Memory and disk over time: {}", setup.name);
        figure_of(legend, &text, &chart::over_time(setup)?, html);
        html.push_str("<div class=\"card\">\n");
        let rows = setup.steps.iter().map(|step| {
            let server = &step.server;
            let cells = vec![
                step.step.name().to_owned(),
                size(server.memory_bytes_max),
                size(server.disk_bytes),
                size(server.spilled_bytes),
                size(server.merged_bytes),
                count(server.cold_reads),
                count(server.promoted_entries),
                time_short(server.stall_ms as f64),
            ];
            (false, cells)
        });
        table(html, &headings, rows);
        html.push_str("</div>\n</div>\n");
    }
    Ok(())
}

/// Each step on all servers.
fn steps(report: &Report) -> Vec<Vec<Option<&StepFigures>>> {
    let most = report.setups.iter().map(|setup| setup.steps.len()).max();
    (0..most.unwrap_or(0))
        .map(|at| {
            report
                .setups
                .iter()
                .map(|setup| setup.steps.get(at))
                .collect()
        })
        .collect()
}

/// A row for each step on each server, with the cells that `cells` makes of it and of the same step
/// on the first server.
fn lines(
    report: &Report,
    steps: &[Vec<Option<&StepFigures>>],
    cells: impl Fn(&StepFigures, &StepFigures) -> Option<Vec<String>>,
) -> Vec<(bool, Vec<String>)> {
    let mut rows = Vec::new();
    for step in steps {
        let Some(&first) = step.iter().flatten().next() else {
            continue;
        };
        for (at, (of, setup)) in step.iter().zip(&report.setups).enumerate() {
            let Some(numbers) = of.and_then(|of| cells(of, first)) else {
                continue;
            };
            let name = if at == 0 { first.step.name() } else { "" };
            let mut row = vec![name.to_owned(), setup.name.clone()];
            row.extend(numbers);
            rows.push((at == 0, row));
        }
    }
    rows
}

/// A chart with the colours of all servers.
fn figure(report: &Report, text: &str, svg: &str, html: &mut String) {
    let names = report.setups.iter().enumerate();
    let legend = names.map(|(at, setup)| (chart::series_hex(at), setup.name.clone()));
    figure_of(legend, text, svg, html);
}

fn figure_of(
    legend: impl Iterator<Item = (String, String)>,
    text: &str,
    svg: &str,
    html: &mut String,
) {
    html.push_str("<figure class=\"card\">\n<div class=\"legend\">");
    for (colour, name) in legend {
        let dot = format_args!("<rect width=\"12\" height=\"12\" rx=\"3\" fill=\"{colour}\"/>");
        put(
            html,
            format_args!(
                "<span><svg class=\"dot\" viewBox=\"0 0 12 12\">{dot}</svg>{}</span>",
                escaped(&name)
            ),
        );
    }
    let start = format!("<svg role=\"img\" aria-label=\"{}\" ", escaped(text));
    put(
        html,
        format_args!(
            "</div>\n{}\n</figure>\n",
            svg.trim().replacen("<svg ", &start, 1)
        ),
    );
}

/// A table; rows say whether a group begins with them.
fn table(
    html: &mut String,
    headings: &[&str],
    rows: impl IntoIterator<Item = (bool, Vec<String>)>,
) {
    html.push_str("<table>\n<thead><tr>");
    for heading in headings {
        let class = if *heading == "server" {
            " class=\"left\""
        } else {
            ""
        };
        put(html, format_args!("<th{class}>{heading}</th>"));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    let left = headings.iter().position(|heading| *heading == "server");
    for (begins, cells) in rows {
        html.push_str(if begins {
            "<tr class=\"first\">"
        } else {
            "<tr>"
        });
        for (at, cell) in cells.iter().enumerate() {
            let class = if Some(at) == left {
                " class=\"left\""
            } else {
                ""
            };
            put(html, format_args!("<td{class}>{}</td>", escaped(cell)));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table>\n");
}

fn put(html: &mut String, text: impl Display) {
    // Writing to a string does not fail.
    let _written = write!(html, "{text}");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
