//! `ociregistry list`

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::ops::ControlFlow;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::table::{Column, Cut, Table};
use super::{Error, GlobalOptions, pattern};
use crate::oci::Digest;
use crate::store::care::{CareError, Folder, ListRequest, ListedBlob, ListedImage, Pace, Usage};

const EXAMPLES: &str = "\
Examples:
  What was not used for longest, with what it takes:
    ociregistry list --sort pulled --header

  All of two repositories, for a script:
    ociregistry list --pattern 'quay.io/team/a:,quay.io/team/b:' --json | jq -r .digest

It reads the cache's folder and may be used while the daemon runs.";

/// List the images in the cache
///
/// One line for each tag, and for each manifest that no tag of its repository points to. An image for several
/// platforms is a list, and an image more for each platform of it that is in the cache.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct List {
    /// Only what one of these regular expressions is found in: registry/repository:tag or registry/repository@digest
    #[arg(long, value_name = "REGEX,…", value_delimiter = ',', value_parser = pattern)]
    pattern: Vec<String>,
    /// Begin with the names of the columns
    #[arg(long)]
    header: bool,
    /// Print 12 digits of a digest
    #[arg(long)]
    short_digest: bool,
    /// Only what is pinned, in the cache or not
    #[arg(long, conflicts_with = "blobs")]
    pinned: bool,
    /// List blobs in place of images; a pattern is looked for in their digests
    #[arg(long)]
    blobs: bool,
    /// Print in this order; without it, in the order of the disk, at once
    #[arg(long, value_name = "COLUMN")]
    sort: Option<Sort>,
    /// End with a line of totals
    #[arg(long)]
    totals: bool,
    /// Print one JSON object a line; sizes are in bytes
    #[arg(long, conflicts_with_all = ["header", "short_digest"])]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// By name, then tag or digest
    Name,
    /// The oldest first
    Created,
    /// The one not used for longest first
    Pulled,
    /// The largest first
    Size,
}

type Out = BufWriter<StdoutLock<'static>>;

/// A row of either list.
trait Row<const N: usize>: serde::Serialize + Sized {
    fn columns() -> [Column; N];
    fn cells(&self, short: bool) -> [String; N];
    /// Compares by name, by creation, by use, by size from the largest.
    fn by(&self, other: &Self, sort: Sort) -> std::cmp::Ordering;
}

impl Row<6> for ListedImage {
    fn columns() -> [Column; 6] {
        let column = |title, cut| Column { title, right: false, cut };
        [
            column("IMAGE", Cut::Beginning),
            column("TAG/DIGEST", Cut::End),
            column("TYPE", Cut::Never),
            column("CREATED", Cut::Never),
            column("PULLED", Cut::Never),
            Column { title: "SIZE(MB)", right: true, cut: Cut::Never },
        ]
    }

    fn cells(&self, short: bool) -> [String; 6] {
        [
            self.image.clone(),
            self.tag.clone().unwrap_or_else(|| digest(&self.digest, short)),
            self.kind.as_str().to_owned(),
            time(self.created),
            time(self.pulled),
            megabytes(self.size),
        ]
    }

    fn by(&self, other: &Self, sort: Sort) -> std::cmp::Ordering {
        let name = |row: &Self| (row.image.clone(), row.tag.clone(), row.digest);
        match sort {
            Sort::Name => name(self).cmp(&name(other)),
            Sort::Created => self.created.cmp(&other.created),
            Sort::Pulled => self.pulled.cmp(&other.pulled),
            Sort::Size => other.size.cmp(&self.size),
        }
    }
}

impl Row<3> for ListedBlob {
    fn columns() -> [Column; 3] {
        [
            Column { title: "DIGEST", right: false, cut: Cut::End },
            Column { title: "CREATED", right: false, cut: Cut::Never },
            Column { title: "SIZE(MB)", right: true, cut: Cut::Never },
        ]
    }

    fn cells(&self, short: bool) -> [String; 3] {
        [digest(&self.digest, short), time(self.created), megabytes(self.size)]
    }

    fn by(&self, other: &Self, sort: Sort) -> std::cmp::Ordering {
        match sort {
            Sort::Name => self.digest.cmp(&other.digest),
            Sort::Created | Sort::Pulled => self.created.cmp(&other.created),
            Sort::Size => other.size.cmp(&self.size),
        }
    }
}

/// Prints rows, as they come or as a table.
enum Printer<const N: usize, W: Write> {
    Json(W),
    Table { table: Table<N, W>, short: bool },
}

impl<const N: usize, W: Write> Printer<N, W> {
    fn row(&mut self, row: &impl Row<N>) -> io::Result<()> {
        match self {
            Self::Json(out) => {
                serde_json::to_writer(&mut *out, row)?;
                writeln!(out)
            }
            Self::Table { table, short } => table.row(row.cells(*short)),
        }
    }

    fn end(self) -> io::Result<W> {
        match self {
            Self::Json(out) => Ok(out),
            Self::Table { table, .. } => table.end(),
        }
    }
}

impl List {
    pub fn run(self, global: &GlobalOptions) -> Result<(), Error> {
        let folder = Folder::open(&global.image_path()?)?;
        let request = ListRequest { patterns: self.pattern.clone(), pinned: self.pinned };
        let (rows, mut out) = if self.blobs {
            self.print(|tell| folder.list_blobs(&request, tell))?
        } else {
            let mut missing: Vec<String> = folder.pins()?.names().map(str::to_owned).collect();
            let (rows, mut out) = self.print(|tell| {
                folder.list(&request, &mut |row: ListedImage| {
                    missing.retain(|name| *name != full_name(&row));
                    tell(row)
                })
            })?;
            if self.pinned && !self.json {
                for name in missing {
                    writeln!(out, "{name} is pinned and not in the cache").map_err(Error::Output)?;
                }
            }
            (rows, out)
        };
        if self.totals {
            let usage = folder.usage(&Pace::free())?;
            self.print_totals(rows, &usage, &mut out).map_err(Error::Output)?;
        }
        out.flush().map_err(Error::Output)
    }

    /// Prints what `list` tells; how many that were, and where more can be written.
    fn print<const N: usize, R: Row<N>>(
        &self,
        list: impl FnOnce(&mut dyn FnMut(R) -> ControlFlow<()>) -> Result<(), CareError>,
    ) -> Result<(u64, Out), Error> {
        let out = BufWriter::new(io::stdout().lock());
        let mut printer = if self.json {
            Printer::Json(out)
        } else {
            let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
            let width = width.filter(|_| io::stdout().is_terminal());
            Printer::Table {
                table: Table::new(R::columns(), self.header, width, out),
                short: self.short_digest,
            }
        };
        let (mut count, mut held, mut printed) = (0, Vec::new(), Ok(()));
        let mut row = |row: &R| {
            printed = printer.row(row);
            if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        list(&mut |listed| {
            count += 1;
            if self.sort.is_some() {
                held.push(listed);
                return ControlFlow::Continue(());
            }
            row(&listed)
        })?;
        if let Some(sort) = self.sort {
            held.sort_by(|a, b| a.by(b, sort).then_with(|| a.by(b, Sort::Name)));
            let _ = held.iter().try_for_each(&mut row);
        }
        printed.map_err(Error::Output)?;
        Ok((count, printer.end().map_err(Error::Output)?))
    }

    fn print_totals(&self, rows: u64, usage: &Usage, out: &mut impl Write) -> io::Result<()> {
        if self.json {
            let totals =
                serde_json::json!({ "listed": rows, "blobs": usage.blobs, "manifests": usage.manifests });
            return writeln!(out, "{}", serde_json::json!({ "totals": totals }));
        }
        writeln!(
            out,
            "{rows} listed; the cache holds {} blobs and {} manifests, {} MB",
            usage.blobs.files,
            usage.manifests.files,
            megabytes(usage.bytes())
        )
    }
}

fn full_name(row: &ListedImage) -> String {
    match &row.tag {
        Some(tag) => format!("{}:{tag}", row.image),
        None => format!("{}@{}", row.image, row.digest),
    }
}

fn digest(digest: &Digest, short: bool) -> String {
    if short { format!("{}:{}", digest.algorithm().name(), &digest.hex()[..12]) } else { digest.to_string() }
}

/// As `prune --date` takes it.
fn time(time: Timestamp) -> String {
    time.to_zoned_datetime(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

/// Of a million bytes.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / 1e6)
}
