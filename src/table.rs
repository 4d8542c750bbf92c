//! Text tables for people: columns aligned by spaces, no frame, no colour, so that `grep` and `awk` can read them too.

use std::fmt;

/// On which side a column's cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows of text under headings. It prints nothing at all while it has no rows.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these headings.
    pub(crate) fn new<H: Into<String>>(columns: impl IntoIterator<Item = (H, Align)>) -> Self {
        Self {
            columns: columns.into_iter().map(|(heading, align)| (heading.into(), align)).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Missing cells are empty and surplus ones are left out. Control characters are shown as `?`: a cell
    /// may hold text from a server, which must not steer the terminal.
    pub(crate) fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        let mut cells: Vec<String> = cells.into_iter().map(|cell| printable(cell.into())).collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
    }

    /// Whether it has no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

fn printable(cell: String) -> String {
    if cell.chars().any(char::is_control) {
        cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    } else {
        cell
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return Ok(());
        }
        let width = |text: &str| text.chars().count();
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, (heading, _))| {
                self.rows.iter().map(|row| width(&row[index])).fold(width(heading), usize::max)
            })
            .collect();
        let headings: Vec<String> = self.columns.iter().map(|(heading, _)| heading.clone()).collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, (_, align)), width) in row.iter().zip(&self.columns).zip(&widths) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                match align {
                    Align::Left => line.push_str(&format!("{cell:<width$}")),
                    Align::Right => line.push_str(&format!("{cell:>width$}")),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_left_and_numbers_right() {
        let mut table = Table::new([("feed", Align::Left), ("records", Align::Right), ("note", Align::Left)]);
        assert_eq!(table.to_string(), "");
        table.row(["contoso Audit.Exchange", "1,204", ""]);
        table.row(["fabrikam", "7", "a gap"]);
        assert_eq!(
            table.to_string(),
            "feed                    records  note\n\
             contoso Audit.Exchange    1,204\n\
             fabrikam                      7  a gap\n"
        );
    }

    #[test]
    fn an_empty_first_cell_keeps_its_place() {
        let mut table = Table::new([("a", Align::Left), ("b", Align::Left)]);
        table.row(["", "x"]);
        assert_eq!(table.to_string(), "a  b\n   x\n");
    }

    #[test]
    fn widths_count_characters_and_nothing_reaches_the_terminal_raw() {
        let mut table = Table::new([("näme", Align::Left), ("n", Align::Right)]);
        table.row(["é", "1"]);
        table.row(["\x1b[31mx", "2"]);
        table.row(["short row"]);
        assert_eq!(table.to_string(), "näme       n\né          1\n?[31mx     2\nshort row\n");
    }
}
