//! `ociregistry list`

use std::cmp::Ordering;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::path::Path;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::admin::AdminOptions;
use super::{Error, GlobalOptions, pattern};
use crate::admin::Table;
use crate::admin::text::{Row, megabytes};
use crate::oci::{Image, Reference};
use crate::store::care::{BlobsRequest, Folder, ListReport, ListRequest, ListedBlob, ListedImage};

const EXAMPLES: &str = "\
Examples:
  What was not used for longest, with what it takes:
    ociregistry list --sort pulled --header

  All of two repositories, for a script:
    ociregistry list --pattern 'quay.io/team/a:,quay.io/team/b:' --json | jq -r .digest

The daemon is asked where one serves, else the cache's folder is read.

Exit codes: 0 all is listed, 1 some manifests could not be read.";

/// List the images in the cache
///
/// One line for each tag, and for each manifest that no tag of its repository points to, or that was asked for or pinned by its
/// digest. An image for several
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
    /// Only what is pinned, in the cache or not; as JSON, what is not has "missing": true and no size
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
    #[command(flatten)]
    admin: AdminOptions,
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

/// A row that can be sorted.
trait Sorted {
    /// Compares by name, by creation, by use, by size from the largest.
    fn by(&self, other: &Self, sort: Sort) -> Ordering;
}

impl Sorted for ListedImage {
    fn by(&self, other: &Self, sort: Sort) -> Ordering {
        let name = |row: &Self| (row.image.clone(), row.tag.clone(), row.digest);
        match sort {
            Sort::Name => name(self).cmp(&name(other)),
            Sort::Created => self.created.cmp(&other.created),
            Sort::Pulled => self.pulled.cmp(&other.pulled),
            Sort::Size => other.size.cmp(&self.size),
        }
    }
}

impl Sorted for ListedBlob {
    fn by(&self, other: &Self, sort: Sort) -> Ordering {
        match sort {
            Sort::Name => self.digest.cmp(&other.digest),
            Sort::Created | Sort::Pulled => self.created.cmp(&other.created),
            Sort::Size => other.size.cmp(&self.size),
        }
    }
}

/// As a row, of what is pinned and not in the cache.
fn missing(Image { name, reference }: &Image) -> Value {
    let (tag, digest) = match reference {
        Reference::Tag(tag) => (Some(tag.to_string()), None),
        Reference::Digest(digest) => (None, Some(digest.to_string())),
    };
    json!({ "image": name.to_string(), "tag": tag, "digest": digest, "pinned": true, "missing": true })
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
        let open = |path: &Path| Ok(Folder::open(path)?);
        let (patterns, totals) = (self.pattern.clone(), self.totals);
        let (report, mut out) = if self.blobs {
            let request = BlobsRequest { patterns, totals, ..BlobsRequest::default() };
            self.print(|each| self.admin.command(global, &request, open, each))?
        } else {
            let request = ListRequest { patterns, totals, pinned: self.pinned, ..ListRequest::default() };
            self.print(|each| self.admin.command(global, &request, open, each))?
        };
        self.print_end(&report, &mut out).map_err(Error::Output)?;
        out.flush().map_err(Error::Output)?;
        match report.unreadable {
            0 => Ok(()),
            many => Err(Error::Failed(format!(
                "{many} manifests cannot be read, and the sizes of their images are too small: `ociregistry check` names them"
            ))),
        }
    }

    /// Prints what `list` tells; what it came to, and where more can be written.
    fn print<const N: usize, R: Row<N> + Sorted>(
        &self,
        list: impl FnOnce(&mut dyn FnMut(R) -> Result<(), Error>) -> Result<ListReport, Error>,
    ) -> Result<(ListReport, Out), Error> {
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
        let mut held = Vec::new();
        let report = list(&mut |row: R| {
            if self.sort.is_some() {
                held.push(row);
                return Ok(());
            }
            printer.row(&row).map_err(Error::Output)
        })?;
        if let Some(sort) = self.sort {
            held.sort_by(|a, b| a.by(b, sort).then_with(|| a.by(b, Sort::Name)));
            held.iter().try_for_each(|row| printer.row(row)).map_err(Error::Output)?;
        }
        Ok((report, printer.end().map_err(Error::Output)?))
    }

    /// What comes below the rows.
    fn print_end(&self, report: &ListReport, out: &mut impl Write) -> io::Result<()> {
        for name in &report.missing {
            match name.parse::<Image>() {
                Ok(image) if self.json => writeln!(out, "{}", missing(&image))?,
                _ if self.json => {}
                _ => writeln!(out, "{name} is pinned and not in the cache")?,
            }
        }
        let (listed, Some(usage)) = (report.listed, report.usage) else { return Ok(()) };
        if self.json {
            let totals = json!({ "listed": listed, "blobs": usage.blobs, "manifests": usage.manifests });
            return writeln!(out, "{}", json!({ "totals": totals }));
        }
        writeln!(
            out,
            "{listed} listed; the cache holds {} blobs and {} manifests, {} MB",
            usage.blobs.files,
            usage.manifests.files,
            megabytes(usage.bytes())
        )
    }
}
