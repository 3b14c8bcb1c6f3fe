//! Rows on a terminal that fit it; elsewhere rows with columns below one another and nothing cut off.

use std::io::{self, Write};

/// Rows that are looked at to find out how wide the columns are. Later ones are printed as they come.
const LOOKED_AT: usize = 1000;

/// A cut column is no narrower, in characters.
const NARROW: usize = 12;

/// What is left of a cut time.
const DAY: usize = "2026-01-31".len();

pub struct Column {
    pub title: &'static str,
    pub right: bool,
    /// What may be cut off when it does not fit.
    pub cut: Cut,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Never,
    /// The end says more than the beginning.
    Beginning,
    End,
    /// A time: the day says most of it. It goes before names do.
    Time,
}

pub struct Table<const N: usize, W> {
    columns: [Column; N],
    out: W,
    /// Of the terminal, in characters; none when it is not one.
    width: Option<usize>,
    waiting: Vec<[String; N]>,
    /// Once they are known.
    widths: Option<[usize; N]>,
}

impl<const N: usize, W: Write> Table<N, W> {
    /// `header` prints the titles above the first row, be there one or not.
    pub fn new(columns: [Column; N], header: bool, width: Option<usize>, out: W) -> Self {
        let waiting =
            if header { vec![columns.each_ref().map(|column| column.title.to_owned())] } else { Vec::new() };
        Self { columns, out, width, waiting, widths: None }
    }

    pub fn row(&mut self, row: [String; N]) -> io::Result<()> {
        match self.widths {
            Some(widths) => self.print(&row, &widths),
            None => {
                self.waiting.push(row);
                if self.waiting.len() > LOOKED_AT { self.print_waiting() } else { Ok(()) }
            }
        }
    }

    /// Where it prints to; what waits is not there yet.
    pub fn out(&mut self) -> &mut W {
        &mut self.out
    }

    /// Prints what is left. What is written afterwards comes below the table.
    pub fn end(mut self) -> io::Result<W> {
        self.print_waiting()?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn print_waiting(&mut self) -> io::Result<()> {
        let widest = |at: usize| self.waiting.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        let widths = self.fit(std::array::from_fn(widest));
        self.widths = Some(widths);
        for row in std::mem::take(&mut self.waiting) {
            self.print(&row, &widths)?;
        }
        Ok(())
    }

    /// Takes the time of day, then from the widest column that may be cut until all fit.
    fn fit(&self, mut widths: [usize; N]) -> [usize; N] {
        let Some(most) = self.width else { return widths };
        let mut over = (widths.iter().sum::<usize>() + 2 * (N - 1)).saturating_sub(most);
        for (column, width) in self.columns.iter().zip(&mut widths) {
            if over > 0 && column.cut == Cut::Time && *width > DAY {
                over = over.saturating_sub(*width - DAY);
                *width = DAY;
            }
        }
        while over > 0 {
            let is_name = |at: &usize| matches!(self.columns[*at].cut, Cut::Beginning | Cut::End);
            let cut = (0..N).filter(|at| is_name(at) && widths[*at] > NARROW);
            let Some(widest) = cut.max_by_key(|at| widths[*at]) else { break };
            widths[widest] -= 1;
            over -= 1;
        }
        widths
    }

    fn print(&mut self, row: &[String; N], widths: &[usize; N]) -> io::Result<()> {
        // Of a row that was not looked at, a cell may be wider that must not be cut.
        let widths = self.fit(std::array::from_fn(|at| match self.columns[at].cut {
            Cut::Never => widths[at].max(row[at].chars().count()),
            _ => widths[at],
        }));
        let mut line = String::new();
        for (at, (cell, column)) in row.iter().zip(&self.columns).enumerate() {
            let cell = if self.width.is_some() { cut(cell, widths[at], column.cut) } else { cell.clone() };
            let padding = " ".repeat(widths[at].saturating_sub(cell.chars().count()));
            if at > 0 {
                line.push_str("  ");
            }
            line += &if column.right { padding + &cell } else { cell + &padding };
        }
        writeln!(self.out, "{}", line.trim_end())
    }
}

fn cut(cell: &str, width: usize, cut: Cut) -> String {
    let length = cell.chars().count();
    match cut {
        _ if length <= width => cell.to_owned(),
        Cut::Never => cell.to_owned(),
        Cut::Time => cell.chars().take(width).collect(),
        Cut::Beginning => format!("…{}", cell.chars().skip(length + 1 - width).collect::<String>()),
        Cut::End => format!("{}…", cell.chars().take(width - 1).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::Row;
    use super::*;
    use crate::store::care::ListedImage;

    fn table(width: Option<usize>, header: bool, rows: &[[&str; 3]]) -> String {
        let columns = [
            Column { title: "NAME", right: false, cut: Cut::Beginning },
            Column { title: "WHAT", right: false, cut: Cut::End },
            Column { title: "SIZE", right: true, cut: Cut::Never },
        ];
        let mut table = Table::new(columns, header, width, Vec::new());
        for row in rows {
            table.row(row.map(str::to_owned)).unwrap();
        }
        String::from_utf8(table.end().unwrap()).unwrap()
    }

    const ROWS: [[&str; 3]; 2] =
        [["registry.example/team/a", "0123456789abcdef", "1.00"], ["b", "c", "200.00"]];

    #[test]
    fn columns_stand_below_one_another() {
        assert_eq!(
            table(None, true, &ROWS),
            "NAME                     WHAT                SIZE\n\
             registry.example/team/a  0123456789abcdef    1.00\n\
             b                        c                 200.00\n"
        );
    }

    #[test]
    fn a_narrow_terminal_cuts_what_says_least() {
        assert_eq!(
            table(Some(40), false, &ROWS),
            "…example/team/a  0123456789abcd…    1.00\n\
             b                c                200.00\n"
        );
        for line in table(Some(40), true, &ROWS).lines() {
            assert!(line.chars().count() <= 40, "{line}");
        }
        // Too narrow for anything: as narrow as it goes.
        assert!(table(Some(5), false, &ROWS).lines().all(|line| line.chars().count() == 34));
    }

    #[test]
    fn what_is_listed_fits_a_terminal_of_80_columns() {
        let mut table = Table::new(ListedImage::columns(), true, Some(80), Vec::new());
        let (name, tag, time) =
            ("registry.example:5000/team/application", "v1.2.3-long", "2026-01-31T18:30:00");
        table.row([name, tag, "image", time, time, "123456.78"].map(str::to_owned)).unwrap();
        let text = String::from_utf8(table.end().unwrap()).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(
            text.ends_with(
                "…le:5000/team/application  v1.2.3-long  image  2026-01-31  2026-01-31  123456.78\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn rows_beyond_those_looked_at_are_printed_too() {
        let rows: Vec<[&str; 3]> =
            (0..3000).map(|n| if n < 2000 { ["a", "b", "c"] } else { ["long", "b", "c"] }).collect();
        let text = table(None, false, &rows);
        assert_eq!(text.lines().count(), 3000);
        assert!(text.starts_with("a  b  c\n") && text.ends_with("long  b  c\n"));
    }

    #[test]
    fn a_wider_size_below_those_looked_at_fits_too() {
        let name = "registry.example/team/application";
        let mut rows = vec![[name, "0123456789abcdef", "1.00"]; LOOKED_AT + 1];
        rows.push([name, "0123456789abcdef", "123456789.00"]);
        let text = table(Some(40), false, &rows);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() == 40), "{text}");
        assert!(lines[0].ends_with("  1.00") && lines[LOOKED_AT + 1].ends_with("  123456789.00"));
    }
}
