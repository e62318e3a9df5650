//! Charts as SVG. They are drawn in the colours of a light page; a dark page turns each of these
//! into another by `DARK`, so that one drawing serves both.

use plotters::{
    coord::Shift,
    prelude::{
        ChartBuilder, Circle, Color, DrawingArea, DrawingAreaErrorKind, DrawingBackend,
        IntoDrawingArea, IntoFont, IntoLogRange, PathElement, RGBColor, Rectangle, SVGBackend,
        Text, TextStyle,
    },
    style::ShapeStyle,
};

use super::figures::{Percentiles, SetupFigures, StepFigures};
use crate::{
    failure::{Failure, Outcome},
    output::{number_short, time_short},
};

/// How wide all charts are drawn; pages scale them.
const WIDTH: u32 = 760;

/// Where the names of steps end and bars begin.
const NAMES_WIDTH: i32 = 190;

/// What is kept free for the number behind the longest bar.
const NUMBER_WIDTH: i32 = 84;

const BAR_HEIGHT: i32 = 15;
const BAR_GAP: i32 = 3;
const GROUP_GAP: i32 = 14;
const FONT: &str = "sans-serif";
/// In the unit of the drawing library, which is about 0.8 pixels.
const FONT_SIZE: i32 = 16;

/// Text.
const INK: RGBColor = RGBColor(0x26, 0x2a, 0x30);
/// Text that matters less.
const FAINT: RGBColor = RGBColor(0x6a, 0x72, 0x7d);
/// Lines of axes.
const GRID: RGBColor = RGBColor(0xdd, 0xe1, 0xe6);
/// The line of a limit.
const LIMIT: RGBColor = RGBColor(0xb4, 0x23, 0x18);

/// The colours of servers, in their order; told apart also by those who see fewer colours.
const SERIES: [RGBColor; 8] = [
    RGBColor(0x22, 0x66, 0xb2),
    RGBColor(0xd9, 0x77, 0x06),
    RGBColor(0x1b, 0x85, 0x6d),
    RGBColor(0x8a, 0x4f, 0xb0),
    RGBColor(0xb8, 0x3b, 0x6c),
    RGBColor(0x5d, 0x7a, 0x1f),
    RGBColor(0x3f, 0x8f, 0xa8),
    RGBColor(0x7a, 0x5c, 0x3e),
];

/// What each colour becomes on a dark page.
const DARK: [(RGBColor, RGBColor); 12] = [
    (INK, RGBColor(0xe6, 0xe9, 0xee)),
    (FAINT, RGBColor(0x9a, 0xa3, 0xaf)),
    (GRID, RGBColor(0x33, 0x39, 0x42)),
    (LIMIT, RGBColor(0xff, 0x7b, 0x72)),
    (SERIES[0], RGBColor(0x6c, 0xae, 0xf2)),
    (SERIES[1], RGBColor(0xf5, 0xa9, 0x4a)),
    (SERIES[2], RGBColor(0x4f, 0xc3, 0xa5)),
    (SERIES[3], RGBColor(0xc3, 0x9a, 0xe0)),
    (SERIES[4], RGBColor(0xee, 0x86, 0xad)),
    (SERIES[5], RGBColor(0xae, 0xcb, 0x62)),
    (SERIES[6], RGBColor(0x84, 0xcd, 0xe3)),
    (SERIES[7], RGBColor(0xc9, 0xa9, 0x87)),
];

/// The rules that make charts fit a dark page.
pub(super) fn dark_rules() -> String {
    let rule = |(light, dark): &(RGBColor, RGBColor)| {
        let (light, dark) = (hex(*light), hex(*dark));
        format!("svg [fill=\"{light}\"]{{fill:{dark}}}svg [stroke=\"{light}\"]{{stroke:{dark}}}\n")
    };
    DARK.iter().map(rule).collect()
}

/// The colour of a server, as pages write it.
pub(super) fn series_hex(at: usize) -> String {
    hex(series(at))
}

fn series(at: usize) -> RGBColor {
    SERIES[at % SERIES.len()]
}

fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

/// A group of bars, one for each server: rates of a step, or times.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: String,
    /// Lengths and what is written behind them; nothing for a server that has no such step.
    pub(super) bars: Vec<Option<(f64, String)>>,
}

impl Group {
    /// The rates of a step that counts something.
    pub(super) fn rates(steps: &[Option<&StepFigures>]) -> Option<Self> {
        let unit = steps.iter().flatten().next()?.unit?;
        let name = steps.iter().flatten().next()?.step.name();
        let bar = |step: &Option<&StepFigures>| {
            let rate = step.as_ref()?.per_second?.median;
            Some((rate, format!("{}/s", number_short(rate))))
        };
        Some(Self {
            name: format!("{name}\n{unit}"),
            bars: steps.iter().map(bar).collect(),
        })
    }

    /// The times of a step that takes as long as it takes.
    pub(super) fn times(steps: &[Option<&StepFigures>]) -> Option<Self> {
        let first = steps.iter().flatten().next()?;
        let bar = |step: &Option<&StepFigures>| {
            let seconds = step.as_ref()?.seconds.median;
            Some((seconds, time_short(seconds * 1e3)))
        };
        Some(Self {
            name: first.step.name().to_owned(),
            bars: steps.iter().map(bar).collect(),
        })
    }
}

/// Groups of bars; each group has a scale of its own, since rates of steps differ by far more
/// than those of servers.
///
/// # Errors
/// It cannot be drawn.
pub(super) fn bars(groups: &[Group]) -> Outcome<String> {
    let height = |group: &Group| group.bars.len() as i32 * (BAR_HEIGHT + BAR_GAP) + GROUP_GAP;
    let whole: i32 = groups.iter().map(height).sum();
    draw(whole.max(1) as u32, |root| {
        let mut top = 0;
        for group in groups {
            draw_group(root, group, top)?;
            top += height(group);
        }
        Ok(())
    })
}

fn draw_group<B: DrawingBackend>(
    root: &DrawingArea<B, Shift>,
    group: &Group,
    top: i32,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let bars = group.bars.iter().flatten().map(|(length, _)| *length);
    let longest = bars.fold(0.0, f64::max);
    let room = f64::from(WIDTH as i32 - NAMES_WIDTH - NUMBER_WIDTH);
    let mut lines = group.name.lines();
    root.draw(&Text::new(
        lines.next().unwrap_or_default().to_owned(),
        (0, top + 1),
        text(INK),
    ))?;
    root.draw(&Text::new(
        lines.next().unwrap_or_default().to_owned(),
        (0, top + BAR_HEIGHT + BAR_GAP + 1),
        text(FAINT),
    ))?;
    for (at, bar) in group.bars.iter().enumerate() {
        let Some((length, number)) = bar else {
            continue;
        };
        let top = top + at as i32 * (BAR_HEIGHT + BAR_GAP);
        let share = if longest > 0.0 { length / longest } else { 0.0 };
        let end = NAMES_WIDTH + (share * room).round().max(1.0) as i32;
        root.draw(&Rectangle::new(
            [(NAMES_WIDTH, top), (end, top + BAR_HEIGHT)],
            series(at).filled(),
        ))?;
        root.draw(&Text::new(number.clone(), (end + 6, top + 1), text(INK)))?;
    }
    Ok(())
}

/// The latencies of each step on each server, from the median to the greatest, on a logarithmic
/// scale.
///
/// # Errors
/// It cannot be drawn.
pub(super) fn latencies(groups: &[(String, Vec<Option<Percentiles>>)]) -> Outcome<String> {
    let all = || {
        groups
            .iter()
            .flat_map(|(_, servers)| servers.iter().flatten())
    };
    // A whole power of ten on either side.
    let least = all().map(|of| of.p50_ms).fold(f64::MAX, f64::min);
    let most = all().map(|of| of.max_ms).fold(0.0, f64::max);
    if most <= 0.0 {
        return Ok(String::new());
    }
    let least = 10f64.powf(least.max(1e-6).log10().floor());
    let most = 10f64.powf((most * 1.0001).log10().ceil()).max(least * 10.0);
    let height =
        |servers: &[Option<Percentiles>]| servers.len() as i32 * (BAR_HEIGHT + BAR_GAP) + GROUP_GAP;
    let body: i32 = groups.iter().map(|(_, servers)| height(servers)).sum();
    let axis = 34;
    draw((body + axis) as u32, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin_right(24)
            .margin_left(NAMES_WIDTH)
            .x_label_area_size(axis)
            .build_cartesian_2d((least..most).log_scale(), f64::from(body)..0.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_labels(10)
            .bold_line_style(GRID)
            .light_line_style(GRID.mix(0.0))
            .axis_style(GRID)
            .x_label_style(text(FAINT))
            .x_label_formatter(&|time: &f64| time_short(*time))
            .draw()?;
        let mut top = 0;
        for (name, servers) in groups {
            root.draw(&Text::new(name.clone(), (0, top + 1), text(INK)))?;
            for (at, of) in servers.iter().enumerate() {
                let middle = f64::from(top + at as i32 * (BAR_HEIGHT + BAR_GAP) + BAR_HEIGHT / 2);
                let Some(of) = of else { continue };
                let colour = series(at);
                let at = |time: f64| (time.clamp(least, most), middle);
                let line = vec![at(of.p50_ms), at(of.max_ms)];
                chart.draw_series([PathElement::new(line, colour.stroke_width(2))])?;
                chart.draw_series([
                    Circle::new(at(of.p50_ms), 5, colour.filled()),
                    Circle::new(at(of.p99_ms), 4, colour.filled()),
                    Circle::new(at(of.p999_ms), 3, colour.filled()),
                    Circle::new(at(of.max_ms), 2, colour.filled()),
                ])?;
            }
            top += height(servers);
        }
        Ok(())
    })
}

/// Memory and disk of a server over time, its limit, and where each step begins.
///
/// # Errors
/// It cannot be drawn.
pub(super) fn over_time(setup: &SetupFigures) -> Outcome<String> {
    const MEBIBYTE: f64 = 1_048_576.0;
    let mebibytes = |bytes: u64| bytes as f64 / MEBIBYTE;
    let seconds = setup
        .samples
        .last()
        .map_or(1.0, |last| last.seconds)
        .max(0.1);
    let most = setup
        .samples
        .iter()
        .map(|at| at.memory_bytes.max(at.disk_bytes));
    let mut most = most.max().unwrap_or(0);
    if !setup.memory_only {
        most = most.max(setup.limit_bytes);
    }
    let top = mebibytes(most).max(1.0) * 1.1;
    draw(250, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin_top(22)
            .margin_right(16)
            .x_label_area_size(30)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..seconds, 0.0..top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(12)
            .y_labels(6)
            .bold_line_style(GRID)
            .light_line_style(GRID.mix(0.0))
            .axis_style(GRID)
            .x_label_style(text(FAINT))
            .y_label_style(text(FAINT))
            .x_label_formatter(&|at: &f64| format!("{at:.0} s"))
            .y_label_formatter(&|at: &f64| format!("{at:.0} MiB"))
            .draw()?;
        let mut written = f64::MIN;
        for (number, mark) in setup.marks.iter().enumerate() {
            let line = vec![(mark.seconds, 0.0), (mark.seconds, top)];
            chart.draw_series([PathElement::new(line, GRID.stroke_width(1))])?;
            // Steps that are too short for a number of their own are next to one that has one.
            if mark.seconds - written > seconds / 50.0 {
                let (x, _) = chart.backend_coord(&(mark.seconds, 0.0));
                root.draw(&Text::new(
                    (number + 1).to_string(),
                    (x + 2, 4),
                    text(FAINT),
                ))?;
                written = mark.seconds;
            }
        }
        let mut line = |style: ShapeStyle, points: Vec<(f64, f64)>| {
            chart
                .draw_series([PathElement::new(points, style)])
                .map(|_| ())
        };
        if !setup.memory_only {
            let limit = mebibytes(setup.limit_bytes);
            line(LIMIT.stroke_width(1), vec![(0.0, limit), (seconds, limit)])?;
            let disk = setup
                .samples
                .iter()
                .map(|at| (at.seconds, mebibytes(at.disk_bytes)));
            line(series(1).stroke_width(2), disk.collect())?;
        }
        let memory = setup
            .samples
            .iter()
            .map(|at| (at.seconds, mebibytes(at.memory_bytes)));
        line(series(0).stroke_width(2), memory.collect())
    })
}

/// Colours of the lines of [`over_time`], with their names.
pub(super) fn over_time_legend(setup: &SetupFigures) -> Vec<(String, &'static str)> {
    let mut legend = vec![(hex(series(0)), "memory")];
    if !setup.memory_only {
        legend.push((hex(LIMIT), "memory limit"));
        legend.push((hex(series(1)), "disk"));
    }
    legend
}

fn text(colour: RGBColor) -> TextStyle<'static> {
    (FONT, FONT_SIZE).into_font().color(&colour)
}

fn draw(
    height: u32,
    paint: impl FnOnce(
        &DrawingArea<SVGBackend<'_>, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<std::io::Error>>,
) -> Outcome<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        paint(&root)
            .and_then(|()| root.present())
            .map_err(|error| Failure::plain(format!("cannot draw a chart: {error}")))?;
    }
    Ok(svg)
}
