//! The table of a comparison, as text and as JSON, and what it comes to.

use std::fmt::Write;

use anyhow::{Result, bail};

use super::runner::{Comparison, Row, median};
use super::workloads::Bound;

/// Ours counts as behind a peer below this share of it: less is noise.
const AS_GOOD: f64 = 0.95;

const NAME_WIDTH: usize = 36;
const CELL_WIDTH: usize = 19;

/// What is known of a column.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) ours: bool,
}

/// The rows so far.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) reference: &'static str,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
    rounds: u32,
}

impl Table {
    pub(super) fn new(comparison: &Comparison<'_>, rounds: u32) -> Self {
        let columns = comparison.subjects.iter();
        let columns = columns.map(|it| Column { name: it.name, ours: it.ours }).collect();
        let reference = comparison.reference.name;
        Self { name: comparison.name, reference, columns, rows: Vec::new(), rounds }
    }

    pub(super) fn print_head(&self) {
        println!(
            "\n{} rounds; each figure is operations per second to those of {}: median (least–most)\n",
            self.rounds, self.reference
        );
        let mut line = format!("{:NAME_WIDTH$}", "workload");
        for column in &self.columns {
            let _ = write!(line, " {:CELL_WIDTH$}", column.name);
        }
        println!("{line} floor and goal");
    }

    /// Adds a row and prints it.
    pub(super) fn add(&mut self, row: Row) {
        let mut line = format!("{:NAME_WIDTH$}", row.workload.name);
        for ratios in &row.ratios {
            let _ = write!(line, " {:CELL_WIDTH$}", cell(ratios));
        }
        for bound in row.workload.bounds {
            let _ = write!(line, " {}", bounds(bound, self.columns.len() > 1));
        }
        if let Some(answers) = row.answers.filter(|_| self.columns.len() == 1) {
            let _ = write!(line, "  {answers:.3} answers per operation");
        }
        for wrong in self.wrongs(&row) {
            let _ = write!(line, "  {}", wrong.to_uppercase());
        }
        println!("{line}");
        self.rows.push(row);
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// What a row falls short of.
    fn wrongs(&self, row: &Row) -> Vec<String> {
        let mut wrongs = Vec::new();
        for bound in row.workload.bounds {
            let Some(column) = self.column(bound.of) else { continue };
            if bound.floor.is_some_and(|floor| median(&row.ratios[column]) < floor) {
                wrongs.push(format!("{} below the floor", bound.of));
            }
        }
        let of = |ours: bool| {
            let columns = self.columns.iter().zip(&row.ratios);
            let columns = columns.filter(move |(column, _)| column.ours == ours);
            columns.map(|(column, ratios)| (column.name, median(ratios)))
        };
        let best_peer = of(false).max_by(|one, other| one.1.total_cmp(&other.1));
        let ours = of(true).next();
        if let (Some((peer, theirs)), Some((name, ours))) = (best_peer, ours)
            && ours < theirs * AS_GOOD
        {
            wrongs.push(format!("{name} behind {peer}"));
        }
        wrongs
    }

    /// # Errors
    /// A floor is not reached, or a peer is ahead.
    pub(super) fn verdict(&self) -> Result<()> {
        let wrongs = self.rows.iter().flat_map(|row| {
            let wrongs = self.wrongs(row).into_iter();
            wrongs.map(|wrong| format!("{}: {wrong}", row.workload.name))
        });
        let wrongs: Vec<String> = wrongs.collect();
        if wrongs.is_empty() { Ok(()) } else { bail!("\n  {}", wrongs.join("\n  ")) }
    }

    /// Every ratio of every round.
    pub(super) fn json(&self) -> String {
        let mut text = format!(
            "{{\n  \"bench\": {:?},\n  \"reference\": {:?},\n  \"rounds\": {},\n  \"workloads\": [",
            self.name, self.reference, self.rounds
        );
        for (index, row) in self.rows.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(text, "{comma}\n    {{\"name\": {:?}", row.workload.name);
            for (column, ratios) in self.columns.iter().zip(&row.ratios) {
                let ratios: Vec<String> =
                    ratios.iter().map(|ratio| format!("{ratio:.4}")).collect();
                let _ = write!(text, ", {:?}: [{}]", column.name, ratios.join(", "));
            }
            text.push('}');
        }
        text.push_str("\n  ]\n}\n");
        text
    }
}

fn cell(ratios: &[f64]) -> String {
    let (Some(least), Some(most)) = (ratios.first(), ratios.last()) else { return String::new() };
    format!("{} ({}–{})", figure(median(ratios)), figure(*least), figure(*most))
}

/// Two digits that say something.
fn figure(ratio: f64) -> String {
    match ratio {
        ratio if ratio < 0.1 => format!("{ratio:.3}"),
        ratio if ratio < 10.0 => format!("{ratio:.2}"),
        ratio => format!("{ratio:.0}"),
    }
}

fn bounds(bound: &Bound, named: bool) -> String {
    let shown = |it: Option<f64>| it.map_or("-".to_owned(), |it| format!("{it:.2}"));
    let of = if named { format!("{} ", bound.of) } else { String::new() };
    format!("{of}{}/{}", shown(bound.floor), shown(bound.goal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::workloads::{Measured, Workload};

    static WORKLOAD: Workload = Workload {
        name: "of \"nothing\"",
        bounds: &[Bound { of: "ours", floor: Some(0.5), goal: None }],
        run: |_| Ok(Measured::nothing()),
    };

    fn table(ours: f64, peer: f64) -> Table {
        let column = |name, ours| Column { name, ours };
        let ratios = vec![vec![ours], vec![peer]];
        let row = Row { workload: &WORKLOAD, ratios, answers: None };
        Table {
            name: "test",
            reference: "native",
            columns: vec![column("ours", true), column("peer", false)],
            rows: vec![row],
            rounds: 1,
        }
    }

    #[test]
    fn verdict_below_a_floor_or_behind_a_peer_is_an_error() {
        assert!(table(0.6, 0.5).verdict().is_ok());
        assert!(table(0.6, 0.61).verdict().is_ok());
        let behind = table(0.6, 0.7).verdict().unwrap_err().to_string();
        assert!(behind.contains("ours behind peer") && !behind.contains("floor"), "{behind}");
        let below = table(0.4, 0.1).verdict().unwrap_err().to_string();
        assert!(below.contains("ours below the floor") && !below.contains("behind"), "{below}");
    }

    #[test]
    fn json_quotes_names_and_has_each_ratio() {
        let text = table(0.6, 0.5).json();
        assert!(text.contains(r#"{"name": "of \"nothing\"", "ours": [0.6000], "peer": [0.5000]}"#));
    }

    #[test]
    fn figure_keeps_two_digits() {
        assert_eq!([0.0123, 0.456, 2.3456, 12.3].map(figure), ["0.012", "0.46", "2.35", "12"]);
    }
}
