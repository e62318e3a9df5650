//! The chart of a limit: one panel for each server of each scenario, with the limit as a line.

use serde_json::{Map, Value};

use crate::sizes::mebibytes;

const COLUMNS: usize = 3;
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 150.0;
const MARGIN: f64 = 24.0;

/// Draws all scenarios of a summary as SVG.
pub(super) fn draw(content: &Map<String, Value>, limit_bytes: u64) -> String {
    let panels: Vec<&Value> = content
        .values()
        .flat_map(|scenario| scenario["parts"].as_array().into_iter().flatten())
        .collect();
    let rows = panels.len().div_ceil(COLUMNS);
    let (width, height) = (WIDTH * COLUMNS as f64, HEIGHT * rows as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (at, panel) in panels.into_iter().enumerate() {
        let (column, row) = (at % COLUMNS, at / COLUMNS);
        let (x, y) = (WIDTH * column as f64, HEIGHT * row as f64);
        svg.push_str(&format!("<g transform=\"translate({x} {y})\">\n"));
        svg.push_str(&draw_panel(panel, limit_bytes));
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_panel(panel: &Value, limit_bytes: u64) -> String {
    let curve: Vec<u64> = panel["curve"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_u64)
        .collect();
    let most = panel["memory"]["own_bytes_max"].as_u64().unwrap_or(0);
    let top = 1.1 * most.max(limit_bytes).max(1) as f64;
    let x = |at: usize| {
        MARGIN + (WIDTH - 2.0 * MARGIN) * at as f64 / curve.len().saturating_sub(1).max(1) as f64
    };
    let y = |bytes: u64| HEIGHT - MARGIN - (HEIGHT - 2.0 * MARGIN) * bytes as f64 / top;
    let points: Vec<String> = curve
        .iter()
        .enumerate()
        .map(|(at, &bytes)| format!("{:.0},{:.1}", x(at), y(bytes)))
        .collect();
    let (left, right, low) = (MARGIN, WIDTH - MARGIN, HEIGHT - MARGIN);
    let limit_y = y(limit_bytes);
    let part = panel["part"].as_str().unwrap_or_default();
    let seconds = panel["memory"]["seconds"].as_f64().unwrap_or(0.0);
    format!(
        "<text x=\"{left}\" y=\"16\">{part}: at most {} of {}</text>\n\
         <path d=\"M{left} {MARGIN}V{low}H{right}\" fill=\"none\" stroke=\"black\"/>\n\
         <polyline fill=\"none\" stroke=\"steelblue\" points=\"{}\"/>\n\
         <path d=\"M{left} {limit_y:.1}H{right}\" stroke=\"firebrick\" stroke-dasharray=\"6 4\"/>\n\
         <text x=\"{right}\" y=\"{:.0}\" text-anchor=\"end\">{seconds:.0} s</text>\n",
        mebibytes(most),
        mebibytes(limit_bytes),
        points.join(" "),
        low + 14.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_server_has_a_panel() {
        let part = json!({ "part": "p", "curve": [1, 2, 3], "memory": { "own_bytes_max": 3 } });
        let mut content = Map::new();
        content.insert("index".to_owned(), json!({ "parts": [part] }));
        content.insert("start".to_owned(), json!({ "parts": [part, part] }));
        content.insert("lists".to_owned(), json!({ "parts": [] }));
        let svg = draw(&content, 10);
        assert_eq!(svg.matches("<polyline").count(), 3);
        assert_eq!(svg.matches("<g ").count(), svg.matches("</g>").count());
    }
}
