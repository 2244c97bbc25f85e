//! The table as a picture: one lane for each filesystem in each row, on a logarithmic axis.

use std::fmt::Write;

use super::runner::median;
use super::table::Table;

const LEFT: f64 = 270.0;
const WIDTH: f64 = 640.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 74.0;
const BOTTOM: f64 = 46.0;
const LANE: f64 = 8.0;
const GAP: f64 = 10.0;

/// Distinct for readers who see red and green alike; ours first.
const COLOURS: [&str; 6] = ["#0072b2", "#56b4e9", "#009e73", "#d55e00", "#e69f00", "#7f7f7f"];

/// A drawing of the ratios with the floors and goals.
pub(super) fn svg(table: &Table) -> String {
    let axis = Axis::of(table);
    let row_height = LANE * table.columns.len() as f64 + GAP;
    let bottom = TOP + row_height * table.rows.len() as f64;
    let (width, height) = (LEFT + WIDTH + RIGHT, bottom + BOTTOM);
    let mut drawing = Drawing(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    ));
    drawing.text(
        10.0,
        20.0,
        "start",
        &format!("{}: speed relative to {}", table.name, table.reference),
    );
    legend(&mut drawing, table);
    for power in axis.least..=axis.most {
        let x = axis.x(f64::from(power).exp2());
        let colour = if power == 0 { "#333333" } else { "#dddddd" };
        drawing.line((x, TOP), (x, bottom), colour);
        let label = if power < 0 {
            format!("1/{}", 1_u64 << -power)
        } else {
            format!("{}", 1_u64 << power)
        };
        drawing.text(x, bottom + 16.0, "middle", &label);
    }
    drawing.text(
        LEFT + WIDTH / 2.0,
        bottom + 34.0,
        "middle",
        &format!("operations per second to those of {} (median, least to most)", table.reference),
    );
    for (index, row) in table.rows.iter().enumerate() {
        let top = TOP + row_height * index as f64;
        drawing.line((10.0, top), (LEFT + WIDTH, top), "#eeeeee");
        drawing.text(LEFT - 10.0, top + row_height / 2.0 + 4.0, "end", row.workload.name);
        for (lane, (column, ratios)) in table.columns.iter().zip(&row.ratios).enumerate() {
            let y = top + GAP / 2.0 + LANE * (lane as f64 + 0.5);
            let colour = colour(lane);
            if let (Some(least), Some(most)) = (ratios.first(), ratios.last()) {
                drawing.line((axis.x(*least), y), (axis.x(*most), y), colour);
                drawing.dot(axis.x(median(ratios)), y, colour);
            }
            for bound in row.workload.bounds.iter().filter(|bound| bound.of == column.name) {
                for (figure, colour) in [(bound.floor, "black"), (bound.goal, "#c040c0")] {
                    let Some(figure) = figure else { continue };
                    let (x, half) = (axis.x(figure), LANE / 2.0);
                    drawing.line((x, y - half), (x, y + half), colour);
                }
            }
        }
    }
    drawing.0.push_str("</svg>\n");
    drawing.0
}

fn colour(lane: usize) -> &'static str {
    COLOURS[lane % COLOURS.len()]
}

fn legend(drawing: &mut Drawing, table: &Table) {
    let mut x = 14.0;
    for (lane, column) in table.columns.iter().enumerate() {
        drawing.dot(x, 40.0, colour(lane));
        drawing.text(x + 8.0, 44.0, "start", column.name);
        x += 110.0;
    }
    drawing.text(10.0, 62.0, "start", "black strokes: the floor; violet: the goal");
}

/// Powers of two.
struct Axis {
    least: i32,
    most: i32,
}

impl Axis {
    fn of(table: &Table) -> Self {
        let ratios = table.rows.iter().flat_map(|row| row.ratios.iter().flatten());
        let finite = ratios.copied().filter(|ratio| ratio.is_finite() && *ratio > 0.0);
        let (least, most) =
            finite.fold((0.25_f64, 2.0_f64), |(least, most), it| (least.min(it), most.max(it)));
        Self { least: least.log2().floor() as i32, most: most.log2().ceil() as i32 }
    }

    fn x(&self, ratio: f64) -> f64 {
        let span = f64::from(self.most - self.least);
        let x = LEFT + WIDTH * (ratio.log2() - f64::from(self.least)) / span;
        x.clamp(LEFT, LEFT + WIDTH)
    }
}

struct Drawing(String);

impl Drawing {
    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str) {
        let _ = writeln!(
            self.0,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    fn dot(&mut self, x: f64, y: f64, colour: &str) {
        let _ =
            writeln!(self.0, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.2\" fill=\"{colour}\"/>");
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            self.0,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{escaped}</text>"
        );
    }
}
