//! Charts as SVG: bars for sides beside each other, lines for what changes with size.

use std::path::Path;

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{Figure, Figures, Result, Unit};

const WIDTH: u32 = 900;
const MARGIN: i32 = 16;
const BAR_HEIGHT: i32 = 24;
const PANEL_HEAD: i32 = 34;
const HEAD: i32 = 40;
const FOOT: i32 = 34;
/// A line of small print below, and the letters that it holds.
const SMALL_HEIGHT: i32 = 15;
const SMALL_LETTERS: usize = 140;
/// Where bars begin, and what is kept free behind them for figures.
const BARS_FROM: i32 = 230;
const BARS_ROOM: i32 = 230;
const LABEL_HALF: i32 = 30;
/// Above the highest point of lines and below the lowest, as a factor.
const ROOM_TIMES: f64 = 1.5;
/// The words of a mark stand before its line from this part of the axis on, or they would be cut.
const MARK_TURNS_FROM: f64 = 0.8;
const FONT: &str = "sans-serif";

const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(120, 120, 120);
/// Colours that those who see few colours tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
];

/// A bar a side, a panel a metric.
#[derive(Debug)]
pub struct Bars<'a> {
    /// What the chart shows.
    pub title: &'a str,
    /// Machine and command.
    pub subtitle: &'a str,
    /// What is to be known of the figures. The sides that are named in one bear a star.
    pub notes: &'a [&'a str],
    /// All figures.
    pub figures: &'a Figures,
    /// Which of them.
    pub workload: &'a str,
    /// Which metrics, in this order; those that nobody has are left out.
    pub metrics: &'a [&'a str],
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl Bars<'_> {
    /// Draws into a file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let panels: Vec<(&str, Vec<&Figure>)> = self
            .metrics
            .iter()
            .map(|&metric| (metric, self.of(metric)))
            .filter(|(_, figures)| !figures.is_empty())
            .collect();
        let bars: usize = panels.iter().map(|(_, figures)| figures.len()).sum();
        let small: Vec<String> = (self.notes.iter().map(|note| format!("* {note}")))
            .chain([self.subtitle.to_owned()])
            .flat_map(|words| lines_of(&words))
            .collect();
        let bars_height = PANEL_HEAD * panels.len() as i32 + BAR_HEIGHT * bars.max(1) as i32;
        let height = HEAD + bars_height + FOOT + SMALL_HEIGHT * (small.len() as i32 - 1);
        let area = SVGBackend::new(path, (WIDTH, height as u32)).into_drawing_area();
        area.fill(&WHITE).map_err(said)?;
        text(&area, self.title, (MARGIN, 12), 18, &INK, HPos::Left)?;
        let mut y = HEAD;
        for (metric, figures) in panels {
            text(&area, metric, (MARGIN, y + 10), 14, &INK, HPos::Left)?;
            y += PANEL_HEAD;
            self.panel(&area, &figures, y)?;
            y += BAR_HEIGHT * figures.len() as i32;
        }
        for (row, words) in small.iter().enumerate() {
            let place = (
                MARGIN,
                HEAD + bars_height + FOOT / 2 + SMALL_HEIGHT * row as i32,
            );
            text(&area, words, place, 11, &FAINT, HPos::Left)?;
        }
        area.present().map_err(said)
    }

    /// A side's name, with a star if a note is about it.
    fn name(&self, side: &str) -> String {
        let is_noted = self.notes.iter().any(|note| note.contains(side));
        format!("{side}{}", if is_noted { " *" } else { "" })
    }

    fn of(&self, metric: &str) -> Vec<&Figure> {
        let figures = self.figures.of(self.workload);
        figures.filter(|figure| figure.metric == metric).collect()
    }

    fn panel(&self, area: &Area<'_>, figures: &[&Figure], top: i32) -> Result<()> {
        let most = figures
            .iter()
            .map(|figure| figure.summary.max)
            .fold(f64::MIN_POSITIVE, f64::max);
        let room = f64::from(WIDTH as i32 - BARS_FROM - BARS_ROOM);
        let place = |value: f64| BARS_FROM + (value / most * room) as i32;
        for (row, figure) in figures.iter().enumerate() {
            let y = top + BAR_HEIGHT * row as i32;
            let middle = y + BAR_HEIGHT / 2 - 3;
            let colour = if figure.side.starts_with("rhash") {
                COLOURS[0]
            } else {
                COLOURS[6]
            };
            let label = (BARS_FROM - 8, middle - 7);
            text(area, &self.name(&figure.side), label, 13, &INK, HPos::Right)?;
            let summary = figure.summary;
            let bar = [(BARS_FROM, y), (place(summary.median), y + BAR_HEIGHT - 6)];
            area.draw(&Rectangle::new(bar, colour.filled()))
                .map_err(said)?;
            let spread = [(place(summary.min), middle), (place(summary.max), middle)];
            area.draw(&PathElement::new(spread, INK.stroke_width(1)))
                .map_err(said)?;
            let after = (place(summary.max) + 8, middle - 7);
            text(area, &figure.to_string(), after, 12, &INK, HPos::Left)?;
        }
        Ok(())
    }
}

/// One line of a chart.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// Lines over a logarithmic axis.
#[derive(Debug)]
pub struct Lines<'a> {
    /// What the chart shows.
    pub title: &'a str,
    /// Machine and command.
    pub subtitle: &'a str,
    /// The axis below, logarithmic.
    pub x: (&'a str, Unit),
    /// The axis at the side, logarithmic too: half of little is as far below it as half of much.
    pub y: (&'a str, Unit),
    /// What is drawn.
    pub series: &'a [Series],
    /// Places on the axis below that mean something, and what.
    pub marks: &'a [(f64, String)],
}

impl Lines<'_> {
    /// Draws into a file.
    ///
    /// # Errors
    /// The file cannot be written, or there is nothing to draw.
    pub fn write(&self, path: &Path) -> Result<()> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let least = points().map(|point| point.0).fold(f64::MAX, f64::min);
        let most = points().map(|point| point.0).fold(f64::MIN, f64::max);
        let bottom = points().map(|point| point.1).fold(f64::MAX, f64::min) / ROOM_TIMES;
        let top = points().map(|point| point.1).fold(0.0, f64::max) * ROOM_TIMES;
        if least >= most || bottom <= 0.0 {
            return Err(
                "a chart of lines needs two points that differ, none of them at zero".into(),
            );
        }
        let area = SVGBackend::new(path, (WIDTH, 500)).into_drawing_area();
        area.fill(&WHITE).map_err(said)?;
        text(&area, self.title, (MARGIN, 12), 18, &INK, HPos::Left)?;
        let small = lines_of(self.subtitle);
        let foot = FOOT + SMALL_HEIGHT * (small.len() as i32 - 1);
        for (row, words) in small.iter().enumerate() {
            let place = (MARGIN, 500 - foot + FOOT / 2 + SMALL_HEIGHT * row as i32);
            text(&area, words, place, 11, &FAINT, HPos::Left)?;
        }
        // The last label of the axis below is half beyond its end.
        let inner = area.margin(HEAD, foot, MARGIN, MARGIN + LABEL_HALF);
        let mut chart = ChartBuilder::on(&inner)
            .x_label_area_size(42)
            .y_label_area_size(80)
            .build_cartesian_2d((least..most).log_scale(), (bottom..top).log_scale())
            .map_err(said)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc(self.x.0)
            .y_desc(self.y.0)
            .x_label_formatter(&|value| self.x.1.show(*value))
            .y_label_formatter(&|value| self.y.1.show(*value))
            .draw()
            .map_err(said)?;
        for (place, name) in self.marks {
            let line = [(*place, bottom), (*place, top)];
            let style = FAINT.stroke_width(1);
            chart
                .draw_series([PathElement::new(line, style)])
                .map_err(said)?;
            let is_at_the_end = place / least > (most / least).powf(MARK_TURNS_FROM);
            let side = if is_at_the_end {
                HPos::Right
            } else {
                HPos::Left
            };
            let style = (FONT, 11).into_font().color(&FAINT);
            let style = style.pos(Pos::new(side, VPos::Top));
            let label = Text::new(format!(" {name} "), (*place, top), style);
            chart.draw_series([label]).map_err(said)?;
        }
        for (index, series) in self.series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            chart
                .draw_series(
                    LineSeries::new(series.points.iter().copied(), colour.stroke_width(2))
                        .point_size(3),
                )
                .map_err(said)?
                .label(&series.name)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(FAINT)
            .label_font((FONT, 12))
            .draw()
            .map_err(said)?;
        area.present().map_err(said)
    }
}

fn text(
    area: &Area<'_>,
    words: &str,
    place: (i32, i32),
    size: i32,
    colour: &RGBColor,
    side: HPos,
) -> Result<()> {
    let style = (FONT, size)
        .into_font()
        .color(colour)
        .pos(Pos::new(side, VPos::Top));
    area.draw(&Text::new(words.to_owned(), place, style))
        .map_err(said)
}

/// Words in lines of small print; a word that is longer stays whole.
fn lines_of(words: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= SMALL_LETTERS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// What plotters says borrows what it was given.
fn said(error: impl std::fmt::Display) -> crate::Error {
    error.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_carry_sides_figures_and_words() {
        let mut figures = Figures::default();
        for value in [2.0, 3.0, 4.0] {
            figures.add("build", "rhash, 1/8", "time", Unit::Seconds, value);
            figures.add("build", "another", "time", Unit::Seconds, value * 2.0);
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("build.svg");
        let bars = Bars {
            title: "A build & more",
            subtitle: "somewhere",
            notes: &["another lost entries"],
            figures: &figures,
            workload: "build",
            metrics: &["time", "nothing"],
        };
        bars.write(&path).unwrap();
        let svg = std::fs::read_to_string(path).unwrap();
        for words in [
            "A build &amp; more",
            "rhash, 1/8",
            "6.00 s (4.00-8.00)",
            "another *",
            "* another lost entries",
        ] {
            assert!(svg.contains(words), "{words} is not in {svg}");
        }
        assert!(!svg.contains("nothing"));
    }

    #[test]
    fn small_print_is_cut_between_words() {
        let words = "word ".repeat(100) + &"w".repeat(200);
        let lines = lines_of(&words);
        assert_eq!(lines.join(" "), words);
        let (long, short) = lines.split_last().unwrap();
        assert_eq!(long.len(), 200);
        assert!(short.len() > 2 && short.iter().all(|line| line.len() <= SMALL_LETTERS));
    }

    #[test]
    fn lines_carry_their_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("scale.svg");
        let series = [Series {
            name: "load".to_owned(),
            points: vec![(1e6, 5e5), (1e7, 4e5), (1e8, 4e5)],
        }];
        let lines = Lines {
            title: "Scale",
            subtitle: "somewhere",
            x: ("entries", Unit::Count),
            y: ("a second", Unit::PerSecond),
            series: &series,
            marks: &[(4e6, "the limit".to_owned())],
        };
        lines.write(&path).unwrap();
        let svg = std::fs::read_to_string(path).unwrap();
        for words in ["Scale", "load", "the limit", "entries"] {
            assert!(svg.contains(words), "{words}");
        }
        let none = Lines {
            series: &[],
            ..lines
        };
        assert!(none.write(&directory.path().join("none.svg")).is_err());
    }
}
